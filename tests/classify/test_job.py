"""The engine and the command `classify`: one row for every file, jobs that go on, and a sentence for whatever is wrong."""

import base64
import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_cli import BIN, one_sentence
from test_cli import typed as typed_alone
from test_scan import odd_files

from species_wb import cli
from species_wb.classify import job, remaining
from species_wb.classify.resume import Job, Task, begun
from species_wb.engine import model_file, predict, toy
from species_wb.fields import text_path
from species_wb.photos import sources
from species_wb.contracts import METADATA_KEY, ModelInfo, ModelSpec, info_to_json, read_table
from species_wb.core import UserError
from species_wb.photos.pixels import encode_jpeg

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20)}


pytestmark = pytest.mark.usefixtures("own_cache")


def typed(*words, cwd=None, **environment) -> subprocess.CompletedProcess:
    "What the command line says and does, without a second of imports: `typed_alone` is for what needs a process of its own."
    said, wrong, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(wrong):
        patch.setattr(sys, "argv", ["species-wb", *map(str, words)])
        patch.setenv("SPECIES_WB_PROGRESS", "lines")
        patch.chdir(cwd or Path.cwd())
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(words, code, said.getvalue(), wrong.getvalue())


def network_of_edges(path: Path, labels: list[str], filters: np.ndarray, head: np.ndarray, bias: np.ndarray, size: int = 224) -> Path:  # K×3×h×w, K×C, C
    "A model file of one convolution, whose answers depend on every pixel."
    values = {"filters": filters.astype(np.float32), "axes": np.array([2, 3]), "head": head.astype(np.float32), "bias": bias.astype(np.float32)}
    nodes = [
        ("Cast", ["pixels"], "floats", {"to": TensorProto.FLOAT}), ("Transpose", ["floats"], "planes", {"perm": [0, 3, 1, 2]}), ("Conv", ["planes", "filters"], "edges", {"strides": [8, 8]}),
        ("Relu", ["edges"], "found", {}), ("ReduceMean", ["found", "axes"], "embedding", {"keepdims": 0}), ("Gemm", ["embedding", "head", "bias"], "logits", {}),
    ]  # fmt: skip
    taken = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", size, size, 3])
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", length]) for name, length in (("logits", len(labels)), ("embedding", len(filters)))]
    graph = helper.make_graph([helper.make_node(kind, names, [out], **more) for kind, names, out, more in nodes], "edges", [taken], given, [numpy_helper.from_array(value, name) for name, value in values.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    info = ModelInfo(labels, list(range(len(labels))), ModelSpec("edges", size, (0.5,) * 3, (0.5,) * 3))
    helper.set_model_props(model, {METADATA_KEY: info_to_json(info)})
    onnx.save(model, path)
    return path


@cache
def coloured(name: str, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(-15, 15, (24, 30, 3))
    return encode_jpeg(np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8))


def card(folder: Path, count: int) -> Path:
    "A memory card: every third photo is green; of many, some look alike."
    for k in range(count):
        place = folder / f"{100 + k // 100}MEDIA"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"IMG_{k:05}.JPG").write_bytes(coloured("red" if k % 3 else "green", k % 99))
    return folder


def rows(path: Path) -> list[dict]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


# --- one row for every file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ("csv", "jsonl", "parquet"))
def test_every_odd_file_gets_one_row_with_the_right_status(tmp_path, model, ending):
    wanted = odd_files(tmp_path / "photos")
    out = tmp_path / f"found.{ending}"
    done = typed_alone("classify", tmp_path / "photos", "--model", model, "--out", out)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    found = read_table(out).to_pylist() if ending == "parquet" else rows(out)
    assert len(found) == len(wanted) >= 60
    status = {row["path"]: row["status"] for row in found}
    film = next(path for path in wanted if path.endswith("film.mp4"))
    assert status.pop(film) in ("not-a-photo", "cut-short", "unreadable")  # a film by its name that holds no film
    assert status == {path: said for path, said in wanted.items() if path != film}
    for row in found:
        assert (row["label"] in COLOURS) == (row["status"] == "ok") and (row["status"] == "ok" or row["reason"].endswith("."))
    statuses = Counter(row["status"] for row in found)
    good, others = statuses["ok"], sum(statuses[other] for other in ("not-a-photo", "not-a-file", "link-loop"))
    bad = len(wanted) - good - others
    said = f"{good + bad} photos: {good} answered, 0 not sure, {bad} with no answer; {others} other files."
    assert said in done.stdout


def test_an_archive_is_read_member_by_member_and_nothing_is_unpacked(tmp_path, model):
    with zipfile.ZipFile(tmp_path / "card.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in (("../../escape.jpg", coloured("red")), ("/etc/cron.d/x.jpg", coloured("green")), ("DCIM/ü 🦊.jpg", coloured("red")), ("notes.txt", b"text"), ("empty.jpg", b""), ("inner.zip", b"PK\3\4")):
            archive.writestr(name, data)
        with archive.open("large.jpg", "w") as large:
            for _ in range(300):
                large.write(bytes(1_000_000))
        archive.mkdir("folder")
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    shutil.move(tmp_path / "card.zip", deep)
    done = typed("classify", "card.zip", "--model", model, "--out", "found.jsonl", cwd=deep)
    found = rows(deep / "found.jsonl")
    assert [(r["path"], r["member"], r["status"], r["label"]) for r in found] == [
        ("card.zip", "../../escape.jpg", "ok", "red"), ("card.zip", "/etc/cron.d/x.jpg", "ok", "green"), ("card.zip", "DCIM/ü 🦊.jpg", "ok", "red"), ("card.zip", "notes.txt", "not-a-photo", None),
        ("card.zip", "empty.jpg", "empty", None), ("card.zip", "inner.zip", "not-a-photo", None), ("card.zip", "large.jpg", "too-large", None)]
    assert done.returncode == 0 and "300.0 MB" in found[-1]["reason"]
    assert not list(tmp_path.rglob("*.jpg")) and not list(tmp_path.parent.glob("*.jpg")) and not Path("/etc/cron.d/x.jpg").exists()


# an archive of one member a.jpg, 400,000,000 zeros packed by bzip2; packing them takes four seconds
BOMB = zlib.decompress(base64.b85decode("c-jl_W@gc2U|`?@Vnqi3&ue>(7=g@|>*B0HDp4=1Al)e{!_v?(QY|==kMq%e#`r!5h64-?9108u4Zdzp3shHfHB28F@=7}=vNHU3JqVI#XaK1=!?`N6Gf3gqij@KtyC-QLYH2$VdsrdBn~_P68F#S4Km$k&637AGtZX0-BM=$`=}@o~0G{P<cm"))


def test_damaged_locked_and_lying_archives_are_rows(tmp_path, model):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a.jpg", coloured("red"))
    data = whole.getvalue()
    locked = bytearray(data)
    for mark in (b"PK\3\4", b"PK\1\2"):
        locked[data.index(mark) + (6 if mark == b"PK\3\4" else 8)] |= 1
    endless = bytearray(data)  # says that its list of members has four gigabytes
    at = data.index(b"PK\5\6")
    endless[at + 12 : at + 16] = (2**32 - 2).to_bytes(4, "little")
    flipped = bytearray(data)
    flipped[60:64] = b"????"
    (member,) = zipfile.ZipFile(io.BytesIO(BOMB)).infolist()
    assert (member.filename, member.file_size, member.compress_type) == ("a.jpg", 400_000_000, zipfile.ZIP_BZIP2)
    nameless = bytearray(data.replace(b"a.jpg", b"\0.jpg"))
    nothing = io.BytesIO()
    zipfile.ZipFile(nothing, "w").close()
    folder = tmp_path / "zips"
    folder.mkdir()
    for name, content in (("bomb.zip", BOMB), ("nameless.zip", nameless), ("nothing.zip", nothing.getvalue()), ("cut.zip", data[:-30]), ("endless.zip", endless), ("flipped.zip", flipped), ("locked.zip", locked), ("text.zip", b"no archive"), ("void.zip", b"")):
        (folder / name).write_bytes(content)
    typed_alone("classify", folder, "--model", model, "--out", tmp_path / "found.jsonl")
    found = {Path(r["path"]).name: (r["status"], r["reason"]) for r in rows(tmp_path / "found.jsonl")}
    assert {name: status for name, (status, _) in found.items()} == {"cut.zip": "cut-short", "endless.zip": "too-large", "flipped.zip": "unreadable", "locked.zip": "unreadable", "text.zip": "not-a-photo", "void.zip": "empty", "bomb.zip": "unreadable", "nameless.zip": found["nameless.zip"][0], "nothing.zip": "empty"}
    assert "password" in found["locked.zip"][1]


def test_a_list_on_standard_input_may_name_what_is_not_there(tmp_path, model):
    (tmp_path / "a b.jpg").write_bytes(coloured("red"))
    words = [str(BIN / "species-wb"), "classify", "-", "--model", str(model), "--out", "found.csv"]
    done = subprocess.run(words, input=b"a b.jpg\0gone.jpg\0", cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert [(r["path"], r["status"]) for r in rows(tmp_path / "found.csv")] == [("a b.jpg", "ok"), ("gone.jpg", "missing")]


def test_paths_are_relative_to_the_folder_however_it_was_typed(tmp_path, model):
    card(tmp_path / "card", 3)
    (tmp_path / "other").mkdir()
    for typed_as, cwd in (("card", tmp_path), ("../card", tmp_path / "other"), (str(tmp_path / "card"), tmp_path), (".", tmp_path / "card"), ("card/*/IMG_0000?.JPG", tmp_path)):
        typed("classify", typed_as, "--model", model, "--out", tmp_path / "found.csv", "--fresh", cwd=cwd)
        paths = [r["path"] for r in rows(tmp_path / "found.csv")]
        root = tmp_path / "card" / ("100MEDIA" if "*" in typed_as else "")
        assert len(paths) == 3 and all((root / p).exists() for p in paths), paths
    kept = tmp_path / "found.parquet"
    typed("classify", "card", "--model", model, "--out", kept, cwd=tmp_path)
    table = read_table(kept)
    assert all((Path(text_path(table.schema.metadata[b"root"].decode())) / p).exists() for p in table["path"].to_pylist())

def columns(table: Path) -> list[str]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        return next(csv.reader(file))


def test_a_job_keeps_all_columns_once_it_had_them(tmp_path, model):
    "Asked with --columns all, or begun by an earlier version, which knew no short table."
    folder, out = card(tmp_path / "card", 2), tmp_path / "a.csv"
    words = ["classify", folder, "--model", model, "--out", out]
    assert typed(*words).returncode == 0 and (short := columns(out)) and "x0" not in short
    assert typed(*words, "--columns", "all").returncode == 0 and {*short, "x0", "member", "lat"} < set(columns(out))
    assert typed(*words).returncode == 0 and "x0" in columns(out)
    assert typed(*words, "--fresh").returncode == 0 and columns(out) == short
    known = Path(sources.parts_of(str(out))) / sources.JOB
    before = json.loads(known.read_text())
    del before["every_column"]
    known.write_text(json.dumps(before))
    assert typed(*words).returncode == 0 and "x0" in columns(out)
    assert "choose all" in one_sentence(typed(*words, "--columns", "most"))


def test_a_short_table_is_read_by_what_reads_tables(tmp_path, model, workspace):
    "The explorer opens it, and photos are trained or tested with its labels."
    from species_wb.curate.predictions import open_predictions
    from species_wb.photos.scan import scan

    out = tmp_path / "card" / "a.csv"
    assert typed("classify", card(tmp_path / "card", 4), "--model", model, "--out", out).returncode == 0
    review = open_predictions(out)
    assert [row["label"] for row in review.rows] == ["green", "red", "red", "green"] and all(r["sha256"] for r in review.rows)
    assert scan(out)["label"].to_pylist() == ["green", "red", "red", "green"]


def test_the_first_line_names_the_model_as_a_person_would(tmp_path, model, monkeypatch):
    "The run of a model file, the file's name, or the ready-made model: never the name of a file in the cache."
    from species_wb.models import ready_made

    folder, run = card(tmp_path / "card", 1), tmp_path / "reports" / "train" / "resnet50-20261129-101500"
    run.mkdir(parents=True)
    shutil.copy(model, run / "model.onnx")
    kept = tmp_path / f"{ready_made._stem()}-123.onnx"
    shutil.copy(model, kept)
    monkeypatch.setattr(ready_made, "find", lambda tell=None: kept)
    first = lambda *words: typed("classify", folder, "--fresh", "--out", tmp_path / "a.csv", *words).stdout.splitlines()[0]  # noqa: E731
    of = f"(2 classes) names what is in {folder}."
    assert first() == f"The ready-made model {of}"
    assert first("--model", run) == first("--model", run / "model.onnx") == f"The model resnet50-20261129-101500 {of}"
    assert first("--model", model) == f"The model {model.stem} {of}"
    assert first("--model", model, "--model", run) == f"A mix of {model.stem} and resnet50-20261129-101500 {of}"


def test_one_photo_is_answered_on_the_screen(tmp_path, model):
    (tmp_path / "one.jpg").write_bytes(coloured("green"))
    done = typed_alone("classify", "one.jpg", "--model", model, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("green") and "█" not in done.stdout and len(list(tmp_path.glob("*.csv"))) == 0
    (tmp_path / "bad.jpg").write_bytes(b"text")
    done = typed_alone("classify", "bad.jpg", "--model", model, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "bad.jpg is text, not a photo.\n"


def test_a_photo_says_when_and_where_it_was_taken(tmp_path, model):
    from PIL import Image

    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:05:04 13:07:55"
    exif.get_ifd(0x8825).update({1: "S", 2: (51.0, 30.0, 36.0), 3: "W", 4: (0.0, 7.0, 30.0)})
    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.jpg", exif=exif)
    row = predict.predict_one(model_file.open_model(model), (tmp_path / "a.jpg").read_bytes())
    assert (row["taken_at"], row["lat"], row["lon"]) == ("2026-05-04T13:07:55", -51.51, -0.125)
    row = predict.predict_one(model_file.open_model(model), (tmp_path / "a.jpg").read_bytes(), {"taken_at": "2025-01-01T00:00:00", "lat": 1.0, "lon": 2.0})
    assert (row["taken_at"], row["lat"], row["lon"]) == ("2025-01-01T00:00:00", 1.0, 2.0)


# --- a job goes on -------------------------------------------------------------------------------------------------------------


def kill_at_random(words: list[str], parts: Path, chance: random.Random) -> bool:
    "Start a command, let it finish a shard or some, and kill it outright; return whether it was killed before its end."
    before, wanted = len(list(parts.glob("*.parquet"))), chance.randint(1, 3)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(parts.glob("*.parquet"))) < before + wanted:
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 0.1))
    process.kill()
    return process.wait() == -signal.SIGKILL


def same_after_kills(tmp_path: Path, photos: int, times: int) -> None:
    folder = card(tmp_path / "card", photos)
    (folder / "broken.jpg").write_bytes(coloured("red")[:300])
    model, chance = toy.write_toy(tmp_path / "tiny.onnx"), random.Random(7)
    words = [str(BIN / "species-wb"), "classify", str(folder), "--model", str(model), "--out"]
    assert subprocess.run([*words, str(tmp_path / "whole.csv")], capture_output=True).returncode == 0
    for _ in range(times):
        assert kill_at_random([*words, str(tmp_path / "killed.csv")], tmp_path / ".killed.csv.parts", chance), "it came to its end first"
    assert not (tmp_path / "killed.csv").exists()
    last = subprocess.run([*words, str(tmp_path / "killed.csv")], capture_output=True, text=True)
    assert last.returncode == 0 and "were classified already" in last.stdout
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len(rows(tmp_path / "killed.csv")) == photos + 1


def test_a_killed_job_ends_as_an_unbroken_one(tmp_path):
    same_after_kills(tmp_path, 2_000, 2)


@pytest.mark.slow
def test_twenty_thousand_files_and_five_kills(tmp_path):
    same_after_kills(tmp_path, 20_000, 5)


def job_of(folder: Path, out: Path, model) -> Job:
    where = sources.sources([str(folder)])
    return Job(out, where, Task(where.root), model.sha256)


def test_an_archive_to_which_a_photo_was_added_again(tmp_path, model):
    folder, loaded = tmp_path / "card", model_file.open_model(model, 1)
    folder.mkdir()
    (folder / "b.jpg").write_bytes(coloured("red"))
    for colour in ("red", "green"):
        with zipfile.ZipFile(folder / "a.zip", "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr("a.jpg", coloured(colour))
        job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, job.here(loaded))
        assert [r["label"] for r in rows(tmp_path / "a.csv")] == [colour, "red"]


def test_only_shards_with_changes_are_done_again(tmp_path, model):
    folder, loaded, worked = card(tmp_path / "card", 1_500), model_file.open_model(model, 1), []

    def engine(todo, task):
        return job.here(loaded)((worked.append(len(s.units)) or s for s in todo), task)

    job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, engine)
    assert sum(worked) == 1_500
    worked.clear()
    job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, engine)
    assert worked == []
    some = sorted(folder.rglob("*.JPG"))
    before = rows(tmp_path / "a.csv")
    some[700].write_bytes(coloured("green", 9_999))
    os.utime(some[700], (1, 1))
    some[3].unlink()
    (folder / "100MEDIA" / "IMG_00050a.JPG").write_bytes(coloured("red"))
    job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, engine)
    after = rows(tmp_path / "a.csv")
    assert sum(worked) == 2 and len(after) == 1_500  # the others are known, also those of shards that are new
    changed, named = {r["path"] for r in after if r not in before}, [p.relative_to(folder).as_posix() for p in some]
    assert changed == {named[700], "100MEDIA/IMG_00050a.JPG"} and named[3] not in {r["path"] for r in after}


