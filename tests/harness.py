"""A stage for widgets: a real browser shows one, and its messages go to the real Python object in this process, with no JupyterLab between.

What JupyterLab's part would be is here as small as it can be: a web socket carries custom messages with their binary buffers and the values of traits
both ways, one thread stands for the kernel, and the page hands the widget's own ES module a `model` as anywidget does. JupyterLab's real style sheets
give its light and its dark look.

    stage = Stage(browser, Explorer(run))          # dark, 1920 wide: Stage(browser, widget, theme="dark", width=1920)
    stage.page.get_by_role("gridcell").first.click()
    stage.reload(); stage.close()
"""

import asyncio
import json
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ipywidgets import widget as ipywidgets_widget
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

THEMES = Path(sys.prefix) / "share" / "jupyter" / "lab" / "themes" / "@jupyterlab"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>stage</title><link rel="icon" href="data:,">
<style>body{margin:0;padding:16px;background:var(--jp-layout-color0,Canvas);color:var(--jp-content-font-color1,CanvasText);font-family:var(--jp-content-font-family,system-ui,sans-serif);font-size:var(--jp-content-font-size1,14px);line-height:1.6;color-scheme:light dark}
body[data-jp-theme-light=true]{color-scheme:light}body[data-jp-theme-light=false]{color-scheme:dark}</style>
<link rel="stylesheet" href="/theme.css"><body><div id="stage"></div><script type="module" src="/stage.js"></script></body></html>"""
SCRIPT = """
const listeners = {}, state = {}, changed = {};
const emit = (name, ...given) => [...(listeners[name] || [])].forEach(f => f(...given));
const theme = new URLSearchParams(location.search).get("theme");
if (theme) { document.body.dataset.jpThemeLight = String(theme === "light"); document.body.dataset.jpThemeName = `JupyterLab ${theme}`; }

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
const model = {
  get: name => state[name],
  set: (name, value) => { state[name] = changed[name] = value; emit(`change:${name}`, model, value); emit("change", model); },
  save_changes: () => { socket.send(packed({kind: "state", content: {...changed}})); Object.keys(changed).forEach(k => delete changed[k]); },
  on: (name, f) => (listeners[name] ||= []).push(f),
  off: (name, f) => { if (!name) Object.keys(listeners).forEach(k => delete listeners[k]); else listeners[name] = f ? (listeners[name] || []).filter(g => g !== f) : []; },
  send: (content, callbacks, buffers) => { if (socket.readyState === 1) socket.send(packed({kind: "custom", content}, buffers)); },
};

