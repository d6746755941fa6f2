"""Boxes and films: every frame has its boxes, false animals are found in frames, and boxes given for films are not guessed."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from blocks import Blocks, jpeg, scene
from PIL import Image
from test_job import rows

from species_wb.classify import job
from species_wb.classify.resume import Job, Task
from species_wb.detect.given import match, read_boxes
from species_wb.detect.repeat_page import drop_repeats, find_repeats
from species_wb.detect.source import Detect
from species_wb.engine import model_file
from species_wb.photos import sources

av = pytest.importorskip("av")
BRANCH = ["-"] * 3 + ["green"] + ["-"] * 12  # in the upper right corner


def film(path: Path, day: int, *scenes: list[str]) -> None:
    "A film of five pictures a second, taken on a day of May; each scene is a second long."
    with av.open(str(path), "w") as made:
        made.metadata["creation_time"] = f"2026-05-{day:02}T07:00:00Z"
        stream = made.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for blocks in scenes:
            for _ in range(5):
                made.mux(stream.encode(av.VideoFrame.from_ndarray(scene(*blocks), "rgb24")))
        made.mux(stream.encode())


def answers(folder: Path, out: Path, model: Path, source: object) -> list[dict]:
    opened, where, detect = model_file.open_model(model, 1), sources.sources([str(folder)]), Detect(source)
    todo = Job(out, where, Task(where.root, **detect.task()), opened.sha256)
    job.run_job(todo, opened, job.here(opened, detect=detect))
    return rows(out)


@pytest.fixture
def card(tmp_path) -> Path:
    "Five films of a camera, each on a day of its own; the branch is in every frame, and a red animal in two of 15."
    (tmp_path / "card").mkdir()
    for day in range(1, 6):
        animal = [*BRANCH[:8], "red", *BRANCH[9:]]
        film(tmp_path / "card" / f"F{day}.mp4", day, BRANCH, animal if day in (2, 4) else BRANCH, BRANCH)
    return tmp_path / "card"


def test_a_branch_in_every_film_is_found_shown_and_dropped(card, tmp_path, model):
    table = tmp_path / "a.csv"
    assert len(answers(card, table, model, Blocks())) == 17
    said = find_repeats(table)
    assert said[0] == ("1 place would be dropped: 15 of 17 boxes (88\u00a0%). "
                       "13 photos and frames would then show no animal.")  # fmt: skip
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", (tmp_path / "a-repeats.html").read_text())
    assert len(pictures) == 1
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(pictures[0]))))
    high = shown.shape[0]
    corner = shown[high // 16 : high // 6, high * 13 // 12 : high * 5 // 4].reshape(-1, 3).mean(0)
    assert corner[1] > 150 and corner[0] < 80, "the frame itself is shown, with the branch in its corner"
    drop_repeats(table, tmp_path / "a-repeats.csv")
    kept = [row for row in rows(tmp_path / "a-without-repeats.csv") if row["label"]]
    assert {(row["path"], float(row["seconds"])) for row in kept} == {("F2.mp4", 1.0), ("F4.mp4", 1.0)}


def test_a_film_that_is_gone_leaves_its_lines_on_the_page(card, tmp_path, model):
    answers(card, tmp_path / "a.csv", model, Blocks())
    for path in card.glob("*.mp4"):
        path.unlink()
    assert find_repeats(tmp_path / "a.csv")[0].startswith("1 place would be dropped")
    page = (tmp_path / "a-repeats.html").read_text()
    assert "Place 1" in page and "data:image/jpeg" not in page


EDGES = {"x0": 0.1, "y0": 0.1, "x1": 0.5, "y1": 0.5}
ENTRY = {"file": "F1.mp4", "frame_rate": 5.0, "frames_processed": [0, 5],
         "detections": [{"category": "1", "conf": 0.9, "bbox": [0.1, 0.1, 0.4, 0.4], "frame_number": 5}]}  # fmt: skip
FILES = {
    "megadetector.json": json.dumps({"images": [ENTRY], "detection_categories": {"1": "animal"}}),
    "without-rate.json": json.dumps({"images": [{k: v for k, v in ENTRY.items() if k != "frame_rate"}],
                                     "detection_categories": {"1": "animal"}}),
    "coco.json": json.dumps({"images": [{"id": 1, "file_name": "F1.mp4", "width": 320, "height": 240}],
                             "annotations": [{"image_id": 1, "bbox": [32, 24, 128, 96], "category_id": 1}],
                             "categories": [{"id": 1, "name": "fox"}]}),
    "table.csv": "path,x0,y0,x1,y1\nF1.mp4,0.1,0.1,0.5,0.5\n",
    "frames.csv": "path,seconds,x0,y0,x1,y1\nF1.mp4,1.0,0.1,0.1,0.5,0.5\n",
}  # fmt: skip


@pytest.mark.parametrize("name", [*FILES])
def test_boxes_given_for_a_film_are_not_put_on_all_its_frames(tmp_path, model, name):
    folder = tmp_path / "card"
    folder.mkdir()
    film(folder / "F1.mp4", 1, BRANCH, BRANCH)
    (folder / "a.jpg").write_bytes(jpeg("red"))
    (tmp_path / name).write_text(FILES[name])
    given = read_boxes(tmp_path / name)
    said = match(given, [{"path": "F1.mp4"}, {"path": "a.jpg"}]).sentence()
    assert "1 named without boxes (such as F1.mp4: it is a film, and boxes of films are not used yet)" in said
    found = answers(folder, tmp_path / "a.jsonl", model, given)
    assert [(row["path"], row["code"], row.get("box")) for row in found] == [
        ("F1.mp4", "boxes-not-known", None), ("F1.mp4", "boxes-not-known", None), ("a.jpg", "boxes-not-known", None)]  # fmt: skip
    assert all("boxes of films are not used yet" in row["reason"] and row["label"] == "green" for row in found[:2])
