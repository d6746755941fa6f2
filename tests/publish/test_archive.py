"""`species-wb pack RUN`: one zip for publication, which holds what a reader needs and nothing that is private."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from species_wb import contracts
from species_wb.cli import app
from species_wb.core import UserError, write_json
from species_wb.engine import model_file, predict, toy
from species_wb.evaluate import evaluation, scoring
from species_wb.photos.scan import scan
from species_wb.predictions import write_predictions
from species_wb.publish import archive

MARK = "Q-meadow"  # stands in every private path of these tests
NOTEBOOK = "train.ipynb"
SVG = """<img src="data:image/svg+xml,%3Cg%3E%3Cpath d='M0 0' style='fill:none'/%3E%3C/g%3E%3C/svg%3E">"""  # as reports hold figures


def photo(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(sum(path.name.encode())).integers(-20, 20, (40, 50, 3))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)


def notebook(run: Path, photos: Path, home: Path) -> dict:
    "An executed notebook, whose cells and outputs name folders of this machine."
    said = f"Run folder: {run}\nwarning in {home}/.venv/lib/python3.11/thing.py\nseen by /Users/anna/cards and C:\\Users\\Anna\\cards\n"
    link = f'<a href="file://{run}/report.html">Open the report</a>: {run}/report.html'
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": said.splitlines(keepends=True)},
        {"output_type": "display_data", "metadata": {}, "data": {"text/html": link, "image/png": "iVBORw0KGgo/home/x"}},
    ]
    source = f'# Parameters\nphotos = "{photos}"\nrun = "{run}"\n'
    cells = [{"cell_type": "code", "id": "a", "metadata": {}, "execution_count": 1, "source": source, "outputs": outputs}]
    ran = {"input_path": f"{home}/nbs/train.ipynb", "output_path": f"{run}/train.ipynb", "parameters": {"photos": str(photos)}}
    about = {"kernelspec": {"name": "python3", "language": "python", "display_name": "python3"}, "papermill": ran}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def page(run: Path, photos: Path) -> str:
    return (
        f"<html>{SVG}<script>let a = '/x/y/z'.match(/[^/]+/)</script><img src='data:image/jpeg;base64,/9j/4AAQ/home/abc'>"
        f"<p>Photos: {photos}; report: {run}/report.html; style: <b>and/or</b></p></html>"
    )


def write_run(home: Path, model: Path, name: str = "toy-20260504-120000") -> tuple[Path, Path]:
    "A finished run of `train`, and its photos; nothing is trained."
    photos, run = home / f"{MARK} photos", home / "reports" / "train" / name
    for k in range(12):
        photo(photos / "red" / f"r{k}.png", (180, 60, 60))
        photo(photos / "green" / f"g{k}.png", (60, 180, 60))
    table = "path,lat,lon,site,observer,decimalLatitude\n"
    rows = [f"{p.relative_to(photos).as_posix()},48.2{k},16.3,cam{k % 2},Anna,48.2{k}\n" for k, p in enumerate(sorted(photos.rglob("*.png")))]
    (home / "sites.csv").write_text(table + "".join(rows))
    manifest = scan(photos, metadata=home / "sites.csv")
    run.mkdir(parents=True)
    shutil.copy(model, run / "model.onnx")
    contracts.write_table(manifest, run / "manifest.parquet")
    opened = model_file.open_model(run / "model.onnx")
    answers = predict.predict_manifest(opened, evaluation.to_predict(manifest))
    for ending in ("parquet", "csv"):
        write_predictions(answers, run / f"predictions.{ending}")
    params = {"arch": "resnet50", "photos": str(photos), "metadata": str(home / "sites.csv"), "seed": 3, "seeds": 1}
    write_json(run / "params.json", params)
    write_json(run / "plan.json", {"method": "probe", "weights": "none", "input_size": 16, "recipe": None})
    write_json(run / "training.json", {"sentences": [f"read from {photos}/red"]})
    write_json(run / "metrics.json", {"headline": "0.95 of 6 test photos are named right.", "scorings": []})
    write_json(run / "status.json", {"state": "finished", "why": "", "at": "2026-05-04T12:01:02+02:00", "pid": 77, "host": f"{MARK}-pc"})
    (run / NOTEBOOK).write_text(json.dumps(notebook(run, photos, home)))
    (run / "report.html").write_text(page(run, photos))
    (run / "figures").mkdir()
    photo(run / "figures" / "01-the-photos.png", (9, 9, 9))
    (run / "checkpoint.pt").write_bytes(b"heavy")
    (run / "diary.txt").write_text("private")
    return run, photos


@pytest.fixture
def made(tmp_path, model, monkeypatch) -> tuple[Path, Path]:
    home = tmp_path / MARK
    home.mkdir()
    monkeypatch.setenv("SPECIES_WB_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return write_run(home, model)


def typed(*words: object) -> str:
    done = CliRunner().invoke(app, ["pack", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def content(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def tables(found: dict[str, bytes]) -> dict[str, pa.Table]:
    return {name: contracts.pq.read_table(io.BytesIO(data)) for name, data in found.items() if name.endswith(".parquet")}


def test_the_command_writes_one_zip_that_says_what_each_file_is(made, tmp_path):
    said = typed(made[0])
    found = content(tmp_path / "toy-20260504-120000.zip")
    assert set(found) >= {
        "README.txt", "LICENCES.txt", "CITATION.cff", "sha256sums.txt", "ro-crate-metadata.json", "report.html", "model.onnx",
        "manifest.parquet", "predictions.parquet", "predictions.csv", "params.json", "metrics.json", NOTEBOOK, "figures/01-the-photos.png",
    }  # fmt: skip
    readme = found["README.txt"].decode()
    for name in found:
        assert name in readme or name.startswith("figures/") and "figures/" in readme, name
    assert "0.95 of 6 test photos are named right." in readme and "train resnet50" in readme and "--seed 3" in readme
    assert not {"checkpoint.pt", "diary.txt"} & set(found) and "diary.txt" in said and "checkpoint.pt" in said
    assert max(map(len, readme.splitlines())) <= 100


def test_every_file_has_its_checksum_and_the_crate_names_it(made, tmp_path):
    typed(made[0], "--out", "a.zip")
    found = content(tmp_path / "a.zip")
    lines = [line.split("  ", 1) for line in found["sha256sums.txt"].decode().splitlines()]
    assert {name: sha for sha, name in lines} == {n: hashlib.sha256(d).hexdigest() for n, d in found.items() if n != "sha256sums.txt"}
    graph = {one["@id"]: one for one in json.loads(found["ro-crate-metadata.json"])["@graph"]}
    about, root = graph["ro-crate-metadata.json"], graph["./"]
    assert about["about"] == {"@id": "./"} and about["conformsTo"]["@id"].startswith("https://w3id.org/ro/crate/1.")
    assert root["name"] and root["description"] and root["license"]["@id"] in graph and graph["#run"]["instrument"]["@id"] in graph
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*", root["datePublished"])
    assert {part["@id"] for part in root["hasPart"]} == set(found) - {"ro-crate-metadata.json"}
    for part in root["hasPart"]:
        entity = graph[part["@id"]]
        assert "File" in entity["@type"] and entity["name"] and entity["description"] and entity["encodingFormat"]
        assert part["@id"] == "sha256sums.txt" or entity["contentSize"] == str(len(found[part["@id"]]))


def test_no_place_of_this_machine_leaves(made, tmp_path):
    run, photos = made
    typed(run, "--out", "a.zip")
    found = content(tmp_path / "a.zip")
    private = (MARK, str(tmp_path), str(Path.home()) + "/", "Users", "anna/", "Anna\\", f"{MARK}-pc", '"pid"')
    for name, data in found.items():
        text = data.decode("utf-8", "replace")
        assert [word for word in private if word in text] == [], name
    for name, table in tables(found).items():
        text = json.dumps([table.to_pylist(), {k.decode(): v.decode() for k, v in table.schema.metadata.items()}], default=str)
        assert [word for word in private if word in text] == [], name
    page, cell = found["report.html"].decode(), json.loads(found[NOTEBOOK])["cells"][0]
    assert SVG in page and "base64,/9j/4AAQ/home/abc" in page and "'/x/y/z'.match(/[^/]+/)" in page and "and/or" in page  # only paths change
    assert cell["outputs"][1]["data"]["image/png"] == "iVBORw0KGgo/home/x"
    assert 'photos = "photos"' in cell["source"] and "Run folder: toy-20260504-120000" in "".join(cell["outputs"][0]["text"])
    assert json.loads(found["params.json"])["photos"] == "photos"


def test_coordinates_leave_only_when_they_are_asked_for(made, tmp_path):
    said = typed(made[0], "--out", "a.zip")
    assert "latitude" in said and "--coordinates" in said and "observer" in said  # a column of the person's own is named
    found = content(tmp_path / "a.zip")
    for table in tables(found).values():
        assert set(table["lat"].to_pylist()) == set(table["lon"].to_pylist()) == {None}
        assert "decimalLatitude" not in table.schema.names and set(table["observer"].to_pylist()) == {"Anna"}
    assert "48.2" not in found["predictions.csv"].decode()
    assert "latitude and longitude" in found["README.txt"].decode().casefold()
    typed(made[0], "--out", "b.zip", "--coordinates")
    found = content(tmp_path / "b.zip")
    assert all(None not in table["lat"].to_pylist() for table in tables(found).values())
    assert "decimalLatitude" in tables(found)["manifest.parquet"].schema.names and "48.2" in found["predictions.csv"].decode()


def test_the_same_run_gives_the_same_bytes(made, tmp_path, monkeypatch):
    typed(made[0], "--out", "a.zip")
    os.utime(made[0] / "report.html", (0, 0))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    typed(made[0], "--out", "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "elsewhere" / "b.zip").read_bytes()


def test_an_unpacked_archive_is_a_run_again(made, tmp_path, monkeypatch):
    run, photos = made
    typed(run, "--out", "a.zip")
    before = contracts.read_manifest(run / "manifest.parquet")
    there = tmp_path / "reader" / "unpacked"
    zipfile.ZipFile(tmp_path / "a.zip").extractall(there)
    shutil.copytree(photos, there / "photos")
    shutil.rmtree(tmp_path / MARK)  # another machine: the run and its photos are not where they were
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("SPECIES_WB_HOME", str(tmp_path / "home"))
    judged = evaluation.begin(there)
    answers = predict.predict_manifest(judged.model, evaluation.to_predict(judged.manifest))
    assert scoring.score(judged, answers, resamples=20).scores["accuracy"]["value"] == 1.0
    again = scan(there / "manifest.parquet")  # what `train --photos manifest.parquet` reads
    assert contracts.data_hash(again) == contracts.data_hash(before)
    assert again["split"].to_pylist() == before["split"].to_pylist()
    readme = (there / "README.txt").read_text()
    assert "--photos manifest.parquet" in readme and f"photos/{before['path'][0].as_py()}" in readme
    assert contracts.data_hash(before) in readme


def test_a_model_that_does_not_give_the_stored_answers_is_not_packed(made, tmp_path, model):
    run, photos = made
    assert "stored answers to 4 photos again" in typed(run, "--out", "a.zip")
    toy.write_toy(run / "model.onnx", weight=((-1, 1), (1, -1), (0, 0)))
    with pytest.raises(UserError, match="answers"):
        archive.pack(run, tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists() and not list(tmp_path.glob(".b.zip*"))


def test_without_the_photos_the_model_is_opened_and_that_is_said(made, tmp_path):
    run, photos = made
    shutil.rmtree(photos)
    assert "photos are not here" in typed(run, "--out", "a.zip")


def test_a_damaged_archive_is_found_out(made, tmp_path):
    typed(made[0], "--out", "a.zip")
    whole = (tmp_path / "a.zip").read_bytes()
    at = whole.index(b"Photos: photos")
    (tmp_path / "b.zip").write_bytes(whole[:at] + b"p" + whole[at + 1 :])
    with pytest.raises(UserError, match=r"report\.html"):
        archive.check_files(tmp_path / "b.zip")
    (tmp_path / "c.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole zip"):
        archive.check_files(tmp_path / "c.zip")


@pytest.mark.parametrize("state", ["running", "failed", None])
def test_only_a_finished_run_is_packed(made, tmp_path, state):
    run = made[0]
    write_json(run / "status.json", {"state": state, "why": "", "at": "2026-05-04T12:01:02+02:00", "pid": 0, "host": ""}) if state else (run / "status.json").unlink()
    done = CliRunner().invoke(app, ["pack", str(run)])
    assert done.exit_code != 0 and isinstance(done.exception, UserError) and len(str(done.exception).splitlines()) == 1
    assert not list(tmp_path.glob("*.zip"))


def test_an_evaluation_takes_its_model_along_and_a_mix_its_members(made, tmp_path, monkeypatch):
    home, (run, photos) = tmp_path / MARK, made
    (home / "models").mkdir()
    two = [toy.write_toy(home / "models" / f"{name}.onnx", temperature=t) for name, t in (("day", 1.0), ("night", 2.0))]
    mix = home / "models" / "both.mix.json"
    model_file.write_ensemble(mix, model_file.ensemble_of([model_file.open_model(path) for path in two]))
    judged = home / "reports" / "evaluate" / "both-20260504-130000"
    shutil.copytree(run, judged, ignore=shutil.ignore_patterns("model.onnx", "training.json", "plan.json", "train.ipynb"))
    opened = model_file.open_model(mix)
    manifest = evaluation.all_test(scan(photos), [])
    contracts.write_table(manifest, judged / "manifest.parquet")
    write_predictions(predict.predict_manifest(opened, manifest), judged / "predictions.parquet")
    write_json(judged / "params.json", {"model": str(mix), "photos": str(photos), "metadata": "", "robustness": "none"})
    typed(judged)
    found = content(tmp_path / "both-20260504-130000.zip")
    assert {"model/both.mix.json", "model/day.onnx", "model/night.onnx"} <= set(found)
    assert "species-wb evaluate model/both.mix.json" in found["README.txt"].decode()
    zipfile.ZipFile(tmp_path / "both-20260504-130000.zip").extractall(tmp_path / "there")
    assert model_file.open_model(tmp_path / "there" / "model" / "both.mix.json").sha256 == opened.sha256
    shutil.copytree(photos, tmp_path / "there" / "photos")
    shutil.rmtree(home)
    assert evaluation.begin(tmp_path / "there").model.sha256 == opened.sha256


def test_a_comparison_is_packed_without_models_and_says_so(made, tmp_path):
    folder = tmp_path / MARK / "reports" / "compare" / "20260504-140000"
    folder.mkdir(parents=True)
    write_json(folder / "params.json", {"runs": f"{made[0]},{made[0]}-b", "photos": "", "metadata": ""})
    write_json(folder / "status.json", {"state": "finished", "why": "", "at": "2026-05-04T14:00:00+02:00"})
    write_json(folder / "comparison.json", {"models": [{"run": str(made[0])}]})
    (folder / "leaderboard.csv").write_text(f"model,path\ntoy,{made[0]}\n")
    (folder / "report.html").write_text("<html></html>")
    said = typed(folder)
    found = content(tmp_path / "20260504-140000.zip")
    assert {"report.html", "leaderboard.csv", "comparison.json"} <= set(found) and "model.onnx" not in found
    assert MARK not in "".join(data.decode("utf-8", "replace") for data in found.values())
    assert next(csv.DictReader(io.StringIO(found["leaderboard.csv"].decode())))["model"] == "toy"
    assert "pack" in found["README.txt"].decode() and "no model" in said.casefold()