def test_a_folder_that_changes_while_it_is_read(tmp_path, model):
    folder, loaded = card(tmp_path / "card", 300), model_file.open_model(model, 1)
    files = sorted(folder.rglob("*.JPG"))
    gone = files[5].relative_to(folder).as_posix()

    def engine(todo, task):
        todo = list(todo)
        files[5].unlink()
        (folder / "late.jpg").write_bytes(coloured("red"))
        return job.here(loaded)(todo, task)

    job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, engine)
    found = {r["path"]: r["status"] for r in rows(tmp_path / "a.csv")}
    assert len(found) == 300 and found[gone] == "missing" and Counter(found.values())["ok"] == 299
    job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, job.here(loaded))
    found = {r["path"]: r["status"] for r in rows(tmp_path / "a.csv")}
    assert len(found) == 300 and found["late.jpg"] == "ok" and gone not in found


def test_a_card_that_was_pulled_out_is_gone_on_with(tmp_path, model):
    folder, loaded = card(tmp_path / "card", 400), model_file.open_model(model, 1)

    def pulled(todo, task):
        todo = list(todo)
        folder.rename(tmp_path / "pocket")
        return job.here(loaded)(todo, task)

    job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, pulled)
    assert Counter(r["status"] for r in rows(tmp_path / "a.csv")) == {"missing": 400}
    folder.mkdir()  # an empty place where the card is mounted
    kept = (tmp_path / "a.csv").read_bytes()
    with pytest.raises(UserError, match="is the card in"):
        job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, job.here(loaded))
    assert (tmp_path / "a.csv").read_bytes() == kept
    folder.rmdir()
    (tmp_path / "pocket").rename(folder)
    job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, job.here(loaded))
    assert Counter(r["status"] for r in rows(tmp_path / "a.csv")) == {"ok": 400}


