"""The service answers photos as `classify` does, keeps its limits whatever is sent, and its page works in a browser."""

import http.client
import io
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from species_wb.engine import toy
from species_wb.engine.model_file import open_model
from species_wb.core import UserError
from species_wb.photos import reading
from species_wb.photos.pixels import encode_jpeg
from species_wb.engine.predict import predict_one
from species_wb.predictions import ONLY_PARQUET, PREDICTIONS

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from species_wb.apps import ports, serve, web_answers
from species_wb.apps.web_access import Limits

LABELS = ["red", "green", "none of these"]


def network(path: Path, scale: float = 0.02) -> Path:
    "A model file that calls a photo by its colour, and a blue one none of these."
    validation = {"n": 40, "accuracy": 0.95, "odd": float("nan")}
    return toy.write_toy(path, LABELS, [0, 1, -1], 50 * scale * np.eye(3), validation=validation)


def photo(red: int = 0, green: int = 0, blue: int = 0, side: int = 600) -> bytes:
    "A picture of a camera's size with light and grain, of one colour on the whole."
    rng = np.random.default_rng(0)
    light = np.linspace(0.6, 1.1, side)[:, None, None] * np.array([red, green, blue])
    return encode_jpeg(np.clip(light + rng.normal(0, 12, (side, side * 4 // 3, 3)), 0, 255).astype(np.uint8))


def bomb() -> bytes:
    "A PNG that says it has 50,000 × 50,000 pixels."
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


GREEN, BLUE = photo(green=200), photo(blue=220)
START = """import sys
from species_wb.apps import serve
from species_wb.apps.web_access import Limits
from species_wb.engine.model_file import open_model
serve.run_service(open_model(sys.argv[1], 1), say=lambda line: print(line, flush=True), **eval(sys.argv[2]))
"""


class Served:
    "A service in a process of its own."

    def __init__(self, model: Path, folder: Path, **options) -> None:
        self.log = folder / "errors.txt"
        command = [sys.executable, "-c", START, str(model), repr({"port": 0, **options})]
        (folder / "tmp").mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "HOME": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True,
                                        cwd=folder / "tmp", env=environment)  # fmt: skip
        self.said = []
        while not self.said or not self.said[-1].startswith("Open "):
            line = self.process.stdout.readline()
            assert line, self.log.read_text()
            self.said.append(line.strip())
        self.url = next(word for word in self.said[-1].split() if "127.0.0.1" in word or "localhost" in word)
        self.port = int(self.url.rsplit(":", 1)[1])

    def ask(self, what: str, data: bytes | None = None, method: str = "", source: str = "127.0.0.1", **headers: str):
        "Return the status, the answer's headers and its JSON (or text)."
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30, source_address=(source, 0))
        headers = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method or ("GET" if data is None else "POST"), what, data, headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, answer.headers, json.loads(body) if is_json else body.decode()

    def end(self) -> str:
        "Press Ctrl-C; return what it printed meanwhile."
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=20)[0]

    def peak(self) -> int:
        "The most memory it has had, in bytes."
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return network(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def started(model, tmp_path):
    "Start services that end with the test: `started(host=…, limits='Limits(…)')`."
    running = []

    def start(limits: str = "", path: Path = model, **options) -> Served:
        if limits:
            options["limits"] = eval(limits, {"Limits": Limits})
        running.append(Served(path, tmp_path, **options))
        return running[-1]

    yield start
    for one in running:
        one.end()


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    "A service that is never too fast for a test."
    limits = Limits(photo_bytes=5_000_000, rate=1e6, burst=1_000_000, waiting=16)
    one = Served(model, tmp_path_factory.mktemp("served"), limits=limits)
    yield one
    one.end()


def test_a_posted_photo_gets_the_row_that_classify_writes(served, model):
    code, _, row = served.ask("/classify?top=2&name=leaf.jpg", GREEN, Content_Type="image/jpeg")
    expected = predict_one(open_model(model, 1), GREEN, {"path": "leaf.jpg"}, 2)
    assert code == 200 and row["label"] == "green" and row.pop("milliseconds") > 0 and row.pop("boxes") is None
    assert row == {**dict.fromkeys(PREDICTIONS.names), **{k: v for k, v in expected.items() if k not in (*ONLY_PARQUET, "hint")}}
    assert served.ask("/classify", BLUE)[2]["abstained"] is True  # without a content type, too


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"", "empty"), (b"Dear diary", "not-a-photo"), (GREEN[:2000], "cut-short"), (bomb(), "too-large"),
     (b"\xff\xd8\xff" + b"\0" * 500, "unreadable"), (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not-a-photo")],
)  # fmt: skip
def test_a_body_that_is_no_usable_photo_is_said_to_be_none(served, data, status):
    code, _, row = served.ask(f"/classify?{urlencode({'name': '../../etc/passwd'})}", data)
    assert code == 422 and row["status"] == status and row["label"] is None and row["top"] is None
    assert row["path"] == "../../etc/passwd"
    assert row["reason"].startswith("../../etc/passwd ") and row["reason"].endswith(".")


def test_a_service_says_which_model_answers_but_not_where_it_lies(served, model):
    code, _, about = served.ask("/model")
    assert code == 200 and about["labels"] == LABELS and about["label_ids"] == [0, 1, -1]
    assert about["sha256"] == open_model(model).sha256 and about["input_size"] == 16
    assert about["validation"] == {"n": 40, "accuracy": 0.95, "odd": None}
    assert str(model.parent) not in json.dumps(about)
    assert served.ask("/health")[2] == {"status": "ok", "photos": 0}


def test_a_file_over_the_limit_is_refused_by_what_it_says_and_by_what_comes(served):
    def pieces(count: int):
        return (b"\xff" * 100_000 for _ in range(count))

    for body in (b"\xff" * 5_000_001, pieces(51)):  # announced; in chunks of no announced length
        code, _, answer = served.ask("/classify", body)
        assert code == 413 and "larger than 5.0 MB" in answer["reason"]
    assert served.ask("/classify", b"\xff" * 5_000_000)[0] == served.ask("/classify", pieces(50))[0] == 422
    assert served.ask("/health")[2]["photos"] == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_of_2_gb_is_refused_soon_and_never_stands_in_memory(started, announced):
    service, piece, total = started("Limits(photo_bytes=20_000_000)"), b"\xff" * 1_000_000, 2000
    assert service.ask("/classify", GREEN)[0] == 200
    before, sent, answer = service.peak(), 0, b""
    with socket.create_connection(("127.0.0.1", service.port), 30) as connection:
        length = f"Content-Length: {len(piece) * total}" if announced else "Transfer-Encoding: chunked"
        connection.sendall(f"POST /classify HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode())
        try:
            while sent < total and not select.select([connection], [], [], 2 * (announced and not sent))[0]:
                connection.sendall(piece if announced else b"%x\r\n%s\r\n" % (len(piece), piece))
                sent += 1
        except OSError:
            pass
        answer = connection.recv(10_000)
    assert b" 413 " in answer.splitlines()[0] and b"connection: close" in answer.lower()
    assert sent == 0 if announced else sent < 100  # of 2000 MB
    assert service.peak() - before < 60_000_000  # the limit is 20 MB
    assert service.ask("/classify", GREEN)[0] == 200


def test_too_many_photos_a_second_are_told_to_wait_each_address_on_its_own(started):
    service = started("Limits(rate=0.5, burst=3)")
    made_up = [{"X_Forwarded_For": f"10.0.0.{k}"} for k in range(5)]  # does not help
    codes = [service.ask("/classify", GREEN, **headers)[0] for headers in made_up]
    assert codes == [200, 200, 200, 429, 429]
    code, headers, answer = service.ask("/classify", GREEN)
    assert code == 429 and headers["Retry-After"] in ("1", "2") and "0.5 photos a second" in answer["reason"]
    assert service.ask("/health")[0] == 200
    if sys.platform == "linux":  # where the whole of 127.0.0.0/8 is this machine
        assert service.ask("/classify", GREEN, source="127.0.0.2")[0] == 200


@contextmanager
def stalled(service: Served):
    "A connection on which half a photo came."
    with socket.create_connection(("127.0.0.1", service.port), 30) as connection:
        before = service.ask("/health")[2]["photos"]
        head = f"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(GREEN)}\r\n\r\n"
        connection.sendall(head.encode() + GREEN[:1000])
        wait_for(service, before + 1)
        yield connection


def wait_for(service: Served, photos: int) -> None:
    for _ in range(200):
        if service.ask("/health")[2]["photos"] == photos:
            return
        time.sleep(0.05)
    pytest.fail(f"never {photos} photos inside")


def test_more_uploads_than_are_held_at_a_time_are_told_to_wait_and_places_come_free_again(started):
    service = started("Limits(waiting=2)")
    with stalled(service) as first:
        with stalled(service):
            code, headers, answer = service.ask("/classify", GREEN)
            assert code == 503 and headers["Retry-After"] == "1"
            assert answer["reason"].startswith("2 photos are being worked on")
        wait_for(service, 1)  # the second went away in the middle
        assert service.ask("/classify", GREEN)[0] == 200
        first.sendall(GREEN[1000:])
        assert b" 200 " in first.recv(100)
    wait_for(service, 0)
    assert "Traceback" not in service.log.read_text()


def test_an_upload_that_does_not_get_on_is_given_up(started):
    service = started("Limits(patience=0.5)")
    with stalled(service) as connection:
        answer = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert b" 408 " in answer.splitlines()[0] and b"had not arrived after 0.5 seconds" in answer
    wait_for(service, 0)


def test_two_photos_at_a_time_and_the_rest_is_answered_meanwhile(model, monkeypatch):
    import uvicorn

    inside, most, go, lock = 0, 0, threading.Event(), threading.Lock()

    def slow(*given):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        assert go.wait(30)
        with lock:
            inside -= 1
        return predict_one(*given)

    monkeypatch.setattr(web_answers, "predict_one", slow)
    listening = ports.listen("127.0.0.1", 0, print)
    config = uvicorn.Config(serve.application(open_model(model, 1)), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    service = Served.__new__(Served)
    service.port = listening.getsockname()[1]
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(service.ask, "/classify", GREEN) for _ in range(6)]
        wait_for(service, 6)  # /health answers while all of them wait
        assert service.ask("/")[0] == 200
        limit = time.monotonic() + 20
        while most < 2 and time.monotonic() < limit:  # a slow machine has counted all six before the second is begun
            time.sleep(0.01)
        go.set()
        assert [answer.result()[0] for answer in answers] == [200] * 6
    server.should_exit = True
    thread.join(20)
    assert most == 2


@pytest.mark.parametrize(
    ("headers", "code"),
    [({"Host": "evil.example"}, 400), ({"Host": "localhost.evil.example:8000"}, 400), ({"Host": ""}, 400),
     ({"Host": "[::1"}, 400), ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
     ({"Host": "localhost"}, 200), ({"Host": "LOCALHOST:80", "Origin": "http://localhost:80"}, 200),
     ({"Host": "[::1]:80"}, 200)],
)  # fmt: skip
def test_a_strange_web_page_gets_nothing_by_a_name_of_its_own_or_from_its_own(served, headers, code):
    for what, data in (("/", None), ("/model", None), ("/classify", GREEN)):
        answered, given, answer = served.ask(what, data, **headers)
        assert answered == code and "Access-Control-Allow-Origin" not in given
        assert code == 200 or answer["reason"].endswith(".")


def test_every_answer_forbids_what_a_browser_need_not_do(served):
    looked = (("/", None, 200), ("/page.js", None, 200), ("/model", None, 200), ("/nowhere", None, 404))
    posted = (("/classify", b"x", 422), ("/classify?top=0", b"x", 400), ("/classify", None, 405))
    for what, data, code in (*looked, *posted):
        answered, headers, _ = served.ask(what, data)
        assert answered == code
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    for what in ("/docs", "/redoc", "/../settings.ini", "/%2e%2e/%2e%2e/setup.py", "/static/page.js"):
        assert served.ask(what)[0] == 404


def test_wrong_parameters_are_sentences(served):
    for query, said in (("top=0", "top"), ("top=many", "top"), ("top=1001", "top"), (f"name={'x' * 256}", "name")):
        code, _, answer = served.ask(f"/classify?{query}", GREEN)
        assert code == 400, answer
        assert answer["reason"].startswith(f"The parameter {said} is not usable: ") and answer["reason"].endswith(".")


def test_nothing_is_written_to_disk_and_no_name_is_logged(started, tmp_path):
    service = started()
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2500, 3000, 3), np.uint8)).save(file, "PNG")
    assert len(file.getvalue()) > 20_000_000
    assert service.ask("/classify?name=a-secret-place.jpg", file.getvalue())[0] == 200
    service.ask("/classify?name=a-secret-place.jpg", b"text")
    folder, held = tmp_path / "tmp", Path(f"/proc/{service.process.pid}/fd")
    assert list(folder.iterdir()) == []
    if held.exists():
        assert not [link for fd in held.iterdir() if (link := os.readlink(fd)).endswith("(deleted)")]
    printed = service.end() + service.log.read_text() + " ".join(service.said)
    assert "secret" not in printed and "Stopped." in printed and "Traceback" not in printed
    assert service.process.returncode == 0


