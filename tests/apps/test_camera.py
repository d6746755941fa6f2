"The camera panel, in a real browser: what a person sees and can do, and what happens when something is missing."

import io
import re
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

anywidget = pytest.importorskip("anywidget")
from harness import Stage  # noqa: E402
from ipywidgets import HTML, FloatSlider, HBox, VBox, link  # noqa: E402
from lab_server import LabServer  # noqa: E402

from species_wb.engine import toy
from species_wb.photos import pixels  # noqa: E402
from species_wb.apps import player  # noqa: E402
from species_wb.apps.camera import CameraPanel  # noqa: E402
from species_wb.survey.observations import read_observations  # noqa: E402

RED, GREEN = (210, 20, 20), (20, 190, 20)
# Every track that the page was given, so that a test can tell whether it still runs.
TRACKS = """
window.tracks = [];
const media = navigator.mediaDevices;
if (media) {
  const ask = media.getUserMedia.bind(media);
  media.getUserMedia = async (wanted) => {
    const stream = await ask(wanted);
    window.tracks.push(...stream.getTracks());
    return stream;
  };
}
"""
MIRRORED = """() => {
  for (let e = document.querySelector('.swb-hint'); e; e = e.parentElement)
    if (getComputedStyle(e).transform.startsWith('matrix(-1')) return true;
  return false;
}"""
REFUSE = "name => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', name); }; }"
DROP = """([name, data]) => {
  const files = new DataTransfer();
  files.items.add(new File([new Uint8Array(data)], name, { type: "image/jpeg" }));
  const drop = new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true });
  document.querySelector(".swb-view").dispatchEvent(drop);
}"""
# As a browser does that translates pages.
TRANSLATE = """() => {
  const said = document.querySelector(".swb-said");
  window.translated = 0;
  new MutationObserver(() => {
    if (said.textContent === "Opening …") { said.textContent = "Wird geöffnet …"; window.translated += 1; }
  }).observe(said, { childList: true });
}"""
STILL = """() => {
  const now = document.querySelector('.swb-view').dataset.answers, still = window.before === now;
  window.before = now;
  return still;
}"""
SHADE = """() => {
  const video = document.querySelector('video'), g = document.createElement('canvas').getContext('2d');
  g.drawImage(video, 0, 0, 9, 9);
  return g.getImageData(4, 4, 1, 1).data[0] > 128 ? 'red' : 'green';
}"""
CONTRASTS = """() => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const of = (selector, property) => light(parts(getComputedStyle(document.querySelector(selector))[property]));
  const ground = of('.swb-camera', 'backgroundColor');
  return ['.swb-label', '.swb-name', '.swb-share', '.widget-label'].map(selector => {
    const ink = of(selector, 'color');
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
  });
}"""
# How far the picture and the button Record lie outside of what a person sees of the page, in pixels.
OUTSIDE = """() => {
  const frame = document.querySelector(".jp-WindowedPanel-outer")?.getBoundingClientRect();
  const [top, bottom] = [frame?.top ?? 0, Math.min(frame?.bottom ?? innerHeight, innerHeight)];
  const boxes = [".swb-picture", ".swb-record"].map(one => document.querySelector(one).getBoundingClientRect());
  return Math.max(0, ...boxes.flatMap(box => [top - box.top, box.bottom - bottom]));
}"""
TURNED = "() => getComputedStyle(document.querySelector('.swb-picture video')).transform.startsWith('matrix(-1')"
LIVING = "() => (window.tracks || []).filter(t => t.readyState === 'live').length"


def camera_film(path: Path, pictures: list[Image.Image], frames: int = 30, size=(640, 480)) -> Path:
    "Write what Chromium's fake camera plays, 30 frames a second, again and again."
    with path.open("wb") as file:
        for picture in pictures:
            scale = max(size[0] / picture.width, size[1] / picture.height)
            large = picture.convert("RGB").resize((round(picture.width * scale) + 1, round(picture.height * scale) + 1))
            left, top = (large.width - size[0]) // 2, (large.height - size[1]) // 2
            data = io.BytesIO()
            large.crop((left, top, left + size[0], top + size[1])).save(data, "JPEG", quality=90)
            file.write(data.getvalue() * frames)
    return path


def with_camera(film: Path) -> list[str]:
    "Chromium's flags for a camera that plays a film."
    fake = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}"]
    return [*fake, "--host-resolver-rules=MAP lab.example 127.0.0.1"]


@pytest.fixture(scope="module")
def playing(chromium, tmp_path_factory):
    "A browser whose camera sees red and green in turn, a second each."
    pictures = [Image.new("RGB", (640, 480), colour) for colour in (RED, GREEN)]
    film = camera_film(tmp_path_factory.mktemp("camera") / "two.mjpeg", pictures)
    browser = chromium(*with_camera(film))
    yield browser
    browser.close()


