"""What copies promise: they tell their camera, films are among them, and the table names the copy of each row."""

import csv
import errno
import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from test_job import COLOURS, coloured, typed

from species_wb.contracts import read_table
from species_wb.engine import toy


@pytest.fixture
def model(tmp_path) -> Path:
    return toy.write_toy(tmp_path / "toy.onnx")


def film(path: Path, *colours: str) -> Path:
    "A film with a second of each colour."
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 4
        for colour in colours:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), COLOURS[colour], np.uint8))
            for _ in range(4):
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def station(tmp_path) -> Path:
    "Two cameras that number their photos alike, a film of each, a zip archive, and what cannot be read."
    root = tmp_path / "card"
    for k, camera in enumerate(("cam1", "cam2")):
        place = root / camera / "100RECNX"
        place.mkdir(parents=True)
        (place / "IMG_0002.JPG").write_bytes(coloured("red", k))
        film(place / "IMG_0003.AVI", *(("red", "green", "green", "green") if k else ("red", "red", "green")))
    (root / "cam2" / "cut.jpg").write_bytes(coloured("red")[:200])
    (root / "cam2" / "dark.mp4").write_bytes(b"no film")
    (root / "top.jpg").write_bytes(coloured("green"))
    with zipfile.ZipFile(root / "cam3.zip", "w") as archive:
        archive.writestr("DCIM/IMG_0002.JPG", coloured("green", 7))
        archive.writestr("../../out.jpg", coloured("green", 8))
    os.utime(root / "cam1" / "100RECNX" / "IMG_0003.AVI", (1_700_000_000, 1_700_000_000))
    return root


