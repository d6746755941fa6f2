"""Quotes around a path ("Copy as path") are taken off wherever a person types or pipes one."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from test_cli import BIN, one_sentence
from test_job import card, coloured, rows, typed

from species_wb.apps.lab import _parameters
from species_wb.curate.predictions import open_predictions
from species_wb.engine import toy
from species_wb.evaluate.compare_runs import named_paths
from species_wb.evaluate.evaluation import begin
from species_wb.models.names import named_file
from species_wb.photos.scan import scan
from species_wb.runs import open_run
from species_wb.workspace import placed, unquoted, workspace
from species_wb.workspace import typed as typed_path


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    "A folder of a name with a blank, as people have them, with a model and four photos."
    folder = tmp_path / "my place"
    card(folder / "photos", 4)
    toy.write_toy(folder / "tiny.onnx")
    monkeypatch.chdir(folder)
    return folder


QUOTES = ('"{}"', "'{}'", ' "{}" ', "“{}”", "\"{}\"\n")
quoted = pytest.mark.parametrize("quotes", QUOTES, ids=["double", "single", "blanks", "curly", "line"])


@quoted
def test_one_function_takes_them_off(place, quotes):
    photo = place / "photos" / "100MEDIA" / "IMG_00000.JPG"
    for path in (str(photo), "photos", "not there.jpg", "rtsp://camera/1", "C:\\photos\\a b"):
        assert unquoted(quotes.format(path)) == path
    assert typed_path(quotes.format("new.csv")) == str(place / "new.csv") and placed(quotes.format("photos")) == place / "photos"
    assert typed_path("") == typed_path('""') == ""
    assert unquoted("'") == "'" and unquoted("it's a fox's") == "it's a fox's"


@pytest.mark.skipif(os.name == "nt", reason="no name has quotes there")
def test_a_name_that_really_has_quotes_still_works(place):
    for name in ("'owl'.jpg", '"owl.jpg"', "'owl'"):
        (place / name).write_bytes(coloured("green"))
        done = typed("classify", name, "--model", "tiny.onnx", cwd=place)
        assert done.stdout.startswith("green") and unquoted(name) == name
    done = subprocess.run([str(BIN / "species-wb"), "classify", "-", "--model", "tiny.onnx", "--out", "t.csv"],
                          input=b"\"owl.jpg\"\n'owl'\n", cwd=place, capture_output=True)  # fmt: skip
    assert done.returncode == 0 and {(r["path"], r["status"]) for r in rows(place / "t.csv")} == {('"owl.jpg"', "ok"), ("'owl'", "ok")}


@quoted
def test_every_path_of_classify(place, quotes):
    q = quotes.format
    done = typed("classify", q(place / "photos"), "--model", q(place / "tiny.onnx"), "--out", q(place / "my table.csv"),
                 "--copy-to", q(place / "sorted photos"), cwd=place)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(rows(place / "my table.csv")) == 4 and len(list((place / "sorted photos").rglob("*.JPG"))) == 4
    assert typed("classify", q("photos/*/*0.JPG"), "--model", q("tiny.onnx"), "--out", q("one.csv"), cwd=place).returncode == 0
    assert len(rows(place / "one.csv")) == 1


def test_a_list_on_standard_input(place):
    photos = sorted((place / "photos" / "100MEDIA").iterdir())
    lines = "\r\n".join(quotes.format(photo) for quotes, photo in zip(('"{}"', "'{}'", "{}", ' "{}"'), photos, strict=True))
    words = [str(BIN / "species-wb"), "classify", "-", "--model", "tiny.onnx", "--out", "t.csv"]
    done = subprocess.run(words, input=lines.encode(), cwd=place, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert [(r["path"], r["status"]) for r in rows(place / "t.csv")] == [(f"IMG_0000{k}.JPG", "ok") for k in range(4)]


@quoted
def test_every_path_of_the_other_commands(place, workspace, quotes):
    q = quotes.format
    for k, label in enumerate(("red", "green")):
        (place / "train" / label).mkdir(parents=True)
        for n in range(3):
            (place / "train" / label / f"{n}.jpg").write_bytes(coloured(label, 10 * k + n))
    (place / "sites.csv").write_text("path,site\nred/0.jpg,pond\n")
    done = typed("photos", "check", q("train"), "--metadata", q("sites.csv"), "--manifest", q("m.parquet"), cwd=place)
    assert done.returncode == 0 and (place / "m.parquet").exists() and "1 site" in done.stdout, done.stderr
    (place / "sample.csv").write_text("id,class\nIMG_00000,red\n")
    words = ("submit", q("tiny.onnx"), q("photos"), "--out", q("s.csv"), "--sample", q("sample.csv"))
    assert typed(*words, cwd=place).returncode == 0 and (place / "s.csv").read_text().startswith("id,class")
    assert typed("mix", q("tiny.onnx"), q(toy.write_toy(place / "b.onnx", temperature=2.0)), "--out", q("both.mix.json"), cwd=place).returncode == 0
    assert (place / "both.mix.json").exists()
    (place / "no run").mkdir()
    assert "is not a run folder" in one_sentence(typed("evaluate", q("no run"), cwd=place))
    assert "no unfinished run" in one_sentence(typed("train", "--run", q(place / "no run"), cwd=place))
    assert "export ready-made" in one_sentence(typed("export", q("tiny.onnx"), cwd=place))
    assert "is not there" in one_sentence(typed("watch", q("nowhere"), "--model", q("tiny.onnx"), cwd=place))
    assert typed("watch", q("nowhere"), "--model", "tiny.onnx", cwd=place).stderr.count('"') == 0


@quoted
def test_parameters_of_notebooks(place, workspace, quotes):
    q = quotes.format
    assert named_file(q("tiny.onnx")) == place / "tiny.onnx"
    assert _parameters(q("tiny.onnx"), q("photos"), "") == {"model": str(place / "tiny.onnx"), "source": str(place / "photos"), "run": ""}
    assert _parameters("", q("rtsp://camera/1"), "")["source"] == "rtsp://camera/1"
    assert named_paths(f"{q('tiny.onnx')},{q(place / 'tiny.onnx')}") == [place / "tiny.onnx"] * 2
    typed("classify", "photos", "--model", "tiny.onnx", "--out", "t.csv", cwd=place)
    assert len(open_predictions(q("t.csv"), photos=q("photos")).rows) == 4
    folder, *_ = open_run(q(place / "my run"), "train", "x", {"arch": "simple_cnn"})
    assert folder == place / "my run" and json.loads((folder / "params.json").read_text())
    (place / "train" / "red").mkdir(parents=True)
    (place / "train" / "red" / "0.jpg").write_bytes(coloured("red"))
    judged = begin(model=q("tiny.onnx"), photos=q("train"), run=q(place / "judged"))
    assert judged.run == place / "judged" and len(judged.manifest) == 1


def test_a_cell_of_a_table_and_the_variable_of_the_workspace(place, monkeypatch):
    photo = place / "photos" / "100MEDIA" / "IMG_00000.JPG"
    (place / "list.csv").write_text(f'path,label\n"""{photo}""",red\n\'photos/100MEDIA/IMG_00001.JPG\',green\n')
    monkeypatch.setenv("SPECIES_WB_HOME", f'"{place}"')
    assert {row["status"] for row in scan(place / "list.csv").to_pylist()} == {"ok"} and workspace() == place
