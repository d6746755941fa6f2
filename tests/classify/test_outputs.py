"""What outputs and sorting promise: whole files that others read, names that do no harm, copies that overwrite nothing, a submission with every line."""

import csv
import errno
import hashlib
import itertools
import json
import os
import posixpath
import re
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import examples
from hypothesis import example, given
from hypothesis import strategies as st

from species_wb.contracts import ModelInfo, ModelSpec, read_table
from species_wb.core import UserError
from species_wb.fields import path_text
from species_wb.photos.films import FILMS
from species_wb.metrics.calibration import softmax
from species_wb.csv_form import csv_names
from species_wb.predictions import CORE, FORMATS, PREDICTIONS, predictions_table, write_predictions
from species_wb.classify.answers import only_sure, summary, summary_sentences
from species_wb.classify.outputs import write_rows
from species_wb.classify.submission import submission
from species_wb.engine.predict import answer_rows
from species_wb.classify.copies import Copies, copy_sentences
from species_wb.classify import copies
from species_wb.classify.folders import check_folder, folder_names, safe_name

SPEC = ModelSpec("tiny", 16, (0.5,) * 3, (0.5,) * 3)
INFO = ModelInfo(["Aves", "Fungi", "Mammalia", "none of these"], [3, 4, 6, -1], SPEC, temperature=1.7)


def answered(path: str, logits: list[float], **more) -> dict:
    "A row as the engine makes it."
    row = answer_rows(INFO, softmax([logits], INFO.temperature), 5)[0]
    return {"path": path, "status": "ok", **row, "logits": logits, "model": "0" * 16, **more}


def sure(path: str, label: str = "Aves", **more) -> dict:
    return answered(path, [9.0 if name == label else 0.0 for name in INFO.labels], **more)


def failed(path: str, status: str = "cut-short", **more) -> dict:
    return {"path": path, "status": status, "reason": f"{path} is {status}: copy it again.", **more}


def sort_into(tables, folder: Path, root: Path, searched=None) -> Copies:
    "Copy as a job does, and keep no table."
    check_folder(folder, [root] if searched is None else searched)
    done = Copies(folder)
    for _ in copies.sort_into(tables, copies.Wanted(done), root):
        pass
    if done.stopped:
        raise done.stopped
    return done


def shards(rows: list[dict], root: Path, size: int = 3):
    return (predictions_table(rows[k : k + size], root, INFO.labels) for k in range(0, len(rows), size))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


VIDEOS = (".mp4", ".avi", ".mpeg", ".mpg", ".mov", ".mkv", ".flv")  # what MegaDetector takes for films


def read_megadetector(path: Path) -> dict[str, dict]:
    "Read MegaDetector's batch output as its description has it, and nothing else: file → entry."
    refuse = lambda constant: pytest.fail(f"{constant} is no JSON")  # noqa: E731
    data = json.loads(path.read_bytes().decode("utf-8"), parse_constant=refuse)
    assert set(data) == {"info", "detection_categories", "classification_categories", "images"}
    assert isinstance(data["info"]["format_version"], str) and float(data["info"]["format_version"]) >= 1.5
    assert all(isinstance(v, str) for v in data["info"].values())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", data["info"]["classification_completion_time"])
    for kind in ("detection_categories", "classification_categories"):
        assert all(re.fullmatch(r"0|[1-9]\d*", k) and isinstance(v, str) and v.strip() for k, v in data[kind].items())
    entries: dict[str, dict] = {}
    for entry in data["images"]:
        assert isinstance(entry["file"], str) and entry["file"] not in entries
        entries[entry["file"]] = entry
        if "failure" in entry:
            assert isinstance(entry["failure"], str) and entry["failure"] and entry["detections"] is None
        else:
            assert isinstance(entry["detections"], list)
        film = "frame_rate" in entry
        assert film or not entry["file"].lower().endswith(VIDEOS)
        assert film == ("frames_processed" in entry)
        if film:
            assert entry["frame_rate"] > 0 and all(type(n) is int and n >= 0 for n in entry["frames_processed"])
        for detection in entry["detections"] or []:
            assert set(detection) <= {"category", "conf", "bbox", "classifications", "frame_number"}
            assert detection["category"] in data["detection_categories"]
            assert type(detection["conf"]) is float and 0 <= detection["conf"] <= 1
            x, y, width, height = detection["bbox"]
            assert all(type(v) is float for v in detection["bbox"]) and 0 <= x <= x + width <= 1.00001 and 0 <= y <= y + height <= 1.00001
            scores = [score for name, score in detection["classifications"] if name in data["classification_categories"]]
            assert len(scores) == len(detection["classifications"]) and scores == sorted(scores, reverse=True) and 0 <= scores[-1] <= scores[0] <= 1
            assert film == ("frame_number" in detection)
            if film:
                assert type(detection["frame_number"]) is int and detection["frame_number"] in entry["frames_processed"]
    return entries


