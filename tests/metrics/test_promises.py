"""Sets hold the right class as often as they say, answers are wrong as seldom as they say, and other people's programs agree."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, betabinom

from species_wb.contracts import ModelInfo, ModelSpec, info_from_json, info_to_json
from species_wb.core import UserError
from species_wb.metrics import conformal, coverage, promises, risk
from species_wb.metrics.calibration import fit_temperature, softmax
from species_wb.metrics.scores import scores

THEIRS = np.load(Path(__file__).parent / "conformal_references.npz")  # made by benchmarks/conformal_references.py
LABELS = [f"c{k}" for k in range(7)]
SPEC = ModelSpec("tiny", 16, (0.5,) * 3, (0.5,) * 3)


def drawn(n: int, rng: np.random.Generator, classes: int = 7, spread: float = 2.0, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    "Logits, and true classes drawn from their softmax at another temperature (so the scores are wrong unless it is 1)."
    logits = spread * rng.normal(size=(n, classes))
    truth = (rng.random((n, 1)) > softmax(logits, temperature).cumsum(1)).sum(1).clip(max=classes - 1)
    return logits, truth


# What MAPIE and netcal say


@pytest.mark.parametrize("k", range(3))
@pytest.mark.parametrize("name", ["lac", "aps", "aps_random", "raps"])
def test_quantiles_and_sets_are_those_of_mapie(name, k):
    p, new, truth, rate = softmax(THEIRS["logits"]), softmax(THEIRS["new"]), THEIRS["truth"].astype(int), float(THEIRS["rates"][k])
    method, how = name.split("_")[0], {}
    if name == "raps":  # MAPIE chose penalty and rank on a fifth of the photos, and calibrated on the others
        p, truth = p[THEIRS["raps_rows"]], truth[THEIRS["raps_rows"]]
        how = {"penalty": float(THEIRS["raps_penalty"][k]), "free": int(THEIRS["raps_free"][k])}
    rule, u = conformal.set_rule(p, truth, LABELS, rate, method, **how), 0.0
    if name == "aps_random":
        own = conformal.label_scores(p, "aps", np.random.RandomState(7).uniform(size=len(p)))[np.arange(len(p)), truth]
        rule["quantile"], u = conformal.quantile(own, rate), np.random.RandomState(7).uniform(size=len(new))
    assert rule["quantile"] == pytest.approx(THEIRS[f"{name}_quantiles"][k], abs=1e-6)
    sets = conformal.members(new, rule, LABELS, at_least_one=False, u=u)
    assert np.array_equal(sets, THEIRS[f"{name}_sets"][k])


def test_temperature_and_ece_are_those_of_netcal():
    p, truth = softmax(THEIRS["logits"]), THEIRS["truth"].astype(int)
    temperature = fit_temperature(THEIRS["logits"], truth)
    assert 1 / temperature == pytest.approx(THEIRS["temperature"][0], abs=1e-4)  # theirs multiplies; its optimiser stops earlier
    before, after = (scores(q, truth, LABELS, resamples=2)["ece"]["value"] for q in (p, softmax(THEIRS["logits"], temperature)))
    assert [before, after] == pytest.approx(THEIRS["ece"], abs=1e-4)
    assert before == pytest.approx(THEIRS["ece"][0], abs=1e-6)


def test_the_bound_is_that_of_scipy_and_so_is_the_range_of_chance():
    for wrong, n in ((0, 59), (2, 100), (20, 800), (499, 500), (0, 1), (3000, 20_000)):
        assert risk.upper_bound(wrong, n) == pytest.approx(beta.ppf(0.95, wrong + 1, n - wrong), abs=1e-9)
    for n, tested, rate in ((955, 293, 0.9), (20, 40, 0.95), (99, 10, 0.8)):
        k = math.ceil((n + 1) * rate - 1e-9)
        theirs = betabinom(tested, k, n + 1 - k).ppf([0.025, 0.975]) / tested
        assert coverage.chance_range(n, tested, rate) == pytest.approx(theirs)


# The promises hold


@pytest.mark.parametrize("method", conformal.SET_METHODS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_sets_hold_the_right_class_however_wrong_the_scores_are(method, temperature):
    rng, held = np.random.default_rng(1), []
    for _ in range(40):
        (old, known), (new, true) = (drawn(n, rng, temperature=temperature) for n in (200, 400))
        rule = conformal.set_rule(softmax(old), known, LABELS, 0.9, method)
        held.append(coverage.coverage(conformal.members(softmax(new), rule, LABELS, at_least_one=False), true)["value"])
    error = np.std(held) / len(held) ** 0.5
    assert 0.9 - 3 * error < np.mean(held) < 0.9 + 1 / 201 + 3 * error  # no less than promised, and hardly more


def test_a_shifted_quantile_is_seen():
    rng = np.random.default_rng(2)
    (old, known), (new, true) = (drawn(n, rng) for n in (2000, 2000))
    rule, (low, high) = conformal.set_rule(softmax(old), known, LABELS), coverage.chance_range(2000, 2000)
    for shift, kept in ((0.0, True), (-0.1, False), (0.02, False)):
        inside = conformal.members(softmax(new), {**rule, "quantile": rule["quantile"] + shift}, LABELS, at_least_one=False)
        assert (low <= coverage.coverage(inside, true)["value"] <= high) == kept, shift


def test_each_class_and_each_site_keeps_the_promise_where_it_is_asked_for():
    rng, classes, north, south = np.random.default_rng(3), [], [], []
    for _ in range(30):
        (old, known), (new, true) = (drawn(n, rng, 3, temperature=1) for n in (900, 900))
        hard = np.arange(900) % 2 == 1  # every second photo is from a site where the scores mean less, and class 2 is hard there
        for logits, truth in ((old, known), (new, true)):
            logits[hard] = rng.normal(size=(450, 3))
            logits[truth == 2] *= 0.3
        sites = np.where(hard, "south", "north")
        rule = conformal.set_rule(softmax(old), known, LABELS[:3])
        inside = conformal.members(softmax(new), rule, LABELS[:3], by_class=True, at_least_one=False)
        classes.append([row["value"] for _, row in sorted(coverage.coverage_by(inside, true, true.tolist()).items())])
        rules, said = conformal.site_rules(softmax(old), known, LABELS[:3], sites.tolist())
        assert not said
        for site, found in (("north", north), ("south", south)):
            own = sites == site
            found.append(coverage.coverage(conformal.members(softmax(new[own]), rules[site], LABELS[:3], at_least_one=False), true[own])["value"])
    assert np.abs(np.mean(classes, axis=0) - 0.9).max() < 0.015
    assert abs(np.mean(north) - 0.9) < 0.015 and abs(np.mean(south) - 0.9) < 0.015


def test_copies_do_not_count_as_photos_of_their_own():
    rng = np.random.default_rng(4)
    logits, truth = drawn(300, rng)
    times = rng.integers(1, 20, 300)
    groups = np.repeat(np.arange(300), times)
    made = promises.promises(np.repeat(logits, times, 0), np.repeat(truth, times), LABELS, 1.0, groups)
    once = promises.promises(logits, truth, LABELS, 1.0)
    assert made.conformal == once.conformal and made.risk == once.risk


@pytest.mark.parametrize("most", [0.05, 0.1])
def test_no_more_answers_are_wrong_than_was_promised(most):
    rng, broken, answered = np.random.default_rng(5), 0, []
    for _ in range(200):
        score = rng.beta(5, 1, 500)
        right = rng.random(500) < score**0.5  # too careful: 0.95 are right
        if row := risk.limit_for(risk.risk_table(score, right, steps=20), most):
            t = round(row[0], 6)
            grid = np.linspace(t, 1, 2001)
            weight = grid**4
            truly = float((weight * (1 - grid**0.5)).sum() / weight.sum())  # of all photos above the threshold
            broken, answered = broken + (truly > most), [*answered, row[1] / 500]
    assert broken / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5
    assert np.mean(answered) > {0.05: 0.15, 0.1: 0.8}[most] and len(answered) > 100  # and it answers what it can


def test_the_order_of_the_tests_does_not_look_at_the_mistakes():
    rows = [[0.9, 100, 0, risk.upper_bound(0, 100)], [0.8, 200, 20, risk.upper_bound(20, 200)], [0.7, 400, 4, risk.upper_bound(4, 400)]]
    assert risk.limit_for({"n": 400, "rows": rows}, 0.05) is None  # the second test failed: the third is not tried
    rows[1] = [0.8, 200, 2, risk.upper_bound(2, 200)]
    assert risk.limit_for({"n": 400, "rows": rows}, 0.05)[0] == 0.7


# None of these


def test_none_of_these_is_never_in_a_set_and_no_answer():
    rng = np.random.default_rng(6)
    logits, truth = drawn(500, rng, 4)
    keep = truth < 3
    labels, ids = ["a", "b", "c", "none"], [0, 1, 2, -1]
    for method in conformal.SET_METHODS:
        rule = conformal.set_rule(softmax(logits[keep]), truth[keep], labels, 0.9, method)
        inside = conformal.members(softmax(logits), rule, labels, ids)
        assert not inside[:, 3].any()
        assert coverage.coverage(inside[keep], truth[keep])["value"] >= 0.9
    made = promises.promises(logits[keep], truth[keep], labels, 1.0, ids=ids)
    declined = int((logits[keep].argmax(1) == 3).sum())
    assert made.risk["rows"][-1][1] == keep.sum() - declined and made.risk["n"] == keep.sum() and not made.sentences


# Bad input


@pytest.mark.parametrize("n", [0, 1, 8])
def test_too_few_photos_are_said_and_no_set_holds_everything(n):
    logits, truth = drawn(n, np.random.default_rng(7))
    made = promises.promises(logits, truth, LABELS, 1.0)
    assert "0.9" not in made.conformal and made.sentences[0].startswith("No sets are made: sets that hold the right class 90 % of the time need 9 photos")
    with pytest.raises(UserError, match="need 9 photos held back|no labelled photo"):
        conformal.set_rule(softmax(logits) if n else np.zeros((0, 7)), truth, LABELS)


def test_a_class_that_no_photo_shows_is_named_and_uses_the_quantile_of_all():
    logits, truth = drawn(400, np.random.default_rng(8), 3)
    seen = truth != 1
    made = promises.promises(logits[seen], truth[seen], ["Aves", "Fungi", "Mammalia"], 1.0)
    assert made.sentences == ["No photo held back shows Fungi: nothing is promised for it."]
    rule = made.conformal["0.9"]
    assert set(rule["by_class"]) == {"Aves", "Mammalia"}
    alone = np.array([[0.0, 1.0, 0.0]])
    assert conformal.members(alone * (1 - rule["quantile"]) + 1e-6, rule, ["Aves", "Fungi", "Mammalia"], by_class=True, at_least_one=False)[0, 1]


def test_a_head_that_did_not_know_a_class_in_its_fold_is_no_witness():
    logits, truth = drawn(100, np.random.default_rng(9), 3)
    logits[:10][np.arange(10), truth[:10]] = -np.inf
    assert promises.promises(logits, truth, LABELS[:3], 1.0).conformal["0.9"]["n"] == 90


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    logits, truth = drawn(50, np.random.default_rng(10), 3)
    logits[3, 1] = bad
    with pytest.raises(UserError, match="not numbers"):
        promises.promises(logits, truth, LABELS[:3], 1.0)
    with pytest.raises(UserError, match="not numbers"):
        conformal.set_rule(np.full((50, 3), np.nan), truth, LABELS[:3])
    with pytest.raises(UserError, match="scores from 0 to 1"):
        risk.risk_table([0.5, np.nan], [True, True])


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.1, math.nan, math.inf])
def test_a_rate_outside_0_to_1_is_refused(rate):
    logits, truth = drawn(50, np.random.default_rng(11), 3)
    with pytest.raises(UserError, match="not a share"):
        conformal.set_rule(softmax(logits), truth, LABELS[:3], rate)
    with pytest.raises(UserError, match="not a share"):
        risk.limit_for(risk.risk_table([0.5], [True]), rate)


def test_a_rate_that_no_threshold_reaches_is_said_with_what_can_be_reached():
    rng = np.random.default_rng(12)
    table = risk.risk_table(rng.random(300), rng.random(300) < 0.7)
    assert risk.limit_for(table, 0.05) is None
    least = risk.reachable(table)
    assert 0.3 < least < 0.45 and risk.share_text(least) in risk.not_reached(table, 0.05)
    assert "minimum score" in risk.not_reached(risk.risk_table([0.9, 0.8], [False, False]), 0.05)


# The model file


def test_a_model_file_keeps_its_promises_and_older_ones_are_read():
    logits, truth = drawn(400, np.random.default_rng(13))
    made = promises.promises(logits, truth, LABELS, 1.3, calibrated_on="validation photos")
    info = ModelInfo(LABELS, list(range(7)), SPEC, 1.3, conformal=made.conformal, risk=made.risk)
    again = info_from_json(info_to_json(info))
    assert again.conformal == made.conformal and again.risk == made.risk
    assert again.conformal["0.9"]["calibrated_on"] == "validation photos" and again.conformal["0.9"]["n"] == 400
    data = json.loads(info_to_json(info))
    assert data["conformal"] == {rate: rule["quantile"] for rate, rule in made.conformal.items()}  # numbers, as earlier versions expect
    del data["sets"], data["risk"]
    older = info_from_json(json.dumps(data))
    assert older.conformal["0.9"] == {"method": "lac", "quantile": made.conformal["0.9"]["quantile"]} and older.risk == {}
    p = softmax(logits, 1.3)
    assert np.array_equal(conformal.members(p, older.conformal["0.9"], LABELS), conformal.members(p, made.conformal["0.9"], LABELS))


@pytest.mark.parametrize("key, value", [
    ("sets", {"0.9": {"method": "lac", "quantile": math.nan}}), ("sets", {"0.9": {"method": "magic", "quantile": 0.5}}),
    ("sets", {"0.9": {"method": "lac"}}), ("sets", {"9": {"method": "lac", "quantile": 0.5}}), ("sets", {"0.9": 0.5}), ("sets", [1]),
    ("sets", {"0.9": {"method": "lac", "quantile": 0.5, "by_class": {"unknown": 0.1}}}), ("sets", {"0.9": {"method": "lac", "quantile": 0.5, "by_class": [1]}}),
    ("sets", {"0.9": {"method": "lac", "quantile": "0.5"}}), ("sets", {"x": {"method": "lac", "quantile": 0.5}}), ("conformal", {"0.9": math.nan}),
    ("risk", {"rows": 5, "n": 3, "confidence": 0.95}), ("risk", {"rows": [[0.5, 1, 0]], "n": 3, "confidence": 0.95}), ("risk", [1]),
    ("risk", {"rows": [[0.5, 1, 0, math.nan]], "n": 3, "confidence": 0.95}), ("risk", {"rows": [[0.5, 1, 0, 1]] * 1001, "n": 3, "confidence": 0.95}),
    ("risk", {"rows": []}),
])  # fmt: skip
def test_damaged_promises_are_refused_in_a_sentence(key, value):
    data = {**json.loads(info_to_json(ModelInfo(LABELS, list(range(7)), SPEC))), key: value}
    with pytest.raises(UserError, match=r"^x\.onnx.*(not whole|damaged or made by hand)"):
        info_from_json(json.dumps(data), "x.onnx")
