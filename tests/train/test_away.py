"""A probe chosen for other places: folds of whole sources, worsened copies, and the way back to what the network knew."""

import numpy as np

from species_wb.contracts import manifest_table
from species_wb.metrics.calibration import softmax
from species_wb.metrics.scores import scores
from species_wb.train import choice, choice_text, places, shrunk
from species_wb.train.training_set import TrainingSet, photos_of_splits
from species_wb.train.worsened import worsened

CLASSES = 3


def some(n: int, sources: int, seed: int) -> tuple[np.ndarray, TrainingSet]:
    "Photos of several sources: a weak true sign, a strong sign that means another class in each source, and what a classifier says."
    rng = np.random.default_rng(seed)
    truth, source = rng.integers(0, CLASSES, n), rng.integers(0, sources, n)
    shuffled = np.stack([np.random.default_rng((seed, s)).permutation(CLASSES) for s in range(sources)])
    sign, shortcut = 1.5 * np.eye(CLASSES)[truth], 4 * np.eye(CLASSES)[shuffled[source, truth]]
    at_source = np.eye(sources)[source] * 3  # a head can read the source, and so what the shortcut means there
    mixed = (shortcut[:, :, None] * np.eye(sources)[source][:, None]).reshape(n, -1)
    noise = rng.normal(size=(n, 2 * CLASSES + sources + mixed.shape[1]))
    view = noise + np.hstack([sign, np.zeros((n, CLASSES)), np.zeros_like(at_source), mixed])
    says = 2 * np.eye(CLASSES)[truth] + rng.normal(size=(n, CLASSES))
    photos = TrainingSet([("", "")] * n, truth, np.arange(n), np.repeat("train", n), source, "source")
    return np.hstack([view, says - says.mean(1, keepdims=True)]).astype(np.float32), photos


def elsewhere(seed: int = 99, n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    "Photos of sources that nobody has seen: the shortcut means nothing there."
    view, photos = some(n, 6, seed)
    rng = np.random.default_rng(seed)
    view[:, 2 * CLASSES + 6 : -CLASSES] = rng.normal(size=(n, 6 * CLASSES)) + 4 * rng.integers(0, 2, (n, 6 * CLASSES))
    return view, photos.truth


def judged(found: choice.Choice, views: list[np.ndarray], photos: TrainingSet) -> dict:
    "The scores of the chosen head on photos of other sources."
    view, truth = elsewhere()
    head = choice.fitted_head(views, photos.truth, CLASSES, found.best)
    return scores(softmax(head.logits(view), found.best["temperature"]), truth, list("abc"), resamples=20)


def test_a_head_chosen_on_left_out_sources_is_better_on_photos_of_other_sources():
    view, photos = some(600, 6, 0)
    at_random = TrainingSet(photos.photos, photos.truth, photos.groups, photos.split)
    home, away = (choice.best_choice([view], chosen, CLASSES, CLASSES) for chosen in (at_random, photos))
    assert (home.how, away.how) == ("random", "source")
    ours, theirs = (judged(found, [view], photos) for found in (away, home))
    assert ours["log_loss"]["value"] < 0.9 * theirs["log_loss"]["value"] and ours["ece"]["value"] < theirs["ece"]["value"]
    assert away.home[0]["log_loss"] < away.best["log_loss"]  # photos of the same sources are easier, and this is told apart


def test_the_classifier_gets_a_say_only_where_it_is_right_elsewhere():
    "A head that errs in one source of eight: a classifier that is right there gets one half, one that knows nothing changes no answer."
    rng = np.random.default_rng(0)
    truth, source = rng.integers(0, CLASSES, 800), np.arange(800) % 8
    said = np.where(source == 0, (truth + 1) % CLASSES, truth)
    head, right, blind = ((a * np.eye(CLASSES)[of] + rng.normal(size=(800, CLASSES)))[None] for a, of in ((4, said), (3, truth), (0, truth)))
    assert shrunk.best_shrinkage(head, right, truth, source)[0].weight == 0.5
    how, _ = shrunk.best_shrinkage(right, blind, truth, source)
    assert (how.logits(right, blind).argmax(2) == right.argmax(2)).mean() > 0.98


def test_the_temperature_holds_on_left_out_sources_and_on_copies():
    "Logits that were not fitted to: their probabilities are right on average, over photos and worsened copies."
    view, photos = some(900, 6, 3)
    worse = view + np.random.default_rng(5).normal(size=view.shape).astype(np.float32)
    found = choice.best_choice([view, worse, worse], photos, CLASSES, CLASSES)
    assert found.away.shape == (2, 900, CLASSES) and found.best["share"] > 0 and len(found.best["parts"]) <= 2
    p = softmax(np.concatenate(found.away), found.best["temperature"])
    assert abs(p.max(1).mean() - (p.argmax(1) == np.tile(photos.truth, 2)).mean()) < 0.04


def test_a_class_of_one_source_is_learned_from_and_this_is_said():
    view, photos = some(400, 4, 1)
    photos.places[photos.truth == 2] = 3
    found = choice.best_choice([view], photos, CLASSES, CLASSES)
    assert found.how == "source" and np.isfinite(found.best["loss"]) and found.best["n"] < 400
    left_out = 400 - found.best["n"]
    said = choice_text.sentences(found, 400)
    assert any(s.startswith(f"{left_out} photos took no part in this choice: most photos of their class come from one source") for s in said)
    for fit, judge in places.away_folds(photos.truth, photos.groups, photos.places):
        assert set(photos.truth[fit]) == {0, 1, 2} and not set(photos.groups[fit]) & set(photos.groups[judge])


def test_one_source_only_is_held_back_at_random_and_this_is_said(tmp_path):
    row = {"split": "train", "status": "ok", "source": "one collection"}
    rows = [{"path": f"{k}.jpg", "sha256": f"{k:064d}", "label": "ab"[k % 2], **row} for k in range(40)]
    one = photos_of_splits(manifest_table(rows, tmp_path), ["a", "b"])
    assert one.places is None and one.place is None
    view = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32) + one.truth[:, None]
    found = choice.best_choice([view], one, 2)
    assert found.how == "random" and found.home is None
    assert choice_text.sentences(found, 40)[0].startswith("No two sources or sites of the training photos are known, so photos were held back at random.")
    sites = [{**row, "site": f"camera {k % 4}"} for k, row in enumerate(rows)]
    known = photos_of_splits(manifest_table(sites, tmp_path), ["a", "b"])
    assert known.place == "site" and len(set(known.places)) == 4
    assert choice.best_choice([view], known, 2).how == "site"


