"""A new species beside the classes of a trained model: a few photos in, a model file that knows one class more out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from species_wb.contracts import METADATA_KEY, ModelInfo, ModelSpec, read_manifest, write_table
from species_wb.core import UserError
from species_wb.engine.model_file import open_model, probabilities, run_network
from species_wb.engine.toy import write_toy
from species_wb.metrics.calibration import softmax
from species_wb.models.added_class import Evidence, unit, with_class, with_new_logit
from species_wb.photos.pixels import encode_jpeg
from species_wb.photos.scan import scan
from species_wb.train.add_species import add_species
from species_wb.train.new_species import fit, prototypes

COLOURS = {"red": (200, 50, 40), "green": (40, 200, 40)}


def draw(folder: Path, colour: tuple[int, int, int], count: int, seed: int = 0) -> Path:
    rng = np.random.default_rng([seed, *colour])
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        noise = rng.integers(-35, 36, (16, 16, 3)).repeat(4, 0).repeat(4, 1)
        (folder / f"{k}.jpg").write_bytes(encode_jpeg((np.array(colour) + noise).astype(np.uint8)))
    return folder


@pytest.fixture
def run(workspace) -> Path:
    "A run folder whose model tells red from green, with its photos."
    for name, colour in COLOURS.items():
        draw(workspace / "photos" / name, colour, 20)
    folder = workspace / "reports" / "train" / "red-green"
    folder.mkdir(parents=True)
    write_table(scan(workspace / "photos"), folder / "manifest.parquet")
    rules = {"0.9": {"method": "lac", "quantile": 0.4}}
    write_toy(folder / "model.onnx", temperature=1.5, conformal=rules, validation={"how": "out-of-fold"}, provenance={"training_photos": ["0" * 16]})
    return folder


def test_three_photos_two_of_them_the_same(run):
    "The copies count once, and the share of photos named right is called a guess."
    few = draw(run / "few", (40, 60, 200), 2)
    shutil.copy(few / "0.jpg", few / "copy.jpg")
    said = " ".join(add_species("Blue bird", few, str(run)))
    assert "form 2 groups" in said and "1 exact copy" in said and "only 2 different photos" in said and "is a guess" in said
    told = open_model(run / "model-with-Blue-bird.onnx", 1).info.validation["added"]
    assert (told["photos"], told["groups"]) == (3, 2) and told["recall"]["high"] - told["recall"]["low"] > 0.5


def test_what_a_person_gets_wrong_is_one_sentence_and_writes_nothing(run, workspace):
    blue = draw(workspace / "blue", (40, 60, 200), 3)
    one = draw(workspace / "one", (40, 60, 200), 1)
    shutil.copy(one / "0.jpg", one / "copy.jpg")
    broken = workspace / "broken"
    broken.mkdir()
    (broken / "a.jpg").write_bytes((blue / "0.jpg").read_bytes()[:200])
    (workspace / "empty").mkdir()
    mix = workspace / "both.mix.json"
    mix.write_text("{}")
    lost = write_toy(workspace / "lost.onnx")
    files = set(workspace.rglob("*"))
    for label, folder, model, part in (
        ("RED", blue, run, "knows red already"), ("a|b", blue, run, "cannot be the name"), ("Blue", one, run, "holds 1 different photo"),
        ("Blue", broken, run, "no photo that opens"), ("Blue", workspace / "empty", run, "holds no files"), ("Blue", blue / "0.jpg", run, "is not a folder"),
        ("Blue", blue, lost, "name them with --photos"), ("Blue", blue, workspace / "gone", "not there"), ("Blue", blue, mix, "both.mix.json"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=part) as error:
            add_species(label, folder, str(model))
        assert "\n" not in str(error.value)
    assert {path for path in set(workspace.rglob("*")) - files if ".cache" not in path.parts} == set()


def test_photos_of_the_old_classes_that_the_model_has_not_seen_renew_its_promises(run, workspace):
    "With --photos, the file lies anywhere; its sets hold the new class, too, and are made of photos that it did not learn from."
    lost = Path(shutil.copy(run / "model.onnx", workspace / "lost.onnx"))
    others = workspace / "others"
    for name, colour in COLOURS.items():
        draw(others / name, colour, 40, seed=1)
    said = add_species("Blue bird", draw(workspace / "blue", (40, 60, 200), 12), str(lost), str(workspace / "new.onnx"), str(others))
    info = open_model(workspace / "new.onnx", 1).info
    assert any("Calibrated anew, with the new class" in sentence for sentence in said) and any("had not learned" in sentence for sentence in said)
    assert "0.9" in info.conformal and set(info.conformal["0.9"]["by_class"]) <= set(info.labels) and info.risk["n"] > 60


def test_embeddings_of_another_network_are_left_alone(run, workspace):
    blue, said = draw(workspace / "blue", (40, 60, 200), 4), {}
    photos = read_manifest(run / "manifest.parquet")
    wrong = workspace / ".cache" / "features" / "toy-of-another"
    wrong.mkdir(parents=True)
    np.save(wrong / "a.npy", np.random.default_rng(0).normal(size=(len(photos), 3)).astype(np.float32))
    (wrong / "a.json").write_text(json.dumps(photos["sha256"].to_pylist()))
    said = add_species("Blue bird", blue, str(run))
    assert any("embeddings were computed" in sentence for sentence in said), said


def test_a_species_cannot_take_photos_that_are_its_own(run, workspace):
    "A photo that was trained on as red, and is now one of the new species, is no neighbour of it; the sentences say that it was seen."
    pink = draw(workspace / "pink", (220, 60, 160), 5)
    manifest = scan(pink)
    write_toy(run / "model.onnx", provenance={"training_photos": sorted(sha[:16] for sha in manifest["sha256"].to_pylist()[:2])})
    said = add_species("Pink bird", pink, str(run))
    assert any("2 photos of them were in the model's training" in sentence for sentence in said), said
    assert len(open_model(run / "model-with-Pink-bird.onnx", 1).info.provenance["training_photos"]) == 5


def test_the_file_of_a_detector_keeps_its_boxes(tmp_path):
    "What stands in the metadata beside our own description stays."
    import onnx

    path = write_toy(tmp_path / "toy.onnx")
    model = onnx.load(path)
    entry = next(p for p in model.metadata_props if p.key == METADATA_KEY)
    entry.value = json.dumps(json.loads(entry.value) | {"detector": {"least": 0.4}})
    onnx.save(model, path)
    how = Evidence(np.zeros(3), unit(np.array([[0.0, 0, 1]]))[0], np.eye(3)[:2])
    info = ModelInfo(["red", "green", "blue"], [0, 1, 2], ModelSpec("toy", 16, (0.5,) * 3, (0.5,) * 3))
    with_class(path, how, info, tmp_path / "new.onnx")
    kept = next(p for p in onnx.load(tmp_path / "new.onnx").metadata_props if p.key == METADATA_KEY)
    assert json.loads(kept.value)["detector"] == {"least": 0.4} and open_model(tmp_path / "new.onnx", 1).info == info


@pytest.mark.parametrize("classes", [3, 40, 150])
def test_a_class_apart_is_found_and_takes_little(classes):
    "Known truth: of photos drawn like the new class most are found, few of the others are taken; held back, it says about the same."
    rng = np.random.default_rng(classes)
    means = 2 + rng.normal(size=(classes + 1, 64))
    draw = lambda k, n: means[k] + 0.9 * rng.normal(size=(n, 64))  # noqa: E731
    near, truth = np.concatenate([draw(k, 20) for k in range(classes)]), np.repeat(np.arange(classes), 20)
    fitted = fit(draw(classes, 12), np.arange(12), near, truth, np.arange(len(near)))
    found, taken = fitted.evidence.of(draw(classes, 300)) > 0, fitted.evidence.of(np.concatenate([draw(k, 20) for k in range(classes)])) > 0
    assert found.mean() > 0.85 and taken.mean() < 0.02 and abs((fitted.held > 0).mean() - found.mean()) < 0.15
    assert len(prototypes(draw(classes, 3), near, truth).others) == min(classes, 100)


def test_the_written_file_answers_as_it_was_computed(run, workspace):
    add_species("Blue bird", draw(workspace / "blue", (40, 60, 200), 5), str(run))
    old, new = open_model(run, 1), open_model(run / "model-with-Blue-bird.onnx", 1)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 1, 1, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    logits, p = run_network(old, pixels)[0], probabilities(new, run_network(new, pixels)[0])
    sure = (p[:, 2] > 1e-6) & (p[:, 2] < 1 - 1e-6)
    odds = np.log(p[sure, 2] / (1 - p[sure, 2]))
    assert np.allclose(softmax(with_new_logit(logits[sure], odds, 1.5), 1.5), p[sure], atol=1e-4) and p[:, 2].min() < 0.1 < 0.9 < p[:, 2].max()
