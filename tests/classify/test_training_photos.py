"""`species-wb seen`: whether a model was trained on a photo."""

import shutil

from typer.testing import CliRunner

from species_wb.cli import app
from species_wb.contracts import read_manifest
from species_wb.core import UserError


def test_a_trained_model_knows_its_photos_and_no_others(trained, tmp_path):
    manifest = read_manifest(trained / "manifest.parquet")
    root = manifest.schema.metadata[b"root"].decode()
    of_split = {row["split"]: f"{root}/{row['path']}" for row in manifest.to_pylist()}
    shutil.copy(of_split["train"], tmp_path / "a copy's name é.jpg")
    shutil.copy(of_split["test"], tmp_path / "new.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "new.jpg").read_bytes()[:-1])
    said = CliRunner().invoke(app, ["seen", str(trained), str(tmp_path)])
    assert said.exit_code == 0, said.output
    assert "a copy's name é.jpg: seen in training." in said.output
    assert "new.jpg: not seen in training." in said.output and "cut.jpg: not seen" in said.output
    assert "byte by byte" in said.output


def test_a_file_that_lists_no_photos_is_refused(model, tmp_path):
    (tmp_path / "owl.jpg").write_bytes(b"x")
    said = CliRunner().invoke(app, ["seen", str(model), str(tmp_path / "owl.jpg")])
    assert isinstance(said.exception, UserError) and "does not list its training photos" in str(said.exception)


def test_a_path_that_is_not_there_is_said(trained):
    said = CliRunner().invoke(app, ["seen", str(trained), "gone.jpg"])
    assert isinstance(said.exception, UserError) and "gone.jpg" in str(said.exception)
