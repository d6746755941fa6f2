// The camera panel: frames of a camera or film go to the kernel as JPEG, one or two at a time, and each comes back as an answer.
// camera.py is the other side; its notebook (nbs/lib/apps/25_camera.ipynb) lists the messages.

const FAST = 0.08; // seconds in the kernel: a faster model has two frames in flight, a slower one one
const FIRST_PATIENCE = 30; // seconds for the first answer, then
const PATIENCE = 8;
const QUALITY = 0.85; // of the JPEG that is classified
const KEPT_QUALITY = 0.92; // of a photo that is kept
const MOST_BYTES = 9e6; // of one message: a notebook's server breaks the connection at 10 MiB
const SHRUNK = 2048; // pixels, the longest side of a photo that had to be made smaller
const NONE = "none of these";
const HINTS = { file: "Drop a photo or film here, or press Start to choose one.", kernel: "Type where to look above, and press Start." };
const OPENING = "Opening …";
const SILENT =
  "Python does not answer: it is busy with another cell, was restarted, or has stopped. Wait a little and press Start; if that does not help, run this cell again, or reload the page.";
const TRAITS = ["model", "models", "settings"];

const seconds = () => performance.now() / 1000;

// Small pieces of the page

function make(tag, name, parent, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  if (name) element.className = name;
  if (parent) parent.append(element);
  return element;
}

function button(parent, text, hint, pressed) {
  const one = make("button", "swb-button", parent, { type: "button", textContent: text, title: hint });
  if (pressed !== undefined) one.setAttribute("aria-pressed", String(pressed));
  return one;
}

function labelled(parent, text, tag, properties = {}) {
  const label = make("label", "swb-field", parent);
  make("span", "", label, { textContent: text });
  return make(tag, "", label, properties);
}

const options = (select, entries, chosen) =>
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value, false, value === chosen)));

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

class Panel {
  constructor(model, root) {
    this.model = model;
    this.view = Math.random().toString(36).slice(2); // several views of one panel may be open
    this.kind = ""; // what runs: "", "camera", "film", "photo", "kernel"
    this.flight = new Map(); // frames that have no answer yet: id → when they were taken, and the full picture where one is recorded
    this.spare = []; // canvases
    this.next = 0;
    this.gone = new AbortController(); // ends all listeners
    this.build(root);
    this.listen();
    this.sayModel();
    this.reset();
  }

  // The page

  build(root) {
    this.root = make("div", "swb-camera", root);
    this.root.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes keys for its own
    const bar = make("div", "swb-bar", this.root);
    this.startButton = button(bar, "Start", "Start the camera, or what is chosen beside");
    this.startButton.classList.add("swb-start");
    this.sourceSelect = labelled(bar, "Look at", "select");
    this.modelSelect = labelled(bar, "with", "select");
    this.address = make("div", "swb-bar swb-address", this.root, { hidden: true });
    this.addressInput = labelled(this.address, "Address, path or camera number", "input", {
      type: "text",
      spellcheck: false,
      placeholder: "rtsp://…, /photos/card 3, film.mp4, 0",
    });
    this.file = make("input", "", this.root, { type: "file", accept: this.model.get("accept"), hidden: true });
    this.said = make("p", "swb-said", this.root, { hidden: true });
    this.said.setAttribute("role", "status");
    this.buildStage();
    this.buildControls();
  }

  buildStage() {
    this.stage = make("div", "swb-stage", this.root);
    this.picture = make("div", "swb-picture", this.stage);
    this.video = make("video", "", this.picture, { muted: true, playsInline: true, hidden: true });
    this.image = make("img", "", this.picture, { alt: "", hidden: true });
    this.seen = make("div", "swb-seen", this.picture, { hidden: true, title: "What the model looks at" });
    this.hint = make("p", "swb-hint", this.picture);
    this.answer = make("div", "swb-answer", this.stage);
    this.label = make("div", "swb-label", this.answer);
    this.label.setAttribute("aria-live", "polite");
    this.common = make("div", "swb-common", this.answer);
    this.bars = make("ol", "swb-bars", this.answer);
    this.note = make("p", "swb-note", this.answer);
  }

