"""From the files of a survey to its numbers, as a person gets them."""

import numpy as np
import pandas as pd
import pytest

from species_wb.core import UserError
from species_wb.survey.effort import EFFORT, effort_by
from species_wb.survey.events import EVENTS, Rule
from species_wb.survey.numbers import effort_file, events_file
from species_wb.survey.survey_tables import read_survey_table


def test_camtraprs_sample_from_files_to_numbers(survey_data, tmp_path):
    "39 records and 122.5 trap nights (published), from a table of photos and camtrapR's own table of cameras."
    sample = pd.read_csv(survey_data / "reference" / "camtrapR_sample_images.csv")
    photos = pd.DataFrame({"path": [path.split("dir/")[1] for path in sample["path"]], "label": sample["species"], "taken_at": sample["datetime"], "status": "ok"})
    photos.to_csv(tmp_path / "photos.csv", index=False)
    cameras = survey_data / "reference" / "camtrapR_camtraps.csv"
    whole = pd.read_csv(cameras, dtype=str).drop(columns=["Problem1_from", "Problem1_to"])
    whole.to_csv(tmp_path / "whole.csv", index=False)
    said = events_file(tmp_path / "photos.csv", (tmp_path / "whole.csv", None, None), Rule(3600, without=("UNID",)), tmp_path / "events.csv", records=tmp_path / "records.csv")
    assert said[1].startswith("39 events at 3 sites, from 67 rows") and "  not in an event, not-counted: 1" in said
    assert len(read_survey_table(tmp_path / "events.csv", EVENTS)) == 39
    said = events_file(tmp_path / "photos.csv", (cameras, None, None), Rule(3600, without=("UNID",)), tmp_path / "gap.csv")
    assert said[1].startswith("38 events at 3 sites, from 65 rows") and "  not in an event, in-a-gap: 2" in said  # camtrapR does not ask
    theirs = pd.read_csv(survey_data / "reference" / "camtrapR_recordTableSample.csv")
    assert pd.read_csv(tmp_path / "records.csv")["delta.time.secs"].tolist() == theirs["delta.time.secs"].tolist()
    said = effort_file((cameras, None, None), "day", tmp_path / "effort.csv", tmp_path / "when.svg", tmp_path / "photos.csv", tmp_path / "r")
    table = read_survey_table(tmp_path / "effort.csv", EFFORT)
    assert effort_by(table)["days"][0] == 122.5 and said[0] == "122.5 camera-days of 3 deployments at 3 sites."
    assert "n = 68 photos" in (tmp_path / "when.svg").read_text() or (tmp_path / "when.svg").stat().st_size > 10_000
    matrix = pd.read_csv(tmp_path / "r" / "operation.csv", index_col=0)
    assert matrix.sum(axis=1).tolist() == [42, 43, 37.5] and (matrix == 0).sum().sum() == 6 and matrix.notna().sum().sum() == 131
    assert np.isnan(matrix.loc["StationB", "2009-04-02"])


def test_a_survey_of_no_photos_and_of_one(tmp_path):
    (tmp_path / "cameras.csv").write_text("site,start,end,zone\nNA,2024-02-28,2024-03-01,+02:00\n")
    for n, events in ((0, "0 events at 0 sites"), (1, "1 event at 1 site")):
        (tmp_path / "photos.csv").write_text("path,label,taken_at,status\n" + "NA/1.jpg,fox,2024-02-29T12:00:00,ok\n" * n)
        said = events_file(tmp_path / "photos.csv", (tmp_path / "cameras.csv", None, None), Rule(), tmp_path / "photos-events.csv")
        assert said[1].startswith(events) and len(read_survey_table(tmp_path / "photos-events.csv", EVENTS)) == n
    assert read_survey_table(tmp_path / "photos-events.csv", EVENTS)["site"].tolist() == ["NA"]
    assert effort_file((tmp_path / "cameras.csv", None, None), "day", tmp_path / "effort.csv")[0].startswith("2.0 camera-days")


def test_what_cannot_be_counted_is_one_sentence(tmp_path):
    cameras = tmp_path / "cameras.csv", None, None
    cameras[0].write_text("site,start,end\nA,2024-03-01,2024-02-01\nB,,\n")
    (tmp_path / "photos.csv").write_text("path,label,taken_at,status\n1.jpg,fox,,ok\n")
    said = effort_file(cameras, "day", tmp_path / "effort.csv")
    assert said[0].startswith("0.0 camera-days of 0 deployments") and sum("not known" in line for line in said) == 2
    said = events_file(tmp_path / "photos.csv", cameras, Rule(), tmp_path / "events.csv")
    assert said[1].startswith("0 events at 0 sites") and any("not in an event" in line for line in said)
    with pytest.raises(UserError) as error:
        events_file(tmp_path / "gone.csv", cameras, Rule(), tmp_path / "events.csv")
    assert "\n" not in str(error.value)
