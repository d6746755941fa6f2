// The script of a report: it sorts tables, folds long ones, and opens pictures large. Without it, everything is there to be read.
"use strict";

const FIRST = 20; // rows of a folded table; report.css.j2 hides the rest
const every = (selector, inside = document) => [...inside.querySelectorAll(selector)];

function made(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Numbers: "0.81 (0.76 to 0.86)", "1,234", "12 %", "<1", "−0.4", "[1.2, 3]", "950.0 kB", "3 min 20 s"; nothing: "–"

const UNITS = { bytes: 1, kB: 1e3, MB: 1e6, GB: 1e9, s: 1, min: 60, h: 3600 };
const EMPTY = /^–?$/;

function number(text) {
  const plain = text.replace(/^\[/, "").replace(/\s/g, " ").replace(/,(?=\d{3})/g, "").replace("−", "-");
  if (/^[\d.]+ (bytes|kB|MB|GB|s|min|h)\b/.test(plain)) {
    const parts = plain.match(/^([\d.]+ (bytes|kB|MB|GB|s|min|h)\b ?)+/)[0].trim().split(" ");
    return parts.reduce((sum, part, k) => (k % 2 ? sum + parts[k - 1] * UNITS[part] : sum), 0);
  }
  const found = plain.match(/^([<>]?) ?([+-]?[\d.]+(?:e[+-]?\d+)?)/);
  return found ? Number(found[2]) + { "<": -1e-9, ">": 1e-9, "": 0 }[found[1]] : NaN;
}

// Sorting: largest number or first letter first, then the other way, then as it was written

const words = new Intl.Collator("en", { numeric: true });

function compared(numeric, down) {
  return (a, b) => {
    if (a.empty || b.empty) return a.empty - b.empty; // empty cells stay last
    const order = numeric ? a.value - b.value : words.compare(a.value, b.value);
    return down ? -order : order;
  };
}

function sort(table, rows, column, numeric, way) {
  const keyed = rows.map((row) => {
    const text = row.cells[column].textContent.trim();
    return { row, value: numeric ? number(text) : text, empty: EMPTY.test(text) || (numeric && Number.isNaN(number(text))) };
  });
  if (way) keyed.sort(compared(numeric, way === "descending"));
  table.tBodies[0].append(...keyed.map((key) => key.row));
}

function sortable(table) {
  const rows = [...table.tBodies[0].rows];
  const heads = every("thead th", table);
  heads.forEach((head, column) => {
    const numeric = table.classList.contains(`n${column + 1}`);
    const ways = numeric ? ["descending", "ascending", ""] : ["ascending", "descending", ""];
    const button = made("button", { type: "button", className: "sort", title: "Sort by this column" }, ...head.childNodes);
    button.addEventListener("click", () => {
      const way = ways[(ways.indexOf(head.getAttribute("aria-sort") || "") + 1) % 3];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (way) head.setAttribute("aria-sort", way);
      sort(table, rows, column, numeric, way);
    });
    head.append(button);
  });
}

// Folding: the first rows, and a button for all of them

function fold(scroll) {
  const n = every("tbody tr", scroll).length.toLocaleString("en");
  const button = made("button", { type: "button" });
  const said = made("span");
  const show = (all) => {
    scroll.classList.toggle("folded", !all);
    said.textContent = all ? `All ${n} rows.` : `${FIRST} of ${n} rows.`;
    button.textContent = all ? `Show the first ${FIRST}` : `Show all ${n}`;
    button.setAttribute("aria-expanded", all);
  };
  button.addEventListener("click", () => show(scroll.classList.contains("folded")));
  show(false);
  scroll.after(made("p", { className: "rest" }, said, button));
}

// Pictures: a button round each, and one dialog that shows them large

const stage = made("div", { className: "stage", tabIndex: 0 });
const said = made("div", { className: "said" });
const place = made("span");
const closing = made("button", { type: "button", textContent: "Close" });
const [before, after] = [["‹", "Photo before"], ["›", "Next photo"]].map(([textContent, ariaLabel]) =>
  made("button", { type: "button", textContent, ariaLabel, title: ariaLabel }),
);
const dialog = made("dialog", {}, stage, made("div", { className: "below" }, said, before, place, after, closing));
let shown = { pictures: [], k: 0 };

function fit(picture) {
  const image = stage.firstChild;
  const [wide, high] = [stage.clientWidth - 20, stage.clientHeight - 20];
  if (picture.closest(".gallery")) {
    const scale = Math.min(wide / picture.naturalWidth, high / picture.naturalHeight, 2.5);
    image.style.width = `${picture.naturalWidth * scale}px`;
    return;
  }
  const whole = Math.min(wide, (high * picture.width) / picture.height);
  const larger = whole > 1.15 * picture.width ? whole : Math.max(1.25 * picture.width, 900); // and is scrolled
  image.style.width = `${larger}px`;
}

function show(pictures, k) {
  shown = { pictures, k };
  const picture = pictures[k];
  const caption = picture.closest("figure").querySelector("figcaption");
  stage.replaceChildren(made("img", { src: picture.src, alt: picture.alt, className: picture.className }));
  said.replaceChildren(...(caption ? caption.cloneNode(true).childNodes : []));
  place.textContent = pictures.length > 1 ? `${k + 1} of ${pictures.length}` : "";
  before.hidden = after.hidden = pictures.length < 2;
  before.disabled = k === 0;
  after.disabled = k === pictures.length - 1;
  dialog.setAttribute("aria-label", picture.alt);
  if (!dialog.open) dialog.showModal();
  stage.scrollTo(0, 0);
  fit(picture);
}

function step(by) {
  const k = shown.k + by;
  if (shown.pictures[k]) show(shown.pictures, k);
}

function enlarge(picture, pictures) {
  const button = made("button", { type: "button", className: "open", ariaLabel: `Open large: ${picture.alt}` });
  picture.replaceWith(button);
  button.append(picture);
  button.addEventListener("click", () => show(pictures, pictures.indexOf(picture)));
}

before.addEventListener("click", () => step(-1));
after.addEventListener("click", () => step(1));
closing.addEventListener("click", () => dialog.close());
stage.addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by || shown.pictures.length < 2) return;
  event.preventDefault();
  step(by);
});
addEventListener("resize", () => dialog.open && fit(shown.pictures[shown.k]));

for (const table of every("table")) if (table.tBodies[0].rows.length > 2) sortable(table);
for (const scroll of every(".scroll.long")) fold(scroll);
for (const picture of every(".plot img")) {
  picture.closest(".wide").removeAttribute("tabindex"); // the button inside it takes the keys
  enlarge(picture, [picture]);
}
for (const gallery of every(".gallery")) {
  const pictures = every("img", gallery);
  for (const picture of pictures) enlarge(picture, pictures);
}
document.body.append(dialog);
