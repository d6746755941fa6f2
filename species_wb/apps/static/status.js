// The status line. It says what Python says, and what Python cannot say any more: that it does not answer.

const ROLES = {
  "": { role: "region", "aria-label": "Confusion explorer", tabindex: "-1", "data-lm-suppress-shortcuts": "true" }, // JupyterLab keeps its own keys to itself there
  ".swb-filter": { role: "group", "aria-label": "Which photos" },
  ".swb-bar": { role: "toolbar", "aria-label": "Corrections" },
  ".swb-tabs": { role: "group", "aria-label": "Photo, or where the network looked" },
  ".swb-gallery": { role: "region", "aria-label": "Photos" },
  ".swb-detail": { role: "complementary", "aria-label": "One photo in full" },
  ".swb-picked": { "aria-live": "polite" },
  ".swb-close": { "aria-label": "Close this photo" },
};
const TOGGLES = "button.widget-toggle-button, .widget-toggle-buttons button"; // ipywidgets marks by colour alone which of them are pressed

function name(root) {
  for (const [which, attributes] of Object.entries(ROLES))
    for (const node of which ? root.querySelectorAll(which) : [root])
      for (const [attribute, value] of Object.entries(attributes)) if (node.getAttribute(attribute) !== value) node.setAttribute(attribute, value);
  for (const node of root.querySelectorAll(TOGGLES)) node.setAttribute("aria-pressed", String(node.classList.contains("mod-active")));
}

function render({ model, el }) {
  el.classList.add("swb-part", "swb-foot");
  const node = make("p", { class: "swb-status", role: "status", "aria-live": "polite" }),
    { ask, end } = line(model);
  el.append(node);
  let fading = 0,
    asking = false,
    ends = [end];
  const show = ({ text, wrong = false }) => {
    node.textContent = text;
    node.classList.toggle("swb-wrong", wrong);
    clearTimeout(fading);
    if (text && !wrong) fading = setTimeout(() => (node.textContent = ""), SAID_FOR);
  };
  const hear = (message) => message.say != null && show({ text: message.say, wrong: message.wrong });
  const ping = async () => {
    // whatever is used: Python must answer
    if (asking) return;
    asking = true;
    await ask("alive").catch((error) => show({ text: error.message, wrong: true }));
    asking = false;
  };
  const told = (event) => show(event.detail);
  model.on("msg:custom", hear);
  ends.push(
    () => model.off("msg:custom", hear),
    whenShown(el, (root) => {
      const seen = new MutationObserver(() => name(root));
      seen.observe(root, { subtree: true, childList: true, attributes: true, attributeFilter: ["class"] });
      name(root);
      for (const kind of ["click", "change"]) root.addEventListener(kind, ping);
      root.addEventListener("swb-say", told);
      ends.push(() => {
        seen.disconnect();
        for (const kind of ["click", "change"]) root.removeEventListener(kind, ping);
        root.removeEventListener("swb-say", told);
      });
    }),
  );
  show({ text: "Reading the predictions …" });
  ask("open")
    .then(() => node.textContent.startsWith("Reading") && show({ text: "" }))
    .catch((error) => show({ text: error.message, wrong: true }));
  return () => {
    ends.forEach((end) => end());
    clearTimeout(fading);
  };
}

export default { render };
