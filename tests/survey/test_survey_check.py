"""`species-wb survey check` as a new user types it: thirty folders, a table of cameras from a spreadsheet, and nothing of theirs is changed."""

import csv
from datetime import datetime, timedelta

import pytest
from typer.testing import CliRunner

from species_wb.cli import app
from species_wb.core import UserError
from species_wb.predictions import predictions_table, write_predictions


def checked(*words) -> str:
    done = CliRunner().invoke(app, ["survey", "check", *map(str, words)])
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def survey(tmp_path):
    "The answers for thirty folders of forty photos, one each night; the clock of the ninth camera was reset, the tenth saw nothing."
    rows = []
    for site in range(1, 31):
        for night in range(0 if site == 10 else 40):
            at = datetime(2025, 3, 10, 22, site) + timedelta(days=night)
            at = datetime(2010, 1, 1, 0, 5) + timedelta(days=night - 25) if site == 9 and night >= 25 else at
            rows.append({"path": f"Füchse {site:02d}/DCIM/100MEDIA/IMG_{night:04d}.JPG", "site": f"Füchse {site:02d}", "status": "ok",
                         "label": "Mammalia", "score": 0.9, "taken_at": at.isoformat()})
    write_predictions(predictions_table(rows, tmp_path, ["Mammalia"]), tmp_path / "survey.csv")
    return tmp_path / "survey.csv"


def test_thirty_folders_and_a_spreadsheet_s_csv(survey, tmp_path):
    lines = [f"FÜCHSE {k:02d};51,{k};10,5;09.03.2025;20.04.2025;{k}" for k in range(1, 31)]
    cameras = tmp_path / "Kameras.csv"
    cameras.write_text("\r\n".join(["Site;Latitude;Longitude;Start date;End date;Camera ID", *lines]), encoding="latin-1")
    before = {path: path.read_bytes() for path in (survey, cameras)}
    said = checked(survey, "--deployments", cameras, "--zone", "Europe/Berlin")
    assert "30 deployments at 30 sites" in said and "1,145 of 1,160 photos are in a deployment." in said
    assert "jumped back from 2025-04-03 22:09:00" in said and "FÜCHSE 10 has no photo in this table" in said
    with (tmp_path / "survey-left-out.csv").open(encoding="utf-8-sig", newline="") as file:
        left = list(csv.DictReader(file))
    assert len(left) == 15 and {row["left_out"] for row in left} == {"outside"}
    assert {path: path.read_bytes() for path in before} == before


def test_a_proposal_is_checked_corrected_and_never_written_over(survey, tmp_path):
    said = checked(survey)
    proposal = tmp_path / "survey-deployments.csv"
    assert "29 deployments proposed" in said and str(proposal) in said and "Füchse 09: 15 photos have no time, or times" in said
    text = proposal.read_text(encoding="utf-8-sig")
    with pytest.raises(UserError, match="may hold your corrections"):
        checked(survey)
    said = checked(survey, "--deployments", proposal, "--zone", "+01:00")
    assert "1,145 of 1,160 photos" in said and "are only proposed" in said and "have no position" in said
    proposal.write_text(text.replace(",no", ",yes"), encoding="utf-8-sig")
    assert "only proposed" not in checked(survey, "--deployments", proposal, "--zone", "+01:00")


@pytest.mark.parametrize("words, said", [
    (["gone.csv"], "cannot be read as a table of photos"), (["survey.csv", "--deployments", "gone.csv"], "cannot be read"),
    (["survey.csv", "--deployments", "survey.csv", "--zone", "CEST"], "No time zone is called"),
    (["survey.csv", "--deployments", "survey.csv", "--dates", "ymd"], "dmy or mdy"), (["."], "is no table of photos")])
def test_a_mistake_is_told_in_one_sentence(survey, monkeypatch, words, said):
    monkeypatch.chdir(survey.parent)
    with pytest.raises(UserError, match=said) as found:
        checked(*words)
    assert "\n" not in str(found.value)


def test_photos_in_no_folder_are_placed_where_the_proposal_puts_them(tmp_path):
    rows = [{"path": f"{k}.jpg", "status": "ok", "label": "fox", "taken_at": f"2025-05-0{k}T12:00:00"} for k in (1, 2, 3)]
    write_predictions(predictions_table(rows, tmp_path, ["fox"]), tmp_path / "flat.csv")
    checked(tmp_path / "flat.csv")
    assert "3 of 3 photos are in a deployment." in checked(tmp_path / "flat.csv", "--deployments", tmp_path / "flat-deployments.csv", "--zone", "+01:00")
