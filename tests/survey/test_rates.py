"""Rates: missing is not zero, intervals hold the truth, and what the classifier did to them is undone or refused."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import poisson

from species_wb.core import UserError
from species_wb.metrics.confusions import Confusions, read_confusions
from species_wb.simulate.camera_visits import checked_photos, site_rates, survey_counts
from species_wb.simulate.cameras import EMPTY, Cameras
from species_wb.survey.rates import corrected, periods_of, poisson_interval, rates, without_effort
from species_wb.survey.rates_bootstrap import corrected_over_sites, corrected_rates, over_sites, pooled_rates, site_counts


def seen(*rows: tuple[str | None, str | None, str]) -> pd.DataFrame:
    "Events from site, day and label."
    return pd.DataFrame(list(rows), columns=["site", "day", "label"])


def worked(*rows: tuple[str, str, float]) -> pd.DataFrame:
    "Effort from site, period and days."
    return pd.DataFrame(list(rows), columns=["site", "period", "days"]).assign(deployment="d")


def test_the_mallards_of_the_example_package_come_out():
    "camtraptor's get_rai.R on 9 observations in 2,789,044 s: 27.881 per 100 days, to the printed digits."
    ducks = seen(*[("pond", "2020-06-01", "Anas platyrhynchos")] * 9)
    table = rates(ducks, worked(("pond", "2020-05-30", 2_789_044 / 86_400)))
    assert table["rate"].tolist() == pytest.approx([27.881], abs=0.0005)


def test_the_mallards_come_out_of_the_packages_own_tables(survey_data):
    "The same number from the rows of the real package (tolerance: the printed digits), and 0 for a taxon that this camera never saw."
    example = survey_data / "camtrap-dp" / "example"
    stays, found = pd.read_csv(example / "deployments.csv"), pd.read_csv(example / "observations.csv")
    stays = stays[stays["deploymentStart"].notna()].assign(start=lambda t: pd.to_datetime(t["deploymentStart"], utc=True), end=lambda t: pd.to_datetime(t["deploymentEnd"], utc=True))
    effort = pd.DataFrame({"site": stays["deploymentID"], "period": "2020-01-01", "days": (stays["end"] - stays["start"]).dt.total_seconds() / 86_400})
    found = found[(found["observationLevel"] == "event") & (found["observationType"] == "animal")]
    events = pd.DataFrame({"site": found["deploymentID"], "day": found["eventStart"].str[:10], "label": found["scientificName"]})
    table = rates(events, effort).set_index(["label", "site"])
    assert table.loc[("Anas platyrhynchos", "00a2c20d"), "rate"] == pytest.approx(27.881, abs=0.0005)
    assert table.loc[("Vulpes vulpes", "00a2c20d"), ["events", "rate"]].tolist() == [0, 0] and len(table) == 4 * events["label"].nunique()


def test_corrected_is_the_published_example():
    share = corrected(45, 150, 0.96, 0.89)
    assert [round(100 * value) for value in (share.value, share.low, share.high)] == [22, 14, 32]


def test_the_ends_of_the_interval_leave_the_chance_that_they_should():
    "Fewer events plus half of exactly so many: 2.5 in a hundred at the upper end, 97.5 at the lower one."
    counts = np.array([1, 2, 7, 60, 5_000, 1_000_000])
    low, high = poisson_interval(counts)
    for end, chance in ((low, 0.975), (high, 0.025)):
        assert poisson.cdf(counts - 1, end) + poisson.pmf(counts, end) / 2 == pytest.approx(chance, abs=1e-6)
    assert [float(end[0]) for end in poisson_interval(np.array([0]))] == pytest.approx([0, np.log(20)])


def test_missing_and_zero_stay_apart_everywhere():
    effort = worked(("a", "2024-05-01", 31), ("a", "2024-06-01", 0), ("b", "2024-06-01", 30))
    events = seen(("a", "2024-05-31", "fox"), ("b", "2024-06-30", "elk"))
    table = rates(events, effort, ["site", "period"], "month", sites=["c"]).set_index(["label", "site", "period"])
    assert len(table) == 2 * 3 * 2
    for label in ("fox", "elk"):
        missing = table.loc[label][["events", "rate", "low", "high"]].isna().all(axis=1)
        assert missing[missing].index.tolist() == [("a", "2024-06-01"), ("b", "2024-05-01"), ("c", "2024-05-01"), ("c", "2024-06-01")]
    zero = table.loc[("elk", "a", "2024-05-01")]
    assert (zero["events"], zero["rate"], zero["low"]) == (0, 0, 0) and zero["high"] == pytest.approx(100 * np.log(20) / 31)
    assert not table["rate"].isna().equals(table["rate"].fillna(0) == 0)


def test_events_without_effort_are_listed_and_not_counted():
    effort = worked(("NA", "2024-02-26", 4), ("b", "2024-02-26", 7))
    events = seen(("NA", "2024-02-29", "fox"), ("NA", "2024-03-04", "fox"), ("b", "2024-02-25", "fox"), ("?", "2024-02-29", "fox"), (None, None, "fox"), ("b", None, "fox"))
    assert periods_of(events, effort, "week").tolist() == ["2024-02-26", None, None, None, None, None]
    out = without_effort(events, effort, "week")
    table = rates(events, effort, ["site", "period"], 7)
    assert table["events"].sum() + out.sum() == len(events) and out.tolist() == [False] + [True] * 5
    assert table.set_index("site").loc["NA", "rate"] == 25  # a site called NA is a site


def test_two_cameras_at_a_site_add_their_days():
    effort = worked(("a", "2024-05-01", 10), ("a", "2024-05-01", 15))
    assert rates(seen(("a", "2024-05-03", "fox")), effort)["rate"].tolist() == [4]


def test_an_empty_survey_and_a_single_event():
    effort = worked(("a", "2024-05-01", 10))
    assert len(rates(seen(), effort)) == 0 and len(pooled_rates(seen(), effort)) == 0
    assert rates(seen(), effort, [], taxa=["fox"])[["events", "rate"]].to_numpy().tolist() == [[0, 0]]
    one = pooled_rates(seen(("a", "2024-05-03", "fox")), effort)
    assert one["rate"].tolist() == [10] and one["low_sites"].isna().all()  # there is no other site to draw
    with pytest.raises(UserError, match="not a single camera-day"):
        rates(seen(), effort.assign(days=0))
    with pytest.raises(UserError, match="not a single camera-day"):
        pooled_rates(seen(), effort[:0])


def test_a_period_without_any_camera_is_missing_when_all_sites_are_together():
    effort = worked(("a", "2024-05-01", 10), ("b", "2024-05-01", 10), ("a", "2024-06-01", 0))
    known = Confusions(("fox",), ("fox",), np.array([[90]]), np.array([10]))
    table = pooled_rates(seen(("a", "2024-05-03", "fox")), effort, "month", known, resamples=50).set_index("period")
    assert table["sites"].tolist() == [2, 0]
    numbers = [name for name in table if name not in ("label", "days", "sites", "low_sites", "high_sites")]  # two sites are too few
    assert table.loc["2024-06-01", numbers].isna().all() and table.loc["2024-05-01", numbers].notna().all()


def test_the_same_seed_gives_the_same_intervals():
    p = Cameras(sites=15, days=60)
    counts, known = survey_counts(p), Confusions((*p.taxa, EMPTY), (*p.taxa, EMPTY), checked_photos(p, 100), np.zeros(4, int))
    first, again, other = (corrected_over_sites(counts["labelled"], counts["days"], known, 200, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True)) and not np.array_equal(first[1], other[1])


def test_the_matrix_widens_the_interval():
    "The same shares of confusions, from 40 and from 40,000 checked photos."
    counts, days = np.random.default_rng(0).poisson(5, (30, 2)), np.full(30, 100.0)
    few, many = (Confusions(("elk", "fox"), ("elk", "fox"), n * np.array([[16, 4], [3, 17]]), np.zeros(2, int)) for n in (1, 1000))
    wide, narrow = (corrected_over_sites(counts, days, known) for known in (few, many))
    assert np.allclose(wide[0], narrow[0]) and (wide[2] - wide[1] > 1.3 * (narrow[2] - narrow[1])).all()


def test_site_by_site_the_corrected_events_add_up():
    events = seen(*[("a", "2024-05-03", "elk")] * 30, *[("a", "2024-05-03", "fox")] * 10, *[("b", "2024-05-03", "elk")] * 12)
    effort = worked(("a", "2024-05-01", 31), ("b", "2024-05-01", 31), ("c", "2024-05-01", 31), ("d", "2024-05-01", 0))
    known = Confusions(("elk", "fox"), ("elk", "fox"), np.array([[90, 10], [5, 95]]), np.zeros(2, int))
    table = corrected_rates(events, effort, known, resamples=100).set_index(["site", "label"])
    assert table.loc["a", "events_corrected"].sum() == pytest.approx(40, abs=0.01)  # left open: none
    assert table.loc[("b", "fox"), "events_corrected"] == pytest.approx(0, abs=0.01)  # 12 elks explain one fox and more
    assert table.loc["c", "rate_corrected"].tolist() == [0, 0] and (table.loc["c", "high_corrected"] > 0).all()
    assert table.loc["d", ["rate", "rate_corrected", "high_corrected"]].isna().all(axis=None)


def test_a_label_that_was_never_checked_is_refused():
    effort, events = worked(("a", "2024-05-01", 31)), seen(("a", "2024-05-03", "lynx"))
    known = Confusions(("elk", "fox"), ("elk", "fox"), np.array([[90, 10], [5, 95]]), np.zeros(2, int))
    for make in (pooled_rates, corrected_rates):
        with pytest.raises(UserError, match="1 event cannot be corrected, because the confusion matrix does not know the label lynx: .*out.$"):
            make(events, effort, known=known)


@pytest.mark.slow
def test_intervals_hold_the_truth():
    "1,000 surveys of 20 sites and four classes: between 93.5 and 96.5 in a hundred; the naive ones do not. benchmarks/survey.py tables more."
    held = {"Poisson": 0, "over sites": 0, "corrected": 0, "naive": 0}
    for seed in range(10_000, 11_000):
        p = Cameras(sites=20, days=60, seed=seed, failures=0.2, pairs=0)
        counts, truth = survey_counts(p), 100 * np.array([*p.per_day, p.empty])
        known = Confusions((*p.taxa, EMPTY), (*p.taxa, EMPTY), checked_photos(p, 200), np.zeros(4, int))
        days, here = counts["days"], 100 * counts["days"] @ site_rates(p) / counts["days"].sum()
        ends = {
            "Poisson": (100 * np.array(poisson_interval(counts["true"].sum(0))) / days.sum(), here),
            "over sites": (over_sites(counts["true"], days, 500), truth),
            "corrected": (corrected_over_sites(counts["labelled"], days, known, 500)[1:], truth),
            "naive": (100 * np.array(poisson_interval(counts["labelled"].sum(0))) / days.sum(), truth),
        }
        for name, ((low, high), right) in ends.items():
            held[name] += int(((low <= right) & (right <= high)).sum())
    shares = {name: count / 4000 for name, count in held.items()}
    assert all(0.935 <= shares[name] <= 0.965 for name in ("Poisson", "over sites", "corrected")), shares
    assert shares["naive"] < 0.75, shares


def test_counts_by_site_leave_out_what_has_no_camera_day():
    effort = worked(("b", "2024-05-01", 5), ("a", "2024-05-01", 0), ("b", "2024-06-01", 5))
    counts, days = site_counts(seen(("b", "x", "fox"), ("a", "x", "fox"), ("b", "x", "elk")), effort, ["fox"])
    assert counts.tolist() == [[1]] and days.tolist() == [10]


def test_a_class_without_test_photos_does_not_make_its_events_mistakes_of_others(tmp_path):
    "100 events of a deer that no test photo shows are no foxes: the correction is refused."
    (tmp_path / "metrics.json").write_text('{"test": {"classes": [{"label": "fox"}, {"label": "hare"}, {"label": "deer"}], "confusion": [[97, 1, 2], [3, 97, 0], [0, 0, 0]]}}')
    events = seen(*[("a", "2024-05-03", "fox")] * 50, *[("a", "2024-05-03", "hare")] * 50, *[("a", "2024-05-03", "deer")] * 100)
    effort, known = worked(("a", "2024-05-01", 31)), read_confusions(tmp_path)
    with pytest.raises(UserError, match="100 events cannot be corrected, .* label deer"):
        pooled_rates(events, effort, known=known)
    without = pooled_rates(events[events["label"] != "deer"], effort, known=known, resamples=50).set_index("label")
    assert without.loc["fox", "events_corrected"] == pytest.approx(50, abs=2)


def test_events_of_a_deployment_without_an_end_stand_in_no_rate():
    "Three events in 31 days of A1, six of A2 on the same site, whose end nobody wrote down: the rate is that of the three."
    events = seen(*[("A", "2025-03-09", "fox")] * 3, *[("A", "2025-04-09", "fox")] * 6).assign(deployment=["A1"] * 3 + ["A2"] * 6)
    effort, known = worked(("A", "2025-03-01", 31)).assign(deployment="A1"), Confusions(("fox",), ("fox",), np.array([[90]]), np.array([10]))
    assert rates(events, effort)["events"].tolist() == pooled_rates(events, effort)["events"].tolist() == [3]
    for table in (corrected_rates(events, effort, known, resamples=20), pooled_rates(events, effort, known=known, resamples=20)):
        assert table["events"].tolist() == [3] and table["events_corrected"].tolist() == pytest.approx([3 / 0.9])


@pytest.mark.parametrize("sites, known", [(2, False), (4, False), (5, True)])
def test_a_few_sites_cannot_say_how_sites_differ(sites, known):
    "Drawn from two sites with 0 and 40 events on 100 days each, the upper end would be 140,965 on 100 camera-days; the rate is 20."
    counts, days = np.array([[0], [40], [0], [3], [1]])[:sites], np.full(sites, 100.0)
    assert np.isfinite(over_sites(counts, days)).all() == known
    matrix = Confusions(("fox",), ("fox",), np.array([[90]]), np.array([10]))
    _, low, high = corrected_over_sites(counts, days, matrix)
    assert 0 <= low[0] < high[0] and (known or high[0] < 100)
