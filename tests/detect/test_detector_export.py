"""A detector as one file: whatever was recognised, or told by a JSON beside it, stands in the file, which gives the same boxes alone."""

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from blocks import card
from onnx import TensorProto, helper, numpy_helper
from test_cli import one_sentence, typed
from test_decode import FAMILY, THREE, photo, reference
from test_detector import NAMES, OURS, network

from species_wb.cli_models import export
from species_wb.core import UserError
from species_wb.detect.detector import Detector, official, open_detector
from species_wb.models import detector_file
from species_wb.models.detector_file import PUBLISHED, export_detector, write_detector, write_published

SIDES = {"torchvision": (52, 80), "deformable-detr": (128, 128)}  # height, width


def stored(folder: Path, name: str) -> Path:
    "One of the stored networks as a file, with the JSON beside it that its layout needs."
    own, path = reference(name), folder / f"{name}.onnx"
    height, width = SIDES.get(FAMILY[name], (64, 64))
    metadata = {"names": THREE} if "yolov" in name or name == "yolo11" else {}
    metadata |= {"end2end": "True"} if name == "yolov10" else {}
    outputs = {key.removeprefix("output-"): a for key, a in own.items() if key.startswith("output-")}
    path.write_bytes(network(outputs, (("images", TensorProto.FLOAT, [1, 3, height, width]),), **metadata))
    said = {"yolox": {"classes": ["fox", "owl", "person"]}, "torchvision": {"classes": "coco"}}.get(FAMILY[name].removesuffix("-decoded"))
    if said:
        path.with_name(f"{path.name}.json").write_text(json.dumps(said))
    return path


def same(one: Detector, other: Detector, picture: np.ndarray) -> int:
    "Compare the boxes of two detectors; return how many there are."
    a, b = (official(detector.session, detector.layout, picture, detector.path) for detector in (one, other))
    assert (a.corners == b.corners).all() and (a.scores == b.scores).all() and a.labels == b.labels
    assert one.find(picture, {}).labels == other.find(picture, {}).labels
    return len(a)


@pytest.mark.parametrize("name", FAMILY)
def test_each_layout_gives_the_same_boxes_from_one_file(tmp_path, name):
    source = stored(tmp_path, name)
    write_detector(source, tmp_path / "elsewhere" / "one.onnx")
    (alone,) = (tmp_path / "elsewhere").iterdir()
    one = open_detector(alone, threads=1)
    assert (one.layout.family, one.name) == (FAMILY[name], f"the detector {name}")
    assert same(open_detector(source, threads=1), one, photo()) > 3
    again = write_detector(alone, tmp_path / "again.onnx")
    assert again.layout == one.layout and onnx.load(alone).graph == onnx.load(source).graph


