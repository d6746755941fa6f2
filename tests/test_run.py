"""A run made with the command, as a person makes it.

Its folder is whole, its numbers are those of its model file, and it goes on after a power cut.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from species_wb.engine import model_file
from species_wb.contracts import manifest_root, read_manifest, read_table
from species_wb.photos.pixels import load
from species_wb.runs import at_work

COMMAND = str(Path(sys.executable).parent / "species-wb")


@pytest.fixture(scope="module")
def resumed(few_photos, tmp_path_factory):
    "As a person does it: species-wb train, power cut, species-wb train --run FOLDER."
    home = tmp_path_factory.mktemp("resumed")
    env, run = {**os.environ, "SPECIES_WB_HOME": str(home)}, home / "my run"
    first = [COMMAND, "train", "simple_cnn", "--photos", str(few_photos), "--epochs", "4", "--size", "32"]
    first += ["--seeds", "3", "--run", str(run)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(first, env=env, start_new_session=True, **quiet)
    while child.poll() is None and not (run / "history.csv").exists():
        time.sleep(0.02)
    os.kill(json.loads((run / "status.json").read_text())["pid"], signal.SIGKILL)  # the notebook's kernel
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for _ in range(600):
        if not at_work(run):
            break
        time.sleep(0.1)
    assert (run / "history.csv").exists() and not (run / "report.html").exists()
    done = subprocess.run([COMMAND, "train", "--run", str(run)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return run


def test_the_command_goes_on_where_a_kill_stopped_it(resumed):
    assert len((resumed / "history.csv").read_text().splitlines()) == 5 and (resumed / "report.html").exists()


def test_several_seeds_are_trained_scored_and_reported_and_an_unfinished_one_is_not_evaluated(resumed, tmp_path):
    found = json.loads((resumed / "metrics.json").read_text())
    values = found["seeds"]["weighted_f1"]["values"]
    assert found["seeds"]["n"] == len(values) == 3
    assert found["seeds"]["weighted_f1"]["mean"] == pytest.approx(np.mean(values))
    assert found["seeds"]["weighted_f1"]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert len(found["scorings"]) == 3
    assert "was trained 3 times" in (resumed / "report.html").read_text(encoding="utf-8")
    run = tmp_path / "run"
    shutil.copytree(resumed, run, ignore=shutil.ignore_patterns("checkpoint.pt"))
    (run / "seed-2" / "training.json").unlink()
    env = {**os.environ, "SPECIES_WB_HOME": str(tmp_path)}
    again = subprocess.run([COMMAND, "evaluate", str(run)], env=env, capture_output=True, text=True)
    assert again.returncode != 0 and "seed-2/training.json is missing" in again.stderr + again.stdout


def test_the_run_folder_is_complete(trained):
    names = {p.name for p in trained.iterdir()}
    assert names >= {"params.json", "plan.json", "status.json", "metrics.json", "training.json", "manifest.parquet"}
    assert names >= {"predictions.parquet", "predictions.csv", "model.onnx", "report.html"}
    assert names >= {"train.ipynb", "evaluate.ipynb"}
    assert json.loads((trained / "status.json").read_text())["state"] == "finished"
    assert not list(trained.glob(".*.partial"))
    manifest, predictions = read_manifest(trained / "manifest.parquet"), read_table(trained / "predictions.parquet")
    rows = manifest.to_pylist()
    scored = [r["path"] for r in rows if r["split"] == "test"]
    assert predictions["path"].to_pylist() == [r["path"] for r in rows if r["split"] not in ("train", "valid")]
    assert set(scored) < set(predictions["path"].to_pylist())  # the files that are no photos have their rows too
    assert len(list((trained / "figures").glob("*.png"))) >= 8
    metrics = json.loads((trained / "metrics.json").read_text())
    assert len(metrics["scorings"]) == 1 and metrics["test"]["n"] == len(scored)


def test_the_reports_numbers_come_from_the_exported_file(trained):
    from sklearn.metrics import accuracy_score, f1_score

    rows = [r for r in read_table(trained / "predictions.parquet").to_pylist() if r["split"] == "test"]
    file = model_file.open_model(trained / "model.onnx")
    manifest = read_manifest(trained / "manifest.parquet")
    prepared = np.stack([load(Path(manifest_root(manifest)) / r["path"], file.info.spec) for r in rows])
    parts = np.array_split(prepared, 8)
    answers = [file.info.labels[k] for part in parts for k in model_file.run_network(file, part)[0].argmax(1)]
    scores = json.loads((trained / "metrics.json").read_text())["test"]
    assert answers == [r["label"] for r in rows]
    truth = [r["truth"] for r in rows]
    assert scores["accuracy"]["value"] == pytest.approx(accuracy_score(truth, answers))
    assert scores["weighted_f1"]["value"] == pytest.approx(f1_score(truth, answers, average="weighted"))


def test_the_model_file_remembers_its_photos(trained):
    info = model_file.open_model(trained / "model.onnx").info
    manifest = read_manifest(trained / "manifest.parquet").to_pylist()
    used = {r["sha256"][:16] for r in manifest if r["split"] in ("train", "valid")}
    assert set(info.provenance["training_photos"]) == used
    assert info.provenance["run"] == trained.name and info.provenance["simulated"] is True
    assert info.spec.licence == "Apache-2.0"
