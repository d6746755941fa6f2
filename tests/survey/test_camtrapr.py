"""Tables for camtrapR are what camtrapR itself makes of the same photos, and what it reads."""

import csv
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from species_wb.core import UserError
from species_wb.survey.camtrapr import camera_table, record_table, write_for_r
from species_wb.survey.deployments import Deployment, Gap, read_deployments
from species_wb.survey.effort import effort_summary
from species_wb.survey.events import EVENTS, Rule, survey_events
from species_wb.survey.operation import operation
from species_wb.survey.survey_tables import read_survey_table, write_survey_table


@pytest.fixture(scope="module")
def sample(survey_data) -> pd.DataFrame:
    table = pd.read_csv(survey_data / "reference" / "camtrapR_sample_images.csv")
    at = pd.to_datetime(table["datetime"]).astype("datetime64[s]").astype("int64").astype(float)
    return pd.DataFrame({"path": table["path"], "deployment": table["station"], "site": table["station"], "label": table["species"], "local": table["datetime"], "at": at})


def test_the_record_table_is_camtraprs_own(survey_data, sample):
    "All 39 records of the package's sample, with the times since the record before; no tolerance."
    theirs = pd.read_csv(survey_data / "reference" / "camtrapR_recordTableSample.csv")
    rule = Rule(3600, without=("UNID",))
    ours = record_table(survey_events(sample, rule).events, rule)
    columns = [name for name in theirs if name not in ("Directory", "FileName")]
    assert len(theirs) == 39 and ours["FileName"].tolist() == theirs["FileName"].tolist()
    pd.testing.assert_frame_equal(ours[columns], theirs[columns], check_dtype=False)


def test_the_camera_table_says_what_the_deployments_say(survey_data, tmp_path):
    sample, _ = read_deployments(survey_data / "reference" / "camtrapR_camtraps.csv")
    table, form, said = camera_table(sample)
    theirs = pd.read_csv(survey_data / "reference" / "camtrapR_camtraps.csv", keep_default_na=False)
    assert form == "ymd" and said == []
    for column in ("Setup_date", "Retrieval_date", "Problem1_from", "Problem1_to"):
        turned = ["-".join(reversed(text.split("/"))) for text in theirs[column]]
        assert table[column].fillna("").tolist() == turned, column
    write_for_r(table, tmp_path / "cameras.csv")
    assert effort_summary(read_deployments(tmp_path / "cameras.csv")[0])["days"].tolist() == [42, 43, 37.5]


def test_hours_gaps_and_cameras_come_back(tmp_path):
    zone = ZoneInfo("Europe/Berlin")
    at = lambda day, hour: datetime(2025, 10, day, hour, tzinfo=zone)  # noqa: E731
    one = Deployment("1", "NA", 52.5, -13.4, at(1, 8), at(20, 9), camera="=7", gaps=(Gap(at(3, 4), at(4, 5)), Gap(at(8, 1), at(12, 1))))
    two = replace(one, deployment="2", camera="8", start=at(5, 8), gaps=(Gap(at(4, 1), at(6, 1)),))
    table, form, said = camera_table([one, two])
    assert form == "ymd HMS" and said == []
    write_for_r(table, tmp_path / "cameras.csv")
    lines = list(csv.DictReader((tmp_path / "cameras.csv").open()))
    assert lines[0]["Station"] == "'NA" and lines[0]["Setup_date"] == "2025-10-01 08:00:00" and lines[1]["Problem2_from"] == ""
    back, _ = read_deployments(tmp_path / "cameras.csv", "Europe/Berlin")
    assert effort_summary(back)["seconds"].tolist() == effort_summary([one, two])["seconds"].tolist()
    assert [(b.site, b.camera, b.lat, b.lon) for b in back] == [("NA", "=7", 52.5, -13.4), ("NA", "8", 52.5, -13.4)]


def test_the_operation_matrix_has_row_names_and_empty_cells(tmp_path):
    one = Deployment("1", "A", start=datetime(2025, 6, 1, 12), end=datetime(2025, 6, 2, 12))
    two = replace(one, deployment="2", site="007", start=datetime(2025, 6, 2, 6), camera="9")
    write_for_r(operation([one, two]), tmp_path / "operation.csv", row_names=True)
    assert (tmp_path / "operation.csv").read_text().splitlines() == [",2025-06-01,2025-06-02", "'007,,0.25", "A,0.5,0.5"]


def test_what_the_camera_table_cannot_hold_is_said():
    one = Deployment("1", "A", start=datetime(2025, 6, 1), end=datetime(2025, 6, 30))
    gap = lambda k, **more: Gap(datetime(2025, 6, k), datetime(2025, 6, k, 5), **more)  # noqa: E731
    _, _, said = camera_table([replace(one, gaps=(gap(3, nights=True),)), replace(one, deployment="2", start=None)])
    assert [text.partition(":")[0] for text in said] == ["2 is left out, because its effort is not known (no-start).", "1"]
    assert len(camera_table([replace(one, gaps=tuple(map(gap, range(2, 11))))]).table.columns) == 5 + 18
    with pytest.raises(UserError, match="10 gaps"):
        camera_table([replace(one, gaps=tuple(map(gap, range(2, 12))))])


def test_events_come_back_from_a_file_as_they_were(tmp_path: Path, sample):
    events = survey_events(sample, Rule(3600)).events
    for name in ("events.csv", "events.parquet"):
        write_survey_table(events, tmp_path / name)
        pd.testing.assert_frame_equal(read_survey_table(tmp_path / name, EVENTS), events)
    night = datetime(2025, 10, 26, 2, 59, 58, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    times = [datetime.fromtimestamp(night + k, ZoneInfo("Europe/Berlin")).isoformat() for k in (0, 5)]
    odd = pd.DataFrame({"path": ["=1.jpg", "2.jpg"], "deployment": "007", "site": "NA", "label": "Mar-1", "local": times, "at": [night, night + 5]})
    write_survey_table(survey_events(odd).events, tmp_path / "odd.csv")
    back = read_survey_table(tmp_path / "odd.csv", EVENTS)
    assert back[["site", "deployment", "label", "photo"]].iloc[0].tolist() == ["NA", "007", "Mar-1", "./=1.jpg"[2:]]
    assert (back["at"][0], back["until"][0]) == (night, night + 5) and back["end"][0] == times[1].replace("02:00:03+01:00", "03:00:03+02:00")
    assert timedelta(seconds=5) == datetime.fromisoformat(back["end"][0]) - datetime.fromisoformat(back["start"][0])
