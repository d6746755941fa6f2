"""The simulated cameras: what is called the truth is true, and the same parameters give the same tables."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from species_wb.core import UserError
from species_wb.photos.times import iso
from species_wb.simulate.camera_survey import camera_survey, write_camera_survey
from species_wb.simulate.camera_visits import confusion_shares, site_rates, survey_counts
from species_wb.simulate.cameras import Cameras, named_cameras


def zone_of(name: str) -> ZoneInfo | None:
    return ZoneInfo(name) if "/" in name else datetime.fromisoformat(f"2024-01-01T00:00{name}").tzinfo


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"])
def test_right_clocks_show_the_true_times_by_pythons_own_zones(zone):
    p = Cameras(zone=zone, sites=4, days=365, wrong_clock=0, drift=0, reset=0)
    tables = camera_survey(p)
    zones = dict(zip(tables["deployments"]["deployment"], tables["deployments"]["zone"], strict=True))
    assert len({*zones.values()}) == 2  # some follow the clock changes, others keep their offset
    truth = tables["truth"]
    for shown, deployment, at in [*zip(tables["photos"]["taken_at"], truth["deployment"], truth["at"], strict=True)][::7]:
        assert shown == datetime.fromtimestamp(at, zone_of(zones[deployment])).replace(tzinfo=None).isoformat()


def test_no_photo_lies_in_a_gap_or_outside_its_deployment():
    tables = camera_survey(Cameras(failures=1, flash=0, sites=6))
    zones = {d: zone_of(z) for d, z in zip(tables["deployments"]["deployment"], tables["deployments"]["zone"], strict=True)}
    when = {name: {d: datetime.fromisoformat(at).replace(tzinfo=zones[d]).timestamp() for d, at in zip(table["deployment"], table[end], strict=True)}
            for name, table, end in (("start", tables["deployments"], "start"), ("end", tables["deployments"], "end"), ("dead", tables["gaps"], "start"), ("again", tables["gaps"], "end"))}  # fmt: skip
    for d, at in zip(tables["visits"]["deployment"], tables["visits"]["at"], strict=True):
        assert when["start"][d] <= at < when["end"][d] and not when["dead"][d] <= at < when["again"][d]


def test_visits_of_a_taxon_at_a_site_are_an_hour_apart():
    tables = camera_survey(Cameras(per_day=5.0, sites=3, days=60, pairs=1))
    for site in {*tables["visits"]["site"]}:
        for taxon in {*tables["visits"]["taxon"]}:
            mine = (tables["visits"]["site"] == site) & (tables["visits"]["taxon"] == taxon)
            assert (np.diff(np.sort(tables["visits"]["at"][mine])) >= 3_600).all()


def test_the_same_parameters_give_the_same_tables_and_a_fault_changes_only_the_clocks():
    first, again, faulty = (camera_survey(Cameras(sites=3, days=60, wrong_clock=w)) for w in (0.0, 0.0, 1.0))
    for name, table in first.items():
        for column, values in table.items():
            assert np.array_equal(values, again[name][column], equal_nan=values.dtype.kind == "f")
    assert np.array_equal(first["truth"]["at"], faulty["truth"]["at"]) and (first["photos"]["taken_at"] != faulty["photos"]["taken_at"]).all()


def test_counts_follow_the_rates_and_the_matrix():
    p = Cameras(sites=400, days=100, failures=0, pairs=0, spread=0.5)
    counts = survey_counts(p)
    assert (counts["days"] == 100).all()
    expected = site_rates(p).sum(0) * 100
    assert np.abs(counts["true"].sum(0) - expected).max() < 5 * np.sqrt(expected.max())
    mixed = counts["true"].sum(0) @ confusion_shares(p)
    assert np.abs(counts["labelled"].sum(0) - mixed).max() < 5 * np.sqrt(mixed.max())


def test_times_are_written_as_the_rest_of_the_library_reads_them(tmp_path):
    tables = write_camera_survey(Cameras(sites=2, days=30), tmp_path / "survey")
    assert all(iso(text) == text for text in tables["photos"]["taken_at"][:50])
    assert {path.name for path in (tmp_path / "survey").iterdir()} == {"deployments.csv", "gaps.csv", "predictions.parquet", "truth"}


def test_parameters_out_of_bounds_are_refused():
    for wrong in ({"sites": 0}, {"days": 1.5e9}, {"right": -0.1}, {"taxa": ()}, {"per_day": (1,)}, {"siets": 3}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            named_cameras(wrong)
