// The confusion explorer's page: a matrix, the photos of a cell, one photo in full. What is asked and answered stands in nbs/lib/apps/30_explorer.ipynb.
// Names of files and labels come from anywhere: they are only ever set as text.

const BATCH = 24,
  IN_FLIGHT = 2,
  CHUNK = 96,
  PAGE = 20,
  DENSE = 14; // thumbnails a request, requests at a time, cards drawn at once, classes on a page, columns above which cells are small
const SAID_FOR = 10_000; // milliseconds that a sentence stays which is no error
const PATIENCE = { map: 180_000 },
  USUAL = 60_000; // milliseconds without an answer
const RIGHT = { light: [33, 102, 172], dark: [58, 128, 190] },
  MISTAKE = { light: [214, 96, 20], dark: [186, 94, 30] },
  OPEN = [128, 128, 128]; // blue and orange differ for all eyes
const MARKS = { flag: "⚑ flagged", relabel: "✎ relabelled", confirm: "✓ confirmed", exclude: "✕ excluded" };
const KEYS = { f: "flag", r: "relabel", c: "confirm", x: "exclude" };
const HELP = [
  ["Arrow keys", "go from cell to cell, and from photo to photo"],
  ["Enter", "opens the photos of a cell, or a photo in full"],
  ["Space", "selects a photo; with Shift or Ctrl and a click, several"],
  ["F", "flag: come back to this photo later; no training changes"],
  ["R", "relabel: say what the photo shows"],
  ["C", "confirm: the label is right"],
  ["X", "exclude: leave the photo out of training and of this matrix"],
  ["Z", "undo the last correction"],
  ["M", "photo, then the maps of where the network looked"],
  ["Escape", "closes the photo, or takes the selection away"],
  ["?", "this list"],
];

// Small things

function make(tag, about = {}, ...inside) {
  const { text, on = {}, data = {}, ...attributes } = about,
    node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  for (const [name, what] of Object.entries(on)) node.addEventListener(name, what);
  Object.assign(node.dataset, data);
  if (text != null) node.textContent = text;
  node.append(...inside.filter(Boolean));
  return node;
}
const button = (text, what, about = {}) => make("button", { type: "button", text, on: { click: what }, ...about });
const photos = (n) => `${n.toLocaleString("en")} ${n === 1 ? "photo" : "photos"}`;
const rgb = (text) => (text.match(/[\d.]+/g) || [255, 255, 255]).slice(0, 3).map(Number);
function luminance(colour) {
  const [r, g, b] = colour.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const readable = (colour) => ((luminance(colour) + 0.05) ** 2 > 1.05 * 0.05 ? "#000" : "#fff"); // whichever contrasts more
const mixed = (from, to, share) => from.map((v, k) => Math.round(v + (to[k] - v) * share));
const typing = (node) => node.matches?.("input:not([type=checkbox]), select, textarea") ?? false;

// Questions to the kernel: each has a number and is always answered, at the latest by the clock

function line(model) {
  const waiting = new Map(),
    mine = Math.random().toString(36).slice(2);
  let count = 0;
  const take = (message, buffers) => {
    const asked = waiting.get(message.id);
    if (!asked) return;
    waiting.delete(message.id);
    clearTimeout(asked.clock);
    message.error ? asked.reject(new Error(message.error)) : asked.resolve({ ...message, buffers });
  };
  model.on("msg:custom", take);
  const ask = (what, more = {}) =>
    new Promise((resolve, reject) => {
      const id = `${mine}-${++count}`,
        late = () =>
          take(
            {
              id,
              error:
                "Python does not answer: it may be busy or have stopped. Wait a little; if that does not help, run this cell again, or reload the page.",
            },
            [],
          );
      waiting.set(id, { resolve, reject, clock: setTimeout(late, PATIENCE[what] || USUAL) });
      try {
        model.send({ id, ask: what, ...more });
      } catch {
        late(); // the kernel was restarted
      }
    });
  const end = () => {
    model.off("msg:custom", take);
    waiting.forEach((asked) => clearTimeout(asked.clock));
    waiting.clear();
  };
  return { ask, end };
}

// Thumbnails: asked for when seen, a few dozen at a time, kept while something shows them

function thumbnails(ask) {
  const urls = new Map(),
    failed = new Map(),
    wanted = new Set(),
    asked = new Set();
  let flying = 0,
    over = false;
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) isIntersecting ? wanted.add(target) : wanted.delete(target);
      pump();
    },
    { rootMargin: "150px" },
  );
  function show(node) {
    const k = Number(node.dataset.k);
    if (urls.has(k)) node.replaceChildren(make("img", { src: urls.get(k), alt: node.dataset.alt || "", draggable: "false" }));
    else if (failed.has(k)) node.replaceChildren(make("span", { class: "swb-gone", text: failed.get(k) }));
    return urls.has(k) || failed.has(k);
  }
  function settle() {
    for (const node of [...wanted])
      if (show(node)) {
        wanted.delete(node);
        watch.unobserve(node);
      }
  }
  async function pump() {
    settle();
    const which = [...new Set([...wanted].map((node) => Number(node.dataset.k)))].filter((k) => !asked.has(k)).slice(0, BATCH);
    if (over || flying >= IN_FLIGHT || !which.length) return;
    flying += 1;
    which.forEach((k) => asked.add(k));
    try {
      const { found, missing, buffers } = await ask("thumbnails", { which });
      if (over) return;
      found.forEach((k, at) => urls.set(k, URL.createObjectURL(new Blob([buffers[at]], { type: "image/jpeg" }))));
      Object.entries(missing).forEach(([k, why]) => failed.set(Number(k), why));
    } catch (error) {
      which.forEach((k) => failed.set(k, error.message));
    }
    flying -= 1;
    which.forEach((k) => asked.delete(k));
    pump();
  }
  return {
    place: (k, alt, about = {}) => {
      const node = make("span", { ...about, data: { k, alt } });
      if (!show(node)) watch.observe(node);
      return node;
    },
    keep: (numbers) => {
      for (const [k, url] of urls)
        if (!numbers.has(k)) {
          URL.revokeObjectURL(url);
          urls.delete(k);
        }
    },
    end: () => {
      over = true;
      watch.disconnect();
      urls.forEach((url) => URL.revokeObjectURL(url));
      urls.clear();
      wanted.clear();
    },
  };
}