@pytest.fixture
def model(tmp_path) -> Path:
    return toy.write_toy(tmp_path / "colours.onnx")


@pytest.fixture
def stage(playing, model, workspace):
    "The panel with a camera that may be used."
    with Stage(playing, CameraPanel(model), permissions=["camera"]) as stage:
        stage.page.add_init_script(TRACKS)
        stage.reload()
        yield stage
        assert stage.wrong == []


def start(stage) -> None:
    stage.page.get_by_role("button", name="Start").click()


def label(stage, text: str) -> None:
    stage.page.locator(".swb-label", has_text=text).wait_for()


def sentence(stage) -> str:
    stage.page.locator(".swb-said:not([hidden])").wait_for()
    return stage.page.locator(".swb-said").text_content()


def living(page, tracks: int) -> None:
    "Wait until that many tracks of the camera run: a click or a sentence may come a moment earlier."
    page.wait_for_function(f"() => ({LIVING})() === {tracks}")


def until(stage, condition) -> None:
    "Wait until Python has heard what the page sent."
    limit = time.monotonic() + 15
    while not condition() and time.monotonic() < limit:
        stage.page.wait_for_timeout(50)
    assert condition()


def button(stage, name: str, **more):
    return stage.page.get_by_role("button", name=name, **more)


def answers(stage) -> int:
    return int(stage.page.locator(".swb-view").get_attribute("data-answers"))


def test_the_label_changes_with_the_picture_and_back_and_stop_ends_the_camera(stage):
    start(stage)
    for colour in ("red", "green", "red"):
        label(stage, colour)
    before = answers(stage)
    stage.page.wait_for_timeout(500)
    assert answers(stage) > before and stage.page.evaluate(LIVING) == 1
    stage.page.get_by_role("button", name="Stop").click()
    living(stage.page, 0)  # the link acts after the click
    stage.page.locator(".swb-hint").wait_for()
    assert not stage.page.evaluate(MIRRORED), "words in mirror writing"


def test_the_camera_runs_on_for_longer_than_the_page_waits_for_an_answer(stage):
    start(stage)
    label(stage, "red")
    stage.page.wait_for_timeout(9_500)  # it gives up after 8 seconds
    before = answers(stage)
    stage.page.wait_for_function(f"() => document.querySelector('.swb-view').dataset.answers > {before}")
    assert stage.page.evaluate(LIVING) == 1 and stage.page.locator(".swb-bad").count() == 0


def test_the_timings_say_how_fast_it_is(stage):
    stage.page.get_by_role("button", name="Timings").click()
    start(stage)
    label(stage, "green")
    rate = "/\\d+\\.\\d frames a second/.test(document.querySelector('.swb-timings').textContent)"
    stage.page.wait_for_function(f"() => {rate}")
    assert "passed over" in stage.page.locator(".swb-timings").text_content()


def test_a_camera_that_is_refused_is_explained(playing, model, workspace):
    with Stage(playing, CameraPanel(model), permissions=[]) as stage:
        start(stage)
        stage.page.locator(".swb-bad").wait_for()
        assert "was not allowed" in sentence(stage)
        button(stage, "Start").wait_for()


def test_a_computer_without_a_camera_is_told_what_else_there_is(browser, model, workspace):
    with Stage(browser, CameraPanel(model), permissions=["camera"]) as stage:
        start(stage)
        stage.page.locator(".swb-bad").wait_for()
        assert "has no camera" in sentence(stage) and "photo or film" in sentence(stage)


def test_an_insecure_page_says_why_there_is_no_camera(playing, model, workspace):
    with Stage(playing, CameraPanel(model), host="lab.example") as stage:
        start(stage)
        stage.page.locator(".swb-bad").wait_for()
        assert "http from lab.example" in sentence(stage) and "http://localhost" in sentence(stage)


@pytest.mark.parametrize(("name", "said"), [
    ("NotReadableError", "in use by another program"),
    ("OverconstrainedError", "no longer there"),
    ("AbortError", "could not be started (AbortError)"),
])  # fmt: skip
def test_other_refusals_of_the_browser_are_explained(stage, name, said):
    stage.page.evaluate(REFUSE, name)
    start(stage)
    stage.page.locator(".swb-bad").wait_for()
    assert said in sentence(stage)


def test_a_camera_that_is_unplugged_is_noticed(stage):
    start(stage)
    label(stage, "red")
    stage.page.evaluate("() => window.tracks.forEach(t => { t.stop(); t.dispatchEvent(new Event('ended')); })")
    stage.page.locator(".swb-bad").wait_for()
    assert "went away" in sentence(stage)


