// The upload page: every photo is posted on its own to /classify, two at a time, and its row is put into words.
const MOST_FILES = 200; // at a time: a folder of a card is for the command line
const SHOWN = 5; // bars
const TRIES = 6; // where the service says that it is busy
const at = (id) => document.getElementById(id);
const several = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
const percent = (share) => {
  const value = 100 * share; // as `core.percent` writes it: 100 % and 0 % only for what is exactly that
  const told = [0, 1].map((digits) => value.toFixed(digits)).find((text) => value <= 0 || value >= 100 || (text > 0 && text < 100));
  return `${told ?? (value > 50 ? ">99.9" : "<0.1")}\u00a0%`;
};
const size = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

let model = null; // what GET /model said
const called = (label) => model?.names[label] ?? label;
// The deepest name that the model is sure of, where it says more than the label
const finer = (row) => (row.taxon && row.taxon !== row.label ? ` → ${model?.taxa[row.taxon] ?? row.taxon}` : "");
let queue = [];
let running = 0;
let cards = [];

// What the model is

function sayModel() {
  const none = model.label_ids.includes(-1);
  const names = model.labels.filter((_, k) => model.label_ids[k] !== -1);
  const { accuracy, n } = model.validation;
  const tried = Number.isFinite(accuracy) && Number.isFinite(n) ? ` On the ${several(n, "photo")} that it was chosen or set with, it named ${percent(accuracy)} right; expect less on others.` : "";
  const files = model.members.length > 1 ? `a mix of ${several(model.members.length, "model")} (${model.members.join(", ")})` : model.file;
  at("about").textContent = `${model.name}, from ${files}; its fingerprint begins with ${model.sha256.slice(0, 16)}.${tried}`;
  at("labels").textContent = names.map(called).join(", ") + (none ? ", or none of these" : "");
  at("reading").textContent =
    `A score is meant as a chance: of a hundred answers with 90 %, about ninety should be right, for photos like those the model was made with. It chooses among ${several(names.length, "name")} and knows nothing else` +
    (none ? "; where it finds that a photo shows none of them, it says so." : ", so a photo of something else gets one of these names too, at times with a high score.");
  at("ways").textContent = `or drag them here, or paste one; up to ${size(model.photo_bytes)} each`;
}

function sayPrivacy() {
  const here = /^(localhost|127\.[\d.]+|\[::1\])$/.test(location.hostname);
  at("privacy").textContent = here
    ? "Your photos stay on this machine. They are read in memory, kept nowhere and sent nowhere else."
    : `Your photos are sent to ${location.hostname}${location.protocol === "http:" ? ", unencrypted" : ""}. There they are read in memory, kept nowhere and sent nowhere else.`;
}

function trouble(sentence) {
  at("trouble").hidden = !sentence;
  at("trouble").textContent = sentence;
}

async function ask() {
  try {
    const answer = await fetch("/model");
    if (!answer.ok) throw new Error((await answer.json()).reason);
    model = await answer.json();
    at("files").accept = model.accept;
    sayModel();
    trouble("");
  } catch {
    trouble("The program behind this page does not answer: start species-wb serve again, then reload this page.");
  }
}

// One photo

class Card {
  constructor(file) {
    this.file = file;
    this.kind = "working";
    this.node = at("card").content.firstElementChild.cloneNode(true);
    this.part = (name) => this.node.querySelector(name);
    this.part("bdi").textContent = file.name || "pasted photo";
    this.part(".again").addEventListener("click", () => enqueue([this]));
    const image = this.part("img");
    image.alt = `Your photo ${file.name}`;
    image.addEventListener("error", () => this.unshown());
    this.address = URL.createObjectURL(file);
    image.src = this.address;
    this.say("working", "Waiting its turn");
  }

  unshown() {
    this.part("img").hidden = true;
    this.part(".hidden-photo").hidden = false;
    this.part(".photo").classList.add("unshown");
    URL.revokeObjectURL(this.address);
  }

  say(kind, verdict, why = "") {
    this.kind = kind;
    if (kind === "working") this.part(".photo").classList.toggle("veiled", ["blur", "drop"].includes(model?.people));
    this.node.className = `card ${kind}`;
    this.part(".verdict").textContent = verdict;
    this.part(".why").textContent = why;
    this.part(".why").hidden = !why;
    this.part(".again").hidden = kind !== "failed";
    if (kind === "failed") this.node.classList.add("bad");
    sayTally();
    if (kind !== "working") announce(`${this.file.name}: ${verdict}. ${why}`);
  }