// The matrix: a grid with a heading in front of every row and column; the corner stands for all photos

function sums(matrix) {
  const row = matrix.rows.map(() => 0),
    column = matrix.columns.map(() => 0),
    wrong = new Map(),
    at = new Map();
  for (const [r, c, n] of matrix.counts) {
    const [truth, taken] = [matrix.rows[r], matrix.columns[c]];
    row[r] += n;
    column[c] += n;
    at.set(`${r} ${c}`, n);
    if (isMistake(matrix, truth, taken)) [truth, taken].forEach((label) => wrong.set(label, (wrong.get(label) || 0) + n));
  }
  return { row, column, wrong, at, all: row.reduce((a, b) => a + b, 0) };
}
const isMistake = (matrix, truth, taken) => truth !== taken && !matrix.special.includes(truth) && !matrix.special.includes(taken);
const phrase = (matrix, of, taken) =>
  of === taken
    ? `of ${of}, named right`
    : `${of ? `of ${of}` : ""}${of && taken ? ", " : ""}${!taken ? "" : matrix.special.includes(taken) ? `answer: ${taken}` : `taken for ${taken}`}`;

function order(matrix, names, wrong, confused) {
  const numbered = names.map((name, k) => k),
    last = (k) => (matrix.special.includes(names[k]) ? 1 : 0);
  return numbered.sort((a, b) => last(a) - last(b) || (confused ? (wrong.get(names[b]) || 0) - (wrong.get(names[a]) || 0) : 0) || a - b);
}

function inView(view, total) {
  // the rows and columns on this page, by their numbers, and how many classes there are
  const { matrix, confused, page } = view,
    special = (name) => matrix.special.includes(name);
  const sorted = order(matrix, matrix.columns, total.wrong, confused),
    classes = sorted.filter((c) => !special(matrix.columns[c]));
  const names = new Set(classes.slice(page * PAGE, (page + 1) * PAGE).map((c) => matrix.columns[c])),
    keep = (name) => names.has(name) || special(name);
  return {
    rows: order(matrix, matrix.rows, total.wrong, confused).filter((r) => keep(matrix.rows[r])),
    columns: sorted.filter((c) => keep(matrix.columns[c])),
    classes: classes.length,
  };
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
  const paper = rgb(getComputedStyle(view.root).backgroundColor),
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
      text: !n ? "·" : view.shares ? percent(share(r, n)).replace("\u00a0%", "") : n.toLocaleString("en"),
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
      make("span", { class: "swb-name" }, view.matrix.special.includes(name) ? null : view.swatch(name), make("span", { text: name })),
      role === "rowheader" ? make("small", { text: n.toLocaleString("en") }) : null,
    );
}

