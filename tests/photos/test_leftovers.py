"""What programs leave behind is no photo: no row, no class, said once; and what is no plain file never waits."""

import os
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from test_cli import BIN, one_sentence
from test_job import coloured, rows, typed
from test_scan import encoded, picture, tree

from species_wb.classify import job, watch
from species_wb.classify.arrivals import begins_as_film
from species_wb.classify.resume import Job, Task
from species_wb.engine import model_file
from species_wb.photos import sources
from species_wb.photos.findings import findings
from species_wb.photos.findings_text import sentences
from species_wb.photos.scan import scan

pytestmark = pytest.mark.usefixtures("workspace", "own_cache")


# Of the issue: the first nine; found beside them: a NAS of QNAP, Android's bin, half of a copy by rsync, Lightroom's
# previews, a version of Syncthing, what NFS keeps of an open file.
LEFT = {
    "@eaDir/owl.jpg/SYNOPHOTO_THUMB_M.jpg": "@eaDir", ".ipynb_checkpoints/owl-checkpoint.jpg": ".ipynb_checkpoints",
    ".Trashes/501/owl.jpg": ".Trashes", "$RECYCLE.BIN/S-1-5-21/$R1.jpg": "$RECYCLE.BIN", "__MACOSX/._owl.jpg": "__MACOSX",
    ".thumbnails/1.jpg": ".thumbnails", "owl.jpg.part": "*.part", "owl.jpg_original": "*_original", "owl.jpg~": "*~",
    ".@__thumb/s800owl.jpg": ".@__thumb", ".trashed-1716900000-owl.jpg": ".trashed-*", ".owl.jpg.Ab12cD": ".*.??????",
    "Trips Previews.lrdata/1.jpg": "*.lrdata", ".stversions/owl~20240501-101010.jpg": ".stversions", ".nfs0000abcd": ".nfs*",
    ".DS_Store": ".DS_Store", "Thumbs.db": "Thumbs.db", "._owl.jpg": "._*", "#recycle/owl.jpg": "#recycle",
}  # fmt: skip
KEPT = ("owl.jpg", ".hidden.jpg", "part.jpg", "originals/owl.jpg", "~owl.jpg", "Trashes/owl.jpg", "owl original.jpg")


