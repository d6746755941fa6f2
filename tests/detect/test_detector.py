"""Detector files: each family is recognised from its inputs, outputs and metadata; what cannot be known is refused in one sentence; tiles."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from species_wb.core import UserError
from species_wb.detect.boxes import NO_BOXES, Boxes, boxes_from
from species_wb.detect.detector import Detector, open_detector
from species_wb.detect.source import Source
from species_wb.detect.tiles import MOST_TILES, Tiled, tile_places

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ("images", TensorProto.FLOAT, [1, 3, 64, 64])


def network(outputs: dict[str, np.ndarray], inputs=(PICTURE,), **metadata: str) -> bytes:
    "Make a network that gives the same answer to every picture."
    given = [helper.make_tensor_value_info(*each) for each in inputs]
    gives = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for name, a in outputs.items()]
    nodes = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(a)) for name, a in outputs.items()]
    model = helper.make_model(helper.make_graph(nodes, "toy", given, gives), ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    if metadata:
        helper.set_model_props(model, metadata)
    return model.SerializeToString()


def opened(tmp_path: Path, outputs: dict[str, np.ndarray], inputs=(PICTURE,), said: object = None, **metadata: str) -> Detector:
    path = tmp_path / "made.onnx"
    path.write_bytes(network(outputs, inputs, **metadata))
    if said is not None:
        (tmp_path / "made.onnx.json").write_text(said if isinstance(said, str) else json.dumps(said))
    return open_detector(path, threads=1)


def refused(tmp_path: Path, *args, **more) -> str:
    with pytest.raises(UserError) as error:
        opened(tmp_path, *args, **more)
    text = str(error.value)
    assert "\n" not in text and text.endswith((".", "?")) and "made.onnx" in text, text
    return text


def rows(n: int, width: int) -> np.ndarray:
    return np.zeros((1, n, width), np.float32)


def lists(**more: np.ndarray) -> dict[str, np.ndarray]:
    return {"1": np.float32([[8, 8, 32, 32], [0, 0, 4, 4]]), "2": np.array([16, 1]), "3": np.float32([0.9, 0.3])} | more


GREY = np.full((48, 64, 3), 114, np.uint8)
NAMES = {"names": "{0: 'animal', 1: 'person', 2: 'vehicle'}", "stride": "32"}


@pytest.mark.parametrize(
    "family, outputs, inputs, metadata, least, classes",
    [
        ("yolox", {"output": rows(84, 85)}, (PICTURE,), {}, 0.25, 80),
        ("yolov5", {"output0": rows(252, 8)}, (PICTURE,), NAMES, 0.2, 3),
        ("yolov5", {"output0": rows(255, 8), "339": np.zeros((1, 3, 8, 8, 8), np.float32)}, (PICTURE,), NAMES, 0.2, 3),
        ("yolov5", {"output0": rows(252, 85)}, (("images", TensorProto.FLOAT16, [1, 3, 64, 64]),), {}, 0.25, 80),
        ("yolov8", {"output0": rows(7, 84)}, (PICTURE,), NAMES | {"task": "detect", "imgsz": "[64, 64]"}, 0.2, 3),
        ("yolov8", {"output0": rows(84, 336)}, (("images", TensorProto.FLOAT, ["batch", 3, 128, 128]),), {}, 0.25, 80),
        ("end-to-end", {"output0": rows(300, 6)}, (PICTURE,), NAMES, 0.2, 3),
        ("detr", {"logits": rows(9, 92), "pred_boxes": rows(9, 4), "last_hidden_state": rows(9, 32)}, (PICTURE,), {}, 0.5, 80),
        ("detr", {"logits": rows(9, 92), "pred_boxes": rows(9, 4)}, (PICTURE, ("pixel_mask", TensorProto.INT64, [1, 64, 64])), {}, 0.5, 80),
        ("deformable-detr", {"logits": rows(9, 91), "pred_boxes": rows(9, 4)}, (PICTURE,), {}, 0.5, 80),
        ("rt-detr", {"logits": rows(9, 80), "pred_boxes": rows(9, 4)}, (PICTURE,), {}, 0.5, 80),
        ("rf-detr", {"dets": rows(9, 4), "labels": rows(9, 91)}, (("input", TensorProto.FLOAT, [1, 3, 64, 64]),), {}, 0.5, 80),
    ],
)
def test_each_family_is_recognised_from_what_its_files_show(tmp_path, family, outputs, inputs, metadata, least, classes):
    detector = opened(tmp_path, outputs, inputs, **metadata)
    assert (detector.layout.family, detector.least, len(detector.layout.classes)) == (family, least, classes)
    assert isinstance(detector.find(GREY, {}), Boxes)
    source: Source = detector
    assert source.sees_people and source.side == max(detector.layout.wants.width * 3 // 4, 48)


def test_a_list_of_boxes_needs_the_names_of_its_classes_and_any_order_will_do(tmp_path):
    assert "its classes are unknown" in refused(tmp_path, lists())
    detector = opened(tmp_path, lists(), (("image", TensorProto.FLOAT, [3, 48, 64]),), {"classes": "coco"})
    assert detector.layout.family == "torchvision" and detector.find(GREY, {}).labels == ("bird", "person")
    assert detector.find(GREY, {}).corners[0].tolist() == np.float32([8 / 64, 8 / 48, 32 / 64, 32 / 48]).tolist()
    few = opened(tmp_path, lists(**{"2": np.array([1, 2])}), said={"classes": ["fox", "owl"]})
    assert few.find(np.zeros((64, 64, 3), np.uint8), {}).labels == ("fox", "owl")


def test_rt_detr_s_own_export_is_given_the_width_and_height_of_its_picture(tmp_path):
    "The export multiplies its boxes, which are shares, by the size that it is given; the picture is wider than high."
    picture, size = (helper.make_tensor_value_info(*one) for one in (("images", TensorProto.FLOAT, [1, 3, 64, 96]), ("orig_target_sizes", TensorProto.INT64, [1, 2])))
    forms = {"labels": (TensorProto.INT64, [1, 2]), "boxes": (TensorProto.FLOAT, [1, 2, 4]), "scores": (TensorProto.FLOAT, [1, 2])}
    kept = {"shares": np.float32([[[0, 0, 0.5, 1], [0.5, 0.25, 1, 1]]]), "labels": np.array([[0, 14]]), "scores": np.float32([[0.9, 0.8]]), "twice": np.array([1, 1, 2])}
    nodes = [
        helper.make_node("Cast", ["orig_target_sizes"], ["sides"], to=TensorProto.FLOAT),
        helper.make_node("Tile", ["sides3", "twice"], ["four"]),
        helper.make_node("Mul", ["shares", "four"], ["boxes"]),
    ]
    nodes.insert(1, helper.make_node("Reshape", ["sides", "form"], ["sides3"]))
    weights = [numpy_helper.from_array(a, name) for name, a in (kept | {"form": np.array([1, 1, 2])}).items()]
    graph = helper.make_graph(nodes, "rt-detr", [picture, size], [helper.make_tensor_value_info(name, *form) for name, form in forms.items()], weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "made.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "made.onnx.json").write_text('{"classes": "coco"}')
    found = open_detector(tmp_path / "made.onnx", threads=1).find(np.full((30, 100, 3), 114, np.uint8), {})
    assert found.labels == ("person", "bird") and np.allclose(found.corners, kept["shares"][0], atol=1e-6)


def test_a_network_of_any_size_gets_the_photo_in_its_own_shape(tmp_path):
    pixels = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, "height", "width"])
    gives = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, "n", 6])
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"], start=2),
        helper.make_node("Cast", ["shape"], ["sides"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["sides", "order"], ["box"]),
        helper.make_node("Mul", ["box", "own"], ["placed"]),
        helper.make_node("Concat", ["placed", "sure"], ["one"], axis=0),
        helper.make_node("Reshape", ["one", "form"], ["output0"]),
    ]
    kept = {"order": np.array([1, 0, 1, 0]), "own": np.float32([0.25, 0.5, 0.5, 1]), "sure": np.float32([0.9, 1]), "form": np.array([1, 1, 6])}
    graph = helper.make_graph(nodes, "any", [pixels], [gives], [numpy_helper.from_array(a, name) for name, a in kept.items()])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, NAMES | {"imgsz": "[128, 128]"})
    (tmp_path / "any.onnx").write_bytes(model.SerializeToString())
    detector = open_detector(tmp_path / "any.onnx", threads=1)
    assert (detector.layout.wants.width, detector.layout.wants.step, detector.layout.family) == (128, 32, "end-to-end")
    found = detector.find(np.zeros((100, 200, 3), np.uint8), {})  # drawn as 128×64, without any filling
    assert found.corners.tolist() == [[0.25, 0.5, 0.5, 1]] and found.labels == ("person",)


def test_the_mask_tells_a_detr_where_the_photo_lies(tmp_path):
    boxes = np.float32([[[0.5, 0.5, 1, 1]]])
    logits = np.full((1, 1, 92), -9, np.float32)
    logits[0, 0, 16] = 9
    inputs = (PICTURE, ("pixel_mask", TensorProto.INT64, [1, "h", "w"]))
    found = opened(tmp_path, {"logits": logits, "pred_boxes": boxes}, inputs).find(np.zeros((30, 100, 3), np.uint8), {})
    assert found.labels == ("bird",) and np.allclose(found.corners, [[0, 0, 1, 1]], atol=1e-6)


@pytest.mark.parametrize(
    "node, kind, opset, ir, why",
    [
        (helper.make_node("GridSample", ["x", "at"], ["y"], mode="linear"), TensorProto.FLOAT, 16, 8, "cannot run its operator GridSample"),  # Deformable DETR's export
        (helper.make_node("GridSample", ["x", "at"], ["y"]), TensorProto.DOUBLE, 16, 8, "cannot run its operator GridSample"),
        (helper.make_node("EfficientNMS_TRT", ["x", "at"], ["y"], domain="ai.example"), TensorProto.FLOAT, 17, 8, "cannot run its operator EfficientNMS_TRT"),
        (helper.make_node("NextYear", ["x", "at"], ["y"]), TensorProto.FLOAT, 17, 8, "cannot run its operator NextYear"),
        (helper.make_node("Add", ["x", "at"], ["y"]), TensorProto.FLOAT, 99, 8, "a newer ONNX Runtime"),
        (helper.make_node("Add", ["x", "at"], ["y"]), TensorProto.FLOAT, 17, 99, "a newer ONNX Runtime"),
    ],
)
def test_a_file_that_this_onnx_runtime_cannot_run_is_not_called_damaged(tmp_path, node, kind, opset, ir, why):
    x, at, y = (helper.make_tensor_value_info(name, kind, shape) for name, shape in (("x", [1, 3, 8, 8]), ("at", [1, 4, 4, 2]), ("y", None)))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.example", 1)]
    model = helper.make_model(helper.make_graph([node], "next", [x, at], [y]), ir_version=ir, opset_imports=opsets)
    (tmp_path / "next.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError) as error:
        open_detector(tmp_path / "next.onnx", threads=1)
    text = str(error.value)
    assert why in text and "damaged" not in text and "xport it again" in text and "\n" not in text, text


OURS = {"kind": "detector", "format_version": 1, "layout": "species_wb", "classes": ["animal", "person"], "letterbox": "corner", "least": 0.3, "licence": "MIT", "name": "the probe"}


def ours(tmp_path: Path, **more: object) -> Detector:
    outputs = {"boxes": np.float32([[[0, 0, 0.5, 0.75], [0, 0, 1, 1]]]), "box_scores": np.float32([[0.8, 0]]), "box_labels": np.array([[1, 0]])}
    return opened(tmp_path, outputs, (("pixels", TensorProto.UINT8, ["N", 64, 64, 3]),), species_wb=json.dumps(OURS | more))


def test_a_detector_file_of_ours_brings_its_preparation_its_classes_and_its_licence(tmp_path):
    detector = ours(tmp_path)
    assert (detector.name, detector.least, detector.layout.licence, detector.layout.wants.dtype) == ("the detector the probe", 0.3, "MIT", "uint8")
    found = detector.find(GREY, {})
    assert found.labels == ("person",) and found.corners.tolist() == [[0, 0, 0.5, 1]]  # the square's lower quarter is filling


@pytest.mark.parametrize("more, why", [({"format_version": 2}, "newer species_wb"), ({"layout": "next-year"}, "unknown layout 'next-year'"), ({"kind": "classifier"}, "names photos"), ({"classes": []}, "classes")])
def test_a_file_of_next_year_is_refused(tmp_path, more, why):
    with pytest.raises(UserError, match=why):
        ours(tmp_path, **more)


@pytest.mark.parametrize(
    "outputs, inputs, metadata, why",
    [
        ({"out": rows(82, 86)}, (PICTURE,), {}, "its layout is not known here (it takes images (float 1×3×64×64) and gives out (float32 1×82×86))"),
        ({"output": rows(84, 12)}, (PICTURE,), {}, "its classes are unknown"),
        ({"output0": rows(252, 9)}, (PICTURE,), NAMES, "3 names for 4 classes"),
        ({"output0": rows(300, 6)}, (PICTURE,), {}, "its layout is not known here"),
        ({"output0": rows(39, 84)}, (PICTURE,), NAMES | {"task": "segment"}, "its layout is not known here"),
        ({"logits": rows(9, 7), "pred_boxes": rows(9, 4)}, (PICTURE,), {}, "its layout is not known here"),
        ({"a": np.zeros(3, np.float32)}, (PICTURE,), {}, "its layout is not known here"),
        ({"output": rows(84, 85)}, (("tokens", TensorProto.INT64, [1, 77]),), {}, "it does not take one picture"),
        ({"output": rows(84, 85)}, (PICTURE, ("other", TensorProto.FLOAT, [1, 3, 64, 64])), {}, "it does not take one picture"),
        ({"output": rows(84, 85)}, (("images", TensorProto.FLOAT, [8, 3, 64, 64]),), {}, "it does not take one picture"),
        ({"output": rows(84, 85)}, (("images", TensorProto.FLOAT, [1, 3, 8000, 8000]),), {}, "sides from 32 to 4096"),
    ],
)
def test_what_cannot_be_known_is_refused_with_what_was_seen(tmp_path, outputs, inputs, metadata, why):
    assert why in refused(tmp_path, outputs, inputs, **metadata)


@pytest.mark.parametrize(
    "said, why",
    [
        ("{", "cannot be read"), ("[" * 100_000, "cannot be read"), ("[]", "must be an object"), ({"clases": ["fox"]}, "did you mean classes?"), ({"layout": "yolov88"}, "did you mean yolov8?"),
        ({"classes": ["fox"] * 8 + [""]}, "classes"), ({"classes": {"x": "fox"}}, "classes"), ({"fill": 1e9}, "fill"), ({"least": -1}, "least"), ({"least": True}, "least"), ({"std": [0, 0, 0]}, "std"),
        ({"input_size": 10**9}, "input_size"), ({"layout": ["yolox"]}, "layout"), ({"layout": "detr", "classes": "coco"}, "outputs of the layout detr"), ({"classes": ["fox", "owl"]}, "2 names for 7 classes"),
    ],
)
def test_a_description_that_cannot_be_right_is_refused(tmp_path, said, why):
    assert why in refused(tmp_path, {"output": rows(84, 12)}, said=said)


def test_a_description_names_classes_and_changes_the_preparation(tmp_path):
    said = {"classes": {"0": "fox", "4": "owl"}, "colours": "RGB", "scale": "0-1", "letterbox": "centre", "fill": 0, "mean": [0.5, 0.5, 0.5], "doubles": 0.6, "least": 0.1}
    layout = opened(tmp_path, {"output": rows(84, 12)}, said=said).layout
    assert layout.classes == {0: "fox", 4: "owl"} and (layout.doubles, layout.least) == (0.6, 0.1)
    assert (layout.wants.colours, layout.wants.divide, layout.wants.fit, layout.wants.fill, layout.wants.normal[0]) == ("RGB", 255, "centre", 0, (0.5, 0.5, 0.5))


def test_yolox_is_read_in_both_of_its_layouts_and_not_when_it_is_neither(tmp_path):
    from species_wb.detect.seen import grid

    cells, stride = grid((8, 16, 32), (64, 64))
    decoded = rows(84, 85)
    decoded[0, :, :2] = (cells + 0.4) * stride
    assert opened(tmp_path, {"output": decoded}).layout.family == "yolox-decoded"
    decoded[0, :, :2] = 1000
    assert "its layout is not known here" in refused(tmp_path, {"output": decoded})


def test_damaged_files_and_files_that_are_no_networks_are_refused(tmp_path):
    good = network({"output": rows(84, 85)})
    for data in (b"", b"\x00" * 100, good[: len(good) // 2], b"PK\x03\x04" + good):
        (tmp_path / "made.onnx").write_bytes(data)
        with pytest.raises(UserError, match="cannot be opened|cannot be used"):
            open_detector(tmp_path / "made.onnx")
    with pytest.raises(UserError, match="is not there"):
        open_detector(tmp_path)


def test_names_in_metadata_are_never_run(tmp_path):
    for names in ("__import__('os').mkdir('made')", "{" * 50_000, "[" + "(" * 50_000, "{0: 'a', 0.0: 'b'}", "x" * 3_000_000):
        assert "classes are unknown" in (said := refused(tmp_path, {"output0": rows(252, 8)}, names=names)) or "1 name for" in said
    assert not Path("made").exists()


def test_a_network_that_fails_says_so(tmp_path):
    given, gives = helper.make_tensor_value_info(*PICTURE), helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", "m", "k"])
    node = helper.make_node("Reshape", ["images", "form"], ["output"])
    graph = helper.make_graph([node], "bad", [given], [gives], [numpy_helper.from_array(np.array([7, 7, 7]), "form")])
    (tmp_path / "made.onnx").write_bytes(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    with pytest.raises(UserError, match="cannot be run"):
        open_detector(tmp_path / "made.onnx")


def test_several_threads_may_ask(tmp_path):
    answer = rows(7, 84)
    answer[0, :, 3] = [32, 32, 20, 20, 0.9, 0, 0]
    detector = opened(tmp_path, {"output0": answer}, **NAMES)
    found: list[Boxes] = []
    threads = [threading.Thread(target=lambda: found.extend(detector.find(GREY, {}) for _ in range(20))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80 and all(np.array_equal(one.corners, found[0].corners) and len(one) == 1 for one in found)


LARGE = """
import resource, sys
import numpy as np
from species_wb.detect.letterbox import Preparation, as_input, fitted
photo = np.zeros((8660, 11547, 3), np.uint8)
photo[::64] = 255
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for smooth in (False, True):
    wants = Preparation(1280, 1280, smooth=smooth)
    as_input(fitted(photo, wants)[0], wants)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_photo_of_100_megapixels_is_not_copied():
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) < 250, f"{done.stdout} MB"  # the photo itself has 300 MB; a copy in Pillow would have 400