stems = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30)
names = st.builds("{}{}".format, stems, st.sampled_from(["", ".jpg", *FILMS, ".AVI"])).filter(lambda n: n not in (".", ".."))
ODD = ["=1+1.jpg", "+a.jpg", "-2.jpg", "@x.jpg", "a,b.jpg", 'a"b.jpg', "a\nb.jpg", "a\r\nb.jpg", "\ttab.jpg", " space .jpg", "é.jpg", "e\u0301.jpg", "鳥.jpg", "\u2028.jpg", "＝x.jpg", "a\\b.jpg", "#.jpg", "|.jpg", path_text(b"\xff.jpg"), "owl.avi", "owl.MPEG", "owl.webm", ".mkv"]


@examples(40)
@given(st.lists(names, min_size=1, max_size=8, unique=True))
def test_every_file_name_comes_back_from_every_format(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("names")
    found = list(dict.fromkeys(found + ODD))
    rows = [sure(name) if k % 3 else failed(name) for k, name in enumerate(found)]
    for kind in FORMATS:
        write_rows(shards(rows, folder), folder / f"out{kind}", INFO, folder)
    assert [os.path.normpath(row["path"]) for row in read_csv(folder / "out.csv")] == [os.path.normpath(path) for path in found]
    assert [json.loads(line)["path"] for line in (folder / "out.jsonl").read_bytes().decode().split("\n")[:-1]] == found
    assert read_table(folder / "out.parquet")["path"].to_pylist() == found
    entries = read_megadetector(folder / "out.json")
    assert list(entries) == found
    assert {path for path in found if "frame_rate" in entries[path]} == {path for path in found if path.lower().endswith(FILMS)}  # as readers will take them
    assert all(d["frame_number"] == 0 for entry in entries.values() if "frame_rate" in entry for d in entry["detections"] or [])


def test_a_csv_is_short_and_loses_no_value(tmp_path):
    "The CSV that a person gets has the main columns and those with a value in any row, be it the last of many shards."
    rows = [sure(f"{k}.jpg", sha256=f"{k:064}") for k in range(300)]
    rows.append(failed("b, c.jpg", lat=-33.5, taken_at="2024-05-01T10:00:00"))
    for name, every in (("short.csv", False), ("all.csv", True)):
        write_rows(shards(rows, tmp_path), tmp_path / name, INFO, tmp_path, every_column=every)
    short, full = read_csv(tmp_path / "short.csv"), read_csv(tmp_path / "all.csv")
    assert list(full[0]) == csv_names(PREDICTIONS.names)
    filled = {name for name in full[0] if any(row[name] for row in full)}
    assert set(short[0]) == {*filled, *CORE} and {"lat", "taken_at"} <= filled and len(short[0]) < 16 and "site" not in filled
    assert short == [{name: row[name] for name in short[0]} for row in full]
    assert list(short[0])[-2:] == ["sha256", "model"]  # long codes stand behind what a person reads
    write_rows(shards(rows, tmp_path), tmp_path / "out.parquet", INFO, tmp_path)
    assert read_table(tmp_path / "out.parquet").schema.names == [*PREDICTIONS.names, "logits"]
    assert not list(tmp_path.glob(".*")), "a half-written file was left"


def test_an_empty_csv_has_its_main_columns(tmp_path):
    write_rows([], tmp_path / "out.csv", INFO, tmp_path)
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        assert next(csv.reader(file)) == list(CORE)


def test_the_csv_of_a_run_is_short_too(tmp_path):
    table = predictions_table([sure("a.jpg", truth="Aves", phash=None)], tmp_path, INFO.labels)
    write_predictions(table, tmp_path / "predictions.csv")
    (row,) = read_csv(tmp_path / "predictions.csv")
    assert row["truth"] == "Aves" and row["score"] and not {"phash", "x0", "member", "time_zone"} & set(row)


def test_no_cell_of_the_csv_is_a_formula(tmp_path):
    wicked = "=HYPERLINK(A1)"
    rows = [sure(name, site="+site", member=name, reason=f"{name} has something to say.", notes=wicked, lat=-33.5, lon=-0.25) for name in [wicked, "-x", "@x", "\tx", "\rx", "＝x"]]
    info = ModelInfo(["=Aves", "-Fungi", "@M", "none"], INFO.label_ids, SPEC, temperature=INFO.temperature)
    rows = [{**row, "label": "=Aves", "label_raw": "=Aves"} for row in rows]
    write_rows([predictions_table(rows, tmp_path, info.labels)], tmp_path / "out.csv", info, tmp_path)
    for row in read_csv(tmp_path / "out.csv"):
        numbers = {row.pop("lat"), row.pop("lon")}
        assert numbers == {"-33.5", "-0.25"}
        assert [value for value in row.values() if value.startswith(tuple("=+-@＝\t\r"))] == []
        assert row["path"] == row["member"] and row["path"].startswith("./") and row["top"].startswith("'=Aves:") and row["notes"] == f"'{wicked}"
    write_rows([predictions_table(rows, tmp_path, info.labels)], tmp_path / "out.jsonl", info, tmp_path)
    assert json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[0])["path"] == wicked


