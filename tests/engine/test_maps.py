"""A map shows where the network looked, is made without torch, and says how it was made."""

import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from species_wb.engine import class_activation, maps, model_file, occlusion, toy
from species_wb.photos import pixels
from species_wb.contracts import METADATA_KEY, ModelInfo, ModelSpec, info_to_json
from species_wb.core import UserError
from species_wb.engine.maps import Map, heat_map, overlay

SPEC = ModelSpec("small", 32, (0.5,) * 3, (0.5,) * 3, crop_fraction=1.0)
POOL = [("ReduceMean", ["features", "places"], "embedding", {"keepdims": 0})]
LINEAR = [*POOL, ("Gemm", ["embedding", "weight", "bias"], "logits", {})]
BY_SIZE = [  # like our lite networks: the embedding divided by its root mean square, and a second branch, not linear
    *POOL,
    ("Mul", ["embedding", "embedding"], "square", {}), ("ReduceMean", ["square", "last"], "mean", {"keepdims": 1}),
    ("Sqrt", ["mean"], "size", {}), ("Div", ["embedding", "size"], "seen", {}),
    ("Gemm", ["seen", "weight", "bias"], "first", {}), ("Exp", ["first"], "known", {}),
    ("Add", ["first", "known"], "logits", {}),
]  # fmt: skip
FIRST = [*POOL, ("Gemm", ["embedding", "weight", "bias"], "first", {})]
AROUND = [
    *FIRST, ("ReduceMean", ["planes", "places"], "colour", {"keepdims": 0}), ("Add", ["first", "colour"], "logits", {}),
]  # fmt: skip
NOISE = [*FIRST, ("RandomNormal", [], "noise", {"shape": [1, 3]}), ("Add", ["first", "noise"], "logits", {})]
AMOUNT = [
    *FIRST,
    ("ReduceMean", ["embedding", "last"], "amount", {"keepdims": 1}), ("Log", ["amount"], "log", {}),
    ("Mul", ["first", "log"], "logits", {}),
]  # fmt: skip
IDENTITY = [("Identity", ["map"], "features", {})]
IN_BYTES = [("QuantizeLinear", ["map", "scale"], "bytes", {}), ("DequantizeLinear", ["bytes", "scale"], "features", {})]


def write(path: Path, tail=LINEAR, last=IDENTITY, stride: int = 4, labels=("a", "b", "c"), spec=SPEC) -> Path:
    "Write a small model file with random weights: 7 features from a convolution, and any head."
    rng, side = np.random.default_rng(9), SPEC.input_size // stride
    tensors = {
        "kernel": rng.normal(0, 0.02, (7, 3, stride, stride)).astype(np.float32),
        "weight": rng.normal(0, 1, (7, 3)).astype(np.float32), "bias": rng.normal(0, 1, 3).astype(np.float32),
        "places": np.array([2, 3]), "last": np.array([1]), "scale": np.array(0.02, np.float32),
    }  # fmt: skip
    body = [
        ("Cast", ["pixels"], "x", {"to": TensorProto.FLOAT}), ("Transpose", ["x"], "planes", {"perm": [0, 3, 1, 2]}),
        ("Conv", ["planes", "kernel"], "convolved", {"strides": [stride, stride]}), ("Relu", ["convolved"], "map", {}),
    ]  # fmt: skip
    steps = (*body, *last, *tail)
    nodes = [helper.make_node(kind, inputs, [output], **options) for kind, inputs, output, options in steps]
    taken = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 32, 32, 3])]
    shapes = {"logits": [3], "embedding": [7], "features": [7, side, side]}
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]) for name, shape in shapes.items()]
    weights = [numpy_helper.from_array(v, n) for n, v in tensors.items()]
    graph = helper.make_graph(nodes, "small", taken, given, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: info_to_json(ModelInfo(list(labels), [0, 1, 2], spec))})
    onnx.save(model, path)
    return path


def opened(path: Path) -> model_file.ModelFile:
    "Open a model file with one thread."
    found = model_file.open_model(path, 1)
    assert isinstance(found, model_file.ModelFile)
    return found


def tensor(path: Path, name: str) -> np.ndarray:
    "Read a weight out of a model file."
    return next(numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.name == name)


