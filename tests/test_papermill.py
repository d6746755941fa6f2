"""The notebooks as papermill runs them: with an output path, bare with captured output, and from another folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parent.parent
COMPLETE = {"params.json", "status.json", "metrics.json", "training.json", "manifest.parquet", "predictions.parquet", "model.onnx", "report.html", "evaluate.ipynb"}


def papermill(*words, cwd, home) -> subprocess.CompletedProcess:
    environment = {**os.environ, "SPECIES_WB_HOME": str(home)} if home else {k: v for k, v in os.environ.items() if k != "SPECIES_WB_HOME"}
    return subprocess.run([str(BIN / "papermill"), *map(str, words)], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)


def the_run(home: Path) -> Path:
    (run,) = (home / "reports" / "train").iterdir()
    return run


def test_with_an_output_path_from_another_folder(few_photos, workspace, tmp_path):
    "Typed paths are relative to where the person stands; the run still lands in the workspace."
    os.symlink(few_photos, tmp_path / "mine")
    done = papermill(ROOT / "nbs" / "train.ipynb", "x.ipynb", "-p", "arch", "simple_cnn", "-p", "photos", "mine", "-p", "epochs", "1", "-p", "size", "32", cwd=tmp_path, home=workspace)
    assert done.returncode == 0, done.stderr[-2000:]
    run = the_run(workspace)
    assert {p.name for p in run.iterdir()} >= COMPLETE | {"history.csv", "checkpoint.pt"} and (tmp_path / "x.ipynb").exists()
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert json.loads((run / "params.json").read_text())["photos"] == str(tmp_path / "mine")


def test_bare_with_captured_output(few_photos, workspace, tmp_path):
    before = (ROOT / "nbs" / "train.ipynb").read_bytes()
    done = papermill(ROOT / "nbs" / "train.ipynb", "-p", "arch", "simple_cnn", "-p", "photos", few_photos, "-p", "epochs", "1", "-p", "size", "32", cwd=tmp_path, home=workspace)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {p.name for p in the_run(workspace).iterdir()} >= COMPLETE
    assert json.loads(done.stdout)["cells"] and (ROOT / "nbs" / "train.ipynb").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["workspace"]


@pytest.mark.slow
def test_resnet50_on_real_photos_both_ways(photos, workspace, tmp_path):
    words = ["-p", "arch", "resnet50", "-p", "photos", photos, "-p", "weights", "none", "-p", "epochs", "1", "-p", "size", "64"]
    assert papermill("nbs/train.ipynb", workspace / "x.ipynb", *words, cwd=ROOT, home=workspace).returncode == 0
    assert papermill(ROOT / "nbs" / "train.ipynb", *words, cwd=tmp_path, home=workspace).returncode == 0
    runs = list((workspace / "reports" / "train").iterdir())
    assert len(runs) == 2 and all({p.name for p in run.iterdir()} >= COMPLETE for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "least"), [("efficientnet_lite0", 0.90), ("efficientnet_lite2", 0.93)])
def test_a_probe_on_real_photos_is_as_good_as_it_was(photos, workspace, arch, least):
    done = subprocess.run([str(BIN / "species-wb"), "train", arch, "--photos", str(photos)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    scores = json.loads((the_run(workspace) / "metrics.json").read_text())
    assert scores["test"]["accuracy"]["high"] >= least and len(scores["scorings"]) == 1, scores["test"]["accuracy"]
