"""The command line as a person types it, and what it says when something is wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest

from species_wb.engine import toy
from species_wb.core import UserError
from species_wb.photos.findings import findings, require_trainable
from species_wb.photos.findings_text import sentences
from species_wb.photos.scan import scan
from species_wb.photos.pixels import encode_jpeg

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parent.parent


def typed(*words, cwd=None, **environment) -> subprocess.CompletedProcess:
    words = [str(BIN / "species-wb"), *map(str, words)]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment})


def one_sentence(done: subprocess.CompletedProcess) -> str:
    assert done.returncode not in (0, 2), done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr + done.stdout and last.endswith((".", "?")), done.stderr
    return last


def draw(folder: Path, count: int, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *folder.name.encode()])
    for k in range(count):
        small = rng.integers(0, 256, (8, 10, 3), np.uint8)
        (folder / f"{k}.jpg").write_bytes(encode_jpeg(small.repeat(12, 0).repeat(12, 1)))


def test_help_and_version():
    for words in ([], ["train"], ["photos", "check"], ["evaluate"], ["doctor"]):
        done = typed(*words, "--help")
        assert done.returncode == 0 and "Usage" in done.stdout
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", typed("--version").stdout)


def test_unknown_options_name_the_nearest():
    for wrong, right in (("--photo", "--photos"), ("--arhc", "--arch"), ("--epoch", "--epochs")):
        done = typed("train", wrong, "3")
        assert done.returncode == 2 and right in done.stderr + done.stdout


def test_an_unknown_architecture_names_the_nearest():
    assert "did you mean resnet50?" in one_sentence(typed("train", "resnet5"))


def test_a_folder_that_is_not_there(tmp_path):
    assert "is not there" in one_sentence(typed("train", "--photos", tmp_path / "nowhere"))
    assert "nowhere" in one_sentence(typed("photos", "check", tmp_path / "nowhere", SPECIES_WB_HOME=str(tmp_path)))


def test_evaluate_wants_a_model_and_photos(tmp_path):
    assert "is not there" in one_sentence(typed("evaluate", tmp_path / "model.onnx", tmp_path))
    (tmp_path / "model.onnx").write_text("x")
    assert "Which photos" in one_sentence(typed("evaluate", tmp_path / "model.onnx"))
    assert "not a run folder" in one_sentence(typed("evaluate", tmp_path))


def test_photos_check_prints_what_is_in_a_folder(tmp_path, workspace):
    draw(tmp_path / "p" / "Aves", 6), draw(tmp_path / "p" / "Fungi", 5)
    shutil.copy(tmp_path / "p" / "Aves" / "0.jpg", tmp_path / "p" / "Fungi" / "copy.jpg")
    (tmp_path / "p" / "Aves" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    (tmp_path / "p" / "Empty").mkdir()
    done = typed("photos", "check", "p", "--manifest", "m.parquet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("12 photos of 2 classes", "broken.jpg", "Empty", "copy.jpg", "m.parquet"):
        assert word in done.stdout, done.stdout
    assert len(scan(tmp_path / "m.parquet")) == 13


def test_doctor_says_what_can_be_done(workspace):
    done = typed("doctor")
    assert done.returncode == 0 and "✓ To train on your photos: ready" in done.stdout
    assert str(workspace) in done.stdout and "✓ graphics card" not in done.stdout
    assert all(re.match(r"[✓–✗] (species_wb|To [\w ,-]+): |    ", line) for line in done.stdout.splitlines())


def test_doctor_says_which_job_a_missing_package_stops(workspace, monkeypatch):
    "Without PyTorch and PyAV, a person learns what cannot be done, and the command that mends it."
    from species_wb import doctor

    missing = {"train": ["torch", "timm"], "video": ["av"]}
    monkeypatch.setattr(doctor, "lacking", lambda extra: missing.get(extra, []))
    found = {finding.what: finding for finding in doctor.examine(ready_made=False)}
    assert found["To name what is in photos with a model file"].well
    ready_made, films = found["To name what is in photos with the ready-made model"], found["To name what is in films"]
    assert not ready_made.well and ready_made.said == "torch and timm must be installed" and ready_made.mend == "make train"
    assert not films.well and films.optional and films.said == "av must be installed" and "'.[video]'" in films.mend
    made = {finding.what: finding for finding in doctor.examine(ready_made=True)}
    assert made[ready_made.what].well and not made["To train on your photos"].well


def test_doctor_joins_a_folder_that_may_not_be_used_with_the_job_that_needs_it(tmp_path):
    done = typed("doctor", SPECIES_WB_HOME=str(tmp_path / "nowhere"))
    (line,) = [line for line in done.stdout.splitlines() if "nowhere" in line]
    assert done.returncode == 0 and line.startswith("✗ To train on your photos: "), done.stdout


@pytest.mark.parametrize(
    ("classes", "said"),
    [({}, "no "), ({"Aves": 8}, "one class"), ({"Aves": 1, "Fungi": 1}, "")],
    ids=["no photos", "one class", "one photo each"],
)
def test_too_little_to_train_on_is_one_sentence(tmp_path, workspace, classes, said):
    (tmp_path / "p").mkdir()
    for name, count in classes.items():
        draw(tmp_path / "p" / name, count)
    with pytest.raises(UserError) as error:
        require_trainable(scan(tmp_path / "p"))
    assert said in str(error.value) and str(error.value).count("\n") == 0 and str(error.value).endswith(".")


def test_classes_of_one_photo_are_told_of_in_our_words(capsys, recwarn):
    "A probe on such classes says which photos took no part in the choice; scikit-learn's warning is not shown."
    from species_wb.train import heads

    rng = np.random.default_rng(0)
    truth, groups = np.array([0, 1] * 10 + [2]), np.arange(21)
    embedded = rng.normal(size=(21, 8)).astype(np.float32)
    rows, _ = heads.candidates([embedded], truth, heads.folds(truth, groups), 3, (1.0,))
    assert rows[0]["n"] == 20 and not recwarn.list and "UserWarning" not in capsys.readouterr().err
    said = heads.not_judged_sentence(21, rows[0]["n"])
    assert said.startswith("1 photo took no part in this choice") and heads.not_judged_sentence(21, 21) == ""


def test_small_and_empty_classes_are_named_and_nothing_stops(tmp_path, workspace):
    for name, count in {"Aves": 12, "Fungi": 12, "Lone": 1}.items():
        draw(tmp_path / "p" / name, count)
    (tmp_path / "p" / "Void").mkdir()
    manifest = scan(tmp_path / "p")
    said = " ".join(sentences(findings(manifest)))
    assert "Lone" in said and "Void" in said
    assert require_trainable(manifest) == ["Aves", "Fungi", "Lone"]
    assert [r["split"] for r in manifest.to_pylist() if r["label"] == "Lone"] == ["train"]


def test_unknown_classes_of_a_test_folder_are_named_and_not_scored(tmp_path, workspace):
    for split, names in {"train": ["Aves", "Fungi"], "test": ["Aves", "Fungi", "Yeti"]}.items():
        for name in names:
            draw(tmp_path / "p" / split / name, 6, seed=len(split))
    manifest = scan(tmp_path / "p")
    assert "Yeti" in " ".join(sentences(findings(manifest))) and require_trainable(manifest) == ["Aves", "Fungi"]
    assert {r["split"] for r in manifest.to_pylist() if r["label"] == "Yeti"} == {None}


ONE_CLASS = """from species_wb.photos.findings import require_trainable
from species_wb.photos.scan import scan
from species_wb.runs import open_run