def scaled(parts: np.ndarray) -> np.ndarray:
    "Scale parts as a map is: nothing below 0, the largest is 1."
    assert parts.max() > 0 > parts.min()  # else little would be tested
    return parts.clip(0) / parts.max()


def first_features(model: model_file.ModelFile, photo: np.ndarray) -> np.ndarray:
    "Return the map of features of a photo, D×h×w."
    return model_file.run_network(model, photo[None], ("features",))[0][0]


def toy_model(path: Path, **more) -> model_file.Model:
    "Write the toy that tells red from green, and open it with one thread."
    return model_file.open_model(toy.write_toy(path / "toy.onnx", **more), 1)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.mark.parametrize("last", [IDENTITY, IN_BYTES], ids=["fp32", "int8"])
def test_with_pooling_and_a_linear_head_a_map_is_the_class_activation_map_of_zhou(tmp_path, photo, last):
    model = opened(write(tmp_path / "model.onnx", last=last))
    features, weight = first_features(model, photo), tensor(model.path, "weight")
    for k, label in enumerate("abc"):
        found = heat_map(model, photo, label)
        assert (found.method, found.label) == ("class activation", label)
        assert found.heat.dtype == np.float32 and found.heat.shape == (8, 8)
        assert np.allclose(found.heat, scaled(np.tensordot(weight[:, k] - weight.mean(1), features, 1)), atol=1e-4)


def test_a_head_that_is_not_linear_is_asked_and_not_approximated(tmp_path, photo):
    model = opened(write(tmp_path / "model.onnx", BY_SIZE))
    features = first_features(model, photo)
    weight, bias = tensor(model.path, "weight"), tensor(model.path, "bias")

    def evidence(features: np.ndarray, k: int) -> float:
        embedding = features.mean((1, 2)).astype(float)
        first = embedding / np.sqrt((embedding**2).mean()) @ weight + bias
        logits = first + np.exp(first)
        return logits[k] - logits.mean()

    parts = np.zeros((8, 8))
    for y in range(8):
        for x in range(8):
            less = features.copy()
            less[:, y, x] = 0
            parts[y, x] = evidence(features, 1) - evidence(less, 1)
    found = heat_map(model, photo, "b")
    assert found.method == "class activation" and np.allclose(found.heat, scaled(parts), atol=1e-3)
    linear = scaled(np.tensordot(weight[:, 1] - weight.mean(1), features, 1))
    assert np.abs(found.heat - linear).max() > 0.05  # so the two can be told apart


class Counting:
    "A head that notes how many copies it is asked about at a time."

    def __init__(self, head):
        self.head, self.sizes = head, []

    def run(self, outputs, inputs):
        self.sizes.append(len(inputs["features"]))
        return self.head.run(outputs, inputs)


def test_a_large_map_is_taken_out_by_blocks_and_few_copies_at_a_time(tmp_path, photo, monkeypatch):
    model = opened(write(tmp_path / "model.onnx"))
    fine, head = heat_map(model, photo, "b").heat, Counting(class_activation._head(model.path, model.sha256, 1))
    monkeypatch.setattr(class_activation, "_head", lambda *_: head)
    monkeypatch.setattr(class_activation, "COPIES", 7 * 8 * 8 * 5)
    assert np.allclose(heat_map(model, photo, "b").heat, fine, atol=1e-6)
    assert max(head.sizes) == 5 and sum(head.sizes) == 1 + 64
    monkeypatch.setattr(class_activation, "PLACES", 4)
    features, weight = first_features(model, photo), tensor(model.path, "weight")
    blocks = np.tensordot(weight[:, 1] - weight.mean(1), features, 1).reshape(4, 2, 4, 2).sum((1, 3))
    assert np.allclose(heat_map(model, photo, "b").heat, scaled(blocks), atol=1e-4)


