"""The same photo elsewhere is the same photo: a table goes on, and its paths are found again."""

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from test_cli import BIN, one_sentence
from test_job import coloured, rows, typed

from species_wb.classify import job
from species_wb.classify.resume import Job, Task
from species_wb.contracts import read_table
from species_wb.curate import one_photo
from species_wb.curate.predictions import open_predictions
from species_wb.engine import model_file, predict
from species_wb.fields import path_text, text_path
from species_wb.photos import sources, units
from species_wb.photos.films import Film
from species_wb.photos.pixels import decode
from species_wb.photos.scan import scan


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    "How many photos the network was given, each time."
    seen: list[int] = []
    real = predict.infer_all
    monkeypatch.setattr(predict, "infer_all", lambda m, pixels, *more: seen.append(len(pixels[0])) or real(m, pixels, *more))
    return seen


def answers(table: Path) -> list[tuple]:
    found = read_table(table).to_pylist() if table.suffix == ".parquet" else rows(table)
    return [(row["path"], row["status"], row["label"], row["score"]) for row in found]


def many(folder: Path, count: int, first: int = 0) -> Path:
    "Photos of which no two are alike."
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(first, first + count):
        (folder / f"IMG_{k:05}.JPG").write_bytes(coloured("red" if k % 3 else "green", k))
    return folder


def later(folder: Path) -> None:
    "Give all files another time, as copying without it does."
    for path in folder.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


@pytest.mark.parametrize("times_kept", [True, False])
def test_a_card_under_another_letter_goes_on_without_the_network(tmp_path, model, asked, times_kept):
    many(tmp_path / "disk1" / "card" / "100MEDIA", 300)
    (tmp_path / "disk1" / "card" / "notes.txt").write_text("a note")
    words = ("--model", model, "--out", tmp_path / "t.csv")
    assert typed("classify", tmp_path / "disk1" / "card", *words).returncode == 0
    before = answers(tmp_path / "t.csv")
    (tmp_path / "disk2").mkdir()
    shutil.move(tmp_path / "disk1" / "card", tmp_path / "disk2")
    if not times_kept:
        later(tmp_path / "disk2")
    asked.clear()
    done = typed("classify", tmp_path / "disk2" / "card", *words)
    assert done.returncode == 0, done.stderr
    assert answers(tmp_path / "t.csv") == before and asked == [] and len(before) == 301
    assert "were classified already" in done.stdout