def test_timelapse_reads_photos_archives_films_and_failures(tmp_path):
    rows = [
        sure("a.jpg"), failed("b.jpg"), answered("c.jpg", [0.0, 1.0, 0.0, 9.0]), answered("d.jpg", [1.0, 1.2, 0.9, 0.0]),
        sure("card.zip", member="DCIM/1.jpg"), sure("card.zip", "Fungi", member="DCIM/2.jpg"), failed("card.zip", member="x/../3.jpg"),
        *(sure("f.mp4", seconds=s) for s in (0.0, 0.5, 1.0)), failed("f.mp4", seconds=1.5),
        failed("g.MP4", "unreadable"), answered("h.mov", [0.0, 0.0, 0.0, 9.0], seconds=2.0),
        sure("box.jpg", x0=0.1, y0=0.2, x1=0.4, y1=0.9), sure("box.jpg", "Fungi", x0=0.5, y0=0.5, x1=1.0, y1=1.0),
    ]  # fmt: skip
    write_rows(shards(rows, tmp_path, 2), tmp_path / "out.json", INFO, tmp_path, min_score=0.6, frame_rate=2.0)
    found = read_megadetector(tmp_path / "out.json")
    assert list(found) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "card.zip/DCIM/1.jpg", "card.zip/DCIM/2.jpg", "card.zip/x/../3.jpg", "f.mp4", "g.MP4", "h.mov", "box.jpg"]
    assert found["a.jpg"]["detections"][0]["classifications"][0][0] == "3" and len(found["a.jpg"]["detections"][0]["classifications"]) == 3
    assert found["b.jpg"]["failure"] == "b.jpg is cut-short: copy it again."
    assert found["c.jpg"]["detections"] == found["d.jpg"]["detections"] == found["h.mov"]["detections"] == []
    film = found["f.mp4"]
    assert film["frame_rate"] == 2.0 and film["frames_processed"] == [d["frame_number"] for d in film["detections"]] == [0, 1, 2] and film["incomplete"].startswith("f.mp4 is cut-short")
    assert found["g.MP4"]["failure"] and found["h.mov"]["frames_processed"] == [4]
    assert [d["bbox"] for d in found["box.jpg"]["detections"]] == [[0.1, 0.2, 0.3, 0.7], [0.5, 0.5, 0.5, 0.5]]


def test_frame_numbers_are_the_film_s_own(tmp_path):
    "Timelapse jumps to the frame that a number names: of 25 frames a second, the one at 2 s is frame 50."
    rows = [sure("ntsc.mp4", seconds=s, frame_rate=30000 / 1001) for s in (0.0, 1.001, 2.002)]
    rows += [sure("slow.avi", seconds=s, frame_rate=5.0) for s in (0.0, 0.5)]  # taken more often than the film has frames
    rows += [sure("old.mov", seconds=s) for s in (0.0, 0.5, 1.0)]  # a shard of an earlier version: the rate is not known
    rows += [failed("dark.mkv", frame_rate=None)]
    write_rows(shards(rows, tmp_path, 2), tmp_path / "out.json", INFO, tmp_path, frame_rate=2.0)
    found = read_megadetector(tmp_path / "out.json")
    assert [found[name]["frames_processed"] for name in found] == [[0, 30, 60], [0, 2], [0, 1, 2], []]
    assert [round(found[name]["frame_rate"], 3) for name in found] == [29.97, 5.0, 2.0, 2.0]
    assert [d["frame_number"] for d in found["ntsc.mp4"]["detections"]] == [0, 30, 60]


def test_only_animals_are_counted_as_animals(tmp_path):
    labels = ["Aves", "Fungi", "Plantae", "Vulpes_vulpes", "agaric", "oak trees", "Human", "vehicle", "Empty", "other"]
    info = ModelInfo(labels, [*range(9), -1], SPEC, temperature=1.0)
    rows = [{**sure(f"{k}.jpg"), "label": label, "logits": np.eye(10)[k] * 9} for k, label in enumerate(labels)]
    write_rows([predictions_table(rows, tmp_path, labels)], tmp_path / "out.json", info, tmp_path)
    kinds = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["detection_categories"]
    found = [entry["detections"] for entry in read_megadetector(tmp_path / "out.json").values()]
    assert [kinds[boxes[0]["category"]] if boxes else None for boxes in found] == [
        "animal", "fungus", "plant", "animal", "fungus", "plant", "person", "vehicle", None, "none of these"]
    assert [kinds[k] for k in ("1", "2", "3")] == ["animal", "person", "vehicle"]  # the ids that MegaDetector gives them


def test_no_photos_make_an_empty_but_whole_file(tmp_path):
    for kind in FORMATS:
        write_rows([], tmp_path / f"out{kind}", INFO, tmp_path)
    assert read_csv(tmp_path / "out.csv") == [] and read_megadetector(tmp_path / "out.json") == {}
    assert (tmp_path / "out.jsonl").read_bytes() == b"" and "logits" in read_table(tmp_path / "out.parquet").schema.names