  bars(row) {
    const none = model?.label_ids.includes(-1) && row.top.length === model.labels.length - 1;
    const bars = [...row.top];
    if (none) bars.push({ label: model.labels.at(-1), score: Math.max(0, 1 - bars.reduce((sum, b) => sum + b.score, 0)), none });
    bars.sort((a, b) => b.score - a.score);
    const nodes = bars.slice(0, SHOWN).map((bar, k) => {
      const item = document.createElement("li");
      const [name, track, fill, number] = ["bdi", "span", "span", "span"].map((kind) => document.createElement(kind));
      item.className = `${k ? "" : "first"} ${bar.none ? "none" : ""}`;
      name.textContent = called(bar.label);
      [track.className, fill.className, number.className] = ["track", "fill", "percent"];
      fill.style.width = `${100 * bar.score}%`;
      number.textContent = percent(bar.score);
      track.append(fill);
      item.append(name, track, number);
      return item;
    });
    this.part(".bars").replaceChildren(...nodes);
    this.part(".bars").hidden = false;
  }

  async show(row) {
    if (row.boxes?.length) {
      const people = model?.people === "keep" ? [] : row.boxes.filter((box) => box.code === "person");
      await this.part("img").decode();
      if (people.length) await this.hide(people);
      this.boxes(row.boxes.filter((box) => model?.people !== "drop" || box.code !== "person"));
    }
    this.part(".photo").classList.remove("veiled");
  }

