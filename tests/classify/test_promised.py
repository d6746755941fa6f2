"""Sets and limits for mistakes in the tables that `classify` writes, in every form, from the model file's promises."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_cli import one_sentence, typed
from test_job import card, coloured, rows
from typer.testing import CliRunner

from species_wb import cli
from species_wb.classify import promised as module
from species_wb.classify.answers import only_sure, ranked
from species_wb.classify.promised import promised, within_error
from species_wb.contracts import ModelInfo, ModelSpec
from species_wb.core import UserError
from species_wb.detect.answers import UNNAMED
from species_wb.engine import toy
from species_wb.engine.model_file import open_model
from species_wb.engine.predict import predict_one
from species_wb.metrics import promises
from species_wb.predictions import predictions_table, write_predictions

pytestmark = pytest.mark.usefixtures("own_cache")
SPEC = ModelSpec("tiny", 16, (0.5,) * 3, (0.5,) * 3)
RULES = {"0.9": {"method": "lac", "quantile": 0.3, "n": 400}, "0.95": {"method": "lac", "quantile": 0.8, "by_class": {"red": 0.9999}, "n": 400},
         "0.99": {"method": "lac", "quantile": 0.99995, "n": 400}}  # fmt: skip
RISK = {"n": 400, "confidence": 0.95, "calibrated_on": "", "rows": [[0.97, 200, 0, 0.0149], [0.9, 300, 2, 0.0208], [0.0, 400, 60, 0.183]]}


@pytest.fixture
def model(tmp_path):
    "A model that tells red from green, and doubts what is grey; the green of the cards has a score of about 0.95."
    return toy.write_toy(tmp_path / "toy.onnx", weight=((0.9, -0.9), (-0.9, 0.9), (0, 0)), conformal=RULES, risk=RISK)


@pytest.fixture
def folder(tmp_path):
    from species_wb.photos.pixels import encode_jpeg

    found = card(tmp_path / "card", 3)
    for name, colour in (("grey", (100, 100, 100)), ("hardly", (130, 100, 100))):
        (found / f"{name}.jpg").write_bytes(encode_jpeg(np.full((24, 30, 3), colour, np.uint8)))
    (found / "cut.jpg").write_bytes(coloured("red")[:200])
    return found


def told(*words) -> str:
    "What the command prints; in this process, so that it starts soon."
    done = CliRunner().invoke(cli.app, ["classify", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.stdout


def classified(folder, model, out, *words) -> str:
    return told(folder, "--model", model, "--out", out, *words)


def test_the_column_set_holds_what_is_still_possible_in_every_format(tmp_path, folder, model):
    said = classified(folder, model, tmp_path / "a.csv")
    assert "The column set: 95 % of the sets should hold the right class, for photos of the same kind" in said
    found = {row["path"].rsplit("/", 1)[-1]: row["set"] for row in rows(tmp_path / "a.csv")}
    assert found["grey.jpg"] == "red | green" and found["IMG_00001.JPG"] == "red" and found["IMG_00000.JPG"] == "green" and found["cut.jpg"] == ""
    assert {row["path"].rsplit("/", 1)[-1]: row["set"] for row in rows(classified_as(folder, model, tmp_path, "b.jsonl"))}["grey.jpg"] == ["red", "green"]
    table = pq.read_table(classified_as(folder, model, tmp_path, "c.parquet"))
    assert table.schema.field("set").type == pa.list_(pa.string())
    assert [["red", "green"], None] == [row["set"] for row in table.to_pylist() if row["path"].endswith(("grey.jpg", "cut.jpg"))][::-1]


def classified_as(folder, model, tmp_path, name):
    classified(folder, model, tmp_path / name)
    return tmp_path / name


def test_another_share_needs_no_second_look_at_the_photos(tmp_path, folder, model):
    sizes = {}
    for word in ("0.9", "0.95", "0.99", "none"):
        said = classified(folder, model, tmp_path / "a.csv", "--set", word)
        sizes[word] = [len(row["set"].split(" | ")) if row.get("set") else 0 for row in rows(tmp_path / "a.csv") if row["status"] == "ok"]
        assert ("The column set" in said) == (word != "none")
    assert "6 of 6 files were classified already" in said or "files were classified already" in said
    assert sizes["0.9"] == [1] * 5 and sum(sizes["0.95"]) == 7 and sum(sizes["0.99"]) > 7 and sum(sizes["none"]) == 0
    by_class = classified(folder, model, tmp_path / "a.csv", "--set", "0.95", "--set-by-class")
    assert "of the sets of each class" in by_class
    assert sum(len(row["set"].split(" | ")) for row in rows(tmp_path / "a.csv") if row["status"] == "ok") > 7  # red has a quantile of its own


@pytest.mark.parametrize("words, said", [
    (("--set", "0.8"), "it has them for 0.9, 0.95, 0.99"), (("--set", "95"), "is no share of sets"), (("--set", "nan"), "is no share of sets"),
    (("--set", "0.9", "--set-by-class"), "had too few"), (("--max-error", "0.001"), "ask for 2.1 % or more"), (("--max-error", "0"), "is not a share of answers"),
    (("--max-error", "1"), "is not a share of answers"),
])  # fmt: skip
def test_what_cannot_be_promised_is_said_before_anything_is_classified(tmp_path, folder, model, words, said):
    done = CliRunner().invoke(cli.app, ["classify", str(folder), "--model", str(model), "--out", str(tmp_path / "a.csv"), *words])
    assert isinstance(done.exception, UserError) and said in str(done.exception)
    assert not (tmp_path / "a.csv").exists() and "classifying" not in done.output


def test_a_model_without_promises_has_no_sets_and_says_why_where_they_are_asked_for(tmp_path, folder):
    plain = toy.write_toy(tmp_path / "plain.onnx")
    assert "The column set" not in classified(folder, plain, tmp_path / "a.csv")
    assert "set" not in rows(tmp_path / "a.csv")[0]
    with pytest.raises(UserError, match="Name one model"):
        promised(open_model(plain).info, "0.9")
    assert "use --min-score instead" in one_sentence(typed("classify", folder, "--model", plain, "--out", tmp_path / "a.csv", "--max-error", "0.05"))


def test_at_most_5_percent_wrong_leaves_open_what_is_too_often_wrong(tmp_path, folder, model):
    said = classified(folder, model, tmp_path / "a.csv", "--max-error", "0.05", "--columns", "all")
    assert "At most 5 % of the answers should be wrong" in said and "below 0.900 are left open" in said and "2 of 300 answers wrong" in said
    assert "6 photos: 3 answered, 2 not sure, 1 with no answer." in said
    found = {row["path"].rsplit("/", 1)[-1]: row for row in rows(tmp_path / "a.csv")}
    grey, sure = found["grey.jpg"], found["IMG_00001.JPG"]
    assert (grey["label"], grey["abstained"], grey["code"], grey["rule"], grey["label_raw"]) == ("", "TRUE", "unsure", "max-error 0.05", "red")
    assert grey["set"] == "red | green" and (sure["label"], sure["code"], sure["rule"]) == ("red", "", "")
    classified(folder, model, tmp_path / "a.csv", "--max-error", "0.05", "--min-score", "0.9999", "--columns", "all")  # the other rule stays
    rules = {row["rule"] for row in rows(tmp_path / "a.csv") if row["status"] == "ok"}
    assert rules == {"max-error 0.05", "min-score 0.9999"}


def test_copies_follow_the_limit_for_mistakes(tmp_path, folder, model):
    classified(folder, model, tmp_path / "a.csv", "--max-error", "0.05", "--copy-to", tmp_path / "sorted")
    assert (tmp_path / "sorted" / "not sure" / "grey.jpg").exists() and (tmp_path / "sorted" / "red" / "100MEDIA" / "IMG_00001.JPG").exists()


def test_one_photo_is_told_in_words(tmp_path, folder, model):
    said = told(folder / "grey.jpg", "--model", model)
    assert "Still possible: red, green (95 % of such lists should hold the right one)." in said
    assert "Still possible" not in told(folder / "grey.jpg", "--model", model, "--set", "none")
    assert "Still possible" not in told(folder / "100MEDIA" / "IMG_00001.JPG", "--model", model)
    said = told(folder / "grey.jpg", "--model", model, "--max-error", "0.05")
    assert "At most 5 % of the answers" in said and "Not sure: no score reaches 0.9." in said


def test_the_engine_and_the_table_make_the_same_sets(tmp_path, model):
    opened = open_model(model)
    pictures = [np.full((24, 30, 3), colour, np.uint8) for colour in ((100, 100, 100), (200, 0, 0), (180, 100, 0))]
    found = [predict_one(opened, picture, {"path": f"{k}.jpg"}) for k, picture in enumerate(pictures)]
    table = predictions_table([{k: v for k, v in row.items() if k != "embedding"} for row in found], tmp_path, opened.info.labels)
    assert ranked(table, opened.info, 5)["set"].to_pylist() == [row["set"] for row in found] == [["red", "green"], ["red"], ["red"]]
    write_predictions(table, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as file:
        assert next(csv.DictReader(file))["set"] == "red | green"


def test_a_photo_without_an_animal_has_no_set(model):
    info = open_model(model).info
    row = {"path": "a.jpg", "status": "ok", "logits": [0.0, 0.0], "set": ["red", "green"]}
    table = predictions_table([{**row, **UNNAMED, "code": "no-animal"}, row], "card", info.labels)
    assert UNNAMED["set"] is None and ranked(table, info, 5)["set"].to_pylist() == [None, ["red", "green"]]


def test_none_of_these_is_in_no_set_and_left_to_its_own_rule():
    info = ModelInfo(["Aves", "none of these"], [0, -1], SPEC, conformal={"0.9": {"method": "aps", "quantile": 1.0}}, risk=RISK)
    table = predictions_table([{"path": "a.jpg", "status": "ok", "logits": [0.0, 3.0], "label": None, "abstained": True, "label_raw": "Aves", "score_raw": 0.05}], "c", info.labels)
    (row,) = within_error(ranked(table, info, 5), promised(info, most=0.05)).to_pylist()
    assert row["set"] == ["Aves"] and row["rule"] is None and row["code"] is None and row["abstained"]


def test_a_row_left_open_twice_keeps_the_first_rule():
    table = predictions_table([{"path": "a.jpg", "status": "ok", "label": "red", "score": 0.5, "abstained": False}], "c", ["red", "green"])
    once = only_sure(table, 0.6)
    assert within_error(once, module.Promised(limit=0.9, rule="max-error 0.05")).to_pylist() == once.to_pylist()


def test_usual_sets_are_those_that_can_say_more_than_the_label():
    def usual(**quantiles):
        rules = {rate.replace("_", "."): {"method": "lac", "quantile": q} for rate, q in quantiles.items()}
        return promises.usual_sets(ModelInfo(["a", "b"], [0, 1], SPEC, conformal=rules)).rate

    assert usual(**{"0_8": 0.6, "0_9": 0.6, "0_95": 0.7}) == 0.9 and usual(**{"0_9": 0.3, "0_95": 0.7}) == 0.95
    assert usual(**{"0_9": 0.3, "0_95": 0.4}) == 0.95
    assert promises.usual_sets(ModelInfo(["a", "b"], [0, 1], SPEC, conformal={"0.8": {"method": "lac", "quantile": 0.6}})).rule is None
    with pytest.raises(UserError, match="for 0.9"):
        promises.chosen_sets(ModelInfo(["a", "b"], [0, 1], SPEC, conformal={"0.9": {"method": "lac", "quantile": 0.6}}), "0.95")


def test_timelapse_reads_the_table_as_before(tmp_path, folder, model):
    classified(folder, model, tmp_path / "a.json", "--max-error", "0.05")
    images = json.loads((tmp_path / "a.json").read_text())["images"]
    assert len(images) == 6 and {image["file"].rsplit("/", 1)[-1] for image in images} >= {"grey.jpg", "cut.jpg"}
