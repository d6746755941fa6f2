// The matrix: a grid with a heading in front of every row and column; the corner stands for all photos.

const PAGE = 20,
  DENSE = 14; // classes on a page, columns above which cells are small
const RIGHT = { light: [33, 102, 172], dark: [58, 128, 190] },
  MISTAKE = { light: [214, 96, 20], dark: [186, 94, 30] },
  OPEN = [128, 128, 128]; // blue and orange differ for all eyes

const rgb = (text) => (text.match(/[\d.]+/g) || [255, 255, 255]).slice(0, 3).map(Number);
function luminance(colour) {
  const [r, g, b] = colour.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const readable = (colour) => ((luminance(colour) + 0.05) ** 2 > 1.05 * 0.05 ? "#000" : "#fff"); // whichever contrasts more
const mixed = (from, to, share) => from.map((v, k) => Math.round(v + (to[k] - v) * share));

function sums(matrix) {
  const row = matrix.rows.map(() => 0),
    column = matrix.columns.map(() => 0),
    at = new Map();
  for (const [r, c, n] of matrix.counts) {
    row[r] += n;
    column[c] += n;
    at.set(`${r} ${c}`, n);
  }
  return { row, column, at, all: row.reduce((a, b) => a + b, 0) };
}
const isMistake = (matrix, truth, taken) => truth !== taken && !matrix.special.includes(truth) && !matrix.special.includes(taken);
const phrase = ({ names, special }, of, taken) =>
  of === taken
    ? `of ${called(names, of)}, named right`
    : `${of ? `of ${called(names, of)}` : ""}${of && taken ? ", " : ""}${!taken ? "" : `${special.includes(taken) ? "answer:" : "taken for"} ${called(names, taken)}`}`;

function inView(view) {
  // the rows and columns on this page, by their numbers: Python says in which order the classes come
  const { matrix } = view,
    page = view.model.get("page"),
    names = view.model.get("classes").slice(page * PAGE, (page + 1) * PAGE);
  const numbers = (all) => {
    const number = new Map(all.map((name, k) => [name, k])),
      special = all.filter((name) => matrix.special.includes(name));
    return [...names, ...special].filter((name) => number.has(name)).map((name) => number.get(name));
  };
  return { rows: numbers(matrix.rows), columns: numbers(matrix.columns) };
}

function shade(view, paper, look, kind, share, most) {
  // how strong a cell is: mistakes are compared with the largest one
  const [hue, deep] = {
    mistake: [MISTAKE[look], 0.1 + 0.8 * Math.sqrt(share / most)],
    right: [RIGHT[look], 0.12 + 0.68 * share],
    open: [OPEN, 0.12 + 0.4 * share],
  }[kind];
  return mixed(paper, hue, deep);
}

function cellMaker(view, total) {
  const { matrix } = view,
    share = (r, n) => n / Math.max(total.row[r], 1);
  const most = Math.max(
    1e-9,
    ...matrix.counts.filter(([r, c]) => isMistake(matrix, matrix.rows[r], matrix.columns[c])).map(([r, , n]) => share(r, n)),
  );
  const paper = rgb(getComputedStyle(view.el).backgroundColor),
    look = luminance(paper) > 0.3 ? "light" : "dark";
  return (r, c) => {
    const n = total.at.get(`${r} ${c}`) || 0,
      of = matrix.rows[r],
      taken = matrix.columns[c],
      says = `${photos(n)} ${phrase(matrix, of, taken)}`;
    const node = make("td", {
      role: "gridcell",
      tabindex: -1,
      "aria-label": says,
      title: `${says} (${percent(share(r, n))} of ${photos(total.row[r])})`,
      class: of === taken ? "swb-own" : "",
      data: { of, taken, n },
      text: !n ? "·" : view.model.get("shares") ? percent(share(r, n)).replace("\u00a0%", "") : n.toLocaleString("en"),
    });
    if (!n) {
      node.classList.add("swb-none");
      return node;
    }
    const back = shade(view, paper, look, of === taken ? "right" : isMistake(matrix, of, taken) ? "mistake" : "open", share(r, n), most);
    Object.assign(node.style, { background: `rgb(${back})`, color: readable(back) });
    return node;
  };
}

function headingMaker(view) {
  return (role, name, n, data, says) =>
    make(
      "th",
      { role, scope: role === "rowheader" ? "row" : "col", tabindex: -1, "aria-label": says, title: says, data: { ...data, n } },
      make("span", { class: "swb-name" }, view.matrix.special.includes(name) ? null : swatch(view.matrix.colours, name), make("span", { text: name })),
      role === "rowheader" ? make("small", { text: n.toLocaleString("en") }) : null,
    );
}

function otherMaker(view, total, rows, columns) {
  // photos of, or taken for, classes that are not on this page, so that every row and column adds up
  const { matrix } = view,
    within = (r, c) => total.at.get(`${r} ${c}`) || 0,
    sum = (numbers, of) => numbers.reduce((all, k) => all + of(k), 0),
    ofRow = (r) => total.row[r] - sum(columns, (c) => within(r, c)),
    ofColumn = (c) => total.column[c] - sum(rows, (r) => within(r, c)),
    elsewhere = "classes that are not shown here";
  const cell = (n, of, taken, says) =>
    make("td", {
      role: "gridcell",
      tabindex: -1,
      class: `swb-others${n ? "" : " swb-none"}`,
      "aria-label": says,
      title: `${says}. A click opens all photos${of || taken ? ` ${phrase(matrix, of, taken)}` : ""}.`,
      data: { of, taken, n },
      text: n ? n.toLocaleString("en") : "·",
    });
  return {
    ofRow: (r) => cell(ofRow(r), matrix.rows[r], "", `${photos(ofRow(r))} of ${called(matrix.names, matrix.rows[r])}, taken for ${elsewhere}`),
    ofColumn: (c) => cell(ofColumn(c), "", matrix.columns[c], `${photos(ofColumn(c))} of ${elsewhere}, ${phrase(matrix, "", matrix.columns[c])}`),
    rest: () => {
      const n = total.all - sum(rows, (r) => total.row[r]) - sum(columns, ofColumn);
      return cell(n, "", "", `${photos(n)} of ${elsewhere}, taken for ${elsewhere}`);
    },
  };
}

const otherName = (role) => make("th", { role, scope: role === "rowheader" ? "row" : "col" }, make("span", { class: "swb-name" }, make("span", { text: "other classes" })));

function drawMatrix(view) {
  const { matrix } = view,
    total = sums(matrix),
    { rows, columns } = inView(view),
    cell = cellMaker(view, total),
    heading = headingMaker(view);
  const says = (n, of, taken) => `All ${photos(n)} ${phrase(matrix, of, taken)}`;
  const corner = make(
    "th",
    {
      tabindex: -1,
      role: "columnheader",
      "aria-label": `All ${photos(total.all)}`,
      title: `All ${photos(total.all)}`,
      data: { of: "", taken: "", n: total.all },
    },
    make("small", { text: "is ↓  taken for →" }),
  );
  const all = rows.length === matrix.rows.length && columns.length === matrix.columns.length,
    others = all ? null : otherMaker(view, total, rows, columns);
  const head = make(
    "tr",
    { role: "row" },
    corner,
    ...columns.map((c) =>
      heading("columnheader", matrix.columns[c], total.column[c], { of: "", taken: matrix.columns[c] }, says(total.column[c], "", matrix.columns[c])),
    ),
    others && otherName("columnheader"),
  );
  const body = rows.map((r) =>
    make(
      "tr",
      { role: "row" },
      heading("rowheader", matrix.rows[r], total.row[r], { of: matrix.rows[r], taken: "" }, says(total.row[r], matrix.rows[r], "")),
      ...columns.map((c) => cell(r, c)),
      others?.ofRow(r),
    ),
  );
  if (others) body.push(make("tr", { role: "row" }, otherName("rowheader"), ...columns.map(others.ofColumn), others.rest()));
  const label = `What was taken for what: a row for what photos show, a column for what they were taken for${view.model.get("shares") ? ", in per cent of the row" : ""}`;
  const on = {
    keydown: (event) => walkGrid(event, view),
    click: (event) => openAt(event.target, view),
    focusin: (event) => rove(event.target, table),
  };
  const table = make(
    "table",
    {
      role: "grid",
      class: columns.length > DENSE ? "swb-matrix swb-dense" : "swb-matrix",
      style: `--columns: ${columns.length + (others ? 1 : 0)}`,
      "aria-label": label,
      on,
    },
    make("thead", { role: "rowgroup" }, head),
    make("tbody", { role: "rowgroup" }, ...body),
  );
  const focused = view.grid.contains(document.activeElement),
    held = view.spot;
  view.grid.replaceChildren(table);
  const spot =
    [...table.querySelectorAll("[data-n]")].find((node) => held && node.dataset.of === held.of && node.dataset.taken === held.taken) ||
    table.querySelector("td") ||
    corner;
  spot.tabIndex = 0;
  if (focused) spot.focus();
  markCell(view);
  markEdge(view);
}

const rove = (target, table) => {
  const node = target.closest("[data-n]");
  if (node) {
    table.querySelectorAll("[tabindex='0']").forEach((other) => (other.tabIndex = -1));
    node.tabIndex = 0;
  }
};

function walkGrid(event, view) {
  const here = event.target.closest("[data-n]"),
    step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -1e9], End: [0, 1e9] }[event.key];
  if (!here) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    return openAt(here, view, true);
  }
  if (!step) return;
  event.preventDefault();
  const lines = [...here.closest("table").rows],
    r = lines.indexOf(here.parentNode) + step[0],
    c = Math.min(Math.max(here.cellIndex + step[1], 0), here.parentNode.cells.length - 1);
  lines[r]?.cells[c]?.focus();
}