  async hide(people) {
    // The photo is replaced by one in which people are few blocks or grey areas, as `detect.people` makes them.
    const image = this.part("img");
    const canvas = document.createElement("canvas");
    const scale = Math.min(1, 1600 / Math.max(image.naturalWidth, image.naturalHeight));
    const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(1, Math.round(side * scale)));
    [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0, width, height);
    for (const { x0, y0, x1, y1 } of people) {
      const [left, top] = [Math.max(0, (x0 - (x1 - x0) / 10) * width), Math.max(0, (y0 - (y1 - y0) / 10) * height)];
      const [right, bottom] = [Math.min(1, x1 + (x1 - x0) / 10) * width, Math.min(1, y1 + (y1 - y0) / 10) * height];
      const [wide, high] = [right - left, bottom - top];
      const longer = Math.max(wide, high);
      const few = document.createElement("canvas");
      [few.width, few.height] = [wide, high].map((side) => Math.max(1, Math.round(((longer < 24 ? 1 : 6) * side) / longer)));
      const rough = few.getContext("2d");
      rough.imageSmoothingQuality = "high";
      rough.drawImage(canvas, left, top, wide, high, 0, 0, few.width, few.height);
      pen.imageSmoothingEnabled = false;
      pen.fillStyle = "#808080";
      if (model?.people === "drop") pen.fillRect(left, top, wide, high);
      else pen.drawImage(few, 0, 0, few.width, few.height, left, top, wide, high);
    }
    const hidden = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
    URL.revokeObjectURL(this.address);
    this.address = URL.createObjectURL(hidden);
    image.src = this.address;
    await image.decode();
  }

  boxes(boxes) {
    // Drawn in the photo's own pixels, and fitted into the card as the photo is.
    const image = this.part("img");
    const made = (kind, parent, attributes) => {
      const node = parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", kind));
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
      return node;
    };
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    if (!width) return;
    this.part("svg.boxes")?.remove();
    const svg = made("svg", this.part(".photo"), { class: "boxes", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const letters = Math.max(width, height) / 22;
    for (const box of [...boxes].reverse()) {
      const place = { x: box.x0 * width, y: box.y0 * height, width: (box.x1 - box.x0) * width, height: (box.y1 - box.y0) * height };
      for (const line of ["dark", "light"]) made("rect", svg, { ...place, class: line });
      const text = made("text", svg, { x: place.x + letters / 4, y: Math.max(place.y - letters / 3, letters), "font-size": letters, "stroke-width": letters / 5 });
      text.textContent = box.label ? called(box.label) : box.code ?? "animal";
    }
  }

  found(row) {
    const count = (kind) => row.boxes.filter((box) => (box.code ?? "animal") === kind).length;
    const parts = ["animal", "person", "vehicle"].filter(count).map((kind) => `${count(kind)} ${kind}${count(kind) > 1 ? "s" : ""}`.replace("persons", "people"));
    return ` ${parts.length ? `Found: ${parts.join(", ")}.` : "No animal was found."}`;
  }

  possible(row) {
    // The set of labels that the model file promises: what else it may be
    const others = (row.set ?? []).filter((label) => label !== row.label).map(called);
    const more = others.length > 4 ? ` and ${others.length - 4} more` : "";
    return others.length ? `Or: ${others.slice(0, 4).join(", ")}${more}.` : "";
  }

  answer(row) {
    const best = called(row.label_raw ?? row.label);
    const none = model?.label_ids.includes(-1);
    const score = finer(row) ? `The name after the arrow has a score of ${percent(row.taxon_score)}.` : "";
    const strange = row.rule?.includes("novelty"); // the photo looks too strange: the reason says how
    if (row.abstained && none && !strange) this.say("unsure", "None of these", `The model finds that this is nothing it can name. The nearest would be ${best}.`);
    else if (row.abstained) this.say("unsure", "Not sure", [row.reason, `The likeliest is ${best}.`].filter(Boolean).join(" "));
    else if (row.score < 0.5) this.say("unsure", "Not sure", `The likeliest is ${best}, but it is more likely to be something else. ${this.possible(row)}`.trim());
    else this.say("named", `${row.score >= 0.95 ? "Almost certainly" : row.score >= 0.75 ? "Probably" : "Perhaps"} ${best}${finer(row)}`, [score, this.possible(row)].filter(Boolean).join(" "));
    this.bars(row);
    const took = row.milliseconds < 1000 ? `${Math.max(1, Math.round(row.milliseconds))} ms` : `${(row.milliseconds / 1000).toFixed(1)} s`;
    this.part(".took").textContent = `Read and answered in ${took}.${row.boxes ? this.found(row) : ""}`;
    this.show(row).catch(() => this.unshown());
    this.part(".took").hidden = false;
  }

  refuse(heading, reason) {
    this.part(".photo").classList.remove("veiled");
    this.say("bad", heading, reason);
  }

  async classify() {
    this.say("working", "Looking at it");
    if (model && this.file.size > model.photo_bytes) {
      return this.refuse(model.headings["too-large"], `It has ${size(this.file.size)}, and up to ${size(model.photo_bytes)} are taken here: save it smaller, or classify it with the command line.`);
    }
    const top = Math.min(Math.max(model?.labels.length ?? SHOWN, SHOWN), 1000);
    const address = `/classify?${new URLSearchParams({ top, name: this.file.name.slice(-255) })}`;
    for (let tried = 1; ; tried++) {
      const answer = await fetch(address, { method: "POST", body: this.file });
      const row = await answer.json();
      if (answer.status === 200) return this.answer(row);
      if (answer.status === 422) return this.refuse(model?.headings[row.status] ?? "No answer", row.reason);
      if (![429, 503].includes(answer.status) || tried === TRIES) return this.say("failed", "No answer", row.reason);
      this.say("working", "Waiting its turn");
      await pause(Number(answer.headers.get("Retry-After")) || 1);
    }
  }

  async failed() {
    const alive = await fetch("/health").then((answer) => answer.ok, () => false);
    if (alive) return this.say("failed", "The file could not be sent", "It may have been moved, changed or be a folder: choose it again.");
    this.say("failed", "No answer", "The program behind this page does not answer: start species-wb serve again, then try again.");
  }
}

// All of them

function announce(sentence) {
  // A screen reader hears every answer of a few photos, and of many only how they ended.
  if (cards.length <= 3) at("live").textContent = sentence;
  else if (!cards.some((card) => card.kind === "working")) at("live").textContent = at("count").textContent;
}

function sayTally() {
  const count = (kind) => cards.filter((card) => card.kind === kind).length;
  const words = { named: "named", unsure: "not sure", bad: "not usable", failed: "not answered", working: "to go" };
  const parts = Object.keys(words).filter(count).map((kind) => `${count(kind)} ${words[kind]}`);
  at("count").textContent = `${several(cards.length, "file")}: ${parts.join(", ")}.`;
  at("tally").hidden = !cards.length;
  document.body.classList.toggle("busy", cards.length > 0);
}

async function work() {
  running++;
  for (let card; (card = queue.shift()); ) {
    await card.classify().catch(() => card.failed());
  }
  running--;
}

function enqueue(added) {
  for (const card of added) card.say("working", "Waiting its turn");
  queue.push(...added);
  while (running < Math.min(2, queue.length + running)) work();
}

function take(files) {
  if (!files.length) return;
  const kept = [...files].slice(0, MOST_FILES);
  trouble(kept.length < files.length ? `Only the first ${MOST_FILES} of ${several(files.length, "file")} are taken at a time: for whole folders there is species-wb classify, which also writes a table.` : "");
  const added = kept.map((file) => new Card(file));
  cards = [...added, ...cards];
  at("cards").prepend(...added.map((card) => card.node));
  enqueue(added);
}

function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  const files = [...transfer.files].filter((_, k) => !entries[k]?.isDirectory);
  take(files);
  if (files.length < transfer.files.length) trouble("A folder cannot be dropped here: choose the photos in it, or use species-wb classify, which reads whole folders.");
  else if (!files.length) trouble("That was not a file: save the picture first, then drag its file here.");
}

let inside = 0;
const over = (yes) => at("drop").classList.toggle("over", yes);
document.addEventListener("dragenter", () => over(++inside > 0));
document.addEventListener("dragleave", () => over(--inside > 0));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  over((inside = 0) > 0);
  dropped(event.dataTransfer);
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
at("files").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = "";
});
at("clear").addEventListener("click", () => {
  for (const card of cards) URL.revokeObjectURL(card.address);
  [queue, cards] = [[], []];
  at("cards").replaceChildren();
  at("live").textContent = "Cleared.";
  trouble("");
  sayTally();
  at("files").focus();
});
sayPrivacy();
ask();
