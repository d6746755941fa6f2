"""Scores, intervals and calibration, held against scikit-learn, scipy and netcal, and against simulated truth."""

import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as peer

from species_wb.core import UserError
from species_wb.metrics.calibration import fit_temperature, softmax
from species_wb.metrics.intervals import rounded, wilson
from species_wb.metrics.reliability import calibration_change, reliability, risk_coverage, threshold_for
from species_wb.metrics.scores import scores


def simulated(n: int, classes: int = 6, seed: int = 0, sharper: float = 1.0):
    "Logits, and true classes drawn from their softmax; `sharper` makes the logits too sure by that factor."
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, classes)) * 2
    truth = (softmax(z).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, classes - 1)
    return z * sharper, truth


def names(classes: int) -> list[str]:
    return [f"class {c}" for c in range(classes)]


@pytest.mark.parametrize(("n", "classes", "absent"), [(300, 6, False), (40, 12, True), (7, 2, False), (1, 5, True)])
def test_scores_are_those_of_scikit_learn(n, classes, absent):
    logits, truth = simulated(n, classes, seed=n)
    if absent:
        truth[truth == 3] = 0  # answered, never there
        logits[:, 4] = -9  # there, never answered
        logits[:, 5 % classes] = -9
        truth[truth == 5] = 0  # neither there nor answered
    p = softmax(logits)
    answer, every = p.argmax(axis=1), list(range(classes))
    found = scores(p, truth, names(classes), resamples=20)
    ours = {name: found[name]["value"] for name in ("accuracy", "macro_f1", "weighted_f1", "log_loss", "brier")}
    assert ours == pytest.approx(
        {
            "accuracy": peer.accuracy_score(truth, answer),
            "macro_f1": peer.f1_score(truth, answer, average="macro", zero_division=0),
            "weighted_f1": peer.f1_score(truth, answer, average="weighted", zero_division=0),
            "log_loss": peer.log_loss(truth, p, labels=every),
            "brier": peer.brier_score_loss(np.eye(classes)[truth], p, scale_by_half=False) if classes > 2 else 2 * peer.brier_score_loss(truth, p[:, 1]),
        }
    )
    by_class = peer.precision_recall_fscore_support(truth, answer, labels=every, zero_division=0)
    for name, column in zip(("precision", "recall", "f1"), by_class, strict=False):
        assert [c[name]["value"] for c in found["classes"]] == pytest.approx(column.tolist())
    assert [c["n"] for c in found["classes"]] == by_class[3].tolist()
    assert found["confusion"] == peer.confusion_matrix(truth, answer, labels=every).tolist()
    assert found["top3"] is None if classes <= 3 else found["top3"]["value"] == pytest.approx(peer.top_k_accuracy_score(truth, p, k=3, labels=every))


def test_a_probability_of_nought_costs_what_scikit_learn_says():
    p = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert scores(p, [1, 0], names(2))["log_loss"]["value"] == pytest.approx(peer.log_loss([1, 0], p))


def test_ece_is_netcals():
    netcal = pytest.importorskip("netcal.metrics")
    for sharper, bins in ((1, 15), (2.5, 15), (2.5, 7)):
        logits, truth = simulated(700, sharper=sharper)
        p = softmax(logits)
        assert reliability(p, truth, bins)["ece"] == pytest.approx(netcal.ECE(bins).measure(p, truth))
    assert scores(p, truth, names(6), resamples=1)["ece"]["value"] == pytest.approx(netcal.ECE(15).measure(p, truth))


def test_the_temperature_is_netcals_and_the_minimum_of_the_log_loss():
    scaling = pytest.importorskip("netcal.scaling")
    for sharper in (0.4, 1, 3):
        logits, truth = simulated(500, sharper=sharper)
        ours = fit_temperature(logits.astype(np.float32), truth)
        best = scipy.optimize.minimize_scalar(lambda b, z=logits, t=truth: peer.log_loss(t, softmax(z * b)), bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
        assert ours == pytest.approx(1 / best.x, rel=1e-4)
        theirs = scaling.TemperatureScaling()
        theirs.fit(softmax(logits), truth)
        assert ours == pytest.approx(1 / theirs.temperature[0], rel=0.02)


@pytest.mark.parametrize(
    ("logits", "truth", "expected"),
    [
        ([[9, 0]], [0], 0.05),  # one photo, right
        ([[9, 0]], [1], 20),  # one photo, wrong
        ([[1e4, 0], [0, 1e4]], [0, 1], 0.05),  # all right, so far apart that exponentials vanish
        ([[1e4, 0], [0, 1e4]], [1, 0], 20),
        ([[3, 3], [3, 3]], [0, 1], 1),  # nothing depends on T
        ([[5]], [0], 1),
        ([[0, -np.inf], [0, -np.inf]], [1, 1], 1),  # ruled out and yet so: no T can help
        ([[2, 0], [2, 0], [2, 0], [0, -np.inf]], [0, 0, 1, 1], 2 / np.log(2)),  # that photo is left out
    ],
)
def test_a_temperature_comes_out_of_degenerate_logits(logits, truth, expected):
    assert fit_temperature(logits, truth) == pytest.approx(expected)


@examples(40)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.5, 2), shift=st.floats(-1e3, 1e3))
def test_scaling_the_logits_scales_the_temperature_and_shifting_them_does_nothing(seed, factor, shift):
    logits, truth = simulated(60, seed=seed)
    assert fit_temperature(logits * factor + shift, truth) == pytest.approx(np.clip(fit_temperature(logits, truth) * factor, 0.05, 20), rel=1e-5)
    assert np.allclose(softmax(logits + shift, 0.7), softmax(logits / 0.7))


