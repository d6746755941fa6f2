"""`species-wb live`'s server: the copy, the port, the door, the fast socket, the page without code, and the end."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import pytest

for package in ("jupyterlab", "voila", "anywidget"):
    pytest.importorskip(package)

import psutil
from lab_server import LabServer, private
from tornado.websocket import websocket_connect

from species_wb.apps import lab
from species_wb.engine import toy
from species_wb.core import UserError
from species_wb.predictions import predictions_table, write_predictions

# Ctrl-C is heard whatever started the tests: a job in the background inherits that it is not.
START = """import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from species_wb.apps.lab import start
sys.exit(start(**json.loads(sys.argv[1]), browser=False, say=lambda line: print(line, flush=True)))
"""
PANEL = """import anywidget
class Panel(anywidget.AnyWidget):
    _esm = "export default {render({el}) { el.textContent = 'a panel' }}"
Panel()"""
BROKEN = """from species_wb.core import UserError
if source.startswith('rtsp'): raise UserError('The stream is gone: plug the camera in.')"""
PEEK = """# every Python of a test loads this: on SIGUSR2, it writes TCP_NODELAY of each connection, by its far port
import gc, json, os, signal, socket, sys
def peek(*_):
    if "tornado.iostream" in sys.modules:
        kind = sys.modules["tornado.iostream"].IOStream
        open_ = [s.socket for s in gc.get_objects() if type(s) is kind and s.socket is not None]
        found = {s.getpeername()[1]: s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for s in open_}
        with open(os.environ["PEEK"] + ".partial", "w") as file:
            json.dump(found, file)
        os.replace(os.environ["PEEK"] + ".partial", os.environ["PEEK"])
