"""Boxes are read as the programs of each family's authors read them: `references.npz` holds what these made of their networks' outputs (benchmarks/detector_references.py)."""

from pathlib import Path

import numpy as np
import pytest

from species_wb.detect import boxes
from species_wb.detect.decode import CANDIDATES, decode
from species_wb.detect.descriptions import FAMILIES
from species_wb.detect.kinds import COCO, COCO_IDS
from species_wb.detect.layouts import Layout, recognise
from species_wb.detect.letterbox import Preparation, as_input, fitted, placed_in
from species_wb.detect.seen import Port, Seen

STORED = Path(__file__).with_name("references.npz")
THREE = "{0: 'fox', 1: 'owl', 2: 'person'}"
FAMILY = {
    "yolox": "yolox", "yolox-decoded": "yolox-decoded", "yolov5": "yolov5", "yolov5-p6": "yolov5", "yolov8": "yolov8", "yolov9": "yolov8", "yolo11": "yolov8",
    "yolov10": "end-to-end", "faster-rcnn": "torchvision", "retinanet": "torchvision", "ssdlite": "torchvision", "detr": "detr", "deformable-detr": "deformable-detr",
    "rt-detr": "rt-detr", "rf-detr": "rf-detr",
}


def photo() -> np.ndarray:
    "The photo that the references were made with."
    return np.random.default_rng(16).integers(0, 256, (13, 20, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)


def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(STORED, allow_pickle=False) as stored:
        return {key.split("/")[1]: stored[key] for key in stored.files if key.startswith(f"{name}/")}


def recognised(name: str, own: dict[str, np.ndarray]) -> Layout:
    "Recognise a stored network by nothing but its input and its outputs (and its names, or the description that torchvision's files need)."
    outputs = {key.removeprefix("output-"): a for key, a in own.items() if key.startswith("output-")}
    size = {"torchvision": (80, 52)}.get(FAMILY[name], (128, 128) if name == "deformable-detr" else (64, 64))
    metadata = {"names": THREE} if "yolov" in name or name == "yolo11" else {}
    metadata |= {"end2end": "True"} if name == "yolov10" else {}
    said = {"yolox": {"classes": ["fox", "owl", "person"]}, "yolox-decoded": {"classes": ["fox", "owl", "person"]}, "torchvision": {"classes": "coco"}}.get(FAMILY[name], {})
    return recognise(Seen((Port("images", "tensor(float)", (1, 3, size[1], size[0])),), outputs, size, metadata), f"{name}.onnx", said)


@pytest.mark.parametrize("name", FAMILY)
def test_boxes_scores_and_classes_are_those_of_the_authors_own_program(name):
    own = reference(name)
    layout = recognised(name, own)
    assert layout.family == FAMILY[name]
    found = decode(layout, [own[f"output-{key}"] for key in layout.outputs], placed_in(100, 65, layout.wants))
    wanted = boxes.boxes_from(own["boxes"] / np.array([100, 65, 100, 65]), own["scores"], [layout.classes.get(int(k), "") for k in own["classes"]])
    wanted = boxes.chosen(wanted, np.array([bool(label) for label in wanted.labels]))  # COCO's ids without a name
    assert len(found) == len(wanted) > 3
    assert np.abs(found.scores - wanted.scores).max() < 1e-3
    for k in range(len(wanted)):  # boxes with equal scores may come in another order
        same = np.flatnonzero(np.abs(found.scores - wanted.scores[k]) < 1e-3)
        assert any(found.labels[j] == wanted.labels[k] and np.abs(found.corners[j] - wanted.corners[k]).max() < 1e-3 for j in same), f"box {k}"


def test_the_references_have_doubles_to_leave_out_and_stay_small():
    with np.load(STORED, allow_pickle=False) as stored:
        assert len(stored["yolox/boxes"]) < 50 and len(stored["yolov8/boxes"]) < 50 and len(stored["yolov5/boxes"]) < 230
        assert {key.split("/")[0] for key in stored.files} == set(FAMILY)
    assert STORED.stat().st_size < 200_000


@pytest.mark.parametrize("name, most", [("yolox", 1.01), ("yolov5", 1.01 / 255), ("detr", 0.05), ("deformable-detr", 0.05), ("rt-detr", 0.01), ("rf-detr", 0.02)])
def test_a_network_gets_what_its_authors_own_program_gives_it(name, most):
    own = reference(name)
    wants = recognised(name, own).wants
    given = as_input(fitted(photo(), wants)[0], wants)[0]
    theirs = own["input"].astype(np.float32)
    theirs = theirs.transpose(2, 0, 1) / 255 if name == "yolov5" else theirs.reshape(given.shape)
    assert np.abs(given - theirs).max() <= most, np.abs(given - theirs).max()


def layout_of(family: str, **more) -> Layout:
    wants = Preparation(640, 640, **FAMILIES[family][0])
    return Layout(family, wants, dict(enumerate(COCO)), (), ("output",), (8, 16, 32), FAMILIES[family][1], **more)


def test_a_network_that_finds_something_everywhere_is_read_quickly_and_gives_few_boxes():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.uniform(0, 640, (102_000, 4)), np.ones((102_000, 1)), rng.uniform(0.5, 1, (102_000, 3))], 1).astype(np.float32)
    found = decode(layout_of("yolov5"), [rows[None]], placed_in(100, 65, Preparation(640, 640)))
    assert len(found) <= boxes.MOST and CANDIDATES < 102_000
    assert (found.corners >= 0).all() and (found.corners <= 1).all() and (np.diff(found.scores) <= 0).all()


