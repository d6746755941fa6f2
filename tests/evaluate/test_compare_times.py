"Which model is faster is decided by times measured together, in turns, and only where the rounds show it; a thousand classes do not drown the page."

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from test_compare import a_run, compared, photo_rows, with_times

from species_wb import contracts, core
from species_wb.engine import load, speed, turns
from species_wb.evaluate import compare, compare_classes, compare_page, compare_runs, compare_tables, compare_text, compare_times, ensemble_gain, evaluation_text
from species_wb.metrics import intervals
from species_wb.report.page import Page


def said(found: compare.Comparison) -> str:
    sentence, details = compare_text.headline(found)
    return " ".join([sentence, *details, *compare_text.speed_sentences(found)])


# times of other hours


def test_stored_times_decide_nothing(workspace):
    "63.1 ms stored in a busy hour and 20.3 in a quiet one, for the same network: neither is shown, and neither is faster."
    for name, gain, ms in (("busy", 3.0, 63.1), ("quiet", 2.8, 20.3)):
        a_run(workspace, name, photo_rows(), gain, arch=name, ms=ms)
    found = compared()
    assert "63.1" not in said(found) and "20.3" not in said(found) and "if time counts" not in said(found) and "fastest" not in said(found)
    assert all(m.latency["p50"] < 10 for m in found.models)  # these networks take microseconds
    assert {row["latency_p50"] for row in compare_tables.records(found)}.isdisjoint({63.1, 20.3})


def test_a_run_keeps_its_own_times(workspace):
    "The times of a comparison are not written back: they are of this hour, beside these models."
    runs = [a_run(workspace, name, photo_rows(60), 2.0, arch=name, ms=50.0) for name in ("a", "b")]
    before = [(run / "metrics.json").read_bytes() for run in runs]
    assert compared().best.latency["rounds"] == 12
    assert [(run / "metrics.json").read_bytes() for run in runs] == before


# in turns


class Machine:
    "A clock, and networks whose photos take as long as the machine is busy."

    def __init__(self, busy):
        self.now, self.busy = 0.0, busy  # seconds; how many times as long a photo takes at a time

    def perf_counter(self) -> float:
        return self.now

    def infer(self, seconds: float, pixels) -> None:
        self.now += seconds * self.busy(self.now)


@pytest.fixture
def machine(monkeypatch):
    def made(busy) -> Machine:
        clock = Machine(busy)
        monkeypatch.setattr(turns, "perf_counter", clock.perf_counter), monkeypatch.setattr(turns, "infer", clock.infer)
        monkeypatch.setattr(turns, "random_pixels", lambda model, n, seed=0: [])
        monkeypatch.setattr(speed, "time", clock), monkeypatch.setattr(speed, "infer", clock.infer)
        monkeypatch.setattr(speed, "random_pixels", lambda model, n, seed=0: [])
        return clock

    return made


def test_a_load_that_ends_does_not_make_the_slower_model_look_faster(machine):
    "Another program runs for the first half of the time. One after the other, the faster model looks slower; in turns, it is shown to be faster."
    fast, slow = 0.008, 0.020
    machine(lambda now: 4.0 if now < 2.0 else 1.0)
    one_after_the_other = [np.median(speed._milliseconds(model, 60, 0)) for model in (fast, slow)]
    assert one_after_the_other[0] > one_after_the_other[1]
    machine(lambda now: 4.0 if now < 2.0 else 1.0)
    ms = turns.in_turns([fast, slow])
    assert turns.shown_faster(ms).tolist() == [[False, True], [False, False]] and ms.max() > 60  # some rounds were busy


def test_what_a_few_rounds_disturb_is_still_shown_and_what_only_chance_makes_is_not():
    rng = np.random.default_rng(0)
    told_apart = shown = 0
    for _ in range(400):
        load = rng.choice([1, 1, 1, 3], (1, 12)) * rng.lognormal(0, 0.1, (6, 12))  # shared load, and noise of each turn
        told_apart += turns.shown_faster(20 * load).any()
        shown += turns.shown_faster(np.array([[10.0], [20.0], [20.0], [20.0], [20.0], [20.0]]) * load)[0, 1:].all()
    assert told_apart <= 0.05 * 400 + 2 * (0.05 * 0.95 * 400) ** 0.5  # six equal models, fifteen pairs: at most 5 % of the comparisons, and some luck
    assert shown > 390