def without_features(path: Path) -> None:
    "Take the output called features out of a model file."
    model = onnx.load(path)
    del model.graph.output[2]
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("tail", "stride", "why"),
    [
        (AROUND, 4, "the logits depend on more than the features"),
        (LINEAR, 32, "the features are not a grid of places"),
        (NOISE, 4, "the head alone gives other answers than the whole file"),
        (AMOUNT, 4, "the head alone gives other answers than the whole file"),
        (None, 4, "the model file has no output called features"),
    ],
    ids=["passes by", "one place", "by chance", "not a number", "no features"],
)
def test_a_file_that_has_no_class_activation_map_is_covered_with_grey_and_says_why(tmp_path, tail, stride, why):
    path = write(tmp_path / "model.onnx", tail or LINEAR, stride=stride)
    photo = np.zeros((32, 32, 3), np.uint8)
    photo[4:8, 4:8] = 255  # the only place with features: without it the logarithm of their amount is not a number
    if tail is None:
        without_features(path)
    found = heat_map(opened(path), photo, "a")
    assert found.method == "occlusion" and why in found.said
    assert found.heat.shape == (12, 12) and np.isfinite(found.heat).all()


def test_without_the_package_onnx_maps_are_still_made(tmp_path, photo, monkeypatch):
    model = opened(write(tmp_path / "model.onnx"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = heat_map(model, photo, "a")
    assert found.method == "occlusion" and "pip install onnx" in found.said
    monkeypatch.undo()
    assert heat_map(model, photo, "a").method == "class activation"  # installed now: no restart is needed


def test_a_file_that_changed_after_it_was_opened_lends_no_head(tmp_path, photo):
    model = opened(write(tmp_path / "model.onnx"))
    write(model.path, BY_SIZE)
    assert "was changed after it was opened" in heat_map(model, photo, "a").said
    model.path.unlink()
    assert "cannot be read again" in heat_map(model, photo, "a").said


def test_a_model_file_is_read_again_once_and_not_for_every_photo(tmp_path, photo):
    model = opened(write(tmp_path / "model.onnx"))
    first = heat_map(model, photo, "a")
    model.path.unlink()
    assert (heat_map(model, photo, "a").heat == first.heat).all()


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_occlusion_finds_what_speaks_for_a_label(tmp_path, corner):
    model, photo = toy_model(tmp_path, side=48), np.full((96, 96, 3), 128, np.uint8)
    y, x = (12 + 54 * c for c in corner)
    photo[y : y + 18, x : x + 18] = (255, 0, 0)
    found = heat_map(model, photo, "red")
    row, column = np.unravel_index(found.heat.argmax(), found.heat.shape)
    assert (row >= 6, column >= 6) == corner and found.heat[(1 - corner[0]) * 6 :][:6].max() < 0.5
    nothing = heat_map(model, photo, "green")
    assert not nothing.heat.any() and "Nothing in the photo speaks for green" in nothing.said


def test_errors_of_rounding_are_no_map():
    logits = np.array([[1000.0, 0, -3]], np.float32)
    lost = np.array([[1, 0, 0], [2, 0, 0], [0, 0, 0], [-1, 0, 0]], np.float32)
    assert not occlusion.evidence_lost(logits, logits - 1e-3 * lost, 0, (2, 2)).any()
    assert np.allclose(occlusion.evidence_lost(logits, logits - lost, 0, (2, 2)), [[0.5, 1], [0, 0]], atol=1e-3)


def test_a_photo_that_says_nothing_has_an_empty_map(tmp_path):
    model = toy_model(tmp_path)
    grey = np.full((40, 40, 3), 128, np.uint8)
    found = heat_map(model, grey, "red")
    assert not found.heat.any() and (overlay(grey, found) == grey).all()


@pytest.mark.parametrize("rule", ["crop", "squash"])
@pytest.mark.parametrize("size", [(300, 400), (400, 300), (320, 320), (90, 1000)])
def test_the_part_seen_is_the_part_that_prepare_shows(rule, size):
    spec = replace(SPEC, resize=rule, crop_fraction=0.875, input_size=128)
    rows, columns = ((np.arange(n) + 0.5) / n * 255 for n in size)
    ramp = np.zeros((*size, 3))
    ramp[..., 0], ramp[..., 1] = columns, rows[:, None]
    shown = pixels.prepare(ramp.round().astype(np.uint8), spec).astype(float) / 255
    x0, y0, x1, y1 = maps._seen(ramp, spec)
    half = (x1 - x0) / 256, (y1 - y0) / 256  # of a pixel of what is shown
    assert np.allclose(shown[64, [0, -1], 0], [x0 + half[0], x1 - half[0]], atol=0.008)
    assert np.allclose(shown[[0, -1], 64, 1], [y0 + half[1], y1 - half[1]], atol=0.008)


def test_a_mix_is_the_weighted_mean_of_its_members_maps(tmp_path, photo):
    members = [opened(write(tmp_path / "a.onnx")), opened(write(tmp_path / "b.onnx", BY_SIZE))]
    alone = [maps._enlarged(heat_map(member, photo, "c").heat, 48, 48) for member in members]
    mix = model_file.ensemble_of(members, [3, 1])
    found = heat_map(mix, photo, "c")
    mean = 0.75 * alone[0] + 0.25 * alone[1]
    assert np.allclose(found.heat, mean / mean.max(), atol=1e-5) and np.abs(alone[0] - alone[1]).max() > 0.05
    assert found.method == "class activation" and found.said.startswith("The weighted mean of 2 maps.")


def test_members_of_a_mix_are_laid_where_each_of_them_looked(tmp_path):
    photo = np.full((96, 192, 3), 128, np.uint8)
    photo[36:60, 4:28] = (255, 0, 0)  # far on the left: the one that squashes sees it, the one that crops does not
    middle = toy.write_toy(tmp_path / "middle.onnx", side=48)
    squashing = opened(toy.write_toy(tmp_path / "whole.onnx", side=48))
    squashing = replace(squashing, info=replace(squashing.info, spec=replace(squashing.info.spec, resize="squash")))
    found = heat_map(model_file.ensemble_of([squashing, opened(middle)]), photo, "red")
    assert found.seen == (0, 0, 1, 1) and found.heat.max() == 1
    assert np.unravel_index(found.heat.argmax(), found.heat.shape)[1] < 9
    photo[36:60, 4:28], photo[12:24, 120:132] = 128, (255, 0, 0)  # both see it, on the right of the middle and above
    found = heat_map(model_file.ensemble_of([squashing, opened(middle)], [1, 9]), photo, "red")
    row, column = np.unravel_index(found.heat.argmax(), (48, 48))
    assert abs((column + 0.5) / 48 - 126 / 192) < 0.07 and abs((row + 0.5) / 48 - 18 / 96) < 0.1


def test_members_that_crop_differently_are_laid_over_what_any_of_them_sees(tmp_path):
    wide = opened(toy.write_toy(tmp_path / "wide.onnx", side=48))
    narrow = opened(toy.write_toy(tmp_path / "narrow.onnx", side=48))
    narrow = replace(narrow, info=replace(narrow.info, spec=replace(narrow.info.spec, crop_fraction=0.5)))
    photo = np.full((96, 192, 3), 128, np.uint8)
    photo[30:36, 102:108] = (255, 0, 0)
    found = heat_map(model_file.ensemble_of([wide, narrow], [1, 9]), photo, "red")
    x0, y0, x1, y1 = found.seen
    row, column = np.unravel_index(found.heat.argmax(), (48, 48))
    assert found.seen == maps._seen(photo, wide.info.spec)
    assert abs((x0 + (column + 0.5) / 48 * (x1 - x0)) * 192 - 105) < 6
    assert abs((y0 + (row + 0.5) / 48 * (y1 - y0)) * 96 - 33) < 6


def test_a_label_is_found_in_each_member_by_its_id(tmp_path, photo):
    usual = opened(toy.write_toy(tmp_path / "usual.onnx"))
    turned = opened(toy.write_toy(tmp_path / "turned.onnx", ("green", "red"), (1, 0), ((-1, 1), (1, -1), (0, 0))))
    alone = maps._enlarged(heat_map(usual, photo, "red").heat, 48, 48)
    both = heat_map(model_file.ensemble_of([usual, turned]), photo, "red").heat
    assert np.allclose(both, alone / alone.max(), atol=1e-5)


def test_members_that_do_not_know_a_label_are_left_out(tmp_path):
    labels, weight = ("red", "green", "neither"), ((1, -1, 0), (-1, 1, 0), (0, 0, 2))
    knows = toy.write_toy(tmp_path / "knows.onnx", labels, (0, 1, -1), weight)
    mix = model_file.ensemble_of([opened(toy.write_toy(tmp_path / "two.onnx")), opened(knows)])
    blue = np.zeros((40, 40, 3), np.uint8)
    blue[6:16, 6:16, 2] = 255
    found = heat_map(mix, blue, "neither")
    assert "weighted mean" not in found.said and found.heat[:6, :6].max() == 1


def test_a_label_that_the_model_does_not_know_is_refused_with_the_nearest(tmp_path, photo):
    said = r"toy.onnx does not know the label 'gren', so there is no map of it: did you mean green\?"
    with pytest.raises(UserError, match=said):
        heat_map(toy_model(tmp_path), photo, "gren")


def test_an_overlay_changes_the_photo_only_where_there_is_heat_and_only_where_the_network_looked(photo):
    large = np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 1
    drawn = overlay(large, Map(heat, "a", "occlusion", (0.25, 0.0, 0.75, 1.0), ""))
    changed = (drawn != large).any(2)
    assert drawn.shape == large.shape and drawn.dtype == np.uint8 and changed[2:18, 44:56].mean() > 0.9
    assert not changed[:, :40].any() and not changed[:, 120:].any() and not changed[60:].any()
    hottest = maps.OPACITY * np.array(maps.VIRIDIS[-1]) + (1 - maps.OPACITY) * large[0, 40]
    assert np.abs(drawn[0, 40] - hottest).max() < 12
    assert (large == np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8)).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (900, 2), (7, 5)])
