"""A source of boxes on another machine: all its files travel, and its boxes are the same there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from blocks import card
from test_detector import lists, network
from test_job import rows

from species_wb.classify import job
from species_wb.classify import ray as on_machines
from species_wb.classify.resume import Job, Task
from species_wb.core import UserError
from species_wb.detect.choose import check_names, choose
from species_wb.detect.given import NotKnown
from species_wb.detect.source import Detect
from species_wb.engine import model_file
from species_wb.photos import sources

GREY = np.full((48, 64, 3), 114, np.uint8)


@pytest.fixture
def opened(model):
    return model_file.open_model(model, 1)


def described(folder: Path) -> Path:
    "A detector file that is nothing without its description: two classes, each with a box."
    folder.mkdir()
    edges = np.float32([[8, 16, 32, 40], [34, 16, 60, 40]])
    (folder / "own.onnx").write_bytes(network(lists(**{"1": edges, "2": np.array([1, 2])})))
    (folder / "own.onnx.json").write_text(json.dumps({"classes": ["fox", "person"], "least": 0.05}))
    return folder / "own.onnx"


def there(detect: Detect, model, here: Path) -> Detect:
    "Send a source to a machine on which its files are not."
    parcel = on_machines.packed_source(detect)
    shutil.rmtree(here)
    return on_machines.unpacked_source(parcel, model)


def test_a_description_beside_a_detector_travels_with_it(tmp_path, opened):
    detect, _ = choose(str(described(tmp_path / "mine")), opened, 0.1)
    sent = there(detect, opened, tmp_path / "mine")
    here, found = detect.source.find(GREY, {}), sent.source.find(GREY, {})
    assert here.labels == found.labels == ("fox", "person") and np.array_equal(here.corners, found.corners)
    assert (sent.source.sha256, sent.threshold, sent.source.least) == (detect.source.sha256, 0.1, 0.05)


def test_a_description_that_changed_on_its_way_is_not_used(tmp_path, opened):
    detect, _ = choose(str(described(tmp_path / "mine")), opened)
    parcel = on_machines.packed_source(detect)
    parcel["files"]["own.onnx.json"] = b'{"classes": ["owl", "person"]}'
    with pytest.raises(UserError, match="changed on its way"):
        on_machines.unpacked_source(parcel, opened)


def test_a_camtrap_dp_travels_with_its_media(tmp_path, opened):
    folder = tmp_path / "dp"
    folder.mkdir()
    (folder / "media.csv").write_text("mediaID,filePath,fileName\n1,A/1.jpg,1.jpg\n")
    (folder / "observations.csv").write_text(
        "observationID,mediaID,observationType,bboxX,bboxY,bboxWidth,bboxHeight\n1,1,animal,0.1,0.2,0.3,0.4\n")
    detect, _ = choose(str(folder / "observations.csv"), opened)
    sent = there(detect, opened, folder)
    assert sent.source.find(GREY, {"path": "A/1.jpg"}).corners[0].tolist() == pytest.approx([0.1, 0.2, 0.4, 0.6])


def test_what_is_not_clear_in_the_whole_job_is_not_clear_on_any_machine(tmp_path, opened):
    folder = tmp_path / "boxes"
    folder.mkdir()
    (folder / "boxes.csv").write_text("path,x0,y0,x1,y1\n1.jpg,0.1,0.2,0.4,0.6\n2.jpg,0.1,0.2,0.4,0.6\n")
    detect, _ = choose(str(folder / "boxes.csv"), opened)
    assert check_names(detect, [{"path": "a/1.jpg"}, {"path": "b/1.jpg"}, {"path": "b/2.jpg"}])
    sent = there(detect, opened, folder)
    assert len(sent.source.find(GREY, {"path": "b/2.jpg"})) == 1
    with pytest.raises(NotKnown):  # the machine that answers for a/1.jpg does not see b/1.jpg
        sent.source.find(GREY, {"path": "a/1.jpg"})


@pytest.mark.slow
def test_a_cluster_finds_the_boxes_of_a_described_detector(tmp_path, model, opened, monkeypatch):
    pytest.importorskip("ray")
    path, folder, found = described(tmp_path / "mine"), card(tmp_path / "card", 600), []
    detect, _ = choose(str(path), opened)
    spread = on_machines._spread

    def spread_elsewhere(*given):
        shutil.rmtree(path.parent)  # before a worker begins
        return spread(*given)

    monkeypatch.setattr(on_machines, "_spread", spread_elsewhere)
    for name, engine in (("here", job.here(opened, detect=detect)), ("ray", on_machines.on_ray([model], detect=detect))):
        where = sources.sources([str(folder)])
        todo = Job(tmp_path / f"{name}.jsonl", where, Task(where.root, **detect.task()), opened.sha256)
        job.run_job(todo, opened, engine)
        found.append(rows(todo.out))
    assert len(found[0]) == 2 * 600 and found[1] == found[0]
    assert not path.exists() and {row["code"] for row in found[1] if row["box"] == 2} == {"person"}
