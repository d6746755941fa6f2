"""From photos to a model file: what is promised of training, on small simulated surveys and on real photos."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import give_memory_back
from test_corrections import changed, say, some as one_of
from test_finetune import quick_onnx, some

from species_wb.engine import model_file, toy
from species_wb.models import registry
from species_wb.photos import pixels
from species_wb.detect.choose import finding_of
from species_wb.detect.naming import Compared, Named, count
from species_wb.train import box_finding, checkpoints, choice, choice_text, finetune, fit, heads, planning, probe
from species_wb.train import frozen as below
from species_wb.contracts import data_hash, manifest_table, read_manifest, write_table
from species_wb.core import UserError
from species_wb.runs import open_run
from species_wb.workspace import cache_folder
from species_wb.models.export import FromBytes
from species_wb.metrics.calibration import softmax
from species_wb.photos.findings import require_trainable
from species_wb.photos.scan import scan
from species_wb.photos.pixels import load
from species_wb.train.training_set import TrainingSet, manifest_of_run, photos_to_train_on


def fitted(manifest, arch="simple_cnn", seed=0, method="auto", weights="auto", **how):
    give_memory_back()
    folder, _, _ = open_run(None, "train", arch, {})
    labels = require_trainable(manifest)
    from species_wb.runs import set_seed

    set_seed(seed)
    network, spec, told = registry.build(arch, len(labels), weights)
    todo, spec = planning.plan(network, spec, told, photos_to_train_on(manifest), method, **how)
    return folder, fit.fit(folder, manifest, labels, network, spec, told, todo, seed), network


@pytest.fixture(scope="module")
def few(survey, tmp_path_factory):
    "The manifest of a part of the survey."
    path = tmp_path_factory.mktemp("few") / "few.parquet"
    write_table(some(scan(survey), train=4, valid=2, test=3), path)
    return path


@pytest.fixture
def manifest(few, workspace):
    return read_manifest(few)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    "Frozen networks that an earlier test has written."
    return tmp_path_factory.mktemp("frozen")


@pytest.fixture
def frozen(written, workspace, monkeypatch):
    "The network that a probe stands on is written once for all, quickly; large batches only fill the memory."
    monkeypatch.setattr(below, "to_onnx", quick_onnx)
    monkeypatch.setattr(below, "best_batch", lambda engine: 4)
    monkeypatch.setattr(probe, "check_parity", partial(probe.check_parity, n=4))
    shutil.copytree(written, cache_folder("frozen"), dirs_exist_ok=True)
    yield
    shutil.copytree(cache_folder("frozen"), written, dirs_exist_ok=True)


@pytest.mark.slow
def test_same_seed_same_numbers_for_the_probe(manifest, frozen):
    first, second = (fitted(manifest, "efficientnet_lite0") for _ in range(2))
    assert first[1]["candidates"] == second[1]["candidates"] and first[1]["temperature"] == second[1]["temperature"]
    files = [model_file.open_model(f / "model.onnx") for f, _, _ in (first, second)]
    noise = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)
    assert np.array_equal(*(model_file.run_network(f, noise)[0] for f in files))


def test_a_resumed_run_keeps_its_plan(manifest, tmp_path, monkeypatch):
    "The machine may be busier now, and a hub out of reach: what the run was started with holds."
    asked = dict.fromkeys(planning.PLANNED, 0) | {"method": "auto"}
    network, spec, told = registry.build("simple_cnn", 10)
    monkeypatch.setattr(planning, "_seconds_a_photo", lambda *_: 0.5)
    first = planning.planned(tmp_path, asked, network, spec, told, 100)
    monkeypatch.setattr(planning, "_seconds_a_photo", lambda *_: 0.01)
    assert planning.planned(tmp_path, asked, network, spec, told, 100) == first
    assert planning.plan(network, spec, told, 100)[0].recipe.epochs != first[0].recipe.epochs
    with pytest.raises(UserError, match="was started from weights 'none'"):
        planning.planned(tmp_path, asked, network, spec, {**told, "used": "imagenet"}, 100)


def test_a_file_that_answers_differently_never_gets_its_name(manifest, monkeypatch):
    def lie(*_, **__):
        raise UserError("it answers differently.")

    monkeypatch.setattr("species_wb.models.export.parity", lie)
    folder, _, _ = open_run(None, "train", "simple_cnn", {})
    monkeypatch.setattr(finetune, "_keep_freed_memory", lambda: None)

    def another(network, info, path):
        toy.write_toy(path, info.labels, info.label_ids, [[0] * len(info.labels)] * 3, side=info.spec.input_size)

    monkeypatch.setattr(finetune, "to_onnx", another)
    labels = require_trainable(manifest)
    network, spec, told = registry.build("simple_cnn", len(labels))
    todo, spec = planning.plan(network, spec, told, 10, epochs=1, size=32)
    with pytest.raises(UserError, match="answers differently"):
        fit.fit(folder, manifest, labels, network, spec, told, todo)
    assert not (folder / "model.onnx").exists() and not list(folder.glob("*.partial"))


@pytest.mark.parametrize("arch", [pytest.param("efficientnet_lite0", marks=pytest.mark.slow), "simple_cnn"])
def test_a_photo_that_vanished_since_the_scan_is_said_and_stops_nothing(
    survey, manifest, frozen, tmp_path, monkeypatch, arch
):
    monkeypatch.setattr(finetune, "to_onnx", quick_onnx)
    monkeypatch.setattr(finetune, "_keep_freed_memory", lambda: None)
    shutil.copytree(survey, tmp_path / "mine")
    manifest = manifest_table(manifest.to_pylist(), tmp_path / "mine")
    gone = next(r["path"] for r in manifest.to_pylist() if r["split"] == "train")
    (tmp_path / "mine" / gone).unlink()
    _, told, _ = fitted(manifest, arch, **({} if arch != "simple_cnn" else {"epochs": 1, "size": 32}))
    assert any("1 photo could be read when the folder was checked, but not any more" in s for s in told["sentences"])


@pytest.mark.parametrize("wrong", [{"epochs": -3}, {"batch": -5}, {"rate": -1.0}, {"size": 7}])
def test_impossible_parameters_are_one_sentence(wrong):
    network, spec, told = registry.build("simple_cnn", 2)
    with pytest.raises(UserError, match=next(iter(wrong))):
        planning.plan(network, spec, told, 100, **wrong)


def test_a_probe_without_pretrained_weights_is_refused(manifest):
    with pytest.raises(UserError, match="needs pretrained weights"):
        fitted(manifest, method="probe")


def test_what_was_substituted_is_said(manifest, monkeypatch):
    monkeypatch.setattr("species_wb.models.weights._answers", lambda url, seconds=5: False)
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    monkeypatch.setattr(planning, "_seconds_a_photo", lambda *_: 0.1)
    network, spec, told = registry.build("resnet50", 3)
    assert told["used"] == "none" and "did not answer within 5 s" in told["substituted"]
    todo, _ = planning.plan(network, spec, told, 100, epochs=1)
    assert todo.method == "finetune" and "No pretrained weights" in todo.why
    with pytest.raises(UserError, match="cannot be fetched"):
        registry.build("resnet50", 3, "imagenet")


def test_auto_states_size_and_length(monkeypatch):
    measured = partial(planning._seconds_a_photo, batch=2)  # a whole batch fills the memory
    monkeypatch.setattr(planning, "_seconds_a_photo", measured)
    network, spec, told = registry.build("resnet18", 3, "none")
    todo, smaller = planning.plan(network, spec, told, 5000)
    assert todo.recipe.epochs >= 1 and smaller.input_size <= spec.input_size
    said = " ".join(todo.sentences)
    assert f"{smaller.input_size} px" in said and ("minutes" in said or "One epoch" in said)
    assert todo.recipe.precision in ("fp32", "bf16")


def test_unknown_words_name_the_nearest(manifest):
    with pytest.raises(UserError, match="did you mean resnet50"):
        registry.build("resnet5", 3)
    with pytest.raises(UserError, match="did you mean probe"):
        fitted(manifest, method="prob")


def watched(monkeypatch) -> dict:
    "Note which photos the head is fitted to that tries boxes, and which photos it judges."
    seen, real_fit = {}, box_finding._held_out

    def held_out(network, refit, photos, info, seed):
        return real_fit(network, lambda rows: seen.update(photos=photos, rows=rows) or refit(rows), photos, info, seed)

    def with_boxes(model, judged):  # the quickly written network has no grid of features, so it gives no boxes
        seen.update(judged=judged)
        found = Compared()
        for k in judged.truth:
            count(found, Named("a name", "a name", True), model.info.labels[k])
        return found

    monkeypatch.setattr(box_finding, "_held_out", held_out)
    monkeypatch.setattr(box_finding, "with_boxes", with_boxes)
    monkeypatch.setattr(box_finding, "is_simulated", lambda manifest: False)  # the survey stands for real photos here
    return seen


def test_choosing_and_trying_boxes_never_see_the_test_photos(manifest, frozen, monkeypatch):
    "Photos of the test split are unreadable while fitting: nothing changes. No photo is judged by a head fitted to it."
    folder, told, _ = fitted(manifest, "efficientnet_lite0")
    assert "detect" not in told["validation"] | model_file.open_model(folder / "model.onnx").info.validation  # simulated
    test = {r["path"] for r in manifest.to_pylist() if r["split"] == "test"}
    assert len(test) > 10
    real = pixels.read_bytes
    opened = []
    for module in ("species_wb.models.export", "species_wb.train.decoded_photos"):
        monkeypatch.setattr(f"{module}.read_bytes", lambda path: opened.append(str(path)) or real(path))
    shutil.rmtree(cache_folder("features"))
    seen = watched(monkeypatch)
    folder, again, _ = fitted(manifest, "efficientnet_lite0")
    assert len(opened) > 100 and not any(path.endswith(t) for path in opened for t in test)
    assert again["candidates"] == told["candidates"]
    photos, rows, judged = seen["photos"], seen["rows"], seen["judged"]
    assert len(rows) > 3 * len(judged.photos) > 20 and not {photos.photos[k] for k in rows} & {*judged.photos}
    assert not {*photos.groups[rows]} & {*judged.groups} and {*judged.split} <= {"train", "valid"}
    found = finding_of(model_file.open_model(folder / "model.onnx"))
    assert found.n == len(judged.photos) and again["validation"]["detect"]["gain"] == found.gain
    (said,) = (s for s in again["found"] if s.startswith("Boxes from the classifier itself were tried on training"))
    assert f"n = {found.n})" in said


def test_photos_of_one_group_are_on_one_side_of_every_fold():
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(0, 4, 400), rng.integers(0, 80, 400)
    seen = np.zeros(400, int)
    for kept, judge in heads.folds(truth, groups):
        assert not set(groups[kept]) & set(groups[judge])
        seen[judge] += 1
    assert (seen == 1).all()


def test_the_data_hash_names_content_not_places(tmp_path):
    row = {"label": "a", "split": "train", "status": "ok"}
    rows = [{"path": f"{k}.jpg", "sha256": f"{k:064d}", **row} for k in range(3)]
    same = data_hash(manifest_table(rows, tmp_path))
    assert same == data_hash(manifest_table([{**r, "path": "x/" + r["path"]} for r in reversed(rows)], "/elsewhere"))
    assert same != data_hash(manifest_table([{**rows[0], "label": "b"}, *rows[1:]], tmp_path))


def test_parity_from_the_bytes_of_real_photos_on(photos, workspace):
    "File against torch, from the encoded bytes on; and a saved prediction is reproduced from the file alone."
    from species_wb.models.export import to_onnx
    from species_wb.contracts import ModelInfo

    give_memory_back()
    network, spec, _ = registry.build("efficientnet_lite0", 10)
    to_onnx(network, ModelInfo([f"c{k}" for k in range(10)], list(range(10)), spec), workspace / "model.onnx")
    file = model_file.open_model(workspace / "model.onnx")
    prepared = np.stack([load(p, spec) for p in sorted(photos.glob("test/*/*.jpg"))[::15]])
    with torch.inference_mode():
        reference = FromBytes(network.eval(), spec)(torch.from_numpy(prepared))
    logits, embedding = model_file.run_network(file, prepared)
    assert len(prepared) >= 15 and np.abs(softmax(logits) - softmax(reference[0].numpy())).max() < 1e-4
    assert np.abs(embedding - reference[1].numpy()).max() < 1e-3


def test_the_next_training_gets_a_correction_and_earlier_runs_stay_as_they_were(survey, workspace, tmp_path):
    asked = {"photos": str(survey), "metadata": "", "seed": 0}
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    first = manifest_of_run(tmp_path / "one", asked)
    label, other = sorted(set(first["label"].to_pylist()) - {None})[:2]
    path = one_of(first, label, "train")
    say(first, path, "relabel", other)
    assert manifest_of_run(tmp_path / "one", asked).equals(first)
    assert list(changed(first, manifest_of_run(tmp_path / "two", asked))) == [path]


@pytest.mark.parametrize("code", ["as it is", "7b788fc9d5794c10"])  # of the commits 81fe235 and 656559c
def test_a_checkpoint_of_earlier_code_that_gave_the_same_numbers_is_gone_on_with(code, tmp_path, monkeypatch):
    made = Path(__file__).parents[1] / "before_rooms" / "checkpoint.pt"
    monkeypatch.setattr(checkpoints, "NUMBERS", 1)  # as long as the code gave the numbers of that code
    now = checkpoints.origin([("ab" * 32, "a.jpg")], [0], {"epochs": 3})
    there = torch.load(made, weights_only=True)["made_from"]
    if code != "as it is":
        state = torch.load(made, weights_only=True)
        state["made_from"]["code"], made = code, tmp_path / "checkpoint.pt"
        torch.save(state, made)
    here = {**now, "packages": there["packages"]}  # whatever is installed here
    state = checkpoints.load_checkpoint(made, here)
    assert there["code"] != now["code"] and state["epoch"] == 1 and state["weights"]["w"].tolist() == [0, 1, 2, 3]
    monkeypatch.setattr(checkpoints, "NUMBERS", checkpoints.NUMBERS + 1)
    raised = checkpoints.origin([("ab" * 32, "a.jpg")], [0], {"epochs": 3})
    with pytest.raises(UserError, match="another version of species_wb"):
        checkpoints.load_checkpoint(made, {**raised, "packages": there["packages"]})


def test_the_sentences_of_a_probe_claim_no_gain_that_is_nothing():
    row = {"strength": 0.03162, "temperature": 0.99, "loss": 0.667, "log_loss": 0.267, "accuracy": 0.912, "n": 955, "copies": 2, "known": 10,
           "worse_log_loss": 1.067, "worse_accuracy": 0.654}
    plain, other = {**row, "copies": 0, "loss": 0.668}, {**row, "known": -10, "copies": 0, "accuracy": 0.904, "loss": 0.79}
    chosen = TrainingSet([("", "")] * 955, np.arange(955) % 10, np.arange(955), np.repeat("train", 955), np.arange(955) % 23, "source")
    found = choice.Choice({**row, "share": 0.75, "weight": 0.4, "loss": 0.65}, plain, [row, plain, other], [{"weight": 0.0, "loss": 0.667}], None, "source", np.zeros(0), chosen)
    said = choice_text.sentences(found, 955)
    assert said[0].startswith(
        "Whole sources of training photos were held back in turn (23 of them). With the chosen settings, 0.912 of 955 photos held back, and 0.654 of their "
        "copies made worse were named right (λ = 0.03162, temperature 0.99, log loss 0.650). Then"
    )
    assert "0.912 are named right with it, and 0.904 without (log loss 0.668 and 0.790)" in said[1]
    assert "2 copies of each; they hardly helped (log loss 0.667 with them, 0.668 without)" in said[2]
    assert "0.6 of the last layer's, and 0.4 of ImageNet's classifier's (log loss 0.650, and 0.667 for the last layer alone)" in said[3]
    at_home = [{"n": 955, "accuracy": right, "log_loss": loss} for right, loss in ((0.941, 0.19), (0.945, 0.17))]
    told = choice_text.sentences(replace(found, home=tuple(at_home)), 955)[-1]
    assert "(955 photos, held back at random), 0.941 are named right (log loss 0.190)" in told and "it would be 0.945 (log loss 0.170)" in told
