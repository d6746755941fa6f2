"""Files made when the package was still flat (November 2026, commit 81fe235) are read as before. The checkpoint's test stands in train/test_fit.py."""

import shutil
from pathlib import Path

import pytest

from species_wb.contracts import read_manifest, read_table
from species_wb.curate.confusions import matrix
from species_wb.curate.predictions import open_predictions
from species_wb.engine.model_file import open_model
from species_wb.evaluate.compare import compare, gather_runs
from species_wb.evaluate.evaluation import begin, score

MADE = Path(__file__).parent / "before_rooms"


def test_model_files_and_mixes():
    one, both = open_model(MADE / "run"), open_model(MADE / "both.mix.json")
    assert one.info.labels[0] == "Amphibia" and one.info.temperature == 1.5 and [m.path.name for m in both.members] == ["model.onnx", "other.onnx"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables(kind, workspace):
    found = open_predictions(MADE / f"t.{kind}")
    assert len(found.rows) == 8 and sum(n for *_, n in matrix(found)["counts"]) == 8
    assert sorted((Path(r["path"]).name, r["status"], r["label"]) for r in found.rows)[-1] == ("bad.jpg", "not-a-photo", None)
    assert {r["label"] for r in found.rows} >= {"Animalia", "Reptilia"}


@pytest.fixture
def run(tmp_path) -> Path:
    "A copy of the run folder: opening one may write into it."
    return Path(shutil.copytree(MADE / "run", tmp_path / "run"))


def test_a_run_is_evaluated_explored_and_compared(run, workspace):
    judged = begin(run=run)
    scored = score(judged, read_table(run / "predictions.parquet"), resamples=20)
    assert len(scored.rows) == 12 and len(read_manifest(run / "manifest.parquet")) == 60 and judged.params["arch"] == "simple_cnn"
    assert sum(n for *_, n in matrix(open_predictions(run))["counts"]) == 12
    shutil.copytree(run, run.parent / "other run")
    assert compare(gather_runs(f"{run},{run.parent / 'other run'}")).n == 12