def test_top_is_made_from_the_logits_and_never_holds_none_of_these(tmp_path):
    logits = np.random.default_rng(0).normal(0, 4, (50, 4)).astype(np.float32)
    rows = [{**answered(f"{k}.jpg", [float(v) for v in z]), "top": None} if k % 7 else failed(f"{k}.jpg") for k, z in enumerate(logits)]
    chances = np.exp(logits / INFO.temperature) / np.exp(logits / INFO.temperature).sum(1, keepdims=True)
    for top in (0, 1, 2, 99):
        write_rows(shards(rows, tmp_path), tmp_path / "out.parquet", INFO, tmp_path, top=top)
        for k, (row, p) in enumerate(zip(read_table(tmp_path / "out.parquet").to_pylist(), chances, strict=True)):
            if k % 7 == 0:
                assert row["top"] is None
                continue
            best = sorted(range(3), key=lambda c: -p[c])[:top]
            assert [t["label"] for t in row["top"]] == [INFO.labels[c] for c in best]
            np.testing.assert_allclose([t["score"] for t in row["top"]], p[best], atol=2e-6)
            assert not top or row["top"][0]["score"] == row["score_raw"]


def test_answers_of_another_model_are_refused(tmp_path):
    table = predictions_table([sure("a.jpg")], tmp_path, ["Aves", "Fungi", "Mammalia", "another"])
    with pytest.raises(UserError, match="other labels"):
        write_rows([table], tmp_path / "out.csv", INFO, tmp_path)


def test_min_score_leaves_open_and_keeps_what_it_would_have_been(tmp_path):
    rows = [sure("a.jpg"), answered("b.jpg", [1.0, 1.2, 0.9, 0.0]), answered("c.jpg", [0.0, 1.0, 0.0, 9.0]), failed("d.jpg")]
    write_rows(shards(rows, tmp_path), tmp_path / "out.parquet", INFO, tmp_path, min_score=0.6)
    found = {row["path"]: row for row in read_table(tmp_path / "out.parquet").to_pylist()}
    assert found["a.jpg"]["label"] == "Aves" and found["a.jpg"]["rule"] is None and found["a.jpg"]["abstained"] is False
    low = found["b.jpg"]
    assert (low["label"], low["score"], low["abstained"], low["rule"], low["label_raw"]) == (None, None, True, "min-score 0.6", "Fungi") and low["score_raw"] == rows[1]["score"]
    assert found["c.jpg"]["abstained"] and found["c.jpg"]["rule"] is None and found["d.jpg"]["abstained"] is None
    exactly = predictions_table([{**sure("a.jpg"), "score": 0.6}], tmp_path, INFO.labels)
    assert only_sure(exactly, 0.6)["label"].to_pylist() == ["Aves"]
    for wrong in (-0.1, 60.0, float("nan")):
        with pytest.raises(UserError, match="0 to 1"):
            only_sure(exactly, wrong)


