// Draws the page of a run from the data that report.py put beside it, with the parts of page.js.

const MOST_CLIPS = 6; // of a view that is not one recording's
let shown = []; // recordings as listed now, in order

function windowText(clip) {
  return `${exactly(clip.start)} to ${exactly(clip.end)}`;
}

// The list -------------------------------------------------------------------------------------------------

const ORDERS = {
  name: (a, b) => a.number - b.number,
  detections: (a, b) => b.detections - a.detections || a.number - b.number,
  peak: (a, b) => b.peak - a.peak || a.number - b.number,
};

function prepareRecordings() {
  data.recordings.forEach((recording, number) => {
    recording.number = number;
    recording.detections = recording.species.reduce((sum, one) => sum + one.count, 0);
    const names = recording.species.flatMap((one) => Object.values(data.species[one.number]));
    recording.text = [recording.name, recording.status, ...names].join("\n").toLowerCase();
  });
}

function drawList() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/);
  shown = data.recordings.filter((recording) => words.every((word) => recording.text.includes(word)));
  shown.sort(ORDERS[document.getElementById("sort").value]);
  document.getElementById("list").replaceChildren(...shown.map(listItem));
  const all = plural(data.recordings.length, "recording");
  const isAll = shown.length === data.recordings.length;
  document.getElementById("count").textContent = isAll ? all : `${shown.length} of ${all}`;
  markCurrent();
}

function listItem(recording) {
  const about = `${time(recording.seconds)}, ${plural(recording.detections, "detection")}`;
  const status = recording.status === "ok" ? [] : [", ", make("span", { class: "alarm" }, recording.status)];
  return make(
    "li", {},
    make(
      "a", { href: `#r${recording.number}` },
      make("span", { class: "name" }, recording.name),
      make("span", { class: "quiet" }, about, ...status),
      make("span", { class: "number" }, recording.windows ? score(recording.peak) : ""),
    ),
  );
}

function markCurrent() {
  const here = location.hash.split("/")[0];
  for (const link of document.querySelectorAll("#list a")) {
    link.removeAttribute("aria-current");
    if (link.getAttribute("href") === here) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest" });
    }
  }
}

// Views ----------------------------------------------------------------------------------------------------

function tallySpecies() {
  const tally = data.species.map((one, number) => ({ number, count: 0, peak: 0, recordings: 0 }));
  for (const recording of data.recordings) {
    for (const one of recording.species) {
      const sum = tally[one.number];
      sum.count += one.count;
      sum.peak = Math.max(sum.peak, one.peak);
      sum.recordings += 1;
    }
  }
  return tally;
}

function bestClips(isWanted) {
  return data.recordings
    .flatMap((recording) => recording.clips.map((clip, n) =>
      ({ recording, clip, n, chosen: false, place: `${recording.name} at ${exactly(clip.start)}` })))
    .filter((one) => !one.clip.drawn && isWanted(one.clip))
    .sort((a, b) => b.clip.score - a.clip.score)
    .slice(0, MOST_CLIPS);
}

