"""How strange photos look: planted truths, and what a model file says of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from species_wb.contracts import info_from_json, info_to_json
from species_wb.engine import toy
from species_wb.engine.model_file import ensemble_of, infer_all, open_model
from species_wb.engine.predict import predict_one
from species_wb.metrics.novelty import novelty_shares
from species_wb.photos.pixels import encode_jpeg
from species_wb.train.heads import Head
from species_wb.train.novelty import Pictures, fitted_novelty

CLASSES, WIDTH, PHOTOS = 4, 24, 400
TOLD = {"scores": [0.0, 1.0, 2.0, 3.0, 4.0], "limit": 0.75, "nothing": 9.0}


def planted(rng: np.random.Generator, animal: np.ndarray, ground: np.ndarray) -> np.ndarray:
    "What the head sees: columns 0 to 5 show the animal (−1: none), 6 to 11 the ground, which goes with the class in training."
    x = rng.normal(size=(len(animal), WIDTH))
    seen = animal >= 0
    x[np.flatnonzero(seen), animal[seen]] += 5
    x[np.arange(len(ground)), 6 + ground] += 5
    return x


@pytest.fixture(scope="module")
def fitted():
    "A layer and a head for photos whose ground gives the class away."
    rng = np.random.default_rng(0)
    truth = np.repeat(range(CLASSES), PHOTOS // CLASSES)
    views = [planted(rng, truth, truth) for _ in range(3)]
    made_from = np.arange(PHOTOS)
    some = Pictures(views, truth, planted(rng, np.full(PHOTOS, -1), truth), made_from)
    weight = np.zeros((CLASSES, WIDTH))
    weight[range(CLASSES), range(CLASSES)] = weight[range(CLASSES), range(6, 6 + CLASSES)] = 1  # animal and ground alike
    head = Head(weight, np.full(CLASSES, -5.0))

    def refit(rows: np.ndarray) -> Head:
        here = np.isin(range(CLASSES), truth[rows])
        return Head(weight * here[:, None], np.where(here, head.bias, -np.inf))

    parts = [(np.flatnonzero(made_from % 4 != k), np.flatnonzero(made_from % 4 == k)) for k in range(4)]
    away = np.stack([head.logits(views[k]) for k in (0, 2)])
    layer, told = fitted_novelty(some, head, away, parts, made_from, refit, 1.0)
    return rng, layer, told, head


def declined(fitted, animal: list[int], ground: list[int]) -> float:
    rng, layer, told, head = fitted
    x = planted(rng, np.resize(animal, 600), np.resize(ground, 600))
    return float((novelty_shares(told, layer.novelty(x, head.logits(x))[:, 0]) >= told["limit"]).mean())


def test_photos_like_those_in_training_are_declined_as_often_as_is_said(fitted):
    assert 0.02 < declined(fitted, [0, 1, 2, 3], [0, 1, 2, 3]) < 0.09


def test_a_planted_shortcut_alone_is_declined(fitted):
    assert declined(fitted, [-1], [0, 1, 2, 3]) > 0.9  # the ground of a class without its animal: a name before, now none


def test_a_class_that_was_never_seen_is_declined(fitted):
    assert declined(fitted, [4, 5], [4, 5]) > 0.9


def test_what_is_declined_is_said_with_its_numbers(fitted):
    _, _, told, _ = fitted
    rows = {row["what"]: row for row in told["rows"]}
    usual, empty = rows["photos held back"], rows["pictures without an animal"]
    assert usual["n"] == PHOTOS and usual["low"] < 0.05 < usual["high"] + 0.02
    assert empty["auroc"] > 0.98 and empty["declined"] > 0.9 * empty["n"]


def test_a_file_says_it_and_older_files_and_mixes_say_nothing(tmp_path):
    told = toy.add_names(toy.write_toy(tmp_path / "new.onnx", novelty=TOLD), [[0, 0], [1, 0], [0, 0]], "novelty")
    new, old = open_model(told), open_model(toy.write_toy(tmp_path / "old.onnx"))
    green = encode_jpeg(np.full((90, 90, 3), (20, 200, 20), np.uint8))
    assert predict_one(new, green)["novelty"] == 1.0 and "novelty" not in predict_one(old, green)
    mix = ensemble_of([new, old])
    assert mix.info.novelty == {} and "novelty" not in predict_one(mix, green)
    assert infer_all(mix, [np.zeros((1, 16, 16, 3), np.uint8)] * 2).novelty is None


def test_what_a_file_says_of_it_survives_and_is_checked(tmp_path):
    info = replace(open_model(toy.write_toy(tmp_path / "old.onnx")).info, novelty=TOLD)
    assert info_from_json(info_to_json(info)) == info
    path = toy.write_toy(tmp_path / "lies.onnx", novelty=TOLD)  # says it, but has no such output
    with pytest.raises(Exception, match="does not return two numbers"):
        open_model(path)


def test_a_trained_probe_says_it_and_declines_few_of_its_own_photos(trained: Path, survey: Path):
    model = open_model(trained / "model.onnx", 1)
    if not model.info.novelty:
        pytest.skip("too few pictures without an animal could be made from these photos")
    photos = sorted(survey.glob("*/*.jpg"))[::12]
    rows = [predict_one(model, path.read_bytes()) for path in photos]
    assert all(0 <= row["novelty"] <= 1 for row in rows)
    assert np.mean([row["novelty"] >= model.info.novelty["limit"] for row in rows]) < 0.35