def lamp(path: Path, **said: object) -> Path:
    "A network whose score is the mean of its first colour, divided by 1000."
    picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])
    gives = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 5, 84])
    kept = {"first": np.array([0]), "all": np.array([1, 2, 3]), "thousand": np.float32([1000]), "form": np.array([1, 1, 84]), "box": np.tile(np.float32([32, 32, 20, 20])[:, None], (1, 1, 84))}
    nodes = [
        helper.make_node("Gather", ["images", "first"], ["colour"], axis=1),
        helper.make_node("ReduceMean", ["colour"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Div", ["mean", "thousand"], ["small"]),
        helper.make_node("Reshape", ["small", "one"], ["flat"]),
        helper.make_node("Expand", ["flat", "form"], ["score"]),
        helper.make_node("Concat", ["box", "score"], ["output0"], axis=1),
    ]
    weights = [numpy_helper.from_array(a, name) for name, a in (kept | {"one": np.array([1, 1, 1])}).items()]
    model = helper.make_model(helper.make_graph(nodes, "lamp", [picture], [gives], weights), ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {"names": "{0: 'lamp'}", "author": "somebody"})
    path.write_bytes(model.SerializeToString())
    path.with_name(f"{path.name}.json").write_text(json.dumps(said))
    return path


@pytest.mark.parametrize(
    "more, score",
    [
        ({}, 200), ({"colours": "RGB"}, 100), ({"mean": [25.5, 0, 0]}, 174.5), ({"std": [0.5, 1, 1]}, 400),
        ({"letterbox": "centre", "fill": 0}, 100), ({"least": 0.9, "doubles": 0.2}, 200),
    ],
)
def test_the_preparation_goes_into_the_file(tmp_path, more, score):
    source = lamp(tmp_path / "lamp.onnx", **{"colours": "BGR", "scale": "0-255", "letterbox": "squash", "licence": "CC0"} | more)
    picture = np.tile(np.uint8([100, 50, 200]), (32, 64, 1))
    made = write_detector(source, tmp_path / "one" / "lamp.onnx")
    one = open_detector(tmp_path / "one" / "lamp.onnx", threads=1)
    assert same(open_detector(source, threads=1), one, picture) == 1 and one.layout == made.layout
    assert one.find(picture, {}).scores[0] == pytest.approx(score / 1000, abs=1e-4)
    assert (one.layout.licence, one.least) == ("CC0", more.get("least", 0.25))
    metadata = {entry.key: entry.value for entry in onnx.load(one.path).metadata_props}
    told = json.loads(metadata["species_wb"])
    assert metadata["author"] == "somebody" and told["kind"] == "detector" and told["licence"] == "CC0"
    assert told["provenance"]["made_from"] == "lamp.onnx" and len(told["provenance"]["sha256"]) == 64
    assert str(tmp_path) not in metadata["species_wb"]


def test_a_detector_file_of_ours_is_exported_again_with_what_a_person_adds_beside_it(tmp_path):
    outputs = {"boxes": np.float32([[[0, 0, 0.5, 0.75], [0, 0, 1, 1]]]), "box_scores": np.float32([[0.8, 0]]), "box_labels": np.array([[1, 0]])}
    (tmp_path / "a.onnx").write_bytes(network(outputs, (("pixels", TensorProto.UINT8, ["N", 64, 64, 3]),), species_wb=json.dumps(OURS)))
    (tmp_path / "a.onnx.json").write_text('{"licence": "CC-BY-4.0", "classes": ["hare", "rider"]}')
    write_detector(tmp_path / "a.onnx", tmp_path / "b.onnx")
    new = open_detector(tmp_path / "b.onnx", threads=1)
    assert (new.name, new.layout.licence, new.layout.classes) == ("the detector the probe", "CC-BY-4.0", {0: "hare", 1: "rider"})
    assert new.find(photo(), {}).labels == ("rider",)


def test_an_unknown_licence_is_called_unknown(tmp_path):
    (tmp_path / "a.onnx").write_bytes(network({"output0": np.zeros((1, 7, 84), np.float32)}, **NAMES))
    said = export_detector(str(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    assert "it finds animal, person and vehicle, in pictures of 64×64 pixels." in said[0] and said[1].startswith("Its licence is not known: ask who made it")
    assert json.loads({e.key: e.value for e in onnx.load(tmp_path / "b.onnx").metadata_props}["species_wb"])["licence"] == "not known"
    (tmp_path / "c.onnx").write_bytes(network({"output0": np.zeros((1, 7, 84), np.float32)}, **NAMES, license="AGPL-3.0 License (https://ultralytics.com/license)"))
    assert export_detector(str(tmp_path / "c.onnx"), tmp_path / "d.onnx")[1] == "Its licence: AGPL-3.0 License (https://ultralytics.com/license)."


@pytest.mark.parametrize(
    "source, out, why",
    [
        ("absent.onnx", "b.onnx", "is not there"), ("a.onnx", "a.onnx", "would be lost"), ("a.onnx", "folder", "is a folder"), ("a.onnx", "taken.onnx", "would change what taken.onnx says"),
        ("unknown.onnx", "b.onnx", "its layout is not known here"), ("folder", "b.onnx", "neither a detector's .onnx file nor the name of"),
        ("ssdlite320", "b.onnx", "did you mean ssdlite320_mobilenet_v3_large?"), ("", "b.onnx", "choose one of fasterrcnn_mobilenet_v3_large_320_fpn"),
        ("odd.onnx", "b.onnx", "The description of odd.onnx has classes"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path, monkeypatch, source, out, why):
    monkeypatch.chdir(tmp_path)
    Path("a.onnx").write_bytes(network({"output0": np.zeros((1, 7, 84), np.float32)}, **NAMES))
    Path("odd.onnx").write_bytes(network({"output0": np.zeros((1, 5, 84), np.float32)}, names="{0: 'a\\nb'}"))
    Path("unknown.onnx").write_bytes(network({"out": np.zeros((1, 3), np.float32)}))
    Path("folder").mkdir()
    Path("taken.onnx.json").write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(UserError) as error:
        export_detector(source, out)
    assert why in str(error.value) and "\n" not in str(error.value), error.value
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_file_that_would_be_read_in_another_way_is_not_kept(tmp_path, monkeypatch):
    source, own = stored(tmp_path, "yolov8"), detector_file.description_of
    monkeypatch.setattr(detector_file, "description_of", lambda *given: own(*given) | {"least": 0.77})
    with pytest.raises(UserError, match="in another way"):
        write_detector(source, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


def small() -> "torch.nn.Module":  # noqa: F821
    "A Faster R-CNN that is built as torchvision builds its own, with few and random weights, made so that boxes come out."
    import torch
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    torch.manual_seed(4)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 5, 4), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3, 2))
    body.out_channels = 16
    anchors, pool = AnchorGenerator(((24, 48),), ((0.5, 1.0),)), MultiScaleRoIAlign(["0"], 3, 2)
    net = FasterRCNN(body, 91, min_size=96, max_size=160, rpn_anchor_generator=anchors, box_roi_pool=pool, rpn_score_thresh=0.0, rpn_pre_nms_top_n_test=60, rpn_post_nms_top_n_test=40, box_score_thresh=0.3)
    torch.nn.init.normal_(net.roi_heads.box_predictor.cls_score.weight, std=5)
    return net.eval()


@pytest.mark.slow
def test_a_detector_of_torchvision_gives_the_same_boxes_from_its_file_in_pictures_of_every_shape(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from species_wb.detect.letterbox import as_input, fitted
    from species_wb.models import published_detectors

    net = small()
    monkeypatch.setattr(published_detectors, "fetched", lambda name: net)
    monkeypatch.setitem(PUBLISHED, "fcos_resnet50_fpn", {"input_size": 160, "short": 96})
    made = write_published("fcos_resnet50_fpn", tmp_path / "one.onnx")
    assert made.layout.licence.startswith("BSD-3-Clause") and (made.layout.wants.width, made.layout.wants.short) == (160, 96)
    rng, counts = np.random.default_rng(0), []
    for height, width in ((200, 300), (130, 60), (900, 1500), (97, 301)):
        picture = rng.integers(0, 256, (-(-height // 20), -(-width // 20), 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)[:height, :width]
        given = as_input(fitted(picture, made.layout.wants)[0], made.layout.wants)
        with torch.no_grad():
            theirs = net([torch.from_numpy(given)])[0]
        ours = made.session.run(None, {"image": given})
        assert len(ours[1]) == len(theirs["scores"])
        rows, wanted = (np.concatenate([b / max(height, width), s[:, None], c[:, None]], 1) for b, s, c in (ours, [theirs[key].numpy() for key in ("boxes", "scores", "labels")]))
        apart = np.abs(rows[:, None] - wanted[None]).max(2)  # boxes with equal scores may come in another order
        assert not len(rows) or apart.min(1).max() < 1e-3 and apart.min(0).max() < 1e-3
        counts.append(len(rows))
        assert len(made.find(picture, {})) <= len(rows)
    assert sum(counts) > 8 and len({*counts}) > 1, counts


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if "resnet" in name or "vgg" in name else name for name in PUBLISHED])
def test_published_weights_out_of_reach_are_said_in_one_sentence(name, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from species_wb.models import weights

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(weights, "_answers", lambda url: False)
    with pytest.raises(UserError, match=f"The weights of {name} cannot be fetched, because the hub .* did not answer.*: connect"):
        export_detector(name, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.slow
def test_published_weights_in_torchs_own_cache_are_used(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from torchvision.models import get_model, get_model_weights

    name = "ssdlite320_mobilenet_v3_large"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    kept = tmp_path / "torch" / "hub" / "checkpoints" / get_model_weights(name)["COCO_V1"].url.rpartition("/")[2]
    kept.parent.mkdir(parents=True)
    torch.manual_seed(1)
    net = get_model(name, weights=None, weights_backbone=None)
    for layer in net.head.classification_head.module_list:
        torch.nn.init.zeros_(layer[1].weight)
        torch.nn.init.constant_(layer[1].bias, -8)
        layer[1].bias.data[16::91] = 8  # birds everywhere
    torch.save(net.state_dict(), kept)
    said = export_detector(name, tmp_path / "one.onnx")
    assert "it finds person, bicycle, car, motorcycle and 76 more" in said[0] and "BSD-3-Clause" in said[1]
    found = open_detector(tmp_path / "one.onnx").find(np.zeros((300, 400, 3), np.uint8), {})
    assert len(found) and {*found.labels} == {"bird"}
    torch.save({"a": torch.zeros(1)}, kept)
    with pytest.raises(UserError, match="what was published does not fit"):
        export_detector(name, tmp_path / "two.onnx")


def test_a_person_exports_a_detector_and_classifies_with_the_file_alone(tmp_path, model):
    source = stored(tmp_path, "yolov8")
    (tmp_path / "away").mkdir()
    done = typed("export", "detector", source, "--out", tmp_path / "away" / "f.onnx")
    assert done.returncode == 0 and done.stdout.startswith(f"The detector yolov8 is {tmp_path / 'away' / 'f.onnx'}: it finds fox, owl and person"), done.stderr
    assert "Its licence is not known" in done.stdout
    folder = card(tmp_path / "card", 2)
    for detector, out in ((source, "a.csv"), (tmp_path / "away" / "f.onnx", "b.csv")):
        done = typed("classify", folder, "--model", model, "--detect", detector, "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
    tables = [[{k: v for k, v in row.items() if k != "model"} for row in csv.DictReader((tmp_path / out).open(newline="", encoding="utf-8-sig"))] for out in ("a.csv", "b.csv")]
    assert tables[0] == tables[1] and len(tables[0]) == 4 and all(row["x0"] for row in tables[0])
    assert "did you mean ssdlite320" in one_sentence(typed("export", "detector", "ssdlite320"))
    for words in ({"model": "ready-made"}, {"model": "detector", "int8": True}):
        with pytest.raises(UserError, match="one word too many"):
            export(**words, detector=str(source))


def test_the_help_says_how_a_detector_is_exported():
    shown = " ".join(typed("export", "--help").stdout.split())
    assert "detector, to write a detector as one file" in shown and "a detector's .onnx file of any known layout" in shown


@pytest.fixture
def model(tmp_path) -> Path:
    from species_wb.engine import toy

    return toy.write_toy(tmp_path / "toy.onnx")