def test_parquet_knows_its_root_and_labels_and_keeps_embeddings_that_come_late(tmp_path):
    rows = [failed("a.jpg"), failed("b.jpg"), sure("c.jpg", embedding=[1.0, 2.0], truth=None), sure("d.jpg", embedding=[3.0, 4.0], truth="Aves"), failed("e.jpg")]
    write_rows(shards(rows, tmp_path, 1), tmp_path / "out.parquet", INFO, tmp_path)
    table = read_table(tmp_path / "out.parquet")
    assert table.schema.metadata[b"root"].decode() == str(tmp_path.resolve()) and json.loads(table.schema.metadata[b"labels"]) == INFO.labels
    assert table["path"].to_pylist() == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"] and table["truth"].to_pylist() == [None, None, None, "Aves", None]
    assert table["embedding"].to_pylist() == [None, None, [1.0, 2.0], [3.0, 4.0], None] and table["logits"].type == pa.list_(pa.float32())
    write_rows(shards(rows, tmp_path, 1), tmp_path / "out.csv", INFO, tmp_path)
    assert not {"logits", "embedding"} & set(read_csv(tmp_path / "out.csv")[0])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_is_whole_or_not_there(tmp_path, kind, monkeypatch):
    def broken():
        yield from shards([sure("a.jpg")], tmp_path)
        raise KeyboardInterrupt

    path = tmp_path / f"out{kind}"
    path.write_text("of yesterday")
    with pytest.raises(KeyboardInterrupt):
        write_rows(broken(), path, INFO, tmp_path)
    assert path.read_text() == "of yesterday" and os.listdir(tmp_path) == [path.name]
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("species_wb.core.os.replace", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(UserError, match="disk is full.*same command again"):
        write_rows(shards([sure("a.jpg")], tmp_path), path, INFO, tmp_path)
    assert path.read_text() == "of yesterday" and os.listdir(tmp_path) == [path.name]


def test_a_place_that_cannot_be_written_is_a_sentence_before_any_photo_is_read(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.csv").mkdir()

    def never():
        pytest.fail("a shard was asked for")
        yield

    for path, why in (("a.xlsx", "Timelapse"), ("nothing", "Timelapse"), ("folder.csv", "is a folder")):
        with pytest.raises(UserError, match=why):
            write_rows(never(), tmp_path / path, INFO, tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        write_rows([], tmp_path / "file" / "out.csv", INFO, tmp_path)
    with pytest.raises(UserError, match="above 0"):
        write_rows(never(), tmp_path / "out.json", INFO, tmp_path, frame_rate=0.0)


MEASURED = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
sys.path[:0] = sys.argv[3:]
from test_outputs import INFO, sure, failed, predictions_table
from species_wb.classify.answers import summary
from species_wb.classify.outputs import write_rows
path, count = Path(sys.argv[1]), int(sys.argv[2])
rows = [sure(f"{k}.jpg") if k % 9 else failed(f"{k}.jpg") for k in range(500)]
one = predictions_table(rows, path.parent, INFO.labels)
tables = lambda: (one.set_column(0, "path", pa.array([f"{n}/{k}.jpg" for k in range(500)])) for n in range(count // 500))
write_rows(tables(), path, INFO, path.parent, min_score=0.5)
assert summary(tables(), INFO)["rows"] == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_memory_is_the_same_for_a_hundred_times_as_many_rows(tmp_path, kind):
    def peak(count: int) -> float:
        command = [sys.executable, "-c", MEASURED, str(tmp_path / f"{count}{kind}"), str(count), *map(str, Path(__file__).parents[:2])]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return float(done.stdout)

    few, many = peak(1_000), peak(100_000)
    assert many < 1.1 * few, (few, many)


def test_the_summary_counts_every_row_once():
    rows = [*(sure(f"{k}.jpg") for k in range(5)), *(sure(f"f{k}.jpg", "Fungi") for k in range(2)), answered("n.jpg", [0.0, 1.0, 0.0, 9.0]), *(failed(f"{k}.bad") for k in range(6)), failed("e.jpg", "empty"), sure("f.mp4", seconds=1.0)]
    found = summary(shards(rows, Path("/"), 4), INFO)
    assert [(c["label"], c["count"]) for c in found["labels"]] == [("Aves", 6), ("Fungi", 2)] and found["labels"][0]["score"] == pytest.approx(rows[0]["score"])
    assert found["rows"] == len(rows) == found["answered"] + found["abstained"]["count"] + sum(p["count"] for p in found["problems"])
    assert [(p["status"], p["count"], len(p["examples"])) for p in found["problems"]] == [("cut-short", 6, 3), ("empty", 1, 1)] and found["frames"] == 1
    said = summary_sentences(found)
    assert said[0] == "16 photos and frames: 8 answered, 1 not sure, 7 with no answer." and "And 3 more." in said[1] and said[2] == "empty, 1: e.jpg is empty: copy it again."
    assert summary([], INFO)["abstained"] == {"count": 0, "score": None}


labels = st.text(min_size=0, max_size=60) | st.sampled_from(["..", "../..", "CON", "con.birds", "NUL", "LPT1 ", "COM¹", "aves.", "aves ", "~", "-rf", "a/b", "a\\b", "C:", "\u202egpj", "x" * 999, "鳥" * 999, "a" * 148 + "é.jpg", "." * 300])


@examples(300)
@given(st.lists(labels, max_size=12, unique=True))
@example(["Aves", "aves", "Not Sure", "no answer", "a/b", "a:b"])
def test_any_label_is_one_harmless_folder_of_its_own(found):
    named = folder_names(found)
    assert len({unicodedata.normalize("NFC", n).casefold() for n in named.values()} | {"not sure", "no answer"}) == len(found) + 2
    for name in [*named.values(), *map(safe_name, found)]:
        assert name == posixpath.basename(name) and name not in ("", ".", "..") and not set('<>:"/\\|?*\0\n\u202e') & set(name)
        assert name[0] not in ".-~ " and name[-1] not in ". " and len(name.encode()) <= 160
        assert not re.fullmatch(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", name)
    for plain in ("Aves", "Käfer", "鳥", "Homo sapiens", "Falco sp. 2"):
        assert safe_name(plain) == plain


@pytest.fixture
def card(tmp_path) -> Path:
    "A card with photos of one name in two folders, a broken one and an archive."
    root = tmp_path / "card"
    for name, content in {"a/1.jpg": b"one", "b/1.jpg": b"two", "b/2.jpg": b"three", "é 鳥.jpg": b"four", "broken.jpg": b"br", "empty.jpg": b""}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        os.utime(root / name, (1_700_000_000, 1_700_000_000))
    with zipfile.ZipFile(root / "card.zip", "w") as archive:
        for name, content in {"../../escape.jpg": b"five", "x\\y\\1.jpg": b"six", "DCIM/2.jpg": b"three"}.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 5, 6, 7, 8, 10)), content)
    return root


def rows_of(card: Path) -> list[dict]:
    sha = lambda path: hashlib.sha256((card / path).read_bytes()).hexdigest()  # noqa: E731
    return [
        *(sure(name, sha256=sha(name)) for name in ("a/1.jpg", "b/1.jpg", "b/2.jpg")), answered("é 鳥.jpg", [0.0, 1.0, 0.0, 9.0]),
        failed("broken.jpg"), failed("empty.jpg", "empty"), failed("gone.jpg", "missing"),
        sure("card.zip", member="../../escape.jpg"), sure("card.zip", member="x\\y\\1.jpg"), sure("card.zip", member="DCIM/2.jpg"), failed("card.zip", member="lost.jpg"),
        sure("f.mp4", seconds=0.0), sure("f.mp4", seconds=1.0), failed("g.mp4", "unreadable"),
    ]  # fmt: skip


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_photo_lands_in_the_folder_of_its_label_and_a_second_run_copies_nothing(card, tmp_path, monkeypatch):
    before, folder = tree(card), tmp_path / "sorted"
    done = sort_into(shards(rows_of(card), card), folder, card)
    expected = {
        "Aves/a/1.jpg": b"one", "Aves/b/1.jpg": b"two", "Aves/b/2.jpg": b"three", "Aves/card.zip/x/y/1.jpg": b"six",
        "Aves/card.zip/DCIM/2.jpg": b"three", "Aves/card.zip/escape.jpg": b"five", "not sure/é 鳥.jpg": b"four",
        "no answer/broken.jpg": b"br",
    }  # fmt: skip
    assert tree(folder) == expected and tree(card) == before
    assert (done.copied, done.present, done.left_count) == (8, 0, 6)  # the films are not there
    assert done.folders == {"Aves": 6, "not sure": 1, "no answer": 1}
    escaped = folder / "Aves" / "card.zip" / "escape.jpg"
    assert {(folder / "Aves" / camera / "1.jpg").stat().st_mtime for camera in "ab"} == {1_700_000_000.0}
    assert escaped.stat().st_mtime == pytest.approx(1714979290, abs=15 * 3600)
    said = " ".join(copy_sentences(done))
    assert "8 files copied" in said and "6 files could not be copied: empty.jpg has no bytes" in said
    monkeypatch.setattr(Path, "write_bytes", lambda *_: pytest.fail("something was written again"))
    again = sort_into(shards(rows_of(card)[::-1], card), folder, card)
    assert (again.copied, again.present) == (0, 8) and tree(folder) == expected and not tree(tmp_path).keys() & {"escape.jpg"}


def test_nothing_that_lies_there_is_written_over(card, tmp_path):
    folder, rows = tmp_path / "sorted", rows_of(card)[:1]
    place = folder / "Aves" / "a"
    place.mkdir(parents=True)
    (place / "1.jpg").symlink_to(tmp_path / "elsewhere.jpg")  # leads nowhere: writing through it would make that file
    sort_into(shards(rows, card), folder, card)
    assert (place / "1.jpg").is_symlink() and not (tmp_path / "elsewhere.jpg").exists()
    assert (place / f"1-{rows[0]['sha256'][:8]}.jpg").read_bytes() == b"one"
    for end in (rows[0]["sha256"][:8], rows[0]["sha256"]):
        (place / f"1-{end}.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="another file"):
        sort_into(shards(rows, card), folder, card)
    assert set(tree(folder).values()) == {b"mine"}


def test_a_photo_that_changed_since_is_not_copied_under_its_old_label(card, tmp_path):
    rows = rows_of(card)[:1]
    (card / "a/1.jpg").write_bytes(b"another animal")
    done = sort_into(shards(rows, card), tmp_path / "sorted", card)
    assert done.copied == 0 and "has changed since" in done.left[0] and tree(tmp_path / "sorted") == {}


def test_copies_stay_out_of_the_photos_and_inside_their_folder(card, tmp_path):
    rows = rows_of(card)[:1]
    (tmp_path / "link").symlink_to(card)
    for inside in (card, card / "sorted", card / "a" / ".." / "b", tmp_path / "link" / "sorted"):
        with pytest.raises(UserError, match="lies inside"):
            sort_into(shards(rows, card), inside, card)
    assert sort_into(shards(rows, card), card / "sorted", card, searched=()).copied == 1  # a single file was named: nothing is searched
    folder, outside = tmp_path / "sorted", tmp_path / "outside"
    folder.mkdir(), outside.mkdir()
    (folder / "Aves").symlink_to(outside)
    with pytest.raises(UserError, match="leads out of"):
        sort_into(shards(rows, card), folder, card)
    (folder / "Aves").unlink()
    (folder / "Aves").write_text("a file")
    with pytest.raises(UserError, match="cannot be made"):
        sort_into(shards(rows, card), folder, card)
    with pytest.raises(UserError, match="is a file"):
        sort_into(shards(rows, card), folder / "Aves", card)
    assert list(outside.iterdir()) == []


def test_a_link_to_something_private_is_not_carried_along_but_a_linked_photo_is(card, tmp_path):
    (tmp_path / "secret").write_bytes(b"root:x:0:0")
    for name in ("p.jpg", "photo.jpg"):
        (card / name).symlink_to(tmp_path / "secret")
    done = sort_into(shards([failed("p.jpg", "not-a-photo"), sure("photo.jpg")], card), tmp_path / "sorted", card)
    assert list(tree(tmp_path / "sorted")) == ["Aves/photo.jpg"] and "leads out of" in done.left[0] and not (tmp_path / "sorted" / "Aves" / "photo.jpg").is_symlink()


def test_a_wicked_label_stays_inside(card, tmp_path):
    wicked = ["../../out", "/etc", "CON", ".."]
    info_rows = [{"path": p, "status": "ok", "label": label, "score": 0.9} for p, label in zip(("a/1.jpg", "b/1.jpg", "b/2.jpg", "é 鳥.jpg"), wicked, strict=True)]
    sort_into([predictions_table(info_rows, card, wicked)], tmp_path / "deep" / "sorted", card)
    assert len(tree(tmp_path / "deep" / "sorted")) == 4 and set(os.listdir(tmp_path)) == {"card", "deep"} and os.listdir(tmp_path / "deep") == ["sorted"]


def test_a_full_disk_keeps_what_was_copied_and_the_next_run_goes_on(card, tmp_path, monkeypatch):
    folder, real, left = tmp_path / "sorted", Path.write_bytes, itertools.count()

    def full(self, data):
        if next(left) >= 2:
            real(self, data[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match="disk is full.*same command again"):
            sort_into(shards(rows_of(card), card), folder, card)
    assert sorted(tree(folder).values()) == [b"one", b"two"]
    done = sort_into(shards(rows_of(card), card), folder, card)
    assert (done.copied, done.present) == (6, 2)


def submitted(tmp_path: Path, rows: list[dict], sample: str | None = None, info: ModelInfo = INFO) -> tuple[list[str], str]:
    if sample is not None:
        (tmp_path / "sample.csv").write_bytes(sample.encode())
    said = submission(rows, info, tmp_path / "sample.csv" if sample is not None else None, tmp_path / "submission.csv")
    return (tmp_path / "submission.csv").read_bytes().decode().split("\n")[:-1], " ".join(said)


TEST = [sure("test/0a.jpg"), sure("test/0b.jpg"), answered("test/0c.jpg", [1.0, 1.5, 0.9, 7.0]), failed("test/0d.jpg"), sure("test/0e.png", "Mammalia")]


def test_every_photo_has_a_line_and_what_was_made_up_is_said(tmp_path):
    lines, said = submitted(tmp_path, [*TEST, failed("test/notes.txt", "not-a-photo"), sure("film.mp4", seconds=1.0)])
    assert lines == ["Image_ID,Label", "0a,3", "0b,3", "0c,4", "0d,3", "0e,6"]
    assert "5 lines" in said and "1 photo could not be read and got the most frequent answer, Aves · birds (2 of 4): test/0d.jpg." in said
    assert "1 photo got the likeliest class although the model was not sure" in said
    assert "2 files or frames left out (no photos): test/notes.txt, film.mp4." in said
    low = list(only_sure(predictions_table([sure("a.jpg", "Fungi")], tmp_path, INFO.labels), 1.0).to_pylist())
    assert submitted(tmp_path, low)[0] == ["Image_ID,Label", "a,4"]
    assert submitted(tmp_path, [sure("card.zip", member="test/0a.jpg")])[0] == ["Image_ID,Label", "0a,3"]


@pytest.mark.parametrize(
    "sample, expected",
    [
        ("Image_ID,Label\n0e,0\n0a,0\n0d,0\n", ["Image_ID,Label", "0e,6", "0a,3", "0d,3"]),  # ids that are no ids of ours: ids are written all the same
        ("id,label\n0e.png,3\n0a.jpg,4\n", ["id,label", "0e.png,6", "0a.jpg,3"]),
        ("file,class\n0E.PNG,Aves\n0A.JPG,Fungi\n", ["file,class", "0E.PNG,Mammalia", "0A.JPG,Aves"]),
        ("file,class\n0E,aves\nlost,aves\n", ["file,class", "0E,mammalia", "lost,aves"]),
        ("\ufefffile,class\r\ntest/0e.png,AVES\r\n\r\n0c,AVES\r\n", ["file,class", "test/0e.png,MAMMALIA", "0c,FUNGI"]),
    ],
)
def test_a_samples_columns_ids_order_and_labels_are_followed(tmp_path, sample, expected):
    lines, said = submitted(tmp_path, TEST, sample)
    assert lines == expected
    left = 5 - sum("lost" not in line for line in lines[1:])
    assert f"{left} photos left out (not in the sample)" in said
    lost = "1 sample id without a photo got the most frequent answer, Aves · birds (2 of 4): lost."
    assert (lost in said) == ("lost" in sample)
    assert ("neither names nor ids" in said) == (",0" in sample) and ("written as names" in said) == ("class" in sample)


def test_ids_of_other_photos_are_refused_not_answered_with_a_constant(tmp_path):
    with pytest.raises(UserError, match=r"No id of the sample \(x1, x2\) names one of the photos \(test/0a.*name the folder"):
        submitted(tmp_path, TEST, "id,label\nx1,3\nx2,3\n")
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.parametrize("ids, found, word", [
    (["test/0007.jpg", "test/0012.jpg"], ["0007.jpg", "0012.jpg"], "test/0007.jpg is 0007.jpg"),
    (["test/a/1", "test/b/1"], ["a/1.jpg", "b/1.jpg"], "test/a/1 is a/1.jpg"),
    (["a/1.png", "b/1.png"], ["images/a/1.jpg", "images/b/1.jpg"], "a/1.png is images/a/1.jpg"),
    (["C:\\\\k\\\\test\\\\1.jpg", "C:\\\\k\\\\test\\\\2.jpg"], ["1.jpg", "2.jpg"], "1.jpg is 1.jpg"),
    (["7", "12"], ["0007.jpg", "0012.jpg"], "without leading zeros: 7 is 0007.jpg"),
    (["7.0", "12.0"], ["test/0007.jpg", "test/0012.jpg"], "without leading zeros: 7.0 is test/0007.jpg"),
])  # fmt: skip
def test_a_folder_before_the_ids_and_lost_zeros_are_recognised_and_said(tmp_path, ids, found, word):
    rows = [sure(found[1], "Fungi"), sure(found[0], "Mammalia")]
    lines, said = submitted(tmp_path, rows, "id,label\n" + "".join(f"{i},3\n" for i in ids))
    assert [line.rsplit(",", 1) for line in lines[1:]] == [[ids[0], "6"], [ids[1], "4"]]
    assert "2 ids found" in said and word in said and "without a photo" not in said


def test_two_ids_never_get_one_photo_by_a_loose_reading(tmp_path):
    with pytest.raises(UserError, match="'7' and '07' would both mean 0007.jpg"):
        submitted(tmp_path, [sure("0007.jpg"), sure("8.jpg")], "id,label\n7,3\n07,3\n8,3\n")


def test_a_column_a_class_is_filled_with_chances(tmp_path):
    "The common form of log-loss competitions: the chances of a line add up to 1, and no class gets those of another."
    rows = [answered("a.jpg", [2.0, 1.0, 0.0, 3.0]), answered("b.jpg", [0.0, 4.0, 0.0, 0.0]), failed("c.jpg")]
    lines, said = submitted(tmp_path, rows, "id,Mammalia,aves,4\na,0.3,0.3,0.3\nb,0.3,0.3,0.3\nc,0.3,0.3,0.3\nlost,0.3,0.3,0.3\n")
    assert lines[0] == "id,Mammalia,aves,4"
    written = {line.split(",")[0]: np.array(line.split(",")[1:], float) for line in lines[1:]}
    expected = softmax([[0.0, 2.0, 1.0], [0.0, 0.0, 4.0]], INFO.temperature)  # "none of these" has no column
    assert np.abs(written["a"] - expected[0]).max() < 1e-5 and np.abs(written["b"] - expected[1]).max() < 1e-5
    assert np.abs(written["c"] - expected.mean(0)).max() < 1e-5 and (written["lost"] == written["c"]).all()
    assert all(abs(shares.sum() - 1) < 1e-5 for shares in written.values())
    assert "1 photo could not be read and got the mean of all chances (n = 2): c.jpg." in said
    lines, said = submitted(tmp_path, rows[:2], "id,Aves,Plantae\na,0.5,0.5\n")
    assert lines[1] == "a,1,0" and "does not know these classes of the sample: Plantae. Their columns get 0." in said
    with pytest.raises(UserError, match=r"columns \(Usage, label\) are no classes of this model"):
        submitted(tmp_path, rows, "id,Usage,label\na,Public,3\n")


def test_names_that_are_numbers_are_not_taken_for_ids(tmp_path):
    info = ModelInfo(["10", "11", "12", "none"], [0, 1, 2, -1], SPEC)
    rows = [{"path": "a.jpg", "status": "ok", "label": "12"}]
    assert submitted(tmp_path, rows, "id,label\na,10\n", info)[0] == ["id,label", "a,12"]
    assert submitted(tmp_path, rows, "id,label\na,0\n", info)[0] == ["id,label", "a,2"]


def test_what_cannot_be_told_apart_is_refused_and_no_file_is_left(tmp_path):
    two = [sure("a.jpg"), sure("a.png", "Fungi")]
    with pytest.raises(UserError, match=r"'a' could be a\.jpg or a\.png.*--sample"):
        submitted(tmp_path, two)
    with pytest.raises(UserError, match="could be"):
        submitted(tmp_path, two, "id,label\na,3\n")
    with pytest.raises(UserError, match="could be"):
        submitted(tmp_path, [sure("x/a.jpg"), sure("y/a.jpg")])
    assert not (tmp_path / "submission.csv").exists()
    assert submitted(tmp_path, two, "id,label\na.png,3\na.jpg,3\n")[0] == ["id,label", "a.png,4", "a.jpg,3"]
    assert submitted(tmp_path, [sure("a.jpg"), sure("A.jpg", "Fungi")], "id,label\nA,3\na,3\n")[0] == ["id,label", "A,4", "a,3"]


@pytest.mark.parametrize("sample", ["", "id\na\n", "id,label\n", "id,a,b\n1,2,3\n", "id,label\na\n", "id,label\na,1,2\n"])
def test_a_sample_that_is_none_is_a_sentence(tmp_path, sample):
    with pytest.raises(UserError, match="name the sample submission that came with the photos"):
        submitted(tmp_path, TEST, sample)


def test_a_submission_that_could_only_be_wrong_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing to submit"):
        submitted(tmp_path, [failed("a.jpg")])
    with pytest.raises(UserError, match="does not know"):
        submitted(tmp_path, [{"path": "a.jpg", "status": "ok", "label": "Reptilia"}])
    (tmp_path / "bytes.csv").write_bytes(b"id,label\n\xff,1\n")
    for sample in ("bytes.csv", "gone.csv"):
        with pytest.raises(UserError, match="sample submission"):
            submission(TEST, INFO, tmp_path / sample, tmp_path / "submission.csv")
    (tmp_path / "sample.csv").write_text("id,label\n0a,3\n")
    with pytest.raises(UserError, match="the sample itself"):
        submission(TEST, INFO, tmp_path / "sample.csv", tmp_path / "sample.csv")
    assert (tmp_path / "sample.csv").read_text() == "id,label\n0a,3\n"
