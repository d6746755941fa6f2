"""Fine-tuning survives a kill, a full disk, short memory and a loss that explodes; equal seeds give equal numbers."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from conftest import give_memory_back

from species_wb.runs import set_seed
from species_wb.engine import model_file
from species_wb.models import export, imagenet, registry
from species_wb.detect.choose import finding_of
from species_wb.train import box_finding, checkpoints, finetune, fit, frozen, loop, planning, steps
from species_wb.contracts import manifest_table, read_manifest, write_table
from species_wb.core import UserError
from species_wb.photos.pixels import encode_jpeg
from species_wb.train.recipe import Recipe
from species_wb.photos.findings import findings, require_trainable
from species_wb.photos.findings_text import sentences
from species_wb.photos.scan import scan
from species_wb.train.training_set import photos_to_train_on

HOW = {"epochs": 4, "size": 32, "batch": 16}
OUT = ["logits", "embedding", "features"]


def quick_onnx(network, info, path):
    "Write a model file with torch's older exporter: a twentieth of the time, and `fit` compares the answers."
    network = export.FromBytes(network.cpu().eval(), info.spec, bool(info.names)).eval()
    side, outputs = info.spec.input_size, [*OUT, "names"] if info.names else OUT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels, free = torch.zeros(2, side, side, 3, dtype=torch.uint8), {name: {0: "n"} for name in ["pixels", *outputs]}
        names = {"input_names": ["pixels"], "output_names": outputs, "dynamic_axes": free}
        torch.onnx.export(network, (pixels,), path, **names, dynamo=False)
    export._save(onnx.load(path), info, path)


def be_quick(patch):
    "Leave out what these tests are not about: how fast this machine is, and how a network becomes a file."
    patch.setattr(planning, "_seconds_a_photo", lambda *_: 0.01)
    patch.setattr(finetune, "to_onnx", quick_onnx)
    patch.setattr(frozen, "to_onnx", quick_onnx)
    patch.setattr(frozen, "best_batch", lambda engine: 4)
    patch.setattr(finetune, "_keep_freed_memory", lambda: None)  # this process has other tests to do


def fit_in(folder, manifest, seed=0, arch="simple_cnn", **how):
    "Fit as the notebook does."
    give_memory_back()
    with pytest.MonkeyPatch.context() as patch:
        be_quick(patch)
        labels = require_trainable(manifest)
        set_seed(seed)
        network, spec, told = registry.build(arch, len(labels), "none" if arch == "simple_cnn" else "auto")
        asked = {"method": "finetune", **HOW, **how}
        todo, spec = planning.planned(folder, asked, network, spec, told, photos_to_train_on(manifest))
        todo = replace(todo, recipe=replace(todo.recipe, precision="fp32"))
        return fit.fit(folder, manifest, labels, network, spec, told, todo, seed)


def some(manifest, **most):
    "So many photos of each class and split."
    seen, kept = Counter(), []
    for k, row in enumerate(manifest.to_pylist()):
        seen[row["label"], row["split"]] += 1
        if seen[row["label"], row["split"]] <= most.get(row["split"], 0):
            kept.append(k)
    return manifest.take(kept)


def numbers(folder):
    "The history without the seconds."
    return [line.rsplit(",", 1)[0] for line in (folder / "history.csv").read_text().splitlines()]


def answers(folder):
    "What the finished model says to made-up photos."
    file = model_file.open_model(folder / "model.onnx")
    side = file.info.spec.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8)
    return model_file.run_network(file, pixels)[0] / file.info.temperature


@pytest.fixture(scope="module")
def few(survey, tmp_path_factory):
    "The manifest of a part of the survey, in a workspace whose cache these tests share."
    home = tmp_path_factory.mktemp("workspace")
    manifest = scan(survey)
    for name, many in (("few", {"train": 8, "valid": 3}), ("more", {"train": 12, "valid": 4})):
        write_table(some(manifest, **many, test=3), home / f"{name}.parquet")
    return home / "few.parquet"


@pytest.fixture
def manifest(few, monkeypatch):
    monkeypatch.setenv("SPECIES_WB_HOME", str(few.parent))
    return read_manifest(few)


def fitted(few, folder, **how):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECIES_WB_HOME", str(few.parent))
        return fit_in(folder, read_manifest(few), **how)


@pytest.fixture(scope="module")
def whole(few, tmp_path_factory):
    "A training that nothing disturbed."
    folder = tmp_path_factory.mktemp("whole")
    fitted(few, folder)
    return folder


TUNED = {"arch": "efficientnet_lite0", "epochs": 1, "size": 96, "batch": 8}


@pytest.fixture(scope="module")
def tuned(few, tmp_path_factory):
    "A pretrained network, fine-tuned."
    folder = tmp_path_factory.mktemp("tuned")
    return folder, fitted(few.with_name("more.parquet"), folder, **TUNED)


def test_the_loss_falls(whole):
    losses = [float(line.split(",")[1]) for line in numbers(whole)[1:]]
    assert len(losses) == HOW["epochs"] and losses[-1] < losses[0] - 0.1


def test_equal_seeds_give_equal_numbers_and_others_do_not(whole, manifest, tmp_path):
    (tmp_path / "other").mkdir(), (tmp_path / "same").mkdir()
    fit_in(tmp_path / "same", manifest)
    fit_in(tmp_path / "other", manifest, seed=1)
    assert numbers(tmp_path / "same") == numbers(whole)
    assert np.array_equal(answers(tmp_path / "same"), answers(whole))
    assert numbers(tmp_path / "other") != numbers(whole)


CHILD = """
import os, sys
from pathlib import Path
import accelerate
from species_wb.train import loop
from species_wb.contracts import read_manifest
loop.KEEP_SECONDS = 0
sys.path[:0] = sys.argv[3:]
from test_finetune import fit_in
for _ in range(3):  # packages are imported once
    if not (child := os.fork()):
        fit_in(Path(sys.argv[1]), read_manifest(sys.argv[2]))
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_a_killed_training_ends_as_an_unbroken_one(whole, few, manifest, tmp_path):
    "kill -9 comes at moments drawn at random, often within an epoch; the run goes on from the last step kept."
    rng, kills = np.random.default_rng(), 0
    places, checkpoint = [], tmp_path / "checkpoint.pt"
    words = [sys.executable, "-c", CHILD, str(tmp_path), str(few), *map(str, Path(__file__).parents[:2])]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(words, **quiet) as children:
        for _ in range(3):
            child, seen = int(children.stdout.readline()), time.time()
            with suppress(ProcessLookupError):  # it came to its end
                while not (checkpoint.exists() and checkpoint.stat().st_mtime > seen):
                    os.kill(child, 0)
                    time.sleep(0.01)
                time.sleep(rng.uniform(0, 0.5))
                os.kill(child, signal.SIGKILL)
            kills += int(children.stdout.readline()) == signal.SIGKILL
            state = torch.load(checkpoint, weights_only=True)
            places.append((state["epoch"], state["step"]))
    assert kills >= 1 and places == sorted(places)
    fit_in(tmp_path, manifest)
    assert numbers(tmp_path) == numbers(whole), f"killed after {places}"
    assert np.array_equal(answers(tmp_path), answers(whole))


