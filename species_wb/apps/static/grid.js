// The photos of a cell, drawn as one scrolls, and the keys of the whole explorer.

const CHUNK = 96; // cards drawn at once
const KEYS = { f: "flag", c: "confirm", x: "exclude" };

function drawGallery(view) {
  const cards = view.model.get("cards"),
    numbers = new Set(cards.map((one) => one.k)),
    focused = document.activeElement?.closest?.(".swb-card"),
    inList = view.list.contains(focused),
    old = new Map([...view.list.children].map((node) => [Number(node.dataset.k), node]));
  view.thumbs.keep(numbers);
  const nodes = cards.slice(0, Math.max(CHUNK, view.drawn)).map((one) => dress(old.get(one.k) || bare(view, one), one, view));
  view.drawn = nodes.length;
  view.list.replaceChildren(...nodes);
  view.more.hidden = nodes.length >= cards.length;
  view.empty.hidden = cards.length > 0;
  if (!nodes.some((node) => node.tabIndex === 0) && nodes[0]) nodes[0].tabIndex = 0;
  drawChosen(view);
  if (inList && nodes.length) focusCard(view, view.list.querySelector(".swb-current") ?? (focused.isConnected ? focused : nodes[0]));
}

function begin(view) {
  // another cell is shown
  const root = explorerOf(view.el);
  view.drawn = 0;
  drawGallery(view);
  (view.el.closest(".swb-gallery") ?? view.el).scrollIntoView({ block: "nearest", behavior: "instant" });
  if (root?.dataset.goOn) view.list.firstChild?.focus();
  if (root) delete root.dataset.goOn;
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
  const any = !(view.model.get("cell") ?? []).every(Boolean),
    words = node.querySelector(".swb-words"),
    [truth, answer] = [one.truth, one.answer].map((label) => called(view.model.get("names"), label));
  words.replaceChildren(
    make("b", { text: percent(one.score) }),
    one.action ? make("span", { class: `swb-mark swb-${one.action}`, text: MARKS[one.action] }) : "",
    any
      ? make(
          "span",
          { class: "swb-line" },
          swatch(view.model.get("colours"), one.truth),
          make("span", { text: one.truth === one.answer ? truth : `${truth} → ${answer}`, title: `${truth} → ${answer}` }),
        )
      : "",
    make("span", { class: "swb-line swb-soft", text: one.name, title: one.name }),
  );
  node.setAttribute(
    "aria-label",
    `${one.name}, ${truth}, taken for ${answer}, score ${percent(one.score)}${one.action ? `, ${MARKS[one.action].slice(2)}` : ""}`,
  );
  return node;
}

function drawMore(view) {
  const cards = view.model.get("cards"),
    next = cards.slice(view.drawn, view.drawn + CHUNK);
  view.list.append(...next.map((one) => dress(bare(view, one), one, view)));
  view.drawn += next.length;
  view.more.hidden = view.drawn >= cards.length;
  drawChosen(view);
}

function drawChosen(view) {
  const chosen = new Set(view.model.get("chosen")),
    current = view.model.get("photo");
  for (const node of view.list.children) {
    const k = Number(node.dataset.k);
    node.setAttribute("aria-selected", String(chosen.has(k)));
    node.classList.toggle("swb-current", k === current);
  }
}

function targets({ model }) {
  const [chosen, current] = [model.get("chosen"), model.get("photo")];
  return chosen.length ? chosen : current != null ? [current] : [];
}

function put(view, values) {
  // what is chosen, at once in the page and then in Python
  for (const [name, value] of Object.entries(values)) view.model.set(name, value);
  set(view.model, { idle: !targets(view).length });
}

function choose(view, k, event = {}) {
  const numbers = view.model.get("cards").map((one) => one.k),
    chosen = new Set(view.model.get("chosen"));
  if (event.shiftKey && view.anchor != null) {
    const [a, b] = [numbers.indexOf(view.anchor), numbers.indexOf(k)].sort((x, y) => x - y);
    numbers.slice(Math.max(a, 0), b + 1).forEach((one) => chosen.add(one));
  } else {
    chosen.has(k) ? chosen.delete(k) : chosen.add(k);
    view.anchor = k;
  }
  put(view, { chosen: [...chosen] });
}

function look(view, k) {
  clearTimeout(view.clock);
  const root = explorerOf(view.el);
  if (root && view.model.get("photo") !== k) root.dataset.look = "yes"; // in one column, the photo comes into view
  put(view, { photo: k });
  view.list.querySelector(".swb-current")?.scrollIntoView({ block: "nearest" });
}

