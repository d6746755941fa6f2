"""The notebooks as papermill runs them: with an output path, bare with captured output, and from another folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import nbformat
import pytest

from species_wb.core import UserError
from species_wb.report import notebooks

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parent.parent
COMPLETE = {"params.json", "status.json", "metrics.json", "training.json", "manifest.parquet", "predictions.parquet",
            "model.onnx", "report.html", "evaluate.ipynb"}  # fmt: skip
QUICK = ["-p", "arch", "simple_cnn", "-p", "epochs", "1", "-p", "size", "32"]


def papermill(*words, cwd, home) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "SPECIES_WB_HOME"}
    environment |= {"SPECIES_WB_HOME": str(home)} if home else {}
    command = [str(BIN / "papermill"), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)


def the_run(home: Path) -> Path:
    (run,) = (home / "reports" / "train").iterdir()
    return run


def linked(notebook: nbformat.NotebookNode, folder: Path) -> Path:
    "Follow the link of a notebook's last cell from the folder in which the notebook lies."
    (shown,) = [output.data["text/html"] for output in notebook.cells[-1].outputs if "text/html" in output.get("data", {})]
    return (folder / unquote(re.search(r'<a href="([^"]+)"', shown)[1])).resolve()


@pytest.mark.slow
def test_with_an_output_path_from_another_folder(few_photos, workspace, tmp_path):
    "Typed paths are relative to where the person stands; the run still lands in the workspace."
    os.symlink(few_photos, tmp_path / "mine")
    (tmp_path / "executed").mkdir()
    words = [ROOT / "nbs" / "train.ipynb", "executed/x.ipynb", *QUICK, "-p", "photos", "mine"]
    done = papermill(*words, cwd=tmp_path, home=workspace)
    assert done.returncode == 0, done.stderr[-2000:]
    run = the_run(workspace)
    assert {p.name for p in run.iterdir()} >= COMPLETE | {"history.csv", "checkpoint.pt"}
    assert done.stdout == "" and "test photos are named right" not in done.stderr  # they stand in the notebook
    executed = nbformat.read(tmp_path / "executed" / "x.ipynb", 4)
    assert linked(executed, tmp_path / "executed") == (run / "report.html").resolve()
    pictures = [out for cell in executed.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(pictures) == 4  # the classes, how many of each, the learning curves, the first mistakes
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert json.loads((run / "params.json").read_text())["photos"] == str(tmp_path / "mine")


def test_bare_with_captured_output(few_photos, workspace, tmp_path):
    "Standard output is the notebook and nothing else; the headline and the report's place are on standard error."
    before = (ROOT / "nbs" / "train.ipynb").read_bytes()
    done = papermill(ROOT / "nbs" / "train.ipynb", *QUICK, "-p", "photos", few_photos, cwd=tmp_path, home=workspace)
    assert done.returncode == 0, done.stderr[-2000:]
    run = the_run(workspace)
    assert {p.name for p in run.iterdir()} >= COMPLETE
    assert json.loads(done.stdout)["cells"] and (ROOT / "nbs" / "train.ipynb").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["workspace"]
    executed = nbformat.reads(done.stdout, 4)
    nbformat.validate(executed)
    headline = json.loads((run / "metrics.json").read_text())["headline"]
    assert done.stderr.count(f"{headline}\nReport, to be opened in a browser: {run / 'report.html'}\n") == 1
    assert linked(executed, tmp_path) == (run / "report.html").resolve()


@pytest.mark.parametrize(("notebook", "name", "value", "said"), [
    pytest.param("train", "arch", "resnet5", "The architecture 'resnet5' is not known: did you mean resnet50?", marks=pytest.mark.slow),
    ("compare", "phtos", "mine", "compare has no parameter phtos: did you mean photos?"),
])  # fmt: skip
def test_a_wrong_word_ends_in_one_sentence(notebook, name, value, said, workspace, tmp_path):
    "Standard error ends with the sentence alone, once; standard output is a notebook; no run is begun."
    done = papermill(ROOT / "nbs" / f"{notebook}.ipynb", "-p", name, value, cwd=tmp_path, home=workspace)
    assert done.returncode != 0 and done.stderr.strip().splitlines()[-1] == said and done.stderr.count(said) == 1
    nbformat.validate(nbformat.reads(done.stdout, 4))
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("name", ["train", "evaluate", "compare"])
def test_every_notebook_refuses_a_parameter_that_it_does_not_have(name, monkeypatch):
    "The first cell that does anything asks, with the cells before it run as papermill runs them."
    cells = nbformat.read(ROOT / "nbs" / f"{name}.ipynb", 4).cells
    default, imports, first = [cell.source for cell in cells if cell.cell_type == "code"][:3]
    assert "photos = " in default and "import notebooks" in imports
    kernel = SimpleNamespace(user_ns={"In": ["", default, "# Parameters\nphtos = 'mine'\n", imports, first]})
    monkeypatch.setattr("IPython.get_ipython", lambda: kernel)
    with pytest.raises(UserError, match=f"^{name} has no parameter phtos: did you mean photos\\?$"):
        exec(first, {"notebooks": notebooks})


@pytest.mark.slow
def test_resnet50_on_real_photos_both_ways(photos, workspace, tmp_path):
    words = ["-p", "arch", "resnet50", "-p", "photos", photos, "-p", "weights", "none"]
    words += ["-p", "epochs", "1", "-p", "size", "64"]
    assert papermill("nbs/train.ipynb", workspace / "x.ipynb", *words, cwd=ROOT, home=workspace).returncode == 0
    assert papermill(ROOT / "nbs" / "train.ipynb", *words, cwd=tmp_path, home=workspace).returncode == 0
    runs = list((workspace / "reports" / "train").iterdir())
    assert len(runs) == 2 and all({p.name for p in run.iterdir()} >= COMPLETE for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "least"), [("efficientnet_lite0", 0.90), ("efficientnet_lite2", 0.93)])
def test_a_probe_on_real_photos_is_as_good_as_it_was(photos, workspace, arch, least):
    command = [str(BIN / "species-wb"), "train", arch, "--photos", str(photos)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    scores = json.loads((the_run(workspace) / "metrics.json").read_text())
    assert scores["test"]["accuracy"]["high"] >= least and len(scores["scorings"]) == 1, scores["test"]["accuracy"]