def test_another_camera_is_chosen_while_one_runs(chromium, model, workspace):
    browser = chromium("--use-fake-device-for-media-stream=device-count=2")
    with Stage(browser, CameraPanel(model), permissions=["camera"]) as stage:
        stage.page.add_init_script(TRACKS)
        stage.reload()
        start(stage)
        stage.page.locator(".swb-answer:visible").wait_for()
        until(stage, lambda: len(stage.widget.view.cameras) == 2)
        cameras = [value for value, _ in stage.widget.view.cameras]
        stage.page.get_by_label("Look at").select_option(index=1)
        stage.page.wait_for_function("() => window.tracks.length === 2")
        stage.page.locator(".swb-answer:visible").wait_for()
        used = stage.page.evaluate("() => window.tracks.map(t => [t.getSettings().deviceId, t.readyState])")
        assert used[0][1] == "ended" and used[1] == [cameras[1].removeprefix("camera:"), "live"]
        until(stage, lambda: stage.widget.source.value == cameras[1])
    browser.close()


def test_a_slow_model_is_never_more_than_one_frame_behind(stage, monkeypatch):
    live, most = stage.widget.live, []
    look = live.look

    def slow(*given, **named):
        most.append(stage.widget.view.jobs.qsize())
        time.sleep(0.3)
        return {**look(*given, **named), "seconds": 0.3}

    monkeypatch.setattr(live, "look", slow)
    start(stage)
    label(stage, "red")
    stage.page.wait_for_timeout(1500)  # the window has closed by now
    limit = time.monotonic() + 30  # on a busy machine the window closes later
    while most[-4:] != [0] * 4 and time.monotonic() < limit:
        stage.page.wait_for_timeout(100)
    del most[:]
    while len(most) < 4 and time.monotonic() < limit:
        stage.page.wait_for_timeout(100)
    assert len(most) >= 4 and max(most) == 0, "frames waited for the model"
    for colour in ("green", "red"):
        label(stage, colour)


def test_a_kernel_that_falls_silent_ends_the_camera_with_a_sentence(stage):
    start(stage)
    label(stage, "red")
    stage.dead = True
    stage.page.locator(".swb-bad").wait_for()
    assert "Python does not answer" in sentence(stage)
    living(stage.page, 0)


def test_a_view_that_goes_away_ends_its_camera(stage):
    start(stage)
    label(stage, "red")
    stage.again()  # the cell is run again
    living(stage.page, 0)
    start(stage)
    label(stage, "red")
    stage.leave()
    living(stage.page, 0)


def test_another_model_answers_while_the_camera_runs_on(stage, tmp_path):
    toy.write_toy(tmp_path / "andere <b>.onnx", labels=("rot <i>", "grün"))
    start(stage)
    label(stage, "red")
    stage.page.get_by_role("button", name="Settings").click()
    stage.page.get_by_label("Another model file").fill(f"'{tmp_path / 'andere <b>.onnx'}'")
    stage.page.get_by_role("button", name="Use").click()
    label(stage, "rot <i>")
    assert stage.page.evaluate(LIVING) == 1 == stage.page.evaluate("() => window.tracks.length")
    stage.page.locator(".swb-said", has_text="andere <b>.onnx answers now").wait_for()
    stage.page.get_by_label("Another model file").fill("/no/such/model.onnx")
    stage.page.get_by_role("button", name="Use").click()
    stage.page.locator(".swb-bad").wait_for()
    label(stage, "grün")  # and the other one goes on
    stage.widget.model.options = [*stage.widget.model.options, ("gone", "/gone/model.onnx")]
    stage.page.get_by_label("with", exact=True).select_option("gone")
    stage.page.locator(".swb-bad", has_text="/gone/model.onnx").wait_for()
    stage.page.wait_for_function("() => [...document.querySelectorAll('select')].some(s => s.value === 'andere <b>.onnx')")
    assert stage.page.get_by_label("with", exact=True).input_value() == "andere <b>.onnx"
    until(stage, lambda: stage.widget.model.label == "andere <b>.onnx")


def test_a_photo_that_is_dropped_gets_its_answer_and_a_text_gets_its_reason(stage, tmp_path):
    green = pixels.encode_jpeg(np.full((90, 120, 3), GREEN, np.uint8))
    for name, data, said in (("Größe 'x'.jpg", green, "green"), ("notes <img src=x>.jpg", b"no photo at all", "")):
        stage.page.evaluate(DROP, [name, list(data)])
        if said:
            label(stage, said)
        stage.page.locator(".swb-said", has_text=name).wait_for()
    stage.page.locator(".swb-bad", has_text="not a photo").wait_for()
    assert "Drop a photo or film" in sentence(stage)
    assert stage.page.locator(".swb-camera img[src=x]").count() == 0


