"""Watching: each file one row, whatever happens to it, to the network, or to us."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from species_wb.engine import toy
from species_wb.engine.model_file import open_model
from species_wb.core import UserError
from species_wb.append_only import AppendOnlyTable, read_rows
from species_wb.photos.pixels import encode_jpeg
from species_wb.predictions import PREDICTIONS
from species_wb.survey.observations import events, read_observations
from species_wb.classify.answered_files import content
from species_wb.classify.watch import watch
from species_wb.classify.watch_tables import WATCHED

onnx = pytest.importorskip("onnx")


def photo(colour: int, size=(60, 80)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 60, (*size, 3), dtype=np.uint8)
    pixels[..., colour] += 180
    return encode_jpeg(pixels)


RED, GREEN, BLUE = (photo(c) for c in range(3))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    "A network that answers with the strongest colour; blue is none of these."
    return toy.write_toy(tmp_path_factory.mktemp("model") / "tiny.onnx", ["red", "green", "none of these"], [0, 1, -1], 5 * np.eye(3))


@pytest.fixture(scope="module")
def model(model_file):
    return open_model(model_file)


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    "Files come to rest sooner than outside of tests: nothing here is written for longer than a moment, but where a test says so."
    monkeypatch.setattr("species_wb.classify.arrivals.SETTLE", 0.2)


class Watching:
    "A watch in a thread, as a person starts and stops it."

    def __init__(self, model, source, out, **options):
        self.out, self.lines, self.stop, self.counts, self.error = Path(out), [], threading.Event(), None, None
        self.thread = threading.Thread(target=self.run, args=(model, source, out), kwargs=options)
        self.thread.start()

    def run(self, *given, **options):
        try:
            self.counts = watch(*given, say=self.lines.append, stop=self.stop, **options)
        except UserError as error:
            self.error = error

    def rows(self) -> list[dict]:
        return list(read_rows(self.out)) if self.out.exists() else []

    def until(self, count: int, seconds: float = 30):
        deadline = time.monotonic() + seconds
        while len(self.rows()) < count and time.monotonic() < deadline and self.thread.is_alive():
            time.sleep(0.05)
        assert len(self.rows()) >= count, (count, self.rows(), self.lines)
        return self

    def told(self, words: str, seconds: float = 30):
        deadline = time.monotonic() + seconds
        while not any(words in line for line in list(self.lines)) and time.monotonic() < deadline and self.thread.is_alive():
            time.sleep(0.05)
        assert any(words in line for line in self.lines), (words, self.lines)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


def names(watching) -> dict[str, str]:
    found = [os.path.basename(row["path"]) for row in watching.rows()]
    assert max(Counter(row["path"] for row in watching.rows() if not row["seconds"]).values(), default=1) == 1, "a file has two rows"
    return dict(zip(found, [row["label"] or row["status"] for row in watching.rows()], strict=True))


@pytest.fixture
def pond(tmp_path) -> Path:
    (tmp_path / "pond").mkdir()
    return tmp_path / "pond"


def test_what_lies_there_and_what_comes_gets_one_row_each(model, pond, tmp_path, monkeypatch):
    monkeypatch.setattr("species_wb.classify.arrivals.PATIENCE", 1.5)
    (pond / "old").mkdir()
    (pond / "old" / "a.jpg").write_bytes(RED)
    (pond / "note.txt").write_text("a text")
    (pond / "empty.jpg").touch()
    os.symlink("nowhere", pond / "link.jpg")
    (tmp_path / "aside").mkdir()
    for k in range(5):
        (tmp_path / "aside" / f"m{k}.jpg").write_bytes(GREEN)
    with Watching(model, pond, pond / "rows.csv", observations=pond / "events.csv", site="pond") as w:
        w.until(1)
        (pond / "b.jpg").write_bytes(GREEN)
        (pond / "new" / "deep").mkdir(parents=True)
        (pond / "new" / "deep" / "c.jpg").write_bytes(BLUE)
        (tmp_path / "aside").rename(pond / "moved in")
        (pond / ".hidden.jpg").write_bytes(RED)
        w.until(11)
        time.sleep(0.6)
    expected = {"a.jpg": "red", "b.jpg": "green", "c.jpg": "ok", "note.txt": "not-a-photo", "empty.jpg": "empty", "link.jpg": "link-loop"} | {f"m{k}.jpg": "green" for k in range(5)}
    assert names(w) == expected and w.counts["rows"] == 11 and w.counts["problems"] == 3
    assert list(w.rows()[0]) == WATCHED and {r["site"] for r in w.rows()} == {"pond"}
    (unknown,) = [r for r in w.rows() if r["path"].endswith("c.jpg")]
    assert unknown["abstained"] == "TRUE" and unknown["label_raw"] in ("red", "green")
    assert len(w.lines) == 2 + 11 and any("none of these (nearest" in line for line in w.lines) and any(f"{pond}/b.jpg  green 0." in line or f"{pond}/b.jpg  green 1.00" in line for line in w.lines)
    assert sorted(read_observations(pond / "events.csv")["label"].to_pylist()) == ["green", "red"]


def test_a_photo_that_is_being_written_is_waited_for(model, pond):
    with Watching(model, pond, pond / "rows.jsonl") as w:
        with (pond / "slow.jpg").open("wb") as slow:
            for at in range(0, len(GREEN), len(GREEN) // 7 + 1):  # 7 pieces, each after longer than a file takes to settle
                slow.write(GREEN[at : at + len(GREEN) // 7 + 1])
                slow.flush()
                time.sleep(0.45)
        w.until(1)
    assert [(r["status"], r["label"], r["seconds"]) for r in w.rows()] == [("ok", "green", None)]


def test_a_file_that_is_never_finished_ends_as_cut_short(model, pond, monkeypatch):
    monkeypatch.setattr("species_wb.classify.arrivals.PATIENCE", 2.0)
    with Watching(model, pond, pond / "rows.csv") as w:
        began = time.monotonic()
        (pond / "half.jpg").write_bytes(GREEN[: len(GREEN) // 2])
        w.until(1)
        assert time.monotonic() - began >= 2  # until then it may have been on its way
    assert names(w) == {"half.jpg": "cut-short"} and any("half.jpg is cut short" in line for line in w.lines)


def test_a_damaged_photo_is_answered_when_nothing_more_comes(model, pond, monkeypatch):
    "It may be a photo on its way of which only the end is missing."
    monkeypatch.setattr("species_wb.classify.arrivals.PATIENCE", 2.0)
    with Watching(model, pond, pond / "rows.csv") as w:
        began = time.monotonic()
        (pond / "torn.jpg").write_bytes(GREEN[:-2])
        w.until(1)
        assert time.monotonic() - began >= 2
    (row,) = w.rows()
    assert (row["status"], row["label"]) == ("ok", "green") and "the mark at the end of the file is missing" in row["reason"]
    assert any("torn.jpg  green" in line and row["reason"] in line for line in w.lines) and w.counts["problems"] == 0


def test_downloads_are_seen_under_their_last_name_only(model, pond):
    with Watching(model, pond, pond / "rows.csv") as w:
        for ending in (".part", ".crdownload", ".tmp"):
            (pond / f"{ending[1:]}.jpg{ending}").write_bytes(RED)
        (pond / ".rsync.jpg.Xy12").write_bytes(RED)
        (pond / "whole.jpg").write_bytes(GREEN)  # came last
        w.until(1)
        time.sleep(0.4)
        assert names(w) == {"whole.jpg": "green"}
        for path in list(pond.glob("[!.]*.jpg.*")):
            path.rename(path.with_suffix(""))
        (pond / ".rsync.jpg.Xy12").rename(pond / "rsync.jpg")
        w.until(5)
    assert names(w) == {"whole.jpg": "green", "part.jpg": "red", "crdownload.jpg": "red", "tmp.jpg": "red", "rsync.jpg": "red"}


def test_files_that_go_or_are_renamed_make_no_second_row(model, pond):
    with Watching(model, pond, pond / "rows.csv") as w:
        (pond / "a.jpg").write_bytes(RED)
        (pond / "b.jpg").write_bytes(RED)
        w.until(2)
        (pond / "a.jpg").rename(pond / "a2.jpg")  # it has its answer
        (pond / "sorted").mkdir()
        (pond / "b.jpg").rename(pond / "sorted" / "b.jpg")
        (pond / "gone.jpg").write_bytes(GREEN[:99])
        time.sleep(0.6)
        (pond / "gone.jpg").unlink()
        (pond / "sorted").rename(pond / "kept")
        (pond / "last.jpg").write_bytes(GREEN)
        w.until(3)
        time.sleep(0.6)
    assert names(w) == {"a.jpg": "red", "b.jpg": "red", "last.jpg": "green"} and any("gone.jpg was gone before it was read" in line for line in w.lines)


def test_the_same_command_goes_on_without_repeating(model, pond, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, seen = tmp_path / "rows.csv", tmp_path / "events.parquet"
    for k in range(3):
        (pond / f"{k}.jpg").write_bytes(RED)
    with Watching(model, "pond", out, observations=seen) as w:
        w.until(3)
    assert {r["path"] for r in w.rows()} == {f"pond/{k}.jpg" for k in range(3)}
    whole = out.read_bytes()
    out.write_bytes(whole + b'pond/3.jpg,,,"torn in the mi')
    for k in range(3, 5):
        (pond / f"{k}.jpg").write_bytes(GREEN)
    with Watching(model, pond, out, observations=seen) as w:  # the same folder, named otherwise
        w.until(5)
        time.sleep(0.6)
    assert names(w) == {"0.jpg": "red", "1.jpg": "red", "2.jpg": "red", "3.jpg": "green", "4.jpg": "green"} and w.counts["rows"] == 2
    assert out.read_bytes().startswith(whole) and sorted(read_observations(seen)["label"].to_pylist()) == ["green", "red"]


def test_another_folder_model_or_table_is_refused(model, pond, tmp_path):
    (pond / "a.jpg").write_bytes(RED)
    with Watching(model, pond, tmp_path / "rows.csv") as w:
        w.until(1)
    before = (tmp_path / "rows.csv").read_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    (tmp_path / "bad.parquet").write_text("no")
    other = type("Other", (), {"sha256": "f" * 64, "members": model.members})()
    for match, given, options in [
        ("not in", (model, tmp_path / "other", tmp_path / "rows.csv"), {}),
        ("another model", (other, pond, tmp_path / "rows.csv"), {}),
        ("another table", (model, pond, tmp_path / "mine.csv"), {}),
        ("csv or .jsonl", (model, pond, tmp_path / "rows.parquet"), {}),
        ("cannot be read", (model, pond, tmp_path / "new.csv"), {"observations": tmp_path / "bad.parquet"}),
        ("not there", (model, tmp_path / "nowhere", tmp_path / "new.csv"), {}),
        ("above 0", (model, pond, tmp_path / "new.csv"), {"every": 0}),
    ]:
        with pytest.raises(UserError, match=match):
            watch(*given, **options)
    assert (tmp_path / "rows.csv").read_bytes() == before and (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"


COMMAND = "import sys; from species_wb.engine.model_file import open_model; from species_wb.classify.watch import watch\nwatch(open_model(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], gap=2, say=lambda line: print(line, flush=True))"


def test_killed_again_and_again_it_loses_and_doubles_nothing(model_file, model, pond, tmp_path):
    rng = random.Random(5)
    out, seen = tmp_path / "rows.csv", tmp_path / "events.csv"
    given = [sys.executable, "-c", COMMAND, str(model_file), str(pond), str(out), str(seen)]
    written = 0
    for _ in range(4):
        process = subprocess.Popen(given, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()  # it watches
        deadline = time.monotonic() + 0.4 + rng.random()
        while time.monotonic() < deadline:
            (pond / f"{written:04d}.jpg").write_bytes((RED, GREEN)[written // 40 % 2])
            written += 1
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with Watching(model, pond, out, observations=seen, gap=2) as w:
        w.until(written, 60)
    assert written > 50 and len(names(w)) == written == len(w.rows())
    covered = read_observations(seen).to_pylist()
    assert len({o["event_id"] for o in covered}) == len(covered)
    assert {o["label"] for o in covered} == {"red", "green"}
    rows = [{**r, "abstained": False, "score": float(r["score"]), "seconds": None} for r in w.rows()]
    for row in rows:  # each answer lies in an event
        row["taken_at"] = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(os.stat(row["path"]).st_mtime))
    assert {e["label"] for e in events(rows, 2)} <= {o["label"] for o in covered}
    for row in rows:
        assert any(o["label"] == row["label"] and o["start"][:19] <= row["taken_at"][:19] <= o["end"][:19] for o in covered), (row["path"], row["taken_at"], row["label"], " ".join(o["start"][17:19] + "-" + o["end"][17:19] + o["label"] for o in covered))


def test_ctrl_c_writes_the_open_events_and_ends_in_good_order(model_file, pond, tmp_path):
    (pond / "a.jpg").write_bytes(RED)
    out, seen = tmp_path / "rows.csv", tmp_path / "events.csv"
    process = subprocess.Popen([sys.executable, "-c", COMMAND, str(model_file), str(pond), str(out), str(seen)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "Watching" in process.stdout.readline() and "a.jpg  red" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said, wrong = process.communicate(timeout=20)
    assert process.returncode == 0 and not wrong and "Stopped: 1 row written" in said
    assert read_observations(seen)["label"].to_pylist() == ["red"]


def test_a_taxonomy_and_a_list_name_what_arrives_and_what_the_list_did_stays_in_the_row(pond, tmp_path):
    "As a person types it: the species where it is sure, the list's own columns, one line for a table that cannot hold them."
    soft = toy.write_toy(tmp_path / "soft.onnx", temperature=4)
    (tmp_path / "taxa.csv").write_text("label,scientific,rank,parent,common_eng\nTurdus,Turdus,genus,,thrushes\nred,Turdus merula,species,Turdus,blackbird\ngreen,Turdus pilaris,species,Turdus,fieldfare\n")
    (tmp_path / "list.csv").write_text("taxon,site\nTurdus merula,garden\n")
    for place in ("garden", "wood"):
        (pond / place).mkdir()
        (pond / place / "b.jpg").write_bytes(GREEN)
    command = [str(Path(sys.executable).parent / "species-wb"), "watch", str(pond), "--model", str(soft), "--site", "{folder1}"]
    named = [*command, "--taxonomy", str(tmp_path / "taxa.csv"), "--list", str(tmp_path / "list.csv"), "--out", str(tmp_path / "t.csv")]
    process = subprocess.Popen(named, stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 0 and "list.csv weighed 1 answer and gave 1 row another name" in said, said
    inside, outside = sorted(read_rows(tmp_path / "t.csv"), key=lambda row: row["site"])
    assert (outside["label"], outside["taxon"], outside["rule"]) == ("green", "Turdus pilaris", "") and float(outside["score"]) > 0.8
    assert inside["label"] == "red" and inside["rule"] == "list list.csv" and inside["top"].startswith("red:")
    assert (inside["label_raw"], inside["taxon_raw"], inside["score_raw"]) == ("green", "Turdus pilaris", outside["score"])
    (line,) = (line for line in lines if "garden" in line)
    assert f"red {float(inside['score']):.2f} → blackbird (Turdus merula) {float(inside['taxon_score']):.2f}" in line
    bare = subprocess.run([*command, "--list", str(tmp_path / "list.csv")], capture_output=True, text=True, cwd=tmp_path)
    assert bare.returncode == 1 and bare.stderr.startswith("list.csv cannot be used, because this model has no taxonomy")
    AppendOnlyTable(tmp_path / "old.csv", WATCHED).close()
    old = subprocess.run([*named[:-1], str(tmp_path / "old.csv")], capture_output=True, text=True)
    assert old.returncode == 1 and "was begun without a taxonomy or a list of taxa (it has no column taxon_raw)" in old.stderr


def test_without_watchdog_the_folder_is_still_watched(model, pond, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    monkeypatch.setattr("species_wb.classify.arrivals.LOOK_ALONE", 0.75)
    with Watching(model, pond, tmp_path / "rows.csv") as w:
        w.told("The folder is searched for new files")
        time.sleep(0.3)  # the first look is over
        (pond / "a.jpg").write_bytes(RED)
        w.until(1)
    assert any("every 0.75 seconds" in line and "pip install" in line for line in w.lines)


def test_odd_names_and_a_folder_that_goes_and_comes_back(model, pond, tmp_path, monkeypatch):
    monkeypatch.setattr("species_wb.classify.arrivals.LOOK", 0.5)
    odd = [os.fsdecode(b"B\xe4r.jpg"), 'a "b", c\n.jpg', "ü.jpg"]
    for name in odd:
        (pond / name).write_bytes(RED)
    with Watching(model, pond, tmp_path / "rows.csv") as w:
        w.until(3)
        pond.rename(tmp_path / "away")
        w.told("cannot be read now")
        time.sleep(0.7)  # one more look
        (tmp_path / "away").rename(pond)
        (pond / "d.jpg").write_bytes(GREEN)
        w.until(4)
        w.told("pond is there again")
    assert len(names(w)) == 4 and sum("cannot be read now" in line for line in w.lines) == 1 and sum("pond is there again" in line for line in w.lines) == 1


def test_times_are_the_cameras_in_rows_and_the_files_in_events(model, pond, tmp_path):
    (pond / "a.jpg").write_bytes(RED)
    os.utime(pond / "a.jpg", (1_700_000_000, 1_700_000_000))
    with Watching(model, pond, tmp_path / "rows.csv", observations=tmp_path / "o.csv") as w:
        w.until(1)
    (found,) = read_observations(tmp_path / "o.csv").to_pylist()
    assert w.rows()[0]["taken_at"] == "" and found["start"].startswith("2023-11-1") and found["start"][-6] in "+-"


# --- one name, another content --------------------------------------------------------------------------------------------------

SIZE = max(len(RED), len(GREEN)) + 9  # the same for both
RED_, GREEN_ = (data + bytes(SIZE - len(data)) for data in (RED, GREEN))


def answers(watching) -> list[tuple[str, str]]:
    return [(os.path.basename(row["path"]), row["label"] or row["status"]) for row in watching.rows()]


def settled(watching, seconds: float = 1.2):
    "Wait for rows that should not come."
    time.sleep(seconds)
    return answers(watching)


@pytest.mark.parametrize("prompt", [True, False], ids=["watchdog", "looking"])
def test_a_file_overwritten_under_its_name_is_answered_again_and_a_touched_one_is_not(model, pond, tmp_path, monkeypatch, prompt):
    if not prompt:
        monkeypatch.setitem(sys.modules, "watchdog.observers", None)
        monkeypatch.setattr("species_wb.classify.arrivals.LOOK_ALONE", 0.3)
    (pond / "a.jpg").write_bytes(RED_)
    (pond / "b.jpg").write_bytes(RED)
    with Watching(model, pond, tmp_path / "rows.csv") as w:
        w.until(2)
        (pond / "a.jpg").write_bytes(GREEN_)  # a camera that counts anew; the size is the same
        w.until(3)
        os.utime(pond / "b.jpg")
        (pond / "a.jpg").write_bytes(GREEN_)  # copied over itself
        assert settled(w) == [("a.jpg", "red"), ("b.jpg", "red"), ("a.jpg", "green")]
        (pond / "a.jpg").rename(pond / "c.jpg")
        time.sleep(0.5)
        (pond / "c.jpg").rename(pond / "a.jpg")  # and back
        (pond / "upload").write_bytes(GREEN)
        assert ("upload", "green") in settled(w) and len(w.rows()) == (4 if prompt else 5)  # only watchdog tells of names
        os.replace(pond / "upload", pond / "b.jpg")  # as rsync and browsers do
        w.until(len(w.rows()) + 1)
    assert answers(w)[-1] == ("b.jpg", "green") and len({row["sha256"] for row in w.rows()}) == 4


def test_what_was_overwritten_while_nobody_watched_is_answered_again(model, pond, tmp_path, monkeypatch):
    out = tmp_path / "rows.csv"
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        (pond / name).write_bytes(RED_)
    with Watching(model, pond, out) as w:
        w.until(4)
    long_ago = time.time() - 86400
    os.utime(out, (long_ago, long_ago))  # a day has passed: nothing below is within the minutes that are looked at anyway
    monkeypatch.setattr("species_wb.classify.arrivals.os.stat", stat_of_then(long_ago - 9000, "d.jpg"))
    (pond / "a.jpg").write_bytes(GREEN_)
    os.utime(pond / "a.jpg", (long_ago - 3600, long_ago - 3600))  # a copy that kept the photo's time
    os.utime(pond / "b.jpg")
    (pond / "c.jpg").unlink()
    (pond / "c.jpg").write_bytes(RED_)  # the same photo, copied again
    read = []
    monkeypatch.setattr("species_wb.classify.watch.content", lambda path: read.append(path[-5:]) or content(path))
    with Watching(model, pond, out) as w:
        w.until(5)
        settled(w)
    assert answers(w)[4:] == [("a.jpg", "green")] and "d.jpg" not in read  # what did not change is not even read
    with Watching(model, pond, out) as w:
        (pond / "a.jpg").write_bytes(RED_)  # its first content again: that has its answer
        assert len(settled(w)) == 5


def stat_of_then(then: float, name: str):
    "os.stat, but the entry of one file has not changed since then: nobody can set this time."
    real = os.stat

    def stat(path, *given, **more):
        found = real(path, *given, **more)
        if not str(path).endswith(name):
            return found
        return os.stat_result([*found[:7], *([int(then)] * 3)], {"st_mtime_ns": int(then * 1e9), "st_mtime": then, "st_ctime": then})

    return stat


def test_an_upload_that_broke_off_is_answered_when_it_is_whole_and_a_growing_text_has_one_row(model, pond, tmp_path, monkeypatch):
    monkeypatch.setattr("species_wb.classify.arrivals.PATIENCE", 0.6)
    (pond / "a.jpg").write_bytes(GREEN[: len(GREEN) // 2])
    (pond / "log.txt").write_text("one line\n")
    with Watching(model, pond, tmp_path / "rows.csv") as w:
        w.until(2)
        (pond / "a.jpg").write_bytes(GREEN)
        w.until(3)
        for _ in range(3):
            with (pond / "log.txt").open("a") as log:
                log.write("another line\n")
            settled(w, 1.0)
    assert sorted(answers(w)) == [("a.jpg", "cut-short"), ("a.jpg", "green"), ("log.txt", "not-a-photo")]
    with Watching(model, pond, tmp_path / "rows.csv") as w:
        (pond / "log.txt").write_text("other lines\n")
        assert len(settled(w)) == 3


def test_a_watch_that_an_earlier_version_began_goes_on_without_answering_everything_again(model, pond, tmp_path, monkeypatch):
    from test_video import write_film

    pytest.importorskip("av")
    monkeypatch.setattr("species_wb.classify.arrivals.PATIENCE", 0.6)
    write_film(pond / "film.mp4", seconds=3)
    for name in ("a.jpg", "b.jpg"):
        (pond / name).write_bytes(RED)
    (pond / "note.txt").write_text("a text")
    out = tmp_path / "rows.csv"
    with Watching(model, pond, out, observations=tmp_path / "o.csv") as w:
        w.until(6)
    rows = [{**row, "sha256": row["sha256"] if row["path"].endswith("jpg") else ""} for row in w.rows()]
    earlier = [name for name in PREDICTIONS.names if name not in ("frame_rate", "taken_from")]
    out.unlink()
    with AppendOnlyTable(out, earlier) as table:
        table.append(rows)
    before = out.read_bytes()
    (pond / "b.jpg").write_bytes(GREEN)
    (pond / "c.jpg").write_bytes(GREEN)
    os.utime(pond / "note.txt")
    with Watching(model, pond, out, observations=tmp_path / "o.csv") as w:
        w.until(8)
        settled(w, 1.5)
    assert out.read_bytes().startswith(before) and sorted(answers(w)[6:]) == [("b.jpg", "green"), ("c.jpg", "green")]
    assert list(w.rows()[0]) == earlier


class TestFilms:
    @pytest.fixture(autouse=True)
    def needs_av(self):
        pytest.importorskip("av")

    def test_a_film_is_sampled_once_it_has_come_to_rest(self, model, pond, tmp_path, monkeypatch):
        from test_video import write_film

        monkeypatch.setattr("species_wb.classify.arrivals.PATIENCE", 2.5)
        whole = write_film(tmp_path / "film.mp4", movflags="faststart").read_bytes()
        with Watching(model, pond, tmp_path / "rows.csv", observations=tmp_path / "o.csv", gap=1) as w:
            (pond / "film.mp4").write_bytes(whole[: len(whole) // 2])
            time.sleep(1)
            (pond / "film.mp4").write_bytes(whole)
            w.until(4)
            (pond / "cut.mp4").write_bytes(whole[: len(whole) * 3 // 4])
            w.until(7)
            time.sleep(0.6)
        found = [(os.path.basename(r["path"]), r["seconds"], r["label"] or r["status"]) for r in w.rows()]
        assert found[:4] == [("film.mp4", "0", "red"), ("film.mp4", "1", "green"), ("film.mp4", "2", "ok"), ("film.mp4", "3", "red")]
        assert found[4:6] == [("cut.mp4", "0", "red"), ("cut.mp4", "1", "green")] and found[-1] == ("cut.mp4", "", "cut-short")
        assert len(read_observations(tmp_path / "o.csv")) >= 3

    def test_an_interrupted_film_goes_on_behind_its_last_frame(self, model, pond, tmp_path, monkeypatch):
        from test_video import write_film

        monkeypatch.setattr("species_wb.classify.arrivals.PATIENCE", 0.5)
        write_film(pond / "film.mp4", seconds=6)
        out = tmp_path / "rows.csv"
        with Watching(model, pond, out) as w:
            w.until(6)
        lines = out.read_bytes().splitlines(keepends=True)
        out.write_bytes(b"".join(lines[:4]))  # the header and three frames
        with Watching(model, pond, out) as w:
            w.until(6)
            time.sleep(0.6)
        assert [r["seconds"] for r in w.rows()] == [str(k) for k in range(6)] and w.counts["rows"] == 3

    def test_another_film_under_the_same_name_is_answered_again(self, model, pond, tmp_path, monkeypatch):
        from test_video import write_film

        monkeypatch.setattr("species_wb.classify.arrivals.PATIENCE", 0.5)
        write_film(pond / "film.mp4", seconds=2)
        out, other = tmp_path / "rows.csv", write_film(tmp_path / "other.mp4", seconds=3, fps=8).read_bytes()
        with Watching(model, pond, out) as w:
            w.until(2)
            os.utime(pond / "film.mp4")
            assert len(settled(w, 2)) == 2
            (pond / "film.mp4").write_bytes(other)
            w.until(5)
        assert [r["seconds"] for r in w.rows()] == ["0", "1", "0", "1", "2"] and len({r["sha256"] for r in w.rows()}) == 2
        write_film(pond / "film.mp4", seconds=1)
        with Watching(model, pond, out) as w:
            w.until(6)
            assert len(settled(w, 2)) == 6

    def test_a_stream_that_breaks_and_comes_back(self, model, tmp_path):
        from test_video import Broadcast, write_film

        camera = Broadcast(write_film(tmp_path / "film.ts", seconds=6, size=(320, 240)))
        source = f"http://ada:s3cret@127.0.0.1:{camera.port}/live"
        try:
            with Watching(model, source, tmp_path / "rows.csv", observations=tmp_path / "o.csv", every=0.3, gap=5, site="feeder") as w:
                w.until(3, 60)
                camera.on.clear()
                end = time.monotonic() + 60
                while not camera.sent_away and time.monotonic() < end:
                    time.sleep(0.05)
                before = len(w.rows())
                camera.on.set()
                w.until(before + 3, 60)
        finally:
            camera.close()
        text = "".join(w.lines) + (tmp_path / "rows.csv").read_text() + (tmp_path / "o.csv").read_text()
        assert "s3cret" not in text and "ada" not in text
        assert sum("broke off" in line for line in w.lines) == 1 and sum("answers:" in line for line in w.lines) == 1
        times = [r["taken_at"] for r in w.rows()]
        assert times == sorted(times) and all(t[-6] in "+-" for t in times)
        assert {r["path"] for r in w.rows()} == {f"http://127.0.0.1:{camera.port}/live"} and len(read_observations(tmp_path / "o.csv")) >= 1

    def test_a_film_played_as_a_stream_says_each_change_once_and_ends(self, model, tmp_path):
        from test_video import write_film

        path = write_film(tmp_path / "film.mp4", seconds=4)
        began = time.monotonic()
        with Watching(model, path, tmp_path / "rows.csv", every=0.3) as w:
            w.thread.join(20)
        assert time.monotonic() - began > 3.5  # at its own speed
        assert 4 <= w.counts["rows"] <= 15  # every 0.3 s, not 40
        said = [line.split("  ")[2] for line in w.lines if line.count("  ") >= 2]
        assert [s.split()[0] for s in said] == ["red", "green", "none", "red"] and any("has ended" in line for line in w.lines)


def test_the_help_names_the_gap_that_is_used():
    from typer.testing import CliRunner

    from species_wb.cli import app
    from species_wb.survey.observations import GAP

    said = " ".join(CliRunner().invoke(app, ["watch", "--help"], env={"COLUMNS": "300"}).output.split())
    assert f"{GAP:g} if not given" in said
