// The canvas of the camera panel: frames of a camera or film go to the kernel as JPEG, one or two at a time, and each comes back
// as an answer. camera_view.py is the other side; its notebook (nbs/lib/apps/23_camera_view.ipynb) lists the messages. Buttons and
// fields are ipywidgets, linked to the traits of this model; camera.py lays them out.

const FAST = 0.08; // seconds in the kernel: a faster model has two frames in flight, a slower one one
const FIRST_PATIENCE = 30; // seconds for the first answer, then
const PATIENCE = 8;
const QUALITY = 0.85; // of the JPEG that is classified
const KEPT_QUALITY = 0.92; // of a photo that is kept
const MOST_BYTES = 9e6; // of one message: a notebook's server breaks the connection at 10 MiB
const SHRUNK = 2048; // pixels, the longest side of a photo that had to be made smaller
const NONE = "none of these";
const HINTS = {
  file: "Drop a photo or film here, or press Start to choose one.",
  address: "Type where to look above, and press Start.",
  camera: "Press Start and hold something before the camera, or drop a photo or film here.",
  elsewhere: "Another view of this panel has the camera. Press Stop to end it there.",
};
const OPENING = "Opening …";
const SILENT =
  "Python does not answer: it is busy with another cell, was restarted, or has stopped. Wait a little and press Start; if that does not help, run this cell again, or reload the page.";
const FREE = { running: false, owner: "", frozen: false, frozen_off: true, recording_off: true, running_word: "Start", frozen_word: "Freeze" };

const seconds = () => performance.now() / 1000;

// Small pieces of the page

function make(tag, name, parent, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  if (name) element.className = name;
  if (parent) parent.append(element);
  return element;
}

// What a browser says where it gives no camera, in a person's words: what, why, what to do

function refusal(error) {
  const other = "or choose another source, such as a photo or film";
  if (!window.isSecureContext)
    return `Browsers give their camera only to pages that nobody can listen in to, and this one came over plain http from ${location.hostname}: open it on the machine that runs it, at an address that begins with http://localhost or https://, ${other}.`;
  if (!navigator.mediaDevices)
    return `The camera cannot be used, because this program gives none to notebooks (VS Code does not): open the notebook in JupyterLab in a browser, ${other}.`;
  const words = {
    NotAllowedError: `The browser was not allowed to use the camera: click the camera sign beside the page's address, allow it and press Start again, ${other}.`,
    NotFoundError: `This computer has no camera that the browser can see: plug one in and press Start again, ${other}.`,
    NotReadableError: `The camera is in use by another program: close that program (a video call?) and press Start again, ${other}.`,
    OverconstrainedError: `The chosen camera is no longer there: choose another one and press Start again, ${other}.`,
  };
  return words[error?.name] ?? `The camera could not be started (${error?.name ?? "no reason was given"}): unplug it and plug it in again, ${other}.`;
}

class Canvas {
  constructor(model, root, views) {
    this.model = model;
    this.views = views; // all of this page: they share the model, and one of them has the camera
    this.view = Math.random().toString(36).slice(2); // Python tells views by it
    this.kind = ""; // what runs: "", "camera", "film", "photo", "address"
    this.flight = new Map(); // frames that have no answer yet: id → when they were taken, and the full picture where one is recorded
    this.spare = []; // canvases
    this.next = 0;
    this.gone = new AbortController(); // ends all listeners
    this.askedAt = Infinity; // when Python was asked whether this view may have the camera
    this.mine = this.get("source"); // the source as this view knows it
    this.build(root);
    this.listen();
    this.takeOver();
    this.show(this.hint);
    this.showAnswer(null);
    this.listSources();
    this.mirror();
    this.time();
  }

  takeOver() {
    // What ran when this page was loaded or this view was opened ends; what waits for a view begins.
    if (!this.get("running")) this.tell(FREE);
    else if (this.get("owner")) this.tell({ ...FREE, recording: false });
    else this.switched();
  }

  // The model, which Python and the controls share

  get(name) {
    return this.model.get(name);
  }