@pytest.mark.parametrize("way", ["dropped", "in a folder"])
def test_a_damaged_photo_gets_its_answer_and_the_panel_says_what_is_missing(stage, tmp_path, way):
    speckled = np.random.default_rng(0).integers(0, 60, (300, 400, 3), np.uint8) + np.array([0, 190, 0], np.uint8)
    data = pixels.encode_jpeg(speckled)
    (tmp_path / "torn.jpg").write_bytes(data[: int(0.8 * len(data))])
    if way == "dropped":
        stage.page.evaluate(DROP, ["torn.jpg", list((tmp_path / "torn.jpg").read_bytes())])
    else:
        (tmp_path / "whole.jpg").write_bytes(data)
        play(stage, tmp_path)
    said = re.compile(r"torn\.jpg is damaged: the last .*% of the picture is missing\. Copy it again")
    stage.page.locator(".swb-note", has_text=said).wait_for()  # in a folder, the next photo soon takes its place
    label(stage, "green")
    if way == "in a folder":
        stage.page.locator(".swb-note", has_not_text="damaged").wait_for(state="attached")  # the next photo is whole


def test_a_photo_is_asked_again_when_the_model_is_another(stage, tmp_path):
    (tmp_path / "red.jpg").write_bytes(pixels.encode_jpeg(np.full((90, 120, 3), RED, np.uint8)))
    stage.page.locator("input[type=file]").set_input_files(str(tmp_path / "red.jpg"))
    label(stage, "red")
    stage.page.get_by_role("button", name="Settings").click()
    other = toy.write_toy(tmp_path / "rot.onnx", labels=("rot", "grün"))
    stage.page.get_by_label("Another model file").fill(str(other))
    stage.page.get_by_label("Another model file").press("Enter")
    label(stage, "rot")


def test_a_photo_that_is_too_large_for_one_message_is_made_smaller_and_said(stage, tmp_path):
    noise = np.random.default_rng(0).integers(0, 90, (3000, 4000, 3), np.uint8) + np.array([160, 0, 0], np.uint8)
    (tmp_path / "large.jpg").write_bytes(pixels.encode_jpeg(noise, 97))
    assert (tmp_path / "large.jpg").stat().st_size > 10 * 2**20
    stage.page.locator("input[type=file]").set_input_files(str(tmp_path / "large.jpg"))
    label(stage, "red")
    stage.page.locator(".swb-said", has_text="made smaller").wait_for()


def film_of(path: Path, colours=(RED, GREEN), frames=30) -> Path:
    "Write a film that browsers play."
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for colour in colours:
            for _ in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((240, 320, 3), colour, np.uint8))))
        container.mux(stream.encode())
    return path


def test_a_film_that_is_chosen_is_played_and_ends(stage, tmp_path):
    stage.page.locator("input[type=file]").set_input_files(str(film_of(tmp_path / "film é.webm")))
    label(stage, "red")
    label(stage, "green")
    stage.page.locator(".swb-said", has_text="has ended").wait_for()
    button(stage, "Record", disabled=True).wait_for()


@pytest.mark.parametrize("kind", ["film", "folder"])
def test_the_machine_of_the_notebook_can_look_instead(stage, tmp_path, kind):
    pytest.importorskip("av")
    if kind == "film":
        place = film_of(tmp_path / "it's a film.webm", frames=60)
    else:
        place = tmp_path / "photos of é"
        place.mkdir()
        for name, colour in (("1.jpg", RED), ("2.jpg", GREEN)):
            (place / name).write_bytes(pixels.encode_jpeg(np.full((300, 400, 3), colour, np.uint8)))
        (place / "0 notes.txt").write_text("nothing to see")
    stage.page.get_by_label("Look at").select_option("Address, folder or film by its path …")
    stage.page.get_by_label("Address, path").fill(str(place))
    start(stage)
    label(stage, "red")
    assert stage.page.locator(".swb-picture img").is_visible()
    label(stage, "green")
    stage.page.locator(".swb-said", has_text="has ended").wait_for()
    button(stage, "Start").wait_for()


def play(stage, place) -> None:
    stage.page.get_by_label("Look at").select_option("Address, folder or film by its path …")
    stage.page.get_by_label("Address, path").fill(str(place))
    start(stage)


def test_a_film_that_is_none_says_why(stage, tmp_path):
    pytest.importorskip("av")
    (tmp_path / "film.mp4").write_text("no film at all")
    play(stage, tmp_path / "film.mp4")
    stage.page.locator(".swb-bad", has_text="not a film").wait_for()
    button(stage, "Start").wait_for()