open_run(run, "train", arch, {"photos": photos})
require_trainable(scan(photos))"""


@pytest.mark.parametrize("whole", [
    pytest.param(False, id="what it does up to there"), pytest.param(True, id="the notebook", marks=pytest.mark.slow),
])  # fmt: skip
def test_an_error_in_the_notebook_is_one_sentence_and_the_run_says_failed(tmp_path, workspace, whole):
    "The notebook without the cells that load PyTorch goes the same way to the same error in a tenth of the time."
    if not whole:
        notebook = nbformat.read(ROOT / "nbs" / "train.ipynb", 4)
        parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        notebook.cells = [parameters, nbformat.v4.new_code_cell(ONE_CLASS)]
        (workspace / "nbs").mkdir()
        nbformat.write(notebook, workspace / "nbs" / "train.ipynb")
    draw(tmp_path / "p" / "Aves", 8)
    done = typed("train", "simple_cnn", "--photos", tmp_path / "p", cwd=tmp_path)
    assert "one class" in one_sentence(done)
    run = next((workspace / "reports" / "train").iterdir())
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "failed" and "one class" in str(status)


def test_a_run_needs_no_clone_underfoot(trained):
    "The session's run was made from a folder elsewhere, with a hostile folder name, by one command."
    said = (trained / "said.txt").read_text(encoding="utf-8")
    assert "papermill" not in said and str(trained / "report.html") in said
    assert re.search(r"\d+ of \d+", said.splitlines()[-2] + said.splitlines()[-1])


@pytest.fixture(scope="module")
def again(trained):
    "A finished run given to train once more: what was said, the files before and after."
    files = lambda: {p.name: p.read_bytes() for p in trained.iterdir() if p.is_file()}  # noqa: E731
    before = files()
    return typed("train", "--run", trained, SPECIES_WB_HOME=str(trained.parents[2])), before, files()


def test_a_finished_run_is_not_trained_again(again):
    assert "finished run" in one_sentence(again[0])


def test_refusing_a_finished_run_changes_nothing_in_it(again):
    assert again[2] == again[1] and len(again[1]) > 8


def test_a_run_that_somebody_works_on_is_not_opened_twice(tmp_path, workspace):
    from species_wb.runs import open_run

    words = "import time; from species_wb.runs import open_run; open_run({!r}, 'train', 'x', {{}}); "
    words = words.format(str(tmp_path / "run")) + "print('open', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(UserError, match=f"process {other.pid}"):
            open_run(tmp_path / "run", "train", "x", {})
    finally:
        other.kill()
        other.wait()
    assert open_run(tmp_path / "run", "train", "x", {})[2]  # killed: it can be gone on with


def test_a_label_column_of_ones_own_does_not_disturb_the_scores(survey, workspace, tmp_path):
    "The survey's own table has columns truth and x0; a person's may have score."
    from species_wb.evaluate.evaluation import to_predict
    from species_wb.contracts import read_table

    manifest = to_predict(scan(survey))
    assert {"truth", "x0"} <= set(manifest.schema.names) and read_table(survey / "manifest.parquet")
    from species_wb.engine.predict import _renamed

    assert {_renamed(n) for n in ("truth", "x0", "label")} == {"truth_given", "x0_given", "truth"}


def test_evaluate_takes_any_model_and_any_labelled_folder(tmp_path, workspace):
    draw(tmp_path / "elsewhere" / "Aves", 30), draw(tmp_path / "elsewhere" / "Fungi", 30)
    done = typed("evaluate", toy.write_toy(tmp_path / "any.onnx", ["Aves", "Fungi"]), tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    run = next((workspace / "reports" / "evaluate").iterdir())
    assert "papermill" not in done.stdout and run.name.startswith("any-")
    again = f"species-wb evaluate {tmp_path / 'any.onnx'} {tmp_path / 'elsewhere'}\n"
    assert (run / "command.txt").read_text(encoding="utf-8") == again
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"species-wb evaluate {tmp_path.name}/any.onnx {tmp_path.name}/elsewhere" in page and str(tmp_path) not in page
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["n"] == 60 and (run / "report.html").exists()
    assert json.loads((run / "status.json").read_text())["state"] == "finished"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="a small disk is mounted, which only root may")
def test_a_full_disk_is_one_sentence(tmp_path):
    "The checkpoint of 39 MB has its place, the model file of 8 MB has not."
    draw(tmp_path / "p" / "Aves", 12), draw(tmp_path / "p" / "Fungi", 12)
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=42m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no small disk could be mounted here")
    try:
        words = ["train", "simple_cnn", "--photos", tmp_path / "p", "--size", "32", "--epochs", "1"]
        done = typed(*words, SPECIES_WB_HOME=str(disk))
        assert "disk is full" in one_sentence(done)
        assert not list(disk.rglob("model.onnx"))
    finally:
        subprocess.run(["umount", "-l", str(disk)])


def test_make_passes_parameters_on(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("settings.ini", "setup.py", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".venv").mkdir()
    time.sleep(0.01)
    (tmp_path / ".venv" / ".train").touch()
    words = ["make", "--no-print-directory", "-n", "train", "ARCH=resnet50", "PHOTOS=it's mine", "EPOCHS=3"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    line = done.stdout.strip().splitlines()[-1]
    assert "--arch 'resnet50'" in line and "--photos 'it'\\''s mine'" in line and "--epochs '3'" in line