  tell(traits) {
    for (const [name, value] of Object.entries(traits)) if (this.get(name) !== value) this.model.set(name, value);
    try {
      this.model.save_changes();
    } catch {
      // Python is gone: the page goes on by itself
    }
  }

  panel() {
    return this.root.closest(".swb-camera"); // null where a cell shows the canvas alone
  }

  leads() {
    // the view that a person is at, else the newest one
    const at = [...this.views].find((one) => one.panel()?.contains(document.activeElement));
    return this === (at ?? [...this.views].at(-1));
  }

  // The page

  build(root) {
    this.root = make("div", "swb-view", root);
    this.root.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes keys for its own
    this.file = make("input", "", this.root, { type: "file", accept: this.get("accept"), hidden: true });
    this.buildStage();
  }

  buildStage() {
    this.stage = make("div", "swb-stage", this.root);
    this.picture = make("div", "swb-picture", this.stage);
    this.video = make("video", "", this.picture, { muted: true, playsInline: true, hidden: true });
    this.image = make("img", "", this.picture, { alt: "", hidden: true });
    this.seen = make("div", "swb-seen", this.picture, { hidden: true, title: "What the model looks at" });
    this.hint = make("p", "swb-hint", this.picture);
    const beside = make("div", "swb-beside", this.stage);
    this.answer = make("div", "swb-answer", beside);
    this.label = make("div", "swb-label", this.answer);
    this.label.setAttribute("aria-live", "polite");
    this.common = make("div", "swb-common", this.answer);
    this.bars = make("ol", "swb-bars", this.answer);
    this.note = make("p", "swb-note", this.answer);
    this.said = make("p", "swb-said", beside, { hidden: true });
    this.said.setAttribute("role", "status");
    this.timings = make("p", "swb-timings", beside, { hidden: true });
  }

  // Listening

  on(element, event, act, capture = false) {
    element.addEventListener(event, act, { capture, signal: this.gone.signal });
  }

  listen() {
    this.on(this.file, "change", () => this.takeFiles(this.file.files));
    this.on(document, "keydown", (event) => this.typed(event), true); // before the field keeps it from everybody else
    this.on(this.root, "dragover", (event) => (event.preventDefault(), this.root.classList.add("swb-over")));
    this.on(this.root, "dragleave", () => this.root.classList.remove("swb-over"));
    this.on(this.root, "drop", (event) => (event.preventDefault(), this.root.classList.remove("swb-over"), this.takeFiles(event.dataTransfer.files)));
    this.on(
      this.video,
      "error",
      () =>
        this.kind === "film" &&
        this.fail("This browser cannot play that film: choose “Address, folder or film by its path”, so that the notebook's machine reads it."),
    );
    this.on(this.video, "ended", () => this.stop("The film has ended."));
    this.on(this.image, "load", () => this.frameSeen());
    for (const event of ["loadeddata", "resize"]) this.on(this.video, event, () => this.frameSeen());
    this.observe({
      "msg:custom": (message, buffers) => this.hear(message, buffers),
      "change:running": () => this.switched(),
      "change:owner": () => this.kind && this.get("owner") && this.get("owner") !== this.view && this.leave(),
      "change:frozen": () => this.freeze(),
      "change:recording": () => this.reword("recording", "Record", "Stop recording"),
      "change:mirrored": () => this.mirror(),
      "change:timings": () => this.time(),
      "change:source": () => this.chooseSource(),
      "change:model": () => (this.frameSeen(), this.lookAgain()),
      "change:whole": () => (this.frameSeen(), this.lookAgain()),
      "change:min_score": () => this.lookAgain(),
    });
    this.clock = setInterval(() => this.look(), 500);
  }

  observe(acts) {
    this.acts = acts;
    for (const [event, act] of Object.entries(acts)) this.model.on(event, act);
  }

  typed(event) {
    const field = event.key === "Enter" && event.target.closest?.(".swb-address");
    if (field && this.panel()?.contains(field)) this.start(); // the field has told its text already
  }

  close() {
    if (this.kind) this.stop();
    this.closed = true;
    clearInterval(this.clock);
    this.gone.abort();
    for (const [event, act] of Object.entries(this.acts)) this.model.off(event, act);
    this.root.remove();
  }

