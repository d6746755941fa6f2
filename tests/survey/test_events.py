"""Events of a survey: the numbers that others published, each photo in one event or with a reason, whatever the order, the clock and the film."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from conftest import examples
from hypothesis import given, strategies as st

from species_wb.core import UserError
from species_wb.survey.deployments import Deployment
from species_wb.survey.events import EVENTS, Rule, rule_said, survey_events
from species_wb.survey.observations import events as bursts

BERLIN, SYDNEY = ZoneInfo("Europe/Berlin"), ZoneInfo("Australia/Sydney")


def placed(rows: list[dict]) -> pd.DataFrame:
    "A placed table of rows with `at` in seconds; what they do not say is filled in."
    full = []
    for k, row in enumerate(rows):
        local = datetime.fromtimestamp(row["at"], row.pop("zone", UTC)).isoformat()
        full.append({"path": f"{k}.jpg", "deployment": row.get("site", "pond"), "site": "pond", "label": "fox", "local": local, "left_out": None, "score": 0.5} | row)
    return pd.DataFrame(full)


def spans(table: pd.DataFrame) -> list[tuple]:
    return sorted(zip(table["site"], table["label"], table["at"], table["until"], table["count"], table["photos"], strict=True))


@pytest.fixture(scope="module")
def sample(survey_data) -> pd.DataFrame:
    "camtrapR's 68 sample photos."
    table = pd.read_csv(survey_data / "reference" / "camtrapR_sample_images.csv")
    at = pd.to_datetime(table["datetime"]).astype("datetime64[s]").astype("int64").astype(float)
    return pd.DataFrame({"path": table["path"], "deployment": table["station"], "site": table["station"], "label": table["species"], "local": table["datetime"], "at": at, "left_out": None})


@pytest.mark.parametrize("rule, n, without_unid", [  # published: test_recordTable.R:84-89, and check_refs.py; no tolerance
    (Rule(3600), 40, 39), (Rule(3600, "independent"), 40, 39), (Rule(0), 56, 55), (Rule(0, same_moment=False), 68, 67),
    (Rule(120), 47, 46), (Rule(120, "independent"), 48, 47),
])  # fmt: skip
def test_as_many_records_as_camtrapr_finds(sample, rule, n, without_unid):
    assert len(sample) == 68 and len(survey_events(sample, rule).events) == n
    unid = Rule(rule.gap, rule.since, without=("UNID",), same_moment=rule.same_moment)
    grouped = survey_events(sample, unid)
    assert len(grouped.events) == without_unid and (grouped.rows["left_out"] == "not-counted").sum() == 1


def test_as_many_records_of_each_species_at_each_station(sample):  # published: camtrapr4.pdf p. 17; no tolerance
    found = survey_events(sample, Rule(3600, without=("UNID",))).events.groupby(["site", "label"]).size().to_dict()
    assert {(site[-1], label): n for (site, label), n in found.items()} == {
        ("A", "PBE"): 4, ("A", "VTA"): 2, ("B", "MNE"): 2, ("B", "PBE"): 8, ("B", "VTA"): 2,
        ("C", "EGY"): 6, ("C", "PBE"): 6, ("C", "TRA"): 8, ("C", "VTA"): 1,
    }  # fmt: skip


def test_the_example_package_has_31_events(survey_data):
    "Of any label together, as its makers group them: 31 (printed in biowatch#90), with a gap of 60 or of 120 seconds."
    media = pd.read_csv(survey_data / "camtrap-dp" / "example" / "media.csv")
    media = media[media["captureMethod"] == "activityDetection"]
    at = pd.to_datetime(media["timestamp"], utc=True).astype("datetime64[s, UTC]").astype("int64").astype(float)
    photos = pd.DataFrame({"path": media["filePath"], "deployment": media["deploymentID"], "label": "any", "local": media["timestamp"], "at": at})
    assert [len(survey_events(photos, Rule(gap)).events) for gap in (60, 120)] == [31, 31]


def plain_events(table: pd.DataFrame, rule: Rule) -> list[tuple]:
    "The same events found one photo after another, as a person would."
    files = defaultdict(list)
    for row in table.to_dict("records"):
        place = (row["site"], row["deployment"]) if rule.by == "camera" else (row["site"],)
        files[*place, row["label"], row["path"]].append((row["at"], -1 if pd.isna(row["seconds"]) else row["seconds"]))
    groups = defaultdict(list)
    for (*key, _), frames in files.items():
        most = max(sum(second == other for _, other in frames) for _, second in frames)
        groups[tuple(key)].append((min(frames)[0], max(frames)[0], most))
    found = []
    for key, records in groups.items():
        events = []
        for start, end, n in sorted(records):
            latest, before = max((one[1] for one in events), default=0), events[-1][0] if events and rule.since == "independent" else None
            before = latest if before is None else before  # while a film runs, nothing new begins
            if events and (start < latest or start - before < rule.gap or (start <= before and rule.gap == 0)):
                events[-1] = [events[-1][0], max(events[-1][1], end), max(events[-1][2], n), events[-1][3] + 1]
            else:
                events.append([start, end, n, 1])
        found += [(key[0], key[-1], *event) for event in events]
    return sorted(found)


ROWS = st.lists(st.fixed_dictionaries({
    "at": st.integers(0, 40).map(lambda k: k * 30.0), "site": st.sampled_from(["pond", "hill"]), "deployment": st.sampled_from(["1", "2"]),
    "label": st.sampled_from(["fox", "owl"]), "file": st.integers(0, 3), "film": st.integers(0, 3)}), max_size=25)  # fmt: skip
RULES = st.builds(Rule, gap=st.sampled_from([0.0, 30.0, 60.0, 90.0]), since=st.sampled_from(["record", "independent"]), by=st.sampled_from(["site", "camera"]))


@given(ROWS, RULES, st.randoms())
@examples(18)
def test_events_are_those_that_a_person_finds_photo_by_photo(rows, rule, order):
    "Photos, boxes and films in any order: one event each, the same as by hand, with the same ids."
    rows = [row | ({"path": f"{row['film']}{row['site']}{row['deployment']}.mp4", "seconds": row["at"]} if row["film"] < 2 else
                   {"path": f"{row['file']}-{row['at']}{row['site']}{row['deployment']}.jpg", "seconds": None}) | {"x0": 0.1} for row in rows]  # fmt: skip
    table = placed(rows) if rows else placed([{"at": 0.0, "seconds": None}])[:0]
    events, fates = survey_events(table, rule)
    assert spans(events) == plain_events(table, rule) and {*events["event_id"]} == {*fates["event_id"]}
    assert events["event_id"].is_unique and fates["left_out"].isna().all()
    order.shuffle(places := [*range(len(table))])
    again = survey_events(table.iloc[places], rule)
    assert again.rows["event_id"].tolist() == fates["event_id"].iloc[places].tolist() and spans(again.events) == spans(events)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=20), st.sampled_from([29.5, 60.5]))
@examples(10)
def test_bursts_of_a_running_camera_are_the_same_events_with_the_same_ids(seconds, gap):
    rows = placed([{"at": float(s), "path": f"{k}.jpg", "x0": 0.5 if s % 3 else None} for k, s in enumerate(seconds)])
    theirs = bursts([{**row, "taken_at": row["local"], "x0": row["x0"] if row["x0"] == row["x0"] else None} for row in rows.to_dict("records")], gap)
    ours = survey_events(rows, Rule(gap)).events
    assert ours[["event_id", "start", "end", "count"]].to_numpy().tolist() == [[o["event_id"], o["start"], o["end"], o["count"]] for o in theirs]


@pytest.mark.parametrize("moment", [
    datetime(2025, 6, 1, 0, 0, tzinfo=BERLIN), datetime(2025, 10, 26, 3, 0, tzinfo=BERLIN) - timedelta(hours=0), datetime(2025, 3, 30, 3, 0, tzinfo=BERLIN),
    datetime(2025, 4, 6, 3, 0, tzinfo=SYDNEY), datetime(2025, 10, 5, 3, 0, tzinfo=SYDNEY), datetime(2025, 1, 1, tzinfo=BERLIN), datetime(2024, 2, 29, tzinfo=BERLIN),
])  # fmt: skip
def test_a_burst_is_one_event_across_midnight_and_when_clocks_change(moment):
    at = moment.timestamp() - (3600 if moment.month in (10, 4) and moment.hour == 3 and moment.utcoffset() != (moment - timedelta(hours=2)).utcoffset() else 0)
    rows = placed([{"at": at + k, "zone": moment.tzinfo} for k in range(-3, 4)])
    events, fates = survey_events(rows, Rule(60))
    assert len(events) == 1 and events["photos"][0] == 7 and (events["until"] - events["at"])[0] == 6
    assert events["day"][0] == rows["local"].iloc[0][:10] and len({*rows["local"]}) == 7 and fates["event_id"].nunique() == 1


def test_the_hour_that_exists_twice_is_two_hours():
    first = datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN)
    rows = placed([{"at": first.timestamp() + 3600 * k, "zone": BERLIN} for k in range(2)])
    assert [text[11:] for text in rows["local"]] == ["02:30:00+02:00", "02:30:00+01:00"]
    events = survey_events(rows).events
    assert len(events) == 2 and events["event_id"].is_unique


def test_a_film_is_one_thing_seen_however_long():
    frames = [{"at": 5.0 * k, "path": "a.mp4", "seconds": 5.0 * k, "x0": x} for k in range(1, 100) for x in (0.1, 0.5, 0.9)[: 1 + k % 3]]
    events = survey_events(placed([*frames, {"at": 495.0 + 60}]), Rule(60)).events
    assert events[["photos", "count"]].to_numpy().tolist() == [[1, 3], [1, 1]] and events["at"].tolist() == [5.0, 555.0]
    inside = survey_events(placed([*frames, {"at": 300.0}]), Rule(60)).events  # a photo while the film runs
    assert inside["photos"].tolist() == [2]


def test_every_row_has_an_event_or_a_reason():
    reasons = ["no-time", "no-deployment", "two-deployments", "outside", "in-a-gap", "time-that-never-was"]
    rows = placed([{"at": 0.0, "left_out": why} for why in [*reasons, None]] + [{"at": 0.0, "label": None}, {"at": 0.0, "label": "UNID"}])
    rows.loc[0, "at"] = np.nan
    rows["abstained"], rows["status"] = [None] * 7 + [True, False], "ok"
    fates = survey_events(rows, Rule(without=("unid",))).rows
    assert fates["left_out"].dropna().tolist() == [*reasons, "no-answer", "not-counted"]
    assert (fates["left_out"].isna() == fates["event_id"].notna()).all() and fates["event_id"].notna().sum() == 1
    one = placed([{"at": 0.0}])
    for word, n in (("FALSE", 1), ("TRUE", 0), (False, 1), (True, 0), (None, 1), ("", 1)):  # of a CSV, and of Parquet
        assert len(survey_events(one.assign(abstained=pd.Series([word], dtype=type(word) if word in (True, False) else object))).events) == n, word


def test_observations_can_be_grouped_again():
    "A table of observations has a start and an end: a pause is measured from the end."
    text = lambda s: datetime.fromtimestamp(s, UTC).isoformat()  # noqa: E731
    seen = [(0, 300, 2, "machine"), (1800, 1810, 3, "machine"), (3700, 3700, 1, "human")]
    rows = placed([{"at": float(a), "start": text(a), "end": text(b), "count": n, "method": who, "photo": f"{a}.mp4#t=12"} for a, b, n, who in seen]).drop(columns="path")
    events = survey_events(rows, Rule(1800)).events
    assert events[["at", "until", "count", "method"]].to_numpy().tolist() == [[0, 1810, 3, "machine"], [3700, 3700, 1, "human"]]
    one = survey_events(rows, Rule(1900)).events  # the person's word counts, though the machine saw more
    assert one["count"].tolist() == [1] and one["method"].tolist() == ["human"] and one["end"].tolist() == [text(3700)]


def test_sites_cameras_and_places_are_those_of_the_deployments():
    rows = placed([{"at": 0.0, "deployment": "a"}, {"at": 9.0, "deployment": "b"}]).assign(site=["folder 1", "folder 2"])
    two = [Deployment("a", "NA", lat=-33.0, lon=180.0, camera="1"), Deployment("b", "NA", lat=-33.0, lon=180.0, camera="2")]
    events = survey_events(rows, deployments=two).events
    assert events[["site", "deployment", "lat", "lon", "photos"]].to_numpy().tolist() == [["NA", "a", -33, 180, 2]]
    assert len(survey_events(rows, Rule(by="camera"), two).events) == 2 and len(survey_events(rows).events) == 2


def test_an_event_at_a_rank_has_the_name_of_that_rank():
    rows = placed([{"at": 0.0, "label": "Mammalia", "taxon": "Vulpes vulpes", "taxon_rank": "species"}, {"at": 9.0, "label": "Mammalia", "taxon": "Canis lupus", "taxon_rank": "species"}, {"at": 9.0, "label": "Mammalia", "taxon": None, "taxon_rank": None}])
    events, fates = survey_events(rows, Rule(rank="family"))
    assert events[["label", "photos"]].to_numpy().tolist() == [["Canidae", 2]] and fates["left_out"].tolist()[2] == "no-name-at-rank"
    assert sorted(survey_events(rows, Rule(rank="taxon")).events["label"]) == ["Canis lupus", "Mammalia", "Vulpes vulpes"]


def test_nothing_one_and_times_of_any_year():
    rows = placed([{"at": datetime(year, 1, 1, tzinfo=UTC).timestamp()} for year in (1970, 2010, 2099)])
    assert survey_events(rows).events["start"].str[:4].tolist() == ["1970", "2010", "2099"]
    for n in (0, 1):
        events, fates = survey_events(rows[:n])
        assert len(events) == len(fates) == n and events.dtypes.astype(str).to_dict() == {name: kind for name, kind in EVENTS.items()}
    assert len(survey_events(rows.assign(left_out="no-time")).events) == 0


def test_a_rule_that_cannot_be_followed_is_one_sentence():
    for wrong in ({"gap": -1}, {"gap": float("inf")}, {"since": "x"}, {"by": "x"}):
        with pytest.raises(UserError):
            Rule(**wrong)
    with pytest.raises(UserError, match="place its photos"):
        survey_events(pd.DataFrame({"path": ["1.jpg"]}))
    assert all(said.count(".") == 1 and "30 minutes" in said for said in map(rule_said, (Rule(), Rule(since="independent", burst=60))))


def test_two_films_that_overlap_pause_from_the_later_end():
    film = lambda name, *seconds: [{"at": float(s), "path": name, "seconds": float(s)} for s in seconds]  # noqa: E731
    table = placed([*film("a.mp4", 0, 500), *film("b.mp4", 10, 20), {"at": 540.0}])
    assert survey_events(table, Rule(60)).events["photos"].tolist() == [3]
    assert [b - a for a, b in pairwise(survey_events(table, Rule(30)).events["at"])] == [540.0]
