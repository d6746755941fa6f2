"""Fine-tuning: what survives a kill, a full disk, too little memory and a loss that explodes, and that equal seeds give equal numbers."""

import errno
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

from species_wb.engine import model_file
from species_wb.models import export, registry
from species_wb.runs import set_seed
from species_wb.train import checkpoints, finetune, fit, probe
from species_wb.contracts import manifest_table, read_manifest, write_table
from species_wb.core import UserError
from species_wb.train.finetune import Recipe, Trainer
from species_wb.photos.findings import findings, require_trainable
from species_wb.photos.findings_text import sentences
from species_wb.photos.scan import scan
from species_wb.train.training_set import photos_to_train_on

HOW = {"epochs": 4, "size": 32, "batch": 16}
OUT = ["logits", "embedding", "features"]


def quick_onnx(network, info, path):
    "Write a model file with torch's older exporter: the same answers in a twentieth of the time, and the gate of `fit` compares them all the same."
    network = export.FromBytes(network.cpu().eval(), info.spec).eval()
    side = info.spec.input_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(2, side, side, 3, dtype=torch.uint8),), path, input_names=["pixels"], output_names=OUT, dynamic_axes={name: {0: "n"} for name in ["pixels", *OUT]}, dynamo=False)
    export._save(onnx.load(path), info, path)


def fit_in(folder, manifest, seed=0, arch="simple_cnn", **how):
    "Fit as the notebook does; how fast this machine is now is not what is tested, nor how the network becomes a file."
    give_memory_back()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_seconds_a_photo", lambda *_: 0.01)
        patch.setattr(finetune, "to_onnx", quick_onnx)
        patch.setattr(probe, "to_onnx", quick_onnx)
        patch.setattr(probe, "best_batch", lambda engine: 4)
        patch.setattr(finetune, "_keep_freed_memory", lambda: None)  # this process has other tests to do
        labels = require_trainable(manifest)
        set_seed(seed)
        network, spec, told = registry.build(arch, len(labels), "none" if arch == "simple_cnn" else "auto")
        todo, spec = fit.planned(folder, {"method": "finetune", **HOW, **how}, network, spec, told, photos_to_train_on(manifest))
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
    return model_file.run_network(file, np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8))[0] / file.info.temperature


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
    assert numbers(tmp_path / "same") == numbers(whole) and np.array_equal(answers(tmp_path / "same"), answers(whole))
    assert numbers(tmp_path / "other") != numbers(whole)