  // Talking with the kernel

  send(kind, content = {}, buffers = []) {
    try {
      this.model.send({ kind, view: this.view, ...content }, undefined, buffers);
    } catch {
      if (this.kind) this.fail(SILENT);
    }
  }

  hear(message, buffers) {
    if (message.kind === "said" && (!message.view || message.view === this.view)) {
      if (message.over) this.stop(message.sentence, message.bad);
      else this.say(message.sentence, message.bad);
    }
    if (message.view !== this.view) return;
    if (message.kind === "begun") this.granted?.(message.yours);
    if (message.kind === "answer") this.take(message);
    if (message.kind === "picture") this.showPicture(message, buffers[0]);
    if (message.kind === "record") this.sayRecord(message);
    if (message.kind === "alive" && this.kind === "address") {
      this.heardAt = seconds();
      this.send("here");
    }
  }

  // Words

  say(sentence, bad = false) {
    this.opening = false;
    this.said.textContent = sentence;
    this.said.hidden = !sentence;
    this.said.classList.toggle("swb-bad", Boolean(bad));
  }

  fail(sentence) {
    this.stop(sentence, true);
  }

  // Sources

  async listSources(used = "") {
    const devices = navigator.mediaDevices ? await navigator.mediaDevices.enumerateDevices().catch(() => []) : [];
    const cameras = devices
      .filter((device) => device.kind === "videoinput")
      .map((device, k) => [`camera:${device.deviceId}`, device.label || `Camera ${k + 1}`]);
    if (this.closed) return;
    const told = cameras.length ? cameras : [["camera:", "Camera"]];
    const known = (source) => !source.startsWith("camera:") || told.some(([value]) => value === source);
    const source = [used, this.get("source"), told[0][0]].find((one) => one && known(one));
    if (JSON.stringify(told) !== JSON.stringify(this.get("cameras"))) this.model.set("cameras", told);
    this.choose(source);
  }

  hintAt() {
    const source = this.get("running") && !this.kind ? "elsewhere" : this.get("source");
    this.hint.textContent = HINTS[source] ?? HINTS.camera;
  }

  choose(source) {
    this.mine = source; // told by this view: no reason to stop
    this.tell({ source });
    this.hintAt();
  }

  chooseSource() {
    // a person, or Python, chose another source
    const source = this.get("source");
    this.hintAt();
    if (source === this.mine) return;
    this.mine = source;
    const running = this.kind;
    if (running) this.stop();
    if (!this.leads()) return;
    if (source === "file") this.chooseFile();
    else if (source === "address") this.panel()?.querySelector(".swb-address input")?.focus();
    else if (running) this.start();
  }

  chooseFile() {
    if (navigator.userActivation?.isActive ?? true) this.file.click(); // browsers open it only right after a click or key
  }

  switched() {
    // Start was pressed, or Stop, here or in another page, or by Python; the link to the button has its turn first
    const pressed = window.event?.type === "click"; // here: the page where Start was pressed comes first
    setTimeout(() => this.follow(), pressed || !this.get("running") ? 0 : 500);
  }

  follow() {
    const on = this.get("running");
    if (!on && this.kind) this.stop();
    if (on && !this.kind && !this.closed && !this.get("owner") && this.leads()) this.start();
    this.hintAt();
  }

  start() {
    if (this.kind) this.stop();
    const source = this.get("source");
    if (source === "file") {
      this.tell({ running: false });
      return this.chooseFile();
    }
    return source === "address" ? this.startAddress() : this.startCamera(source.slice("camera:".length));
  }

  async startCamera(device) {
    const turn = await this.begin("camera", "Asking for the camera …");
    if (!turn) return;
    try {
      if (!window.isSecureContext || !navigator.mediaDevices) throw null;
      const wanted = { width: { ideal: 1280 }, height: { ideal: 720 }, ...(device ? { deviceId: { exact: device } } : {}) };
      const stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
      if (turn !== this.turn) return stream.getTracks().forEach((track) => track.stop()); // stopped, or closed, meanwhile
      this.stream = stream;
    } catch (error) {
      if (turn === this.turn) this.fail(refusal(error));
      return;
    }
    const [track] = this.stream.getVideoTracks();
    this.on(track, "ended", () => this.fail("The camera went away (unplugged, or taken by another program): plug it in and press Start again."));
    const { deviceId, facingMode } = track.getSettings();
    this.tell({ mirrored: facingMode !== "environment" });
    this.video.srcObject = this.stream;
    await this.listSources(deviceId && `camera:${deviceId}`); // names are known only now
    if (turn !== this.turn) return;
    this.run(turn);
  }