def test_what_is_broken_for_good_is_not_tried_again(tmp_path, model):
    folder, loaded, worked = card(tmp_path / "card", 400), model_file.open_model(model, 1), []
    for k in range(0, 400, 20):
        (folder / f"broken{k}.jpg").write_bytes(coloured("red", k)[:200])

    def engine(todo, task):
        return job.here(loaded)((worked.append(s.name) or s for s in todo), task)

    for wanted in (True, False):
        job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, engine)
        assert bool(worked) == wanted
        worked.clear()


def test_a_jobs_own_files_are_no_photos(tmp_path, model):
    folder = card(tmp_path / "card", 3)
    (tmp_path / "link").symlink_to(folder)
    for name in ("a.csv", "b.csv", "a.csv"):
        assert typed("classify", tmp_path / "link", "--model", model, "--out", tmp_path / "link" / name).returncode == 0
        assert len(rows(folder / name)) == 3
    (folder / "mine.csv").write_text("x,y\n1,2\n")
    typed("classify", tmp_path / "link", "--model", model, "--out", tmp_path / "link" / "a.csv")
    assert [Path(r["path"]).name for r in rows(folder / "a.csv") if r["status"] == "not-a-photo"] == ["mine.csv"]


def test_a_shard_that_a_power_cut_damaged_is_done_again(tmp_path, model):
    folder, loaded = card(tmp_path / "card", 700), model_file.open_model(model, 1)
    todo = job_of(folder, tmp_path / "a.csv", loaded)
    job.run_job(todo, loaded, job.here(loaded))
    whole = (tmp_path / "a.csv").read_bytes()
    some = sorted(todo.parts.glob("*.parquet"))
    some[0].write_bytes(b"")
    some[1].write_bytes(some[1].read_bytes()[:50])
    job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, job.here(loaded))
    assert (tmp_path / "a.csv").read_bytes() == whole