function drawMatrix(view) {
  const { matrix } = view,
    total = sums(matrix),
    { rows, columns, classes } = inView(view, total),
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
  const head = make(
    "tr",
    { role: "row" },
    corner,
    ...columns.map((c) =>
      heading("columnheader", matrix.columns[c], total.column[c], { of: "", taken: matrix.columns[c] }, says(total.column[c], "", matrix.columns[c])),
    ),
  );
  const body = rows.map((r) =>
    make(
      "tr",
      { role: "row" },
      heading("rowheader", matrix.rows[r], total.row[r], { of: matrix.rows[r], taken: "" }, says(total.row[r], matrix.rows[r], "")),
      ...columns.map((c) => cell(r, c)),
    ),
  );
  const label = `What was taken for what: a row for what photos show, a column for what they were taken for${view.shares ? ", in per cent of the row" : ""}`;
  const on = {
    keydown: (event) => walkGrid(event, view),
    click: (event) => openAt(event.target, view),
    focusin: (event) => rove(event.target, table),
  };
  const table = make(
    "table",
    { role: "grid", class: columns.length > DENSE ? "swb-matrix swb-dense" : "swb-matrix", "aria-label": label, on },
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
  view.pager.replaceChildren(...(classes > PAGE ? pages(view, classes) : []));
  drawWorst(view, total);
}

function pages(view, classes) {
  const last = Math.ceil(classes / PAGE) - 1,
    from = view.page * PAGE,
    go = (by) => () => {
      view.page += by;
      drawMatrix(view);
    };
  return [
    button("‹ Earlier classes", go(-1), { disabled: view.page === 0 }),
    make("span", {
      text: `Classes ${from + 1} to ${Math.min(from + PAGE, classes)} of ${classes}. A row's name opens all of its photos, also those taken for classes on other pages.`,
    }),
    button("Further classes ›", go(1), { disabled: view.page === last }),
  ];
}

function drawWorst(view, total) {
  const { matrix } = view,
    worst = matrix.counts
      .filter(([r, c]) => isMistake(matrix, matrix.rows[r], matrix.columns[c]))
      .sort((a, b) => b[2] - a[2])
      .slice(0, 8);
  view.worst.replaceChildren(
    ...worst.map(([r, c, n]) => {
      const [of, taken] = [matrix.rows[r], matrix.columns[c]],
        node = button("", () => view.open({ of, taken }, true));
      node.append(
        make("b", { text: `${n.toLocaleString("en")} of ${total.row[r].toLocaleString("en")}` }),
        view.swatch(of),
        make("span", { text: of }),
        make("span", { class: "swb-soft", text: "taken for" }),
        view.swatch(taken),
        make("span", { text: taken }),
      );
      return make("li", { title: `${n} of ${photos(total.row[r])} of ${of}` }, node);
    }),
  );
  view.noMistake.hidden = worst.length > 0;
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
  view.spot = { of: node.dataset.of, taken: node.dataset.taken };
  if (node.dataset.n === "0") return view.say(`There are no photos ${phrase(view.matrix, view.spot.of, view.spot.taken)}.`);
  view.open(view.spot, byKey);
}

function markCell(view) {
  const { of, taken } = view.filter,
    here = (node) => view.opened && node.dataset.of === of && node.dataset.taken === taken;
  view.grid.querySelectorAll("[data-n]").forEach((node) => node.setAttribute("aria-selected", String(here(node))));
}

// The gallery: the photos of a cell, drawn as one scrolls

function drawGallery(view) {
  const { cards } = view,
    old = new Map([...view.list.querySelectorAll("[role=option]")].map((node) => [Number(node.dataset.k), node]));
  view.thumbs.keep(new Set([...cards.map((one) => one.k), ...view.alike]));
  const many = Math.max(CHUNK, view.drawn),
    nodes = cards.slice(0, many).map((one) => dress(old.get(one.k) || bare(view, one), one, view));
  view.drawn = nodes.length;
  view.list.replaceChildren(...nodes);
  view.more.hidden = nodes.length >= cards.length;
  view.chosen = new Set([...view.chosen].filter((k) => cards.some((one) => one.k === k)));
  view.empty.hidden = cards.length > 0;
  if (!nodes.some((node) => node.tabIndex === 0) && nodes[0]) nodes[0].tabIndex = 0;
  drawChosen(view);
}

function bare(view, one) {
  // a card without its words: they change with corrections
  const node = make(
    "li",
    { role: "option", tabindex: -1, class: "swb-card", data: { k: one.k } },
    view.thumbs.place(one.k, one.name, { class: "swb-thumb" }),
    make("span", { class: "swb-words" }),
  );
  return node;
}

function dress(node, one, view) {
  const any = !view.filter.of || !view.filter.taken,
    words = node.querySelector(".swb-words");
  words.replaceChildren(
    make("b", { text: percent(one.score) }),
    one.action ? make("span", { class: `swb-mark swb-${one.action}`, text: MARKS[one.action] }) : "",
    any
      ? make(
          "span",
          { class: "swb-line" },
          view.swatch(one.truth),
          make("span", { text: one.truth === one.answer ? one.truth : `${one.truth} → ${one.answer}` }),
        )
      : "",
    make("span", { class: "swb-line swb-soft", text: one.name, title: one.name }),
  );
  node.setAttribute(
    "aria-label",
    `${one.name}, ${one.truth}, taken for ${one.answer}, score ${percent(one.score)}${one.action ? `, ${MARKS[one.action].slice(2)}` : ""}`,
  );
  return node;
}

function drawMore(view) {
  const next = view.cards.slice(view.drawn, view.drawn + CHUNK);
  view.list.append(...next.map((one) => dress(bare(view, one), one, view)));
  view.drawn += next.length;
  view.more.hidden = view.drawn >= view.cards.length;
  drawChosen(view);
}

function drawChosen(view) {
  for (const node of view.list.children) {
    node.setAttribute("aria-selected", String(view.chosen.has(Number(node.dataset.k))));
    node.classList.toggle("swb-current", Number(node.dataset.k) === view.current);
  }
  const n = view.chosen.size;
  view.picked.textContent = n > 1 ? `${photos(n)} selected: a correction holds for all of them.` : "";
  const none = !targets(view).length;
  view.bar.querySelectorAll("[data-action]").forEach((node) => {
    node.disabled = none;
  });
}

const targets = (view) => (view.chosen.size ? [...view.chosen] : view.current != null ? [view.current] : []);

function choose(view, k, event = {}) {
  const numbers = view.cards.map((one) => one.k);
  if (event.shiftKey && view.anchor != null) {
    const [a, b] = [numbers.indexOf(view.anchor), numbers.indexOf(k)].sort((x, y) => x - y);
    numbers.slice(Math.max(a, 0), b + 1).forEach((one) => view.chosen.add(one));
  } else {
    view.chosen.has(k) ? view.chosen.delete(k) : view.chosen.add(k);
    view.anchor = k;
  }
  drawChosen(view);
}

function clickCard(event, view) {
  const node = event.target.closest("[role=option]");
  if (!node) return;
  const k = Number(node.dataset.k);
  focusCard(view, node);
  if (event.shiftKey || event.ctrlKey || event.metaKey) {
    if (!view.chosen.size && view.current != null && event.shiftKey) view.anchor = view.current;
    return choose(view, k, event);
  }
  view.chosen.clear();
  view.anchor = k;
  view.look(k);
}

function focusCard(view, node) {
  view.list.querySelectorAll("[tabindex='0']").forEach((other) => {
    other.tabIndex = -1;
  });
  node.tabIndex = 0;
  node.focus({ preventScroll: false });
}

function walkCards(event, view) {
  const here = event.target.closest("[role=option]");
  if (!here) return;
  const nodes = [...view.list.children],
    across = nodes.filter((node) => node.offsetTop === nodes[0].offsetTop).length || 1;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -1e9, End: 1e9 }[event.key],
    k = Number(here.dataset.k);
  if (event.key === "Enter") {
    event.preventDefault();
    return view.look(k);
  }
  if (event.key === " ") {
    event.preventDefault();
    return choose(view, k, event);
  }
  if (!step) return;
  event.preventDefault();
  if (nodes.indexOf(here) + step >= nodes.length - across && !view.more.hidden) drawMore(view);
  const all = view.list.children,
    to = all[Math.min(Math.max(nodes.indexOf(here) + step, 0), all.length - 1)];
  focusCard(view, to);
  if (view.current != null) view.later(() => view.look(Number(to.dataset.k)), 150); // the photo beside follows
}