def test_a_film_that_ends_is_no_mistake_whatever_it_is_called(stage, tmp_path):
    pytest.importorskip("av")
    play(stage, film_of(tmp_path / "it cannot be played any further.webm"))
    stage.page.locator(".swb-said", has_text="it cannot be played any further.webm has ended.").wait_for()
    button(stage, "Start").wait_for()
    assert stage.page.locator(".swb-bad").count() == 0


@pytest.mark.parametrize(("failed", "words"), [(True, "All is well."), (False, "It cannot be played any further.")])
def test_the_page_is_told_how_a_source_ended_by_the_source_and_not_by_its_words(model, monkeypatch, failed, words):
    told, over = [], threading.Event()

    def opened(text, say, side):
        say(words)
        return SimpleNamespace(name=text, ended=True, failed=failed, get=lambda timeout: None, close=lambda: None)

    def send(content, buffers):
        told.append((content["sentence"], content["bad"], content["over"]))
        if content["over"]:
            over.set()

    monkeypatch.setattr(player, "open_source", opened)
    player.Player("a film", SimpleNamespace(side=64), send, "page")
    assert over.wait(10) and told == [(words, False, False), (words, failed, True)]


def test_what_is_said_while_a_source_opens_goes_with_the_first_picture_whatever_its_words(stage, tmp_path):
    for k, colour in enumerate((RED, GREEN)):
        (tmp_path / f"{k}.jpg").write_bytes(pixels.encode_jpeg(np.full((300, 400, 3), colour, np.uint8)))
    stage.page.evaluate(TRANSLATE)
    play(stage, tmp_path)
    label(stage, "red")
    assert stage.page.evaluate("window.translated") == 1 and stage.page.locator(".swb-said").is_hidden()
    stage.widget.view.tell("Opening … of the exhibition.")
    label(stage, "green")
    assert sentence(stage) == "Opening … of the exhibition."


def test_a_folder_is_not_recorded_and_freeze_holds_its_picture(stage, tmp_path):
    for k, colour in enumerate((RED, GREEN, RED)):
        (tmp_path / f"{k}.jpg").write_bytes(pixels.encode_jpeg(np.full((300, 400, 3), colour, np.uint8)))
    play(stage, tmp_path)
    label(stage, "red")
    stage.page.get_by_role("button", name="Record").click()
    stage.page.locator(".swb-bad", has_text="cannot be recorded").wait_for()
    label(stage, "green")
    stage.page.get_by_role("button", name="Freeze").click()
    stage.page.locator(".swb-said", has_text="has ended").wait_for()
    assert not (stage.widget.folder or Path("none")).exists()


def test_a_place_that_is_not_there_is_refused_in_a_sentence(stage):
    stage.page.get_by_label("Look at").select_option("Address, folder or film by its path …")
    stage.page.get_by_label("Address, path").fill("/no/such <b>place</b>")
    start(stage)
    stage.page.locator(".swb-bad").wait_for()
    assert "/no/such <b>place</b> is not there" in sentence(stage)


def test_an_address_of_a_dead_machine_never_shows_its_password(stage):
    pytest.importorskip("av")
    stage.page.get_by_label("Look at").select_option("Address, folder or film by its path …")
    pasted = "'rtsp://ann:secret@127.0.0.1:9/stream'"  # with its quotes, as often
    stage.page.get_by_label("Address, path").fill(pasted)
    start(stage)
    stage.page.locator(".swb-said", has_text="cannot be reached").wait_for()
    assert "secret" not in sentence(stage)
    stage.page.get_by_role("button", name="Stop").click()


def test_a_record_has_a_line_for_each_visit_and_a_sharp_photo_in_full_size(stage):
    stage.page.get_by_role("button", name="Settings").click()
    for field, text in (("Site", "window"), ("Latitude", "47,25"), ("Longitude", "8.5")):
        stage.page.get_by_label(field).fill(text)
    start(stage)
    label(stage, "red")
    stage.page.get_by_role("button", name="Record").click()
    stage.page.get_by_role("button", name="Stop recording").wait_for()
    stage.page.locator(".swb-said", has_text="Recording into").wait_for()
    for colour in ("green", "red", "green"):
        label(stage, colour)
    stage.page.get_by_role("button", name="Stop recording").click()
    stage.page.locator(".swb-said", has_text="2 visits recorded").wait_for()
    table = stage.widget.folder / "observations.csv"
    rows = read_observations(table).to_pylist()
    assert sorted(row["label"] for row in rows) == ["green", "red"]  # visits, not frames
    for row in rows:
        assert [row[name] for name in ("site", "lat", "lon", "source")] == ["window", 47.25, 8.5, "camera"]
        assert row["start"] <= row["end"]
        photo = pixels.decode((table.parent / row["photo"]).read_bytes(), None)
        colour = RED if row["label"] == "red" else GREEN  # the fake camera keeps colours roughly
        assert photo.shape == (480, 640, 3) and abs(photo.mean((0, 1)) - colour).max() < 25


