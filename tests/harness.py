"""A stage for widgets: a real browser shows a tree of them, and its messages go to the real Python objects in this process,
with no JupyterLab between.

What the page shows is real: the models and views of ipywidgets and the runtime of anywidget, as both packages bring them for the
classic notebook, and JupyterLab's own style sheets for its light and its dark look. What JupyterLab and a kernel would do around
them is here as small as it can be: a web socket carries the comms' messages both ways, and one thread stands for the kernel.

    stage = Stage(browser, Explorer(run))          # dark, 1920 wide: Stage(browser, widget, theme="dark", width=1920)
    stage.page.get_by_role("gridcell").first.click()
    stage.reload(); stage.close()

Widgets that are made after this module is imported get a comm that every open stage hears.
"""

import asyncio
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import comm
from comm.base_comm import BaseComm
from ipywidgets.widgets.widget_link import Link
from ipywidgets import widget as ipywidgets_widget
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

SHARE = Path(sys.prefix) / "share" / "jupyter"
THEMES, CLASSIC = SHARE / "lab" / "themes" / "@jupyterlab", SHARE / "nbextensions"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>stage</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{margin:0;padding:16px;background:var(--jp-layout-color0,Canvas);color:var(--jp-content-font-color1,CanvasText);
font-family:var(--jp-content-font-family,system-ui,sans-serif);font-size:var(--jp-content-font-size1,14px);line-height:1.6;color-scheme:light dark}
body[data-jp-theme-light=true]{color-scheme:light}body[data-jp-theme-light=false]{color-scheme:dark}</style>
<body><div id="stage"></div><link rel="stylesheet" href="/theme.css"><script src="/classic.js"></script>
<script src="/ipywidgets.js"></script><script src="/anywidget.js"></script><script type="module" src="/stage.js"></script></body></html>"""
# What the two scripts of the classic notebook look for: `define`, and a notebook without a kernel, so that ipywidgets brings its styles.
NOTEBOOK = """
window.defined = [];
window.define = (names, make) => defined.push(make ?? names);
const nothing = { on() {}, register() {}, register_mime_type() {} };
window.Jupyter = { version: "6.5.7", notebook: { container: nothing, keyboard_manager: { actions: nothing } } };
window.requirejs = (names, then) => then(Jupyter, nothing, { OutputArea: { prototype: nothing } });
window.requirejs.config = () => {};
"""
SCRIPT = """
const controls = defined[0]({ uri: "" }), any = defined[1](controls);
const theme = new URLSearchParams(location.search).get("theme");
if (theme) {
  controls.load_ipython_extension();
  document.body.dataset.jpThemeLight = String(theme === "light");
  document.body.dataset.jpThemeName = `JupyterLab ${theme}`;
}

function packed(message, buffers = []) {
  const head = new TextEncoder().encode(JSON.stringify({...message, lengths: buffers.map(b => b.byteLength)}));
  const whole = new Uint8Array(4 + head.length + buffers.reduce((n, b) => n + b.byteLength, 0));
  new DataView(whole.buffer).setUint32(0, head.length);
  whole.set(head, 4);
  let at = 4 + head.length;
  for (const b of buffers) { whole.set(new Uint8Array(b.buffer || b, b.byteOffset || 0, b.byteLength), at); at += b.byteLength; }
  return whole;
}
function unpacked(data) {
  const size = new DataView(data).getUint32(0), message = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
  let at = 4 + size;
  return [message, message.lengths.map(n => { at += n; return new DataView(data.slice(at - n, at)); })];
}