CHILD = """
import os, sys
from pathlib import Path
import accelerate
from species_wb.train import finetune
from species_wb.contracts import read_manifest
finetune.KEEP_SECONDS = 0
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
    "kill -9 at moments drawn at random, in the middle of an epoch as likely as not; each resumed run goes on from the last step kept."
    rng, kills = np.random.default_rng(), 0
    places, checkpoint = [], tmp_path / "checkpoint.pt"
    words = [sys.executable, "-c", CHILD, str(tmp_path), str(few), *map(str, Path(__file__).parents[:2])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as children:
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
    assert set(state) >= {"made_from", "network", "averages", "optimizer", "schedule", "random", "epoch", "step", "history", "best"}


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
        monkeypatch.setattr(checkpoints, "MODULES", ("core", *checkpoints.MODULES))
    with pytest.raises(UserError, match={"photos": "other photos or labels", "code": "another version", "plan": "other parameters"}[what]):
        fit_in(tmp_path, manifest, **({"epochs": 5} if what == "plan" else {}))


def test_a_photo_that_changed_since_the_checkpoint_stops_the_resumed_run(whole, few, survey, workspace, tmp_path):
    "Its pixels are not the ones the run began with; the cache of this workspace is empty, so it has to be read again."
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
    real, asked = Trainer._gradients, []

    def little_memory(self, x, y, share):
        asked.append(len(x))
        if len(x) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(self, x, y, share)

    monkeypatch.setattr(Trainer, "_gradients", little_memory)
    told = fit_in(tmp_path, manifest, epochs=1, batch=32)
    assert max(asked) == 32 and told["parts"] == 4
    assert any("did not fit into memory" in s and "4 parts" in s and "still one of 32 photos" in s for s in told["sentences"])


def test_not_even_one_photo_is_a_sentence_and_another_error_stays_itself(manifest, tmp_path, monkeypatch):
    def none(self, x, y, share):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(Trainer, "_gradients", none)
    with pytest.raises(UserError, match="Not even 2 photos of 32 px fit"):
        fit_in(tmp_path, manifest, epochs=1)
    monkeypatch.setattr(Trainer, "_gradients", lambda *_: (_ for _ in ()).throw(RuntimeError("sizes do not match")))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        fit_in(tmp_path, manifest, epochs=1)


def test_a_loss_that_is_no_number_stops_with_step_rate_and_advice(manifest, tmp_path, monkeypatch):
    real, steps = Trainer._gradients, []

    def explodes(self, x, y, share):
        steps.append(1)
        return real(self, x, y, share) if len(steps) < 7 else float("nan")

    monkeypatch.setattr(Trainer, "_gradients", explodes)
    with pytest.raises(UserError, match=r"became nan at step \d of epoch 2, at a rate of .*start a new run with a smaller rate, such as rate=0.0001"):
        fit_in(tmp_path, manifest)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epoch"] == 2  # the one before stands


def test_a_gradient_that_explodes_under_a_finite_loss_never_reaches_the_weights(manifest, tmp_path, monkeypatch):
    real, steps = Trainer._gradients, []

    def explodes(self, x, y, share):
        loss = real(self, x, y, share)
        steps.append(1)
        if len(steps) == 7:
            self.module.head.weight.grad.fill_(float("inf"))
        return loss

    monkeypatch.setattr(Trainer, "_gradients", explodes)
    with pytest.raises(UserError, match=r"The gradient became (nan|inf) at step \d of epoch 2"):
        fit_in(tmp_path, manifest)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(v.isfinite().all() for v in state["network"].values())


@pytest.mark.parametrize(("text", "said"), [("Caught BadPhoto in DataLoader worker process 0.\nOriginal Traceback …\nspecies_wb.photos.reading.BadPhoto: a.jpg has changed.", "a.jpg has changed. Put it back"), ("CUDA out of memory.", "memory of the machine is full")])
def test_what_stops_a_training_from_outside_is_a_sentence(text, said, tmp_path):
    assert said in finetune._explained(RuntimeError(text), torch.device("cpu"), tmp_path) and finetune._explained(RuntimeError("a mistake of ours"), torch.device("cpu"), tmp_path) == ""


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
    monkeypatch.setattr(fit, "_seconds_a_photo", lambda *_: 0.01)  # whole batches of 512 px fill the memory, and it is asked after the size was tried
    network, spec, told = registry.build("simple_cnn", 3, "none")
    larger = fit.plan(network, spec, told, 100, "finetune", size=512, epochs=1)[1]
    assert larger.canonical_size == 512  # photos are decoded as large as it needs
    vit, own, told = registry.build("timm/vit_tiny_patch16_224", 3, "none")
    with pytest.raises(UserError, match="does not work at 100 px"):
        fit.plan(vit, own, told, 100, "finetune", size=100, epochs=1)


def test_a_gpu_that_disappears_is_a_sentence(manifest, tmp_path, monkeypatch):
    def gone(self, after_step):
        self.device = torch.device("cuda")
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with ...")

    monkeypatch.setattr(Trainer, "one_epoch", gone)
    with pytest.raises(UserError, match="The GPU stopped answering .*go on with run="):
        fit_in(tmp_path, manifest)


def test_it_stops_early_when_validation_no_longer_improves(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "judge", lambda logits, truth: {"valid_loss": 1.0, "valid_accuracy": 0.5, "valid_weighted_f1": 0.5})
    monkeypatch.setattr(fit, "FROM_NOTHING", Recipe(epochs=60, patience=2))
    told = fit_in(tmp_path, manifest, epochs=20, size=32)
    assert told["epochs_done"] == 3 and any("stopped early, after 2 epochs" in s and "Epoch 1 had" in s for s in told["sentences"])


def test_a_class_that_only_validation_has_is_said_and_left_out(survey, workspace, tmp_path):
    for k, path in enumerate(sorted(p for label in ("Aves", "Fungi", "Plantae") for p in (survey / label).glob("*.jpg"))):
        split = "val" if path.parent.name == "Plantae" else ("train", "val", "test")[k % 3]
        (folder := tmp_path / "mine" / split / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    manifest = scan(tmp_path / "mine")
    assert any("Plantae" in s and "held out for validation" in s for s in sentences(findings(manifest))) and require_trainable(manifest) == ["Aves", "Fungi"]
    told = fit_in(tmp_path, manifest, epochs=1, size=32)
    assert model_file.open_model(tmp_path / "model.onnx").info.labels == ["Aves", "Fungi"] and told["validation"]["n"] == manifest["split"].to_pylist().count("valid")


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
    assert (folder / "start.safetensors").exists() and "The head was fitted first" in said and "of the fine-tuned weights" in said
    assert [r["share"] for r in told["mix"]] == [k / 10 for k in range(11)]
    best = min(told["mix"], key=lambda r: r["log_loss"])
    assert told["validation"]["log_loss"] == pytest.approx(best["log_loss"], abs=0.02)
    start = told["mix"][0]
    assert start["accuracy"] > 0.3  # ten classes: the fitted head is there before any step


def test_mixup_and_cutmix_train_with_soft_labels(manifest, tmp_path):
    fit_in(tmp_path, manifest, epochs=1, size=32, mixup=0.2, cutmix=1.0)
    assert json.loads((tmp_path / "plan.json").read_text())["recipe"]["cutmix"] == 1.0