def test_each_visit_has_a_line_and_a_photo_of_its_own(tmp_path, monkeypatch):
    from species_wb.apps import visits

    clock = [100.0]
    monkeypatch.setattr(visits.time, "monotonic", lambda: clock[0])
    record, kept = visits.Record(tmp_path, "camera", gap=10), []
    picture = np.full((20, 20, 3), 9, np.uint8)
    for at, label_ in ((0, "Lynx lynx"), (4, "Lynx lynx"), (5, "山猫/.."), (5, "山猫.//"), (30, "Lynx lynx")):
        clock[0] = 100.0 + at
        kept.append(record.take({"label": label_, "score": 0.9}, picture, f"2026-05-04T13:07:{at:02}+02:00"))
        if kept[-1]:
            visits.keep_photo(kept[-1], pixels.encode_jpeg(picture))
    record.close()
    rows = read_observations(record.observations).to_pylist()
    rows = sorted(rows, key=lambda row: (row["start"], row["label"]))
    assert [(row["label"], row["start"][17:19], row["end"][17:19]) for row in rows] == [
        ("Lynx lynx", "00", "04"), ("山猫.//", "05", "05"), ("山猫/..", "05", "05"), ("Lynx lynx", "30", "30"),
    ]  # fmt: skip
    photos = {tmp_path / row["photo"] for row in rows}
    assert len(photos) == 4 and photos == {path for path in kept if path} == set((tmp_path / "photos").iterdir())


def record_two_visits(stage) -> None:
    start(stage)
    label(stage, "red")
    stage.page.get_by_role("button", name="Record").click()
    stage.page.locator(".swb-note", has_text="Recording").wait_for()
    for colour in ("green", "red"):
        label(stage, colour)


def test_a_page_that_is_reloaded_while_recording_loses_no_visit(stage):
    record_two_visits(stage)
    stage.reload()
    start(stage)
    label(stage, "red")
    assert stage.widget.live.record is None
    rows = read_observations(stage.widget.folder / "observations.csv").to_pylist()
    assert {row["label"] for row in rows} == {"red", "green"}
    assert all((stage.widget.folder / row["photo"]).exists() for row in rows)


def test_a_record_that_cannot_be_written_is_kept_until_it_can(stage, tmp_path):
    record_two_visits(stage)
    table = stage.widget.folder / "observations.csv"
    table.unlink()
    table.mkdir()  # as a card that was pulled out
    stage.page.get_by_role("button", name="Stop recording").click()
    stage.page.locator(".swb-bad", has_text="cannot be written").wait_for()
    table.rmdir()
    stage.page.get_by_role("button", name="Stop recording").click()
    stage.page.locator(".swb-said", has_text="visits recorded").wait_for()
    assert len(read_observations(table)) >= 2  # more where it went on meanwhile


def test_the_whole_frame_is_looked_at_when_asked_for(stage):
    start(stage)
    label(stage, "red")
    assert stage.page.locator(".swb-seen").is_visible()
    stage.page.get_by_role("button", name="Whole frame").click()
    stage.page.locator(".swb-seen").wait_for(state="hidden")
    until(stage, lambda: stage.widget.live.whole)
    label(stage, "green")


@pytest.mark.parametrize("address", [
    "rtsp://ann:se/cret@127.0.0.1:9/a",
    "http://127.0.0.1:9/video?user=ann&pwd=secret",
    "rstp://ann:secret@127.0.0.1:9/a",
])  # fmt: skip
def test_no_form_of_a_password_is_shown(stage, address):
    pytest.importorskip("av")
    play(stage, address)
    stage.page.locator(".swb-said", has_text="c").filter(has_not_text="Opening").wait_for()
    assert "secret" not in sentence(stage) and "cret" not in sentence(stage)
    if stage.page.get_by_role("button", name="Record").is_enabled():
        stage.page.get_by_role("button", name="Record").click()
        stage.page.get_by_role("button", name="Stop recording").wait_for()
        assert "cret" not in stage.widget.view.player.name
    stop, begin = (stage.page.get_by_role("button", name=name, exact=True) for name in ("Stop", "Start"))
    stop.or_(begin).click()


