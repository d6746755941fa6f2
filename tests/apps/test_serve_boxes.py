"""The service with a source of boxes: the answer lists them, and the page draws them over the photo."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from species_wb.core import UserError
from species_wb.detect.boxes import Boxes, boxes_from
from species_wb.detect.source import Detect
from species_wb.engine import toy
from species_wb.engine.model_file import open_model
from species_wb.photos.pixels import encode_jpeg

LEAF = encode_jpeg(np.full((200, 400, 3), (20, 200, 20), np.uint8))
pytest.importorskip("fastapi")


class Corner:
    name, sha256, sees_people, side, least = "a source that finds a corner and a person", "0", True, 64, 0.2

    def find(self, photo: np.ndarray, row: dict) -> Boxes:
        return boxes_from([[0, 0, 0.5, 0.5], [0.6, 0.1, 0.8, 0.9]], [0.9, 0.8], ["animal", "person"])


@contextmanager
def serving(folder: Path, source: object, **more: str) -> Iterator[str]:  # the address
    from species_wb.apps.ports import listen
    from species_wb.apps.serve import _server, application

    model = open_model(toy.write_toy(folder / "red-green.onnx"), 1)
    with listen("127.0.0.1", 0, print) as listening:
        server = _server(application(model, detect=Detect(source), **more))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("model"), Corner()) as address:
        yield address


def test_an_answer_lists_its_boxes_with_their_names(address):
    with urllib.request.urlopen(urllib.request.Request(f"{address}classify", LEAF), timeout=30) as answer:
        row = json.load(answer)
    assert row["label"] == "green" and row["box"] is None, "the row stays the answer for the whole photo"
    said = [(box["box"], box["label"], box["code"]) for box in row["boxes"]]
    assert said == [(1, "green", None), (2, None, "person")]
    assert [row["boxes"][0][edge] for edge in ("x0", "y0", "x1", "y1")] == [0, 0, 0.5, 0.5]


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_draws_the_boxes_over_the_photo(browser, address, width):
    tab = browser.new_page(viewport={"width": width, "height": 900})
    tab.goto(address)
    tab.set_input_files("#files", [{"name": "leaf.jpg", "mimeType": "image/jpeg", "buffer": LEAF}])
    tab.wait_for_selector(".boxes rect.light")
    tab.wait_for_function("document.querySelector('.photo img').naturalWidth > 0")
    assert tab.locator(".boxes text").all_text_contents() == ["person", "green"]
    assert "Found: 1 animal, 1 person." in tab.locator(".took").inner_text()
    image, svg = (tab.locator(name).bounding_box() for name in (".photo img", ".boxes"))
    assert all(abs(image[edge] - svg[edge]) < 1 for edge in image), "the same place as the photo"
    corner = tab.locator(".boxes rect.light").nth(1).bounding_box()
    shown = min(image["width"], 2 * image["height"])
    assert corner["width"] == pytest.approx(shown / 2, abs=8) and corner["height"] == pytest.approx(shown / 4, abs=8)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.close()


STRIPES = encode_jpeg(np.tile(np.array([[[0, 0, 0]], [[250, 250, 250]]], np.uint8).repeat(8, 0), (25, 800, 1)))
PIXELS = """image => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [800, 400];
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0, 800, 400);
  return [[560, 120], [100, 220]].map(([x, y]) => [...pen.getImageData(x, y, 1, 160).data].filter((_, k) => k % 4 == 0));
}"""  # a line inside the person, and one beside all boxes


@pytest.mark.parametrize("way", ["blur", "drop", "keep"])
def test_the_page_hides_people_unless_asked(browser, tmp_path, way):
    with serving(tmp_path, Corner(), people=way) as address:
        tab = browser.new_page()
        tab.goto(address)
        tab.set_input_files("#files", [{"name": "a.jpg", "mimeType": "image/jpeg", "buffer": STRIPES}])
        tab.wait_for_selector(".boxes rect.light")
        words = {"drop": ["red"], "blur": ["person", "red"], "keep": ["person", "red"]}
        person, beside = (np.ptp(line) for line in tab.locator(".photo img").evaluate(PIXELS))
        assert beside > 200 and (person > 200 if way == "keep" else person < 60), (way, person, beside)
        assert tab.locator(".boxes text").all_text_contents() == words[way]
        assert tab.locator(".veiled").count() == 0, "a photo without an answer is blurred as a whole, until it has one"
        tab.close()


def test_a_photo_that_waits_for_its_answer_is_blurred_as_a_whole(browser, address):
    tab = browser.new_page()
    tab.goto(address)
    tab.wait_for_selector("#labels:not(:empty)", state="attached")
    tab.route("**/classify*", lambda route: None)  # never answered
    tab.set_input_files("#files", [{"name": "a.jpg", "mimeType": "image/jpeg", "buffer": STRIPES}])
    tab.wait_for_selector(".veiled img")
    assert "blur" in tab.locator(".photo img").evaluate("image => getComputedStyle(image).filter")
    tab.close()


def test_the_service_says_what_is_done_with_people(tmp_path):
    class Blind(Corner):
        sees_people = False

    for source, way, said in ((Corner(), "keep", "keep"), (Blind(), "blur", "")):
        with serving(tmp_path, source, people=way) as address, urllib.request.urlopen(f"{address}model") as answer:
            assert json.load(answer)["people"] == said
    with pytest.raises(UserError, match="There is no --people hide"), serving(tmp_path, Corner(), people="hide"):
        pass
