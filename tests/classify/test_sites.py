"""Sites: a camera is a folder, in `classify` and in `watch`; a person's word counts more; two cameras in one minute are two visits."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_job import typed
from test_watch import Watching

from species_wb.contracts import read_table, write_table
from species_wb.engine import toy
from species_wb.engine.model_file import open_model
from species_wb.photos.scan import scan
from species_wb.predictions import rows_of
from species_wb.survey.observations import events, read_observations

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20)}


@pytest.fixture(autouse=True)
def brisk(own_cache, monkeypatch):
    monkeypatch.setattr("species_wb.classify.arrivals.SETTLE", 0.2)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return toy.write_toy(tmp_path_factory.mktemp("model") / "tiny.onnx")


def photo(seed: int, at: str = "13:07:55") -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif.get_ifd(0x8769)[0x9003] = f"2026:05:04 {at}"
    pixels = np.random.default_rng(seed).integers(0, 40, (40, 60, 3), np.uint8)
    pixels[..., 0] += 180
    Image.fromarray(pixels).save(file, "JPEG", quality=90, exif=exif)
    return file.getvalue()


def fill(root: Path, *paths: str) -> Path:
    "Photos of red, taken within a minute of each other."
    for k, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(photo(k, f"13:07:{k:02}"))
    return root


def sites(root: Path, model: Path, *words, named="card", out="t.csv") -> dict[str, str]:
    done = typed("classify", named, "--model", model, "--out", out, *words, cwd=root)
    assert done.returncode == 0, done.stderr
    with (root / out).open(encoding="utf-8-sig", newline="") as file:
        return {f"{row['path']}/{row.get('member', '')}".strip("/"): row["site"] for row in csv.DictReader(file)}


PATHS = {
    "a.jpg": "",  # in the top folder: as before
    "cam1/100RECNX/a.jpg": "cam1", "cam1/DCIM/101RECNX/a.jpg": "cam1", "cam2/a.jpg": "cam2",
    "north/cam1/DCIM/100MEDIA/a.jpg": "north/cam1", "south/cam1/DCIM/100MEDIA/a.jpg": "south/cam1",
    "dcim/100_btcf/a.jpg": "", "101EK113/a.jpg": "", "101north/a.jpg": "101north",
}


def test_the_site_of_a_photo_is_its_folder_without_what_cameras_write(tmp_path, model):
    fill(tmp_path / "card", *PATHS)
    assert sites(tmp_path, model) == PATHS
    assert sites(tmp_path / "card", model, named="cam1", out="u.csv") == {"100RECNX/a.jpg": "", "DCIM/101RECNX/a.jpg": ""}


def test_two_cameras_that_see_one_species_in_one_minute_are_two_events(tmp_path, model):
    fill(tmp_path / "card", "cam1/100RECNX/a.jpg", "cam2/100RECNX/a.jpg", "cam1/101RECNX/b.jpg")
    assert typed("classify", "card", "--model", model, "--out", "t.parquet", cwd=tmp_path).returncode == 0
    found = events(rows_of(read_table(tmp_path / "t.parquet")))
    assert [(o["site"], o["label"], o["start"][-8:], o["end"][-8:]) for o in found] == [
        ("cam1", "red", "13:07:00", "13:07:02"), ("cam2", "red", "13:07:01", "13:07:01")]  # and 101RECNX is still cam1


def test_what_a_person_says_is_the_site_and_a_pattern_is_made_of_folders(tmp_path, model):
    fill(tmp_path / "card", *PATHS)
    assert set(sites(tmp_path, model, "--site", "pond").values()) == {"pond"}
    said = sites(tmp_path, model, "--site", "{folder2}-{folder1}")  # the same command: only the table is written again
    assert said["north/cam1/DCIM/100MEDIA/a.jpg"] == "cam1-north" and said["cam2/a.jpg"] == "cam2"
    assert said["a.jpg"] == ""
    done = typed("classify", "card", "--model", model, "--site", "{camera}", "--out", "v.csv", cwd=tmp_path)
    assert done.returncode == 1 and "write {folder1} for the first folder" in done.stderr and not (tmp_path / "v.csv").exists()


def test_an_archive_is_a_folder_too_but_not_the_one_that_was_named(tmp_path, model):
    (tmp_path / "card").mkdir()
    for name in ("cam1", "cam2"):
        with zipfile.ZipFile(tmp_path / "card" / f"{name}.zip", "w") as archive:
            archive.writestr("DCIM/100RECNX/a.jpg", photo(1))
            archive.writestr("spring/a.jpg", photo(2))
    assert sites(tmp_path, model) == {
        "cam1.zip/DCIM/100RECNX/a.jpg": "cam1", "cam1.zip/spring/a.jpg": "cam1/spring",
        "cam2.zip/DCIM/100RECNX/a.jpg": "cam2", "cam2.zip/spring/a.jpg": "cam2/spring"}
    assert set(sites(tmp_path, model, named="card/cam1.zip", out="u.csv").values()) == {"", "spring"}


def test_a_job_that_an_earlier_version_began_gets_its_sites_without_another_look(tmp_path, model):
    fill(tmp_path / "card", "cam1/a.jpg", "cam2/b.jpg")
    sites(tmp_path, model)
    for shard in (tmp_path / ".t.csv.parts").glob("*.parquet"):
        table = read_table(shard)
        write_table(table.drop_columns(["taken_from", "frame_rate"]), shard)
        before = shard.read_bytes()
    done = typed("classify", "card", "--model", model, "--out", "t.csv", cwd=tmp_path)
    assert done.returncode == 0 and "2 of 2 files were classified already" in done.stdout and shard.read_bytes() == before
    assert sites(tmp_path, model) == {"cam1/a.jpg": "cam1", "cam2/b.jpg": "cam2"}


def test_a_watch_knows_the_cameras_below_its_folder(tmp_path, model):
    pond = fill(tmp_path / "card", "a.jpg", "cam1/100RECNX/b.jpg", "cam2/DCIM/100MEDIA/c.jpg", "cam1/101RECNX/d.jpg")
    with Watching(open_model(model), pond, tmp_path / "rows.csv", observations=tmp_path / "o.csv") as w:
        w.until(4)
    assert {Path(row["path"]).name: row["site"] for row in w.rows()} == {"a.jpg": "", "b.jpg": "cam1", "c.jpg": "cam2", "d.jpg": "cam1"}
    found = read_observations(tmp_path / "o.csv").to_pylist()
    assert sorted((o["site"] or "", o["start"][-8:], o["end"][-8:]) for o in found) == [
        ("", "13:07:00", "13:07:00"), ("cam1", "13:07:01", "13:07:03"), ("cam2", "13:07:02", "13:07:02")]
    for site, wanted in (("hill", {"hill"}), ("{folder1}!", {"", "cam1!", "cam2!"})):
        with Watching(open_model(model), pond, tmp_path / f"{site}.csv", site=site) as w:
            w.until(4)
        assert {row["site"] for row in w.rows()} == wanted


def test_class_folders_of_training_are_no_sites(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECIES_WB_HOME", str(tmp_path / "home"))
    fill(tmp_path / "card", "Aves/a.jpg", "Fungi/b.jpg")
    assert scan(tmp_path / "card")["site"].to_pylist() == [None, None]


def test_the_times_of_files_are_filled_in_where_a_person_asks(tmp_path, model):
    (tmp_path / "card").mkdir()
    Image.new("RGB", (60, 40), "red").save(tmp_path / "card" / "mute.jpg")
    (tmp_path / "card" / "told.jpg").write_bytes(photo(1))

    def told(*words):
        assert typed("classify", "card", "--model", model, "--out", "t.parquet", *words, cwd=tmp_path).returncode == 0
        return [row["taken_from"] for row in rows_of(read_table(tmp_path / "t.parquet"))]

    assert told() == [None, "DateTimeOriginal"] and told("--file-times") == ["file", "DateTimeOriginal"] and told()[0] is None
    with Watching(open_model(model), tmp_path / "card", tmp_path / "rows.csv", file_times=True) as w:
        w.until(2)
    assert sorted(row["taken_from"] for row in w.rows()) == ["DateTimeOriginal", "file"]
    assert all(row["taken_at"] for row in w.rows())