@examples(25)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), classes=st.integers(1, 7))
def test_every_interval_is_in_range_and_the_order_of_photos_or_classes_changes_no_score(seed, n, classes):
    logits, truth = simulated(n, classes, seed)
    p = softmax(logits)
    found = scores(p, truth, names(classes), resamples=30)
    singles = [found[name] for name in ("accuracy", "macro_f1", "weighted_f1", "log_loss", "brier", "ece")] + [c[name] for c in found["classes"] for name in ("precision", "recall", "f1")]
    assert all(0 <= s["low"] <= s["high"] for s in singles) and all(s["high"] <= 1 for s in singles[6:])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    photos, columns = np.random.default_rng(seed).permutation(n), np.random.default_rng(seed).permutation(classes)
    again = scores(p[photos][:, columns], np.argsort(columns)[truth[photos]], [names(classes)[c] for c in columns], resamples=30)
    for name in ("accuracy", "macro_f1", "weighted_f1", "log_loss", "brier", "ece"):
        assert again[name]["value"] == pytest.approx(found[name]["value"])


def test_the_interval_is_scipys():
    logits, truth = simulated(200)
    right = (logits.argmax(axis=1) == truth).astype(float)
    theirs = scipy.stats.bootstrap((right,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    ours = scores(softmax(logits), truth, names(6), resamples=4000)["accuracy"]
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.011)  # quantiles of 200 photos move in steps of 0.005


def test_the_intervals_hold_the_truth_as_often_as_they_say():
    many, truth = simulated(200_000, sharper=1.5, seed=99)
    far = scores(softmax(many), truth, names(6), resamples=1)
    hits = dict.fromkeys(("accuracy", "macro_f1", "weighted_f1", "top3", "log_loss", "brier", "ece"), 0)
    for repeat in range(200):
        logits, truth = simulated(150, sharper=1.5, seed=repeat)
        near = scores(softmax(logits), truth, names(6), resamples=150, seed=repeat)
        for name in hits:
            hits[name] += near[name]["low"] <= far[name]["value"] <= near[name]["high"]
    assert all(0.90 <= count / 200 <= 0.99 for count in hits.values()), hits


def test_the_interval_of_a_calibrated_models_ece_reaches_down_to_nought():
    held = sum(scores(softmax(z), t, names(6), resamples=200)["ece"]["low"] == 0 for z, t in (simulated(200, seed=s) for s in range(100)))
    assert held >= 88  # the percentile interval: 0


def test_bursts_count_once():
    hits = {"photos": 0, "bursts": 0}
    for repeat in range(150):  # 40 bursts of 1 to 9 photos, each right or wrong as a whole; the truth is 0.8
        rng = np.random.default_rng(repeat)
        burst = np.repeat(np.arange(40), rng.integers(1, 10, 40))
        right = (rng.random(40) < 0.8)[burst]
        p, truth = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9]), np.zeros(len(burst), int)
        for name, groups in (("photos", None), ("bursts", burst.tolist())):
            found = scores(p, truth, names(2), groups=groups, resamples=100, seed=repeat)
            hits[name] += found["accuracy"]["low"] <= 0.8 <= found["accuracy"]["high"]
    assert hits["bursts"] / 150 >= 0.88 and hits["photos"] / 150 < 0.75, hits
    assert found["groups"] == 40


def test_a_photo_without_a_group_is_its_own():
    logits, truth = simulated(30)
    free, named = (scores(softmax(logits), truth, names(6), groups=g, resamples=50) for g in ([None] * 28 + [float("nan")] * 2, list(range(30))))
    assert free == named and free["groups"] == 30


