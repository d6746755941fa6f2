"""Effort: the numbers that others published, every second in one period, gaps off once, and missing apart from zero."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from conftest import examples
from hypothesis import given, strategies as st

from species_wb.core import UserError
from species_wb.survey.deployments import Deployment, Gap, read_deployments
from species_wb.survey.effort import at_work, effort, effort_by, effort_summary, no_effort
from species_wb.survey.nights import nights
from species_wb.survey.operation import operation

BERLIN, SYDNEY = ZoneInfo("Europe/Berlin"), ZoneInfo("Australia/Sydney")
ONE = Deployment("a", "A", start=datetime(2025, 6, 1, 12), end=datetime(2025, 6, 11, 12))


@pytest.fixture(scope="module")
def camtraps(survey_data) -> list[Deployment]:
    "camtrapR's sample of three cameras."
    return read_deployments(survey_data / "reference" / "camtrapR_camtraps.csv")[0]


def test_as_many_trap_nights_as_camtrapr_counts(camtraps):  # published: camtrapr4.pdf p. 15-16; no tolerance
    table = effort_summary(camtraps)
    assert table["days"].tolist() == [42, 43, 37.5] and effort_by(effort(camtraps))["days"].tolist() == [122.5]
    assert table[["calendar", "active", "inactive"]].sum().tolist() == [131, 125, 6]


def test_as_much_effort_every_seven_days_as_camtrapr_counts(camtraps):  # published: camtrapr3.pdf p. 20; no tolerance
    table = effort([replace(one, gaps=()) for one in camtraps], 7, "site")
    assert [group["days"].tolist() for _, group in table.groupby("site")] == [[6.5, *[7] * 5, last] for last in (0.5, 1.5, 1.5)]


def test_as_many_seconds_as_the_example_package_has(survey_data):  # printed in inbo/camtraptor#236, and computed; no tolerance
    deployments, _ = read_deployments(survey_data / "camtrap-dp" / "example" / "deployments.csv")
    seconds = effort_summary(deployments).set_index("deployment")["seconds"].to_dict()
    assert seconds == {"29b7d356": 859_859, "577b543a": 786_802, "62c200a9": 1_903_602, "00a2c20d": 2_789_044}


MOMENTS = st.integers(0, 24 * 200).map(lambda hours: datetime(2025, 2, 1, 7) + timedelta(hours=hours))
GAPS = st.lists(st.builds(lambda a, hours: (a, a + timedelta(hours=hours)), MOMENTS, st.integers(1, 900)), max_size=4)


@given(MOMENTS, st.integers(1, 24 * 150), GAPS, st.sampled_from([None, BERLIN, SYDNEY]), st.sampled_from(["day", "week", "month", 5]))
@examples(40)
def test_every_hour_without_a_gap_counts_once_in_one_period(start, hours, gaps, zone, period):
    "Counted hour by hour, in a zone with both clock changes."
    hour = lambda at: at if zone is None else (at.replace(tzinfo=UTC) + timedelta(0)).astimezone(zone)  # noqa: E731 (UTC hours)
    end = start + timedelta(hours=hours)
    one = Deployment("a", "A", start=hour(start), end=hour(end), gaps=tuple(Gap(hour(a), hour(b)) for a, b in gaps))
    each = [start + timedelta(hours=k) for k in range(hours)]
    worked = [at for at in each if not any(a <= at < b for a, b in gaps)]
    table = effort([one], period)
    assert table["days"].sum() == pytest.approx(len(worked) / 24, abs=1e-9)
    days = pd.Series([hour(at).date() for at in worked]).value_counts() if worked else pd.Series(dtype=int)
    daily = effort([one]).set_index("period")["days"]
    assert {day: n for day, n in (daily * 24).round(6).items() if n} == {str(day): n for day, n in days.items()}
    assert daily.index[0] == str(hour(start).date()) and daily.index.is_monotonic_increasing and (daily >= 0).all()
    firsts = pd.to_datetime(table["period"])
    assert {"day": True, "week": (firsts.dt.weekday == 0).all(), "month": (firsts.dt.day == 1).all()}.get(period, True)


@given(st.lists(st.tuples(MOMENTS, st.integers(1, 2000)), min_size=1, max_size=4))
@examples(15)
def test_a_site_counts_once_while_any_of_its_cameras_works(stretches):
    cameras = [Deployment(str(k), "A", start=start, end=start + timedelta(hours=hours)) for k, (start, hours) in enumerate(stretches)]
    hours = {start + timedelta(hours=k) for start, n in stretches for k in range(n)}
    assert effort(cameras, "month", once=True)["days"].sum() == pytest.approx(len(hours) / 24, abs=1e-9)
    assert effort(cameras, "month")["days"].sum() == pytest.approx(sum(n for _, n in stretches) / 24, abs=1e-9)


def test_missing_is_not_zero():
    broken = replace(ONE, gaps=(Gap(datetime(2025, 6, 1), datetime(2025, 6, 12)),))
    assert effort([broken])["days"].tolist() == [0.0] * 11  # it stood there
    assert effort([replace(ONE, end=None)]).empty and np.isnan(effort_by(effort([]))["days"][0])
    matrix = operation([broken, replace(ONE, deployment="b", site="B", start=datetime(2025, 6, 10), end=datetime(2025, 6, 13))])
    assert matrix.loc["A"].isna().tolist() == [False] * 11 + [True] and matrix.loc["B"].isna().sum() == 9
    assert matrix.loc["A"].sum() == 0 and matrix.loc["B"].tolist()[9:] == [1, 1, 1]


def test_days_without_hours_are_whole_days_also_when_clocks_change():
    for zone, first in ((BERLIN, datetime(2025, 3, 20)), (BERLIN, datetime(2025, 10, 20)), (SYDNEY, datetime(2025, 9, 30)), (None, datetime(2024, 2, 27))):
        days = replace(ONE, start=first.replace(tzinfo=zone), end=(first + timedelta(days=10)).replace(tzinfo=zone), hours=False)
        assert effort([days])["days"].tolist() == [0.5, *[1] * 9, 0.5]
    spring = replace(ONE, start=datetime(2025, 3, 29, 12, tzinfo=BERLIN), end=datetime(2025, 3, 31, 12, tzinfo=BERLIN))
    assert effort([spring])["days"].tolist() == [0.5, 23 / 24, 0.5]  # with hours, a night of 23 hours is one
    leap = replace(ONE, start=datetime(2024, 2, 28), end=datetime(2024, 3, 2))
    assert effort([leap])["period"].tolist() == ["2024-02-28", "2024-02-29", "2024-03-01"]


def test_a_broken_flash_takes_the_nights_off():
    known = {"start": datetime(2025, 6, 1, 12, tzinfo=BERLIN), "end": datetime(2025, 6, 11, 12, tzinfo=BERLIN)}
    flash = (Gap(datetime(2025, 6, 1, tzinfo=BERLIN), datetime(2025, 6, 12, tzinfo=BERLIN), nights=True),)
    days = lambda **more: effort_summary([replace(ONE, **known, gaps=flash, **more)])["days"][0]  # noqa: E731
    assert days() == 5.0 and effort_summary([replace(ONE, gaps=(flash[0]._replace(start=ONE.start, end=ONE.end),))])["days"][0] == 5.0
    assert 6.8 < days(lat=52.5, lon=13.4) < 7.0  # 16.6 hours of daylight in Berlin
    assert 4.1 < days(lat=-33.9, lon=13.4) < 4.3 and days(lat=80.0, lon=13.4) == 10 and days(lat=-80.0, lon=13.4) == 0
    assert days(lat=0.0, lon=180.0) == pytest.approx(days(lat=0.0, lon=-180.0), abs=0.01)


def test_the_sun_is_where_others_find_it(survey_data):
    "Sunrise and sunset on Barro Colorado, made with suntools (R): within three minutes on 317 days."
    table = pd.read_csv(survey_data / "reference" / "activity_BCI_ocelot_suntime.csv")
    midnight = pd.to_datetime(table["date"]).dt.normalize().astype("datetime64[s]").astype("int64").to_numpy() + 5 * 3600.0  # UTC-5
    found = np.array([nights(at, at + 86400, UTC, 9.15, -79.85)[[0, -1]] for at in midnight])
    sunrise, sunset = found[:, 0, 1] - midnight, found[:, 1, 0] - midnight
    seconds = 86400 / (2 * np.pi)
    assert abs(sunrise - table["sunrise"] * seconds).max() < 180 and abs(sunset - table["sunset"] * seconds).max() < 180


def test_bad_deployments_have_no_effort_and_are_named():
    late = datetime(2099, 1, 1)
    some = [replace(ONE, deployment="1", end=late), replace(ONE, deployment="2", start=ONE.end, end=ONE.start), replace(ONE, deployment="3", start=None), ONE]
    assert no_effort(some) == {"1": "too-long", "2": "end-before-start", "3": "no-start"} and len(at_work(some)) == 1
    assert effort(some)["deployment"].unique().tolist() == ["a"] and effort_summary(some)["unknown"].notna().sum() == 3
    mixed = replace(ONE, start=ONE.start.replace(tzinfo=UTC))  # an offset here, none there: the clock counts
    assert effort_summary([mixed])["days"][0] == 10.0
    with pytest.raises(UserError, match="did you mean month"):
        effort([ONE], "months")
    assert effort([ONE], 7, date(2025, 5, 28))["period"].tolist() == ["2025-05-28", "2025-06-04", "2025-06-11"]


def test_a_site_called_na_stays_one():
    table = effort([replace(ONE, site="NA"), replace(ONE, deployment="b", site="")], "month")
    assert table["site"].tolist() == ["NA", ""] and effort_by(table, "site")["days"].tolist() == [10, 10]