// One photo in full

function drawDetail(view, about) {
  const { k } = about,
    names = { photo: "Photo" };
  about.maps.forEach((label, at) => {
    names[label] = at === 0 ? `Looked at for “${label}”` : `For “${label}”`;
  });
  const tabs = make(
    "div",
    { class: "swb-tabs", role: "group", "aria-label": "Photo, or where the network looked" },
    ...Object.entries(names).map(([what, text]) => button(text, () => showPicture(view, k, what), { data: { what }, "aria-pressed": "false" })),
  );
  const facts = [
    ["Labelled", about.was === about.truth ? about.truth : `${about.truth} (was ${about.was})`],
    ["Taken for", `${about.answer}, ${percent(about.score)}`],
    ["Site", about.site],
    ["Taken at", about.taken_at?.replace("T", " ")],
    ["Place", about.lat != null && about.lon != null ? `${about.lat}, ${about.lon}` : null],
    ["In a film at", about.seconds != null ? `${about.seconds} s` : null],
    ["File", about.member ? `${about.member} in ${about.path}` : about.path],
    ["Note", about.reason],
    [
      "Correction",
      about.action ? `${MARKS[about.action].slice(2)} by ${about.who || "somebody"}, ${(about.when || "").replace("T", " ").slice(0, 16)}` : null,
    ],
    ["", about.fixed],
  ];
  const bars = about.top.map((one) => {
    const fill = make("i");
    fill.style.cssText = `width:${100 * one.score}%;background:${one.colour}`;
    return make("li", {}, make("span", { text: one.label }), make("span", { class: "swb-track" }, fill), make("span", { text: percent(one.score) }));
  });
  const near = about.neighbours.map((one) => {
    const says = `${one.name}: ${one.truth}, taken for ${one.answer}, ${percent(one.alike)} alike`,
      node = button("", () => view.look(one.k), { title: says, "aria-label": says });
    node.append(
      view.thumbs.place(one.k, one.name, { class: "swb-thumb" }),
      make("span", { class: "swb-line" }, view.swatch(one.truth), make("span", { text: one.truth })),
    );
    return make("li", {}, node);
  });
  view.alike = about.neighbours.map((one) => one.k);
  const note = (text) => (text ? [make("p", { class: "swb-soft", text })] : []);
  view.detail.replaceChildren(
    make(
      "div",
      { class: "swb-head" },
      make("h3", { text: about.name, title: about.path }),
      button("×", () => view.shut(), { class: "swb-x", "aria-label": "Close this photo", title: "Close (Escape)" }),
    ),
    tabs,
    make("figure", { class: "swb-large", "aria-live": "polite" }),
    make("p", { class: "swb-soft swb-said" }),
    ...note(about.why_no_map),
    make("dl", {}, ...facts.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })])),
    ...(bars.length ? [make("h4", { text: "What the model thought of" })] : []),
    make("ul", { class: "swb-bars" }, ...bars),
    make("h4", { text: "Photos that the network finds most alike" }),
    ...note(about.why_none),
    make("ul", { class: "swb-near" }, ...near),
  );
  view.maps = ["photo", ...about.maps];
  showPicture(view, k, view.maps.includes(view.wish) ? view.wish : "photo");
}

