"""The report on boxes: the section, its numbers and its pictures, in which people are blurred."""

import io
from pathlib import Path

import blocks
import numpy as np
import pytest
from blocks import Blocks
from PIL import Image
from test_cli import one_sentence, typed

from species_wb.contracts import manifest_table, read_table
from species_wb.core import UserError, read_json
from species_wb.detect.source import Detect
from species_wb.engine import predict, toy
from species_wb.engine.model_file import open_model
from species_wb.evaluate import boxes, evaluation_galleries, robustness, scoring
from species_wb.evaluate.evaluation import Evaluation
from species_wb.evaluate.evaluation_page import Results
from species_wb.photos.pixels import encode_jpeg
from species_wb.publish.contents import what_it_is
from species_wb.report.page import Page

SMALL = ("red", *["-"] * 4, *["green"] * 4)  # its surest box is red, the whole is green
PHOTOS = {"Mammalia": [SMALL] * 9 + [("-", "person", "red")], "Plantae": [("green",)] * 8 + [SMALL, ()]}


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    "Twenty photos of two classes; red is a mammal, green is a plant."
    root, rows = tmp_path_factory.mktemp("photos"), []
    for label, scenes in PHOTOS.items():
        for k, scene in enumerate(scenes):
            photo = blocks.scene(*scene, seed=k)
            for block in (j for j, word in enumerate(scene) if word == "person"):  # a person with stripes
                photo[:60, 80 * block : 80 * (block + 1) : 8] //= 2
            (root / f"{label} {k}.jpg").write_bytes(encode_jpeg(photo, 95))
            row = {"path": f"{label} {k}.jpg", "label": label, "split": "test", "status": "ok"}
            rows.append({**row, "sha256": f"{label}{k:060d}", "group": "burst" if k < 2 else None})
    manifest, model = manifest_table(rows, root), open_model(toy.write_toy(root / "toy.onnx", list(PHOTOS)), 1)
    judged = Evaluation(root, model, manifest, {}, {}, [], [], own=False)
    return judged, scoring.score(judged, predict.predict_manifest(model, manifest), resamples=20)


@pytest.fixture(scope="module")
def found(tested):
    judged, scored = tested
    return boxes.with_boxes(judged.model, scored, Detect(Blocks()))


def section(tested, found):
    judged, scored = tested
    page = Page("Boxes")
    evaluation_galleries.boxed(page, Results(judged, scored, {}, boxes=found))
    return page.sections[-1] if page.sections else None


def texts(one) -> str:
    return " ".join(text for piece in one.pieces if piece.kind == "text" for text in piece.paragraphs)


def test_the_section_says_whether_boxes_help_and_for_which_photos(tested, found):
    shown = section(tested, found)
    assert shown.heading.title == "Does it help to find the animal first?"
    said = texts(shown)
    assert "Of 20 photos, 11 are named rightly as whole pictures (55\u00a0%) and 18 with boxes (90\u00a0%): +35.0 points" in said
    assert "Boxes mend the names of 9 photos and spoil those of 2." in said and "In 1 photo no animal was found" in said
    (table,) = (piece for piece in shown.pieces if piece.kind == "table")
    assert [row[:4] for row in table.rows] == [
        ["animals", 10, "10\u00a0% (1)", "100\u00a0% (10)"], ["plants and fungi", 10, "100\u00a0% (10)", "80\u00a0% (8)"],
        ["all classes", 20, "55\u00a0% (11)", "90\u00a0% (18)"]]  # fmt: skip
    assert table.rows[0][4].startswith("+90.0 (+") and table.rows[1][4].startswith("−20.0 (−")


def test_the_table_and_the_numbers_are_kept(tested, found, tmp_path):
    judged, scored = tested
    run = Evaluation(tmp_path, judged.model, judged.manifest, {}, {}, [], [], own=False)
    boxes.write_boxes(run, found)
    rows = read_table(tmp_path / "boxes.parquet").to_pylist()
    assert len(rows) == 10 * 5 + 2 + 8 + 1 and rows[0]["truth"] == "Mammalia" and rows[0]["logits"]
    (tmp_path / "metrics.json").write_text("{}")
    robustness.record(run, None, {}, boxes=boxes.record(found))
    kept = read_json(tmp_path / "metrics.json")["boxes"]
    assert (kept["n"], kept["gained"], kept["lost"], kept["detector"]) == (20, 9, 2, "the blocks")
    robustness.record(run, None, {}, boxes=None)  # the report that is now written has none
    assert "boxes" not in read_json(tmp_path / "metrics.json") and what_it_is("boxes.parquet") and what_it_is("boxes.csv")


def test_people_are_blurred_in_the_pictures(tested, found):
    judged, scored = tested
    (k,) = (k for k, photo in enumerate(found.photos) if any(row.get("code") == "person" for row in photo))
    one = boxes.Boxed(found.detect, [found.photos[k]], found.every, {}, [])
    alone = scoring.Scored([scored.rows[k]], *[getattr(scored, name) for name in ("labels", "truth", "logits", "probabilities")],
                           None, scored.root, scored.not_scored)  # fmt: skip
    (shown,) = boxes.pictures(one, alone)
    original = np.asarray(Image.open(Path(scored.root) / scored.rows[k]["path"]), np.int16)
    drawn = np.asarray(Image.open(io.BytesIO(shown["photo"])), np.int16)
    assert shown["lines"][-1] == "is Mammalia · mammals" and drawn.shape == original.shape
    person = slice(10, 50), slice(90, 150)
    stripes = [np.abs(np.diff(photo[person].mean(2), axis=1)).max() for photo in (original, drawn)]
    assert stripes[0] > 40 > 15 > stripes[1]
    assert np.abs(drawn - original)[180:].mean() < 10  # the rest is the photo
    assert "cannot find people" not in texts(section(tested, found))


def test_without_boxes_the_report_says_what_the_model_file_keeps(tested):
    from dataclasses import replace

    judged, scored = tested
    assert section(tested, None) is None
    finding = {"source": "self", "gain": 0.05, "low": 0.01, "high": 0.09, "n": 150}
    kept = replace(judged.model, info=replace(judged.model.info, validation={"detect": finding}))
    shown = section((replace(judged, model=kept), scored), None)
    assert texts(shown) == (
        "Boxes from the classifier itself were tried when the model was made, on photos that it was not fitted to: +5.0 points of "
        "photos named rightly (+1.0 to +9.0, n = 150). So `--detect auto` uses these boxes.")  # fmt: skip


def test_a_file_with_boxes_for_other_photos_is_refused(tested, tmp_path):
    from species_wb.detect.given import read_boxes

    (tmp_path / "b.csv").write_text("path,box,x0,y0,x1,y1,box_score\nother.jpg,1,0,0,0.5,0.5,0.9\n")
    with pytest.raises(UserError):
        boxes.with_boxes(tested[0].model, tested[1], Detect(read_boxes(tmp_path / "b.csv")))


def test_evaluate_refuses_an_unknown_source_at_once(tmp_path, model):
    assert "did you mean self?" in one_sentence(typed("evaluate", model, tmp_path, "--detect", "sefl"))
    assert "There is no file" in one_sentence(typed("evaluate", model, tmp_path, "--detect", tmp_path / "gone.onnx"))