def test_ten_thousand_equal_boxes_are_one():
    rows = np.tile(np.float32([320, 320, 100, 100, 1, 0.9]), (10_000, 1))
    assert len(decode(layout_of("yolov5"), [rows[None]], placed_in(640, 640, Preparation(640, 640)))) == 1


def test_boxes_that_are_not_possible_are_left_out():
    nan, inf = np.nan, np.inf
    rows = np.float32([
        [320, 320, 64, 64, 0.9, 0.9], [nan, 320, 64, 64, 0.9, 0.9], [320, 320, inf, 64, 0.9, 0.9], [320, 320, 0, 64, 0.9, 0.9], [320, 320, -64, 64, 0.9, 0.9],
        [2000, 320, 64, 64, 0.9, 0.9], [320, 320, 64, 64, nan, 0.9], [320, 320, 64, 64, 0.9, nan],
    ])
    found = decode(layout_of("yolov5"), [rows[None]], placed_in(640, 640, Preparation(640, 640)))
    assert len(found) == 1 and found.corners[0].tolist() == np.float32([0.45, 0.45, 0.55, 0.55]).tolist()
    size = np.float32([[0, 0, 1e30, 1e30, 0.9, 0.9]] * 8400)
    assert len(decode(layout_of("yolox"), [size[None]], placed_in(640, 640, Preparation(640, 640)))) <= boxes.MOST


def test_boxes_in_half_precision_are_read():
    rows = np.float16([[320, 320, 64, 64, 0.9, 0.9]])
    assert len(decode(layout_of("yolov5"), [rows[None]], placed_in(640, 640, Preparation(640, 640)))) == 1


def test_numbers_without_a_name_give_no_box():
    layout = Layout("torchvision", Preparation(64, 64), COCO_IDS, (), ("boxes", "scores", "labels"))
    lists = [np.float32([[0, 0, 9, 9]] * 3), np.float32([0.9, 0.8, 0.7]), np.array([12, 16, 0])]  # 12 has no name in COCO, 0 is the background
    assert decode(layout, lists, placed_in(64, 64, layout.wants)).labels == ("bird",)


@pytest.mark.parametrize("width, height", [(1, 1), (1, 5000), (5000, 1), (640, 640), (641, 359)])
def test_a_box_around_the_whole_photo_comes_back_whole_from_photos_of_any_shape(width, height):
    for fit in ("corner", "centre", "squash"):
        wants = Preparation(640, 640, fit)
        canvas, placed = fitted(np.zeros((height, width, 3), np.uint8), wants)
        assert canvas.shape == (640, 640, 3)
        left, top, right, bottom = *placed.corner, placed.corner[0] + placed.photo[0] * placed.scale[0], placed.corner[1] + placed.photo[1] * placed.scale[1]
        layout = Layout("end-to-end", wants, {0: "fox"}, (), ("output0",))
        found = decode(layout, [np.float32([[[left, top, right, bottom, 0.9, 0]]])], placed)
        assert np.allclose(found.corners, [[0, 0, 1, 1]], atol=1e-5)