def test_what_the_photos_cannot_tell_has_a_wide_interval():
    perfect = scores(np.eye(3)[[0] * 5 + [1] * 20], np.array([0] * 5 + [1] * 20), ["five", "twenty", "none"])
    five, twenty, none = perfect["classes"]
    assert five["recall"] == {"value": 1, "low": wilson(5, 5)[0], "high": 1}
    assert twenty["f1"]["low"] == wilson(20, 20)[0]
    assert none["f1"] == none["recall"] == {"value": 0, "low": 0, "high": 1}
    assert perfect["accuracy"]["low"] == perfect["macro_f1"]["low"] == wilson(25, 25)[0]
    one_burst = scores(np.eye(3)[[0] * 25], np.zeros(25, int), names(3), groups=["burst"] * 25)
    assert one_burst["accuracy"]["low"] == wilson(1, 1)[0]


def test_the_same_seed_gives_the_same_numbers():
    logits, truth = simulated(80)
    first, again, other = (scores(softmax(logits), truth, names(6), resamples=100, seed=s) for s in (3, 3, 4))
    assert first == again and first["log_loss"] != other["log_loss"]


def test_many_photos_of_many_classes_are_scored_in_blocks(monkeypatch):
    logits, truth = simulated(5000, 40)
    p = softmax(logits).astype(np.float32)
    whole = scores(p, truth, names(40), resamples=5), fit_temperature(logits, truth)
    monkeypatch.setattr("species_wb.metrics.calibration.blocks", lambda a: ((slice(i, i + 7), a[i : i + 7].astype(float)) for i in range(0, len(a), 7)))
    blocks = scores(p, truth, names(40), resamples=5), fit_temperature(logits, truth)
    assert blocks[0] == whole[0] and blocks[1] == pytest.approx(whole[1])


@examples(100)
@given(n=st.integers(1, 500), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(n, share, confidence):
    k = round(share * n)
    theirs = scipy.stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert wilson(k, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@examples(60)
@given(n=st.integers(1, 700), steps=st.integers(1, 400), seed=st.integers(0, 99))
def test_the_bins_of_a_reliability_diagram_hold_enough_photos_and_every_photo_once(n, steps, seed):
    rng = np.random.default_rng(seed)
    top = 0.5 + rng.integers(0, steps, n) / steps / 2.01  # equal scores, too
    found = reliability(np.stack([top, 1 - top], axis=1), truth := rng.integers(0, 2, n))
    bins, right = found["bins"], truth == 0
    assert sum(b["n"] for b in bins) == n and 1 <= len(bins) <= 10 and all(b["n"] >= min(n, 30) for b in bins)
    assert json.loads(json.dumps(found)) == found
    for b, above in zip(bins, [*bins[1:], {"low": 2}], strict=True):
        inside = (b["low"] <= top) & (top <= b["high"])
        assert inside.sum() == b["n"] and b["high"] < above["low"]  # equal scores stand in one bin
        assert (b["score"], b["accuracy"]) == pytest.approx((top[inside].mean(), right[inside].mean()))
        assert (b["accuracy_low"], b["accuracy_high"]) == pytest.approx(wilson(right[inside].sum(), b["n"]))


def test_a_burst_in_a_reliability_diagram_counts_as_one_observation():
    p, truth = np.tile([0.8, 0.2], (60, 1)), np.repeat([0, 1, 0, 0, 1, 0], 10)
    alone, together = (reliability(p, truth, groups=g)["bins"][0] for g in (None, np.repeat(range(6), 10).tolist()))
    width = lambda b: b["accuracy_high"] - b["accuracy_low"]  # noqa: E731
    assert len(reliability(p, truth)["bins"]) == 1 and width(together) > 1.5 * width(alone)


def test_what_calibration_changes_is_shown_only_where_the_photos_show_it():
    logits, truth = simulated(1500, sharper=3)
    best = fit_temperature(logits, truth)
    sure, calm, barely = (softmax(logits, t) for t in (1, best, 1.01 * best))
    better, worse, same = (calibration_change(*pair, truth) for pair in ((sure, calm), (calm, sure), (calm, barely)))
    assert better["log_loss"]["shown"] and better["log_loss"]["high"] < 0 and better["ece"]["high"] < 0
    assert worse["log_loss"]["shown"] and worse["log_loss"]["low"] > 0
    assert not same["log_loss"]["shown"] and same["log_loss"]["low"] < 0 < same["log_loss"]["high"]
    one = calibration_change(sure, calm, truth, groups=[g % 5 for g in range(1500)])
    assert one["log_loss"]["value"] == pytest.approx(better["log_loss"]["value"]) and not one["log_loss"]["shown"]  # five groups show nothing
    assert worse["too_sure"]["low"] > 0 and worse["too_sure"]["value"] == pytest.approx(sure.max(1).mean() - (sure.argmax(1) == truth).mean())
    loss = [peer.log_loss(truth, p, labels=range(6)) for p in (sure, calm)]
    assert better["log_loss"]["value"] == pytest.approx(loss[1] - loss[0])
    ece = [scores(p, truth, names(6), resamples=1)["ece"]["value"] for p in (sure, calm)]
    assert better["ece"]["value"] == pytest.approx(ece[1] - ece[0])


@examples(50)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), steps=st.integers(1, 8))
def test_the_risk_coverage_curve_is_what_answering_at_each_threshold_gives(seed, n, steps):
    rng = np.random.default_rng(seed)
    top = 0.5 + rng.integers(0, steps, n) / steps / 2.1  # many ties
    p, truth = np.stack([top, 1 - top], axis=1), rng.integers(0, 2, n)
    found = risk_coverage(p, truth)
    score, right = p.max(axis=1), p.argmax(axis=1) == truth
    assert found["threshold"] == sorted(set(score), reverse=True)
    for threshold, coverage, risk in zip(found["threshold"], found["coverage"], found["risk"], strict=True):
        assert (coverage, risk) == pytest.approx(((score >= threshold).mean(), 1 - right[score >= threshold].mean()))
    point = threshold_for(found, 0.6)
    good = [t for t in set(score) if right[score >= t].mean() >= 0.6]
    assert (point is None) == (not good)
    if point:
        answered = score >= min(good)
        assert point["threshold"] == min(good) and point["n"] == answered.sum()
        assert point["accuracy"] == pytest.approx(right[answered].mean())
        assert (point["low"], point["high"]) == pytest.approx(wilson(right[answered].sum(), answered.sum()))