function overview() {
  const hours = data.recordings.reduce((sum, one) => sum + one.seconds, 0) / 3600;
  const count = data.recordings.reduce((sum, one) => sum + one.detections, 0);
  const length = hours < 1 ? plural(Math.round(hours * 60), "minute") : plural(Math.round(hours * 10) / 10, "hour");
  const facts = Object.entries(data.facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  const columns = [
    { title: "Species", value: (row) => data.species[row.number].common, cell: (row) => speciesNames(row.number) },
    { title: "Detections", value: (row) => row.count, show: (n) => n.toLocaleString("en") },
    { title: "Recordings", value: (row) => row.recordings },
    { title: "Highest", value: (row) => row.peak, show: score },
  ];
  return [
    make("h2", { tabindex: "-1" }, "This run"),
    make("p", { class: "quiet" },
      `${R.counts ? `${plural(count, "detection")} at ${data.threshold} or above` : plural(count, "suggested clip")}, of ` +
      `${data.species.length} species in ${plural(data.recordings.length, "recording")}, ${length}`),
    make("dl", {}, ...facts),
    data.species.length ? make("p", { class: "after" }, make("a", { href: "#review" }, "Review detections")) : "",
    ...(data.species.length
      ? [make("h3", {}, "Top detections"), clipGrid(bestClips(() => true)),
        make("h3", {}, "Species found"), table(columns, tallySpecies(), 1), ...activity()]
      : [make("p", {}, `No score reaches ${data.threshold}.`)]),
  ];
}

function activity() {
  if (!data.activity) return [];
  const about = "Detections an hour by day and hour of the day; hours without a recording are grey";
  return [make("h3", {}, "By day and hour"),
    make("img", { class: "activity", alt: about, src: `data:image/png;base64,${data.activity}` })];
}

function speciesView(number) {
  const { common, scientific, label } = data.species[number];
  const rows = data.recordings.flatMap((recording) => {
    const found = recording.species.find((one) => one.number === number);
    return found ? [{ recording, ...found }] : [];
  });
  return [
    steps(),
    make("h2", { tabindex: "-1" }, common),
    make("p", { class: "quiet" }, make("i", {}, scientific === common ? "" : scientific),
      label === common ? "" : ` ${label}`),
    make("p", {}, make("a", { href: `#review/${number}` }, "Review its detections")),
    make("h3", {}, `In ${plural(rows.length, "recording")}`),
    table([
      { title: "Recording", value: (row) => row.recording.name,
        cell: (row) => make("a", { href: `#r${row.recording.number}` }, row.recording.name) },
      { title: "Detections", value: (row) => row.count },
      { title: "Highest", value: (row) => row.peak, show: score },
    ], rows, 2),
    make("h3", {}, "Top detections"),
    clipGrid(bestClips((clip) => clip.species === number)),
  ];
}

function recordingView(number, chosen) {
  const recording = data.recordings[number];
  const counts = [plural(recording.windows, "window"), plural(recording.detections, "detection")];
  const facts = [time(recording.seconds), ...counts, `${recording.species.length} species`];
  const view = [
    steps(recording),
    make("h2", { tabindex: "-1" }, recording.name),
    make("p", { class: "quiet" }, facts.join(", ")),
  ];
  if (recording.status !== "ok") view.push(make("p", { class: "alarm" }, `${recording.status}: ${recording.reason}`));
  if (!recording.species.length) {
    return [...view, make("p", {}, recording.windows
      ? `No score reaches ${data.threshold}; the highest is ${score(recording.peak)}.` : "Nothing was scored.")];
  }
  view.push(make("h3", {}, "Species by time"), heatMap(recording));
  const clips = recording.clips.filter((clip, n) => !clip.drawn || n === chosen).map((clip) => {
    const n = recording.clips.indexOf(clip);
    return { recording, clip, n, chosen: n === chosen, place: windowText(clip) };
  });
  view.push(make("h3", {}, "Top detections"), clipGrid(clips));
  return view;
}

function steps(recording = null) {
  const place = shown.indexOf(recording);
  const step = (by, text) => {
    const other = place < 0 ? undefined : shown[place + by];
    return other ? make("a", { href: `#r${other.number}` }, text) : null;
  };
  return make("div", { class: "steps" }, make("a", { href: "#" }, "This run"),
    step(-1, "Previous recording"), step(1, "Next recording"));
}

// The heat map ---------------------------------------------------------------------------------------------

function heatMap(recording) {
  const { columns, column_s: columnS } = recording.heat;
  const rows = recording.species.slice(0, recording.heat.rows);
  const levels = Uint8Array.from(atob(recording.heat.levels), (letter) => letter.charCodeAt(0)); // rows x columns
  const canvas = make("canvas", { width: columns, height: rows.length });
  paint(canvas, levels);
  const cursor = make("div", { class: "cursor", hidden: "" });
  const readout = make("p", { class: "readout quiet", role: "status" },
    "Stronger colour is a higher score; a line marks a window with a clip below. Point at a cell or use the arrow " +
    "keys to read it; a click or Enter goes to the nearest clip of its species.");
  const at = { row: 0, column: 0 };
  const marks = recording.clips.filter((clip) => !clip.drawn)
    .map((clip) => [rows.findIndex((one) => one.number === clip.species), Math.floor(clip.start / columnS + 1e-6)])
    .filter(([row]) => row >= 0)
    .map(([row, column]) => place(make("div", { class: "mark" }), row, column));
  const about = `Scores of ${rows.length} species over ${time(recording.seconds)}; arrow keys read them out`;
  const map = make("div", { class: "map", tabindex: "0", role: "application", "aria-label": about,
    style: `grid-row: 2 / span ${rows.length}`,
    onfocus: () => move(at.row, at.column), onpointermove: (event) => point(event),
    onpointerleave: () => (cursor.hidden = true), onclick: () => follow(), onkeydown: (event) => press(event),
  }, canvas, ...marks, cursor);

  function place(element, row, column) {
    Object.assign(element.style, { left: `${(100 * column) / columns}%`, width: `${100 / columns}%`,
      top: `${(100 * row) / rows.length}%`, height: `${100 / rows.length}%` });
    return element;
  }

  function move(row, column) {
    at.row = Math.min(Math.max(row, 0), rows.length - 1);
    at.column = Math.min(Math.max(column, 0), columns - 1);
    cursor.hidden = false;
    place(cursor, at.row, at.column);
    const value = levels[at.row * columns + at.column] / 255;
    const end = Math.min(recording.seconds, (at.column + 1) * columnS);
    const name = data.species[rows[at.row].number].common;
    readout.textContent = `${name}, ${exactly(at.column * columnS)} to ${exactly(end)}: ${value.toFixed(2)}`;
  }

  function point(event) {
    const box = canvas.getBoundingClientRect();
    move(Math.floor(((event.clientY - box.top) / box.height) * rows.length),
      Math.floor(((event.clientX - box.left) / box.width) * columns));
  }

  function press(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) move(at.row + step[0], at.column + step[1]);
    else if (event.key === "Enter") follow();
    else return;
    event.preventDefault();
  }

  function follow() {
    const far = (clip) => Math.abs(clip.start - at.column * columnS);
    const ofSpecies = recording.clips.filter((clip) => !clip.drawn && clip.species === rows[at.row].number);
    const near = ofSpecies.sort((a, b) => far(a) - far(b))[0];
    if (near) location.hash = `#r${recording.number}/${recording.clips.indexOf(near)}`;
  }

  const grid = make("div", { class: "heat" },
    make("span", { class: "head" }, "Species"), make("span", { class: "head" }, "Time"),
    make("span", { class: "head number" }, "Count"), make("span", { class: "head number peak" }, "Highest"), map);
  rows.forEach((one, n) => {
    const area = (column) => `grid-area: ${n + 2} / ${column}`;
    const link = speciesLink(one.number);
    fill(link, { style: area(1), title: data.species[one.number].common });
    grid.append(link, make("span", { class: "number", style: area(3) }, String(one.count)),
      make("span", { class: "number peak", style: area(4) }, score(one.peak)));
  });
  grid.append(timeAxis(Math.max(recording.seconds, 0.001), columns * columnS, rows.length + 2));
  const more = recording.species.length - rows.length;
  const rest = more ? make("p", { class: "quiet" }, `and ${more} more species with lower scores`) : null;
  return make("div", {}, grid, rest, readout);
}