def test_a_burst_across_sources_is_never_divided():
    rng = np.random.default_rng(0)
    truth, groups, where = rng.integers(0, 2, 200), np.arange(200) // 4, rng.integers(0, 5, 200)
    for fit, judge in places.away_folds(truth, groups, where):
        assert not set(groups[fit]) & set(groups[judge])


def test_few_photos_give_a_temperature_near_one():
    "Ten photos that are all named right do not make a model sure of everything."
    view = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32) + 6 * (np.arange(12) % 2)[:, None]
    few = TrainingSet([("", "")] * 12, np.arange(12) % 2, np.arange(12), np.repeat("train", 12))
    found = choice.best_choice([view], few, 2)
    assert found.best["accuracy"] == 1 and 0.2 < found.best["temperature"] < 2


def test_the_mixture_is_one_linear_head_with_the_answers_of_both():
    view, photos = some(300, 3, 2)
    found = choice.best_choice([view], photos, CLASSES, CLASSES)
    best = {**found.best, "weight": 0.5}
    alone = choice.fitted_head([view], photos.truth, CLASSES, {k: v for k, v in best.items() if k not in choice.SHRUNK})
    mixed = choice.fitted_head([view], photos.truth, CLASSES, best)
    half = shrunk.Shrinkage(0.5, best["head_temperature"], best["known_temperature"])
    assert np.allclose(mixed.logits(view), half.logits(alone.logits(view), view[:, -CLASSES:]), atol=1e-3)


def test_a_worsened_copy_is_the_same_on_every_machine_and_no_photo_is_too_small():
    photo = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    before = photo.copy()
    copies = [worsened(photo, "ab" * 32, number) for number in range(1, 30)]
    assert all(c.shape == photo.shape and c.dtype == np.uint8 for c in copies) and len({c.tobytes() for c in copies}) > 25
    assert all(np.array_equal(c, worsened(photo, "ab" * 32, number)) for number, c in enumerate(copies, 1))
    assert np.array_equal(photo, before)
    for height, width in ((1, 1), (2, 300), (300, 2)):
        small = np.zeros((height, width, 3), np.uint8)
        assert all(worsened(small, f"{k}", 1).shape == small.shape for k in range(20))