const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/kernel`);
socket.binaryType = "arraybuffer";
const comms = {}, models = {}, waiting = {};  // by the id of comm and model; what a message is to call when it was dealt with
let root = "", view = null, sent = 0, begin = null;
const all = new Promise(done => { begin = done; });  // every widget is known by its id

class Comm {
  constructor(id) { this.comm_id = id; comms[id] = this; }
  on_msg(f) { this.heard = f; }
  on_close(f) { this.closed = f; }
  close() {}
  send(data, callbacks, _, buffers) {
    const message = `m${++sent}`;
    waiting[message] = callbacks;
    if (socket.readyState === 1) socket.send(packed({message, comm: this.comm_id, data}, buffers));
    return message;
  }
}

const manager = {  // what ManagerBase of ipywidgets does, as far as one page needs it
  get_model: id => models[id] ?? Promise.reject(new Error(`no widget ${id}`)),
  has_model: id => id in models,
  callbacks: () => ({}),
  create_view(model, options = {}) {
    const id = controls.uuid(), made = (model.state_change = model.state_change.then(async () => {
      const View = await kind(model.get("_view_module"), model.get("_view_name")), view = new View({model, options});
      view.listenTo(model, "destroy", view.remove);
      await view.render();
      view.once("remove", () => { delete model.views?.[id]; });
      return view;
    }));
    model.views[id] = made;
    return made;
  },
};
const kind = async (module, name) => (module === "anywidget" ? any : controls)[name];
async function made(id, {state, buffer_paths}, buffers) {
  await all;
  controls.put_buffers(state, buffer_paths, buffers);
  const Model = await kind(state._model_module, state._model_name);
  return new Model(await Model._deserialize_state(state, manager), {widget_manager: manager, model_id: id, comm: new Comm(id)});
}

async function show() {
  await hide();
  view = await manager.create_view(await manager.get_model(root));
  view.luminoWidget.constructor.attach(view.luminoWidget, document.getElementById("stage"));
  while (document.getElementById("stage").textContent === "" && !document.querySelector("#stage :is(button, input, canvas, table)"))
    await new Promise(done => setTimeout(done, 10));  // an anywidget is drawn a little later
  document.body.dataset.shown = "yes";
}
async function hide() {  // as when a cell is run again, or the notebook is closed
  delete document.body.dataset.shown;
  view?.remove();
  view = null;
}
Object.assign(window, {stage: {show, hide, manager, models}});
socket.onmessage = ({data}) => {
  const [message, buffers] = unpacked(data), comm = comms[message.comm];
  if (message.kind === "comm_open") models[message.comm] = made(message.comm, message.data, buffers);
  if (message.kind === "comm_msg") comm?.heard({content: {data: message.data}, buffers, parent_header: {msg_id: message.parent}});
  if (message.kind === "comm_close") { comm?.closed({}); delete comms[message.comm]; delete models[message.comm]; }
  if (message.kind === "idle") { waiting[message.parent]?.iopub?.status?.({content: {execution_state: "idle"}}); delete waiting[message.parent]; }
  if (message.kind === "begin") { root = message.root; begin(); show(); }
};
"""


class _Comm(BaseComm):
    "A widget's line to the pages of all stages."

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **_: Any) -> None:
        for stage in list(Stage.all):
            stage.tell({"kind": msg_type, "comm": self.comm_id, "data": data}, buffers)


comm.create_comm = _Comm  # ipywidgets asks for one whenever a widget is made


class Stage:
    "A widget, with all that it shows, in a page of its own."

    all: list["Stage"] = []

    def __init__(
        self,
        browser,  # Playwright's
        widget,  # of ipywidgets, or an anywidget
        theme: str = "light",  # JupyterLab's light or dark; "" for none of its styles, as on a bare page
        width: int = 1280,  # pixels
        height: int = 800,
        host: str = "127.0.0.1",  # another name makes the page insecure; the browser must know where it leads
        **context: Any,  # for `browser.new_context`: permissions=["camera"], color_scheme="dark", …
    ) -> None:
        self.widget, self.theme, self.dead, self.parent = widget, theme, False, ""  # the message that the kernel deals with
        self.kernel = ThreadPoolExecutor(1, "kernel")
        self.sockets: set = set()
        self.wrong: list[str] = []  # errors of the page, and what it asked of other places
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        Stage.all.append(self)
        self.url = f"http://{host}:{self.port}"
        self.context = browser.new_context(viewport={"width": width, "height": height}, **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        here = (self.url + "/", f"blob:{self.url}/", f"ws://{host}", "data:")
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("request", lambda asked: None if asked.url.startswith(here) else self.wrong.append(asked.url))
        self.goto()

    def goto(self) -> None:
        self.page.goto(f"{self.url}/?theme={self.theme}")
        try:
            self.page.locator("body[data-shown]").wait_for()
        except Exception as late:
            raise AssertionError(f"the widget was not shown: {self.wrong}") from late

    reload = goto  # the kernel lives on

    def again(self) -> None:
        "Take the view away and show it anew, as when the cell is run again."
        self.page.evaluate("stage.show()")

    def leave(self) -> None:
        "Take the view away."
        self.page.evaluate("stage.hide()")

    def close(self) -> None:
        self.dead = True
        self.context.close()
        Stage.all.remove(self)
        self.loop.add_callback(self.loop.call_later, 0.05, self.loop.stop)  # what is half sent gets to its end
        self._thread.join(5)
        self.kernel.shutdown(wait=False, cancel_futures=True)
        self.widget.close()

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def tell(self, message: dict, buffers: Any = None, only: Any = None) -> None:
        "Send to the pages, or to one of them, from any thread; a dead kernel (`stage.dead = True`) says nothing."
        if self.dead:
            return
        parts = [bytes(b) for b in buffers or []]
        head = json.dumps({"parent": self.parent, **message, "lengths": list(map(len, parts))}).encode()
        whole = b"".join([len(head).to_bytes(4, "big"), head, *parts])
        self.loop.add_callback(lambda: [self._write(socket, whole) for socket in ([only] if only else list(self.sockets))])

    @staticmethod
    def _write(socket, whole: bytes) -> None:
        try:
            socket.write_message(whole, binary=True)
        except WebSocketClosedError:
            pass

    def take(self, data: bytes) -> None:
        "Hand a message of the page to the widget, in the thread that stands for the kernel."
        size = int.from_bytes(data[:4], "big")
        message, at, buffers = json.loads(data[4 : 4 + size]), 4 + size, []
        for length in message["lengths"]:
            buffers.append(memoryview(data)[at : at + length])
            at += length
        if not self.dead:
            self.kernel.submit(self._receive, message, buffers)

    def _receive(self, message: dict, buffers: list) -> None:
        self.parent = message["message"]
        try:
            if line := comm.get_comm_manager().get_comm(message["comm"]):
                line.handle_msg({"content": {"data": message["data"]}, "buffers": buffers})
        except Exception as error:  # a kernel would log it
            self.wrong.append(f"in the kernel: {error!r}")
            raise
        finally:
            self.tell({"kind": "idle"})
            self.parent = ""

    def begin(self, socket) -> None:
        "Tell a page of the widget, of all that it refers to, and of the links between them."
        for model_id, widget in self._tree().items():
            state, paths, buffers = ipywidgets_widget._remove_buffers(widget.get_state())
            self.tell({"kind": "comm_open", "comm": model_id, "data": {"state": state, "buffer_paths": paths}}, buffers, socket)
        self.tell({"kind": "begin", "root": self.widget.model_id}, only=socket)

    def _tree(self) -> dict[str, Any]:
        everything, found, ahead = dict(ipywidgets_widget._instances), {}, [self.widget]
        links = [one for one in everything.values() if isinstance(one, Link)]
        while ahead:
            widget = ahead.pop()
            if widget.model_id in found:
                continue
            found[widget.model_id] = widget
            said = json.dumps(widget.get_state(), default=lambda value: "")
            ahead += [one for name, one in everything.items() if f'"IPY_MODEL_{name}"' in said]
            ahead += [link for link in links if {link.source[0].model_id, link.target[0].model_id} <= {*found}]
        return found

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        self.loop, stage = IOLoop.current(), self

        class Kernel(WebSocketHandler):
            def open(self) -> None:
                self.set_nodelay(True)
                stage.sockets.add(self)
                stage.begin(self)

            def on_message(self, message) -> None:
                stage.take(message)

            def on_close(self) -> None:
                stage.sockets.discard(self)

        class Text(RequestHandler):
            def initialize(self, kind: str, text: str) -> None:
                self.kind, self.text = kind, text

            def get(self) -> None:
                self.set_header("Content-Type", f"text/{self.kind}; charset=utf-8")
                self.write(self.text)

        read = lambda path: path.read_text(encoding="utf-8")  # noqa: E731
        pages = {
            "/": ("html", PAGE), "/stage.js": ("javascript", SCRIPT), "/classic.js": ("javascript", NOTEBOOK),
            "/ipywidgets.js": ("javascript", read(CLASSIC / "jupyter-js-widgets" / "extension.js")),
            "/anywidget.js": ("javascript", read(CLASSIC / "anywidget" / "index.js")),
            "/theme.css": ("css", read(THEMES / f"theme-{self.theme}-extension" / "index.css") if self.theme else ""),
        }  # fmt: skip
        handlers = [(path, Text, {"kind": kind, "text": text}) for path, (kind, text) in pages.items()]
        sockets = bind_sockets(0, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        server = HTTPServer(Application([("/kernel", Kernel, {}), *handlers]))
        server.add_sockets(sockets)
        self.loop.add_callback(ready.set)
        self.loop.start()
        server.stop()
        self.loop.close(all_fds=True)
