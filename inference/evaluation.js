// Draws evaluation.html from the data that evaluation_page.py put beside it, with the parts of page.js.

const round = (value, digits = 3) => (value === null ? "" : value.toFixed(digits));
const least = (value) => (value === null ? -1 : value); // species without a score stand last
const nameOf = (number) => (number === null ? "" : data.species[number].common);
const METRICS = {
  macro_ap: "Average precision, mean of species", macro_roc_auc: "ROC-AUC, mean of species",
  cmap_pad_5: "Padded cmAP", top_1: "Label has the highest score", top_5: "Label is among the first five",
};
let shown = []; // rows of species as listed now, in order

// The list -------------------------------------------------------------------------------------------------

const ORDERS = {
  worst: (a, b) => (a.ap ?? 2) - (b.ap ?? 2) || a.number - b.number,
  positives: (a, b) => b.positives - a.positives || a.number - b.number,
  name: (a, b) => nameOf(a.number).localeCompare(nameOf(b.number)),
};

function drawList() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/);
  const textOf = (row) => Object.values(data.species[row.number]).join("\n").toLowerCase();
  shown = data.rows.filter((row) => words.every((word) => textOf(row).includes(word)));
  shown.sort(ORDERS[document.getElementById("sort").value]);
  document.getElementById("list").replaceChildren(...shown.map(listItem));
  const isAll = shown.length === data.rows.length;
  document.getElementById("count").textContent = isAll ? `${shown.length} species` :
    `${shown.length} of ${data.rows.length} species`;
  markCurrent();
}

function listItem(row) {
  return make("li", {}, make("a", { href: `#s${row.number}` },
    make("span", { class: "name" }, nameOf(row.number)),
    make("span", { class: "quiet" }, plural(row.positives, data.unit)),
    make("span", { class: "number" }, round(row.ap))));
}

function markCurrent() {
  for (const link of document.querySelectorAll("#list a")) {
    link.removeAttribute("aria-current");
    if (link.getAttribute("href") === location.hash) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest" });
    }
  }
}

// Views ----------------------------------------------------------------------------------------------------

