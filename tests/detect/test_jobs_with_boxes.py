"""Jobs with boxes: one row a box or photo, whatever happens, and the same promises as without boxes."""

import io
import json
import os
import random
import subprocess
import sys
import zipfile
from collections import Counter
from itertools import groupby
from pathlib import Path

import blocks as blocks_of_colour
import numpy as np
import pytest
from blocks import SCENES, Blocks, card, jpeg, scene
from PIL import Image
from test_cli import one_sentence
from test_job import BIN, kill_at_random, network_of_edges, rows, typed

from species_wb.classify import job
from species_wb.classify.answers import summary
from species_wb.classify.resume import Job, Task
from species_wb.contracts import read_table, write_table
from species_wb.core import UserError
from species_wb.detect import answers, choose, crops
from species_wb.detect.boxes import boxes_from
from species_wb.detect.crops import crop_inputs
from species_wb.detect.source import Detect
from species_wb.engine import model_file, predict, toy
from species_wb.engine.toy import add_features
from species_wb.photos import sources
from species_wb.photos.pixels import decode, encode_jpeg
from species_wb.predictions import LATER, predictions_table
from species_wb.survey.observations import events

pytestmark = pytest.mark.usefixtures("own_cache")
BOXES = [2, 1, 1, 1, 3]  # rows of the scenes


@pytest.fixture
def opened(model):
    return model_file.open_model(model, 1)


def job_of(folder: Path, out: Path, model, detect: Detect | None = None) -> Job:
    where, detect = sources.sources([str(folder)]), detect or Detect(Blocks())
    return Job(out, where, Task(where.root, **detect.task()), model.sha256)


def run(folder: Path, out: Path, model, detect: Detect | None = None, asked: list | None = None, **words) -> job.Done:
    "Run a job with boxes; note the units that the engine gets."
    detect = detect or Detect(Blocks())

    def engine(todo, task):
        worked = asked if asked is not None else []
        return job.here(model, detect=detect)((worked.extend(s.units) or s for s in todo), task)

    return job.run_job(job_of(folder, out, model, detect), model, engine, **words)


def seen(row: dict) -> tuple:
    "A row in short: file, box, code, label."
    return Path(row["member"] or row["path"]).name, row["box"], row["code"], row["label"]


# --- the rows ------------------------------------------------------------------------------------------------------------------


def test_each_box_and_each_photo_without_one_is_a_row(tmp_path, opened):
    folder = card(tmp_path / "card", 5)
    (folder / "a bench.jpg").write_bytes(jpeg("bench"))
    (folder / "both.jpg").write_bytes(jpeg("person", "vehicle", "-", "green"))
    (folder / "broken.jpg").write_bytes(jpeg("red")[:300])
    done = run(folder, tmp_path / "a.jsonl", opened)
    found = rows(tmp_path / "a.jsonl")
    assert [seen(row) for row in found] == [
        ("IMG_00000.JPG", 1, None, "red"), ("IMG_00000.JPG", 2, None, "green"), ("IMG_00001.JPG", None, "no-animal", None),
        ("IMG_00002.JPG", 1, None, "red"), ("IMG_00003.JPG", 1, "person", None), ("IMG_00004.JPG", 1, None, "red"),
        ("IMG_00004.JPG", 2, None, "red"), ("IMG_00004.JPG", 3, None, "red"), ("a bench.jpg", None, "no-animal", None),
        ("both.jpg", 1, "person", None), ("both.jpg", 2, "vehicle", None), ("both.jpg", 3, None, "green"),
        ("broken.jpg", None, None, None)]  # fmt: skip
    assert all(row["abstained"] == (row["label"] is None) for row in found[:-1]) and found[-1]["status"] == "cut-short"
    assert all(row["label_whole"] and 0 < row["score_whole"] <= 1 for row in found[:-1]) and found[-1]["label_whole"] is None
    assert [found[1][name] for name in ("x0", "y0", "x1", "y1")] == [0.5, 0.0, 0.75, 0.25]
    assert found[0]["box_score"] > found[1]["box_score"] and not found[2]["x0"] and found[2]["top"]
    told = done.summary
    assert (told["rows"], told["photos"], told["answered"], told["abstained"]["count"]) == (13, 8, 4, 0)
    assert {entry["label"]: entry["count"] for entry in told["labels"]} == {"red": 3, "green": 2}
    assert told["boxes"] == {"animal": 4, "person": 2, "vehicle": 1, "no-animal": 2, "boxes-not-known": 0, "boxes": 7}
    assert done.sentences[0] == "8 photos: 4 answered, 0 not sure, 1 with no answer."
    assert done.sentences[1] == ("7 animals found in 4 photos; 2 photos without any animal; people in 2 photos (counted, not named); "
                                 "vehicles in 1 photo.")  # fmt: skip