def test_a_table_copied_to_another_computer_with_its_photos_goes_on(tmp_path, model, asked):
    many(tmp_path / "here" / "card", 5)
    assert typed("classify", "card", "--model", model, "--out", "t.csv", cwd=tmp_path / "here").returncode == 0
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copyfile)
    later(tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    asked.clear()
    done = typed("classify", "card", "--model", model, "--out", "t.csv", cwd=tmp_path / "there")
    assert done.returncode == 0 and asked == [], done.stderr
    (tmp_path / "there" / "t.csv").write_text("corrected")
    again = typed("classify", "card", "--model", model, "--out", "t.csv", cwd=tmp_path / "there")
    assert "was changed after it was written" in one_sentence(again)


def test_a_renamed_photo_keeps_its_row_and_a_new_one_is_asked(tmp_path, model, asked):
    folder = many(tmp_path / "card", 8)
    (folder / "broken.jpg").write_bytes(coloured("red")[:300])
    words = ("classify", folder, "--model", model, "--out", tmp_path / "t.jsonl")
    assert typed(*words).returncode == 0
    before = {row["path"]: row for row in rows(tmp_path / "t.jsonl")}
    (folder / "IMG_00003.JPG").rename(folder / "a fox.jpg")
    (folder / "broken.jpg").rename(folder / "also broken.jpg")
    (folder / "new.jpg").write_bytes(coloured("green", 77))
    asked.clear()
    done = typed(*words)
    after = {row["path"]: row for row in rows(tmp_path / "t.jsonl")}
    assert sum(asked) == 1 and len(after) == 10
    assert after["a fox.jpg"] == before["IMG_00003.JPG"] | {"path": "a fox.jpg"}
    assert after["also broken.jpg"]["reason"].startswith("also broken.jpg")  # what is said of a photo names it anew
    assert list(after) == sorted(after) and "8 of 10" in done.stdout


def test_a_photo_out_of_an_archive_is_the_same_photo(tmp_path, model, asked):
    folder = many(tmp_path / "card", 4)
    words = ("classify", folder, "--model", model, "--out", tmp_path / "t.csv")
    assert typed(*words).returncode == 0
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for path in sorted(folder.glob("*.JPG")):
            archive.write(path, f"DCIM/{path.name}")
            path.unlink()
    asked.clear()
    assert typed(*words).returncode == 0 and asked == []
    assert [(r["path"], r["member"]) for r in rows(tmp_path / "t.csv")] == [("all.zip", f"DCIM/IMG_{k:05}.JPG") for k in range(4)]


def test_other_photos_of_the_same_names_are_still_refused(tmp_path, model):
    many(tmp_path / "one" / "card", 5)
    words = ("--model", model, "--out", tmp_path / "t.csv")
    assert typed("classify", tmp_path / "one" / "card", *words).returncode == 0
    kept = (tmp_path / "t.csv").read_bytes()
    other = tmp_path / "two" / "card"
    other.mkdir(parents=True)
    for k in range(5):
        (other / f"IMG_{k:05}.JPG").write_bytes(coloured("green", 500 + k))
    said = one_sentence(typed("classify", other, *words))
    assert said.startswith("None of the 5 photos of") and "is this another card?" in said
    assert (tmp_path / "t.csv").read_bytes() == kept


def test_a_plain_first_run_hashes_nothing_beside_the_engine(tmp_path, model, monkeypatch):
    folder, read = many(tmp_path / "card", 40), []
    real = units.read_bytes
    monkeypatch.setattr(units, "read_bytes", lambda path, name: read.append(name) or real(path, name))
    assert typed("classify", folder, "--model", model, "--out", tmp_path / "t.csv").returncode == 0
    assert len(read) == 40  # each file is read once
    many(folder, 20, first=40)
    assert typed("classify", folder, "--model", model, "--out", tmp_path / "t.csv").returncode == 0
    assert len(rows(tmp_path / "t.csv")) == 60 and len(read) <= 40 + 2 * 20


def test_a_film_with_its_time_is_not_decoded_again(tmp_path, model, monkeypatch):
    folder = many(tmp_path / "disk1" / "card", 3)
    (folder / "night.mp4").write_bytes(b"no film")
    words = ("--model", model, "--out", tmp_path / "t.csv")
    decoded = []
    def sampled(whole, *more):
        decoded.append(whole)
        for second in (0.0, 1.0):
            yield second, decode(coloured("red"), 24)

    monkeypatch.setattr(units, "sampled", sampled)
    monkeypatch.setattr(units, "film", lambda *given: Film(2.0, 1.0, 30, 24))
    assert typed("classify", folder, *words).returncode == 0 and len(decoded) == 1
    shutil.move(tmp_path / "disk1", tmp_path / "disk2")
    (tmp_path / "disk2" / "card" / "IMG_00001.JPG").unlink()  # so that the shard is another one
    assert typed("classify", tmp_path / "disk2" / "card", *words).returncode == 0 and len(decoded) == 1
    found = [(row["path"], row["seconds"]) for row in rows(tmp_path / "t.csv")]
    assert found == [("IMG_00000.JPG", ""), ("IMG_00002.JPG", ""), ("night.mp4", "0"), ("night.mp4", "1")]


def test_a_job_of_the_version_before_goes_on(tmp_path, model, asked):
    "Its job.json names the folder and knows no content of the table; its shards are as they are."
    folder = many(tmp_path / "card", 300)
    loaded = model_file.open_model(model, 1)

    def a_job():
        where = sources.sources([str(folder)])
        return Job(tmp_path / "t.csv", where, Task(where.root), loaded.sha256)

    job.run_job(a_job(), loaded, job.here(loaded))
    known = tmp_path / ".t.csv.parts" / "job.json"
    said = json.loads(known.read_text())
    kept = ("version", "kind", "model", "root", "every", "mirrored", "embedding", "table", "order")
    known.write_text(json.dumps({name: said[name] for name in kept} | {"root": "D:/card"}))
    moved = folder.rename(tmp_path / "moved")
    folder = moved
    asked.clear()
    done = job.run_job(a_job(), loaded, job.here(loaded))
    assert asked == [] and "300 of 300 files were classified already." in done.sentences
    assert json.loads(known.read_text())["root"] == str(moved)


# --- paths ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet"])
def test_paths_are_relative_to_the_folder_and_it_is_said_which(tmp_path, model, ending):
    many(tmp_path / "card" / "100MEDIA", 2)
    done = typed("classify", "card", "--model", model, "--out", f"t.{ending}", cwd=tmp_path)
    wanted = ["100MEDIA/IMG_00000.JPG", "100MEDIA/IMG_00001.JPG"]
    if ending == "json":
        found = [entry["file"] for entry in json.loads((tmp_path / "t.json").read_text())["images"]]
    else:
        found = [row[0] for row in answers(tmp_path / f"t.{ending}")]
    assert found == wanted and done.stdout.splitlines()[-1].endswith(f"its paths are relative to {tmp_path / 'card'}.")
    if ending == "parquet":
        assert read_table(tmp_path / "t.parquet").schema.metadata[b"root"].decode() == str(tmp_path / "card")


def test_several_folders_are_written_below_the_one_that_holds_them(tmp_path, model):
    many(tmp_path / "field" / "cam1", 1)
    many(tmp_path / "field" / "cam2" / "deep", 1)
    files = [tmp_path / "field" / "cam1" / "IMG_00000.JPG", tmp_path / "field" / "cam2" / "deep" / "IMG_00000.JPG"]
    done = typed("classify", *files, "--model", model, "--out", tmp_path / "t.csv")
    assert [r["path"] for r in rows(tmp_path / "t.csv")] == ["cam1/IMG_00000.JPG", "cam2/deep/IMG_00000.JPG"]
    assert f"relative to {tmp_path / 'field'}." in done.stdout


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_of_classify_is_looked_at_and_trained_on_from_anywhere(tmp_path, model, workspace, monkeypatch, ending):
    many(tmp_path / "far" / "card", 6)
    table = tmp_path / f"t.{ending}"
    assert typed("classify", "card", "--model", model, "--out", table, cwd=tmp_path / "far").returncode == 0
    monkeypatch.chdir("/")
    assert one_photo.small_photo(open_predictions(table), 0)[:2] == b"\xff\xd8"
    if ending == "csv":
        manifest = scan(table).to_pylist()
        assert [(row["path"], row["status"]) for row in manifest] == [(f"IMG_{k:05}.JPG", "ok") for k in range(6)]
        assert {row["label"] for row in manifest} == {"red", "green"}


NAMES = {b"B\xe4r.jpg": "B\\xe4r.jpg", b"\xc3.jpg": "\\xc3.jpg", b"a\\xe4.jpg": "a\\x5cxe4.jpg", "🦊.jpg".encode(): "🦊.jpg",
         b"\x8e\xae.jpg": "\\x8e\\xae.jpg", b"\xee\xbe\x84.jpg": "\\xee\\xbe\\x84.jpg", b"a\\b.jpg": "a\\b.jpg"}  # fmt: skip


def test_every_name_is_text_and_leads_back_to_its_file():
    for name, text in NAMES.items():
        assert path_text(name) == text and os.fsencode(text_path(text)) == name
        assert text.encode()  # it is text
    assert os.fsencode(text_path("B\uefe4r.jpg")) == b"B\xe4r.jpg"  # as tables of the version before have it


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_names_that_no_text_can_hold_are_found_again(tmp_path, model, workspace, ending):
    folder = tmp_path / "card"
    folder.mkdir()
    for k, name in enumerate(NAMES):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(coloured("red", k))
    table = tmp_path / f"t.{ending}"
    assert typed("classify", folder, "--model", model, "--out", table).returncode == 0
    found = [row[0] for row in answers(table)]
    assert sorted(found) == sorted(NAMES.values())
    for k in range(len(NAMES)):
        assert one_photo.small_photo(open_predictions(table), k)[:2] == b"\xff\xd8"
    command = [str(BIN / "species-wb"), "classify", "-", "--model", str(model), "--out", str(tmp_path / "again.csv")]
    for given in ("\n".join(found), "\n".join(found).replace("B\\xe4r", "B\uefe4r")):  # this table, and one of the version before
        subprocess.run([*command, "--fresh"], input=given.encode(), cwd=folder, capture_output=True, check=True)
        assert {row[1] for row in answers(tmp_path / "again.csv")} == {"ok"}
    if ending == "csv":
        assert {row["status"] for row in scan(table).to_pylist()} == {"ok"}