@pytest.mark.parametrize("models", [2, 3, 6, 14, 15, 40])
def test_rounds_and_wins_are_those_of_the_sign_test(models):
    "scipy's binomial test, Bonferroni for all pairs."
    rounds, pairs = turns.rounds_for(models), models * (models - 1) / 2
    enough = [k for k in range(rounds // 2 + 1, rounds + 1) if stats.binomtest(k, rounds).pvalue * pairs <= 0.05]
    assert turns.wins_needed(rounds, models) == enough[0] and rounds >= 12


@pytest.mark.parametrize("n", [6, 9, 12, 13, 60])
def test_the_interval_of_a_median_is_that_of_scipy(n):
    values = np.random.default_rng(n).lognormal(3, 0.3, n)
    theirs = stats.quantile_test(values, q=np.median(values), p=0.5).confidence_interval(0.95)
    ours = intervals.median_interval(values.tolist())
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high)) and ours["value"] == pytest.approx(np.median(values))


def test_times_that_are_not_shown_to_differ_choose_nothing(workspace, monkeypatch):
    "A point ahead on the clock is no reason: neither for the front nor for the headline."
    a_run(workspace, "better", photo_rows(), 3.0, arch="better"), a_run(workspace, "second", photo_rows(), 2.9, arch="second")
    found = with_times(compared(), {"better": 20.2, "second": 20.0}, monkeypatch)
    assert compare_times.thriftiest(found) is found.best and compare_times.on_front(found) == [True, False]
    assert "if time counts" not in said(found) and "fastest" not in said(found) and "no other is shown to be faster" in said(found)
    far = with_times(found, {"better": 40.0, "second": 20.0}, monkeypatch)
    assert compare_times.on_front(far) == [True, True] and "if time counts (20 ms a photo (20 to 20)" in said(far)


# what cannot be told


def test_a_model_that_cannot_be_timed_is_said_and_takes_no_part(workspace):
    a_run(workspace, "a", photo_rows(), 3.0, arch="a"), a_run(workspace, "b", photo_rows(), 2.9, arch="b")
    a_run(workspace, "gone", photo_rows(), 2.8, arch="gone")
    found = compare.compare(compare_runs.gather_runs(), resamples=500)
    gone = next(m for m in found.models if m.run.name == "gone")
    gone.path.unlink()
    compare_times.measure_times(found)
    assert gone.latency == {} and len(found.untimed) == 1 and found.untimed[0].startswith("gone was not timed: model.onnx is not there")
    assert str(workspace) not in said(found) and found.untimed[0] in compare_text.headline(found)[1]
    assert [m.latency != {} for m in found.models if m is not gone] == [True, True]
    row = next(row for row in compare_tables.costs(found)[0] if row[0] == "gone")
    assert row[1:3] == ["not timed", ""] and "gone" not in {point["name"] for point in compare_tables.priced(found)}
    assert next(r for r in compare_tables.records(found) if r["model"] == "gone")["latency_p50"] is None


def test_models_that_do_not_fit_into_memory_together_are_not_timed(workspace, monkeypatch, tmp_path):
    "The page is made without times, and says why."
    import psutil

    a_run(workspace, "a", photo_rows(), 3.0, arch="a"), a_run(workspace, "b", photo_rows(), 2.9, arch="b")
    gathered = compare_runs.gather_runs()
    found = compare.compare(gathered, resamples=500)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2000))
    compare_times.measure_times(found)
    assert [m.latency for m in found.models] == [{}, {}] and "were not timed: all must be open at once" in found.untimed[0]
    assert "ms a photo" not in said(found) and "fast" not in compare_text.headline(found)[0]
    page = Page("x")
    compare_page.costs(page, compare_page.Results(found, gathered))
    assert [piece.kind for piece in page.sections[-1].pieces] == ["text", "table"]
    compare_tables.write_leaderboard(found, tmp_path)
    assert core.read_json(tmp_path / "comparison.json")["models"][0]["pareto"] is None


# one model: how busy the machine was


def test_a_disturbed_measurement_says_so(machine, monkeypatch):
    monkeypatch.setattr(speed, "best_batch", lambda model: 4)
    example = SimpleNamespace(model=SimpleNamespace(size=10**6))

    def sentences(busy) -> list[str]:
        machine(busy)

        class Network(float):
            threads = 2

        return evaluation_text.speed_sentences(example, speed.latency(Network(0.02)))

    quiet, disturbed = sentences(lambda now: 1.0), sentences(lambda now: 3.0 if now > 1.0 else 1.0)
    assert "measured well" not in quiet[0] and "20 ms (median; 95\u00a0% interval 20 to 20 ms, n = 60)" in quiet[0]
    halves = "in one half of the measurement, a photo took 20 ms, and in the other 60 ms (medians, n = 60 photos"
    assert f"could not be measured well: {halves}" in disturbed[0] and "interval" not in disturbed[0]


