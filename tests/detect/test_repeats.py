"""Repeats: a false object of a camera is dropped, no true animal is, and every decision can be taken back."""

import csv
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from species_wb.core import UserError
from species_wb.detect.repeat_list import LIST, marked, open_answers, read_list, write_list
from species_wb.detect.repeat_page import drop_repeats, find_repeats
from species_wb.detect.repeats import crowds, frame_of, suspects
from species_wb.photos.pixels import encode_jpeg
from species_wb.predictions import predictions_table, write_predictions

BIN = Path(sys.executable).parent
BEGAN = datetime(2026, 5, 1, 5)


def row_of(frame: int, corners: np.ndarray, taken: datetime, true: bool, site: str = "ridge") -> dict:
    edges = dict(zip(("x0", "y0", "x1", "y1"), np.clip(corners, 0, 1).tolist(), strict=True))
    answer = {"label": "Mammalia", "score": 0.8, "label_raw": "Mammalia", "score_raw": 0.8, "abstained": False}
    whole = {"label_whole": "Plantae", "score_whole": 0.5, "sha256": f"{frame:064x}", "status": "ok"}
    of_box = {"box_score": 0.6, "site": site, "taken_at": taken.isoformat(), "true": true}
    return {"path": f"{site}/{frame:05d}.jpg", **edges, **answer, **whole, **of_box}


def animal(random: np.random.Generator) -> np.ndarray:
    "A visit somewhere along a trail."
    wide = 0.2 * np.exp(random.normal(0, 0.25))
    x, y, high = random.uniform(0, 1), random.normal(0.6, 0.04), wide * np.exp(random.normal(-0.2, 0.2))
    return np.array([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2])


def camera(seed: int, size: float, frames: int = 400, jitter: float = 0.002, share: float = 0.3) -> list[dict]:
    """A camera over 20 days: animals that pass, one that comes back to its nest box, and one that sleeps for 30 photos.

    An object is found in 30 % of all frames, with edges that move by two pixels of a thousand."""
    random = np.random.default_rng(seed)
    times = sorted(BEGAN + timedelta(minutes=float(m)) for m in random.uniform(0, 20 * 24 * 60, frames - 30))
    times += [BEGAN + timedelta(days=20, minutes=k) for k in range(30)]
    corner = random.uniform(0.1, 0.8 - size, 2)
    thing, nest = np.r_[corner, corner + size], np.array([0.05, 0.05, 0.13, 0.15])
    rows = []
    for k, taken in enumerate(times):
        boxes = [(thing + random.normal(0, jitter, 4), False)] if random.random() < share else []
        if k >= frames - 30:
            boxes.append((np.array([0.4, 0.75, 0.6, 0.9]) + random.normal(0, jitter, 4), True))
        elif random.random() < 0.4:
            boxes.append((animal(random), True))
        elif random.random() < 0.3:
            boxes.append((nest + random.normal(0, 0.1, 4) * 0.09, True))
        found = [{**row_of(k, box, taken, true), "box": n} for n, (box, true) in enumerate(boxes, 1)]
        empty = {"label": None, "code": "no-animal", "abstained": True, **dict.fromkeys(("x0", "y0", "x1", "y1"))}
        rows += found or [{**row_of(k, thing, taken, True), "box": None, **empty}]
    return rows


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [0.03, 0.08, 0.2, 0.4])
def test_a_false_object_is_dropped_and_no_animal_is(seed, size):
    rows = camera(seed, size)
    found = suspects(rows)
    assert len(found) == 1 and found[0].share == pytest.approx(0.3, abs=0.08) and found[0].days >= 15
    new = [row for row, _ in marked(rows, found)]
    gone = [row for row in new if row.get("code") == "repeat"]
    false = sum(row["true"] is False for row in rows)
    assert not [row for row in gone if row["true"]], "an animal was dropped"
    assert len(gone) >= 0.97 * false, f"{len(gone)} of {false} false boxes were dropped"


def test_where_nothing_is_false_nothing_is_suspected():
    assert [suspects(camera(seed, 0.1, share=0)) for seed in range(6)] == [[]] * 6