def test_without_ties_the_area_is_the_mean_risk():
    logits, truth = simulated(300)
    p = softmax(logits)
    right = (p.argmax(axis=1) == truth)[np.argsort(-p.max(axis=1))]
    assert risk_coverage(p, truth)["aurc"] == pytest.approx(np.mean(1 - np.cumsum(right) / np.arange(1, 301)))


def test_no_mistake_is_rounded_away():
    logits, truth = simulated(2000)
    logits[np.arange(1999), truth[:1999]] += 99
    logits[1999, (truth[1999] + 1) % 6] += 99
    found = rounded(scores(softmax(logits), truth, names(6), resamples=200)["accuracy"])
    assert found[0] == "0.9995" and found[1].startswith("0.99")


def test_a_rounded_interval_has_two_ends():
    assert rounded({"value": 0.9022, "low": 0.9004, "high": 0.9041}) == ("0.902", "0.900", "0.904")


@pytest.mark.parametrize("function", [fit_temperature, lambda p, t: scores(p, t, names(2)), reliability, risk_coverage])
def test_wrong_input_is_refused(function):
    good = [[0.5, 0.5], [0.2, 0.8]]
    for p, t in ([], []), (np.empty((0, 2)), np.empty(0, int)):
        with pytest.raises(UserError, match="no labelled photo"):
            function(p, t)
    for p, t in [(good, [0]), (good, [0, 2]), (good, [0, -1]), (good, [0.0, 1.0]), ([0.5, 0.5], [0, 1]), ([[0.5, np.nan], [0.2, 0.8]], [0, 1]), ([[0.5, np.inf], [0.2, 0.8]], [0, 1])]:
        with pytest.raises(ValueError):
            function(p, t)


def test_what_are_no_probabilities_is_refused():
    for p in [[0.7, 0.7]], [[-0.1, 1.1]], [[2.0, 5.0]]:
        with pytest.raises(ValueError, match="probabilities"):
            scores(p, [0], names(2))
    with pytest.raises(ValueError, match="labels"):
        scores([[0.5, 0.5]], [0], names(3))
    with pytest.raises(ValueError, match="groups"):
        scores([[0.5, 0.5]], [0], names(2), groups=["a", "b"])
    for logits, temperature in ([[1.0, np.nan]], 1), ([[-np.inf, -np.inf]], 1), ([[1.0, 2.0]], 0), ([[1.0, 2.0]], np.nan):
        with pytest.raises(ValueError):
            softmax(logits, temperature)


def test_the_module_starts_without_heavy_libraries():
    heavy = "'torch', 'scipy', 'sklearn', 'pandas', 'matplotlib'"
    subprocess.run([sys.executable, "-c", f"import sys, species_wb.metrics.scores; assert not {{{heavy}}} & set(sys.modules)"], check=True)
