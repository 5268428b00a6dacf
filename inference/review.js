// The view in which a person says of each detection whether it is right. Verdicts are kept in the browser under the
// identity of the recordings' folder, which its pages share, and saved as a table that --annotations reads
// (catalog/reviews.py).

const R = data.review;
const ROW_HEIGHT = 30; // px of a row of the list, as in the style sheet
const WORD = { y: "yes", n: "no", u: "unsure", o: "other" };
const MARK = { y: "\u2713", n: "\u2717", u: "?", o: "\u2192" };
const STORED = `review:${R.identity}`;
const Z = 1.959964; // of an interval of 95 %
const MOST_CHOICES = 10; // species that are offered at once
const NO_LABEL = /^[=+\-@'\s]|[;\x00-\x1f\x7f]/; // what split_data.py refuses

const choice = { species: -1, low: Math.floor(data.threshold * 20) / 20, high: 1, verdict: "all", order: R.first_order };
let items = []; // of the list, numbers of detections in order
let current = -1; // place in it
let isKept = true; // whether this browser keeps verdicts
let chooser = null; // the open list of species
const parts = {}; // of the view: status, estimate, card, rows, ...

// Detections -----------------------------------------------------------------------------------------------

const nameOf = (one) => data.recordings[R.recording[one]].name;
const labelOf = (one) => data.species[R.species[one]].label;
// With the length, for another recording may come to have the name.
const keyOf = ({ name, seconds }, start, label) => [name, seconds.toFixed(1), start.toFixed(3), label].join("\t");
const keys = R.score.map((_, one) => keyOf(data.recordings[R.recording[one]], R.start[one], labelOf(one)));
const binOf = (value) => Math.min(R.n_bins - 1, Math.floor(value * R.n_bins));

const clipsByKey = new Map(data.recordings.flatMap((recording) =>
  recording.clips.map((clip) => [keyOf(recording, clip.start, data.species[clip.species].label), clip])));

let verdicts = readStored(); // by key: [verdict, labels, note]

function readStored() {
  try {
    return JSON.parse(localStorage.getItem(STORED) || "{}");
  } catch {
    isKept = false;
    return {};
  }
}

const verdictOf = (one) => verdicts[keys[one]]?.[0] || "";

function setVerdict(one, verdict, labels, note) {
  if (verdict || note) verdicts[keys[one]] = [verdict, labels, note];
  else delete verdicts[keys[one]];
  try {
    localStorage.setItem(STORED, JSON.stringify(verdicts));
  } catch {
    isKept = false;
  }
}

// Precision ------------------------------------------------------------------------------------------------

// The rank of each detection among those of its stratum that may be drawn: its score bin, of its species if one is
// chosen. Sorted by it, every bin comes in turn.
function rankAll(ofSpecies) {
  const seen = new Map();
  const ranks = new Int32Array(R.score.length);
  const byOrder = R.order.map((_, one) => one).sort((a, b) => R.order[a] - R.order[b]);
  for (const one of byOrder) {
    const stratum = binOf(R.score[one]) + (ofSpecies ? R.n_bins * R.species[one] : 0);
    ranks[one] = seen.get(stratum) || 0;
    seen.set(stratum, ranks[one] + 1);
  }
  return ranks;
}

const ranksOf = { all: null, own: null };
function ranks() {
  const kind = choice.species < 0 ? "all" : "own";
  ranksOf[kind] ??= rankAll(kind === "own");
  return ranksOf[kind];
}

// Strata of the score bins that lie wholly in the range: N detections, n drawn and decided, x of them right. What was
// drawn is the beginning of the random order, up to the first one without a verdict.
function strata() {
  const found = [];
  for (let bin = 0; bin < R.n_bins; bin += 1) {
    if (bin / R.n_bins < choice.low - 1e-9 || (bin + 1) / R.n_bins > choice.high + 1e-9) continue;
    const N = choice.species < 0 ? R.counts.reduce((sum, one) => sum + one[bin], 0) : R.counts[choice.species][bin];
    const drawn = R.score.map((_, one) => one)
      .filter((one) => binOf(R.score[one]) === bin && (choice.species < 0 || R.species[one] === choice.species))
      .sort((a, b) => R.order[a] - R.order[b])
      .slice(0, R.depth === null ? undefined : R.depth);
    const open = drawn.findIndex((one) => !verdictOf(one));
    const words = drawn.slice(0, open < 0 ? undefined : open).map(verdictOf);
    const n = words.filter((word) => word !== "u").length;
    if (N) found.push({ N, n, x: words.filter((word) => word === "y").length });
  }
  return found;
}

// Stratified estimate of the share that is right, with an interval of 95 %: the score interval of Wilson (1927) with the
// effective sample size of a stratified sample (Korn and Graubard 1998; Franco et al. 2019). Within a stratum the
// variance is that of (x + 1) / (n + 2), so that three of three are not certain, and shrinks as all are reviewed.
function precision(found) {
  const used = found.filter(({ n }) => n > 0);
  const total = used.reduce((sum, { N }) => sum + N, 0);
  if (!total) return null;
  let [p, smooth, variance] = [0, 0, 0];
  for (const { N, n, x } of used) {
    const weight = N / total;
    const rate = (x + 1) / (n + 2);
    p += weight * x / n;
    smooth += weight * rate;
    variance += weight ** 2 * rate * (1 - rate) / n * Math.max(0, 1 - n / N);
  }
  const n = used.reduce((sum, one) => sum + one.n, 0);
  const open = found.length - used.length;
  if (variance < 1e-12) return { p, low: p, high: p, n, total, open };
  const size = smooth * (1 - smooth) / variance;
  const middle = (p + Z * Z / (2 * size)) / (1 + Z * Z / size);
  const half = Z / (1 + Z * Z / size) * Math.sqrt(p * (1 - p) / size + Z * Z / (4 * size * size));
  return { p, low: Math.max(0, middle - half), high: Math.min(1, middle + half), n, total, open };
}

function estimateText() {
  if (!R.counts) return "";
  const found = strata();
  const name = choice.species < 0 ? "all species" : data.species[choice.species].common;
  const range = `${name}, scores ${choice.low} to ${choice.high}`;
  const got = precision(found);
  if (!got) return `Precision of ${range}: review in the order \u201cdrawn\u201d for an estimate.`;
  const two = (value) => value.toFixed(2);
  const open = got.open ? `; ${plural(got.open, "score bin")} not reviewed yet` : "";
  return `Precision of ${range}: ${two(got.p)} (${two(got.low)} to ${two(got.high)}), from ` +
    `${plural(got.n, "drawn clip")} of ${plural(got.total, "detection")}${open}.`;
}

// The list -------------------------------------------------------------------------------------------------

const ORDERS_OF_REVIEW = {
  drawn: (rank) => (a, b) => rank[a] - rank[b] || R.order[a] - R.order[b],
  listed: () => (a, b) => a - b,
  score: () => (a, b) => R.score[b] - R.score[a] || a - b,
  least: () => (a, b) => R.score[a] - R.score[b] || a - b,
};

function choose() {
  const isOpen = choice.verdict === "open";
  items = [];
  for (let one = 0; one < R.score.length; one += 1) {
    if (choice.species >= 0 && R.species[one] !== choice.species) continue;
    if (R.score[one] < choice.low || R.score[one] > choice.high) continue;
    const verdict = verdictOf(one);
    if (choice.verdict !== "all" && (isOpen ? verdict !== "" : verdict !== choice.verdict)) continue;
    items.push(one);
  }
  items.sort(ORDERS_OF_REVIEW[choice.order](choice.order === "drawn" ? ranks() : null));
}

function refilter(wanted = null) {
  choose();
  const place = wanted === null ? -1 : items.indexOf(wanted);
  const open = items.findIndex((one) => !verdictOf(one));
  current = place >= 0 ? place : Math.max(0, open);
  parts.spacer.style.height = `${items.length * ROW_HEIGHT}px`;
  redraw();
}

function redraw() {
  drawCard();
  drawStatus();
  reveal();
  drawRows();
}

function drawStatus() {
  const tally = { y: 0, n: 0, u: 0, o: 0 };
  for (const key of keys) if (verdicts[key]?.[0]) tally[verdicts[key][0]] += 1;
  const done = tally.y + tally.n + tally.u + tally.o;
  const words = Object.entries(tally).filter(([, n]) => n).map(([key, n]) => `${n.toLocaleString("en")} ${WORD[key]}`);
  const all = R.counts ? R.counts.flat().reduce((sum, n) => sum + n, 0) : keys.length;
  const rest = all > keys.length ? ` (of ${all.toLocaleString("en")}, drawn at random from each score bin)` : "";
  parts.status.textContent = `${done.toLocaleString("en")} of ${plural(keys.length, "detection")}${rest} reviewed` +
    `${words.length ? `: ${words.join(", ")}` : ""}. ${plural(items.length, "detection")} in the list.`;
  parts.estimate.textContent = estimateText();
  parts.unkept.hidden = isKept;
  parts.save.disabled = !done;
}

// Only the rows in sight are in the page, so that it does not matter how many there are.
function drawRows() {
  const first = Math.max(0, Math.floor(parts.rows.scrollTop / ROW_HEIGHT) - 4);
  const last = Math.min(items.length, first + Math.ceil(parts.rows.clientHeight / ROW_HEIGHT) + 8);
  parts.spacer.replaceChildren(...items.slice(first, last).map((one, n) => rowOf(one, first + n)));
  parts.rows.setAttribute("aria-activedescendant", items.length ? `row-${items[current]}` : "");
}

function rowOf(one, place) {
  const verdict = verdictOf(one);
  const others = verdicts[keys[one]]?.[1] || [];
  const said = verdict ? `${MARK[verdict]} ${WORD[verdict]}${others.length ? `: ${others.map(commonOf).join(", ")}` : ""}` : "";
  return make("div", { class: place === current ? "row current" : "row", id: `row-${one}`, role: "option",
    style: `top: ${place * ROW_HEIGHT}px`, "aria-selected": String(place === current), "aria-setsize": items.length,
    "aria-posinset": place + 1, onclick: () => go(place) },
  make("span", {}, data.species[R.species[one]].common),
  make("span", { class: "number" }, score(R.score[one])),
  make("span", { class: `said ${WORD[verdict] || ""}` }, said),
  make("span", { class: "quiet" }, `${nameOf(one)} ${exactly(R.start[one])}`));
}

function reveal() {
  const top = current * ROW_HEIGHT;
  const { scrollTop, clientHeight } = parts.rows;
  if (top < scrollTop) parts.rows.scrollTop = top;
  else if (top + ROW_HEIGHT > scrollTop + clientHeight) parts.rows.scrollTop = top + ROW_HEIGHT - clientHeight;
}

function go(place, isMove = true) {
  if (!items.length) return;
  stop();
  current = Math.min(Math.max(place, 0), items.length - 1);
  redraw();
  if (isMove && parts.atOnce.checked) parts.card.querySelector(".play button")?.click();
}

// The detection that is judged -----------------------------------------------------------------------------

const commonOf = (label) => R.classes.find((one) => one[0] === label)?.[2] || label;

function mediaOf(one) {
  const clip = clipsByKey.get(keys[one]);
  if (clip && data.media[clip.media].image) return { media: data.media[clip.media], curve: clip.curve };
  const path = [R.folder, nameOf(one)].join("/").split("/").map(encodeURIComponent).join("/");
  return { media: { src: path, begin: R.start[one], seconds: R.end[one] - R.start[one] }, curve: [] };
}

function drawCard() {
  closeChooser();
  if (!items.length) {
    parts.card.replaceChildren(make("p", {}, "No detection is as chosen above."));
    return;
  }
  const one = items[current];
  const { common, scientific, label } = data.species[R.species[one]];
  const [verdict, others, note] = verdicts[keys[one]] || ["", [], ""];
  const { media, curve } = mediaOf(one);
  const where = `${exactly(R.start[one])} to ${exactly(R.end[one])}`;
  const link = make("a", { href: `#r${R.recording[one]}` }, `${nameOf(one)}, ${where}`);
  const head = make("h3", {}, common, " ", make("i", { class: "quiet" }, scientific === common ? "" : scientific), " ",
    make("span", { class: "quiet" }, label === common ? "" : label), make("span", { class: "number" }, score(R.score[one])));
  const button = (key, text) => make("button", { type: "button", "aria-pressed": String(verdict === key),
    class: WORD[key], onclick: () => (key === "o" ? openChooser() : judge(key)) }, text);
  const field = make("input", { class: "note", placeholder: "Note", "aria-label": "Note", value: note,
    onchange: (event) => setVerdict(one, verdictOf(one), verdicts[keys[one]]?.[1] || [], event.target.value) });
  const said = others.length ? make("p", { class: "heard" }, `heard: ${others.map(commonOf).join(", ")}`) : "";
  parts.card.replaceChildren(head, ...soundOf(media, curve, `${common}, ${where}`, link), make("div", { class: "verdicts" },
    button("y", "Yes (y)"), button("n", "No (n)"), button("u", "Unsure (u)"), button("o", "Other species (s)")),
  said, field);
}

function soundOf(media, curve, text, link) {
  if (media.image) {
    const [picture, controls] = mediaParts(media, curve, text, link);
    controls.classList.add("play");
    return [picture, controls];
  }
  const line = make("div", { class: "head" });
  const play_ = make("button", { type: "button", "aria-label": `Play ${text}` }, "Play");
  play_.addEventListener("click", () => play(media, play_, line, null));
  return [make("div", { class: "bar" }, line, make("span", { class: "quiet" },
    "No picture in this page; it plays from the recording")), make("div", { class: "controls play" }, play_, link)];
}

player.addEventListener("error", () => {
  const bar = parts.card?.querySelector(".bar .quiet");
  if (bar) bar.textContent = "The recording is not where it lay when this page was written, or of a kind that browsers do not play";
  stop();
});

function judge(verdict, others = []) {
  if (!items.length) return;
  const one = items[current];
  setVerdict(one, verdict, others, verdicts[keys[one]]?.[2] || "");
  if (verdict) next();
  else refilter(one);
}

// Goes on to the next; one that is no longer as chosen leaves the list.
function next() {
  const place = current;
  const after = items[current + 1];
  if (choice.verdict === "all") return go(place + 1);
  choose();
  parts.spacer.style.height = `${items.length * ROW_HEIGHT}px`;
  const found = items.indexOf(after);
  go(found >= 0 ? found : items.length - 1);
}

// Choosing another species ---------------------------------------------------------------------------------

function openChooser() {
  if (!items.length) return;
  closeChooser();
  const list = make("ul", { role: "listbox", id: "choices" });
  const input = make("input", { type: "search", placeholder: "Species; Enter takes it, Shift+Enter adds it and stays",
    "aria-label": "Species that is heard", role: "combobox", "aria-expanded": "true", "aria-controls": "choices",
    oninput: () => offer(), onkeydown: (event) => pressInChooser(event) });
  chooser = { list, input, offered: [], at: 0, box: make("div", { class: "chooser" }, input, list) };
  parts.card.append(chooser.box);
  offer();
  input.focus();
}

function closeChooser() {
  chooser?.box.remove();
  chooser = null;
}

function offer() {
  const text = chooser.input.value.trim().toLowerCase();
  const begins = (one) => one.some((name) => ` ${name.toLowerCase()}`.includes(` ${text}`)); // a word of it
  const fits = R.classes.filter((one) => one.some((name) => name.toLowerCase().includes(text)));
  fits.sort((a, b) => begins(b) - begins(a) || a[2].localeCompare(b[2]));
  chooser.offered = fits.slice(0, MOST_CHOICES).map(([label, scientific, common]) => ({ label,
    text: [common, scientific, label].filter((name, n, all) => all.indexOf(name) === n).join(", ") }));
  const typed = chooser.input.value.trim();
  const isKnown = R.classes.some((one) => one.some((name) => name.toLowerCase() === text));
  if (typed && !isKnown && !NO_LABEL.test(typed)) chooser.offered.push({ label: typed, text: `new label: ${typed}` });
  chooser.at = Math.min(chooser.at, Math.max(0, chooser.offered.length - 1));
  drawOffered();
}

function drawOffered() {
  chooser.list.replaceChildren(...chooser.offered.map((one, n) => make("li", { role: "option",
    "aria-selected": String(n === chooser.at), onclick: (event) => take(one.label, event.shiftKey) }, one.text)));
}

function pressInChooser(event) {
  const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (move) {
    chooser.at = Math.min(Math.max(chooser.at + move, 0), chooser.offered.length - 1);
    drawOffered();
  } else if (event.key === "Enter" && chooser.offered.length) take(chooser.offered[chooser.at].label, event.shiftKey);
  else if (event.key === "Escape") redraw();
  else return;
  event.preventDefault();
}

// A second one is added to the first, and one that is there already is taken away. "Yes" stays: both are heard.
function take(label, stays) {
  const one = items[current];
  const [verdict, others, note] = verdicts[keys[one]] || ["", [], ""];
  const isOwn = label === labelOf(one);
  const left = others.filter((other) => other !== label);
  const now = isOwn ? others : left.length < others.length ? left : [...others, label];
  const word = isOwn || verdict === "y" ? "y" : now.length ? "o" : "";
  setVerdict(one, word, now, note);
  if (stays || !word) {
    refilter(one);
    openChooser();
  } else next();
}

// Saving ---------------------------------------------------------------------------------------------------

// A cell that a spreadsheet would run gets an apostrophe, a path that looks like one begins with ./, as in every table.
function cell(text) {
  const safe = /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function tableText() {
  const decided = new Map(); // by recording
  keys.forEach((_, one) => {
    if (verdictOf(one)) decided.set(R.recording[one], [...(decided.get(R.recording[one]) || []), one]);
  });
  const rows = [R.columns.join(",")];
  keys.forEach((key, one) => {
    const [verdict, others, note] = verdicts[key] || ["", [], ""];
    const beside = decided.get(R.recording[one]) || [];
    const overlaps = beside.some((other) => R.start[other] < R.end[one] && R.end[other] > R.start[one]);
    if (!verdict && !overlaps) return; // one that nobody judged, in a clip that was heard, is not known
    const labels = { y: [labelOf(one), ...others], o: others }[verdict] || [];
    const path = /^'*[=+\-@\t\r]/.test(nameOf(one)) ? `./${nameOf(one)}` : nameOf(one);
    const row = { filename: path, start_s: R.start[one], end_s: R.end[one], label: labels.join(";"),
      verdict: WORD[verdict] || "", detected: labelOf(one), score: R.score[one].toFixed(4), note };
    rows.push(R.columns.map((name) => cell(String(row[name]))).join(","));
  });
  return `${rows.join("\n")}\n`;
}

function save() {
  const address = URL.createObjectURL(new Blob([tableText()], { type: "text/csv" }));
  make("a", { href: address, download: R.save_as }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

// The view -------------------------------------------------------------------------------------------------

function field(text, control) {
  return make("label", {}, make("span", { class: "quiet" }, text), control);
}

function select(name, options) {
  const control = make("select", { onchange: (event) => {
    choice[name] = name === "species" ? Number(event.target.value) : event.target.value;
    refilter();
  } }, ...options.map(([value, text]) => make("option", { value }, text)));
  control.value = String(choice[name]);
  return control;
}

function limit(name) {
  return make("input", { type: "number", min: 0, max: 1, step: 0.05, value: choice[name], class: name,
    onchange: (event) => {
      choice[name] = Math.min(1, Math.max(0, Number(event.target.value)));
      refilter();
    } });
}

function controls() {
  const listed = new Int32Array(data.species.length);
  R.species.forEach((number) => (listed[number] += 1));
  const names = data.species.map((one, number) => [number, `${one.common} (${listed[number].toLocaleString("en")})`]);
  names.sort((a, b) => a[1].localeCompare(b[1]));
  const orders = [["drawn", "drawn, for an estimate"], ["score", "highest score"], ["least", "lowest score"],
    ["listed", R.counts ? "recording and time" : "as suggested"]];
  const said = Object.entries(WORD).map(([key, word]) => [key, word]);
  return make("div", { class: "choices" },
    field("Species", select("species", [[-1, `all species (${keys.length.toLocaleString("en")})`], ...names])),
    field("Score from", limit("low")), field("to", limit("high")),
    field("Verdict", select("verdict", [["all", "all"], ["open", "none yet"], ...said])),
    field("Order", select("order", R.counts ? orders : orders.slice(1))));
}

function reviewView() {
  const species = Number(location.hash.split("/")[1] ?? -1);
  if (species < data.species.length && location.hash.includes("/")) choice.species = species;
  parts.status = make("p", { class: "quiet status", role: "status" });
  parts.estimate = make("p", { class: "estimate" });
  parts.unkept = make("p", { class: "alarm", hidden: "" },
    "This browser keeps nothing for this page: save the table before you close it.");
  parts.save = make("button", { type: "button", class: "save", onclick: () => save() }, "Save the verdicts as a table");
  parts.atOnce = make("input", { type: "checkbox", id: "at-once" });
  parts.card = make("article", { class: "clip judged" });
  parts.spacer = make("div", { class: "spacer" });
  parts.rows = make("div", { class: "rows", tabindex: "0", role: "listbox", "aria-label": "Detections",
    onscroll: () => drawRows() }, parts.spacer);
  return [
    steps(),
    make("h2", { tabindex: "-1" }, R.counts ? "Review detections" : "Review suggested clips"),
    controls(), parts.estimate,
    make("div", { class: "judging" }, parts.card, parts.rows),
    make("div", { class: "after" }, parts.save, ...loading(), make("label", { class: "quiet", for: "at-once" }, parts.atOnce, " play each at once")),
    parts.status, parts.unkept,
    make("p", { class: "quiet keys" }, "Keys: y yes, n no, u unsure, s another species, x takes a verdict back, j and k or " +
      "the arrows go on and back, space plays."),
  ];
}

function placeReview() {
  refilter(items[current] ?? null);
}

const ACTIONS = {
  y: () => judge("y", verdicts[keys[items[current]]]?.[1] || []), n: () => judge("n"), u: () => judge("u"),
  x: () => judge(""), s: () => openChooser(), " ": () => parts.card.querySelector(".play button")?.click(),
  j: () => go(current + 1), ArrowDown: () => go(current + 1), ArrowRight: () => go(current + 1),
  k: () => go(current - 1), ArrowUp: () => go(current - 1), ArrowLeft: () => go(current - 1),
};

addEventListener("keydown", (event) => {
  if (document.body.dataset.view !== "review" || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
  if (event.key === "Escape" && event.target.matches(".note")) event.target.blur();
  const action = ACTIONS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (typing || !action) return;
  event.preventDefault();
  action();
});

addEventListener("storage", (event) => { // another window of the same page
  if (event.key !== STORED) return;
  verdicts = readStored();
  if (document.body.dataset.view === "review") refilter(items[current] ?? null);
});
