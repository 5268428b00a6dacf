// A saved table of verdicts, or one that another person has filled in, comes back into the review: by a button, or
// dropped on the page. Rows meet detections by recording, start and the species that was found.

const LETTER = { yes: "y", no: "n", unsure: "u", other: "o" };
const NEEDED = ["filename", "start_s", "verdict", "detected"];

function loading() {
  const input = make("input", { type: "file", accept: ".csv,text/csv", hidden: "", class: "table-file",
    "aria-label": "Table of verdicts", onchange: (event) => loadFiles(event.target.files) });
  parts.load = make("button", { type: "button", class: "load", onclick: () => input.click() }, "Load a saved table");
  parts.loaded = make("p", { class: "quiet loaded", role: "status" });
  return [parts.load, input, parts.loaded];
}

async function loadFiles(files) {
  const said = [];
  for (const file of files) said.push(`${file.name}: ${loadText(await file.text())}`);
  refilter(items[current] ?? null);
  parts.loaded.textContent = said.join(" ");
}

// Rows of cells (RFC 4180): quoted cells may hold commas, quotes that are doubled, and line breaks.
function parseTable(text) {
  const rows = [[]];
  const pattern = /("(?:[^"]|"")*"|[^,"\r\n]*)(,|\r?\n|\r|$)/gy;
  for (let match = pattern.exec(text); match; match = pattern.exec(text)) {
    const [, raw, end] = match;
    rows.at(-1).push(raw.startsWith('"') ? raw.slice(1, -1).replaceAll('""', '"') : raw);
    if (end === "" || pattern.lastIndex >= text.length) break;
    if (end !== ",") rows.push([]);
  }
  return rows.filter((row) => row.length > 1 || row[0]);
}

const plainCell = (text) => text.replace(/^'(?='*[=+\-@\t\r])/, ""); // as `cell` of review.js wrote it
const placeOf = (name, start, label) => [name, Number(start).toFixed(3), label].join("\t");

// Takes the verdicts over and says what came of it. What the table says replaces what the browser had.
function loadText(text) {
  const [header = [], ...rows] = parseTable(text.replace(/^\uFEFF/, ""));
  const missing = NEEDED.filter((name) => !header.includes(name));
  if (missing.length) return `no column ${missing[0]}; load a table that this page has saved.`;

  const places = new Map(keys.map((_, one) => [placeOf(nameOf(one), R.start[one], labelOf(one)), one]));
  const count = { taken: 0, replaced: 0, strange: 0 };
  for (const row of rows) {
    const of = Object.fromEntries(header.map((name, n) => [name, plainCell(row[n] || "")]));
    const verdict = LETTER[Object.keys(LETTER).find((word) => of.verdict && word.startsWith(of.verdict.trim().toLowerCase()))];
    if (!verdict && !of.note) continue;
    const name = of.filename.replace(/^\.\/(?='*[=+\-@\t\r])/, "");
    const one = places.get(placeOf(name, of.start_s, of.detected));
    if (one === undefined) count.strange += 1;
    else takeOver(one, verdict || "", of, count);
  }
  return wordsOf(count);
}

function takeOver(one, verdict, of, count) {
  const labels = (of.label || "").split(";").filter((label) => label && label !== labelOf(one));
  const others = "yo".includes(verdict || "-") ? labels : [];
  const now = JSON.stringify([verdict, others, of.note || ""]);
  const before = verdicts[keys[one]];
  if (before && JSON.stringify(before) !== now) count.replaced += 1;
  count.taken += 1;
  setVerdict(one, ...JSON.parse(now));
}

function wordsOf({ taken, replaced, strange }) {
  const words = [`${plural(taken, "verdict")} loaded`];
  if (replaced) words.push(`${replaced.toLocaleString("en")} in place of others`);
  if (strange) words.push(`${plural(strange, "row")} left out, of no detection on this page`);
  return `${words.join(", ")}.`;
}

for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => {
  if (document.body.dataset.view !== "review" || !event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  if (kind === "drop") loadFiles(event.dataTransfer.files);
});
