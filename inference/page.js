"use strict";
// The parts that pages share: elements, numbers, tables, clips that play. All text goes in as text nodes or attributes,
// never as HTML, so that no name of a file or a species can do more than be read.

const data = JSON.parse(document.getElementById("data").textContent);
const content = document.getElementById("content");
const player = document.getElementById("player");

// Small things ---------------------------------------------------------------------------------------------

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  fill(element, attributes);
  element.append(...children.filter((child) => child !== null));
  return element;
}

function fill(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
}

function makeSvg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  fill(element, attributes);
  element.append(...children);
  return element;
}

function time(seconds, digits = 0) {
  const unit = 10 ** digits;
  const whole = Math.round(seconds * unit) / unit;
  const rest = (whole % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

const exactly = (seconds) => time(seconds, Number.isInteger(Math.round(seconds * 10) / 10) ? 0 : 1);
const score = (value) => (Math.floor(value * 1000) / 1000).toFixed(3); // never shows 1.000 for what is below 1
const plural = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const speciesLink = (number) => make("a", { href: `#s${number}` }, data.species[number].common);

// A scientific name that only repeats the other says nothing.
function speciesNames(number) {
  const { common, scientific } = data.species[number];
  const second = scientific === common ? [] : [" ", make("i", { class: "quiet" }, scientific)];
  return make("span", {}, speciesLink(number), ...second);
}

// Tables ---------------------------------------------------------------------------------------------------

// Columns are {title, value, cell}; rows are anything. Text sorts upwards first, numbers downwards.
function table(columns, rows, first) {
  const body = make("tbody", {});
  const heads = columns.map((column, number) =>
    make("th", { scope: "col", class: column.cell ? null : "number" },
      make("button", { type: "button", onclick: () => sort(number) }, column.title)));
  let order = null;

  function sort(number) {
    const isText = Boolean(columns[number].cell);
    const down = order && order.number === number ? !order.down : !isText;
    order = { number, down };
    const value = columns[number].value;
    const compare = (a, b) => (isText ? value(a).localeCompare(value(b)) : value(a) - value(b));
    body.replaceChildren(...[...rows].sort((a, b) => (down ? compare(b, a) : compare(a, b))).map(rowOf));
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[number].setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  function rowOf(row) {
    return make("tr", {}, ...columns.map(({ cell, value, show = String }) =>
      cell ? make("td", {}, cell(row)) : make("td", { class: "number" }, show(value(row)))));
  }

  sort(first);
  return make("div", { class: "table" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body));
}

// Clips that play ------------------------------------------------------------------------------------------

// The picture of a clip, its curve over it, and its button; `where` stands beside that.
function mediaParts(media, curve, text, where = null) {
  const head = make("div", { class: "head" });
  const button = make("button", { type: "button", "aria-label": `Play ${text}` }, "Play");
  button.addEventListener("click", () => play(media, button, head, null));
  const ticks = data.ticks.map(([height, label]) =>
    make("span", { class: "tick", style: `bottom: ${100 * height}%` }, label));
  const placeOf = (event) => (event.clientX - picture.getBoundingClientRect().left) / picture.clientWidth;
  const picture = make("div", { class: "picture", onclick: (event) => play(media, button, head, placeOf(event)) },
    make("img", { src: `data:image/png;base64,${media.image}`, alt: `Spectrogram of ${text}` }),
    curveOf(curve), ...ticks, head);
  return [picture, make("div", { class: "controls" }, button, where)];
}

function curveOf(curve) {
  const viewBox = `0 0 ${Math.max(1, curve.length - 1)} 100`;
  const svg = makeSvg("svg", { viewBox, preserveAspectRatio: "none", "aria-hidden": "true" });
  const points = curve.map((value, n) => `${n},${100 - value}`).join(" ");
  if (curve.length) svg.append(makeSvg("polyline", { points }), makeSvg("polyline", { points }));
  return svg;
}

let playing = null; // the button and the line of the clip that plays

function stop() {
  if (!playing) return;
  player.pause();
  cancelAnimationFrame(playing.frame);
  playing.button.textContent = "Play";
  playing.head.style.visibility = "hidden";
  playing = null;
}

// Without a place (0 to 1) the button was pressed, which also stops what plays.
function play(media, button, head, place) {
  const again = playing?.button === button;
  if (again && place === null) return stop();
  if (!again) {
    stop();
    playing = { button, head };
    player.src = media.audio ? `data:audio/mpeg;base64,${media.audio}` : media.src;
    button.textContent = "Stop";
    head.style.visibility = "visible";
    moveHead(media);
  }
  player.currentTime = (media.begin || 0) + (place || 0) * media.seconds;
  player.play().catch((error) => error.name === "AbortError" || stop()); // another clip took its turn
}

function moveHead(media) {
  if (!playing) return;
  const done = (player.currentTime - (media.begin || 0)) / media.seconds;
  playing.head.style.left = `${Math.max(0, Math.min(100, 100 * done))}%`;
  if (media.begin !== undefined && done >= 1) return stop(); // a clip of a whole recording
  playing.frame = requestAnimationFrame(() => moveHead(media));
}

player.addEventListener("ended", stop);