  takeFiles(files) {
    const [file] = files;
    if (!file) return;
    this.stop(); // here, or where another view has the camera
    const several = files.length > 1 ? ` Only the first of ${files.length} files was taken: for many photos there is species-wb classify.` : "";
    if (file.type.startsWith("video/")) this.startFilm(file, several);
    else this.startPhoto(file, several);
    this.file.value = "";
  }

  async startFilm(file, several) {
    const turn = await this.begin("film");
    if (!turn) return;
    this.choose("file");
    this.url = URL.createObjectURL(file);
    this.video.src = this.url;
    this.tell({ mirrored: false });
    this.say(`${file.name}.${several}`);
    this.run(turn);
  }

  async startPhoto(file, several) {
    const turn = await this.begin("photo");
    if (!turn) return;
    this.choose("file");
    this.url = URL.createObjectURL(file);
    this.show(this.image);
    this.tell({ mirrored: false });
    this.image.src = this.url;
    this.say(`${file.name}.${several}`);
    const large = file.size > MOST_BYTES;
    const data = await (large ? shrunk(file) : file.arrayBuffer()).catch(() => null);
    if (turn !== this.turn) return;
    if (!data && large)
      return this.fail(
        `${file.name} is larger than ${MOST_BYTES / 1e6} MB and cannot be made smaller here: save it smaller, or name its folder by its path.`,
      );
    if (!data) return this.fail(`${file.name} could not be read: it was moved, or is not on this machine; choose it again.`);
    if (large) this.say(`${file.name}, made smaller to ${SHRUNK} pixels because it is larger than ${MOST_BYTES / 1e6} MB.${several}`);
    this.still = { name: file.name, data };
    this.askStill();
  }

  askStill() {
    this.flight.set(++this.next, { at: seconds() });
    this.send("photo", { id: this.next, name: this.still.name }, [this.still.data]);
  }

  lookAgain() {
    // a picture that stands still is asked again where the model or a setting is another
    if (this.kind === "photo" && this.still) this.askStill();
    if (this.kind && this.get("frozen") && this.kind !== "address") this.capture();
  }

  async startAddress() {
    const source = this.get("address").trim();
    if (!source) {
      this.tell({ running: false });
      return this.panel()?.querySelector(".swb-address input")?.focus();
    }
    if (!(await this.begin("address", OPENING))) return;
    this.show(this.image);
    this.tell({ mirrored: false });
    this.heardAt = seconds();
    this.opening = true; // until the first picture comes, or something else is said
    this.send("play", { source });
  }

  // Running and stopping

  async begin(kind, sentence = "") {
    // what runs, once Python said that this view may have it; null where it is gone or another view has it
    this.kind = kind;
    this.answered = false;
    this.count = { shown: 0, answered: 0, times: [], delays: [] };
    const turn = (this.turn = Symbol(kind));
    this.lasting = "";
    const still = kind === "photo";
    this.tell({ running: true, owner: this.view, frozen: false, frozen_off: still, recording_off: still || kind === "film", running_word: "Stop" });
    this.say(sentence);
    if (navigator.userActivation?.isActive) this.comeIntoView(); // a person pressed Start or dropped a photo
    this.askedAt = seconds();
    const yours = new Promise((done) => (this.granted = done));
    this.send("begin");
    const mine = await yours;
    if (turn !== this.turn) return null;
    this.askedAt = Infinity;
    if (!mine) this.leave();
    return mine ? turn : null;
  }

  comeIntoView() {
    // picture and buttons together, where they fit
    const panel = this.panel();
    (panel && panel.offsetHeight < 0.95 * innerHeight ? panel : this.root).scrollIntoView({ block: "nearest" });
  }