def test_a_checkpoint_holds_all_that_decides_the_next_step_as_tensors_and_plain_types(whole):
    state = torch.load(whole / "checkpoint.pt", weights_only=True)
    tensors, place = {"network", "averages", "optimizer", "random"}, {"schedule", "epoch", "step", "history", "best"}
    assert set(state) >= {"made_from", *tensors, *place}


def test_a_checkpoint_cut_short_is_refused(whole, manifest, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes((whole / "checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        fit_in(tmp_path, manifest)


@pytest.mark.parametrize("what", ["photos", "code", "plan"])
def test_a_checkpoint_of_something_else_is_refused(whole, manifest, tmp_path, monkeypatch, what):
    (tmp_path / "checkpoint.pt").write_bytes((whole / "checkpoint.pt").read_bytes())
    if what == "photos":  # one label was changed since
        rows = manifest["label"].to_pylist()
        k = next(k for k, s in enumerate(manifest["split"].to_pylist()) if s == "train")
        rows[k] = next(label for label in rows if label and label != rows[k])
        manifest = manifest.set_column(manifest.schema.get_field_index("label"), "label", pa.array(rows))
    if what == "code":
        monkeypatch.setattr(checkpoints, "NUMBERS", checkpoints.NUMBERS + 1)
    said = {"photos": "other photos or labels", "code": "another version", "plan": "other parameters"}[what]
    with pytest.raises(UserError, match=said):
        fit_in(tmp_path, manifest, **({"epochs": 5} if what == "plan" else {}))


def test_a_photo_that_changed_since_the_checkpoint_stops_the_resumed_run(whole, few, survey, workspace, tmp_path):
    "The cache of this workspace is empty, so the photo is read again, and its pixels differ from those of the start."
    shutil.copytree(survey, tmp_path / "mine")
    manifest = manifest_table(read_manifest(few).to_pylist(), tmp_path / "mine")
    (tmp_path / "checkpoint.pt").write_bytes((whole / "checkpoint.pt").read_bytes())
    one, other = [r["path"] for r in manifest.to_pylist() if r["split"] == "train"][:2]
    shutil.copy(tmp_path / "mine" / other, tmp_path / "mine" / one)
    with pytest.raises(UserError, match="other photos or labels: put them back"):
        fit_in(tmp_path, manifest)


def test_a_disk_that_fills_leaves_the_last_checkpoint_whole(manifest, tmp_path, monkeypatch):
    real, written = os.fsync, []

    def fills(descriptor):
        written.append(descriptor)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(checkpoints.os, "fsync", fills)
    with pytest.raises(UserError, match="disk is full"):
        fit_in(tmp_path, manifest)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epoch"] == 3 and not list(tmp_path.glob(".*"))


def test_a_batch_that_does_not_fit_is_taken_in_parts_and_said(manifest, tmp_path, monkeypatch):
    real, asked = steps._gradients, []

    def little_memory(trainer, x, y, share):
        asked.append(len(x))
        if len(x) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(trainer, x, y, share)

    monkeypatch.setattr(steps, "_gradients", little_memory)
    told = fit_in(tmp_path, manifest, epochs=1, batch=32)
    assert max(asked) == 32 and told["parts"] == 4
    (said,) = (s for s in told["sentences"] if "did not fit into memory" in s and "4 parts" in s)
    assert "still covers 32 photos" in said


def test_not_even_one_photo_is_a_sentence_and_another_error_stays_itself(manifest, tmp_path, monkeypatch):
    def none(trainer, x, y, share):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(steps, "_gradients", none)
    with pytest.raises(UserError, match="Not even 2 photos of 32 px fit"):
        fit_in(tmp_path, manifest, epochs=1)
    ours = RuntimeError("sizes do not match")
    monkeypatch.setattr(steps, "_gradients", lambda *_: (_ for _ in ()).throw(ours))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        fit_in(tmp_path, manifest, epochs=1)


def test_a_loss_that_is_no_number_stops_with_step_rate_and_advice(manifest, tmp_path, monkeypatch):
    real, taken = steps._gradients, []

    def explodes(trainer, x, y, share):
        taken.append(1)
        return real(trainer, x, y, share) if len(taken) < 7 else float("nan")

    monkeypatch.setattr(steps, "_gradients", explodes)
    advice = "start a new run with a smaller rate, such as rate=0.0001"
    with pytest.raises(UserError, match=rf"became nan at step \d of epoch 2, at a rate of .*{advice}"):
        fit_in(tmp_path, manifest)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epoch"] == 2  # the one before stands


def test_a_gradient_that_explodes_under_a_finite_loss_never_reaches_the_weights(manifest, tmp_path, monkeypatch):
    real, taken = steps._gradients, []

    def explodes(trainer, x, y, share):
        loss = real(trainer, x, y, share)
        taken.append(1)
        if len(taken) == 7:
            trainer.module.head.weight.grad.fill_(float("inf"))
        return loss

    monkeypatch.setattr(steps, "_gradients", explodes)
    with pytest.raises(UserError, match=r"The gradient became (nan|inf) at step \d of epoch 2"):
        fit_in(tmp_path, manifest)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(v.isfinite().all() for v in state["network"].values())


VANISHED = """Caught BadPhoto in DataLoader worker process 0.
Original Traceback …
species_wb.photos.reading.BadPhoto: a.jpg has changed."""


@pytest.mark.parametrize(
    ("text", "said"),
    [(VANISHED, "a.jpg has changed. Put it back"), ("CUDA out of memory.", "memory of the machine is full")],
)
def test_what_stops_a_training_from_outside_is_a_sentence(text, said, tmp_path):
    processor = torch.device("cpu")
    assert said in loop._explained(RuntimeError(text), processor, tmp_path)
    assert loop._explained(RuntimeError("a mistake of ours"), processor, tmp_path) == ""


def test_a_start_that_stands_on_other_photos_is_refused(tuned, few, manifest, tmp_path):
    manifest = read_manifest(few.with_name("more.parquet"))
    for name in ("start.safetensors", "plan.json"):  # killed before the first checkpoint
        (tmp_path / name).write_bytes((tuned[0] / name).read_bytes())
    rows = manifest["label"].to_pylist()
    k = next(k for k, s in enumerate(manifest["split"].to_pylist()) if s == "train")
    rows[k] = next(label for label in rows if label and label != rows[k])
    other = manifest.set_column(manifest.schema.get_field_index("label"), "label", pa.array(rows))
    with pytest.raises(UserError, match="start.safetensors was made with other photos"):
        fit_in(tmp_path, other, **TUNED)


def test_an_input_size_is_tried_before_anything_is_trained(monkeypatch):
    "How long a photo takes is asked after the size was tried; it is not measured here, because 512 px fill the memory."
    monkeypatch.setattr(planning, "_seconds_a_photo", lambda *_: 0.01)
    network, spec, told = registry.build("simple_cnn", 3, "none")
    larger = planning.plan(network, spec, told, 100, "finetune", size=512, epochs=1)[1]
    assert larger.canonical_size == 512  # photos are decoded as large as it needs
    vit, own, told = registry.build("timm/vit_tiny_patch16_224", 3, "none")
    with pytest.raises(UserError, match="does not work at 100 px"):
        planning.plan(vit, own, told, 100, "finetune", size=100, epochs=1)


def test_a_gpu_that_disappears_is_a_sentence(manifest, tmp_path, monkeypatch):
    def gone(trainer, after_step):
        trainer.device = torch.device("cuda")
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with ...")

    monkeypatch.setattr(loop, "one_epoch", gone)
    with pytest.raises(UserError, match="The GPU stopped answering .*go on with run="):
        fit_in(tmp_path, manifest)


def test_it_stops_early_when_validation_no_longer_improves(manifest, tmp_path, monkeypatch):
    always = {"valid_loss": 1.0, "valid_accuracy": 0.5, "valid_weighted_f1": 0.5}
    monkeypatch.setattr(loop, "judge", lambda logits, truth: always)
    monkeypatch.setattr(planning, "FROM_NOTHING", Recipe(epochs=60, patience=2))
    told = fit_in(tmp_path, manifest, epochs=20, size=32)
    assert told["epochs_done"] == 3
    assert any("stopped early, after 2 epochs" in s and "Epoch 1 had" in s for s in told["sentences"])


def test_a_class_that_only_validation_has_is_said_and_left_out(survey, workspace, tmp_path):
    paths = sorted(p for label in ("Aves", "Fungi", "Plantae") for p in (survey / label).glob("*.jpg"))
    for k, path in enumerate(paths):
        split = "val" if path.parent.name == "Plantae" else ("train", "val", "test")[k % 3]
        (folder := tmp_path / "mine" / split / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    manifest = scan(tmp_path / "mine")
    assert any("Plantae" in s and "held out for validation" in s for s in sentences(findings(manifest)))
    assert require_trainable(manifest) == ["Aves", "Fungi"]
    told = fit_in(tmp_path, manifest, epochs=1, size=32)
    assert model_file.open_model(tmp_path / "model.onnx").info.labels == ["Aves", "Fungi"]
    assert told["validation"]["n"] == manifest["split"].to_pylist().count("valid")


def test_uneven_classes_are_balanced_and_said(manifest, tmp_path):
    rows, kept, left = manifest.to_pylist(), [], 2
    for k, row in enumerate(rows):
        if row["label"] == "Aves" and row["split"] == "train":
            left -= 1
            if left < 0:
                continue
        kept.append(k)
    told = fit_in(tmp_path, manifest.take(kept), epochs=1, size=32)
    assert any("classes are uneven" in s for s in told["sentences"])


def test_finetuning_starts_from_a_fitted_head_and_ends_in_a_mixture(tuned):
    folder, told = tuned
    said = " ".join(told["sentences"])
    assert (folder / "start.safetensors").exists()
    assert "The head was fitted first" in said and "of the fine-tuned weights" in said
    assert [r["share"] for r in told["mix"]] == [k / 10 for k in range(11)]
    best = min(told["mix"], key=lambda r: r["log_loss"])
    assert told["validation"]["log_loss"] == pytest.approx(best["log_loss"], abs=0.02)
    start = told["mix"][0]
    assert start["accuracy"] > 0.3  # ten classes: the fitted head is there before any step


def test_boxes_are_tried_on_validation_photos_and_the_answers_stay(whole, manifest, tmp_path, monkeypatch):
    seen, real = [], box_finding.with_boxes
    monkeypatch.setattr(box_finding, "is_simulated", lambda manifest: False)  # the survey stands for real photos
    monkeypatch.setattr(box_finding, "with_boxes", lambda model, judged: seen.append(judged) or real(model, judged))
    folder = tmp_path / "again"
    shutil.copytree(whole, folder)  # its checkpoint is that of the last epoch: only the file is written again
    (folder / "training.json").unlink()
    told = fit_in(folder, manifest)
    (judged,), found = seen, finding_of(model_file.open_model(folder / "model.onnx"))
    assert {*judged.split} == {"valid"} and found.n == len(judged.photos) == told["validation"]["n"]
    assert told["validation"]["detect"]["n"] == found.n and "were tried on validation photos" in told["found"][-2]
    assert np.array_equal(answers(folder), answers(whole))
    assert finding_of(model_file.open_model(whole / "model.onnx")) is None  # simulated photos are not judged


def test_mixup_and_cutmix_train_with_soft_labels(manifest, tmp_path):
    fit_in(tmp_path, manifest, epochs=1, size=32, mixup=0.2, cutmix=1.0)
    assert json.loads((tmp_path / "plan.json").read_text())["recipe"]["cutmix"] == 1.0


def coloured(folder):
    "Forty made-up photos of three classes, as uneven as real ones."
    rng, rows = np.random.default_rng(0), []
    for k in range(40):
        place, split = (0, 0, 0, 0, 1, 1, 2)[k % 7], "train" if k % 4 else "valid"
        label = ("Aves", "Fungi", "Plantae")[place]
        picture = rng.integers(0, 200, (6, 7, 3)).repeat(8, 0).repeat(8, 1)
        picture[..., place] += rng.integers(0, 56)
        (folder / f"{k}.jpg").write_bytes(data := encode_jpeg(picture.astype(np.uint8)))
        row = {"path": f"{k}.jpg", "label": label, "split": split, "status": "ok"}
        rows.append({**row, "sha256": hashlib.sha256(data).hexdigest()})
    return manifest_table(rows, folder), ["Aves", "Fungi", "Plantae"]


TINY = {
    "from nothing": Recipe(epochs=2, batch=8, rate=0.003, policy="crop", least=0.7, averaging=0.3),
    "pretrained": Recipe(epochs=2, batch=8, rate=0.0001, lowest=0.1, mixup=0.2, cutmix=1.0, train_norm=False),
}
KNOWN = {  # by recipe and `checkpoints.NUMBERS`; history: train loss, validation loss, accuracy, weighted F1, rate
    ("from nothing", 2): {
        "history": [[1.15004, 0.970397, 0.5, 0.508571, 0.003], [0.888616, 1.1959, 0.2, 0.191429,
            0.00183378]],
        "mix": [],
        "temperature": 0.176543,
        "log_loss": 0.765678,
        "logits": [0.489097, -0.246191, -0.419426, 0.665308, -0.334207, -0.491619, 0.455288, -0.263968,
            -0.398342, 0.536232, -0.226063, -0.476527],
    },
    ("pretrained", 2): {
        "history": [[0.951336, 0.7208, 0.7, 0.68, 0.0001], [1.06132, 0.62375, 0.8, 0.770455, 6.1126e-05]],
        "mix": [0.30627, 0.272974, 0.24252, 0.220019, 0.214436, 0.227021, 0.253842, 0.291977, 0.339086, 0.394266, 0.456522],
        "temperature": 0.213117,
        "log_loss": 0.214436,
        "logits": [0.406741, 0.342908, -0.743325, 0.545244, 0.166855, -0.705886, 0.309894, 0.364111, -0.667759, 0.238639, 0.380947, -0.613457],
    },
}  # fmt: skip
ROUNDING = {"from nothing": 2e-3, "pretrained": 3e-2}  # a processor without AVX differs by 0.0006 and 0.014


@pytest.mark.parametrize("name", TINY)
def test_numbers_are_those_of_this_version(name, workspace, tmp_path, monkeypatch):
    """A checkpoint is gone on with wherever `checkpoints.NUMBERS` is the same, so the same numbers must come out.

    Where this fails because the code computes something else now: raise NUMBERS, and write the new numbers here.
    """
    be_quick(monkeypatch)
    manifest, labels = coloured(tmp_path)
    set_seed(0)
    network, spec, _ = registry.build("simple_cnn", 3, "none")
    if name == "pretrained":  # it also sees what a published classifier says
        width = network.head.in_features
        members = [[0, 1], [2, 3], [4, 5]]
        network.known = imagenet.PublishedClassifier(torch.randn(6, width) / 9, torch.zeros(6), members)
        network.head = torch.nn.Linear(width + 3, 3)
    (folder := tmp_path / "run").mkdir()
    spec = registry.at_size(spec, 32)
    told = finetune.fit_finetune(folder, manifest, labels, network, spec, TINY[name], name == "pretrained", seed=3)
    history = [[float(x) for x in line.split(",")[1:]] for line in numbers(folder)[1:]]
    found = {
        "history": history, "mix": [r["log_loss"] for r in told["mix"]], "temperature": told["temperature"],
        "log_loss": told["validation"]["log_loss"], "logits": (told["temperature"] * answers(folder)).ravel().tolist(),
    }  # fmt: skip
    for what, values in KNOWN[name, checkpoints.NUMBERS].items():
        assert np.allclose(found[what], values, rtol=ROUNDING[name], atol=ROUNDING[name]), (what, found[what])
