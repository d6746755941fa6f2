"""From thirty folders and one CSV to a table of rates, as the guide says; zero and missing are different things."""

import csv
from datetime import datetime, timedelta

import pytest
from typer.testing import CliRunner

from species_wb.cli import app
from species_wb.core import UserError
from species_wb.predictions import predictions_table, write_predictions


def said(*words) -> str:
    done = CliRunner().invoke(app, ["survey", *map(str, words)])
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def rows(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def survey(tmp_path):
    "Thirty cameras for forty days: two photos each night in which the fox comes; camera 10 saw nothing, of camera 11 the end is missing."
    photos = []
    for site in range(1, 31):
        for night in range(0 if site == 10 else 20):
            at = datetime(2025, 5, 1, 23, 59, 50) + timedelta(days=night)  # a burst across midnight
            photos += [{"path": f"S{site:02d}/{night}-{k}.jpg", "status": "ok", "label": "fox", "taken_at": (at + timedelta(seconds=15 * k)).isoformat()} for k in range(2)]
    write_predictions(predictions_table(photos, tmp_path, ["fox"]), tmp_path / "survey.csv")
    lines = [f"S{k:02d},51,10,2025-05-01,{'' if k == 11 else '2025-06-10'},+01:00" for k in range(1, 31)]
    (tmp_path / "cameras.csv").write_text("\n".join(["site,lat,lon,start,end,zone", *lines]))
    return tmp_path


def test_from_photos_to_rates(survey):
    told = said("events", survey / "survey.csv", "--deployments", survey / "cameras.csv")
    assert "a pause of 30 minutes" in told and "580 events at 29 sites, from 1,160 rows" in told and len(rows(survey / "survey-events.csv")) == 580
    told = said("effort", survey / "cameras.csv", "--period", "month", "--figure", survey / "cameras.png", "--for-r", survey / "R")
    assert "1,160.0 camera-days of 29 deployments at 29 sites." in told and "not known, S11: it has no end that can be used" in told
    assert (survey / "cameras.png").stat().st_size > 10_000 and len(rows(survey / "R" / "camera_table.csv")) == 29
    told = said("rates", survey / "survey-events.csv", "--deployments", survey / "cameras.csv", "--by", "site")
    assert "20 events without effort stand in no rate" in told and "missing is not zero" in told
    by_site = {row["site"]: row["rate"] for row in rows(survey / "survey-events-rates.csv")}
    assert by_site["S10"] == "0" and by_site["S11"] == "" and by_site["S01"] == "50" and len(by_site) == 30
    told = said("rates", survey / "survey-events.csv", "--deployments", survey / "cameras.csv")
    assert "fox: 48.3 (" in told  # 560 on 1,160


def test_mistakes_are_taken_out_and_both_rates_stand_side_by_side(survey):
    said("events", survey / "survey.csv", "--deployments", survey / "cameras.csv")
    (survey / "mistakes.csv").write_text("truth,fox,empty\nfox,95,5\nempty,10,90\n")
    said("rates", survey / "survey-events.csv", "--deployments", survey / "cameras.csv", "--mistakes", survey / "mistakes.csv")
    fox = next(row for row in rows(survey / "survey-events-rates.csv") if row["label"] == "fox")
    assert {"rate", "low", "high", "rate_corrected", "low_corrected", "high_corrected"} <= {*fox} and float(fox["rate_corrected"]) > 0


@pytest.mark.parametrize("words, wanted", [
    (["events", "survey.csv"], "Name your table of cameras"), (["rates", "survey.csv", "--deployments", "cameras.csv"], "lacks the columns"),
    (["events", "survey.csv", "--deployments", "cameras.csv", "--since", "last"], "record or independent"),
    (["effort", "cameras.csv", "--figure", "a.txt"], "end its name in"), (["effort", "gone.csv"], "cannot be read"),
    (["events", "survey.csv", "--deployments", "cameras.csv", "--out", "a.xlsx"], "end the name in one of these")])
def test_a_mistake_is_told_in_one_sentence(survey, monkeypatch, words, wanted):
    monkeypatch.chdir(survey)
    with pytest.raises(UserError, match=wanted) as found:
        said(*words)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("period, left", [("", 1), ("day", 2)])
def test_with_periods_all_events_in_no_rate_are_announced(survey, period, left):
    "One event at a site without cameras; one on a day on which its camera did not stand."
    (survey / "cameras.csv").write_text("site,start,end,zone\nS01,2025-05-01,2025-06-10,+01:00\n")
    (survey / "photos.csv").write_text("path,status,label,taken_at\nS01/1.jpg,ok,fox,2025-05-09T12:00:00\n")
    said("events", survey / "photos.csv", "--deployments", survey / "cameras.csv")
    text = (survey / "photos-events.csv").read_text(encoding="utf-8-sig")
    row = text.splitlines()[1]
    more = [row.replace("S01", "S99"), row.replace("2025-05-09", "2025-08-09")]
    (survey / "photos-events.csv").write_text("\n".join([text.rstrip(), *more]) + "\n", encoding="utf-8")
    told = said("rates", survey / "photos-events.csv", "--deployments", survey / "cameras.csv", *(["--period", period] if period else []))
    assert f"{left} event{'s' * (left > 1)} without effort" in told


@pytest.mark.parametrize("words", [
    "check survey.csv --deployments cameras.csv --out cameras.csv", "check survey.csv --deployments cameras.csv --out survey.csv",
    "events survey.csv --deployments cameras.csv --out survey.csv", "events survey.csv --deployments cameras.csv --records cameras.csv",
    "effort cameras.csv --out cameras.csv", "effort cameras.csv --figure a.png --photos survey.csv --out survey.csv",
    "rates survey-events.csv --deployments cameras.csv --out survey-events.csv", "rates survey-events.csv --deployments cameras.csv --mistakes m.csv --out m.csv"])
def test_no_table_of_a_person_is_written_over(survey, monkeypatch, words):
    monkeypatch.chdir(survey)
    (survey / "survey-events.csv").write_text("mine"), (survey / "m.csv").write_text("mine")
    before = {path: path.read_bytes() for path in survey.iterdir()}
    with pytest.raises(UserError, match="is a table that this command reads"):
        said(*words.split())
    assert {path: path.read_bytes() for path in survey.iterdir()} == before


def test_dates_far_away_and_unknown_ones_give_sentences(survey, monkeypatch):
    "9999-12-31 stands for an end that is not known: the photos are placed, and the effort is missing."
    monkeypatch.chdir(survey)
    (survey / "cameras.csv").write_text("site,start,end,zone,gaps\nS01,2025-05-01,9999-12-31,+01:00,\nS02,2025-05-01,2025-06-10,+01:00,2025-05-03/9999-12-31\n")
    told = said("check", "survey.csv", "--deployments", "cameras.csv")
    assert "80 of 1,160 photos are in a deployment" in told and "the end in 9999 is none that can be used" in told and "is not used" in told
    assert "40.0 camera-days of 1 deployment " in said("effort", "cameras.csv")
    (survey / "cameras.csv").write_text("site,start,end\nS01,2025-05-01,\n")
    with pytest.raises(UserError, match="nothing for camtrapR"):
        said("effort", "cameras.csv", "--for-r", "R")
    (survey / "bare.csv").write_text("path,label\nS01/1.jpg,fox\n")
    with pytest.raises(UserError, match="No photo has a time that can be used"):
        said("check", "bare.csv")