def test_a_model_that_answers_nonsense_is_said_to_be_damaged(started, tmp_path):
    code, _, answer = started(path=network(tmp_path / "broken.onnx", 1e38)).ask("/classify", GREEN)
    assert code == 500 and "not a number" in answer["reason"]


def test_a_port_that_is_taken_is_said_and_another_one_used(started):
    first = started()
    second = started(port=first.port)
    instead = f"Port {first.port} is used by another program, so port {second.port} is taken instead."
    assert second.said[0] == instead and second.ask("/health")[0] == 200


def test_only_this_machine_is_served_unless_told_otherwise_and_then_with_a_warning(started):
    alone, open_to_all = started(), started(host="0.0.0.0")
    assert not [line for line in alone.said if "network" in line] and "127.0.0.1" in alone.said[0]
    assert open_to_all.said[0].startswith("Anyone on this network can use the service")
    machine = socket.gethostname()
    assert machine in open_to_all.said[1] and open_to_all.ask("/health", Host=machine)[0] == 200
    assert alone.ask("/health", Host="evil.example")[0] == open_to_all.ask("/health", Host="evil.example")[0] == 400


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [("127.0.0.1", 70_000, "70000 is no port"), ("no such machine", 8000, "is not known"),
     ("192.0.2.1", 8000, "name an address of this machine")],
)  # fmt: skip
def test_what_cannot_be_listened_on_is_a_sentence(host, port, said):
    with pytest.raises(UserError, match=said):
        ports.listen(host, port, print)