def test_two_at_once_are_refused(tmp_path, model):
    folder, loaded = card(tmp_path / "card", 5), model_file.open_model(model, 1)
    with begun(job_of(folder, tmp_path / "a.csv", loaded)):
        assert "written by another process" in one_sentence(typed_alone("classify", folder, "--model", model, "--out", tmp_path / "a.csv"))
        assert "written by another process" in one_sentence(typed_alone("classify", folder, "--model", model, "--out", tmp_path / "a.csv", "--fresh"))
    assert typed("classify", folder, "--model", model, "--out", tmp_path / "a.csv").returncode == 0


def test_fresh_keeps_the_old_table_until_the_new_one_is_whole(tmp_path, model):
    folder = card(tmp_path / "card", 5)
    assert typed("classify", folder, "--model", model, "--out", tmp_path / "a.csv").returncode == 0
    kept = (tmp_path / "a.csv").read_bytes()
    sick = toy.write_toy(tmp_path / "nan.onnx", weight=((np.nan, 0), (0, 0), (0, 0)))
    assert "not a number" in one_sentence(typed("classify", folder, "--model", sick, "--out", tmp_path / "a.csv", "--fresh"))
    assert (tmp_path / "a.csv").read_bytes() == kept


def test_another_card_at_the_same_place_does_not_empty_the_table(tmp_path, model):
    folder = card(tmp_path / "card", 5)
    words = ("classify", folder, "--model", model, "--out", tmp_path / "a.csv")
    assert typed(*words).returncode == 0
    (folder / "100MEDIA" / "IMG_00009.JPG").write_bytes(coloured("green", 9))  # one more photo is no other card
    assert typed(*words).returncode == 0 and len(rows(tmp_path / "a.csv")) == 6
    shutil.rmtree(folder)
    for path in card(folder, 4).rglob("*.JPG"):  # of the same names, as cameras give them
        path.write_bytes(coloured("red", 200 + int(path.stem[-2:])))
    kept = (tmp_path / "a.csv").read_bytes()
    assert "is this another card?" in one_sentence(typed(*words))
    assert (tmp_path / "a.csv").read_bytes() == kept
    assert typed(*words, "--fresh").returncode == 0 and len(rows(tmp_path / "a.csv")) == 4


