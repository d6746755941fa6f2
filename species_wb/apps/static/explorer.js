// What matrix, grid, photo and status line of the confusion explorer share. What is asked and answered: nbs/lib/apps/27_explorer_views.ipynb.
// Names of files and labels come from anywhere: they are only ever set as text.

const SAID_FOR = 10_000; // milliseconds that a sentence stays which is no error
const PATIENCE = { map: 180_000 },
  USUAL = 60_000; // milliseconds without an answer
const MARKS = { flag: "⚑ flagged", relabel: "✎ relabelled", confirm: "✓ confirmed", exclude: "✕ excluded" };

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
const called = (names, label) => names?.[label] ?? label; // a label as people see it: Aves · birds
const photos = (n) => `${n.toLocaleString("en")} ${n === 1 ? "photo" : "photos"}`;
const swatch = (colours, label) => {
  const node = make("i", { class: "swb-swatch", "aria-hidden": "true" });
  node.style.background = colours[label] || "transparent";
  return node;
};
const typing = (node) => node.matches?.("input:not([type=checkbox]), select, textarea") ?? false;

// Between the parts of one explorer: they find each other in the page, because a kernel may be slow or gone

const explorerOf = (el) => el.closest(".swb-explorer");
const say = (el, text, wrong = false) => el.dispatchEvent(new CustomEvent("swb-say", { bubbles: true, detail: { text, wrong } }));

function whenShown(el, then) {
  // ipywidgets draws a part before it puts it into the page
  let frame = 0;
  const look = () => (el.isConnected ? then(explorerOf(el) ?? el) : (frame = requestAnimationFrame(look)));
  look();
  return () => cancelAnimationFrame(frame);
}

function stayFocused(el) {
  // keys are heard only where the focus is, and what had it may be gone
  const root = explorerOf(el);
  if (!root || (document.activeElement && document.activeElement !== document.body)) return;
  const card = root.querySelector(".swb-card.swb-current") ?? root.querySelector(".swb-card[tabindex='0']");
  (card ?? root).focus({ preventScroll: true });
}

function set(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

function listen(model, names, what) {
  // one call, however many of these traits change at once; returns how to end it
  let due = false,
    over = false;
  const soon = () => {
    if (!due) queueMicrotask(() => ((due = false), over || what()));
    due = true;
  };
  names.forEach((name) => model.on(`change:${name}`, soon));
  return () => {
    over = true;
    names.forEach((name) => model.off(`change:${name}`, soon));
  };
}

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

const BATCH = 24,
  IN_FLIGHT = 2; // thumbnails a request, requests at a time

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