@pytest.mark.parametrize("absent", ["fastapi", "uvicorn"])
def test_a_missing_package_is_one_sentence_with_the_line_that_installs_it(model, absent):
    code = f"""import sys; sys.modules[{absent!r}] = None
from species_wb.apps import serve
from species_wb.core import UserError
from species_wb.engine.model_file import open_model
try: serve.run_service(open_model(sys.argv[1]), port=0)
except UserError as error: print(error)"""
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True)
    assert done.stdout.strip().endswith("which are not installed: pip install '.[serve]'"), done.stderr


# The page, in a browser


@contextmanager
def opened(browser, service: Served, width: int = 1280, path: str = "/"):
    "The page, and what it asked of other places or complained of."
    context, asked = browser.new_context(viewport={"width": width, "height": 800}), []
    tab = context.new_page()
    own = (service.url + "/", f"blob:{service.url}/")
    tab.on("request", lambda request: asked.append(request.url) if not request.url.startswith(own) else None)
    tab.on("pageerror", lambda error: asked.append(str(error)))
    tab.on("console", lambda message: asked.append(message.text) if "status of 422" not in message.text else None)
    tab.goto(service.url + path)
    tab.locator("#about", has_text="tiny").wait_for()
    yield tab, asked
    context.close()


def answers(tab, count: int) -> list[str]:
    "What the cards say once none of them is waiting."
    tab.locator(".card:not(.working)").nth(count - 1).wait_for()
    assert tab.locator(".working").count() == 0
    return [" ".join(text.split()) for text in tab.locator(".answer").all_inner_texts()]