signal.signal(signal.SIGUSR2, peek)
"""
needs = "signals of POSIX are used to look into the server"
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason=needs)


def cell(name: str, source: str, *tags: str) -> dict:
    metadata = {"tags": list(tags)} if tags else {}
    code = {"cell_type": "code", "execution_count": None, "outputs": []}
    return {**code, "id": name, "metadata": metadata, "source": source}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    "A workspace whose path has a space, quotes and an umlaut, with a live notebook and the files that parameters name."
    home = tmp_path_factory.mktemp("home") / "it's a \"wörk\" space"
    (home / "nbs").mkdir(parents=True)
    (home / "a run").mkdir()
    toy.write_toy(home / "Mühle \"2\".onnx")
    (home / "damaged.onnx").write_bytes(b"no model")
    rows = [{"path": "a.jpg", "status": "ok", "label": "red", "score": 0.9, "truth": "red"}]
    write_predictions(predictions_table(rows, home, ["red", "green"]), home / "a run" / "predictions.parquet")
    menus = {"cell_type": "markdown", "id": "menus", "metadata": {"tags": ["lab"]}, "source": "Choose Run All Cells."}
    parameters = cell("parameters", "model = ''\nsource = ''\nrun = ''", "parameters")
    cells = [menus, parameters, cell("panel", PANEL), cell("broken", BROKEN)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (home / "nbs" / "live.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return home


@pytest.fixture(scope="module")
def peeking(tmp_path_factory) -> dict[str, str]:
    "Variables with which a server tells the options of its sockets."
    folder = tmp_path_factory.mktemp("peek")
    (folder / "sitecustomize.py").write_text(PEEK, encoding="utf-8")
    return {"PYTHONPATH": str(folder), "PEEK": str(folder / "said.json")}


class Live:
    "`start` as a process of its own, until it has said where it is."

    def __init__(self, home: Path, folder: Path, variables: dict[str, str], **arguments) -> None:
        self.before = {*(home / "reports" / "live").glob("*")}
        command = [sys.executable, "-c", START, json.dumps(arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=home,
                                        env={**private(folder, home), **variables})  # fmt: skip
        self.said = []
        for line in self.process.stdout:
            self.said.append(line.strip())
            if found := re.search(r"(http://127\.0\.0\.1:(\d+))/\?token=(\w+)", line):
                self.url, self.port, self.token = found[1], int(found[2]), found[3]
                break
        else:
            raise AssertionError(self.said)
        self.folder = ({*(home / "reports" / "live").glob("*")} - self.before).pop()
        self.server = psutil.Process(self.process.pid).children()[0]

    def get(self, path: str, data: dict | None = None, token: str | None = None):
        headers = {"Authorization": f"token {self.token if token is None else token}"}
        body = None if data is None else json.dumps(data).encode()
        return urlopen(Request(self.url + path, body, headers), timeout=60)

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, list[psutil.Process]]:
        "Send a signal to the command; return its exit code, what it said, and what it left behind."
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        said = self.process.communicate(timeout=30)[0]
        return self.process.returncode, said, psutil.wait_procs(family, timeout=5)[1]


def delays(url: str, token: str, kernel: str, server: int, said: Path) -> bool:
    "Connect to a kernel as a browser does, and tell whether the server's end of the socket holds small messages back."
    async def connected() -> bool:
        socket_ = await websocket_connect(f"ws{url.removeprefix('http')}/api/kernels/{kernel}/channels?token={token}")
        header = {"msg_type": "kernel_info_request", "msg_id": "1", "session": "a", "username": "", "version": "5.3"}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": {}, "channel": "shell"}
        await socket_.write_message(json.dumps(message))
        while json.loads(await socket_.read_message())["msg_type"] != "kernel_info_reply":
            pass
        said.unlink(missing_ok=True)
        os.kill(server, signal.SIGUSR2)
        until = time.monotonic() + 10
        while not said.exists() and time.monotonic() < until:
            await asyncio.sleep(0.05)
        port = socket_.protocol.stream.socket.getsockname()[1]
        socket_.close()
        return json.loads(said.read_text())[str(port)] == 0

    with ThreadPoolExecutor(1) as apart:  # a browser's tests have an event loop in this thread
        return apart.submit(asyncio.run, connected()).result()


@pytest.fixture(scope="module")
def live(home, peeking, tmp_path_factory):
    "JupyterLab as `start` opens it, for a person whose own settings would have it elsewhere, on a port that is taken."
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "config").mkdir()
    own = {"ip": "0.0.0.0", "base_url": "/elsewhere/", "root_dir": "/", "certfile": "/gone.pem"}
    (folder / "config" / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": own}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = {"model": "Mühle \"2\".onnx", "source": "0", "run": str(home / "a run")}
        arguments["port"] = taken.getsockname()[1]
        live = Live(home, folder, peeking, **arguments)
    yield live
    live.end()


def test_the_copy_holds_the_parameters_and_the_notebook_stays_as_it_is(live, home):
    values: dict = {}
    for each in json.loads((live.folder / "live.ipynb").read_text(encoding="utf-8"))["cells"][1:2]:
        exec(each["source"], values)
    assert (values["model"], values["source"]) == (str(home / "Mühle \"2\".onnx"), "0")
    assert values["run"] == str(home / "a run")
    kept = json.loads((home / "nbs" / "live.ipynb").read_text(encoding="utf-8"))
    assert [c["id"] for c in kept["cells"]] == ["menus", "parameters", "panel", "broken"]


def test_a_taken_port_is_said_and_another_one_used(live):
    said = re.match(r"Port (\d+) is used by another program, so port (\d+) is taken instead", live.said[0])
    assert said and int(said[2]) == live.port != int(said[1])


def test_it_answers_on_this_machine_alone_and_only_with_the_token(live):
    assert live.get("/api/sessions").status == 200
    for wrong in ("", "guessed"):
        with pytest.raises(HTTPError, match="403"):
            live.get("/api/sessions", token=wrong)
    with pytest.raises(ConnectionRefusedError):  # 0.0.0.0 would answer here too
        socket.create_connection(("127.0.0.2", live.port), timeout=5)


def test_the_token_stands_on_the_screen_and_in_no_file_or_command_line(live):
    live.get(f"/?token={live.token}").close()
    assert not any(live.token in path.read_text(encoding="utf-8") for path in live.folder.iterdir() if path.is_file())
    commands = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
    assert any("jupyterlab" in " ".join(c) for c in commands)
    assert not any(live.token in part for c in commands for part in c)
    assert stat.S_IMODE((live.folder / "live.ipynb").stat().st_mode) == 0o600  # a camera's address may hold a password


def test_the_first_page_is_the_copy(live, home):
    place = live.folder.relative_to(home).as_posix()
    first = unquote(urlsplit(live.get(f"/?token={live.token}").url).path)
    assert first == f"/lab/workspaces/live/tree/{place}/live.ipynb"
    assert json.load(live.get(f"/api/contents/{place}/live.ipynb"))["content"]["cells"][2]["id"] == "panel"


def test_the_kernels_socket_sends_at_once_and_a_stock_server_does_not(live, peeking, home):
    kernel = json.load(live.get("/api/kernels", {"name": "python3"}))["id"]
    assert not delays(live.url, live.token, kernel, live.server.pid, Path(peeking["PEEK"]))
    with LabServer(home, environment=peeking, options=["--ServerApp.disable_check_xsrf=True"]) as stock:
        kernel = json.load(urlopen(Request(stock.url + "api/kernels", b'{"name": "python3"}')))["id"]
        assert delays(stock.url.rstrip("/"), "", kernel, stock.process.pid, Path(peeking["PEEK"]))


def test_ctrl_c_ends_the_server_and_its_kernels(home, peeking, tmp_path):
    live = Live(home, tmp_path, peeking, source="0")
    live.get("/api/kernels", {"name": "python3"}).close()
    assert any("ipykernel_launcher" in " ".join(p.cmdline()) for p in live.server.children(recursive=True))
    code, said, left = live.end(signal.SIGINT)
    assert code == 0 and not left and "Ended." in said and str(live.folder) in said


def test_voila_shows_the_panel_without_code_and_ends_with_its_kernels(home, peeking, tmp_path):
    page = Live(home, tmp_path, peeking, app=True, source="rtsp://me:secret@10.0.0.7/1")
    try:
        with page.get("/") as answer:
            html, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
        assert "application/vnd.jupyter.widget-view+json" in html
        assert not any(word in html for word in ("import anywidget", "rtsp", "Run All Cells"))
        assert "The stream is gone: plug the camera in." in html and "Traceback" not in html
        assert "default-src 'self'" in policy and "https:" not in policy  # its icons would come from elsewhere
        assert "/login" in page.get("/", token="guessed").url
        kernel = re.search(r'"kernelId": "([\w-]+)"', html)[1]
        assert not delays(page.url, page.token, kernel, page.server.pid, Path(peeking["PEEK"]))
        assert page.token not in (page.folder / "server.log").read_text(encoding="utf-8")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", page.port), timeout=5)
    finally:
        code, said, left = page.end(signal.SIGTERM)
    assert code == 0 and not left and "Ended." in said


@pytest.fixture
def nothing_starts(monkeypatch):
    "A process that is started all the same is an error, not a wait without end."
    def started(*given, **named):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", started)


def test_a_server_that_cannot_start_is_a_sentence_with_its_last_words(home, tmp_path, monkeypatch):
    for name, value in private(tmp_path, home).items():
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(lab, "free_port", lambda port, say: taken.getsockname()[1])
        # somebody else answers at that port
        monkeypatch.setattr(lab, "_await", lambda process, port, log: process.wait(30))
        with pytest.raises(UserError, match=r"broke off \(exit code 1\).*server\.log"):
            lab.start(browser=False, say=lambda line: None)


@pytest.mark.parametrize("app", [False, True])
def test_what_is_not_installed_is_said_before_anything_is_written(app, workspace, nothing_starts, monkeypatch):
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install '\.\[lab\]'"):
        lab.start(app=app)
    assert list(workspace.iterdir()) == []


def test_an_installation_without_the_notebooks_says_so(workspace, nothing_starts, monkeypatch):
    monkeypatch.setattr("species_wb.report.notebooks.installed_from", lambda: None)
    with pytest.raises(UserError, match="live.ipynb was not found: change to the folder of the species_wb clone"):
        lab.start(browser=False)


def test_a_damaged_model_is_said_before_anything_is_started(home, nothing_starts, monkeypatch):
    monkeypatch.setenv("SPECIES_WB_HOME", str(home))
    with pytest.raises(UserError, match="damaged.onnx cannot be opened as a model"):
        lab.start(model=str(home / "damaged.onnx"), browser=False)


def test_a_model_that_is_not_there_is_said_before_anything_is_started(home, nothing_starts, monkeypatch):
    monkeypatch.setenv("SPECIES_WB_HOME", str(home))
    before = sorted((home / "reports").rglob("*"))
    with pytest.raises(UserError, match="gone.onnx is not there: name another model"):
        lab.start(model="gone.onnx", browser=False)
    assert sorted((home / "reports").rglob("*")) == before
