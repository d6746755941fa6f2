"""The detection probe: boxes of a person's own photos become a head in the model's file; it is tested on photos held back."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from species_wb.cli_detect import detector
from species_wb.contracts import METADATA_KEY, ModelInfo, ModelSpec, info_to_json
from species_wb.core import UserError
from species_wb.detect.boxes import overlaps
from species_wb.detect.choose import choose, open_source, head_sentence, with_head
from species_wb.detect.given import read_boxes
from species_wb.engine.model_file import open_model, run_network
from species_wb.models.box_head import with_boxes
from species_wb.photos.scan import scan
from species_wb.train import detection_probe
from species_wb.train.box_windows import boxed_photos

SIDE = 64


def network(path: Path, finer: bool = True) -> Path:
    "A model file that sees colours, with maps of 4×4, 8×8 and 16×16 places, or with the coarsest one alone."
    pool = partial(helper.make_node, "AveragePool")
    steps = [helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT), helper.make_node("Div", ["x", "white"], ["light"])]
    if finer:
        steps += [
            helper.make_node("Transpose", ["light"], ["planes"], perm=[0, 3, 1, 2]),
            pool(["planes"], ["fine"], kernel_shape=[4, 4], strides=[4, 4]),
            pool(["fine"], ["middle"], kernel_shape=[2, 2], strides=[2, 2]),
            pool(["middle"], ["features"], kernel_shape=[2, 2], strides=[2, 2]),
        ]
        steps.append(helper.make_node("ReduceMean", ["features", "places"], ["embedding"], keepdims=0))
    else:
        steps.append(helper.make_node("ReduceMean", ["light", "flat"], ["embedding"], keepdims=0))
    steps.append(helper.make_node("MatMul", ["embedding", "weight"], ["logits"]))
    values = {"white": np.float32(255), "places": np.array([2, 3]), "flat": np.array([1, 2]), "weight": np.eye(3, 2, dtype=np.float32)}
    sizes = {"logits": ["n", 2], "embedding": ["n", 3]} | ({"features": ["n", 3, 4, 4]} if finer else {})
    graph = helper.make_graph(
        steps, "colours", [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    spec = ModelSpec("colours", SIDE, (0.5,) * 3, (0.5,) * 3)
    helper.set_model_props(model, {METADATA_KEY: info_to_json(ModelInfo(["red", "green"], [0, 1], spec))})
    onnx.save(model, path)
    return path


def photo(seed: int, animal: bool = True) -> tuple[np.ndarray, list[int]]:
    "A red rectangle before a green ground with blue spots, and its box: left, top, width, height, in pixels."
    rng = np.random.default_rng(seed)
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[..., 1] = rng.integers(60, 200, (6, 8)).repeat(16, 0).repeat(16, 1)
    picture[..., 2] = rng.integers(0, 90, (12, 16)).repeat(8, 0).repeat(8, 1)
    wide, high = rng.integers(30, 80), rng.integers(30, 60)
    x, y = rng.integers(0, 128 - wide), rng.integers(0, 96 - high)
    if animal:
        picture[y : y + high, x : x + wide] = [220, 40, 30]
    return picture, [int(x), int(y), int(wide), int(high)]


def folder_of(where: Path, n: int = 30, empty: int = 4) -> tuple[Path, dict]:
    "Write photos, and their boxes as COCO JSON."
    where.mkdir(exist_ok=True)
    coco: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "animal"}, {"id": 2, "name": "person"}]}
    for k in range(n + empty):
        picture, box = photo(k, k < n)
        Image.fromarray(picture).save(where / f"{k:03d}.png")
        coco["images"].append({"id": k, "file_name": f"{k:03d}.png", "width": 128, "height": 96})
        if k < n:
            coco["annotations"].append({"id": k, "image_id": k, "category_id": 1, "bbox": box})
    return written(where, coco), coco


def written(where: Path, coco: dict) -> Path:
    (where / "boxes.json").write_text(json.dumps(coco))
    return where


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    "Fit in one thread: a second one only waits on a busy machine."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    "A model file with a head, fitted to 30 photos, and what was said of it."
    where = tmp_path_factory.mktemp("probe")
    photos, _ = folder_of(where / "photos")
    model = open_model(network(where / "model.onnx"), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection_probe, "fit_head", partial(detection_probe.fit_head, steps=150))
        patch.setattr(detection_probe, "WINDOWS", 6)
        (where / "run").mkdir()
        told = detection_probe.fit_detection_probe(where / "run", scan(photos), read_boxes(photos / "boxes.json"), model)
    return where, model, told


def test_a_head_fitted_to_boxes_finds_animals_in_new_photos(fitted):
    where, _, told = fitted
    assert told["n"] == 34 and told["boxes"] == 30 and told["best"]["n"] == 30
    assert told["best"]["k"] >= 26 and told["map50"]["value"] > 0.7 and told["empty"] == {"k": 4, "n": 4}
    assert "(34 groups)" in told["sentences"][0] and json.loads((where / "run" / "detection.json").read_text())["best"] == told["best"]
    source = open_source("self", open_model(where / "run" / "model.onnx", 1))
    right = 0
    for seed in range(1000, 1020):
        picture, (x, y, wide, high) = photo(seed)
        true = np.array([[x / 128, y / 96, (x + wide) / 128, (y + high) / 96]])
        right += float(overlaps(source.find(picture, {}).corners[:1], true).max(initial=0)) >= 0.5
    assert right >= 18
    empty = [source.find(photo(seed, False)[0], {}).scores.max(initial=0) for seed in range(1000, 1010)]
    assert max(empty) < source.least


def test_one_file_names_and_finds(fitted):
    where, model, told = fitted
    both = open_model(where / "run" / "model.onnx", 1)
    pixels = np.stack([np.asarray(Image.fromarray(photo(k)[0]).resize((SIDE, SIDE))) for k in range(3)])
    assert both.info == model.info and np.array_equal(run_network(both, pixels)[0], run_network(model, pixels)[0])
    assert with_head(both) is both and with_head(model) is None
    by_self, by_file = (open_source(word, both) for word in ("self", str(both.path)))
    assert by_self.sha256 == by_file.sha256 and by_self.least == told["least"] and not by_self.sees_people
    found, said = choose("auto", both)
    assert found and found.word == "self" and said[0].startswith("Animals are found by the head in model.onnx.")
    assert f"In {told['best']['k']} of 30 photos held back" in said[0] and head_sentence(model) == ""
    with pytest.raises(UserError, match="finds boxes already"):
        detection_probe.fit_detection_probe(where / "run", scan(where / "photos"), read_boxes(where / "photos" / "boxes.json"), both)


def test_photos_of_a_group_are_never_in_both_parts(monkeypatch):
    fits: list[set[int]] = []
    photo_of = np.repeat(np.arange(40), 2)
    x = photo_of[:, None, None, None] * np.ones((1, 1, 2, 2), np.float32)
    monkeypatch.setattr(detection_probe, "fit_head", lambda some, boxes, seed: fits.append({*some[:, 0, 0, 0].astype(int).tolist()}))
    monkeypatch.setattr(detection_probe, "find", lambda head, some: [int(v) for v in some[:, 0, 0, 0]])
    part = detection_probe.folds([f"burst {k // 4}" for k in range(40)])
    found = detection_probe.held_out(detection_probe.Seen(x, [np.zeros((0, 4))] * 80, photo_of), part)
    assert found == [*range(40)] and len(fits) == 5
    for k, used in enumerate(fits):
        held = {*range(40)} - used
        assert held == {*np.flatnonzero(part == k).tolist()} and not {n // 4 for n in held} & {n // 4 for n in used}


def test_broken_boxes_and_people_are_left_out_and_said(tmp_path):
    photos, coco = folder_of(tmp_path / "photos", 25, 0)
    for k, box in enumerate(([10, 10, 0, 5], [500, 500, 20, 20], [float("nan"), 1, 5, 5], [-20, -20, 60, 60])):
        coco["annotations"].append({"id": 100 + k, "image_id": k, "category_id": 1, "bbox": box})
    coco["annotations"].append({"id": 200, "image_id": 5, "category_id": 2, "bbox": [1, 1, 50, 50]})
    found, said = boxed_photos(scan(photos), read_boxes(written(photos, coco) / "boxes.json"))
    assert [len(one.corners) for one in found][:6] == [1, 1, 1, 2, 1, 1]
    assert any(np.allclose(corner, [0, 0, 40 / 128, 40 / 96]) for corner in found[3].corners)
    broken = "3 boxes outside the photo or without a size, 1 box of something that is no animal"
    assert said == [f"Left out (boxes.json): {broken}."]


def test_boxes_that_do_not_fit_are_refused_in_one_sentence(tmp_path):
    photos, coco = folder_of(tmp_path / "photos", 12, 2)
    with pytest.raises(UserError, match=r"boxes of animals for 12 photos here: 20 or more are needed"):
        boxed_photos(scan(photos), read_boxes(photos / "boxes.json"))
    for image in coco["images"]:
        image["file_name"] = "other-" + image["file_name"]
    with pytest.raises(UserError, match="names other photos"):
        boxed_photos(scan(photos), read_boxes(written(photos, coco) / "boxes.json"))
    few = ["a"] * 30 + [f"{k}" for k in range(5)]
    with pytest.raises(UserError, match="form only 6 groups"):
        detection_probe.folds(few)


def test_a_model_without_finer_maps_is_refused_before_any_photo_is_read(tmp_path):
    photos, _ = folder_of(tmp_path / "photos", 3, 0)
    model = open_model(network(tmp_path / "plain.onnx", finer=False), 1)
    with pytest.raises(UserError, match=r"plain.onnx has no maps of features"):
        detection_probe.fit_detection_probe(tmp_path, scan(photos), read_boxes(photos / "boxes.json"), model)
    bare = onnx.load(network(tmp_path / "bare.onnx"))
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    with pytest.raises(UserError, match="not a model file of species_wb"):
        with_boxes(tmp_path / "bare.onnx", _head(), {}, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def _head():
    from species_wb.models.box_head import BoxHead

    none, still = np.zeros((2, 3), np.float32), (np.zeros((2, 2), np.float32), np.zeros(2, np.float32))
    return BoxHead(dict.fromkeys(("features", "middle", "fine"), none), still[1], still, [], (np.zeros((5, 2), np.float32), np.zeros(5, np.float32)))


def test_the_command_writes_a_run_with_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPECIES_WB_HOME", str(tmp_path)), monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detection_probe, "fit_head", partial(detection_probe.fit_head, steps=4))
    monkeypatch.setattr(detection_probe, "WINDOWS", 2)
    photos, _ = folder_of(tmp_path / "photos", 24, 0)
    detector(str(photos / "boxes.json"), model=str(network(tmp_path / "colours.onnx")))
    said = capsys.readouterr().out
    (run,) = (tmp_path / "reports" / "detector").iterdir()
    assert f"The model is {run / 'model.onnx'}" in said and "No photo without an animal was among them" in said
    report = (run / "report.md").read_text()
    assert "Tested on 24 photos with 24 boxes" in report and f"--model {run / 'model.onnx'} --detect self" in report
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