def test_a_table_that_somebody_corrected_is_not_overwritten(tmp_path, model):
    folder, out = card(tmp_path / "card", 3), tmp_path / "a.csv"
    words = ("classify", folder, "--model", model, "--out", out)
    assert typed(*words).returncode == 0
    out.write_text(out.read_text().replace("green", "toad"))
    assert "was changed after it was written" in one_sentence(typed(*words)) and "toad" in out.read_text()
    out.unlink()
    assert typed(*words).returncode == 0 and "toad" not in out.read_text()


def test_a_submission_and_a_table_do_not_replace_each_other(tmp_path, model):
    folder = card(tmp_path / "card", 3)
    assert typed("submit", model, folder, "--out", tmp_path / "s.csv").returncode == 0
    assert "another purpose" in one_sentence(typed("classify", folder, "--model", model, "--out", tmp_path / "s.csv"))


def test_names_that_are_not_utf_8_and_labels_that_are_not_words(tmp_path, model):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/B\xe4r"))
    card(folder, 2)
    done = subprocess.run([str(BIN / "species-wb"), "classify", os.fsencode(folder), "--model", str(model), "--out", str(tmp_path / "a.csv")], capture_output=True)
    assert done.returncode == 0 and len(rows(tmp_path / "a.csv")) == 2, done.stderr
    for label in ("\x1b[2Jred", "red\u202egpj", "a|b", " "):
        with pytest.raises(UserError, match="cannot be printed"):
            ModelInfo([label], [0], ModelSpec("x", 16, (0.5,) * 3, (0.5,) * 3))
    assert ModelInfo(["گربه\u200cسان", "Füchse 狐"], [0, 1], ModelSpec("x", 16, (0.5,) * 3, (0.5,) * 3))