let end = null;
async function show() {  // as anywidget does: the module from a blob, the style beside it
  await hide();
  const url = URL.createObjectURL(new Blob([state._esm], {type: "text/javascript"}));
  const module = (await import(url)).default, el = document.createElement("div"), style = document.createElement("style");
  style.textContent = state._css || "";
  document.getElementById("stage").replaceChildren(style, el);
  const widget = typeof module === "function" ? await module() : module;
  await widget.initialize?.({model});
  end = await widget.render({model, el});
  document.body.dataset.shown = "yes";
}
async function hide() {  // as when a cell is run again, or the notebook is closed
  delete document.body.dataset.shown;
  await end?.();
  end = null;
  document.getElementById("stage").replaceChildren();
}
Object.assign(window, {stage: {show, hide, model}});
socket.onmessage = ({data}) => {
  const [message, buffers] = unpacked(data);
  if (message.kind === "custom") return emit("msg:custom", message.content, buffers);
  Object.assign(state, message.content);
  if (message.kind === "begin") return show();
  for (const [name, value] of Object.entries(message.content)) emit(`change:${name}`, model, value);
  emit("change", model);
};
"""


class _Comm:
    "What ipywidgets takes for its line to a page."

    def __init__(self, stage: "Stage") -> None:
        self.stage, self.comm_id, self.kernel = stage, uuid.uuid4().hex, stage

    def on_msg(self, callback) -> None:
        self.receive = callback

    def send(self, data=None, buffers=None, **_: Any) -> None:
        if data["method"] in ("custom", "update"):
            self.stage.tell(data["method"].replace("update", "state"), data.get("content", data.get("state")), buffers or [])

    def close(self, *_: Any, **__: Any) -> None:
        pass


class Stage:
    "A widget in a page of its own."

    def __init__(
        self,
        browser,  # Playwright's
        widget,  # an anywidget
        theme: str = "light",  # JupyterLab's light or dark; "" for none of its variables, as on a bare page
        width: int = 1280,  # pixels
        height: int = 800,
        host: str = "127.0.0.1",  # another name makes the page insecure; the browser must know where it leads
        **context: Any,  # for `browser.new_context`: permissions=["camera"], color_scheme="dark", …
    ) -> None:
        self.widget, self.theme, self.dead = widget, theme, False
        self.kernel = ThreadPoolExecutor(1, "kernel")
        self.sockets: set = set()
        self.wrong: list[str] = []  # errors of the page, and what it asked of other places
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        self.comm = widget.comm = _Comm(self)
        self.url = f"http://{host}:{self.port}"
        self.context = browser.new_context(viewport={"width": width, "height": height}, **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("request", lambda request: self.wrong.append(request.url) if not request.url.startswith((self.url + "/", f"blob:{self.url}/", f"ws://{host}", "data:")) else None)
        self.goto()

    def goto(self) -> None:
        self.page.goto(f"{self.url}/?theme={self.theme}")
        self.page.locator("body[data-shown]").wait_for()

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
        self.loop.add_callback(self.loop.call_later, 0.05, self.loop.stop)  # what is half sent gets to its end
        self._thread.join(5)
        self.kernel.shutdown(wait=False, cancel_futures=True)
        self.widget.close()

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def tell(self, kind: str, content: Any, buffers: list) -> None:
        "Send to the page, from any thread; a dead kernel (`stage.dead = True`) says nothing."
        if self.dead:
            return
        parts = [bytes(b) for b in buffers]
        head = json.dumps({"kind": kind, "content": content, "lengths": list(map(len, parts))}).encode()
        whole = b"".join([len(head).to_bytes(4, "big"), head, *parts])
        self.loop.add_callback(lambda: [self._write(socket, whole) for socket in list(self.sockets)])

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
        told = {"method": "custom", "content": message["content"]} if message["kind"] == "custom" else {"method": "update", "state": message["content"]}
        if not self.dead:
            self.kernel.submit(self._receive, {"content": {"data": told}, "buffers": buffers})

    def _receive(self, message: dict) -> None:
        try:
            self.comm.receive(message)
        except Exception as error:  # a kernel would log it
            self.wrong.append(f"in the kernel: {error!r}")
            raise

    def begin(self) -> None:
        state, _, found = ipywidgets_widget._remove_buffers(self.widget.get_state())
        assert not found, "the stage carries no binary traits"
        self.tell("begin", state, [])

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        self.loop, stage = IOLoop.current(), self

        class Kernel(WebSocketHandler):
            def open(self) -> None:
                self.set_nodelay(True)
                stage.sockets.add(self)
                stage.begin()

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

        colours = THEMES / f"theme-{self.theme}-extension" / "index.css"
        style = colours.read_text(encoding="utf-8") if self.theme else ""
        pages = {"/": ("html", PAGE), "/stage.js": ("javascript", SCRIPT), "/theme.css": ("css", style)}
        handlers = [(path, Text, {"kind": kind, "text": text}) for path, (kind, text) in pages.items()]
        sockets = bind_sockets(0, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        server = HTTPServer(Application([("/kernel", Kernel, {}), *handlers]))
        server.add_sockets(sockets)
        self.loop.add_callback(ready.set)
        self.loop.start()
        server.stop()
        self.loop.close(all_fds=True)