def test_a_sleeper_and_a_short_camera_are_no_suspects():
    box = np.array([0.2, 0.2, 0.4, 0.4])
    for days in (1, 2):
        times = [BEGAN + timedelta(days=k % days, minutes=k) for k in range(60)]
        assert suspects([{**row_of(k, box, taken, True), "box": 1} for k, taken in enumerate(times)]) == []
    months = [BEGAN + timedelta(days=k // 20, minutes=k) for k in range(60)]
    assert len(suspects([{**row_of(k, box, taken, False), "box": 1} for k, taken in enumerate(months)])) == 1
    people = [{**row_of(k, box, taken, False), "box": 1, "code": "person"} for k, taken in enumerate(months)]
    assert suspects(people) == []
    large = np.array([0, 0, 0.9, 0.9])
    assert suspects([{**row_of(k, large, taken, True), "box": 1} for k, taken in enumerate(months)]) == []


def test_places_of_one_camera_say_nothing_of_another():
    rows = camera(1, 0.1)
    (found,) = suspects(rows)
    other = [{**row, "site": "valley"} for row in rows]
    assert [row.get("code") for row, _ in marked(other, [found])] == [row.get("code") for row in other]
    half = [{**row, "site": ["ridge", "valley"][k % 2]} for k, row in enumerate(rows)]
    assert [one.site for one in suspects(half)] == ["ridge", "valley"]


def test_no_box_is_in_two_crowds_and_all_are_near_the_middle():
    random = np.random.default_rng(3)
    some = random.uniform(0, 0.02, (300, 4)) + np.array([0.3, 0.3, 0.4, 0.4])
    groups = [members for _, members in crowds(some, 5)]
    assert len(np.concatenate(groups)) == len(set(np.concatenate(groups).tolist()))
    for middle, members in crowds(some, 5):
        assert middle in members


def written(rows: list[dict], folder: Path, ending: str) -> Path:
    rows = [{name: value for name, value in row.items() if name != "true"} for row in rows]
    if ending == "parquet":
        rows = [{**row, "embedding": [float(k), 1.0]} for k, row in enumerate(rows)]
    write_predictions(predictions_table(rows, folder, ["Mammalia", "Plantae"]), path := folder / f"answers.{ending}")
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_list_applied_twice_is_applied_once_and_yes_takes_it_back(tmp_path, ending):
    table = written(camera(2, 0.1), tmp_path, ending)
    before, bytes_before = open_answers(table).rows, table.read_bytes()
    find_repeats(table)
    listed, once, twice = tmp_path / "answers-repeats.csv", tmp_path / f"once.{ending}", tmp_path / f"twice.{ending}"
    drop_repeats(table, listed, once)
    drop_repeats(once, listed, twice)
    assert once.read_bytes() == twice.read_bytes() or open_answers(once).rows == open_answers(twice).rows
    dropped = [row for row in open_answers(once).rows if row.get("code") == "repeat"]
    assert {(row["label"], row["label_raw"], row["abstained"]) for row in dropped} == {(None, "Mammalia", True)}
    write_list([one.__class__(**{**one.__dict__, "keep": True}) for one in read_list(listed)], listed)
    drop_repeats(once, listed, back := tmp_path / f"back.{ending}")
    same = [{name: value for name, value in row.items() if value is not None} for row in before]
    again = [{name: value for name, value in row.items() if value is not None} for row in open_answers(back).rows]
    assert again == same and table.read_bytes() == bytes_before


def test_a_photo_without_a_box_left_has_one_row_that_says_so(tmp_path):
    rows = camera(5, 0.1)
    new = [row for row, _ in marked(rows, suspects(rows))]
    photos: dict[tuple, list] = {}
    for row in new:
        photos.setdefault(frame_of(row), []).append(row.get("code"))
    for codes in photos.values():
        assert codes.count("no-animal") == (all(code in ("repeat", "no-animal") for code in codes))
    assert set(photos) == set(map(frame_of, rows)), "no photo is lost"


def test_a_photo_whose_boxes_were_all_dropped_is_counted_once(tmp_path):
    from species_wb.classify.answers import summary
    from species_wb.classify.known import rows_of_units
    from species_wb.contracts import ModelInfo, ModelSpec

    rows, info = camera(0, 0.1), ModelInfo(["Mammalia"], [0], ModelSpec("tiny", 32, (0.5,) * 3, (0.5,) * 3))
    new = [{"member": None, "seconds": None, "reason": None, "code": None, "rule": None} | row for row, _ in marked(rows, suspects(rows))]
    photos, added = len({row["path"] for row in rows}), sum(row["rule"] == "repeat" and row["box"] is None for row in new)
    table = predictions_table([{**row, "embedding": None, "logits": None} for row in new], "card", info.labels)
    found = summary([table], info)
    assert added > 20 and (found["photos"], found["rows"]) == (photos, len(rows) + added)
    assert len([*rows_of_units(new)]) == photos and found["boxes"]["no-animal"] == sum(row["box"] is None for row in new)


def test_embeddings_stay_with_their_boxes(tmp_path):
    table = written(camera(2, 0.1), tmp_path, "parquet")
    find_repeats(table)
    drop_repeats(table, tmp_path / "answers-repeats.csv")
    old, new = pq.read_table(table), pq.read_table(tmp_path / "answers-without-repeats.parquet")
    assert new.schema.metadata[b"labels"] == old.schema.metadata[b"labels"]
    own = {(r["path"], r["box"]): r["embedding"] for r in old.to_pylist()}
    added = [r for r in new.to_pylist() if r["rule"] == "repeat" and r["code"] == "no-animal"]
    assert added and all(r["embedding"] is None for r in added)
    kept = [r for r in new.to_pylist() if not (r["rule"] == "repeat" and r["code"] == "no-animal")]
    assert len(kept) == len(old) and all(r["embedding"] == own[r["path"], r["box"]] for r in kept)


def test_a_decision_outlives_a_new_search(tmp_path):
    table, listed = written(camera(2, 0.1), tmp_path, "csv"), tmp_path / "answers-repeats.csv"
    find_repeats(table)
    with listed.open(encoding="utf-8-sig", newline="") as file:
        rows = [*csv.DictReader(file)]
    rows[0]["keep"] = "YES "
    with listed.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, LIST)
        writer.writeheader()
        writer.writerows(rows)
    find_repeats(table)
    assert [one.keep for one in read_list(listed)] == [True]
    drop_repeats(table, listed)
    assert not [r for r in open_answers(tmp_path / "answers-without-repeats.csv").rows if r.get("code") == "repeat"]


@pytest.mark.parametrize(
    ("change", "said"),
    [("nan", "not a finite number"), ("1e999", "not a finite number"), ("wide", "cannot be read")],
)
def test_a_list_that_a_stranger_changed_is_refused(tmp_path, change, said):
    rows = camera(2, 0.1)
    write_list(suspects(rows), listed := tmp_path / "list.csv")
    cells = [*csv.DictReader(listed.open(encoding="utf-8-sig", newline=""))]
    cells[0]["x0"] = change
    with listed.open("w", newline="") as file:
        writer = csv.DictWriter(file, LIST)
        writer.writeheader()
        writer.writerows(cells)
    with pytest.raises(UserError, match=said):
        read_list(listed)


@pytest.mark.parametrize("name", ["gone.parquet", "broken.parquet", "broken.csv", "broken.jsonl", "whole.txt"])
def test_what_is_no_table_with_boxes_is_refused(tmp_path, name):
    if not name.startswith("gone"):
        (tmp_path / name).write_bytes(b"{\x00[ nothing")
    with pytest.raises(UserError):
        open_answers(tmp_path / name)


def test_the_command_line_finds_and_drops(tmp_path):
    rows = camera(1, 0.1, frames=120)
    for row in rows:
        (tmp_path / row["path"]).parent.mkdir(exist_ok=True)
        photo = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
        (tmp_path / row["path"]).write_bytes(encode_jpeg(photo))
    written(rows, tmp_path, "csv")

    def typed(*words: str) -> str:
        command = [str(BIN / "species-wb"), "repeats", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "1 place would be dropped" in typed("answers.csv")
    page = (tmp_path / "answers-repeats.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 1 and "Camera ridge" in page and "not to be shown" not in page
    assert "were marked as no animals" in typed("answers.csv", "--drop", "answers-repeats.csv")
    assert (tmp_path / "answers-without-repeats.csv").exists()
