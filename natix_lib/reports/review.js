"use strict";
// Labels are kept by picture and class name, oldest first: undo, a reload and a page with more pictures go on from them.
const page = JSON.parse(document.getElementById("data").textContent);
const part = (name) => document.getElementById(name);
const buttons = [...part("classes").children];
let labels = new Map();
let shown = 0;
let exported = 0;

const isDone = (image) => labels.has(image.key);
const done = () => page.images.filter(isDone).length;
const className = (number) => page.classes[number].name;

function read() {
  try {
    const numbers = new Map(page.classes.map((one, number) => [one.name, number]));
    const kept = JSON.parse(localStorage.getItem(page.slot) ?? "[]").filter(([, name]) => numbers.has(name));
    labels = new Map(kept.map(([key, name]) => [key, numbers.get(name)]));
  } catch {
    part("unkept").hidden = false;
  }
}

function keep() {
  try {
    localStorage.setItem(page.slot, JSON.stringify([...labels].map(([key, number]) => [key, className(number)])));
  } catch {
    part("unkept").hidden = false;
  }
}

function show(text) {
  const image = page.images[shown];
  const number = labels.get(image.key);
  const left = page.images.length - done();
  part("picture").src = image.src;
  part("picture").alt = `Picture ${shown + 1} of ${page.images.length}`;
  part("name").textContent = image.name;
  part("place").textContent = `${shown + 1} of ${page.images.length}`;
  part("counts").textContent = `${done()} done, ${left} left`;
  part("progress").value = done();
  part("said").textContent = text || (number === undefined ? "No label yet" : `Labelled ${className(number)}`);
  buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === number)));
}

function move(step) {
  const to = shown + step;
  if (to < 0 || to >= page.images.length) return show(step < 0 ? "This is the first picture" : "This is the last picture");
  shown = to;
  show();
}

function firstLeft(from) {
  const order = page.images.map((_, number) => (from + number) % page.images.length);
  return order.find((number) => !isDone(page.images[number]));
}

function label(number) {
  const image = page.images[shown];
  labels.delete(image.key);
  labels.set(image.key, number);
  keep();
  const to = firstLeft(shown + 1);
  const text = `Picture ${shown + 1}: ${className(number)}`;
  if (to === undefined) return show(`${text}. All are done: e exports the labels`);
  shown = to;
  show(text);
}

function undo() {
  const places = new Map(page.images.map((image, number) => [image.key, number]));
  const last = [...labels.keys()].filter((key) => places.has(key)).at(-1);
  const key = isDone(page.images[shown]) ? page.images[shown].key : last;
  if (key === undefined) return show("There is no label to take back");
  shown = places.get(key);
  const text = `Took back ${className(labels.get(key))} of picture ${shown + 1}`;
  labels.delete(key);
  keep();
  show(text);
}

function save() {
  const rows = page.images.filter(isDone).map((image) => `${image.cell},${page.classes[labels.get(image.key)].cell}\n`);
  if (!rows.length) return show("Nothing is labelled yet, so there is nothing to export");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([page.header, ...rows], { type: "text/csv" }));
  link.download = page.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  exported = rows.length;
  show(`Exported ${rows.length} label${rows.length === 1 ? "" : "s"} as ${page.file}`);
}

// What a key means where the keyboard has other letters or digits on other levels: its place, as on a US keyboard.
function letter(event) {
  if (/^[a-z0-9]$/i.test(event.key)) return event.key.toLowerCase();
  const place = /^(?:Key|Digit|Numpad)([A-Z0-9])$/.exec(event.code);
  return place ? place[1].toLowerCase() : event.key;
}

const MOVES = { ArrowRight: () => move(1), j: () => move(1), " ": () => move(1), ArrowLeft: () => move(-1), k: () => move(-1) };
const ONCE = { u: undo, e: save };

document.addEventListener("keydown", (event) => {
  if (!part("keys").checked || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = letter(event);
  if (key === " " && event.target.closest("button, input, a")) return; // it presses what has the focus
  const number = key.length === 1 ? page.keys.indexOf(key) : -1;
  if (MOVES[key]) MOVES[key]();
  else if (ONCE[key]) event.repeat || ONCE[key]();
  else if (number >= 0 && number < buttons.length) event.repeat || label(number);
  else return;
  event.preventDefault();
});

function press(button, act) {
  button.addEventListener("click", (event) => {
    if (event.detail) button.blur(); // after a mouse the space bar goes on and does not press the button again
    act();
  });
}

buttons.forEach((button, number) => press(button, () => label(number)));
press(part("previous"), () => move(-1));
press(part("next"), () => move(1));
press(part("undo"), undo);
press(part("export"), save);
addEventListener("storage", () => (read(), show())); // another tab has labelled
addEventListener("beforeunload", (event) => {
  if (!part("unkept").hidden && done() > exported) event.preventDefault();
});

read();
shown = firstLeft(0) ?? 0;
show(done() ? `Labels that were kept: ${done()}` : "");