def classified(root: Path, model: Path, *more: str) -> str:
    home = root.parent
    done = typed("classify", root, "--model", model, "--out", "t.csv", "--copy-to", "sorted", *more, cwd=home,
                 SPECIES_WB_CACHE=str(home / "cache"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder.parent).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


WHERE = {
    "red/cam1/100RECNX/IMG_0002.JPG", "red/cam1/100RECNX/IMG_0003.AVI", "red/cam2/100RECNX/IMG_0002.JPG",
    "green/cam2/100RECNX/IMG_0003.AVI", "no answer/cam2/cut.jpg", "no answer/cam2/dark.mp4", "green/top.jpg",
    "green/cam3.zip/DCIM/IMG_0002.JPG", "green/cam3.zip/out.jpg",
}  # fmt: skip


def test_copies_tell_their_camera_films_are_among_them_and_the_table_names_each(station, tmp_path, model):
    said = classified(station, model)
    found = tree(tmp_path / "sorted")
    assert set(found) == {f"sorted/{name}" for name in WHERE} and "9 files copied" in said
    for row in rows(tmp_path / "t.csv"):
        name = row["path"].partition("card/")[2] or row["path"]
        copy = found[row["copied_to"]]
        if row["member"]:
            with zipfile.ZipFile(station / name) as archive:
                assert archive.read(row["member"]) == copy
        else:
            assert (station / name).read_bytes() == copy
    film_rows = {row["copied_to"] for row in rows(tmp_path / "t.csv") if row["seconds"] and "cam1" in row["path"]}
    assert film_rows == {"sorted/red/cam1/100RECNX/IMG_0003.AVI"}  # one file, whatever single frames show
    copy = tmp_path / "sorted" / "red" / "cam1" / "100RECNX" / "IMG_0003.AVI"
    assert copy.stat().st_mtime == 1_700_000_000


def test_a_second_run_copies_nothing_again_and_the_column_is_whole(station, tmp_path, model, monkeypatch):
    classified(station, model)
    before, table = tree(tmp_path / "sorted"), rows(tmp_path / "t.csv")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", lambda *_: pytest.fail("something was written again"))
        patched.setattr(shutil, "copyfileobj", lambda *_: pytest.fail("a film was copied again"))
        said = classified(station, model)
    assert "0 files copied" in said and "9 files were there already" in said
    assert tree(tmp_path / "sorted") == before and rows(tmp_path / "t.csv") == table
    assert all(row["copied_to"] for row in table)


def test_copies_of_the_version_before_are_recognised_and_not_doubled(station, tmp_path, model):
    flat = tmp_path / "sorted" / "red"
    flat.mkdir(parents=True)
    one, two = ((station / cam / "100RECNX" / "IMG_0002.JPG").read_bytes() for cam in ("cam1", "cam2"))
    (flat / "IMG_0002.JPG").write_bytes(two)  # in no order that one could count on
    (flat / f"IMG_0002-{hashlib.sha256(one).hexdigest()[:8]}.JPG").write_bytes(one)
    classified(station, model)
    found = tree(tmp_path / "sorted")
    assert list(found.values()).count(one) == list(found.values()).count(two) == 1
    named = {row["path"].split("card/")[-1]: row["copied_to"] for row in rows(tmp_path / "t.csv")}
    assert found[named["cam1/100RECNX/IMG_0002.JPG"]] == one and found[named["cam2/100RECNX/IMG_0002.JPG"]] == two


def test_one_photo_in_two_camera_folders_is_copied_for_both(station, tmp_path, model):
    "A photo at the top and the same in a camera's folder are two copies: neither is taken for an older copy."
    (station / "IMG_0002.JPG").write_bytes((station / "cam1" / "100RECNX" / "IMG_0002.JPG").read_bytes())
    for _ in range(2):
        classified(station, model)
        assert {"sorted/red/IMG_0002.JPG", "sorted/red/cam1/100RECNX/IMG_0002.JPG"} <= set(tree(tmp_path / "sorted"))


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "json"])
def test_the_other_tables_name_the_copies_too(station, tmp_path, model, ending):
    done = typed("classify", station, "--model", model, "--out", f"t.{ending}", "--copy-to", "sorted", cwd=tmp_path,
                 SPECIES_WB_CACHE=str(tmp_path / "cache"))  # fmt: skip
    assert done.returncode == 0 and len(tree(tmp_path / "sorted")) == 9
    if ending == "parquet":
        assert set(read_table(tmp_path / "t.parquet")["copied_to"].to_pylist()) == set(tree(tmp_path / "sorted"))
    elif ending == "jsonl":
        assert (tmp_path / "t.jsonl").read_text().count('"copied_to": "sorted/') == 14


def test_a_full_disk_leaves_a_whole_table_that_names_what_was_copied_and_the_next_run_goes_on(
    station, tmp_path, model, monkeypatch
):
    real, written = Path.write_bytes, []

    def full(self, data):
        if "sorted" in self.parts and len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(self) if "sorted" in self.parts else None
        return real(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        done = typed("classify", station, "--model", model, "--out", "t.csv", "--copy-to", "sorted", cwd=tmp_path,
                     SPECIES_WB_CACHE=str(tmp_path / "cache"))  # fmt: skip
    assert done.returncode != 0 and "disk is full" in done.stderr
    table = rows(tmp_path / "t.csv")
    assert len(table) == 14 and {row["copied_to"] for row in table} - {""} == set(tree(tmp_path / "sorted"))
    classified(station, model)
    assert set(tree(tmp_path / "sorted")) == {f"sorted/{name}" for name in WHERE}
    assert all(row["copied_to"] for row in rows(tmp_path / "t.csv"))


def test_no_link_leads_a_copy_out_of_its_folder(station, tmp_path, model):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "sorted" / "red").mkdir(parents=True)
    (tmp_path / "sorted" / "red" / "cam1").symlink_to(outside)  # below the folder of a label, too
    done = typed("classify", station, "--model", model, "--out", "t.csv", "--copy-to", "sorted", cwd=tmp_path,
                 SPECIES_WB_CACHE=str(tmp_path / "cache"))  # fmt: skip
    assert done.returncode != 0 and "leads out of" in done.stderr and list(outside.iterdir()) == []