  buildControls() {
    const bar = make("div", "swb-bar", this.root);
    this.freezeButton = button(bar, "Freeze", "Hold this picture and its answer", false);
    this.recordButton = button(
      bar,
      "Record",
      "Write what is seen into a table of observations, with a photo of each visit (site and position: under Settings)",
      false,
    );
    this.recordButton.classList.add("swb-record");
    this.mirrorButton = button(bar, "Mirror", "Show the picture as a mirror does; what the model sees stays as it is", false);
    this.wholeButton = button(bar, "Whole frame", "Let the model look at the whole frame instead of its middle", this.model.get("settings").whole);
    this.figuresButton = button(bar, "Figures", "Frames a second, delay and dropped frames", false);
    this.figures = make("p", "swb-figures", this.root, { hidden: true });
    const more = make("details", "swb-more", this.root);
    make("summary", "", more, { textContent: "Settings" });
    const fields = make("div", "swb-bar", more);
    const now = this.model.get("settings");
    this.window = labelled(fields, "Steady over, s", "input", {
      type: "number",
      min: 0,
      max: 30,
      step: 0.25,
      value: now.seconds,
      title: "The answer is the mean over so many seconds; 0: each frame alone",
    });
    this.threshold = labelled(fields, "Not sure below, %", "input", {
      type: "number",
      min: 0,
      max: 100,
      step: 5,
      value: Math.round(100 * now.min_score),
    });
    this.site = labelled(fields, "Site", "input", { type: "text", placeholder: "for the record" });
    const place = make("span", "swb-pair", fields);
    this.lat = labelled(place, "Latitude", "input", { type: "text", inputMode: "decimal", placeholder: "47.123" });
    this.lon = labelled(place, "Longitude", "input", { type: "text", inputMode: "decimal", placeholder: "8.456" });
    const another = make("div", "swb-bar swb-address", more);
    this.modelPath = labelled(another, "Another model file or run folder", "input", {
      type: "text",
      spellcheck: false,
      placeholder: "reports/train/…/model.onnx",
    });
    this.modelButton = button(another, "Use", "Load this model; the camera runs on");
  }

  // Listening

  on(element, event, act) {
    element.addEventListener(event, act, { signal: this.gone.signal });
  }

  listen() {
    this.on(this.startButton, "click", () => (this.kind ? this.stop() : this.start()));
    this.on(this.sourceSelect, "change", () => this.chooseSource());
    this.on(this.modelSelect, "change", () => this.useModel(this.modelSelect.value));
    this.on(this.modelButton, "click", () => this.useModel(this.modelPath.value));
    this.onEnter(this.modelPath, () => this.useModel(this.modelPath.value));
    this.onEnter(this.addressInput, () => this.start());
    this.on(this.file, "change", () => this.takeFiles(this.file.files));
    this.on(this.freezeButton, "click", () => this.freeze(!this.frozen));
    this.on(this.recordButton, "click", () => this.record(!this.recording));
    this.on(this.mirrorButton, "click", () => this.mirror(!this.mirrored));
    this.on(this.wholeButton, "click", () => this.set({ whole: !this.model.get("settings").whole }));
    this.on(this.figuresButton, "click", () => this.showFigures());
    this.on(this.window, "change", () => this.set({ seconds: Number(this.window.value) }));
    this.on(this.threshold, "change", () => (this.threshold.value ? this.set({ min_score: Number(this.threshold.value) / 100 }) : this.sayModel()));
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
    this.heard = (message, buffers) => this.hear(message, buffers);
    this.changed = () => this.sayModel();
    this.model.on("msg:custom", this.heard);
    this.other = () => this.lookAgain();
    for (const trait of TRAITS) this.model.on(`change:${trait}`, this.changed);
    for (const trait of ["model", "settings"]) this.model.on(`change:${trait}`, this.other);
    this.clock = setInterval(() => this.look(), 500);
  }