def test_yolox_nano_is_recognised_and_finds_nothing_in_a_photo_of_one_pixel(weights):
    detector = open_detector(weights / "yolox_nano_416.onnx", threads=1)
    assert (detector.layout.family, detector.layout.classes[14], detector.side) == ("yolox", "bird", 312)
    assert len(detector.find(np.zeros((1, 1, 3), np.uint8), {}).scores) < 300


class Spots:
    "Finds white spots that are large enough in the picture that it gets."

    name, sha256, sees_people, side, least = "a finder of white spots", "0", False, 256, 0.2

    def find(self, photo: np.ndarray, row: dict) -> Boxes:
        y, x = np.nonzero(photo[..., 0] > 200)
        if not len(x) or np.ptp(x) < 0.05 * photo.shape[1]:
            return NO_BOXES
        height, width = photo.shape[:2]
        return boxes_from([[x.min() / width, y.min() / height, (x.max() + 1) / width, (y.max() + 1) / height]], [0.5 + 0.4 * (np.ptp(x) / width)], ["animal"])


@pytest.mark.parametrize("x, y", [(0, 0), (190, 100), (250, 180), (500, 250), (1000, 740), (700, 383)])
def test_a_small_animal_has_one_box_wherever_it_is(x, y):
    meadow = np.zeros((768, 1024, 3), np.uint8)
    meadow[y : y + 20, x : x + 24] = 255
    found = Tiled(Spots()).find(meadow, {})
    assert len(Spots().find(meadow, {})) == 0 and len(found) == 1
    assert (found.corners[0] * [1024, 768, 1024, 768]).round().tolist() == [x, y, x + 24, y + 20]