def files(*given: tuple[str, bytes]) -> list[dict]:
    return [{"name": name, "mimeType": "image/jpeg", "buffer": data} for name, data in given]


@pytest.mark.parametrize("width", [390, 1280])
def test_photos_are_chosen_on_the_page_and_answered_in_words(browser, served, width):
    with opened(browser, served, width) as (tab, asked):
        assert "stay on this machine" in tab.inner_text("#privacy") and "40 photos" in tab.inner_text("#about")
        assert "5.0 MB" in tab.inner_text("#ways")
        assert tab.get_attribute("#files", "accept") == reading.ACCEPT
        name = "<img src=x onerror=alert(1)> " + "ü" * 150 + ".jpg"
        usable, cut = (("leaf.jpg", GREEN), ("sky.jpg", BLUE)), (name, GREEN[:3000])
        given = files(*usable, ("notes.jpg", b"Dear diary"), cut, ("huge.jpg", b"\xff" * 5_000_001))
        tab.set_input_files("#files", given)
        leaf, sky, notes, cut, huge = answers(tab, 5)
        assert "leaf.jpg" in leaf and "Probably green" in leaf or "certainly green" in leaf
        assert " ms." in leaf and "%" in leaf
        assert "None of these" in sky and "nothing it can name" in sky and "none of these" in sky
        assert "This is not a photo" in notes and "notes.jpg is text, not a photo." in notes
        assert "The file is cut short" in cut and "<img src=x" in cut and "The photo is too large" in huge
        assert tab.inner_text("#count") == "5 files: 1 named, 1 not sure, 3 not usable."
        assert tab.inner_text("#live") == tab.inner_text("#count")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        shown = "i => i.naturalWidth === 800 && i.alt.startsWith('Your photo')"
        assert tab.evaluate(f"[...document.querySelectorAll('.named img, .unsure img')].every({shown})")
        shares = tab.locator(".unsure .percent").all_inner_texts()
        assert len(shares) == 3 and asked == []  # "none of these" has its bar too
        tab.click("#clear")
        assert tab.locator(".card").count() == 0 and tab.evaluate("document.activeElement.id") == "files"


