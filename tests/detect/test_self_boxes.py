"""Boxes from the classifier itself lie where the animal is, and a picture of nothing gets none that counts."""

import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from species_wb.core import UserError
from species_wb.detect.activation import opened
from species_wb.detect.boxes import overlaps
from species_wb.detect.self_boxes import LEAST, SelfBoxes, how_good, self_boxes
from species_wb.engine.model_file import ensemble_of, open_model
from species_wb.engine.toy import add_features, write_toy

BIRDS = {"labels": ("Aves", "none of these"), "ids": (0, -1)}  # red things are birds, green ones are nothing
BOX = np.array([[0.2, 0.4, 0.6, 0.8]], np.float32)


def made(path: Path, **info) -> SelfBoxes:
    return self_boxes(open_model(add_features(write_toy(path, **info)), threads=1))


def meadow(shape: tuple[int, int] = (320, 320)) -> np.ndarray:
    return np.full((*shape, 3), (10, 90, 10), np.uint8)


def bird(shape: tuple[int, int] = (320, 320)) -> np.ndarray:
    "A red rectangle in green, at BOX."
    photo, (x0, y0, x1, y1) = meadow(shape), BOX[0]
    photo[int(y0 * shape[0]) : int(y1 * shape[0]), int(x0 * shape[1]) : int(x1 * shape[1])] = 250, 10, 10
    return photo


@pytest.fixture
def toy(tmp_path) -> SelfBoxes:
    return made(tmp_path / "toy.onnx", **BIRDS)


@pytest.mark.parametrize("shape", [(320, 320), (240, 720), (900, 300)])
def test_the_box_is_where_the_animal_is_in_wide_and_tall_photos(toy, shape):
    found = toy.find(bird(shape), {})
    assert found.labels == ("animal",) and overlaps(found.corners, BOX)[0, 0] > 0.5 and found.scores[0] > LEAST


def test_a_picture_of_nothing_has_no_box_that_counts(toy):
    assert toy.find(meadow(), {}).scores[0] < toy.least == LEAST
    assert "19 are called empty by mistake" in how_good(toy) and not toy.sees_people


@pytest.mark.parametrize("labels, ids, decides", [
    (("Aves", "Mammalia"), (0, 1), False), (("Aves", "Plantae"), (0, 1), False), (("Aves", "empty"), (0, 1), True),
    (("Plantae", "none of these"), (0, -1), False),
])  # fmt: skip
def test_only_a_model_that_knows_nothing_calls_photos_empty(tmp_path, labels, ids, decides):
    source = made(tmp_path / "m.onnx", labels=labels, ids=ids)
    assert source.decides == decides and source.least == (LEAST if decides else 0)
    assert len(source.find(meadow(), {})) == 1 and ("no photo is called empty" in how_good(source)) != decides


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (16, 16)])
def test_the_smallest_photos_give_boxes_inside_the_photo(toy, shape):
    found = toy.find(meadow(shape), {})
    assert found.corners.min() >= 0 and found.corners.max() <= 1 and np.isfinite(found.scores).all()


def test_a_photo_of_a_hundred_megapixels_takes_no_longer_than_its_shrinking(toy):
    photo = bird((10_000, 10_000))
    start = time.perf_counter()
    found = toy.find(photo, {})
    assert overlaps(found.corners, BOX)[0, 0] > 0.5 and time.perf_counter() - start < 20


def test_the_same_photo_gives_the_same_boxes_and_the_fingerprint_is_the_models(toy, tmp_path):
    again = made(tmp_path / "again.onnx", **BIRDS)
    first, second = toy.find(bird(), {}), again.find(bird(), {})
    assert np.array_equal(first.corners, second.corners) and np.array_equal(first.scores, second.scores)
    other = made(tmp_path / "other.onnx", weight=((2, -2), (-2, 2), (0, 0)), **BIRDS)
    assert toy.sha256 == again.sha256 != other.sha256 and len(toy.sha256) == 64


def test_a_model_without_features_is_refused_and_a_mix_asks_the_first_member_that_has_some(tmp_path):
    bare = open_model(write_toy(tmp_path / "bare.onnx", **BIRDS), threads=1)
    with pytest.raises(UserError, match="bare.onnx gives no boxes, because the file has no grid of features: name a"):
        self_boxes(bare)
    full = open_model(add_features(write_toy(tmp_path / "full.onnx", **BIRDS)), threads=1)
    source = self_boxes(ensemble_of([bare, full]))
    assert source.opened.member is full and overlaps(source.find(bird(), {}).corners, BOX)[0, 0] > 0.5


def test_a_network_that_takes_squares_only_gets_the_whole_photo_as_its_square(tmp_path):
    path = add_features(write_toy(tmp_path / "fixed.onnx", **BIRDS))
    model = onnx.load(path)  # a Reshape to a fixed size, as transformers have it
    model.graph.node[0].output[0] = "free"
    model.graph.node.insert(1, helper.make_node("Reshape", ["free", "size"], ["x"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 16, 16, 3]), "size"))
    onnx.save(model, path)
    source = self_boxes(open_model(path, threads=1))
    assert not source.opened.free and overlaps(source.find(bird((240, 720)), {}).corners, BOX)[0, 0] > 0.3  # 4×4 places


def test_a_head_that_needs_more_than_the_features_is_refused(tmp_path):
    path = add_features(write_toy(tmp_path / "more.onnx", **BIRDS))
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "first"
    model.graph.node.append(helper.make_node("ReduceMean", ["planes", "all"], ["grey"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["first", "grey"], ["logits"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 1, 2, 3]), "all"))
    onnx.save(model, path)
    with pytest.raises(UserError, match="more.onnx gives no boxes, because its head cannot be taken out"):
        self_boxes(open_model(path, threads=1))


def test_a_file_that_was_changed_and_a_missing_package_are_said(tmp_path, monkeypatch):
    member = open_model(add_features(write_toy(tmp_path / "m.onnx", **BIRDS)), threads=1)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        with pytest.raises(UserError, match="the package onnx is not installed: run `pip install onnx`"):
            opened(member)
    member.path.write_bytes(b"other")
    with pytest.raises(UserError, match="m.onnx was changed or removed after it was opened"):
        opened(member)


def test_simulated_animals_are_found_better_than_by_a_box_in_the_middle(ready_made_cache):
    from species_wb.simulate.ecology import ECOLOGY, Parameters
    from species_wb.simulate.scene import scene
    from species_wb.simulate.visits import plan

    source = self_boxes(open_model(next(ready_made_cache.rglob("*.onnx")), threads=1))
    p, taxa, ours, middle = Parameters(photos=60, seed=11), list(ECOLOGY), [], []
    planned = [dict(zip(c, (v.item() for v in row), strict=True))
               for c in [plan(p)] for row in zip(*c.values(), strict=True)]  # fmt: skip
    for photo in [one for one in planned if taxa[one["taxon"]] not in ("Plantae", "Fungi")][:24]:
        picture, facts = scene(p, photo)
        true = np.array([[facts[name] for name in ("x0", "y0", "x1", "y1")]])
        ours.append(overlaps(source.find(picture, {}).corners[:1], true)[0, 0] >= 0.5)
        middle.append(overlaps(np.array([[0.2, 0.2, 0.8, 0.8]]), true)[0, 0] >= 0.5)
    assert np.mean(ours) >= 0.6 and np.mean(ours) > np.mean(middle) + 0.1
