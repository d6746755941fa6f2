"""What a job with boxes says of its boxes: whether they helped, where the folders tell the truth, or how often they change the name."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from blocks import Blocks, jpeg
from test_job import network_of_edges
from test_jobs_with_boxes import run

from species_wb.classify.answers import summary
from species_wb.detect.naming import Compared, count, gain_of, named
from species_wb.engine import model_file
from species_wb.metrics.gain import gain
from species_wb.predictions import photos_of, predictions_table

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def opened(tmp_path):
    "A network that knows red from green; a whole photo with a small red block on a green ground is green to it."
    from species_wb.engine import toy

    return model_file.open_model(toy.write_toy(tmp_path / "two.onnx"), 1)


def folder_of(folder: Path, photos: dict[str, list[bytes]]) -> Path:
    for name, some in photos.items():
        (folder / name).mkdir(parents=True)
        for k, data in enumerate(some):
            (folder / name / f"{k:03}.jpg").write_bytes(data)
    return folder


GREEN = ["green"] * 16
SMALL = jpeg("red", *["-"] * 4, *["green"] * 4)  # its surest box is red, the whole is green


def test_where_folders_are_named_after_classes_it_says_whether_boxes_helped(tmp_path, opened):
    photos = {"Red": [SMALL] * 8, "green": [jpeg("green")] * 11, "empty": [jpeg()]}
    done = run(folder_of(tmp_path / "card", photos), tmp_path / "a.csv", opened)
    (said,) = (s for s in done.sentences if "named rightly" in s)
    assert said.startswith("Boxes help on these photos. Of 20 photos, 11 are named rightly as whole pictures (55\u00a0%) and 20 "
                           "with boxes (100\u00a0%): +45.0 points (95\u00a0% interval +"), said  # fmt: skip
    assert said.endswith("The folders' names are taken for the truth.")


def test_boxes_that_do_harm_are_called_so(tmp_path, opened):
    done = run(folder_of(tmp_path / "card", {"green": [SMALL] * 12, "red": [jpeg("red")] * 4}), tmp_path / "a.csv", opened)
    (said,) = (s for s in done.sentences if "named rightly" in s)
    assert said.startswith("Boxes do harm on these photos.") and "−75.0 points" in said


def test_elsewhere_it_says_how_often_the_name_differs(tmp_path, opened):
    done = run(folder_of(tmp_path / "card", {"IMG": [SMALL] * 3 + [jpeg("green")] * 7 + [jpeg()]}), tmp_path / "a.csv", opened)
    (said,) = (s for s in done.sentences if "differs" in s)
    assert said.startswith("The box's name differs from the whole picture's in 3 of 10 photos with an animal (30\u00a0%; 11")
    assert not any("rightly" in s for s in done.sentences)


def test_a_minimum_score_changes_nothing_of_it_and_without_boxes_nothing_is_said(tmp_path, opened):
    folder = folder_of(tmp_path / "card", {"red": [SMALL] * 8, "green": [jpeg("green")] * 8})
    plain, strict = (run(folder, tmp_path / f"{least}.csv", opened, min_score=least).sentences for least in (0.0, 0.99))
    rightly = [[s for s in some if "named rightly" in s] for some in (plain, strict)]
    assert rightly[0] == rightly[1] and len(rightly[0]) == 1 and plain[0] != strict[0]
    rows = [{"path": "red/1.jpg", "status": "ok", "label": "red", "score": 0.9, "score_raw": 0.9, "label_raw": "red"}]
    assert summary([predictions_table(rows, tmp_path, opened.info.labels)], opened.info)["naming"] == []


def test_one_folder_with_a_classes_name_among_many_says_nothing(tmp_path, opened):
    folder = folder_of(tmp_path / "card", {"red": [SMALL] * 2, "IMG": [jpeg("green")] * 7})
    assert not any("rightly" in s for s in run(folder, tmp_path / "a.csv", opened).sentences)


def test_the_photos_of_a_burst_count_once(tmp_path):
    "Forty photos in four bursts show less than forty photos."
    alone, tied = gain(Counter({(1, 1, 0): 30, (1, 0, 0): 10})), gain(Counter({(10, 10, 0): 3, (10, 0, 0): 1}))
    assert alone["value"] == tied["value"] == 0.75 and alone["low"] > 0.5 and tied["low"] <= 0
    row = {"status": "ok", "box": 1, "label": "owl", "label_whole": "fox"}
    found = Compared()
    for k in range(40):
        count(found, named([row]), "owl", k // 10)
    assert gain_of(found)["low"] <= 0 and found.units.total() == 4


def test_the_answer_is_that_of_the_table(tmp_path):
    "Box and whole are compared as a job answers them: joined half and half, the surest animal's box."
    from species_wb.detect.answers import predict_boxes
    from species_wb.detect.source import Detect

    rng = np.random.default_rng(0)
    weights = rng.normal(size=(24, 3, 5, 5)) / 500, rng.normal(size=(24, 3)), np.zeros(3)
    model = model_file.open_model(network_of_edges(tmp_path / "m.onnx", ["a", "b", "c"], *weights), 1)
    data = jpeg("person", "green", "-", "red")
    (photo,) = photos_of(predict_boxes(model, [({"path": "a.jpg"}, lambda: data)], Detect(Blocks())))
    assert [row["code"] if row.get("code") else row["label"] for row in photo][0] == "person" and len(photo) == 3
    assert named(photo).boxed == photo[1]["label"] and named(photo).whole == photo[0]["label_whole"]
