"""Deployments: whatever table a person has, every line is read or reported, and every photo is in one deployment or in the list of those that are not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from conftest import examples
from hypothesis import given, strategies as st

from species_wb.core import UserError
from species_wb.survey.clocks import Clock, read_clock
from species_wb.survey.deployments import Deployment, Gap, read_deployments, write_deployments
from species_wb.survey.photo_tables import seconds_of
from species_wb.survey.placed import LEFT_OUT, clock_changes, place
from species_wb.survey.zones import named_zone, readings


def table(folder, *lines, name="cameras.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def kinds(path, **more):
    return [one.kind for one in read_deployments(path, **more)[1]]


def test_camtrapr_s_stations_have_days_and_whole_days_of_failure(survey_data):
    "Trap nights 42, 43 and 37.5 follow from these dates: noon to noon, malfunction days whole."
    found, problems = read_deployments(survey_data / "reference" / "camtrapR_camtraps.csv")
    assert [(one.deployment, one.site, one.hours, one.start, one.end) for one in found] == [
        (name, name, False, datetime(2009, 4, day, 12), datetime(2009, 5, last, 12))
        for name, day, last in (("StationA", 2, 14), ("StationB", 3, 16), ("StationC", 4, 17))]
    assert [one.gaps for one in found] == [(), (), (Gap(datetime(2009, 5, 12), datetime(2009, 5, 18)),)]
    assert [one.kind for one in problems] == ["no-place", "no-zone"]


def test_the_standard_s_example_has_its_seconds(survey_data):
    "859,859 s (printed in inbo/camtraptor#236) and the other three, to the second."
    found, problems = read_deployments(survey_data / "camtrap-dp" / "example")
    seconds = {one.deployment: (one.end - one.start).total_seconds() for one in found}
    assert seconds == {"00a2c20d": 2_789_044, "29b7d356": 859_859, "577b543a": 786_802, "62c200a9": 1_903_602}
    assert found[0].zone == "+02:00" and found[0].feature == "trailGame" and {one.kind for one in problems} <= {"zone-changes"}


def test_wildlife_insights_midnights_are_days_without_hours(tmp_path):
    head = "project_id,deployment_id,placename,longitude,latitude,start_date,end_date,bait_type,feature_type,camera_id"
    path = table(tmp_path, head, "p,d1,ridge,10.5,51.5,2018-07-14 00:00:00,2018-08-01 00:00:00,None,Trail game,c1")
    (one,), problems = read_deployments(path, "Europe/Berlin")
    assert (one.deployment, one.site, one.camera, one.hours, one.bait) == ("d1", "ridge", "c1", False, None)
    assert one.start.isoformat() == "2018-07-14T12:00:00+02:00" and [problem.kind for problem in problems] == ["only-days"]


def test_an_excel_sheet_keeps_days_hours_and_names(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["site", "start", "end", "lat", "lon", "zone"])
    book.active.append(["NA", datetime(2025, 6, 1), datetime(2025, 6, 9), 51.5, 10, "+01:00"])
    book.active.append([7, datetime(2025, 6, 1, 9, 30), datetime(2025, 6, 9, 17), -33.5, 151.25, "Australia/Sydney"])
    for cell in book.active["B2:C2"][0]:
        cell.number_format = "yyyy-mm-dd"
    book.save(tmp_path / "cameras.xlsx")
    found, problems = read_deployments(tmp_path / "cameras.xlsx")
    assert [(one.site, one.hours, one.start.isoformat()) for one in found] == [
        ("NA", False, "2025-06-01T12:00:00+01:00"), ("7", True, "2025-06-01T09:30:00+10:00")] and problems == []


HEAD = "site,lat,lon,start,end,zone"


@pytest.mark.parametrize("line, kind", [
    ("A,0,0,2025-06-01,2025-06-09,+01:00", "zero-place"), ("A,91,10,2025-06-01,2025-06-09,+01:00", "bad-place"),
    ("A,51,10,2025-06-09,2025-06-01,+01:00", "end-before-start"), ("A,51,10,2025-06-01,,+01:00", "no-end"),
    ("A,51,10,1970-01-01,1970-02-01,+01:00", "odd-year"), ("A,51,10,2099-01-01,2099-02-01,+01:00", "odd-year"),
    ("A,51,10,2025-02-29,2025-06-09,+01:00", "bad-date"), ("A,51,10,2025-06-01,2025-06-09,CEST", "bad-zone"),
    ("A,51,10,2025-03-30 02:30,2025-06-09,Europe/Berlin", "time-never"),
    ("A,51,10,2025-06-01,2025-10-26 02:30,Europe/Berlin", "time-twice"), ("A,51,10,2025-06-01,2025-06-09,", "no-zone")])
def test_what_is_wrong_in_a_line_is_reported(tmp_path, line, kind):
    found, problems = read_deployments(table(tmp_path, HEAD, line))
    assert len(found) == 1 and kind in [one.kind for one in problems]
    said = next(one for one in problems if one.kind == kind)
    assert "A" in said.what and said.what.endswith((".", "?")) and said.row in (1, None)


@pytest.mark.parametrize("lat, lon", [("51,5", "10,25"), ("-33.5", "180"), ("-33.5", "-180"), ("90", "0")])
def test_places_with_commas_and_at_the_date_line_are_places(tmp_path, lat, lon):
    (one,), _ = read_deployments(table(tmp_path, HEAD.replace(",", ";"), f"A;{lat};{lon};29.02.2024;01.04.2024;+01:00"))
    assert (one.lat, one.lon) == (float(lat.replace(",", ".")), float(lon.replace(",", "."))) and one.start.month == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_letters_and_a_site_called_na_stay(tmp_path, encoding):
    path = table(tmp_path, "site;start;end;zone;camera", "NA;2025-06-01;2025-06-09;+01:00;NA", "Gärten;2025-06-01;2025-06-09;+01:00;7", encoding=encoding)
    assert [(one.site, one.camera) for one in read_deployments(path)[0]] == [("NA", None), ("Gärten", "7")]  # a site may be called NA; in the column camera it is a missing value


def test_two_stays_of_one_camera_at_once_are_reported_and_two_cameras_are_told(tmp_path):
    lines = "A,1,2025-06-01,2025-06-09", "B,1,2025-06-08,2025-06-20", "C,2,2025-06-01,2025-06-09", "C,3,2025-06-01,2025-06-09"
    found = read_deployments(table(tmp_path, "site,camera,start,end", *lines), "+01:00")[1]
    assert [one.kind for one in found] == ["no-place", "overlap", "two-cameras"] and "one place" in found[1].what


@pytest.mark.parametrize("lines, said", [
    ((HEAD,), "has no rows"), (("a,b", "1,2"), "names the sites"), (("site,start,end", "A,02/04/2009,03/04/2009"), "two ways"),
    (("site,start,end", "A,14/05/2009,05/20/2009"), "the day first in 14/05/2009")])
def test_a_table_that_cannot_be_read_is_refused_in_one_sentence(tmp_path, lines, said):
    with pytest.raises(UserError, match=said):
        read_deployments(table(tmp_path, *lines))


def test_days_come_first_only_if_something_says_so(tmp_path):
    path = table(tmp_path, "site,start,end", "A,4/2/2009,5/6/2009")
    assert [read_deployments(path, dates=order)[0][0].start.month for order in ("dmy", "mdy")] == [2, 4]


def test_what_is_written_is_read_again(tmp_path):
    berlin = ZoneInfo("Europe/Berlin")
    at = [datetime(2025, 10, 26, 2, 30, tzinfo=berlin, fold=fold) for fold in (0, 1)]
    drift = Clock(known=((datetime(2025, 10, 1), datetime(2025, 10, 1, tzinfo=berlin)), (datetime(2025, 11, 1), datetime(2025, 11, 1, 0, 3, tzinfo=berlin))))
    some = [Deployment("=1+1", "007", 51.5, -180.0, at[0], at[1], "Europe/Berlin", "1-2", clock=drift, gaps=(Gap(at[0], at[1], True),), comments="a;b"),
            Deployment("a", "NA", start=datetime(2025, 6, 1, 12), end=datetime(2025, 6, 3, 12), hours=False, clock=Clock(-3600.25), more={"x": "NA"})]
    write_deployments(some, tmp_path / "d.csv")
    back = read_deployments(tmp_path / "d.csv")[0]
    assert [replace(one, clock=Clock(), more={}) for one in back] == [replace(one, clock=Clock(), more={}) for one in some]
    assert back[1].clock == some[1].clock and [a.timestamp() for _, a in back[0].clock.known] == [a.timestamp() for _, a in drift.known]


# A year with everything in it


ZONES = ["Europe/Berlin", "America/St_Johns", "Australia/Sydney", "+05:45"]
START = datetime(2024, 1, 10, 9, tzinfo=UTC).timestamp()
YEAR = 366 * 86400.0
CHANGES = {"Europe/Berlin": [(2024, 3, 31, 1), (2024, 10, 27, 1)], "America/St_Johns": [(2024, 3, 10, 5, 30), (2024, 11, 3, 4, 30)],
           "Australia/Sydney": [(2024, 4, 6, 16), (2024, 10, 5, 16)], "+05:45": [(2024, 5, 1)]}


def shows(zone: str, at: float, reset: float, ahead: float) -> str:
    "What the clock of a camera shows that follows the changes, is ahead, and starts again in 2010 after a reset."
    if at >= reset:
        return (datetime(2010, 1, 1) + timedelta(seconds=at - reset)).isoformat()
    return (datetime.fromtimestamp(at, named_zone(zone)).replace(tzinfo=None) + timedelta(seconds=ahead)).isoformat()


@st.composite
def years(draw):
    "A camera's year: its zone, how far its clock is ahead, its failure, the reset of its clock, its photos and a film."
    zone = draw(st.sampled_from(ZONES))
    near = [datetime(*at, tzinfo=UTC).timestamp() for at in CHANGES[zone]]
    minutes = draw(st.lists(st.integers(-120, 120), max_size=12))
    photos = [middle + 60 * one for middle in near for one in minutes]
    photos += [START + YEAR * share for share in draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=12))]
    failure = START + YEAR * draw(st.floats(0, 0.9))
    reset = draw(st.one_of(st.just(np.inf), st.floats(0.5, 0.99).map(lambda share: START + YEAR * share)))
    return zone, draw(st.sampled_from([0, 0, 3600, -43200])), failure, np.floor(reset), sorted({float(np.floor(at)) for at in photos})


def cards(zone, ahead, reset, photos):
    "The photos as the card holds them, with a film of three frames behind each tenth photo, and the truth."
    rows = []
    for k, at in enumerate(photos):
        film = k % 10 == 9
        began = datetime.fromisoformat(shows(zone, at, reset, ahead))
        for frame in range(3 if film else 1):
            rows.append({"path": f"pond/IMG_{k:04d}.{'MP4' if film else 'JPG'}", "seconds": 5.0 * frame if film else None,
                         "taken_at": (began + timedelta(seconds=5 * frame)).isoformat(), "truth": at + 5 * frame, "began": at})
    return pd.DataFrame(rows)


@given(years())
@examples(30)
def test_in_a_year_with_everything_each_photo_is_in_one_deployment_or_in_the_list(year):
    zone, ahead, failure, reset, photos = year
    tz, until = named_zone(zone), START + YEAR
    moment = lambda at: datetime.fromtimestamp(at, tz)  # noqa: E731
    gap = Gap(moment(np.floor(failure)), moment(np.floor(failure) + 20 * 86400))
    whole = Deployment("pond-1", "pond", start=moment(START), end=moment(until), zone=zone, clock=Clock(-ahead), gaps=(gap,))
    table = cards(zone, ahead, reset, photos)
    truth, began = table["truth"].to_numpy(), table["began"].to_numpy()
    after, broken = began >= reset, (began >= gap.start.timestamp()) & (began < gap.end.timestamp())
    placed, problems = place(table, [whole])
    said = [one.kind for one in problems]
    left = placed["left_out"].to_numpy(object)
    assert len(placed) == len(table) and {*left} <= {None, *LEFT_OUT}
    assert (placed["deployment"].isna() == placed["left_out"].notna()).all()
    doubt = "time-twice" in said
    twice = np.array([len(readings(datetime.fromisoformat(shows(zone, at, reset, 0)), tz)) == 2 for at in began])
    wrong = np.abs(placed["at"].to_numpy() - truth) > 1
    assert left[after].tolist() == ["outside"] * after.sum()
    assert not (wrong & ~after & ~twice).any() and (doubt or not (wrong & ~after).any())  # right by the order of names, or reported
    sure = ~after & ~(twice & doubt)
    assert left[sure & ~broken].tolist() == [None] * (sure & ~broken).sum()
    assert left[sure & broken].tolist() == ["in-a-gap"] * (sure & broken).sum()
    if not after.any() or after.all():
        return
    first = int(np.flatnonzero(after)[0])  # the true time of one photo mends the reset: two rows; the clock then runs on unchanged
    known = f"{table['taken_at'][first].replace('T', ' ')}={moment(truth[first]).isoformat(' ')}"
    counted = named_zone(moment(truth[first]).isoformat()[19:])
    second = replace(whole, deployment="pond-2", start=moment(reset), zone=moment(truth[first]).isoformat()[19:], clock=read_clock(known, counted))
    mended, _ = place(table, [replace(whole, end=moment(reset)), second])
    inside = after & mended["left_out"].isna().to_numpy()
    assert set(mended["deployment"][inside]) <= {"pond-2"} and np.allclose(mended["at"][inside], truth[inside], atol=1)
    assert mended["left_out"][after & ~inside].tolist() == ["in-a-gap"] * (after & broken).sum()
    assert all(one.seconds[0] > 10 * 365 * 86400 for one in clock_changes(mended, [second]))


def test_a_camera_that_is_not_changed_shows_times_that_never_were_and_its_offset_mends_them():
    at = datetime(2025, 3, 30, 1, 30, tzinfo=UTC).timestamp()  # by a clock that stays at +01:00: 02:30
    table = pd.DataFrame({"path": ["pond/1.jpg"], "taken_at": ["2025-03-30T02:30:00"]})
    stay = Deployment("pond", "pond", start=datetime(2025, 3, 1), end=datetime(2025, 4, 9), zone="Europe/Berlin")
    placed, found = place(table, [stay])
    assert placed["left_out"].tolist() == ["time-that-never-was"] and "give its zone as an offset" in found[0].what
    placed, found = place(table, [replace(stay, zone="+01:00")])
    assert placed["at"].tolist() == [at] and placed["left_out"].tolist() == [None] and found == []


def test_photos_without_a_time_from_1970_and_2099_are_listed():
    table = pd.DataFrame({"path": [f"pond/{k}.jpg" for k in range(4)], "taken_at": [None, "1970-01-01T00:00:10", "2099-01-01T00:00:00", "2025-06-02T00:00:00"]})
    placed, found = place(table, [Deployment("pond", "pond", start=datetime(2025, 6, 1), end=datetime(2025, 6, 9))])
    assert placed["left_out"].tolist() == ["no-time", "outside", "outside", None]
    assert sorted(one.kind for one in found if one.kind != "clock-reset") == ["no-time", "outside"]


def test_two_deployments_that_fit_leave_a_photo_out():
    table = pd.DataFrame({"path": ["pond/1.jpg", "pond/B/2.jpg"], "taken_at": ["2025-06-02T00:00:00"] * 2})
    both = [Deployment(name, "pond", start=datetime(2025, 6, 1), end=datetime(2025, 6, 9), camera=name) for name in "AB"]
    placed, found = place(table, both)
    assert placed["left_out"].tolist() == ["two-deployments", None] and placed["deployment"].tolist() == [None, "B"]


def test_an_empty_table_and_no_deployments_are_placed():
    placed, found = place(pd.DataFrame({"path": ["a.jpg"], "taken_at": ["2025-06-02T00:00:00"]}), [])
    assert placed["left_out"].tolist() == ["no-deployment"] and len(found) == 1
    assert len(place(pd.DataFrame({"path": [], "taken_at": []}, dtype="str"), [])[0]) == 0


def test_times_are_read_as_python_reads_them():
    texts = ["2025-06-01T12:00:00", "2025-06-01T12:00:00.250+02:00", "2024-02-29 23:59:59Z", "1969-12-31T23:59:59-03:30", "2025-02-29T00:00:00", "now"]
    shown, offset = seconds_of(pd.Series(texts))
    for text, wall, behind in zip(texts[:4], shown, offset, strict=False):
        at = datetime.fromisoformat(text)
        assert wall == at.replace(tzinfo=UTC).timestamp() and (at.utcoffset() is None) == np.isnan(behind)
        assert at.utcoffset() is None or at.utcoffset().total_seconds() == behind
    assert np.isnan(shown[4:]).all()