def leave(folder: Path) -> Path:
    for k, name in enumerate((*LEFT, *KEPT)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(coloured("red", k))
    return folder


def told(lines: list[str]) -> str:
    (said,) = [line for line in lines if "files and folders of other programs" in line]
    return said


def check_told(said: str) -> None:
    for kind in LEFT.values():
        assert said.count(f"{kind} (") == 1 or f"{kind}," in said or said.endswith(f"{kind}."), (kind, said)
    assert f"{len(LEFT)} files and folders" in said


def test_classify_leaves_them_out_and_says_so_once(tmp_path, model):
    folder = leave(tmp_path / "card")
    done = typed("classify", folder, "--model", model, "--out", tmp_path / "t.csv")
    assert sorted(row["path"] for row in rows(tmp_path / "t.csv")) == sorted(KEPT), done.stderr
    check_told(told(done.stdout.splitlines()))
    again = typed("classify", folder, "--model", model, "--out", tmp_path / "t.csv")
    assert told(again.stdout.splitlines()) == told(done.stdout.splitlines())


def test_members_of_an_archive_and_files_of_an_address_too(tmp_path, model):
    folder = leave(tmp_path / "card")
    with zipfile.ZipFile(tmp_path / "card.zip", "w") as archive:
        for name in (*LEFT, *KEPT):
            archive.write(folder / name, name)
    done = typed("classify", tmp_path / "card.zip", "--model", model, "--out", tmp_path / "t.csv")
    assert sorted(row["member"] for row in rows(tmp_path / "t.csv")) == sorted(KEPT)
    check_told(told(done.stdout.splitlines()))
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for name in (*LEFT, *KEPT):
        system.pipe(f"/left/{name}", (folder / name).read_bytes())
    done = typed("classify", "memory://left", "--model", model, "--out", tmp_path / "m.csv")
    assert sorted(row["path"] for row in rows(tmp_path / "m.csv")) == sorted(KEPT)
    check_told(told(done.stdout.splitlines()))


def test_of_several_that_are_named_they_are_left_out_and_one_alone_is_meant(tmp_path, model):
    folder = leave(tmp_path / "card")
    typed("classify", "card/*", "--model", model, "--out", tmp_path / "t.csv", cwd=tmp_path)
    assert {row["path"] for row in rows(tmp_path / "t.csv")} == {name for name in KEPT if not name.startswith(".")}
    assert typed("classify", folder / "owl.jpg_original", "--model", model).stdout.startswith("red")
    typed("classify", folder / ".Trashes", "--model", model, "--out", tmp_path / "u.csv")
    assert [row["path"] for row in rows(tmp_path / "u.csv")] == ["501/owl.jpg"]


def test_they_are_no_class_of_a_training_set(tmp_path):
    root = leave(tree(tmp_path / "train", {"Aves": 3, "Fungi": 3}))
    for k, name in enumerate(("Aves/@eaDir/000.jpg/SYNOPHOTO_THUMB_S.jpg", "Aves/000.jpg_original", "@Recycle/a.jpg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(picture(100 + k)))
    found = findings(scan(root))
    assert not {"@eaDir", "$RECYCLE.BIN", "#recycle", "@Recycle", "Trips Previews.lrdata"} & set(found["classes"])
    assert sum(found["classes"]["Aves"].values()) == 3 and set(found["classes"]) == {"Aves", "Fungi", "Trashes", "originals"}
    said = told(sentences(found))
    assert "@eaDir (2)" in said and f"{len(LEFT) + 3} files and folders" in said
    assert told(sentences(findings(scan(root)))) == said  # from the cache
    assert scan(root).num_rows == 6 + len(KEPT)


def test_a_watch_passes_them_over_and_says_so_at_its_end(tmp_path, model):
    folder, lines, stop = leave(tmp_path / "card"), [], threading.Event()
    loaded = model_file.open_model(model, 1)
    given = (loaded, folder, tmp_path / "w.csv", None, 1.0, 60.0, None, lines.append, stop)
    thread = threading.Thread(target=watch.watch, args=given)
    thread.start()
    wanted = {str(folder / name) for name in KEPT if not name.startswith(".")}  # hidden ones are being written
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(rows(tmp_path / "w.csv") if (tmp_path / "w.csv").exists() else ()) < len(wanted):
        time.sleep(0.05)
    stop.set()
    thread.join(20)
    assert {row["path"] for row in rows(tmp_path / "w.csv")} == wanted
    check_told(told(lines))


# --- classes that look alike ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="these names are one folder there")
@pytest.mark.parametrize("one, other", [
    ("Fox", "fox"), ("owl ", "owl"), ("Vulpes vulpes", "Vulpes_vulpes"), ("red  fox", "red fox"), ("fox\u00a0", "fox"),
    ("ｆｏｘ", "fox"),
])  # fmt: skip
def test_classes_that_look_alike_are_said_and_not_merged(tmp_path, one, other):
    found = findings(scan(tree(tmp_path / "train", {one: 2, other: 2, "Aves": 2})))
    assert set(found["classes"]) == {one, other, "Aves"}
    (said,) = [line for line in sentences(found) if "look alike" in line]
    assert f"'{one}'" in said.replace("\\xa0", "\u00a0") and f"'{other}'" in said


# --- photos and other files ----------------------------------------------------------------------------------------------------


def test_counts_and_shares_are_of_photos(tmp_path, model):
    folder = tmp_path / "card"
    folder.mkdir()
    for k in range(4):
        (folder / f"{k}.jpg").write_bytes(coloured("red" if k else "green", k))
    (folder / "cut.jpg").write_bytes(coloured("red")[:200])
    for name, data in (("notes.txt", b"a note"), ("readme", b"read me"), ("empty.txt", b""), ("card.ctg", b"\0" * 99)):
        (folder / name).write_bytes(data)
    done = typed("classify", folder, "--model", model, "--out", tmp_path / "t.csv")
    assert len(rows(tmp_path / "t.csv")) == 9  # each file has its row
    assert "5 photos: 4 answered, 0 not sure, 1 with no answer; 4 other files." in done.stdout
    shares = [line.split()[:3] for line in done.stdout.splitlines() if line.startswith(("red", "green"))]
    assert shares == [["red", "3", "60.0%"], ["green", "1", "20.0%"]]


# --- what is no plain file never waits -----------------------------------------------------------------------------------------


@pytest.fixture
def pipes(tmp_path) -> Path:
    "A folder with a photo, a pipe, a socket, and links to a pipe and to a photo."
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes in folders")
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(coloured("red"))
    for name in ("pipe.jpg", "clip.mp4", "card.zip", "pipe"):
        os.mkfifo(folder / name)
    here = os.getcwd()
    os.chdir(folder)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket.jpg")
    os.chdir(here)
    (folder / "zlink.jpg").symlink_to("pipe.jpg")
    (folder / "zlinked.jpg").symlink_to("a.jpg")
    return folder


STATUS = dict.fromkeys(("pipe.jpg", "clip.mp4", "card.zip", "pipe", "socket.jpg", "zlink.jpg"), "not-a-file")
STATUS |= {"a.jpg": "ok", "zlinked.jpg": "ok"}


def in_time(function, seconds: float = 20):
    "Call a function; fail where it waits."
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(function()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert outcome, "it waits"
    return outcome[0]


@pytest.mark.parametrize("before", ["", "file://", "local://", "simplecache::file://"])
def test_a_pipe_never_waits_whatever_stands_before_its_folder(pipes, model, tmp_path, before):
    if before == "simplecache::file://":
        pytest.importorskip("fsspec")
    done = in_time(lambda: typed("classify", f"{before}{pipes}", "--model", model, "--out", tmp_path / "t.csv"))
    assert done.returncode == 0, done.stderr
    assert {row["path"]: row["status"] for row in rows(tmp_path / "t.csv")} == STATUS
    for row in rows(tmp_path / "t.csv"):
        assert row["status"] == "ok" or "a pipe" in row["reason"]


@pytest.mark.parametrize("before", ["", "file://", "simplecache::file://"])
def test_a_pipe_that_is_named_never_waits(pipes, model, tmp_path, before):
    for name in ("pipe.jpg", "clip.mp4"):
        words = ("classify", f"{before}{pipes / name}", "--model", model, "--out", tmp_path / "t.csv", "--fresh")
        assert in_time(lambda words=words: typed(*words)).returncode == 0
        assert [row["status"] for row in rows(tmp_path / "t.csv")] == ["not-a-file"]


def test_a_spaced_address_of_a_browser_is_that_folder(tmp_path, model):
    (tmp_path / "my card").mkdir()
    (tmp_path / "my card" / "a.jpg").write_bytes(coloured("red"))
    done = typed("classify", f"file://{tmp_path}/my%20card", "--model", model, "--out", tmp_path / "t.csv")
    assert done.returncode == 0 and [row["path"] for row in rows(tmp_path / "t.csv")] == ["a.jpg"]


def test_pipes_devices_and_links_in_lists_and_archives(pipes, model, tmp_path, monkeypatch):
    where = sources.sources([], [str(pipes / "pipe.jpg"), "/dev/zero", "/dev/null", str(pipes / "socket.jpg")])
    loaded = model_file.open_model(model, 1)
    todo = Job(tmp_path / "l.csv", where, Task(where.root), loaded.sha256)
    in_time(lambda: job.run_job(todo, loaded, job.here(loaded)))
    assert [row["status"] for row in rows(tmp_path / "l.csv")] == ["not-a-file"] * 4
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        for name, mode, data in [
            ("a.jpg", stat.S_IFREG, coloured("red")), ("b.jpg", 0, coloured("green")), ("link.jpg", stat.S_IFLNK, b"a.jpg"),
            ("pipe.jpg", stat.S_IFIFO, b""), ("device.jpg", stat.S_IFCHR, b""), ("socket.jpg", stat.S_IFSOCK, b""),
            ("block.jpg", stat.S_IFBLK, coloured("red")),
        ]:  # fmt: skip
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, (mode | 0o644) << 16
            archive.writestr(entry, data)
    typed("classify", tmp_path / "odd.zip", "--model", model, "--out", tmp_path / "z.csv")
    found = {row["member"]: row["status"] for row in rows(tmp_path / "z.csv")}
    assert found == {"a.jpg": "ok", "b.jpg": "ok"} | dict.fromkeys(
        ("link.jpg", "pipe.jpg", "device.jpg", "socket.jpg", "block.jpg"), "not-a-file"
    )


def test_a_store_that_tells_of_pipes_or_of_nothing_is_not_opened(tmp_path, model, monkeypatch):
    "SFTP calls a pipe a file of no bytes, and opening it would wait on the other side; tar archives tell of other kinds."
    fsspec = pytest.importorskip("fsspec")
    system, opened = fsspec.filesystem("memory"), []
    system.pipe({"/sftp/a.jpg": coloured("red"), "/sftp/pipe.jpg": b"", "/sftp/other.jpg": b"x"})
    real_info, real_ls, real_open = type(system).info, type(system).ls, type(system)._open

    def info(self, path, **more):
        said = real_info(self, path, **more)
        return said | {"type": "other"} if path.endswith("other.jpg") else said

    def ls(self, path, detail=True, **more):
        found = real_ls(self, path, detail=detail, **more)
        return [f | {"type": "other"} if f["name"].endswith("other.jpg") else f for f in found] if detail else found

    monkeypatch.setattr(type(system), "info", info)
    monkeypatch.setattr(type(system), "ls", ls)
    monkeypatch.setattr(type(system), "_open", lambda self, path, *a, **k: opened.append(path) or real_open(self, path, *a, **k))
    done = typed("classify", "memory://sftp", "--model", model, "--out", tmp_path / "t.csv")
    found = {row["path"]: row["status"] for row in rows(tmp_path / "t.csv")}
    assert found == {"a.jpg": "ok", "pipe.jpg": "empty", "other.jpg": "not-a-file"}, done.stderr
    assert opened == ["/sftp/a.jpg"]


def test_a_pipe_that_somebody_writes_to_ends_no_watch(pipes, model, tmp_path, monkeypatch):
    monkeypatch.setattr("species_wb.classify.arrivals.PATIENCE", 0.3)
    monkeypatch.setattr("species_wb.classify.arrivals.SETTLE", 0.1)
    writer = os.open(pipes / "pipe.jpg", os.O_RDWR | os.O_NONBLOCK)  # and writes nothing yet
    try:
        assert in_time(lambda: begins_as_film(str(pipes / "pipe.jpg"))) is False
        lines, stop, failed = [], threading.Event(), []
        loaded = model_file.open_model(model, 1)

        def watching():
            try:
                watch.watch(loaded, pipes, tmp_path / "w.csv", say=lines.append, stop=stop)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=watching, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and len(rows(tmp_path / "w.csv") if (tmp_path / "w.csv").exists() else ()) < len(STATUS):
            time.sleep(0.05)
        stop.set()
        thread.join(10)
    finally:
        os.close(writer)
    assert not failed and not thread.is_alive()
    assert {os.path.basename(row["path"]): row["status"] for row in rows(tmp_path / "w.csv")} == STATUS


def test_a_model_a_film_or_a_folder_that_is_a_pipe_is_a_sentence(pipes, model, tmp_path):
    os.mkfifo(pipes / "pipe.csv")
    for words in (["classify", pipes / "a.jpg", "--model", pipes / "pipe"], ["photos", "check", pipes / "pipe"],
                  ["photos", "check", pipes / "pipe.csv"]):  # fmt: skip
        assert one_sentence(in_time(lambda words=words: typed(*words, cwd=tmp_path)))
    words = [str(BIN / "species-wb"), "watch", str(pipes / "clip.mp4"), "--model", str(model)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "not a film" in done.stdout + done.stderr and "Traceback" not in done.stderr