def test_a_large_animal_that_tiles_cut_has_one_box():
    meadow = np.zeros((768, 1024, 3), np.uint8)
    meadow[200:600, 200:800] = 255
    found = Tiled(Spots()).find(meadow, {})
    assert len(found) == 1 and (found.corners[0] * [1024, 768, 1024, 768]).round().tolist() == [200, 200, 800, 600]


def test_tiles_cover_every_pixel_and_are_not_too_many():
    for width, height in ((2000, 1500), (4000, 700), (11_547, 8660), (65_000, 500)):
        places = tile_places(width, height, 640)
        covered = np.zeros((-(-height // 20), -(-width // 20)), bool)
        for left, top, right, bottom in places:
            covered[top // 20 : -(-bottom // 20), left // 20 : -(-right // 20)] = True
        assert covered.all() and 1 < len(places) <= MOST_TILES


def test_a_source_with_tiles_has_another_fingerprint_and_asks_for_more_pixels():
    assert len({Spots.sha256, Tiled(Spots()).sha256, Tiled(Spots(), tile=512).sha256, Tiled(Spots(), zoom=2).sha256}) == 4
    assert Tiled(Spots()).side == 768 and Tiled(Spots()).name == "a finder of white spots in tiles" and Tiled(Spots()).least == 0.2
    assert len(Tiled(Spots()).find(np.zeros((1, 1, 3), np.uint8), {})) == 0