def test_a_map_is_drawn_over_photos_of_any_size(tmp_path, size):
    tiny = np.full((*size, 3), (250, 5, 5), np.uint8)
    found = heat_map(toy_model(tmp_path), tiny, "red")
    assert overlay(tiny, found).shape == tiny.shape and found.heat.max() == 1
    assert overlay(tiny, replace(found, seen=(0.45, 0.45, 0.55, 0.55))).shape == tiny.shape


def test_the_colours_are_matplotlibs_viridis():
    theirs = matplotlib.colormaps["viridis"](np.linspace(0, 1, len(maps.VIRIDIS)))[:, :3] * 255
    assert np.abs(theirs - np.array(maps.VIRIDIS)).max() <= 0.51


@pytest.fixture(scope="module")
def model(photos, ready_made_cache) -> model_file.ModelFile:  # without photos nothing is made
    return opened(next(ready_made_cache.rglob("*.onnx")))


def four_in_one(photos: Path, spec: ModelSpec, pictures: int):
    "Yield pictures of four photos of four classes each, with the classes; the network sees exactly the four."
    rng, half = random.Random(0), replace(spec, input_size=spec.input_size // 2)
    classes = sorted(folder.name for folder in (photos / "test").iterdir())
    margin = round(spec.input_size / spec.crop_fraction - spec.input_size) // 2
    for _ in range(pictures):
        names = rng.sample(classes, 4)
        four = [pixels.load(rng.choice(sorted((photos / "test" / name).glob("*.jpg"))), half) for name in names]
        picture = np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])
        yield names, np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), constant_values=128)


