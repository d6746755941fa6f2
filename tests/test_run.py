"""A run made with the command, as a person makes it.

Its folder is whole, its numbers are those of its model file, and it goes on after Ctrl-C and a power cut.
"""

import html
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from species_wb.engine import model_file
from species_wb.core import UserError
from species_wb.evaluate import evaluation
from species_wb.contracts import manifest_root, read_manifest, read_table
from species_wb.photos.pixels import load
from species_wb.runs import at_work

COMMAND = str(Path(sys.executable).parent / "species-wb")


@pytest.fixture(scope="module")
def stopped(few_photos, tmp_path_factory):
    "A training of two seeds, stopped with Ctrl-C after its first epoch: the run folder, the exit code, what was said."
    home = tmp_path_factory.mktemp("resumed")
    env, run = {**os.environ, "SPECIES_WB_HOME": str(home)}, home / "my run"
    first = [COMMAND, "train", "simple_cnn", "--photos", str(few_photos), "--epochs", "4", "--size", "32"]
    first += ["--seeds", "2", "--run", str(run)]
    child = subprocess.Popen(first, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(6000):
        if (run / "checkpoint.pt").exists() or child.poll() is not None:
            break
        time.sleep(0.02)
    assert child.poll() is None, child.communicate()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=120)
    shutil.copytree(run, home / "as it was then")
    return run, child.returncode, err


def test_ctrl_c_leaves_an_unfinished_run_that_can_go_on(stopped):
    "That it does go on, from a checkpoint that is whole, the next test shows."
    run, code, err = stopped
    then = run.parent / "as it was then"
    assert code == 130 and f"--run {shlex.quote(str(run))}" in err and "Traceback" not in err, err[-3000:]
    assert json.loads((then / "status.json").read_text())["state"] != "finished"
    assert (then / "checkpoint.pt").exists() and (then / "history.csv").exists()
    assert not list(then.rglob("report.html"))


@pytest.fixture(scope="module")
def resumed(stopped):
    "As a person does it: species-wb train, Ctrl-C, a power cut in the next try, species-wb train --run FOLDER."
    run = stopped[0]
    env = {**os.environ, "SPECIES_WB_HOME": str(run.parent)}
    cut = "import os, sys; from species_wb.runs import open_run; open_run(sys.argv[1], 'train', 'simple_cnn', {}); "
    cut += "os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", cut, str(run)], env=env).returncode == -signal.SIGKILL
    assert json.loads((run / "status.json").read_text())["state"] == "running" and not at_work(run)
    done = subprocess.run([COMMAND, "train", "--run", str(run)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Resuming the unfinished run my run." in done.stdout
    return run


def test_the_command_goes_on_where_ctrl_c_and_a_kill_stopped_it(resumed):
    before, after = ((run / "history.csv").read_text() for run in (resumed.parent / "as it was then", resumed))
    assert len(after.splitlines()) == 5 and after.splitlines()[:2] == before.splitlines()[:2]
    assert (resumed / "report.html").exists()


def test_several_seeds_are_trained_scored_and_reported_and_an_unfinished_one_is_not_evaluated(resumed, tmp_path):
    found = json.loads((resumed / "metrics.json").read_text())
    values = found["seeds"]["weighted_f1"]["values"]
    assert found["seeds"]["n"] == len(values) == 2
    assert found["seeds"]["weighted_f1"]["mean"] == pytest.approx(np.mean(values))
    assert found["seeds"]["weighted_f1"]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert len(found["scorings"]) == 2
    assert "was trained 2 times" in (resumed / "report.html").read_text(encoding="utf-8")
    run = tmp_path / "run"
    shutil.copytree(resumed, run, ignore=shutil.ignore_patterns("checkpoint.pt"))
    (run / "seed-1" / "training.json").unlink()
    with pytest.raises(UserError, match="seed-1/training.json is missing"):
        evaluation.begin(run)


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


def test_the_run_says_how_to_make_it_again(trained, survey):
    "The command as it was given is in the run's folder; that in the report also has what was chosen for the person."
    command = f"species-wb train efficientnet_lite0 --photos {shlex.quote(str(survey))}\n"
    assert (trained / "command.txt").read_text(encoding="utf-8") == command
    page = html.unescape((trained / "report.html").read_text(encoding="utf-8"))
    photos = shlex.quote(f"{survey.parent.name}/{survey.name}")
    assert f"species-wb train efficientnet_lite0 --photos {photos} --method probe --weights imagenet" in page and str(survey) not in page


def test_the_model_file_remembers_its_photos(trained):
    info = model_file.open_model(trained / "model.onnx").info
    manifest = read_manifest(trained / "manifest.parquet").to_pylist()
    used = {r["sha256"][:16] for r in manifest if r["split"] in ("train", "valid")}
    assert set(info.provenance["training_photos"]) == used
    assert info.provenance["run"] == trained.name and info.provenance["simulated"] is True
    assert info.spec.licence == "Apache-2.0"