function paint(canvas, levels) {
  const [red, green, blue] = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim().slice(1)
    .match(/../g).map((pair) => parseInt(pair, 16));
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  levels.forEach((level, n) => image.data.set([red, green, blue, level], 4 * n));
  context.putImageData(image, 0, 0);
}

function timeAxis(seconds, span, row) {
  const axis = make("div", { class: "axis", style: `grid-row: ${row}`, "aria-hidden": "true" });
  for (let n = 0; n <= 4; n += 1) {
    const left = (25 * n * seconds) / Math.max(span, seconds);
    axis.append(make("span", { style: `left: ${left}%` }, exactly((seconds * n) / 4)));
  }
  return axis;
}

// Clips ----------------------------------------------------------------------------------------------------

function clipGrid(items) {
  const [ofRecording, ofPage] = data.max_clips;
  return items.length
    ? make("div", {},
      make("p", { class: "quiet" }, "The line is the score of each moment, from 0 at the bottom to 1 at the top."),
      make("div", { class: "clips" }, ...items.map(clipCard)))
    : make("p", {}, `None has a clip: the page holds up to ${ofRecording} of a recording and ${ofPage} of the run.`);
}

function clipCard({ recording, clip, n, chosen, place }) {
  const media = data.media[clip.media];
  const name = data.species[clip.species].common;
  const text = `${name}, ${windowText(clip)}`;
  const card = make("article",
    { class: chosen ? "clip chosen" : "clip", id: `clip-${recording.number}-${n}`, "aria-label": text },
    make("h4", {}, speciesLink(clip.species), make("span", { class: "number" }, score(clip.score))));
  const where = make("a", { href: `#r${recording.number}/${n}` }, place);
  if (media.image) card.append(...mediaParts(media, clip.curve, text, where));
  else card.append(make("p", { class: "alarm" }, media.fault), where);
  return card;
}

// Where the address points ---------------------------------------------------------------------------------

let drawn = null; // the view on the page

function show(move) {
  const [, kind, first, second] = location.hash.match(/^#([rs])(\d+)(?:\/(\d+))?$/) || [];
  const number = Number(first);
  const chosen = second === undefined ? null : Number(second);
  let view = "overview";
  if (kind === "r" && number < data.recordings.length) view = "recording";
  if (kind === "s" && number < data.species.length) view = "species";
  if (/^#review(\/|$)/.test(location.hash)) view = "review";
  if (location.hash === "#content") return;
  stop();
  document.body.dataset.view = view;
  const draw = { overview, recording: () => recordingView(number, chosen), species: () => speciesView(number),
    review: () => reviewView() };
  content.replaceChildren(...draw[view]());
  if (view === "review") placeReview();
  document.title = view === "overview" ? "Detections" : `${content.querySelector("h2").textContent}: detections`;
  markCurrent();
  const sameView = drawn === `${view}${number}`;
  drawn = `${view}${number}`;
  if (!move) return;
  const card = document.getElementById(`clip-${number}-${chosen}`);
  if (card) card.scrollIntoView({ block: "nearest" });
  else if (!sameView) { content.scrollTop = 0; scrollTo(0, 0); }
  (card?.querySelector("button") || content.querySelector("h2")).focus({ preventScroll: true });
}

prepareRecordings();
document.getElementById("filter").addEventListener("input", drawList);
document.getElementById("sort").addEventListener("change", drawList);
addEventListener("hashchange", () => show(true));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(false)); // canvases hold their colours
drawList();
if (!R.counts && !location.hash) history.replaceState(null, "", "#review"); // suggestions are there to be reviewed
show(location.hash !== "");