def test_a_box_is_named_by_its_crop_and_the_whole_photo_together(tmp_path):
    rng = np.random.default_rng(0)
    path = network_of_edges(tmp_path / "m.onnx", ["a", "b", "c"], rng.normal(size=(24, 3, 5, 5)) / 500, rng.normal(size=(24, 3)), np.zeros(3))
    model, data = model_file.open_model(path, 1), jpeg("-", "red", "-", "-", "-", "green")
    chances = lambda photo: predict.predict_one(model, photo, chances=True)["chances"]  # noqa: E731
    (row, _) = answers.predict_boxes(model, [({"path": "a.jpg"}, lambda: data)], Detect(Blocks(), margin=0.1))
    whole, photo = chances(data), decode(data, 256)
    (pixels,) = crop_inputs(photo, [row[name] for name in ("x0", "y0", "x1", "y1")], model, 0.1)
    crop = model_file.probabilities(model, model_file.infer(model, [pixels[None]])[0])[0]
    joined = np.exp((np.log(whole) + np.log(crop)) / 2)
    joined /= joined.sum()
    assert np.isclose(row["score_raw"], joined.max(), atol=1e-5) and not np.isclose(crop.max(), joined.max(), atol=1e-4)
    assert {t["label"]: t["score"] for t in row["top"]} == pytest.approx(dict(zip("abc", joined, strict=True)), abs=1e-5)
    assert row["label_whole"] == predict.predict_one(model, data)["label"]
    assert row["score_whole"] == predict.predict_one(model, data)["score"]  # as without boxes


def test_the_network_sees_the_whole_box_with_its_margin(opened):
    photo = scene("-", "-", "-", "-", "-", "red", width=400, height=400)
    for corners in ((0.25, 0.25, 0.5, 0.5), (0.0, 0.25, 0.5, 0.5), (0.25, 0.0, 0.5, 1.0), (0.0, 0.0, 1.0, 1.0)):
        (pixels,) = crop_inputs(photo, corners, opened, margin=0.25)
        share = (pixels[..., 0] > 128).mean()
        side = 100 / (min(1.5 * max(corners[2] - corners[0], corners[3] - corners[1]), 1) * 400)
        assert share == pytest.approx(side**2, abs=0.06), corners


def test_a_small_box_is_cut_from_a_larger_decoding(tmp_path, opened, monkeypatch):
    "A fine pattern of red lines in a small box is there in the file, but not in the picture that is enough for the whole photo."
    fine = scene(width=3200, height=2400)
    fine[:600, :800] = (20, 230, 20)
    decoded = []
    monkeypatch.setattr(crops, "decode", lambda data, size, real=crops.decode: decoded.append(size) or real(data, size))

    class Small(Blocks):
        def find(self, photo, row):
            return boxes_from([[0.0, 0.0, row["share"], row["share"]]], [0.9], ["animal"])

    for share, wanted in ((0.5, []), (0.02, [256])):
        decoded.clear()
        item = {"share": share}, lambda: encode_jpeg(fine)
        looked = answers.look(item, opened, Detect(Small(), margin=0.0))
        assert len(looked.pixels) == 2 and len(decoded) == len(wanted)
    assert decoded[0] > 300  # 300 pixels were decoded first
    film = answers.look(({"share": 0.02}, lambda: fine[::8, ::8]), opened, Detect(Small()))
    assert len(film.pixels) == 2 and len(decoded) == 1  # the frame of a film is all there is


