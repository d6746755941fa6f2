// One photo in full: the picture or the map of where the network looked, what is known of it, similar photos.

function drawDetail(view, about) {
  const named = (label) => called(view.model.get("names"), label);
  const facts = [
    ["Labelled", named(about.truth) + (about.was === about.truth ? "" : ` (was ${named(about.was)})`)],
    ["Taken for", `${named(about.answer)}, ${percent(about.score)}${about.finer ? ` → ${about.finer}, ${percent(about.finer_score)}` : ""}`],
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
    return make("li", {}, make("span", { text: named(one.label), title: named(one.label) }), make("span", { class: "swb-track" }, fill), make("span", { text: percent(one.score) }));
  });
  const near = about.neighbours.map((one) => {
    const says = `${one.name}: ${named(one.truth)}, taken for ${named(one.answer)}, ${percent(one.alike)} alike`,
      node = button("", () => set(view.model, { k: one.k }), { title: says, "aria-label": says });
    node.append(
      view.thumbs.place(one.k, one.name, { class: "swb-thumb" }),
      make("span", { class: "swb-line" }, swatch(view.model.get("colours"), one.truth), make("span", { text: one.truth })),
    );
    return make("li", {}, node);
  });
  view.thumbs.keep(new Set(about.neighbours.map((one) => one.k)));
  const note = (text) => (text ? [make("p", { class: "swb-soft", text })] : []);
  view.el.replaceChildren(
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
  showPicture(view);
}

async function showPicture(view) {
  const { about } = view,
    label = about?.maps[view.model.get("shows") - 1],
    figure = view.el.querySelector(".swb-large"),
    said = view.el.querySelector(".swb-said"),
    turn = (view.turn = (view.turn || 0) + 1),
    old = () => turn !== view.turn || !figure.isConnected;
  if (!figure) return;
  figure.classList.add("swb-waiting");
  said.textContent = label ? "Asking the network …" : "";
  let shown = null,
    words = "";
  try {
    const found = await (label ? view.ask("map", { k: about.k, label }) : view.ask("picture", { k: about.k }));
    if (old()) return;
    words = found.said || "";
    if (view.url) URL.revokeObjectURL(view.url);
    view.url = URL.createObjectURL(new Blob([found.buffers[0]], { type: "image/jpeg" }));
    shown = make("img", { src: view.url, alt: label ? `Where the network looked for ${label}` : "The photo" });
  } catch (error) {
    shown = make("span", { class: "swb-gone", text: error.message });
  }
  if (old()) return;
  figure.classList.remove("swb-waiting");
  figure.replaceChildren(shown);
  said.textContent = words;
}

function follow(card) {
  // a card that is higher than the window moves with the page, up and down, so that all of it is seen without a scroll of its own
  let top = 0,
    before = 0;
  const height = () => {
    for (let node = card.parentElement; node; node = node.parentElement)
      if (node.scrollHeight > node.clientHeight + 1 && /auto|scroll/.test(getComputedStyle(node).overflowY)) return Math.min(node.clientHeight, innerHeight);
    return innerHeight;
  };
  const move = () => {
    const at = card.parentElement.getBoundingClientRect().top;
    top = Math.min(0, Math.max(height() - card.offsetHeight, top + at - before));
    before = at;
    card.style.top = `${top}px`;
  };
  const begin = () => ((before = card.parentElement.getBoundingClientRect().top), (top = 0), move());
  const sized = new ResizeObserver(move);
  sized.observe(card);
  document.addEventListener("scroll", move, { capture: true, passive: true }); // of whatever scrolls
  const end = () => {
    sized.disconnect();
    document.removeEventListener("scroll", move, { capture: true });
  };
  return { begin, end };
}

function comeIntoView(el) {
  const root = explorerOf(el),
    detail = el.closest(".swb-detail") ?? el;
  const oneColumn = detail.offsetWidth > 0.8 * (root?.offsetWidth ?? 0);
  if (root?.dataset.look && oneColumn) detail.scrollIntoView({ block: detail.offsetHeight < innerHeight ? "nearest" : "start" });
  if (root) delete root.dataset.look;
}

function render({ model, el }) {
  el.classList.add("swb-part", "swb-photo");
  const { ask, end } = line(model),
    view = { model, el, ask, thumbs: thumbnails(ask), about: null };
  const draw = async () => {
    const k = model.get("k");
    if (k == null) {
      view.about = null;
      return el.replaceChildren();
    }
    try {
      const { detail } = await ask("detail", { k });
      if (model.get("k") !== k) return;
      view.about = detail;
      drawDetail(view, detail);
      view.card?.begin();
      comeIntoView(el);
      stayFocused(el);
    } catch (error) {
      say(el, error.message, true);
    }
  };
  const placed = whenShown(el, () => {
    const card = el.closest(".swb-detail");
    if (card) view.card = follow(card);
  });
  const ends = [placed, () => view.card?.end(), listen(model, ["k", "version", "colours", "names"], draw), listen(model, ["shows"], () => showPicture(view)), end, view.thumbs.end];
  draw();
  return () => {
    ends.forEach((end) => end());
    if (view.url) URL.revokeObjectURL(view.url);
  };
}

export default { render };