async function showPicture(view, k, what) {
  const figure = view.detail.querySelector(".swb-large"),
    said = view.detail.querySelector(".swb-said");
  view.wish = view.what = what;
  view.detail.querySelectorAll("[data-what]").forEach((node) => node.setAttribute("aria-pressed", String(node.dataset.what === what)));
  figure.classList.add("swb-waiting");
  said.textContent = what === "photo" ? "" : "Asking the network …";
  let shown = null,
    words = "";
  try {
    const found = await view.ask(what === "photo" ? "picture" : "map", what === "photo" ? { k } : { k, label: what });
    words = found.said || "";
    if (!figure.isConnected || view.what !== what) return;
    if (view.url) URL.revokeObjectURL(view.url);
    view.url = URL.createObjectURL(new Blob([found.buffers[0]], { type: "image/jpeg" }));
    shown = make("img", { src: view.url, alt: what === "photo" ? "The photo" : `Where the network looked for ${what}` });
  } catch (error) {
    shown = make("span", { class: "swb-gone", text: error.message });
  }
  if (!figure.isConnected || view.what !== what) return;
  figure.classList.remove("swb-waiting");
  figure.replaceChildren(shown);
  said.textContent = words;
}

// Corrections

async function correct(view, action, new_label = "") {
  const which = targets(view);
  if (!which.length) return view.say("Choose a photo first: click on it, or go to it with the arrow keys and press Enter.");
  await change(view, "correct", { which, action, new_label });
}

async function change(view, what, more = {}) {
  if (view.writing) return;
  view.writing = true;
  try {
    const { said, matrix } = await view.ask(what, more);
    view.matrix = matrix;
    Object.assign(view.colours, matrix.colours);
    view.chosen.clear();
    drawAbout(view);
    drawMatrix(view);
    await afterwards(view);
    view.say(said);
  } catch (error) {
    view.say(error.message, true);
  } finally {
    view.writing = false;
  }
}

const isNarrow = (view) => view.detail.offsetWidth > 0.8 * view.root.offsetWidth; // one column

function stayFocused(view) {
  // keys are heard only where the focus is, and what had it may be gone
  if (view.root.contains(view.root.getRootNode().activeElement)) return;
  const card = view.list.querySelector(".swb-current") ?? view.list.querySelector("[tabindex='0']");
  (card ?? view.root).focus({ preventScroll: true });
}