def test_what_is_odd_gets_its_rows(opened):
    "One pixel, a strip, a source that finds three hundred boxes."

    class Many(Blocks):
        def find(self, photo, row):
            edges = np.random.default_rng(0).random((10_000, 2, 2))
            return boxes_from(np.concatenate([edges.min(1), edges.max(1)], 1), np.linspace(1, 0.3, 10_000), ["animal"] * 10_000)

    shapes = ((1, 1), (1, 900), (900, 1), (2, 3))
    items = [({"path": f"{k}.png"}, lambda shape=shape: np.zeros((*shape, 3), np.uint8)) for k, shape in enumerate(shapes)]
    found = [*answers.predict_boxes(opened, items, Detect(Many()))]
    assert Counter(row["path"] for row in found) == {f"{k}.png": 300 for k in range(4)}
    assert [row["box"] for row in found[:300]] == list(range(1, 301)) and all(row["status"] == "ok" for row in found)


def test_many_boxes_do_not_fill_the_memory(opened, monkeypatch):
    waited, real = [], answers._ask
    monkeypatch.setattr(answers, "_ask", lambda some, *a: waited.append(sum(len(one.pixels) for one in some)) or real(some, *a))

    class Sixteen(Blocks):
        def find(self, photo, row):
            return boxes_from([[0.1, 0.1, 0.4, 0.4]] * 60, [0.9] * 60, ["animal"] * 60)

    items = [({"path": f"{k}.jpg"}, lambda: scene()) for k in range(40)]
    assert len([*answers.predict_boxes(opened, items, Detect(Sixteen()), batch=16)]) == 40 * 60
    assert max(waited) < answers.WAITING + 61 and sum(waited) == 40 * 61


def test_rows_do_not_depend_on_batches_or_threads(tmp_path):
    rng = np.random.default_rng(0)
    path = network_of_edges(tmp_path / "m.onnx", ["a", "b", "c"], rng.normal(size=(24, 3, 5, 5)) / 500, rng.normal(size=(24, 3)), np.zeros(3))
    photos = [jpeg(*SCENES[k % 5], seed=k) for k in range(23)]
    found = []
    for threads, batch, workers in ((1, 1, 1), (1, 1, 4), (2, 8, 2)):
        items = [({"path": f"{k}.jpg"}, lambda photo=photo: photo) for k, photo in enumerate(photos)]
        model = model_file.open_model(path, threads)
        found.append([*answers.predict_boxes(model, items, Detect(Blocks()), batch, workers)])
    key = lambda row: (row["path"], row.get("box"), row.get("code"), row.get("label"))  # noqa: E731
    for other in found[1:]:
        assert [key(row) for row in other] == [key(row) for row in found[0]]
        assert np.allclose([row.get("score") or 0 for row in other], [row.get("score") or 0 for row in found[0]], atol=1e-5)
    assert len(found[0]) == sum(BOXES[k % 5] for k in range(23))


# --- a job goes on -------------------------------------------------------------------------------------------------------------


