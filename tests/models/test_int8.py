"""An int8 file answers as its fp32 file does, or is not written."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from species_wb.contracts import ModelInfo
from species_wb.core import UserError
from species_wb.engine.model_file import open_model, run_network
from species_wb.models import calibration_photos, int8, int8_gate
from species_wb.models.export import restate, to_onnx, with_head
from species_wb.models.int8 import NotClose, quantise
from species_wb.models.int8_variants import Variant, _fold, make_ready, make_variant
from species_wb.models.registry import build
from species_wb.photos.pixels import encode_jpeg, load

LABELS = ["blue", "green", "red"]


def picture(label: str, rng: np.random.Generator) -> np.ndarray:
    "Blobs of all colours, and somewhat more of one."
    blobs = rng.integers(0, 110, (6, 6, 3)).astype(np.uint8)
    large = np.kron(blobs, np.ones((12, 12, 1), np.uint8)).astype(int) + rng.integers(0, 40, (72, 72, 3))
    large[..., ("red", "green", "blue").index(label)] += rng.integers(40, 100)
    return large.clip(0, 255).astype(np.uint8)


def draw(folder, per_class: int, seed: int):
    rng = np.random.default_rng(seed)
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for k in range(per_class):
            (folder / label / f"{k}.jpg").write_bytes(encode_jpeg(picture(label, rng), 92))
    return folder


@pytest.fixture(scope="module", autouse=True)
def quick():
    "Speed is no promise of these tests, and the search for layers that hurt has its own: both are cut short."
    with pytest.MonkeyPatch.context() as patch:
        speed = {"p50": 1.0, "p95": 2.0, "n": 3, "photos_per_second": 100.0, "batch": 4, "threads": 1, "cpu": "not measured"}
        patch.setattr(int8_gate, "latency", lambda _: speed)
        patch.setattr("species_wb.engine.model_file.cpu_count", lambda: 1)  # threads of several test workers would wait for one another
        patch.setattr(int8_gate, "MEASUREMENTS", 0)
        patch.setattr(int8_gate, "PARTS", 2)
        yield


@pytest.fixture
def thorough(monkeypatch):
    "Layers that hurt are looked for as they are outside of tests."
    monkeypatch.setattr(int8_gate, "MEASUREMENTS", 36)
    monkeypatch.setattr(int8_gate, "PARTS", 12)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    "Photos of three colours: train and test."
    folder = tmp_path_factory.mktemp("colours")
    draw(folder / "train", 60, seed=0)
    draw(folder / "test", 20, seed=1)
    return folder


@pytest.fixture(scope="module")
def model(colours, tmp_path_factory):
    "A model file that knows the colours: random convolutions, and a head fitted on what they see."
    from sklearn.linear_model import LogisticRegression

    torch.manual_seed(0)
    network, spec, _ = build("simple_cnn", 3, weights="none")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # untrained, its residual blocks would add nothing
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
    info = ModelInfo(LABELS, [2, 1, 0], replace(spec, input_size=48), temperature=1.25)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    to_onnx(network, info, path)
    files = sorted((colours / "train").rglob("*.jpg"))
    pixels, file = np.stack([load(f, info.spec) for f in files]), open_model(path)
    embedding = np.concatenate([run_network(file, pixels[k : k + 20])[1] for k in range(0, len(pixels), 20)])
    truth = [LABELS.index(f.parent.name) for f in files]
    scale = embedding.std(0) + 1e-6
    head = LogisticRegression(max_iter=1000).fit(embedding / scale, truth)
    trained = sorted({hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in files})
    info = replace(info, provenance={"training_photos": trained, "run": "by-hand"}, validation={"n": 300})
    with_head(path, head.coef_ / scale, head.intercept_, info, path)
    return path


@pytest.fixture(scope="module")
def used() -> list[set[str]]:
    "The photos that `made` was made with: filled by it."
    return []


@pytest.fixture(scope="module")
def made(model, colours, used, tmp_path_factory):
    out, load_rows = tmp_path_factory.mktemp("made") / "int8.onnx", calibration_photos._load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration_photos, "_load", lambda rows, *rest: used.append({r["path"] for r in rows}) or load_rows(rows, *rest))
        return quantise(model, colours, out), out


def fresh(model, n=60):
    "Pictures that nothing here has seen."
    rng, spec = np.random.default_rng(99), open_model(model).info.spec
    from species_wb.photos.pixels import prepare

    return np.stack([prepare(picture(LABELS[k % 3], rng), spec) for k in range(n)])


def test_the_int8_file_answers_as_the_fp32_file_does(model, made):
    found, out = made
    pixels = fresh(model)
    (theirs, _), (ours, _) = run_network(open_model(model), pixels), run_network(open_model(out), pixels)
    assert (theirs.argmax(1) == ours.argmax(1)).mean() >= 0.95 and np.bincount(theirs.argmax(1)).min() > 5
    assert 0 < np.abs(theirs - ours).max() < 1
    assert out.stat().st_size < 0.35 * model.stat().st_size
    assert [o.name for o in open_model(out).session.get_outputs()] == [o.name for o in open_model(model).session.get_outputs()]


def test_what_is_told_is_what_was_measured(model, made):
    found, out = made
    chosen = next(row for row in found["tries"] if row["variant"] == found["chosen"])
    assert chosen["passed"] and chosen["agreement"] >= 0.98 and chosen["agreement_n"] == chosen["accuracy_n"] > 80
    assert found["before"]["accuracy"] - found["after"]["accuracy"] <= 0.005 and found["after"]["accuracy"] == chosen["accuracy"]
    assert (found["before"]["size"], found["after"]["size"]) == (model.stat().st_size, out.stat().st_size)
    assert {row["variant"].split(",")[0] for row in found["tries"]} == {"one scale per channel", "one scale per tensor"}
    assert all({"p50", "p95", "photos_per_second", "size"} <= set(row) for row in [*found["tries"], found["before"], found["after"]])
    json.dumps(found)  # plain types


def operators(path, tmp_path) -> tuple[Counter, onnx.ModelProto]:
    "What ONNX Runtime makes of a file."
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    return Counter(node.op_type for node in optimised.graph.node), optimised


def test_the_whole_body_runs_in_bytes(model, made, tmp_path):
    before = Counter(node.op_type for node in onnx.load(model).graph.node)
    after, optimised = operators(made[1], tmp_path)
    assert after["QLinearConv"] == before["Conv"] and not after["Conv"], after
    assert after["QLinearAdd"] == before["Add"] > 0 and not after["Relu"], after
    assert not after["QuantizeLinear"] and not after["Cast"], "the bytes do not go straight into the first convolution"


def test_a_layer_kept_in_floats_runs_in_floats(model, tmp_path):
    ready = make_ready(onnx.load(model), open_model(model).info, tmp_path, fresh(model, 16))
    names, pixels = list(ready.layers), fresh(model)
    for kept in (names[1], names[3], names[-2]):
        path = make_variant(ready, Variant(kept=(kept,)))
        found, _ = operators(path, tmp_path)
        assert (found["Conv"], found["QLinearConv"]) == (1, len(names) - 1), found
    (theirs, _), *ours = (run_network(open_model(p), pixels) for p in (model, make_variant(ready, Variant(kept=tuple(names[1:])))))
    assert np.abs(ours[0][0] - theirs).max() < 0.1 * np.abs(theirs).max()  # and nothing was lost on the way


@pytest.mark.slow
def test_a_mobile_network_runs_in_bytes_too(colours, tmp_path):
    network, spec, _ = build("mobilenet_v2", 3, weights="none")
    info = ModelInfo(LABELS, [2, 1, 0], replace(spec, input_size=64))
    to_onnx(network, info, tmp_path / "model.onnx")
    ready = make_ready(onnx.load(tmp_path / "model.onnx"), info, tmp_path, fresh(tmp_path / "model.onnx", 16))
    before = Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
    after, _ = operators(make_variant(ready, Variant()), tmp_path)
    assert after["QLinearConv"] == before["Conv"] == 52 and not after["Conv"] + after["Clip"] + after["Cast"] + after["QuantizeLinear"], after


def test_folding_the_normalisation_changes_only_the_border(model):
    network = onnx.load(model)
    assert _fold(network) is not None and _fold(network) is None  # there is nothing left to fold
    plain, folded = (ort.InferenceSession(m.SerializeToString()) for m in (onnx.load(model), network))
    pixels = fresh(model)
    theirs, ours = (s.run(["features"], {"pixels": pixels})[0] for s in (plain, folded))
    assert np.abs(theirs - ours)[..., 1:-1, 1:-1].max() < 0.05 * np.abs(theirs).max()


def test_no_photo_both_calibrates_and_judges_and_no_test_photo_does_either(made, used):
    judging, calibration = used
    assert judging and calibration and not judging & calibration
    assert not any(path.startswith("test/") for path in judging | calibration)
    assert len(calibration) % 8 == 0 and len(judging) + len(calibration) <= 180


def test_what_the_file_says_of_itself_is_kept_and_says_where_it_came_from(model, made):
    old, new = open_model(model).info, open_model(made[1]).info
    assert (new.labels, new.label_ids, new.spec, new.temperature) == (old.labels, old.label_ids, old.spec, old.temperature)
    assert {k: new.provenance[k] for k in old.provenance} == old.provenance and new.validation["n"] == 300
    told = new.provenance["int8"]
    assert told["source_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert told["photos"]["calibration"]["n"] and told["photos"]["calibration"]["data_hash"] != told["photos"]["judging"]["data_hash"]
    judged = new.validation["int8"]
    assert judged["agreement_n"] == told["photos"]["judging"]["n"] and judged["accuracy_fp32"] == made[0]["before"]["accuracy"]
    assert any("temperature is that of the fp32 file (1.250)" in s and f"{judged['difference']:.2g}" in s for s in made[0]["sentences"])
    assert any("was trained on" in s for s in made[0]["sentences"])
    assert str(model.parent) not in made[1].read_bytes().decode("latin-1")


def test_the_temperature_and_the_promises_stay_those_of_the_fp32_file(model, tmp_path):
    "They may have been chosen for the field: a person's photos of one place, labelled and new to the model, change neither."
    info, field = open_model(model).info, tmp_path / "field.onnx"
    shutil.copy(model, field)
    restate(field, replace(info, temperature=3.5, conformal={"0.9": {"method": "lac", "quantile": 0.7, "n": 90}}))
    found = quantise(field, draw(tmp_path / "new", 150, seed=7), tmp_path / "out.onnx", loss=0.05, agreement=0.9)
    old, new = open_model(field).info, open_model(tmp_path / "out.onnx").info
    assert new.temperature == 3.5 and new.conformal == old.conformal != {}
    told = new.validation["int8"]
    assert 0 < told["difference"] < 0.1 and abs(told["log_loss"] - told["log_loss_fp32"]) < 0.1
    assert any("fp32 file (3.500), and so are the sets" in s for s in found["sentences"])


def test_photos_without_labels_judge_by_agreement_alone(model, tmp_path):
    rng = np.random.default_rng(5)
    for k in range(120):
        (tmp_path / "card").mkdir(exist_ok=True)
        (tmp_path / "card" / f"{k}.jpg").write_bytes(encode_jpeg(picture(LABELS[k % 3], rng), 92))
    found = quantise(model, tmp_path / "card", tmp_path / "out.onnx", agreement=0.9)
    assert found["after"]["accuracy"] is None and found["tries"][0]["accuracy_n"] == 0
    assert any("There are no usable labels" in s for s in found["sentences"])


def spoil(model, path, times: float) -> list[str]:
    "Scale one channel between two convolutions up, and down again behind: the same network in floats, another in bytes."
    network = onnx.load(model)
    first, second = [n for n in network.graph.node if n.op_type == "Conv"][:2]
    tensors = {t.name: t for t in network.graph.initializer}
    for name, at, factor in ((first.input[1], np.s_[:2], times), (first.input[2], np.s_[:2], times), (second.input[1], np.s_[:, :2], 1 / times)):
        value = numpy_helper.to_array(tensors[name]).copy()
        value[at] *= factor
        tensors[name].CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(network, path)
    return [n.input[1].removeprefix("network.").removeprefix("body.").removesuffix(".weight") for n in (first, second)]


def test_layers_that_hurt_are_named_and_stay_in_fp32(model, colours, tmp_path, thorough):
    hurting = spoil(model, tmp_path / "spoilt.onnx", 3000.0)
    pixels = fresh(model)
    assert np.allclose(run_network(open_model(model), pixels)[0], run_network(open_model(tmp_path / "spoilt.onnx"), pixels)[0], atol=0.05)
    found = quantise(tmp_path / "spoilt.onnx", colours, tmp_path / "out.onnx")
    assert {row["layer"] for row in found["layers"][:2]} == set(hurting)
    assert not any(row["passed"] for row in found["tries"][:3]) and "2 layers in fp32" in found["chosen"]
    assert found["tries"][-1]["passed"] and set(found["tries"][-1]["kept"]) == set(hurting)
    assert operators(tmp_path / "out.onnx", tmp_path)[0]["Conv"] == 2
    assert all(name in " ".join(found["sentences"]) for name in hurting)


def test_a_file_that_would_answer_differently_is_not_written(model, colours, tmp_path, thorough, monkeypatch):
    hurting = spoil(model, tmp_path / "spoilt.onnx", 3000.0)
    monkeypatch.setattr(int8_gate, "FOUND", 1)  # so that only one layer is ever left in floats: not enough
    with pytest.raises(NotClose) as error:
        quantise(tmp_path / "spoilt.onnx", colours, tmp_path / "out.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spoilt.onnx"]
    found = error.value.found
    assert len(found["tries"]) == 4 and not any(row["passed"] for row in found["tries"]) and found["chosen"] is None
    assert "nothing was written" in str(error.value) and "98 % agreement" in str(error.value) and any(name in str(error.value) for name in hurting)


def test_a_loss_of_accuracy_alone_keeps_the_file_from_being_written(model, colours, tmp_path, monkeypatch):
    judge = int8.judge
    monkeypatch.setattr(int8, "judge", lambda *given: {**(found := judge(*given)), "accuracy": found["accuracy"] - 0.02})
    with pytest.raises(NotClose, match="points of accuracy"):
        quantise(model, colours, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_the_same_seed_makes_the_same_network(model, colours, tmp_path, made):
    again = quantise(model, colours, tmp_path / "again.onnx")
    for key in ("variant", "agreement", "accuracy", "divergence"):
        assert [row[key] for row in again["tries"]] == [row[key] for row in made[0]["tries"]]
    one, other = ({t.name: t.SerializeToString() for t in onnx.load(p).graph.initializer} for p in (tmp_path / "again.onnx", made[1]))
    assert one == other


def test_what_cannot_be_quantised_is_refused_in_a_sentence(model, colours, made, tmp_path):
    few = draw(tmp_path / "few", 5, seed=3)
    (tmp_path / "link.onnx").symlink_to(model)
    before = model.read_bytes()
    for source, photos, out, more, said in (
        (model, colours, model, {}, "the fp32 file itself"),
        (model, colours, tmp_path / "link.onnx", {}, "the fp32 file itself"),
        (model, colours, tmp_path, {}, "is a folder"),
        (made[1], colours, tmp_path / "out.onnx", {}, "int8 already"),
        (model, few, tmp_path / "out.onnx", {}, "too few"),
        (model, tmp_path / "absent", tmp_path / "out.onnx", {}, "is not there"),
        (tmp_path / "absent.onnx", colours, tmp_path / "out.onnx", {}, "is not there"),
        (model, colours, tmp_path / "out.onnx", {"loss": 5}, "shares"),
    ):
        with pytest.raises(UserError, match=said):
            quantise(source, photos, out, **more)
    assert not (tmp_path / "out.onnx").exists() and model.read_bytes() == before


def test_a_mix_is_refused(model, tmp_path, colours):
    from species_wb.engine.model_file import ensemble_of

    mix = ensemble_of([open_model(model), open_model(model)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "open_model", lambda *_: mix)
        with pytest.raises(UserError, match="quantise each of them"):
            quantise(model, colours, tmp_path / "out.onnx")


@pytest.mark.slow
def test_real_photos_keep_their_labels(photos, tmp_path):
    from sklearn.linear_model import LogisticRegression

    files = sorted(photos.glob("train/*/*.jpg"))[::3]
    labels = sorted({f.parent.name for f in files})
    network, spec, _ = build("efficientnet_lite0", len(labels))
    info = ModelInfo(labels, list(range(len(labels))), spec)
    to_onnx(network, info, tmp_path / "model.onnx")
    pixels, truth = np.stack([load(f, spec) for f in files]), [labels.index(f.parent.name) for f in files]
    file = open_model(tmp_path / "model.onnx")
    embedding = np.concatenate([run_network(file, pixels[k : k + 8])[1] for k in range(0, len(pixels), 8)])
    head = LogisticRegression(C=0.1, max_iter=300).fit(embedding, truth)
    with_head(tmp_path / "model.onnx", head.coef_, head.intercept_, info, tmp_path / "model.onnx")
    found = quantise(tmp_path / "model.onnx", photos, tmp_path / "int8.onnx", loss=0.01)
    assert found["before"]["accuracy"] > 0.85 and found["after"]["size"] < 0.4 * found["before"]["size"]
    assert found["tries"][0]["agreement"] > found["tries"][1]["agreement"], "one scale per channel is known to suit this network better"
