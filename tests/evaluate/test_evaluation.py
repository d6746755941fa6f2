"""What is scored and what is left out: counted as facts, and said last."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from species_wb.contracts import ModelInfo, ModelSpec, manifest_table
from species_wb.engine import toy
from species_wb.engine.model_file import open_model
from species_wb.engine.predict import predict_manifest
from species_wb.evaluate import evaluation, evaluation_text, scoring
from species_wb.photos.scan import scan
from species_wb.predictions import predictions_table

INFO = ModelInfo(["Aves", "Fungi"], [0, 1], ModelSpec("tiny", 32, (0.5,) * 3, (0.5,) * 3), provenance={"training_photos": ["7" * 16]})
PHOTOS = [  # truth, logits, first digits of the sha256
    ("Aves", [3, 0], "0"), ("Aves", [0, 1], "0"), ("Fungi", [0, 2], "0"), ("Quarks", [1, 0], "0"), ("Quarks", [1, 0], "0"), ("Leptons", [0, 1], "0"), ("Aves", [9, 0], "7"), ("Fungi", None, "0"), (None, [1, 0], "0"),
]  # fmt: skip


def judged() -> tuple[evaluation.Evaluation, scoring.Scored]:
    rows = [{"path": f"{n}.jpg", "truth": truth, "split": truth and "test", "status": "ok" if z else "cut-short", "sha256": sha * 64, "group": None, "logits": z, "embedding": z}
            for n, (truth, z, sha) in enumerate(PHOTOS)]  # fmt: skip
    manifest = manifest_table([{"path": row["path"], "label": row["truth"], "split": row["split"], "status": row["status"], "sha256": row["sha256"]} for row in rows], "/photos")
    about = evaluation.Evaluation(evaluation.Path("run"), SimpleNamespace(info=INFO, sha256="0" * 64), manifest, {}, {}, [], [], own=False)
    return about, scoring.score(about, predictions_table(rows, "/photos", INFO.labels), resamples=20)


def test_what_is_left_out_is_counted_by_kind():
    about, scored = judged()
    assert len(scored.rows) == 3 and {kind: n for kind, n in scored.not_scored.items() if kind} == {"unknown": 3, "trained": 1, "unread": 1, "unlabelled": 1}
    assert scored.unknown == {"Quarks": 2, "Leptons": 1} and len(scored.left_out) == 4
    assert "Quarks (2), Leptons (1)" in scored.left_out[1] and evaluation_text.headline(about, scored)[1][0] == scored.left_out[1]


def test_the_headline_names_unknown_labels_whatever_the_words(monkeypatch):
    about, scored = judged()
    monkeypatch.setitem(scoring.LEFT_OUT, "unknown", "of a strange kind: {named}")
    monkeypatch.setitem(scoring.LEFT_OUT, "unlabelled", "{has_have} a label that nobody does not know")
    details = evaluation_text.headline(about, scored)[1]
    assert details[0] == "3 photos of a strange kind: Quarks (2), Leptons (1)." and not any("nobody" in sentence for sentence in details)


@pytest.mark.usefixtures("workspace")
def test_predictions_carry_the_code_while_its_reason_holds(tmp_path):
    rng = np.random.default_rng(0)
    for k, folder in enumerate(["train/red"] * 5 + ["train/green"] * 5 + ["test/red"] * 3 + ["test/green"] * 3 + ["test/blue"]):
        (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).resize((96, 96), Image.Resampling.BICUBIC).save(tmp_path / "photos" / folder / f"{k:02}.jpg")
    shutil.copy(tmp_path / "photos/test/red/10.jpg", tmp_path / "photos/train/red/copy.jpg")
    shutil.copy(tmp_path / "photos/test/red/11.jpg", tmp_path / "photos/train/red/gone.jpg")
    manifest = scan(tmp_path / "photos")
    (tmp_path / "photos/train/red/gone.jpg").unlink()
    model = open_model(toy.write_toy(tmp_path / "colours.onnx"))
    found = {row["path"]: row for row in predict_manifest(model, evaluation.to_predict(manifest)).to_pylist()}
    assert {path: (row["status"], row["code"]) for path, row in found.items() if row["split"] is None} == {
        "train/red/copy.jpg": ("ok", "leak"), "train/red/gone.jpg": ("missing", None), "test/blue/16.jpg": ("ok", "not-scored")}  # fmt: skip


@pytest.mark.usefixtures("workspace", "own_cache")
def test_a_run_is_named_after_its_model_and_its_report_says_how_to_make_it_again(tmp_path):
    "Of a training's file `model.onnx`, the training gives the name; papermill and JupyterLab make the folder here."
    for k, name in enumerate(("red", "green") * 2):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 40 * k, np.uint8)).save(folder / f"{k}.jpg")
    run, photos = tmp_path / "reports" / "train" / "resnet50-20261129-101500", tmp_path / "photos"
    run.mkdir(parents=True)
    toy.write_toy(run / "model.onnx")
    found = evaluation.begin(model=run / "model.onnx", photos=photos, robustness="quick", detect="none")
    assert found.run.name.startswith("resnet50-20261129-101500-2")
    facts = evaluation_text.provenance(found)
    assert facts["made again with"] == f"species-wb evaluate resnet50-20261129-101500/model.onnx {tmp_path.name}/photos --robustness quick"
    assert (found.run / "command.txt").read_text() == f"species-wb evaluate {run / 'model.onnx'} {photos}\n"
    (run / "seed-3").mkdir()
    toy.write_toy(run / "seed-3" / "model.onnx")
    assert evaluation.begin(model=run / "seed-3" / "model.onnx", photos=photos).run.name.startswith("resnet50-20261129-101500-seed-3-")
