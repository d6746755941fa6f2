"""The same job on Ray: the same rows, whatever order they come in and whoever dies."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_job import card, coloured, rows

from species_wb.classify import job
from species_wb.classify.resume import Job, Task
from species_wb.engine import model_file, toy
from species_wb.photos import sources
from species_wb.core import UserError

pytestmark = pytest.mark.slow  # beginning a cluster takes a minute where two other workers are busy
ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")


def workers() -> list:
    "The processes of our actors that are at work."
    named = []
    for place in Path("/proc").glob("[0-9]*"):  # a look must be short: psutil's own over all processes takes longer than the work
        with suppress(OSError, psutil.Error):
            if b"MapWorker" in (place / "cmdline").read_bytes() and psutil.Process() in (process := psutil.Process(int(place.name))).parents():
                named.append(process)
    return named


def both_ways(tmp_path: Path, photos: int, during=None) -> tuple[list[dict], list[dict]]:
    "Classify a folder here and on a local cluster."
    from species_wb.classify.ray import on_ray

    folder = card(tmp_path / "card", photos)
    (folder / "broken.jpg").write_bytes(coloured("red")[:200])
    (folder / "empty.jpg").touch()
    path = toy.write_toy(tmp_path / "toy.onnx")
    model, where = model_file.open_model(path, 1), sources.sources([str(folder)])
    found = []
    for name, engine in (("here", job.here(model)), ("ray", on_ray([path]))):
        todo = Job(tmp_path / f"{name}.jsonl", where, Task(where.root), model.sha256)
        if name == "ray" and during:
            during()
        job.run_job(todo, model, engine)
        found.append(rows(todo.out))
    return found[0], found[1]


@pytest.fixture(scope="module")
def on_one_cluster(tmp_path_factory) -> SimpleNamespace:
    "A job that begins a cluster and another one that finds it running: beginning one takes ten seconds."
    found, end, over = SimpleNamespace(seen=set(), ended=0), ray.shutdown, threading.Event()

    def look() -> None:
        while not over.is_set() and len(found.seen) < 2:
            found.seen.update(p.pid for p in workers())
            time.sleep(0.02)

    def ended() -> None:
        found.ended += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "shutdown", ended)
        try:
            found.here, found.there = both_ways(tmp_path_factory.mktemp("same"), 1_000, lambda: threading.Thread(target=look, daemon=True).start())
            found.ended_by_the_first = found.ended
            found.wrong = what_is_wrong(tmp_path_factory.mktemp("wrong"))
        finally:
            over.set()
            end()
    return found


def test_a_cluster_gives_the_same_rows(on_one_cluster):
    assert len(on_one_cluster.here) == 1_002 and on_one_cluster.there == on_one_cluster.here
    assert len(on_one_cluster.seen) >= 2, "it ran in fewer than two worker processes"


def test_who_begins_a_cluster_ends_it_and_nobody_else(on_one_cluster):
    assert on_one_cluster.ended_by_the_first == on_one_cluster.ended == 1


@pytest.mark.slow
def test_a_killed_worker_costs_no_row(tmp_path):
    killed = []

    def kill() -> None:
        end = time.time() + 120
        while time.time() < end and not killed:
            if len(list((tmp_path / ".ray.jsonl.parts").glob("*.parquet"))) >= 3 and (at_work := workers()):
                at_work[0].kill()
                killed.append(at_work[0].pid)
            time.sleep(0.01)

    here, there = both_ways(tmp_path, 20_000, lambda: threading.Thread(target=kill, daemon=True).start())
    assert killed, "no worker was killed in time"
    assert len(here) == 20_002 and there == here


def test_a_cluster_that_is_not_there_is_a_sentence(tmp_path):
    from species_wb.classify.ray import on_ray

    folder = card(tmp_path / "card", 2)
    path = toy.write_toy(tmp_path / "toy.onnx")
    where = sources.sources([str(folder)])
    todo = Job(tmp_path / "a.csv", where, Task(where.root), model_file.open_model(path).sha256)
    with pytest.raises(UserError, match="No Ray cluster answers at 127.0.0.1:1 "):
        job.run_job(todo, model_file.open_model(path), on_ray([path], "127.0.0.1:1"))


def test_a_mix_of_any_number_travels_whole(tmp_path):
    from species_wb.classify.ray import packed, unpacked

    paths = [toy.write_toy(tmp_path / f"{k}.onnx", temperature=1 + k / 10) for k in range(11)]
    for count in range(1, 12):
        model = model_file.open_models(paths[:count], 1)
        assert unpacked(packed(model)).sha256 == model.sha256


def what_is_wrong(tmp_path: Path) -> UserError:
    "What is said of a model that answers no number."
    from species_wb.classify.ray import on_ray

    path = toy.write_toy(tmp_path / "nan.onnx", weight=((float("nan"), 0), (0, 0), (0, 0)))
    where = sources.sources([str(card(tmp_path / "card", 2))])
    todo = Job(tmp_path / "a.csv", where, Task(where.root), model_file.open_model(path).sha256)
    with pytest.raises(UserError) as said:
        job.run_job(todo, model_file.open_model(path), on_ray([path]))
    return said.value


def test_what_a_worker_finds_wrong_is_a_sentence(on_one_cluster):
    assert "not a number" in str(on_one_cluster.wrong)


def test_a_cluster_that_gives_up_is_a_sentence(tmp_path, monkeypatch):
    from species_wb.classify import ray as on_machines

    def gives_up(*_):
        raise ray.exceptions.GetTimeoutError("Timed out while starting actors.\nOne CPU was asked for and none was free.")

    monkeypatch.setattr(on_machines, "_start", lambda _: (ray, False))
    monkeypatch.setattr(on_machines, "_spread", gives_up)
    path = toy.write_toy(tmp_path / "toy.onnx")
    where = sources.sources([str(card(tmp_path / "card", 2))])
    todo, model = Job(tmp_path / "a.csv", where, Task(where.root), model_file.open_model(path).sha256), model_file.open_model(path, 1)
    with pytest.raises(UserError, match=r"stopped working \(One CPU was asked for and none was free\.\): the answers so far are kept"):
        job.run_job(todo, model, on_machines.on_ray([path]))