async function afterwards(view) {
  // the photos of the cell are others now: go on with the next one
  const at = view.cards.findIndex((one) => one.k === view.current),
    inList = view.list.contains(view.root.getRootNode().activeElement);
  if (view.opened) await fetchCards(view);
  const stays = view.cards.some((one) => one.k === view.current),
    next = stays ? view.current : (view.cards[Math.min(Math.max(at, 0), view.cards.length - 1)]?.k ?? view.current);
  const node = [...view.list.children].find((one) => Number(one.dataset.k) === next);
  if (inList && node) focusCard(view, node);
  if (view.current != null) await view.look(next, true);
}

function askLabel(view) {
  const which = targets(view);
  if (!which.length) return correct(view, "relabel");
  const known = [...new Set([...view.labels, ...view.matrix.rows])].filter((n) => !view.matrix.special.includes(n)),
    field = view.dialog.querySelector("input"),
    list = view.dialog.querySelector("ul");
  const give = (label) => {
    view.dialog.close();
    correct(view, "relabel", label);
  };
  const draw = () => {
    const typed = field.value.trim(),
      fit = known.filter((n) => n.toLowerCase().includes(typed.toLowerCase()));
    const row = (n) => {
      const node = button("", () => give(n), { data: { label: n } });
      node.append(view.swatch(n), n);
      return make("li", {}, node);
    };
    list.replaceChildren(
      ...fit.map(row),
      ...(typed && !known.includes(typed)
        ? [
            make(
              "li",
              {},
              button(`New label: ${typed}`, () => give(typed), { data: { label: typed } }),
            ),
          ]
        : []),
    );
  };
  view.dialog.querySelector("h3").textContent = which.length > 1 ? `What do these ${photos(which.length)} show?` : "What does this photo show?";
  field.value = "";
  field.oninput = draw;
  field.onkeydown = (event) => {
    if (event.key !== "Enter" || !field.value.trim()) return;
    event.preventDefault();
    give(known.find((n) => n.toLowerCase() === field.value.trim().toLowerCase()) || list.querySelector("button").dataset.label);
  };
  draw();
  view.dialog.showModal();
  field.focus();
}

function onKey(event, view) {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || view.dialog.open || view.help.open) return;
  const key = event.key.toLowerCase();
  if (key === "r") askLabel(view);
  else if (KEYS[key]) correct(view, KEYS[key]);
  else if (key === "z") change(view, "undo");
  else if (key === "m" && view.current != null) showPicture(view, view.current, view.maps[(view.maps.indexOf(view.what) + 1) % view.maps.length]);
  else if (event.key === "?") view.help.showModal();
  else if (event.key === "Escape" && view.chosen.size) {
    view.chosen.clear();
    drawChosen(view);
  } else if (event.key === "Escape" && view.current != null) view.shut();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

// The whole

async function fetchCards(view) {
  const { of, taken, low, high, site, corrected } = view.filter,
    turn = (view.turn = (view.turn || 0) + 1);
  const { cards } = await view.ask("cell", { of, taken_for: taken, low, high, site, corrected });
  if (turn !== view.turn) return;
  view.cards = cards;
  drawGallery(view);
  view.count.textContent = `${photos(cards.length)} ${of || taken ? phrase(view.matrix, of, taken) : "in all"}${cards.length > 1 ? ", most confident first" : ""}`;
}

function drawAbout(view) {
  view.about.replaceChildren(...view.matrix.said.map((text) => make("span", { text: `${text} ` })));
  const options = (list, held) => [
    make("option", { value: "", text: "any" }),
    ...list.map((n) => make("option", { value: n, text: n, selected: n === held })),
  ];
  view.controls.of.replaceChildren(...options(view.matrix.rows, view.filter.of));
  view.controls.taken.replaceChildren(...options(view.matrix.columns, view.filter.taken));
  view.controls.site.replaceChildren(...options(view.sites, view.filter.site));
  view.controls.site.parentNode.hidden = view.sites.length < 2;
}

function controls(view) {
  const changed = () => {
    const c = view.controls,
      low = Number(c.low.value) / 100,
      high = Number(c.high.value) / 100;
    Object.assign(view.filter, {
      of: c.of.value,
      taken: c.taken.value,
      site: c.site.value,
      corrected: c.corrected.value,
      low: c.low.value === "" ? 0 : low,
      high: c.high.value === "" ? 1 : high,
    });
    view.drawn = 0;
    markCell(view);
    fetchCards(view).catch((error) => view.say(error.message, true));
  };
  const select = () => make("select", { on: { change: changed } }),
    number = (value) => make("input", { type: "number", min: 0, max: 100, step: 1, value, on: { change: changed } });
  view.controls = { of: select(), taken: select(), low: number(0), high: number(100), site: select(), corrected: select() };
  const shows = {
    "": "all but excluded",
    any: "only corrected",
    flag: "only flagged",
    relabel: "only relabelled",
    confirm: "only confirmed",
    exclude: "only excluded",
  };
  view.controls.corrected.append(...Object.entries(shows).map(([value, text]) => make("option", { value, text })));
  const labelled = (text, ...nodes) => make("label", {}, `${text} `, ...nodes);
  const c = view.controls;
  return make(
    "div",
    { class: "swb-filter", role: "group", "aria-label": "Which photos" },
    labelled("Photos of", c.of),
    labelled("taken for", c.taken),
    labelled("score from", c.low, " %"),
    labelled("to", c.high, " %"),
    labelled("site", c.site),
    labelled("show", c.corrected),
  );
}

