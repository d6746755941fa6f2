"""`benchmarks/field.py`: photos that a network may know from its pretraining are scored apart."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from species_wb.contracts import ModelInfo, ModelSpec, METADATA_KEY, info_to_json
from species_wb.engine import toy

ROOT = Path(__file__).resolve().parent.parent


def pretrained(path: Path) -> Path:
    "A model that tells red from green, whose network starts from ImageNet."
    import onnx

    network = onnx.load(toy.write_toy(path))
    spec = ModelSpec("toy", 16, (0.5,) * 3, (0.5,) * 3, weights="ImageNet, torchvision")
    del network.metadata_props[:]
    network.metadata_props.add(key=METADATA_KEY, value=info_to_json(ModelInfo(["red", "green"], [0, 1], spec)))
    onnx.save(network, path)
    return path


def test_photos_that_the_network_may_know_get_a_score_of_their_own(tmp_path):
    rows = ["file,source_repo,licence"]
    for k in range(12):
        label, known = ("red", "green")[k % 2], k < 4
        colour = (180, 60, 60) if (label == "red") == (known or k > 5) else (60, 180, 60)  # two from elsewhere are wrong
        noise = np.random.default_rng(k).integers(-30, 30, (40, 40, 3))
        (tmp_path / "test" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / "test" / label / f"{k}.png")
        rows.append(f"test/{label}/{k}.png,a collection,{'ImageNet terms' if known else 'CC BY 4.0'}")
    (tmp_path / "SOURCES.csv").write_text("\n".join(rows))
    model = pretrained(tmp_path / "m.onnx")
    words = [sys.executable, "benchmarks/field.py", tmp_path / "test", "--sources", tmp_path / "SOURCES.csv", "--model", model]
    done = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout[done.stdout.index("by pretraining") :].splitlines()[1:3]
    found = {line.split()[0]: re.split(r"  +", line)[1:4] for line in lines}
    assert found["ImageNet"][:2] == ["4", "4"] and found["ImageNet"][2].startswith("1.000 (")
    assert found["elsewhere"][:2] == ["8", "8"] and found["elsewhere"][2].startswith("0.750 (")
    assert re.search(r"mean over 2 classes: best label 0\.\d+ \(0\.\d\d to [01]\.\d\d\)", done.stdout)


def test_the_readme_gives_both_numbers_with_their_intervals_and_n():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "69 of the 293 photos come from ImageNet" in readme
    assert re.search(r"0\.\d\d of these 69 photos right \(0\.\d\d to \d\.\d\d\), and 0\.\d\d of the 224 photos from elsewhere \(0\.\d\d to \d\.\d\d\)", readme)
    assert "17 of the 40" in readme and "in 17 of them" not in readme
    assert len(readme.splitlines()) <= 150