  close() {
    this.stop();
    this.closed = true;
    clearInterval(this.clock);
    this.gone.abort();
    this.model.off("msg:custom", this.heard);
    for (const trait of TRAITS) this.model.off(`change:${trait}`, this.changed);
    for (const trait of ["model", "settings"]) this.model.off(`change:${trait}`, this.other);
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
    if (message.kind === "answer") this.take(message);
    if (message.kind === "picture") this.showPicture(message, buffers[0]);
    if (message.kind === "record") this.sayRecord(message);
    if (message.kind === "alive" && this.kind === "kernel") {
      this.heardAt = seconds();
      this.send("here");
    }
  }

  set(change) {
    this.send("settings", change);
  }

  onEnter(input, act) {
    // in a notebook's cell JupyterLab takes Enter away from forms
    this.on(input, "keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      act();
    });
  }

  useModel(path) {
    if (!path) return;
    this.say("Loading the model …");
    this.send("model", { path });
    this.sayModel(); // the list shows the one that answers until the other one does
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

  sayModel() {
    const { path, name } = this.model.get("model");
    const known = this.model.get("models").map((one) => [one.path, one.name]);
    options(this.modelSelect, known.some(([value]) => value === path) ? known : [[path, name], ...known], path);
    const settings = this.model.get("settings");
    this.wholeButton.setAttribute("aria-pressed", String(settings.whole));
    this.window.value = settings.seconds;
    this.threshold.value = Math.round(100 * settings.min_score);
    this.frameSeen();
  }

  // Sources

  async listSources() {
    const devices = navigator.mediaDevices ? await navigator.mediaDevices.enumerateDevices().catch(() => []) : [];
    const cameras = devices
      .filter((device) => device.kind === "videoinput")
      .map((device, k) => [`camera:${device.deviceId}`, device.label || `Camera ${k + 1}`]);
    const chosen = this.sourceSelect.value || (this.model.get("source") ? "kernel" : "");
    const entries = [
      ...(cameras.length ? cameras : [["camera:", "Camera"]]),
      ["file", "Photo or film file …"],
      ["kernel", "Address, folder or film by its path …"],
    ];
    options(this.sourceSelect, entries);
    this.choose(entries.some(([value]) => value === chosen) ? chosen : entries[0][0]);
  }

  choose(value) {
    this.sourceSelect.value = value;
    this.address.hidden = value !== "kernel";
    this.hint.textContent = HINTS[value] ?? "Press Start and hold something before the camera, or drop a photo or film here.";
  }

  chooseSource() {
    const running = this.kind;
    this.stop();
    this.choose(this.sourceSelect.value);
    if (this.sourceSelect.value === "file") this.file.click();
    else if (this.sourceSelect.value === "kernel") this.addressInput.focus();
    else if (running) this.start();
  }

  start() {
    this.stop();
    const chosen = this.sourceSelect.value;
    if (chosen === "file") return this.file.click();
    if (chosen === "kernel") return this.startKernel();
    return this.startCamera(chosen.slice("camera:".length));
  }

  async startCamera(device) {
    const turn = this.begin("camera");
    if (!turn) return;
    this.say("Asking for the camera …");
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
    this.mirror(facingMode !== "environment");
    this.video.srcObject = this.stream;
    await this.listSources(); // names are known only now
    if (turn !== this.turn) return;
    if (deviceId && [...this.sourceSelect.options].some((one) => one.value === `camera:${deviceId}`)) this.sourceSelect.value = `camera:${deviceId}`;
    this.run(turn);
  }

  takeFiles(files) {
    const [file] = files;
    if (!file) return;
    this.stop();
    const several = files.length > 1 ? ` Only the first of ${files.length} files was taken: for many photos there is species-wb classify.` : "";
    if (file.type.startsWith("video/")) this.startFilm(file, several);
    else this.startPhoto(file, several);
    this.file.value = "";
  }

  startFilm(file, several) {
    const turn = this.begin("film");
    if (!turn) return;
    this.choose("file");
    this.url = URL.createObjectURL(file);
    this.video.src = this.url;
    this.mirror(false);
    this.say(`${file.name}.${several}`);
    this.run(turn);
  }

  async startPhoto(file, several) {
    const turn = this.begin("photo");
    if (!turn) return;
    this.choose("file");
    this.url = URL.createObjectURL(file);
    this.show(this.image);
    this.mirror(false);
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
    if (this.frozen && this.kind !== "kernel") this.capture();
  }

  startKernel() {
    const source = this.addressInput.value.trim();
    if (!source) return this.addressInput.focus();
    if (!this.begin("kernel")) return;
    this.show(this.image);
    this.mirror(false);
    this.heardAt = seconds();
    this.say(OPENING);
    this.opening = true; // until the first picture comes, or something else is said
    this.send("play", { source });
  }

  // Running and stopping

  begin(kind) {
    this.kind = kind;
    this.startButton.textContent = "Stop";
    this.startButton.classList.add("swb-running");
    this.frozen = this.answered = false;
    this.count = { shown: 0, answered: 0, times: [], delays: [] };
    const turn = (this.turn = Symbol(kind));
    this.lasting = "";
    this.allow();
    this.send("begin");
    return turn === this.turn ? turn : null; // null: the kernel is gone, and everything was stopped
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
    const was = this.kind;
    this.turn = null;
    this.kind = "";
    if (this.recording) this.record(false);
    if (was === "kernel") this.send("halt");
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.pause();
    this.video.srcObject = null;
    this.video.removeAttribute("src");
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    this.still = null;
    this.reset();
    this.say(sentence || this.lasting || "", bad);
  }

  reset() {
    this.flight.clear();
    this.fresh = this.busy = this.frozen = false;
    this.room = 2;
    this.startButton.textContent = "Start";
    this.startButton.classList.remove("swb-running");
    this.show(this.hint);
    this.showAnswer(null);
    this.allow();
    if (!this.closed) this.listSources();
  }

  allow() {
    const moving = this.kind === "camera" || this.kind === "film" || this.kind === "kernel";
    this.freezeButton.disabled = !moving;
    this.freezeButton.setAttribute("aria-pressed", String(Boolean(this.frozen)));
    this.recordButton.disabled = !(this.kind === "camera" || this.kind === "kernel");
  }

  show(element) {
    for (const one of [this.video, this.image, this.hint]) one.hidden = one !== element;
    this.frameSeen();
  }

  // The loop

  pump() {
    if (!this.fresh || this.busy || this.frozen || this.flight.size >= this.room) return;
    this.capture();
  }

  async capture() {
    const turn = this.turn;
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width) return;
    this.fresh = false;
    this.busy = true;
    const at = seconds();
    const scale = Math.min(1, this.model.get("model").side / Math.min(width, height));
    const full = this.recording ? this.drawn(width, height) : null;
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
    const oldest = Math.min(...[...this.flight.values()].map((one) => one.at));
    if (document.hidden && this.stream) {
      this.fresh = !this.video.paused; // a page that nobody sees is told of no frames; a record goes on all the same
      this.pump();
    }
    if (seconds() - oldest > (this.answered ? PATIENCE : FIRST_PATIENCE)) this.fail(SILENT);
    if (this.kind === "kernel" && seconds() - this.heardAt > FIRST_PATIENCE + PATIENCE)
      this.fail(
        "Nothing comes from there: its machine is silent, or Python is busy with another cell or has stopped. Look at both, then press Start again.",
      );
    this.sayFigures();
  }

  // Answers

  showAnswer(message) {
    const frozenOrAlone = this.frozen || this.kind === "photo";
    const said = message && message.status === "ok" ? (frozenOrAlone ? message.frame : message.steady) : null;
    this.answer.hidden = !message;
    this.root.dataset.answers = this.count?.answered ?? 0;
    if (!message) return;
    if (!said) return this.showReason(message.reason);
    const sure = frozenOrAlone ? !said.none && said.score >= this.model.get("settings").min_score : message.sure;
    const text = sure ? said.label : said.none ? NONE : "not sure";
    if (this.label.textContent !== text) this.label.textContent = text;
    this.label.style.borderColor = sure ? this.colour(said.label) : "transparent";
    this.common.textContent = (sure && this.model.get("model").common[said.label]) || "\u00a0";
    this.answer.classList.toggle("swb-unsure", !sure);
    this.showBars(said.none_score === null ? said.top : [...said.top, { label: NONE, score: said.none_score }]);
    const recording = this.recording ? `Recording. Visits written: ${message.recorded ?? 0}; one that goes on is written when it ends.` : "";
    this.note.textContent = message.trouble || recording;
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
      name.textContent = entry.label;
      share.textContent = percent(entry.score);
      ground.firstChild.style.width = `${100 * entry.score}%`;
      ground.firstChild.style.background = this.colour(entry.label);
    });
  }

  colour(label) {
    return this.model.get("model").colours[label] ?? "#888888";
  }

  showPicture(message, buffer) {
    if (this.kind !== "kernel") return this.send("shown");
    this.heardAt = seconds();
    if (this.opening) this.say("");
    if (this.frozen) return this.send("shown");
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

  freeze(on) {
    this.frozen = on;
    this.freezeButton.setAttribute("aria-pressed", String(on));
    this.freezeButton.textContent = on ? "Go on" : "Freeze";
    if (this.kind === "kernel") return;
    if (!on) return void this.video.play();
    this.video.pause();
    this.capture(); // the very frame that is shown
  }

  mirror(on) {
    this.mirrored = on;
    this.mirrorButton.setAttribute("aria-pressed", String(on));
    this.picture.classList.toggle("swb-mirrored", on);
  }

  record(on) {
    this.send("record", { on, site: this.site.value, lat: this.lat.value, lon: this.lon.value });
  }

  sayRecord({ on, sentence, bad }) {
    this.recording = on;
    this.recordButton.setAttribute("aria-pressed", String(on));
    this.recordButton.textContent = on ? "Stop recording" : "Record";
    this.lasting = on ? "" : sentence; // where the record lies is still said after Stop
    this.say(
      this.kind || !sentence ? sentence : `${this.said.textContent} ${sentence}`.trim(),
      bad || (!this.kind && this.said.classList.contains("swb-bad")),
    );
  }

  showFigures() {
    this.figures.hidden = !this.figures.hidden;
    this.figuresButton.setAttribute("aria-pressed", String(!this.figures.hidden));
    this.sayFigures();
  }

  sayFigures() {
    if (!this.count?.times.length) return void (this.figures.textContent = "No frame was answered yet.");
    const { times, delays, shown, answered } = this.count;
    const sorted = [...delays].sort((a, b) => a - b);
    const rate = times.length > 1 ? (times.length - 1) / (times.at(-1) - times[0]) : 0;
    const delay = (share) => Math.round(1000 * sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]);
    this.figures.textContent =
      `${rate.toFixed(1)} frames a second · ${delay(0.5)} ms from picture to answer (95 % within ${delay(0.95)} ms) · model ${Math.round(1000 * this.took)} ms` +
      ` · ${answered.toLocaleString("en")} answered, ${Math.max(0, shown - answered - this.flight.size).toLocaleString("en")} passed over`;
  }

  frameSeen() {
    // the square that the model looks at, drawn over the picture
    const one = this.video.hidden ? this.image : this.video;
    const [width, height] = [one.videoWidth || one.naturalWidth || 0, one.videoHeight || one.naturalHeight || 0];
    const crop = this.model.get("settings").whole ? null : this.model.get("model").crop;
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

export default {
  render({ model, el }) {
    const panel = new Panel(model, el);
    panel.addressInput.value = model.get("source");
    return () => panel.close();
  },
};