  leave() {
    // another view has it
    this.end();
    this.say("");
  }

  async run(turn) {
    this.show(this.video);
    await this.video.play().catch(() => null);
    if (turn !== this.turn) return;
    if (this.kind === "camera") this.say("");
    this.awaitFrame(turn);
  }

  awaitFrame(turn) {
    const step = () => {
      if (turn !== this.turn) return;
      this.fresh = !this.video.paused;
      this.count.shown += 1;
      this.pump();
      this.awaitFrame(turn);
    };
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(step);
    else requestAnimationFrame(step);
  }

  stop(sentence = "", bad = false) {
    const was = this.end();
    if (was === "address") this.send("halt");
    if (was || this.get("running")) this.tell({ ...FREE, recording: false }); // a view that did nothing has nothing to tell
    this.say(sentence || this.lasting || "", bad);
  }

  end() {
    const was = this.kind;
    this.turn = null;
    this.kind = "";
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.pause();
    this.video.srcObject = null;
    this.video.removeAttribute("src");
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    this.still = null;
    this.reset();
    return was;
  }

  reset() {
    this.flight.clear();
    this.fresh = this.busy = false;
    this.askedAt = Infinity;
    this.room = 2;
    this.show(this.hint);
    this.showAnswer(null);
    if (!this.closed) this.listSources();
  }

  show(element) {
    for (const one of [this.video, this.image, this.hint]) one.hidden = one !== element;
    this.frameSeen();
  }

  // The loop

  pump() {
    if (!this.fresh || this.busy || this.get("frozen") || this.flight.size >= this.room) return;
    this.capture();
  }