function clickCard(event, view) {
  const node = event.target.closest("[role=option]");
  if (!node) return;
  const k = Number(node.dataset.k),
    current = view.model.get("photo");
  focusCard(view, node);
  if (event.shiftKey || event.ctrlKey || event.metaKey) {
    if (!view.model.get("chosen").length && current != null && event.shiftKey) view.anchor = current;
    return choose(view, k, event);
  }
  view.anchor = k;
  if (view.model.get("chosen").length) put(view, { chosen: [] });
  look(view, k);
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
    return look(view, k);
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
  if (view.model.get("photo") == null) return;
  clearTimeout(view.clock);
  view.clock = setTimeout(() => look(view, Number(to.dataset.k)), 150); // the photo beside follows
}

// Keys of the whole explorer, and what is meant by a button for corrections

async function correct(view, ask, more = {}) {
  const which = targets(view);
  if (ask !== "undo" && !which.length) return say(view.el, "Choose a photo first: click on it, or go to it with the arrow keys and press Enter.");
  if (view.writing) return;
  view.writing = true;
  try {
    await view.ask(ask, { which, ...more });
  } catch (error) {
    say(view.el, error.message, true);
  } finally {
    view.writing = false;
  }
  stayFocused(view.el);
}

function back(view) {
  // from a field or a button that is about to go
  const root = explorerOf(view.el);
  (root.querySelector(".swb-card.swb-current") ?? root.querySelector(".swb-card[tabindex='0']") ?? root).focus({ preventScroll: true });
}

function labelKey(event, view) {
  // in the field for a new label
  if (event.key === "Enter" && event.target.value.trim()) {
    correct(view, "relabel", { new_label: event.target.value });
    back(view);
  } else if (event.key === "Escape") back(view);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function onKey(event, view, root) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches(".swb-new-label input")) return labelKey(event, view);
  if (typing(event.target)) return;
  const key = event.key.toLowerCase(),
    field = root.querySelector(".swb-new-label input"),
    help = root.querySelector("button.swb-keys.mod-active"),
    pictures = [...root.querySelectorAll(".swb-tabs button")],
    shown = pictures.findIndex((node) => node.classList.contains("mod-active"));
  if (key === "r" && targets(view).length) field?.focus();
  else if (key === "r") correct(view, "relabel");
  else if (KEYS[key]) correct(view, "correct", { action: KEYS[key] });
  else if (key === "z") correct(view, "undo");
  else if (key === "m" && view.model.get("photo") != null) pictures[(shown + 1) % pictures.length]?.click();
  else if (event.key === "?") root.querySelector("button.swb-keys")?.click();
  else if (event.key !== "Escape") return;
  else if (help) help.click();
  else if (view.model.get("chosen").length) put(view, { chosen: [] });
  else if (view.model.get("photo") != null) {
    back(view);
    put(view, { photo: null });
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

function onClick(event, view) {
  // before ipywidgets tells Python of it
  const label = event.target.closest(".swb-labels button")?.textContent;
  if (event.target.closest(".swb-meant")) view.model.send({ ask: "meant", which: targets(view), label });
  if (event.target.closest(".swb-close, .swb-meant")) back(view);
}

function hear(view, root) {
  const key = (event) => onKey(event, view, root),
    click = (event) => onClick(event, view);
  root.addEventListener("keydown", key, true);
  root.addEventListener("click", click, true);
  root.querySelector(".swb-labels")?.setAttribute("tabindex", "-1"); // where a click on a button gives it no focus, its list stays open
  view.ends.push(() => {
    root.removeEventListener("keydown", key, true);
    root.removeEventListener("click", click, true);
  });
}

function render({ model, el }) {
  el.classList.add("swb-part");
  const { ask, end } = line(model),
    view = { model, el, ask, drawn: 0, thumbs: thumbnails(ask), ends: [] };
  Object.assign(view, {
    list: make("ul", {
      class: "swb-list",
      role: "listbox",
      "aria-multiselectable": "true",
      "aria-label": "Photos, most confident first",
      on: { click: (event) => clickCard(event, view), keydown: (event) => walkCards(event, view) },
    }),
    more: make("div", { class: "swb-more", hidden: true, text: "Further photos appear as you scroll." }),
    empty: make("p", { class: "swb-soft", text: "No photo fits: widen the score, or choose “any”.", hidden: true }),
  });
  el.append(view.empty, view.list, view.more);
  const scroll = new IntersectionObserver(
    ([seen]) => {
      if (seen.isIntersecting && !view.more.hidden) drawMore(view);
    },
    { rootMargin: "300px" },
  );
  scroll.observe(view.more);
  let cell = model.get("cell");
  const draw = () => {
    const another = String(cell) !== String((cell = model.get("cell")));
    another ? begin(view) : drawGallery(view);
  };
  view.ends.push(
    whenShown(el, (root) => hear(view, root)),
    listen(model, ["cell", "cards", "colours", "names"], draw),
    listen(model, ["chosen", "photo"], () => drawChosen(view)),
    end,
    view.thumbs.end,
  );
  drawGallery(view);
  return () => {
    view.ends.forEach((end) => end());
    clearTimeout(view.clock);
    scroll.disconnect();
  };
}

export default { render };