function overview() {
  const facts = Object.entries(data.facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  const interval = (row) => (row.low === null ? "" : `${round(row.low)} to ${round(row.high)}`);
  const overall = table([
    { title: "Score", value: (row) => row.metric, cell: (row) => METRICS[row.metric] || row.metric },
    { title: "Value", value: (row) => least(row.score), show: (value) => (value < 0 ? "" : round(value)) },
    { title: "95 % interval", value: interval, cell: interval },
    { title: "A model that guesses", value: (row) => least(row.floor), show: (value) => (value < 0 ? "" : round(value)) },
  ], data.overall, 0);
  return [
    make("h2", { tabindex: "-1" }, "How good it is"),
    make("dl", {}, ...facts),
    make("h3", {}, "All species together"), overall,
    make("h3", {}, "Species by species"), speciesTable(),
    make("h3", {}, "Most confused"), confusionTable(data.confusions),
    make("h3", {}, `${data.unit === "window" ? "Windows" : "Recordings"} whose label the scores contradict most`),
    line("it seems to be"), cards(data.worst),
    make("h3", {}, "Those that fit best"), line("its label names"), cards(data.best),
  ];
}

function line(which) {
  const text = `Beside the label its score. The line, where there is one, is the score of each moment of the species that ` +
    `${which}, from 0 at the bottom to 1 at the top.`;
  return make("p", { class: "quiet" }, text);
}

function speciesTable() {
  const score = (title, pick) =>
    ({ title, value: (row) => least(pick(row)), show: (value) => (value < 0 ? "" : round(value)) });
  return table([
    { title: "Species", value: (row) => nameOf(row.number), cell: (row) => speciesNames(row.number) },
    { title: "Positives", value: (row) => row.positives },
    score("Average precision", (row) => row.ap), score("at least", (row) => row.ap_low),
    score("at most", (row) => row.ap_high),
    score("ROC-AUC", (row) => row.auc), score("Best F1", (row) => row.f1),
    score("from score", (row) => row.threshold),
    { title: "Most taken for", value: (row) => nameOf(row.taken_for),
      cell: (row) => (row.taken_for === null ? "" : make("span", {}, speciesLink(row.taken_for), ` (${row.n_taken_for})`)) },
  ], data.rows, 2);
}

function confusionTable(rows) {
  if (!rows.length) return make("p", {}, "None is taken for another.");
  return table([
    { title: "Species", value: (row) => nameOf(row.species), cell: (row) => speciesLink(row.species) },
    { title: "Taken for", value: (row) => nameOf(row.other), cell: (row) => speciesLink(row.other) },
    { title: "Times", value: (row) => row.n },
    { title: "Share of its own", value: (row) => row.share, show: (value) => `${Math.round(100 * value)} %` },
  ], rows, 2);
}

function speciesView(number) {
  const row = data.rows.find((one) => one.number === number);
  const { common, scientific, label } = data.species[number];
  const place = shown.indexOf(row);
  const step = (by, text) => {
    const other = place < 0 ? undefined : shown[place + by];
    return other ? make("a", { href: `#s${other.number}` }, text) : null;
  };
  const facts = [plural(row.positives, data.unit)];
  if (row.ap !== null) facts.push(`average precision ${round(row.ap)} (${round(row.ap_low)} to ${round(row.ap_high)})`);
  if (row.auc !== null) facts.push(`ROC-AUC ${round(row.auc)}`);
  const view = [
    make("div", { class: "steps" }, make("a", { href: "#" }, "All species"), step(-1, "Previous"), step(1, "Next")),
    make("h2", { tabindex: "-1" }, common),
    make("p", { class: "quiet" }, make("i", {}, scientific === common ? "" : scientific),
      label === common ? "" : ` ${label}`),
    make("p", {}, facts.join(", ")),
  ];
  if (!row.curve.length) return [...view, make("p", {}, `No ${data.unit} of it was scored.`)];
  view.push(make("h3", {}, "Precision and recall"), precisionRecall(row),
    make("h3", {}, "Confusions"),
    confusionTable(data.confusions.filter((one) => one.species === number || one.other === number)));
  const own = [...data.worst, ...data.best].filter((one) => one.label === number || one.seems === number);
  if (own.length) view.push(make("h3", {}, "Among the worst and the best"), cards(own));
  return view;
}

// A curve of points [recall, precision, score], with the point of the best F1 on it.
function precisionRecall(row) {
  const at = ([recall, precision]) => `${100 * recall},${100 - 100 * precision}`;
  const best = row.curve.reduce((one, other) => (f1(other) > f1(one) ? other : one));
  const readout = make("p", { class: "readout quiet", role: "status" }, describe(best));
  const dot = makeSvg("circle", { cx: 100 * best[0], cy: 100 - 100 * best[1], r: 1.6 });
  const svg = makeSvg("svg", { viewBox: "0 0 100 100", role: "img", class: "curve",
    "aria-label": `Precision against recall of ${nameOf(row.number)}`,
    onpointermove: (event) => point(event) },
  makeSvg("polyline", { points: row.curve.map(at).join(" ") }), dot);

  function f1([recall, precision]) { return recall + precision ? (2 * recall * precision) / (recall + precision) : 0; }
  function describe(one) {
    return `From a score of ${round(one[2])} on: precision ${round(one[1], 2)}, recall ${round(one[0], 2)}`;
  }
  function point(event) {
    const box = svg.getBoundingClientRect();
    const recall = (event.clientX - box.left) / box.width;
    const near = row.curve.reduce((one, other) => (Math.abs(other[0] - recall) < Math.abs(one[0] - recall) ? other : one));
    fill(dot, { cx: 100 * near[0], cy: 100 - 100 * near[1] });
    readout.textContent = describe(near);
  }
  return make("div", {},
    make("div", { class: "plot" }, make("span", { class: "up" }, "precision, to 1"), svg, make("span", {}, "recall, to 1")),
    readout);
}

function cards(items) {
  if (!items.length) return make("p", {}, "There are none.");
  return make("div", { class: "clips" }, ...items.map(card));
}

function card(item) {
  const names = make("h4", {}, speciesLink(item.label), make("span", { class: "number" }, score(item.label_score)));
  const other = make("p", {}, "next: ", speciesLink(item.seems), ` ${score(item.seems_score)}`);
  const article = make("article", { class: "clip", "aria-label": item.name }, names, other);
  const media = item.media === null ? null : data.media[item.media];
  if (media !== null && media.image) article.append(...mediaParts(media, item.curve, item.name));
  article.append(make("p", { class: "quiet" }, item.name));
  if (media !== null && media.fault) article.append(make("p", { class: "alarm" }, media.fault));
  return article;
}

// Where the address points ---------------------------------------------------------------------------------

function show(move) {
  if (location.hash === "#content") return;
  const [, text] = location.hash.match(/^#s(\d+)$/) || [];
  const number = Number(text);
  const isSpecies = text !== undefined && number < data.species.length;
  stop();
  document.body.dataset.view = isSpecies ? "species" : "overview";
  content.replaceChildren(...(isSpecies ? speciesView(number) : overview()));
  document.title = isSpecies ? `${nameOf(number)}: evaluation` : "Evaluation";
  markCurrent();
  if (!move) return;
  content.scrollTop = 0;
  scrollTo(0, 0);
  content.querySelector("h2").focus({ preventScroll: true });
}

document.getElementById("filter").addEventListener("input", drawList);
document.getElementById("sort").addEventListener("change", drawList);
addEventListener("hashchange", () => show(true));
drawList();
show(location.hash !== "");