def test_the_load_by_other_programs_is_measured_and_said(monkeypatch):
    import psutil

    used = iter([100.0, 101.0])
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(_asdict=lambda: {"user": next(used), "system": 0.0, "idle": 500.0, "iowait": 70.0}))
    clock = iter([10.0, 11.0])
    monkeypatch.setattr(load, "time", SimpleNamespace(perf_counter=lambda: next(clock), process_time=lambda: 0.25))
    watched = load.OtherPrograms()
    assert watched.processors() == pytest.approx(1.0)
    monkeypatch.setattr(load.os, "cpu_count", lambda: 2)
    assert load.load_sentence(1.0).startswith("Other programs used 1.0 of this machine's 2 processors meanwhile")


def test_a_mix_is_timed_in_turns_with_its_members():
    "Twice as long in every round, however busy the round was."
    busy, score = np.array([1.0, 4.0] * 6), {"value": 0.9, "low": 0.8, "high": 0.95}
    sure = {"accuracy": {"value": 0.02, "low": 0.01, "high": 0.03, "established": True}}
    rows = [{"name": name, "ms": (ms * busy).tolist(), "size": 1, "difference": d, "scores": {"accuracy": score, "log_loss": score}} for name, ms, d in (("mix", 4.0, None), ("lite0", 2.0, sure))]
    assert "The mix takes 2.0 times as long (2.0 to 2.0), timed in turns with it in 12 rounds." in ensemble_gain.gain_sentence(rows, 100)


# many classes


@pytest.fixture(scope="module")
def thousand() -> compare.Comparison:
    "Two models and 1,000 classes with a long tail; the first knows the twelve rarest of the common classes far better."
    rng, classes, n = np.random.default_rng(0), 1000, 3000
    labels = [f"Genus{k:03d} species" for k in range(classes)]
    share = 1 / np.arange(1, classes + 1)
    truth = rng.choice(classes, n, p=share / share.sum())
    models, chances = [], []
    for name, hits in (("large", 0.97), ("small", 0.9)):
        right = rng.random(n) < np.where((truth >= 8) & (truth < 20) & (name == "small"), 0.05, hits)
        p = np.full((n, classes), 0.1 / classes, np.float32)
        p[np.arange(n), np.where(right, truth, (truth + 1) % classes)] += 0.9
        chances.append(p)
        info = contracts.ModelInfo(labels, list(range(classes)), contracts.ModelSpec(name, 16, (0.5,) * 3, (0.5,) * 3))
        models.append(compare_runs.ComparedModel(Path(name), info, "0" * 64, 10**7, name=name, place=len(models)))
        models[-1].scores = compare.scores.scores(p, truth, labels, resamples=200)
        models[-1].reliability = compare.reliability.reliability(p, truth)
        models[-1].answer, models[-1].score = p.argmax(1), p.max(1)
    found = compare.paired.paired(chances, truth, resamples=1000)
    return compare.Comparison(models, labels, truth, [f"{k}.jpg" for k in range(n)], "/photos", False, [], [], found, True)


def test_of_a_thousand_classes_the_established_come_first(thousand):
    rows, _ = compare_classes.winners(thousand, "f1")
    sure = [str(row[-1]).endswith("established") for row in rows]
    assert 5 < sum(sure) < 50 and sure == sorted(sure, reverse=True)
    for part in (rows[: sum(sure)], rows[sum(sure) :]):
        assert [row[1] for row in part] == sorted((row[1] for row in part), reverse=True)
    assert len(rows) == len(set(thousand.truth.tolist()))


def test_of_a_thousand_classes_the_sentence_names_a_few(thousand):
    sentence = compare_classes.winners_sentence(thousand)
    established = sum(row["established"] for row in thousand.found["classes"]["f1"])
    assert sentence.count("Genus") == compare_classes.NAMED and f"and {established - compare_classes.NAMED} more" in sentence


def test_a_comparison_of_a_thousand_classes_stays_small(thousand, tmp_path):
    page, results = Page("Which model to take"), compare_page.Results(thousand, compare_runs.Gathered(thousand.models, []))
    for section in (compare_page.models, compare_page.differences, compare_page.costs, compare_page.classes, compare_page.calibration, compare_page.aside, compare_page.provenance):
        section(page, results)
    written = page.write(tmp_path / "report.html")
    assert written.stat().st_size < 3_000_000
    tables = [piece for section in page.sections for piece in section.pieces if piece.kind == "table" and piece.columns[0] == "class"]
    assert len(tables) == 1  # not the same classes a second time