def same_after_kills(tmp_path: Path, model: Path, photos: int, times: int) -> None:
    folder, chance = card(tmp_path / "card", photos), random.Random(7)
    (folder / "broken.jpg").write_bytes(jpeg("red")[:300])
    words = [sys.executable, blocks_of_colour.__file__, str(model), str(folder)]
    whole = subprocess.run([*words, str(tmp_path / "whole.csv")], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    for _ in range(times):
        assert kill_at_random([*words, str(tmp_path / "killed.csv")], tmp_path / ".killed.csv.parts", chance), "it came to its end first"
    assert not (tmp_path / "killed.csv").exists()
    last = subprocess.run([*words, str(tmp_path / "killed.csv")], capture_output=True, text=True)
    assert last.returncode == 0 and "were classified already" in last.stdout, last.stderr
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len(rows(tmp_path / "killed.csv")) == photos // 5 * sum(BOXES) + 1


@pytest.mark.slow  # quick without boxes: tests/classify/test_job.py
def test_a_killed_job_ends_as_an_unbroken_one(tmp_path, model):
    same_after_kills(tmp_path, model, 1_000, 1)


@pytest.mark.slow
def test_ten_thousand_photos_and_five_kills(tmp_path, model):
    same_after_kills(tmp_path, model, 10_000, 5)


def same_after_kills_with_self(tmp_path: Path, photos: int, times: int) -> list[tuple[str, str]]:
    "Kill the command outright, `times` times; return the photo and the number of the box of each row."
    model = add_features(toy.write_toy(tmp_path / "toy.onnx", labels=("Aves", "none of these"), ids=(0, -1)))
    folder, chance = tmp_path / "card", random.Random(7)
    for k in range(photos):
        shown = tmp_path / f"{k % 50}.jpg"
        if k < 50:
            shown.write_bytes(encode_jpeg(scene(*SCENES[k % len(SCENES)], width=128, height=96, seed=k)))
        (folder / f"{k % 7}CAM").mkdir(parents=True, exist_ok=True)
        os.link(shown, folder / f"{k % 7}CAM" / f"IMG_{k:05}.JPG")
    (folder / "broken.jpg").write_bytes(jpeg("red")[:300])
    words = [str(BIN / "species-wb"), "classify", str(folder), "--model", str(model), "--detect", "self", "--out"]
    whole = subprocess.run([*words, str(tmp_path / "whole.csv")], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    for _ in range(times):
        out = str(tmp_path / "killed.csv")
        assert kill_at_random([*words, out], tmp_path / ".killed.csv.parts", chance), "it came to its end first"
    assert not (tmp_path / "killed.csv").exists()
    last = subprocess.run([*words, str(tmp_path / "killed.csv")], capture_output=True, text=True)
    assert last.returncode == 0 and "were classified already" in last.stdout, last.stderr
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    found = [(row["path"], row["box"]) for row in rows(tmp_path / "killed.csv")]
    assert len(set(found)) == len(found), "one row a box, and one for a photo without any"
    assert len({path for path, _ in found}) == photos + 1 and len({box for _, box in found}) > 1
    return found


@pytest.mark.slow
def test_ten_thousand_photos_with_boxes_from_the_classifier_itself_and_four_kills(tmp_path):
    same_after_kills_with_self(tmp_path, 10_000, 4)


def test_only_what_is_new_is_looked_at(tmp_path, opened):
    "A photo of several boxes keeps them all, at its place, when another one changes, comes or goes, or the card moves."
    folder, out, asked = card(tmp_path / "card", 700), tmp_path / "a.csv", []
    run(folder, out, opened, asked=asked)
    assert len(asked) == 700
    before = rows(out)
    (folder / "IMG_00300.JPG").write_bytes(jpeg("green", "green", "green", "green", seed=9_000))
    (folder / "IMG_00003.JPG").unlink()
    (folder / "IMG_00400a.JPG").write_bytes(jpeg("red", "-", "red", seed=9_001))
    asked.clear()
    run(folder, out, opened, asked=asked)
    assert sorted(unit.path for unit in asked) == ["IMG_00300.JPG", "IMG_00400a.JPG"]
    after = rows(out)
    changed = {"IMG_00300.JPG", "IMG_00400a.JPG"}
    assert [row for row in after if row["path"] not in changed] == [
        row for row in before if row["path"] not in ("IMG_00300.JPG", "IMG_00003.JPG")]
    assert [row["path"] for row in after] == sorted(row["path"] for row in after)
    assert Counter(row["path"] for row in after)["IMG_00300.JPG"] == 4 and Counter(row["path"] for row in after)["IMG_00400a.JPG"] == 2
    moved = folder.rename(tmp_path / "moved")
    for photo in moved.iterdir():
        os.utime(photo, (1, 1))
    asked.clear()
    done = run(moved, out, opened, asked=asked)
    assert asked == [] and "recognised by content" in done.sentences[1] and rows(out) == after


def test_the_members_of_an_archive_keep_their_boxes(tmp_path, opened):
    folder, out, asked = tmp_path / "card", tmp_path / "a.jsonl", []
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for k, blocks in enumerate(SCENES):
            archive.writestr(f"{k}.jpg", jpeg(*blocks, seed=k))
        archive.writestr("notes.txt", "a text")
    (folder / "b.jpg").write_bytes(jpeg("red", "green"))
    run(folder, out, opened, asked=asked)
    first = [seen(row) for row in rows(out)]
    assert [name for name, _ in groupby(first, lambda row: row[0])] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "notes.txt", "b.jpg"]
    assert Counter(name for name, *_ in first) == {"0.jpg": 2, "1.jpg": 1, "2.jpg": 1, "3.jpg": 1, "4.jpg": 3, "notes.txt": 1, "b.jpg": 2}
    with zipfile.ZipFile(folder / "a.zip", "a") as archive:
        archive.writestr("5.jpg", jpeg("green", "green", seed=77))
    asked.clear()
    run(folder, out, opened, asked=asked)
    assert [unit.member for unit in asked] == ["notes.txt", "5.jpg"] or [unit.member for unit in asked] == ["5.jpg"]
    assert [seen(row) for row in rows(out) if row["member"] != "5.jpg"] == first


def test_a_job_of_an_earlier_version_goes_on_without_boxes_and_is_refused_with_them(tmp_path, opened, model):
    folder, out = card(tmp_path / "card", 12), tmp_path / "a.csv"
    words = ("classify", folder, "--model", model, "--out", out)
    assert typed(*words).returncode == 0
    kept, parts = out.read_bytes(), Path(sources.parts_of(str(out)))
    described = json.loads((parts / sources.JOB).read_text())
    earlier = {name: value for name, value in described.items() if name not in ("detect", "detector", "least", "margin")}
    (parts / sources.JOB).write_text(json.dumps(earlier))
    for shard in parts.glob("*.parquet"):  # the tables of an earlier version lack some columns
        table = read_table(shard)
        write_table(table.drop_columns([name for name in LATER if name not in ("frame_rate", "taken_from")]), shard)
    (folder / "new.jpg").write_bytes(jpeg("red", seed=99))
    assert typed(*words).returncode == 0
    assert rows(out)[:-1] == csv_rows(kept) and len(rows(out)) == 13
    with pytest.raises(UserError, match="another source of boxes"):
        run(folder, out, opened)


def csv_rows(data: bytes) -> list[dict]:
    import csv

    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_other_boxes_are_another_job(tmp_path, opened):
    folder, out = card(tmp_path / "card", 3), tmp_path / "a.csv"
    run(folder, out, opened)

    class Other(Blocks):
        sha256 = "c" * 64

    for detect, why in ((Detect(Other()), "source of boxes"), (Detect(Blocks(), 0.5), "--min-box"), (Detect(Blocks(), margin=0.3), "margin")):
        with pytest.raises(UserError, match=why):
            run(folder, out, opened, detect)

    class Renamed(Blocks):
        name = "the same file under another name"

    run(folder, out, opened, Detect(Renamed()))


def test_a_source_that_gives_up_is_a_sentence_and_the_job_goes_on_later(tmp_path, opened):
    folder, out = card(tmp_path / "card", 9), tmp_path / "a.csv"

    class Sick(Blocks):
        def find(self, photo, row):
            raise UserError("The detector answers with something that is not a number.")

    with pytest.raises(UserError, match="not a number"):
        run(folder, out, opened, Detect(Sick()))
    run(folder, out, opened)
    assert len(rows(out)) == sum(BOXES[k % 5] for k in range(9))


def test_the_frames_of_a_film_have_boxes(tmp_path, opened):
    av = pytest.importorskip("av")
    folder = tmp_path / "card"
    folder.mkdir()
    with av.open(str(folder / "film.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for k in range(20):
            blocks = (("red", "-", "red"), (), ("green",), ("person",))[k // 5]
            film.mux(stream.encode(av.VideoFrame.from_ndarray(scene(*blocks), "rgb24")))
        film.mux(stream.encode())
    (folder / "a.jpg").write_bytes(jpeg("red"))
    asked = []
    done = run(folder, tmp_path / "a.json", opened, asked=asked, copy_to=str(tmp_path / "sorted"))
    (entry,) = [e for e in json.loads((tmp_path / "a.json").read_text())["images"] if e["file"] == "film.mp4"]
    assert [(d["category"], d["frame_number"]) for d in entry["detections"]] == [("1", 0), ("1", 0), ("1", 10), ("2", 15)]
    assert entry["frames_processed"] == [0, 5, 10, 15]
    assert done.summary["photos"] == 5 and done.summary["rows"] == 6 and done.summary["boxes"]["no-animal"] == 1
    assert not list((tmp_path / "sorted").rglob("*.mp4")) and any("a film cannot be blurred" in said for said in done.sentences)
    (folder / "b.jpg").write_bytes(jpeg("green", "green"))
    asked.clear()
    run(folder, tmp_path / "a.json", opened, asked=asked)
    assert [unit.path for unit in asked] == ["b.jpg"]


# --- what is made of the rows --------------------------------------------------------------------------------------------------


def test_megadetectors_file_has_the_boxes(tmp_path, opened):
    folder = card(tmp_path / "card", 5)
    run(folder, tmp_path / "a.json", opened)
    data = json.loads((tmp_path / "a.json").read_text())
    assert data["info"]["detector"] == "the blocks" and data["detection_categories"]["2"] == "person"
    found = {entry["file"]: entry["detections"] for entry in data["images"]}
    assert [len(found[name]) for name in sorted(found)] == [2, 0, 1, 1, 3]
    one, two = found["IMG_00000.JPG"]
    assert (one["category"], one["conf"], one["bbox"]) == ("1", 0.9, [0.0, 0.0, 0.25, 0.25]) and two["bbox"] == [0.5, 0.0, 0.25, 0.25]
    assert one["classifications"][0][0] == "0" and two["classifications"][0][0] == "1"
    (person,) = found["IMG_00003.JPG"]
    assert person["category"] == "2" and "classifications" not in person and person["conf"] == pytest.approx(0.86)


def test_counts_are_photos_and_events_count_the_most_animals_at_once(tmp_path, opened):
    def row(path, box, label, second=None, **more):
        taken = None if second is None else f"2026-05-04T12:00:{second:02}"
        edges = {} if box is None else {"x0": 0.1, "y0": 0.1, "x1": 0.2, "y1": 0.2}
        return {"path": path, "status": "ok", "box": box, "label": label, "score": 0.9, "taken_at": taken, "site": "pond", **edges, **more}

    found = [row("1.jpg", 1, "red", 0), row("1.jpg", 2, "green", 0), row("1.jpg", 3, "red", 0), row("2.jpg", None, None, 5, code="no-animal", abstained=True),
             row("3.jpg", 1, "red", 9), row("4.jpg", 1, None, 12, code="person", abstained=True)]  # fmt: skip
    assert {o["label"]: o["count"] for o in events(found)} == {"red": 2, "green": 1}
    untimed = [{**r, "taken_at": None} for r in found]
    assert [(o["photo"], o["label"], o["count"]) for o in events(untimed)] == [("1.jpg", "green", 1), ("1.jpg", "red", 2), ("3.jpg", "red", 1)]
    assert len({o["event_id"] for o in events(untimed)}) == 3
    assert [o["count"] for o in events([row("5.jpg", None, "red", 0), row("6.jpg", None, "red", 3)])] == [1]
    told = summary([predictions_table(found, tmp_path, ["red", "green"])], opened.info)
    assert (told["rows"], told["photos"], told["answered"]) == (6, 4, 2)


def test_copies_go_to_the_surest_label_and_empties_to_their_own_folder(tmp_path, opened):
    folder = card(tmp_path / "card", 5)
    done = run(folder, tmp_path / "a.jsonl", opened, copy_to=str(tmp_path / "sorted"), empty_to=str(tmp_path / "empty"), people="drop")
    there = lambda place: sorted(p.relative_to(tmp_path / place).as_posix() for p in (tmp_path / place).rglob("*.JPG"))  # noqa: E731
    found = rows(tmp_path / "a.jsonl")
    surest = max(found[:2], key=lambda row: row["score"])["label"]
    assert there("sorted") == sorted([f"{surest}/IMG_00000.JPG", "red/IMG_00002.JPG", "red/IMG_00004.JPG"])
    assert there("empty") == ["IMG_00001.JPG"] and len(list(folder.iterdir())) == 5
    assert "1 photo without an animal copied into" in "\n".join(done.sentences) and "1 file with people in it not copied." in done.sentences
    assert [row["copied_to"] for row in found if row["path"] == "IMG_00001.JPG"] == ["empty/IMG_00001.JPG"]
    assert len({row["copied_to"] for row in found if row["path"] == "IMG_00004.JPG"}) == 1
    with pytest.raises(UserError, match="would classify the copies"):
        run(folder, tmp_path / "a.jsonl", opened, empty_to=str(folder / "empty"))


def test_people_in_copies_are_blurred_unless_they_are_asked_for(tmp_path, opened):
    folder, lines = tmp_path / "card", scene("-", "-", "-", "-", "-", "person")
    lines[60:120:6, 80:160] = 0  # a pattern that makes someone known
    folder.mkdir()
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe"
    exif.get_ifd(0x8769)[0x9003] = "2026:05:04 13:07:55"
    Image.fromarray(lines).save(folder / "a.jpg", quality=95, exif=exif)
    original = (folder / "a.jpg").read_bytes()
    for way in ("blur", "blur", "keep"):
        done = run(folder, tmp_path / "a.csv", opened, copy_to=str(tmp_path / way), people=way)
        (copy,) = (tmp_path / way).rglob("*.jpg")
        assert copy.parent.name == "person" and (folder / "a.jpg").read_bytes() == original
        assert (copy.read_bytes() == original) == (way == "keep")
        assert ("People are blurred in 1 copy." in done.sentences) == (way == "blur")
    before, after = (np.array(Image.open(io.BytesIO(data))).astype(float) for data in (original, next((tmp_path / "blur").rglob("*.jpg")).read_bytes()))
    rough = lambda photo: np.abs(np.diff(photo[62:118, 85:155], axis=0)).mean()  # noqa: E731
    assert rough(after) < 0.1 * rough(before) and np.abs(after[140:] - before[140:]).mean() < 5
    copy = Image.open(next((tmp_path / "blur").rglob("*.jpg")))
    assert copy.getexif().get_ifd(0x8769)[0x9003] == "2026:05:04 13:07:55" and "Jane" not in str(dict(copy.getexif()))
    assert len(list((tmp_path / "blur").rglob("*.jpg"))) == 1  # a second run made no second copy


# --- the command line ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def detector(tmp_path, monkeypatch) -> Path:
    "The name of a file that is opened as a detector."
    monkeypatch.setitem(choose.OF_FILES, ".onnx", lambda path, model: Blocks())
    (tmp_path / "blocks.onnx").write_bytes(b"a detector")
    return tmp_path / "blocks.onnx"


def test_a_folder_is_classified_with_a_detector(tmp_path, model, detector):
    folder = card(tmp_path / "card", 5)
    words = ("classify", folder, "--model", model, "--out", tmp_path / "a.csv")
    done = typed(*words, "--detect", detector)
    assert done.returncode == 0, done.stderr
    assert "Animals are found by the blocks." in done.stdout and "6 animals found in 3 photos; 1 photo without any animal" in done.stdout
    found = rows(tmp_path / "a.csv")
    assert len(found) == 8 and found[2]["code"] == "no-animal" and found[0]["box_score"] and found[0]["label_whole"]
    assert "another setting of --min-box" in one_sentence(typed(*words, "--detect", detector, "--min-box", "0.5"))
    assert "another source of boxes" in one_sentence(typed(*words))
    done = typed(*words, "--detect", detector, "--min-box", "0.89", "--fresh")
    assert done.returncode == 0 and len(rows(tmp_path / "a.csv")) == 6


def test_a_file_with_boxes_is_taken_and_what_it_does_not_name_is_named_as_a_whole(tmp_path, model):
    folder = card(tmp_path / "card", 3)
    boxes = [{"file": "IMG_00000.JPG", "detections": [{"category": "1", "conf": 0.8, "bbox": [0.5, 0.0, 0.25, 0.25]}]}, {"file": "IMG_00001.JPG", "detections": []}]
    (tmp_path / "md.json").write_text(json.dumps({"info": {"format_version": "1.5"}, "detection_categories": {"1": "animal"}, "images": boxes}))
    words = ("classify", folder, "--model", model, "--out", tmp_path / "a.jsonl")
    done = typed(*words, "--detect", tmp_path / "md.json")
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "a.jsonl")
    assert [seen(row)[1:] for row in found] == [(1, None, "green"), (None, "no-animal", None), (None, "boxes-not-known", found[2]["label_whole"])]
    assert found[2]["label"] and found[2]["reason"].startswith("IMG_00002.JPG is not in md.json") and found[2]["status"] == "ok"
    assert "boxes not known of 1 photo, named as a whole" in done.stdout and "1 not named there" in done.stdout and "damaged" not in done.stdout
    (folder / "IMG_00000.JPG").unlink()
    (folder / "IMG_00001.JPG").unlink()
    assert "names other photos" in one_sentence(typed(*words, "--detect", tmp_path / "md.json", "--fresh"))


def test_without_detect_no_column_is_there(tmp_path, model):
    folder = card(tmp_path / "card", 3)
    assert typed("classify", folder, "--model", model, "--out", tmp_path / "a.csv").returncode == 0
    assert not {"box", "box_score", "code", "label_whole", "score_whole", "x0"} & set(rows(tmp_path / "a.csv")[0])
    typed("classify", folder, "--model", model, "--out", tmp_path / "b.csv", "--detect", "none")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_one_photo_is_answered_box_by_box(tmp_path, model, detector):
    for name, blocks in (("two", ("red", "-", "green", "person")), ("none", ())):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(*blocks))
    said = typed("classify", tmp_path / "two.jpg", "--model", model, "--detect", detector, "--top", 1).stdout.splitlines()
    assert said[1] == "Box 1, animal (90 % sure): 0 % to 25 % of the width, 0 % to 25 % of the height." and said[2].startswith("red ")
    assert said[3].startswith("Box 2, animal (88 % sure)") and said[4].startswith("green ") and said[5].startswith("Box 3, person")
    said = typed("classify", tmp_path / "none.jpg", "--model", model, "--detect", detector).stdout
    assert "No animal was found by the blocks. The whole photo would be:" in said


def test_wrong_words_about_boxes_are_one_sentence(tmp_path, model, detector, monkeypatch):
    folder = card(tmp_path / "card", 2)
    words = ("classify", folder, "--model", model, "--out", tmp_path / "a.csv")
    for more, why in ((("--detect", "sefl"), "did you mean self?"), (("--detect", tmp_path / "gone.onnx"), "There is no file"),
                      (("--min-box", "0.5"), "add --detect"), (("--people", "drop"), "add --detect"), (("--empty-to", tmp_path / "e"), "add --detect"),
                      (("--detect", detector, "--people", "hide"), "There is no --people hide")):  # fmt: skip
        assert why in one_sentence(typed(*words, *more)), more
    monkeypatch.setattr(Blocks, "sees_people", False)
    for more, told in ((("--people", "drop"), True), (("--copy-to", tmp_path / "sorted"), True), ((), False)):
        said = typed(*words, "--detect", detector, *more).stdout
        assert ("The blocks cannot find people" in said) == told, more
    said = typed(*words, "--detect", "auto", "--fresh").stdout
    assert "this model was not tested with boxes" in said and "box" not in rows(tmp_path / "a.csv")[0]


# --- a cluster -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cluster_gives_the_same_rows(tmp_path, model, opened, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the workers import the source from there
    from species_wb.classify.ray import on_ray

    folder, found, detect = card(tmp_path / "card", 600), [], Detect(Blocks())
    for name, engine in (("here", job.here(opened, detect=detect)), ("ray", on_ray([model], detect=detect))):
        todo = job_of(folder, tmp_path / f"{name}.jsonl", opened)
        job.run_job(todo, opened, engine)
        found.append(rows(todo.out))
    assert len(found[0]) == 600 // 5 * sum(BOXES) and found[1] == found[0]