def test_the_page_and_the_row_say_what_else_a_photo_may_be(browser, started, tmp_path):
    rule = {"0.9": {"method": "lac", "quantile": 0.9999}}
    doubtful = toy.write_toy(tmp_path / "tiny.onnx", LABELS, [0, 1, -1], 0.5 * np.eye(3), conformal=rule)
    service = started(path=doubtful)
    status, _, row = service.ask("/classify", GREEN)
    assert status == 200 and row["set"] == ["green", "red"]  # and never "none of these"
    with opened(browser, service) as (tab, asked):
        tab.set_input_files("#files", files(("leaf.jpg", GREEN)))
        (leaf,) = answers(tab, 1)
        assert "Or: red." in leaf and "Or: red, none" not in leaf and asked == []


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photo_is_dropped_or_pasted_anywhere_on_the_page(browser, served, way):
    with opened(browser, served) as (tab, asked):
        event, held = ("DragEvent", "dataTransfer") if way == "drop" else ("ClipboardEvent", "clipboardData")
        start = f"""data => {{
            const held = new DataTransfer(), photo = new Uint8Array(data);
            held.items.add(new File([photo], 'dropped.jpg', {{type: 'image/jpeg'}}));
            const event = new {event}('{way}', {{bubbles: true, cancelable: true, {held}: held}});
            return document.body.dispatchEvent(event);
        }}"""
        # a drop must not open the file in place of the page
        assert tab.evaluate(start, list(GREEN)) is (way == "paste")
        (text,) = answers(tab, 1)
        assert "dropped.jpg" in text and "green" in text and "green" in tab.inner_text("#live") and asked == []


