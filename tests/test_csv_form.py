"""What our CSV tables promise: Excel, R and pandas read the same letters, times and numbers, and so do we."""

import csv
import io
import json
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from conftest import given as lacked

from species_wb.append_only import AppendOnlyTable, read_rows
from species_wb.curate.predictions import open_predictions
from species_wb.photos.tables import read_csv
from species_wb.predictions import LATER, PREDICTIONS, predictions_table, write_predictions
from species_wb.survey.observations import append_observations, events, read_observations

MARK = b"\xef\xbb\xbf"
FOX = {"path": "Rotfuchs ä.jpg", "site": "Säuwald", "status": "ok", "label": "Füchse", "score": 0.981, "seconds": 1.2,
       "taken_at": "2024-05-01T10:00:00", "abstained": False, "lat": 48.137154, "model": "0123456789abcdef"}  # fmt: skip
#      what a spreadsheet, R or pandas would make something else of
SITES = ["007", "1-2", "3E5", "12345678e5", "1234567890123456", "true", "Mar1", "2024-05-01", "1/2", "10:30", "5%",
         "1.5", "0,50", "None", "NA", "1 a", "1. Mai", "=1+1", "'007", "''=1", "3. Okt 2024", "nan", "FALSE"]
KEPT = ["12", "cam1", "A03", "1a", "Teich 7", "2_1", "0007.jpg", "'s Gravenhage", "none", "May", "1-2-b", "Ätna", "0"]


def written(folder: Path, rows: list[dict], name: str = "t.csv") -> Path:
    write_predictions(predictions_table(rows, folder, ["Füchse"]), folder / name)
    return folder / name


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_begins_with_the_mark_by_which_excel_knows_its_letters_and_has_times_excel_takes(tmp_path):
    table = written(tmp_path, [FOX, {**FOX, "taken_at": "2024-05-01T10:00:00.25+02:00"}, {**FOX, "taken_at": None}])
    assert table.read_bytes()[:3] == MARK and table.read_bytes().count(MARK) == 1
    found = cells(table)
    assert [row["taken_at"] for row in found] == ["2024-05-01 10:00:00", "2024-05-01 10:00:00.25", ""]
    assert [row["time_zone"] for row in found] == ["", "UTC+02:00", ""]  # no sign at its beginning: no formula
    assert found[0]["path"] == "Rotfuchs ä.jpg" and found[0]["label"] == "Füchse"
    written(tmp_path, [FOX], "t.jsonl")
    line = (tmp_path / "t.jsonl").read_bytes()
    assert not line.startswith(MARK) and b"time_zone" not in line
    assert json.loads(line)["taken_at"] == "2024-05-01T10:00:00"


def test_a_table_that_grows_has_the_mark_once_and_an_old_one_goes_on_without(tmp_path):
    new, old, first = tmp_path / "new.csv", tmp_path / "old.csv", {**FOX, "taken_at": "2024-05-01T10:00:00+02:00"}
    names = [name for name in PREDICTIONS.names if name not in LATER]
    kept = {name: FOX.get(name, "") for name in names}
    text = io.StringIO()
    csv.DictWriter(text, names).writerows([dict(zip(names, names, strict=True)), kept])
    old.write_bytes(text.getvalue().encode())  # as the version before wrote it: no mark, T in its times
    for path in (new, old):
        for row in (first, {**FOX, "path": "2.jpg", "site": "007"}):
            with AppendOnlyTable(path, PREDICTIONS.names, LATER) as table:
                table.append([row])
    assert new.read_bytes().startswith(MARK) and new.read_bytes().count(MARK) == 1 and MARK not in old.read_bytes()
    times, before = [first["taken_at"], FOX["taken_at"]], [FOX["taken_at"]]
    assert [row["taken_at"] for row in read_rows(new)] == times
    assert [row["taken_at"] for row in read_rows(old)] == before + times
    assert [row["taken_at"] for row in cells(old)] == before + times  # one form throughout
    found = list(read_rows(new))
    assert [row["path"] for row in found] == [FOX["path"], "2.jpg"] and found[1]["site"] == "007"
    assert [name for name in next(read_rows(new))] == PREDICTIONS.names
    new.write_bytes(new.read_bytes()[:7])  # torn in its first line
    with AppendOnlyTable(new, PREDICTIONS.names, LATER) as table:
        table.append([FOX])
    assert new.read_bytes().count(MARK) == 1 and next(read_rows(new))["path"] == FOX["path"]


def test_our_own_readers_read_tables_with_the_mark_and_without(tmp_path):
    rows = [{**FOX, "site": site, "taken_at": "2024-05-01T10:00:00+02:00"} for site in [*SITES, *KEPT]]
    sites = [row["site"] for row in rows]
    table = written(tmp_path, rows)
    answers = open_predictions(table)
    assert [row["site"] for row in answers.rows] == sites
    assert {row["taken_at"] for row in answers.rows} == {"2024-05-01T10:00:00+02:00"}
    listed = read_csv(table)
    assert [row["site"] for row in listed] == sites and listed[0]["path"] == FOX["path"]
    assert {row["taken_at"] for row in listed} == {"2024-05-01T10:00:00+02:00"} and "time_zone" not in listed[0]
    bare = tmp_path / "bare.csv"
    bare.write_bytes(table.read_bytes().removeprefix(MARK))
    assert read_csv(bare) == listed and [row["site"] for row in open_predictions(bare).rows] == sites