def test_a_position_that_cannot_be_is_refused_before_anything_is_recorded(stage, workspace):
    stage.page.get_by_role("button", name="Settings").click()
    stage.page.get_by_label("Latitude").fill("north")
    start(stage)
    label(stage, "red")
    stage.page.get_by_role("button", name="Record").click()
    stage.page.locator(".swb-bad").wait_for()
    assert "north is no position" in sentence(stage) and not (workspace / "reports").exists()


def test_freeze_holds_the_picture_and_its_answer(stage):
    start(stage)
    label(stage, "red")
    stage.page.get_by_role("button", name="Freeze").click()
    stage.page.wait_for_function(STILL, polling=400)
    held = stage.page.locator(".swb-label").text_content()
    assert stage.page.evaluate(SHADE) == held
    count = answers(stage)
    stage.page.wait_for_timeout(1500)
    assert stage.page.locator(".swb-label").text_content() == held and answers(stage) == count
    stage.page.get_by_role("button", name="Go on").click()
    for colour in ("green", "red"):
        label(stage, colour)


def test_a_mirror_turns_a_moving_picture_and_nothing_that_is_there_to_be_read(stage):
    start(stage)
    label(stage, "red")
    assert stage.page.evaluate(TURNED)  # a webcam shows a person what is held before it as a mirror does
    stage.page.get_by_role("button", name="Freeze").click()
    stage.page.get_by_role("button", name="Go on").wait_for()
    stage.page.wait_for_function(f"() => !({TURNED})()")  # else the words on a label before the camera cannot be read
    button(stage, "Mirror", disabled=True).wait_for()
    stage.page.get_by_role("button", name="Go on").click()
    stage.page.get_by_role("button", name="Freeze", exact=True).wait_for()
    stage.page.wait_for_function(TURNED)
    button(stage, "Mirror", disabled=False).wait_for()
    for words in (".swb-label", ".swb-bars", ".swb-note", ".swb-said"):
        inside = f"document.querySelector({words!r}).closest('.swb-picture')"
        assert stage.page.evaluate(inside) is None, f"{words} is turned with the picture"


def test_an_answer_below_the_threshold_is_shown_as_not_sure(stage, tmp_path):
    stage.widget.model_path.value = str(toy.write_toy(tmp_path / "unsure.onnx", weight=((0.01, 0), (0, 0.01), (0, 0))))
    start(stage)
    label(stage, "red")
    stage.page.get_by_role("button", name="Settings").click()
    stage.page.get_by_label("Not sure below").fill("95")
    stage.page.get_by_label("Not sure below").press("Enter")
    label(stage, "not sure")
    assert stage.page.locator(".swb-unsure .swb-bars li").count() == 2


def test_what_else_it_may_be_stands_below_the_label(stage, tmp_path):
    rule = {"0.9": {"method": "lac", "quantile": 0.9}}
    torn = ((0.3, 0), (0, 0.3), (0, 0))
    stage.widget.model_path.value = str(toy.write_toy(tmp_path / "torn.onnx", weight=torn, conformal=rule))
    start(stage)
    label(stage, "red")
    stage.page.locator(".swb-common", has_text="or: green").wait_for()
    stage.widget.model_path.value = str(toy.write_toy(tmp_path / "sure.onnx", conformal=rule))
    stage.page.wait_for_function("() => !document.querySelector('.swb-common').textContent.includes('or:')")


def test_everything_is_reached_by_keyboard(stage):
    page = stage.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Start"
    page.keyboard.press("Enter")
    label(stage, "red")
    names = []
    for _ in range(9):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.tagName"))
    assert {"Freeze", "Record", "Whole frame", "Settings"} <= set(names)


def test_every_control_is_a_widget_with_a_name_that_a_screen_reader_says(stage):
    stage.page.get_by_role("button", name="Settings").click()
    stage.page.locator("[aria-pressed=true]", has_text="Settings").wait_for()
    button(stage, "Use").wait_for()
    said = stage.page.locator(".swb-camera").aria_snapshot()
    for control in (
        'button "Start"', 'combobox "Look at"', 'combobox "with"',
        'button "Freeze" [disabled]', 'button "Record" [disabled]', 'button "Mirror"',
        'button "Whole frame"', 'button "Timings"', 'spinbutton "Steady over, s"',
        'spinbutton "Not sure below, %"', 'textbox "Site"', 'textbox "Latitude"', 'textbox "Longitude"',
        'textbox "Another model file or run folder"', 'button "Use"',
    ):  # fmt: skip
        assert control in said, said