def test_a_real_photo_is_answered_on_the_page(browser, served, photos):
    path = sorted((photos / "train").glob("*/*.jpg"))[0]
    with opened(browser, served) as (tab, asked):
        tab.set_input_files("#files", path)
        expected = served.ask("/classify", path.read_bytes())[2]
        (text,) = answers(tab, 1)
        assert (expected["label"] or "None of these") in text and asked == []


def test_many_photos_at_once_wait_for_their_turn_and_all_get_an_answer(browser, started):
    service = started("Limits(rate=8, burst=3)")
    with opened(browser, service) as (tab, asked):
        tab.set_input_files("#files", files(*((f"{k}.jpg", GREEN) for k in range(12))))
        assert all("green" in text for text in answers(tab, 12))
        assert [line for line in asked if "429" not in line] == [] and any("429" in line for line in asked)


def test_a_service_that_ended_is_said_and_can_be_tried_again(browser, started):
    service = started()
    with opened(browser, service) as (tab, _):
        service.end()
        tab.set_input_files("#files", files(("leaf.jpg", GREEN)))
        (text,) = answers(tab, 1)
        assert "No answer" in text and "start species-wb serve again" in text
        started(port=service.port)
        tab.get_by_role("button", name="Try again").click()
        tab.locator(".named").wait_for()


def test_the_page_works_with_the_keyboard_and_says_what_things_are(browser, served):
    with opened(browser, served) as (tab, _):
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.id") == "files"
        assert tab.evaluate("document.activeElement.labels[0].innerText").startswith("Choose photos")
        with tab.expect_file_chooser() as chooser:
            tab.keyboard.press("Space")
        chooser.value.set_files(files(("leaf.jpg", GREEN)))
        answers(tab, 1)
        assert tab.evaluate("document.documentElement.lang") == "en" and tab.locator("h1").count() == 1
        assert tab.locator("img:not([alt])").count() == 0 and tab.get_by_role("status").count() == 1
        assert tab.get_by_role("heading", name="green").count() == 1 and tab.get_by_role("list").count() >= 2


# The description of the service, taken at its word