def test_observations_come_back_as_they_were_and_the_end_has_the_clock_of_the_start(tmp_path):
    night = ["2024-10-27T02:59:30+02:00", "2024-10-27T02:00:10+01:00"]  # the clocks go back between the two
    seen = events([{**FOX, "site": "007", "taken_at": at} for at in night], source="card")
    append_observations(seen, tmp_path / "seen.csv")
    (line,), back = cells(tmp_path / "seen.csv"), read_observations(tmp_path / "seen.csv").to_pylist()
    assert (tmp_path / "seen.csv").read_bytes().startswith(MARK)
    assert (line["start"], line["end"]) == ("2024-10-27 02:59:30", "2024-10-27 03:00:10")
    assert line["time_zone"] == "UTC+02:00" and line["site"] == "'007"
    assert back == [{**seen[0], "end": "2024-10-27T03:00:10+02:00"}] and back[0]["site"] == "007"
    append_observations(seen, tmp_path / "seen.csv")
    assert (tmp_path / "seen.csv").read_bytes().count(MARK) == 1


# --- read by others --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path) -> Path:
    rows = [{**FOX, "site": site} for site in [*SITES, *KEPT]]
    return written(tmp_path, [*rows, {**FOX, "taken_at": "2024-12-31T23:59:59+01:00", "score": 0.5}])


@pytest.fixture(scope="session")
def office() -> Path:
    "LibreOffice, which can be told to read a CSV as Excel does: dates and other special numbers are recognised."
    return lacked("office", shutil.which("soffice"), "no LibreOffice here: install the package libreoffice-calc")


@pytest.fixture(scope="session")
def rscript() -> Path:
    return lacked("R", shutil.which("Rscript"), "no R here: install the package r-base-core")


OPEN = "urn:oasis:names:tc:opendocument:xmlns:"


def opened(table: Path, language: int, office: Path) -> list[dict[str, tuple[str, str]]]:
    "Open a CSV with a spreadsheet in a language: column → what it takes the cell for, and what it shows or keeps."
    how = f"--infilter=Text - txt - csv (StarCalc):44,34,76,1,,{language},false,true"
    home = f"-env:UserInstallation=file://{table.parent}/office"
    words = [office, "--headless", home, how, "--convert-to", "fods", "--outdir", table.parent, table]
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=120)
    lines = []
    for row in ElementTree.parse(table.with_suffix(".fods")).iter(f"{{{OPEN}table:1.0}}table-row"):
        line = []
        for cell in row.findall(f"{{{OPEN}table:1.0}}table-cell"):
            values = {key.rpartition("}")[2]: value for key, value in cell.attrib.items()}
            kind, text = values.get("value-type", ""), "".join(cell.itertext()).strip()
            kept = values.get("date-value") or values.get("value") or text
            line += [(kind, kept)] * min(int(values.get("number-columns-repeated", 1)), 50)
        lines.append(line)
    names = [name for _, name in lines[0] if name]
    return [dict(zip(names, line, strict=False)) for line in lines[1:] if line[0][1]]


@pytest.mark.parametrize("language", [1033, 1031], ids=["en-US", "de-DE"])
def test_a_spreadsheet_reads_letters_and_times_in_every_locale_and_changes_no_name(table, office, language):
    found = opened(table, language, office)
    assert {row["path"] for row in found} == {("string", "Rotfuchs ä.jpg")}
    assert found[0]["taken_at"] == ("date", "2024-05-01T10:00:00")
    assert found[-1]["taken_at"] == ("date", "2024-12-31T23:59:59") and found[-1]["time_zone"][1] == "UTC+01:00"
    sites = [row["site"] for row in found[:-1]]
    assert sites == [("string", f"'{site}") for site in SITES] + [
        ("float" if site.isdigit() else "string", site) for site in KEPT]  # fmt: skip
    expected = ("float", "0.981") if language == 1033 else ("string", "0.9810")  # never 981, as a decimal comma has it
    assert found[0]["score"] == expected
    assert {row["model"] for row in found} == {("string", FOX["model"])}


def test_pandas_reads_the_same(table):
    pandas = pytest.importorskip("pandas")
    found = pandas.read_csv(table)
    assert found["path"][0] == "Rotfuchs ä.jpg" and found["score"][0] == 0.981 and not found["abstained"][0]
    assert str(pandas.to_datetime(found["taken_at"])[0]) == "2024-05-01 10:00:00"
    assert found["site"].tolist()[:-1] == [f"'{site}" for site in SITES] + KEPT  # none is missing, none a number


def test_r_reads_the_same(table, rscript):
    said = """d <- read.csv(commandArgs(TRUE)[1]); stopifnot(names(d)[1] == "path", is.numeric(d$score));
    cat(d$path[1], d$label[1], d$score[1], is.logical(d$abstained), sum(is.na(d$site)), "\n", sep="|");
    cat(format(as.POSIXct(d$taken_at, tz="UTC"), "%Y-%m-%dT%H:%M:%S")[c(1, nrow(d))], sep="\n")"""
    done = subprocess.run([str(rscript), "-e", said, str(table)], capture_output=True, text=True, timeout=120,
                          env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines == ["Rotfuchs ä.jpg|Füchse|0.981|TRUE|0|", "2024-05-01T10:00:00", "2024-12-31T23:59:59"], done.stderr