function openAt(target, view, byKey = false) {
  const node = target.closest("[data-n]");
  if (!node) return;
  const { of, taken, n } = node.dataset,
    [before, beside] = view.model.get("cell") ?? [null, null];
  view.spot = { of, taken };
  if (n === "0") return say(view.el, `There are no photos ${phrase(view.matrix, of, taken)}.`);
  const root = explorerOf(view.el);
  if (of === before && taken === beside) return byKey && root?.querySelector(".swb-card")?.focus();
  if (byKey && root) root.dataset.goOn = "yes"; // to the first photo, as soon as it is there
  set(view.model, { cell: [of, taken] });
}

function markEdge({ grid }) {
  // the edge fades where the matrix goes on beyond it
  grid.classList.toggle("swb-goes-on", grid.scrollLeft + grid.clientWidth < grid.scrollWidth - 1);
}

function markCell(view) {
  const [of, taken] = view.model.get("cell") ?? [null, null];
  view.grid.querySelectorAll("[data-n]:not(.swb-others)").forEach((node) => node.setAttribute("aria-selected", String(node.dataset.of === of && node.dataset.taken === taken)));
}

function render({ model, el }) {
  el.classList.add("swb-part");
  const view = { model, el, grid: make("div", { class: "swb-grid" }), spot: null };
  const legend = make(
    "p",
    { class: "swb-legend" },
    make("i", { class: "swb-blue" }),
    "named right ",
    make("i", { class: "swb-orange" }),
    "mistakes; the stronger, the larger the share of its row. Click on a cell to see its photos.",
  );
  el.append(view.grid, legend);
  const draw = () => {
    legend.hidden = !model.get("table").counts;
    if (!legend.hidden && el.isConnected) drawMatrix(Object.assign(view, { matrix: model.get("table") }));
  };
  const theme = new MutationObserver(draw),
    dark = matchMedia("(prefers-color-scheme: dark)");
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
  dark.addEventListener("change", draw);
  view.grid.addEventListener("scroll", () => markEdge(view), { passive: true });
  const sized = new ResizeObserver(() => markEdge(view));
  sized.observe(view.grid);
  const ends = [
    whenShown(el, draw),
    listen(model, ["table", "shares", "classes", "page"], draw),
    listen(model, ["cell"], () => markCell(view)),
  ];
  return () => {
    ends.forEach((end) => end());
    theme.disconnect();
    sized.disconnect();
    dark.removeEventListener("change", draw);
  };
}

export default { render };