HOOKS = """
import base64, schemathesis
from hypothesis import strategies as st

kept = [base64.b64decode(text) for text in {photos!r}]
schemathesis.openapi.media_type("*/*", st.one_of(st.sampled_from(kept), st.binary(max_size=500)))
"""
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["200", "422"]  # any bytes may come, and most are no photo
"""


def form(*parts: tuple[str, bytes], kind: str = "file") -> tuple[bytes, str]:
    "A form as browsers and curl send it: the body and its type."
    head = '--XX\r\nContent-Disposition: form-data; name="{}"{}\r\nContent-Type: image/jpeg\r\n\r\n'
    body = [head.format(kind, f'; filename="{name}"' if name else "").encode() + data + b"\r\n" for name, data in parts]
    return b"".join(body) + b"--XX--\r\n", "multipart/form-data; boundary=XX"


def test_a_form_is_understood_with_one_photo_or_several(served):
    plain = served.ask("/classify?name=a.jpg", GREEN)
    body, kind = form(("a.jpg", GREEN))
    status, _, row = served.ask("/classify", body, Content_Type=kind)
    assert (status, {**row, "milliseconds": 0}) == (plain[0], {**plain[2], "milliseconds": 0})  # the same row as for its bytes
    body, kind = form(("", b"a note"), ("Füchse 1.jpg", GREEN), ("broken.jpg", GREEN[:200]), ("diary.txt", b"Dear diary"))
    status, _, rows = served.ask("/classify?top=1", body, Content_Type=kind)
    assert status == 200 and [row["path"] for row in rows] == ["Füchse 1.jpg", "broken.jpg", "diary.txt"]
    assert [row["status"] for row in rows] == ["ok", "cut-short", "not-a-photo"] and len(rows[0]["top"]) == 1
    body, kind = form(("broken.jpg", GREEN[:200]), ("diary.txt", b"Dear diary"))
    assert served.ask("/classify", body, Content_Type=kind)[0] == 422  # none of them is a photo


def test_curl_gets_an_answer_for_a_form_and_for_bytes(served, tmp_path):
    curl = shutil.which("curl") or pytest.skip("no curl here")
    (tmp_path / "a b.jpg").write_bytes(GREEN)
    (tmp_path / "c.jpg").write_bytes(GREEN)
    ask = lambda *words: json.loads(subprocess.check_output([curl, "-s", *words, f"http://127.0.0.1:{served.port}/classify"], cwd=tmp_path))  # noqa: E731
    assert ask("-F", "file=@a b.jpg")["label"] == ask("--data-binary", "@c.jpg")["label"] == "green"
    assert [row["path"] for row in ask("-F", "file=@a b.jpg", "-F", "other=@c.jpg")] == ["a b.jpg", "c.jpg"]


@pytest.mark.parametrize("body, kind, code, said", [
    (*form(("", b"only a note")), 400, "This form holds no file: send the photo's bytes"),
    (b"--XX\r\nno head", "multipart/form-data; boundary=XX", 400, "cannot be read|holds no file"),
    (GREEN, "multipart/form-data", 400, "The form cannot be read"),
    (b'{"image": "aGVsbG8="}', "application/json", 415, "The body is JSON: send the photo's bytes .* or a form"),
    (*form(*[(f"{k}.jpg", GREEN) for k in range(21)]), 413, "A form may hold 20 photos"),
])  # fmt: skip
def test_what_is_no_photo_and_no_form_of_photos_is_told_what_to_do(served, body, kind, code, said):
    status, _, answer = served.ask("/classify", body, Content_Type=kind)
    assert status == code and re.search(said, answer["reason"])


def test_the_photos_of_a_form_count_one_by_one(started):
    "A form is no way around the limit: forty photos from one address, then twenty a second."
    body, kind = form(*[(f"{k}.jpg", GREEN) for k in range(20)])
    service = started()
    codes = [service.ask("/classify", body, Content_Type=kind)[0] for _ in range(4)]
    assert codes[:2] == [200, 200] and 429 in codes[2:]


def test_the_service_does_what_its_description_says(served, tmp_path):
    pytest.importorskip("schemathesis")
    kept = [b64encode(data).decode() for data in (GREEN, BLUE, GREEN[:500], bomb())]
    (tmp_path / "hooks.py").write_text(HOOKS.format(photos=kept))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run",
               f"{served.url}/openapi.json", "--checks", "all", "--max-examples", "25", "--seed", "1",
               "--no-color"]  # fmt: skip
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Tested: 3" in done.stdout, done.stdout[-2500:]
    assert "Traceback" not in served.log.read_text()


def test_the_description_names_every_column_and_every_refusal(served):
    said = served.ask("/openapi.json")[2]
    assert set(said["paths"]) == {"/classify", "/model", "/health"}
    row = said["components"]["schemas"]["Row"]
    assert set(row["properties"]) == {*PREDICTIONS.names, "milliseconds", "boxes"} == set(row["required"])
    refused = {"400", "403", "408", "413", "415", "429", "500", "503"}
    assert set(said["paths"]["/classify"]["post"]["responses"]) == {"200", "422", *refused}