  async capture() {
    const turn = this.turn;
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width) return;
    this.fresh = false;
    this.busy = true;
    const at = seconds();
    const scale = Math.min(1, this.get("model").side / Math.min(width, height));
    const full = this.get("recording") ? this.drawn(width, height) : null;
    const small = this.drawn(Math.round(width * scale), Math.round(height * scale));
    const data = await bytes(small, QUALITY);
    this.spare.push(small);
    this.busy = false;
    if (turn !== this.turn || !data) return;
    const id = ++this.next;
    this.flight.set(id, { at, full });
    this.send("frame", { id, full: Boolean(full) }, [data]);
    this.pump();
  }

  drawn(width, height) {
    const canvas = this.spare.pop() ?? document.createElement("canvas");
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d", { alpha: false }).drawImage(this.video, 0, 0, width, height);
    return canvas;
  }

  take(message) {
    const sent = this.flight.get(message.id);
    if (!sent) return;
    this.flight.delete(message.id);
    this.answered = true;
    this.tally(sent.at, message.seconds ?? 0);
    this.showAnswer(message);
    if (sent.full) this.finish(message, sent.full);
    if (this.kind === "photo" && message.status !== "ok") return this.fail(`${message.reason} Drop a photo or film.`);
    this.pump();
  }

  async finish(message, full) {
    const data = message.keep ? await bytes(full, KEPT_QUALITY) : null;
    if (data) this.send("keep", { id: message.id }, [data]);
    this.spare.push(full);
    this.spare.length = Math.min(this.spare.length, 6);
  }

  tally(at, took) {
    const now = seconds();
    this.took = this.took === undefined ? took : 0.8 * this.took + 0.2 * took;
    this.room = this.took < FAST ? 2 : 1;
    const { times, delays } = this.count;
    this.count.answered += 1;
    times.push(now);
    delays.push(now - at);
    while (times.length > 1 && now - times[0] > 3) (times.shift(), delays.shift());
    this.root.dispatchEvent(new CustomEvent("swb-answer", { detail: { delay: now - at, took, waiting: this.flight.size } })); // for benchmarks
  }

  look() {
    // ipywidgets does not say to those who do not see it that a button is down
    for (const one of this.panel()?.querySelectorAll(".widget-toggle-button") ?? [])
      one.setAttribute("aria-pressed", String(one.classList.contains("mod-active")));
    const oldest = Math.min(...[...this.flight.values()].map((one) => one.at));
    if (document.hidden && this.stream) {
      this.fresh = !this.video.paused; // a page that nobody sees is told of no frames; a record goes on all the same
      this.pump();
    }
    if (seconds() - Math.min(oldest, this.askedAt) > (this.answered ? PATIENCE : FIRST_PATIENCE)) this.fail(SILENT);
    if (this.kind === "address" && seconds() - this.heardAt > FIRST_PATIENCE + PATIENCE)
      this.fail(
        "Nothing comes from there: its machine is silent, or Python is busy with another cell or has stopped. Look at both, then press Start again.",
      );
    this.sayTimings();
  }

  // Answers

  showAnswer(message) {
    const frozenOrAlone = this.get("frozen") || this.kind === "photo";
    const said = message && message.status === "ok" ? (frozenOrAlone ? message.frame : message.steady) : null;
    this.answer.hidden = !message;
    this.root.dataset.answers = this.count?.answered ?? 0;
    if (!message) return;
    if (!said) return this.showReason(message.reason);
    const sure = frozenOrAlone ? !said.none && !said.strange && said.score >= this.get("min_score") : message.sure;
    const text = sure ? said.label : said.none ? NONE : "not sure";
    if (this.label.textContent !== text) this.label.textContent = text;
    this.label.style.borderColor = sure ? this.colour(said.label) : "transparent";
    const more = sure ? this.named(said) : said.why; // the deepest name, or why the model is not sure
    this.common.textContent = [more, this.possible(said)].filter(Boolean).join("; ") || "\u00a0";
    this.answer.classList.toggle("swb-unsure", !sure);
    this.showBars(said.none_score === null ? said.top : [...said.top, { label: NONE, score: said.none_score }]);
    const recording = this.get("recording") ? `Recording. Visits written: ${message.recorded ?? 0}; one that goes on is written when it ends.` : "";
    this.note.textContent = [message.trouble || recording, message.reason].filter(Boolean).join(" "); // the reason: a damaged photo
  }

  named(said) {
    // what people call the label, and the deepest name that the model is sure of: birds → bald eagle (Haliaeetus leucocephalus)
    const { common, taxa } = this.get("model");
    const finer = said.taxon && said.taxon !== said.label ? `→ ${taxa?.[said.taxon] ?? said.taxon}` : "";
    return [common[said.label], finer].filter(Boolean).join(" ");
  }

  possible(said) {
    // The set of labels that the model file promises: what else it may be
    const others = said.none ? [] : said.set.filter((label) => label !== said.label);
    return others.length ? `or: ${others.slice(0, 3).join(", ")}${others.length > 3 ? ", …" : ""}` : "";
  }

  showReason(reason) {
    this.label.textContent = "no answer";
    this.label.style.borderColor = "transparent";
    this.common.textContent = "\u00a0";
    this.answer.classList.add("swb-unsure");
    this.showBars([]);
    this.note.textContent = reason ?? "";
  }

  showBars(ranked) {
    const told = (entry) => Number.parseFloat(percent(entry.score).replace(/[<>]/, "")); // in the order of what is written, or they would dance
    const top = ranked.filter((entry, k) => !k || entry.score >= 0.005).sort((a, b) => told(b) - told(a) || a.label.localeCompare(b.label));
    while (this.bars.children.length > top.length) this.bars.lastChild.remove();
    while (this.bars.children.length < top.length) {
      const row = make("li", "", this.bars);
      make("span", "swb-name", row);
      make("span", "swb-share", row);
      make("span", "swb-bar-line", make("span", "swb-bar-ground", row));
    }
    top.forEach((entry, k) => {
      const [name, share, ground] = this.bars.children[k].children;
      name.textContent = this.called(entry.label);
      share.textContent = percent(entry.score);
      ground.firstChild.style.width = `${100 * entry.score}%`;
      ground.firstChild.style.background = this.colour(entry.label);
    });
  }

  called(label) {
    const common = this.get("model").common[label];
    return common ? `${label} · ${common}` : label;
  }

  colour(label) {
    return this.get("model").colours[label] ?? "#888888";
  }

  showPicture(message, buffer) {
    if (this.kind !== "address") return this.send("shown");
    this.heardAt = seconds();
    if (this.opening) this.say("");
    if (this.get("frozen")) return this.send("shown");
    if (buffer) {
      const old = this.url;
      this.url = URL.createObjectURL(new Blob([buffer], { type: "image/jpeg" }));
      this.image.src = this.url;
      if (old) URL.revokeObjectURL(old);
    }
    this.count.shown += 1;
    this.tally(seconds() - (message.seconds ?? 0), message.seconds ?? 0);
    this.showAnswer(message);
    this.send("shown");
  }

  // What a person switches

  freeze() {
    const on = this.get("frozen");
    this.reword("frozen", "Freeze", "Go on");
    this.mirror();
    setTimeout(() => this.tell({ mirrored_off: on }));
    if (this.kind !== "camera" && this.kind !== "film") return;
    if (!on) return void this.video.play().catch(() => null);
    this.video.pause();
    this.capture(); // the very frame that is shown
  }

  reword(trait, up, down) {
    // later, because a button that was just pressed does not look at its words
    setTimeout(() => this.tell({ [`${trait}_word`]: this.get(trait) ? down : up }));
  }

  mirror() {
    // only what moves is turned: a picture that stands still is there to be looked at, and its words to be read
    this.picture.classList.toggle("swb-mirrored", this.get("mirrored") && !this.get("frozen"));
  }

  time() {
    this.timings.hidden = !this.get("timings");
    this.sayTimings();
  }

  sayRecord({ on, sentence, bad }) {
    this.lasting = on ? "" : sentence; // where the record lies is still said after Stop
    this.say(
      this.kind || !sentence ? sentence : `${this.said.textContent} ${sentence}`.trim(),
      bad || (!this.kind && this.said.classList.contains("swb-bad")),
    );
  }

  sayTimings() {
    if (this.timings.hidden) return;
    if (!this.count?.times.length) return void (this.timings.textContent = "No frame was answered yet.");
    const { times, delays, shown, answered } = this.count;
    const sorted = [...delays].sort((a, b) => a - b);
    const rate = times.length > 1 ? (times.length - 1) / (times.at(-1) - times[0]) : 0;
    const delay = (share) => Math.round(1000 * sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]);
    this.timings.textContent =
      `${rate.toFixed(1)} frames a second · ${delay(0.5)} ms from picture to answer (95 % within ${delay(0.95)} ms) · model ${Math.round(1000 * this.took)} ms` +
      ` · ${answered.toLocaleString("en")} answered, ${Math.max(0, shown - answered - this.flight.size).toLocaleString("en")} passed over`;
  }

  frameSeen() {
    // the square that the model looks at, drawn over the picture
    const one = this.video.hidden ? this.image : this.video;
    const [width, height] = [one.videoWidth || one.naturalWidth || 0, one.videoHeight || one.naturalHeight || 0];
    const crop = this.get("whole") ? null : this.get("model").crop;
    this.seen.hidden = one.hidden || !width || !crop;
    if (this.seen.hidden) return;
    const side = crop * Math.min(width, height);
    Object.assign(this.seen.style, { width: `${(100 * side) / width}%`, height: `${(100 * side) / height}%` });
  }
}

async function shrunk(file) {
  const picture = await createImageBitmap(file);
  const scale = Math.min(1, SHRUNK / Math.max(picture.width, picture.height));
  const canvas = Object.assign(document.createElement("canvas"), {
    width: Math.round(picture.width * scale),
    height: Math.round(picture.height * scale),
  });
  canvas.getContext("2d", { alpha: false }).drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
  return bytes(canvas, KEPT_QUALITY);
}

const bytes = (canvas, quality) =>
  new Promise((done) => canvas.toBlob((blob) => (blob ? blob.arrayBuffer().then(done, () => done(null)) : done(null)), "image/jpeg", quality));

// All views of one panel in one page share a model, and so one set.

export default () => {
  const views = new Set();
  return {
    render({ model, el }) {
      const canvas = new Canvas(model, el, views);
      views.add(canvas);
      return () => {
        views.delete(canvas);
        canvas.close();
      };
    },
  };
};