def on_the_right_one(model: model_file.ModelFile, photos: Path, pictures: int) -> tuple[float, set[str]]:
    """Return the share of maps whose hottest place lies on the photo of the class asked for, and how they were made.

    This is the grid pointing game of Böhle and others, 2021.
    """
    right, methods = [], set()
    for names, picture in four_in_one(photos, model.info.spec, pictures):
        for k, name in enumerate(names):
            found = heat_map(model, picture, name)
            row, column = np.unravel_index(maps._enlarged(found.heat, 64, 64).argmax(), (64, 64))
            right.append((row >= 32, column >= 32) == (k >= 2, k % 2 == 1))
            methods.add(found.method)
    return float(np.mean(right)), methods


def test_maps_of_real_photos_point_at_the_photo_of_the_class_asked_for(model, photos):
    share, methods = on_the_right_one(model, photos, 15)
    assert methods == {"class activation"} and share > 0.6  # n = 60; by chance 0.25


@pytest.mark.slow
def test_maps_by_occlusion_of_real_photos_point_at_the_photo_of_the_class_asked_for(
    model, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(occlusion, "GRID", 6)  # a quarter of the places take a quarter of the time
    monkeypatch.setattr(occlusion, "SQUARE", 1.5)  # the square is as large as ever
    shutil.copy(model.path, tmp_path / "model.onnx")
    without_features(tmp_path / "model.onnx")
    share, methods = on_the_right_one(opened(tmp_path / "model.onnx"), photos, 2)
    assert methods == {"occlusion"} and share > 0.5  # n = 8; by chance 0.25