def test_on_a_phone_the_picture_comes_first_and_the_controls_wrap(playing, model, workspace):
    with Stage(playing, CameraPanel(model), width=390, height=844, permissions=["camera"]) as stage:
        top = lambda name: stage.page.locator(name).bounding_box()["y"]  # noqa: E731
        assert top(".swb-picture") - top(".swb-camera") < 20 and top(".swb-picture") < top(".swb-start")
        stage.page.get_by_role("button", name="Settings").click()
        start(stage)
        label(stage, "red")
        assert stage.page.evaluate("document.documentElement.scrollWidth") <= 390
        stage.page.get_by_role("button", name="Record").click()
        stage.page.locator(".swb-said", has_text="Recording into").wait_for()
        assert top(".swb-picture") - top(".swb-camera") < 20  # whatever is said


def test_start_brings_picture_and_buttons_into_view(playing, model, workspace):
    panel, above = CameraPanel(model), HTML("<div style='height: 400px'>A long text</div>")
    with Stage(playing, VBox([above, panel]), width=1440, height=650, permissions=["camera"]) as stage:
        assert stage.page.evaluate(OUTSIDE) > 0
        start(stage)
        label(stage, "red")
        stage.page.wait_for_function(f"() => ({OUTSIDE})() === 0")
    panel.close()


def test_a_cell_starts_watches_and_stops_the_camera(stage):
    words = []
    stage.widget.view.observe(lambda change: words.append(change["new"]), "label")
    stage.widget.start.value = True
    for colour in ("red", "green", "red"):
        label(stage, colour)
    stage.widget.start.value = False
    stage.page.locator(".swb-hint:visible").wait_for()
    living(stage.page, 0)
    assert {"red", "green"} <= set(words) and stage.widget.view.score > 0.5
    stage.widget.view.observe(lambda change: 1 / 0, "answer")
    start(stage)
    stage.page.locator(".swb-bad", has_text="A function that observes this panel failed (ZeroDivisionError").wait_for()
    label(stage, "red")  # and the camera runs on


def test_controls_can_be_laid_out_anew_and_linked(playing, model, workspace):
    panel, slider = CameraPanel(model), FloatSlider(max=100)
    link((panel.threshold, "value"), (slider, "value"))
    with Stage(playing, VBox([HBox([panel.source, panel.start]), panel.view, slider]), permissions=["camera"]) as stage:
        start(stage)
        label(stage, "red")
        slider.value = 100
        label(stage, "not sure")
        stage.page.get_by_role("button", name="Stop").click()
        stage.page.locator(".swb-hint:visible").wait_for()
        assert stage.wrong == [] and panel.live.min_score == 1
    panel.close()


def test_one_view_has_the_camera_and_any_can_stop_it(stage):
    start(stage)
    label(stage, "red")
    other = stage.context.new_page()
    other.add_init_script(TRACKS)
    other.goto(f"{stage.url}/?theme=light")  # which ends it, as a page does that is loaded again
    stage.page.locator(".swb-hint:visible").wait_for()
    stage.page.get_by_role("button", name="Start").click()
    label(stage, "red")
    other.locator(".swb-hint", has_text="Another view of this panel has the camera").wait_for()
    living(other, 0)
    living(stage.page, 1)
    other.get_by_role("button", name="Stop").click()
    stage.page.locator(".swb-hint", has_text="Press Start").wait_for()
    living(stage.page, 0)
    other.get_by_role("button", name="Start").click()
    other.locator(".swb-label", has_text="red").wait_for()
    living(stage.page, 0)
    living(other, 1)


@pytest.mark.parametrize("theme", ["light", "dark", ""])
def test_words_stand_out_from_their_ground_in_every_theme(playing, model, workspace, theme):
    with Stage(playing, CameraPanel(model), theme=theme, permissions=["camera"]) as stage:
        start(stage)
        label(stage, "red")
        assert min(stage.page.evaluate(CONTRASTS)) >= 4.5


@pytest.mark.slow
def test_ten_minutes_change_neither_the_delay_nor_the_memory(chromium, photos, tmp_path):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import live as bench

    browser = chromium(*with_camera(camera_film(tmp_path / "two.mjpeg", bench.two_photos(photos, tmp_path), frames=45)))
    (tmp_path / "workspace").mkdir()
    bench.notebook(tmp_path / "workspace" / "fast.ipynb", "")
    with LabServer(tmp_path / "workspace", no_delay=True) as lab:
        rows = bench.long_run(lab, browser, "fast.ipynb", minutes=10)
    browser.close()
    spans = {key: bench.parts(rows, key) for key in ("median", "late", "kernel", "heap")}
    grown = {key: late / early for key, (early, late) in spans.items()}
    print(grown)
    assert len(rows) > 40 and grown["kernel"] < 1.05 and grown["heap"] < 1.15, grown
    assert grown["median"] < 1.3 and bench.parts(rows, "late")[1] < 300, grown