function actions(view) {
  const one = (text, key, action, what, says) => button("", what, { data: action ? { action } : {}, title: says, "aria-keyshortcuts": key });
  const all = [
    ["Flag", "F", "flag", () => correct(view, "flag"), "Come back to this photo later; no training changes"],
    ["Relabel …", "R", "relabel", () => askLabel(view), "Say what the photo shows"],
    ["Confirm label", "C", "confirm", () => correct(view, "confirm"), "The label is right, whatever the model says"],
    ["Exclude", "X", "exclude", () => correct(view, "exclude"), "Leave the photo out of training and of this matrix"],
    ["Undo", "Z", "", () => change(view, "undo"), "Take back the last correction"],
  ];
  return make(
    "div",
    { class: "swb-bar", role: "toolbar", "aria-label": "Corrections" },
    ...all.map(([text, key, ...more]) => {
      const node = one(text, key, ...more);
      node.append(`${text} `, make("kbd", { text: key }));
      return node;
    }),
  );
}

function build(view, el) {
  const root = (view.root = make("div", {
    class: "swb-explorer",
    tabindex: -1,
    role: "region",
    "aria-label": "Confusion explorer",
    data: { lmSuppressShortcuts: "true" },
    on: { keydown: (event) => onKey(event, view) },
  })); // JupyterLab keeps its own keys to itself there
  const toggle = (text, name, says) => {
    const node = button(
      text,
      () => {
        view[name] = !view[name];
        node.setAttribute("aria-pressed", String(view[name]));
        view.page = 0;
        drawMatrix(view);
      },
      { "aria-pressed": "false", title: says },
    );
    return node;
  };
  Object.assign(view, {
    title: make("h2"),
    about: make("p", { class: "swb-about" }),
    grid: make("div", { class: "swb-grid" }),
    pager: make("div", { class: "swb-pager" }),
    worst: make("ol", { class: "swb-worst" }),
    noMistake: make("p", { class: "swb-soft", text: "There is no mistake among the labelled photos.", hidden: true }),
    status: make("p", { class: "swb-status", role: "status", "aria-live": "polite" }),
    count: make("h3", { class: "swb-count" }),
    picked: make("p", { class: "swb-picked", "aria-live": "polite" }),
    list: make("ul", {
      class: "swb-list",
      role: "listbox",
      "aria-multiselectable": "true",
      "aria-label": "Photos, most confident first",
      on: { click: (event) => clickCard(event, view), keydown: (event) => walkCards(event, view) },
    }),
    more: make("div", { class: "swb-more", hidden: true, text: "Further photos appear as you scroll." }),
    empty: make("p", { class: "swb-soft", text: "No photo fits: widen the score, or choose “any”.", hidden: true }),
    detail: make("aside", { class: "swb-detail", "aria-label": "One photo in full", hidden: true }),
    help: make(
      "dialog",
      { class: "swb-dialog swb-help", "aria-label": "Keys" },
      make("h3", { text: "Keys" }),
      make("dl", {}, ...HELP.flatMap(([key, what]) => [make("dt", {}, make("kbd", { text: key })), make("dd", { text: what })])),
      button("Close", () => view.help.close()),
    ),
    dialog: make(
      "dialog",
      { class: "swb-dialog", "aria-label": "New label" },
      make("h3"),
      make("input", { type: "text", placeholder: "Type to find a label, or a new one", "aria-label": "Label", autocomplete: "off" }),
      make("ul"),
      make("p", { class: "swb-soft", text: "Type, and Enter takes the first one. Escape changes nothing." }),
    ),
  });
  view.bar = actions(view);
  const tools = make(
    "div",
    { class: "swb-tools" },
    toggle("Shares in %", "shares", "Per cent of the row instead of numbers of photos"),
    toggle("Most confused first", "confused", "Classes with most mistakes first, instead of the order of the class list"),
    button("Keys ?", () => view.help.showModal()),
  );
  const legend = make(
    "p",
    { class: "swb-legend" },
    make("i", { class: "swb-blue" }),
    "named right ",
    make("i", { class: "swb-orange" }),
    "mistakes; the stronger, the larger the share of its row. Click on a cell to see its photos.",
  );
  view.side = make("div", { class: "swb-side" }, make("h3", { text: "Largest confusions" }), view.noMistake, view.worst);
  view.gallery = make(
    "section",
    { class: "swb-gallery", hidden: true, "aria-label": "Photos" },
    view.count,
    controls(view),
    view.bar,
    view.picked,
    view.empty,
    view.list,
    view.more,
  );
  const body = make(
    "div",
    { class: "swb-body" },
    make("div", { class: "swb-wide" }, view.grid, view.pager, legend),
    make("div", { class: "swb-right" }, view.detail, view.side),
    view.gallery,
  );
  root.append(make("div", { class: "swb-head" }, view.title, tools), view.about, body, view.status, view.dialog, view.help);
  el.append(root);
}