def test_a_full_disk_keeps_what_is_done(tmp_path, model, monkeypatch):
    folder, loaded = card(tmp_path / "card", 1_200), model_file.open_model(model, 1)
    write, left = remaining.write_table, [2]

    def failing(table, path):
        left[0] -= 1
        if left[0] < 0:
            import errno

            from species_wb.core import write_aside
            with write_aside(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        write(table, path)

    monkeypatch.setattr(remaining, "write_table", failing)
    with pytest.raises(UserError, match="disk is full.*run the same command again"):
        job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, job.here(loaded))
    monkeypatch.setattr(remaining, "write_table", write)
    done = job.run_job(job_of(folder, tmp_path / "a.csv", loaded), loaded, job.here(loaded))
    assert "were classified already" in done.sentences[0] and len(rows(tmp_path / "a.csv")) == 1_200


def test_ctrl_c_says_how_to_go_on(tmp_path, model):
    folder = card(tmp_path / "card", 2_500)
    process = subprocess.Popen([str(BIN / "species-wb"), "classify", str(folder), "--model", str(model), "--out", str(tmp_path / "a.csv")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.time() + 60
    while not list((tmp_path / ".a.csv.parts").glob("*.parquet")) and time.time() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "give the same command again" in said and "Traceback" not in said
    done = typed("classify", folder, "--model", model, "--out", tmp_path / "a.csv")
    assert done.returncode == 0 and "were classified already" in done.stdout and len(rows(tmp_path / "a.csv")) == 2_500


# --- what would go wrong is a sentence -----------------------------------------------------------------------------------------


def test_another_model_folder_or_file_is_refused_and_fresh_starts_over(tmp_path, model):
    folder, other = card(tmp_path / "card", 5), card(tmp_path / "other", 4)
    for k, path in enumerate(sorted(other.rglob("*.JPG"))):
        path.write_bytes(coloured("red" if k % 3 else "green", 200 + k))
    second = toy.write_toy(tmp_path / "second.onnx", weight=((-1, 1), (1, -1), (0, 0)))
    out = tmp_path / "a.csv"
    assert typed("classify", folder, "--model", model, "--out", out).returncode == 0
    kept = out.read_bytes()
    assert "another model" in one_sentence(typed("classify", folder, "--model", second, "--out", out))
    assert "another card" in one_sentence(typed("classify", other, "--model", model, "--out", out))
    assert "another rate" in one_sentence(typed("classify", folder, "--model", model, "--out", out, "--every", 2))
    (tmp_path / "foreign.csv").write_text("mine")
    assert "was not begun by this command" in one_sentence(typed("classify", folder, "--model", model, "--out", tmp_path / "foreign.csv"))
    assert out.read_bytes() == kept and (tmp_path / "foreign.csv").read_text() == "mine"
    assert typed("classify", other, "--model", second, "--out", out, "--fresh").returncode == 0
    assert [r["label"] for r in rows(out)] == ["red", "green", "green", "red"]


def test_wrong_words_are_one_sentence(tmp_path, model):
    folder = card(tmp_path / "card", 2)
    (tmp_path / "void").mkdir()
    for words, said in [
        (["nowhere", "--model", model], "is not there"),
        ([folder, "--model", tmp_path / "none.onnx"], "is not there"),
        ([folder, "--model", folder / "100MEDIA" / "IMG_00000.JPG"], "cannot be opened as a model"),
        ([folder, "--model", model, "--out", tmp_path / "a.xls"], "end it in .csv"),
        ([folder, "--model", model, "--out", folder], "is a folder"),
        ([folder, "--model", model, "--engine", "spark"], "choose here or ray"),
        ([folder / "100MEDIA" / "IMG_00000.JPG", "--model", model, "--engine", "spark"], "choose here or ray"),
        ([tmp_path / "void", "--model", model], "There is nothing in"),
        ([folder, "--model", model, "--out", tmp_path / "a.csv", "--copy-to", folder / "sorted"], "lies inside"),
        (["s3://", "a", "--model", model], "an address is classified alone"),
    ]:
        assert said in one_sentence(typed("classify", *words, cwd=tmp_path)), words
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is locked for root")
def test_a_place_that_may_not_be_written_is_a_sentence(tmp_path, model):
    folder = card(tmp_path / "card", 2)
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "permissions" in one_sentence(typed("classify", folder, "--model", model, "--out", tmp_path / "locked" / "a.csv"))


# --- mixing, words, speed of starting ------------------------------------------------------------------------------------------


def test_several_models_answer_as_one_and_decode_each_photo_once(tmp_path, model, monkeypatch):
    second = toy.write_toy(tmp_path / "second.onnx", labels=("green", "red", "none of these"), ids=(1, 0, -1), weight=((-1, 1, 0), (1, -1, 0), (0, 0, 0)))
    mix = model_file.open_models([model, second])
    assert mix.info.label_ids == [0, 1, -1]
    decoded = []
    monkeypatch.setattr(predict, "header_and_pixels", lambda *a, real=predict.header_and_pixels: decoded.append(1) or real(*a))
    data = coloured("red")
    row = predict.predict_one(mix, data)
    chances = [dict(zip(m.info.label_ids, model_file.probabilities(m, predict.predict_one(m, data)["logits"][None])[0], strict=True)) for m in mix.members]
    assert len(decoded) == 3  # one for the mix, one for each member by itself
    assert row["label"] == "red" and np.isclose(row["score"], (chances[0][0] + chances[1][0]) / 2, atol=1e-5)
    typed("classify", card(tmp_path / "card", 6), "--model", model, "--model", second, "--out", tmp_path / "a.csv")
    assert [r["label"] for r in rows(tmp_path / "a.csv")] == ["green", "red", "red"] * 2
    assert "not have the same labels" in one_sentence(typed("classify", tmp_path / "card", "--model", model, "--model", toy.write_toy(tmp_path / "x.onnx", labels=("a", "b")), "--out", tmp_path / "b.csv"))


def test_a_mix_is_written_read_moved_and_checked(tmp_path, model):
    (tmp_path / "mixes").mkdir()
    second = toy.write_toy(tmp_path / "second.onnx", temperature=2.0)
    done = typed("mix", model, second, "--out", tmp_path / "mixes" / "both.mix.json")
    assert done.returncode == 0 and "not calibrated" in done.stdout
    done = typed("classify", card(tmp_path / "card", 3), "--model", tmp_path / "mixes" / "both.mix.json", "--out", tmp_path / "a.csv")
    assert len([line for line in done.stdout.splitlines() if line.startswith("This mix makes no sets of labels, because")]) == 1
    assert len(rows(tmp_path / "a.csv")) == 3 and "set" not in rows(tmp_path / "a.csv")[0]
    assert "alone" in one_sentence(typed("classify", tmp_path / "card", "--model", tmp_path / "mixes" / "both.mix.json", "--model", model, "--out", tmp_path / "c.csv"))
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("tiny.onnx", "second.onnx", "mixes"):
        shutil.move(tmp_path / name, moved / name)
    assert model_file.open_model(moved / "mixes" / "both.mix.json").info.label_ids == [0, 1]
    toy.write_toy(moved / "second.onnx", temperature=3.0)
    with pytest.raises(UserError, match="not the file"):
        model_file.open_model(moved / "mixes" / "both.mix.json")


def test_a_mix_is_calibrated_on_photos_that_no_member_saw(tmp_path, workspace):
    first, second = toy.write_toy(tmp_path / "a.onnx", temperature=0.05), toy.write_toy(tmp_path / "b.onnx", temperature=0.05)
    rng = np.random.default_rng(0)
    for label in COLOURS:
        (tmp_path / "train" / label).mkdir(parents=True)
        for k in range(60):
            shown = label if rng.random() < 0.8 else next(c for c in COLOURS if c != label)  # so a fifth of the answers is wrong
            (tmp_path / "train" / label / f"{k}.jpg").write_bytes(coloured(shown, int(rng.integers(1e9))))
    done = typed("mix", first, second, "--out", tmp_path / "m.mix.json", "--photos", tmp_path / "train", SPECIES_WB_HOME=str(workspace))
    assert done.returncode == 0 and "Calibrated on" in done.stdout, done.stderr
    said = json.loads((tmp_path / "m.mix.json").read_text())
    assert said["temperature"] > 1 and 0.6 < said["validation"]["accuracy"] < 0.95 and said["validation"]["n"] >= 30
    assert "The column set: 90 % of the sets should hold the right class" in done.stdout
    done = typed("classify", tmp_path / "train", "--model", tmp_path / "m.mix.json", "--set", "0.8", "--max-error", "0.4", "--out", tmp_path / "a.parquet")
    assert done.returncode == 0 and "makes no sets" not in done.stdout, done
    found = [row for row in read_table(tmp_path / "a.parquet").to_pylist()]
    mix = model_file.open_model(tmp_path / "m.mix.json")
    held = [row["path"].split("/")[0] in row["set"] for row in found]
    assert np.mean(held) >= 0.75 and mix.info.risk["n"] == mix.info.conformal["0.8"]["n"] >= 30
    own = np.array([entry["score"] for row in found for entry in row["top"] if entry["label"] == row["path"].split("/")[0]])
    assert 1 - mix.info.conformal["0.9"]["quantile"] == pytest.approx(own.min(), abs=1e-5) and 0.01 < own.min()  # a fifth is wrong: in the mix itself, such a label has this probability, in a member next to none


def test_none_of_these_is_never_a_label(tmp_path):
    model = toy.write_toy(tmp_path / "none.onnx", labels=("red", "green", "none of these"), ids=(0, 1, -1), weight=((1, -1, 0), (-1, 1, 0), (0, 0, 9)))
    row = predict.predict_one(model_file.open_model(model), np.full((20, 20, 3), (0, 0, 255), np.uint8))
    assert row["abstained"] and row["label"] is row["score"] is None and {e["label"] for e in row["top"]} == {"red", "green"} and row["label_raw"] in COLOURS


def test_a_model_that_says_no_number_is_a_sentence(tmp_path):
    model = toy.write_toy(tmp_path / "nan.onnx", weight=((np.nan, 0), (0, 0), (0, 0)))
    assert "not a number" in one_sentence(typed("classify", card(tmp_path / "card", 2), "--model", model, "--out", tmp_path / "a.csv"))


def test_the_engine_starts_without_what_trains(tmp_path):
    heavy = "torch torchvision timm pandas scipy sklearn matplotlib imagehash av ray fastapi".split()
    code = f"import sys; import species_wb.engine.predict, species_wb.classify.job, species_wb.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_rows_do_not_depend_on_batches_or_threads(photos, tmp_path):
    rng = np.random.default_rng(0)
    network_of_edges(tmp_path / "m.onnx", ["a", "b", "c"], rng.normal(size=(24, 3, 5, 5)) / 500, rng.normal(size=(24, 3)), np.zeros(3))
    files = sorted(photos.rglob("*.jpg"))[::40]
    found = [[(r["label"], r["score"], r["sha256"]) for r in predict.predict_items(model_file.open_model(tmp_path / "m.onnx", t), [({"path": str(f)}, f.read_bytes) for f in files], b, w)] for t, b, w in ((1, 1, 1), (1, 1, 4), (2, 8, 2))]
    for other in found[1:]:
        assert [(label, sha) for label, _, sha in other] == [(label, sha) for label, _, sha in found[0]]
        assert np.allclose([s for _, s, _ in other], [s for _, s, _ in found[0]], atol=1e-5)
    assert len({s for _, s, _ in found[0]}) > 0.9 * len(files)  # each photo has a score of its own: a row that took another's place would be seen


@pytest.mark.slow
def test_memory_is_flat(tmp_path, model):
    code = """
import resource, sys
from species_wb.engine import model_file; from species_wb.classify import job; from species_wb.photos import sources
from species_wb.classify.resume import Job, Task
model = model_file.open_model(sys.argv[1], 1); where = sources.sources([sys.argv[2]])
job.run_job(Job(__import__('pathlib').Path(sys.argv[3]), where, Task(where.root), model.sha256), model, job.here(model))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    data, used = coloured("red"), []
    for count in (1_000, 20_000):
        folder = tmp_path / f"{count}"
        for k in range(count):
            place = folder / f"{k // 1000:03}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{k}.jpg").write_bytes(data)
        done = subprocess.run([sys.executable, "-c", code, str(model), str(folder), str(tmp_path / f"{count}.csv")], capture_output=True, text=True)
        used.append(int(done.stdout.split()[-1]))
    assert used[1] < 1.1 * used[0], used


# --- addresses -----------------------------------------------------------------------------------------------------------------


def test_an_address_of_fsspec_is_read(tmp_path, model):
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for name in ("a/1.jpg", "2.jpg", "empty.jpg"):
        system.pipe(f"/card/{name}", b"" if name == "empty.jpg" else coloured("green"))
    where = sources.sources(["memory://card"])
    loaded = model_file.open_model(model, 1)
    done = job.run_job(Job(tmp_path / "a.parquet", where, Task(where.root), loaded.sha256), loaded, job.here(loaded))
    table = read_table(tmp_path / "a.parquet")
    assert dict(zip(table["path"].to_pylist(), table["status"].to_pylist(), strict=True)) == {"2.jpg": "ok", "empty.jpg": "empty", "a/1.jpg": "ok"}
    assert table.schema.metadata[b"root"] == b"memory://card" and done.summary["answered"] == 2
    with pytest.raises(UserError, match="is not there"):
        sources.sources(["memory://nowhere"])