function verbs(view) {
  view.say = (text, wrong = false) => {
    view.status.textContent = text;
    view.status.classList.toggle("swb-wrong", wrong);
    clearTimeout(view.fading);
    if (text && !wrong) view.fading = setTimeout(() => (view.status.textContent = ""), SAID_FOR);
  };
  view.swatch = (label) => {
    const node = make("i", { class: "swb-swatch", "aria-hidden": "true" });
    node.style.background = view.colours[label] || "transparent";
    return node;
  };
  view.later = (what, milliseconds) => {
    clearTimeout(view.clock);
    view.clock = setTimeout(what, milliseconds);
  };
  view.open = async ({ of, taken }, byKey = false) => {
    Object.assign(view.filter, { of, taken });
    view.controls.of.value = of;
    view.controls.taken.value = taken;
    Object.assign(view, { opened: true, drawn: 0, spot: { of, taken } });
    view.chosen.clear();
    view.shut();
    view.gallery.hidden = false;
    markCell(view);
    try {
      await fetchCards(view);
    } catch (error) {
      return view.say(error.message, true);
    }
    view.say("");
    view.gallery.scrollIntoView({ block: "nearest", behavior: "instant" });
    if (byKey) view.list.firstChild?.focus();
  };
  view.look = async (k, quiet = false) => {
    clearTimeout(view.clock);
    view.current = k;
    drawChosen(view);
    try {
      const { detail } = await view.ask("detail", { k });
      if (view.current !== k) return;
      view.detail.hidden = false;
      view.side.hidden = true;
      drawDetail(view, detail);
      if (!quiet) (isNarrow(view) ? view.detail : view.list.querySelector(".swb-current"))?.scrollIntoView({ block: "nearest" });
      stayFocused(view);
    } catch (error) {
      view.say(error.message, true);
    }
  };
  view.shut = () => {
    view.current = null;
    view.alike = [];
    view.detail.hidden = true;
    view.detail.replaceChildren();
    view.side.hidden = false;
    drawChosen(view);
    stayFocused(view);
  };
}

async function render({ model, el }) {
  const { ask, end } = line(model),
    view = {
      ask,
      filter: { of: "", taken: "", low: 0, high: 1, site: "", corrected: "" },
      shares: false,
      confused: false,
      page: 0,
      cards: [],
      drawn: 0,
      chosen: new Set(),
      current: null,
      alike: [],
      colours: {},
      maps: ["photo"],
      labels: [],
      sites: [],
    };
  view.thumbs = thumbnails(ask);
  verbs(view);
  build(view, el);
  const redraw = () => {
    if (view.matrix) drawMatrix(view);
  };
  const theme = new MutationObserver(redraw),
    dark = matchMedia("(prefers-color-scheme: dark)"),
    scroll = new IntersectionObserver(
      ([seen]) => {
        if (seen.isIntersecting && !view.more.hidden) drawMore(view);
      },
      { rootMargin: "300px" },
    );
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
  dark.addEventListener("change", redraw);
  scroll.observe(view.more);
  view.say("Reading the predictions …");
  ask("open")
    .then(({ about, matrix }) => {
      Object.assign(view, about, { matrix, colours: { ...matrix.colours } });
      view.title.textContent = about.name;
      view.title.title = about.table;
      drawAbout(view);
      drawMatrix(view);
      view.say("");
    })
    .catch((error) => view.say(error.message, true));
  return () => {
    // the view closes: nothing may stay behind
    end();
    view.thumbs.end();
    clearTimeout(view.clock);
    if (view.url) URL.revokeObjectURL(view.url);
    theme.disconnect();
    scroll.disconnect();
    dark.removeEventListener("change", redraw);
  };
}

export default { render };
