"""Whether time and memory stay flat as a folder grows: python benchmarks/scale.py [N ...]     (by default 1,000, 10,000 and 100,000 photos)

Small photos are cut at random from a simulated survey, turned and mirrored, each with a time of its own in EXIF, so that no two files, perceptual hashes or moments are the same; a
folder of N photos holds the first N of them (as hard links, in a temporary folder that is removed at the end: about 0.5 GB for 100,000). For each N each stage runs in a
fresh process, which reports its peak resident memory:

- scan: `scan.scan` from nothing, and again from its cache;
- train: set-up (manifest, selection, the checkpoint's fingerprint of all photos), filling a decoded cache of 100 MB at most, then the training loader with
  augmentation over its first 2,000 photos, and one training step of simple_cnn;
- predict: `predict_manifest` on the first 2,000 photos of the manifest, with a model file.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 96  # pixels of a photo
DRAWN = 500  # photos of the survey they are cut from
FIRST = 2_000  # photos that are loaded and predicted
CACHE = 100_000_000  # bytes
LOADED = {"spec_size": 64, "batch": 32}


def cut(survey: Path, folder: Path, numbers: range) -> None:
    "Write some of the photos."
    whole = [(path.parent.name, np.asarray(Image.open(path).convert("RGB"))) for path in sorted(survey.rglob("*.jpg"))]
    for i in numbers:
        rng = np.random.default_rng(i)
        label, pixels = whole[rng.integers(len(whole))]
        side = int(rng.uniform(0.5, 0.9) * len(pixels))
        x, y = rng.integers(0, len(pixels) - side, 2)
        part = np.rot90(pixels[y : y + side, x : x + side][:, :: rng.choice([1, -1])], rng.integers(4))
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = f"{datetime(2025, 1, 1) + timedelta(seconds=90 * i):%Y:%m:%d %H:%M:%S}"  # DateTimeOriginal
        Image.fromarray(part).resize((SIDE, SIDE)).save(folder / label / f"{i:07d}.jpg", quality=85, exif=exif)


def make(count: int, aside: Path) -> Path:
    "Draw the survey and cut the photos from it."
    from species_wb.core import cpu_count
    from species_wb.simulate.survey import survey

    survey(aside / "survey", photos=DRAWN)
    for folder in (aside / "survey").iterdir():
        if folder.is_dir():
            (aside / "all" / folder.name).mkdir(parents=True)
    with ProcessPoolExecutor(cpu_count()) as pool:
        list(pool.map(partial(cut, aside / "survey", aside / "all"), [range(k, min(k + 1000, count)) for k in range(0, count, 1000)]))
    return aside / "all"


def link(photos: list[Path], folder: Path) -> None:
    "Make a folder of some of the photos."
    for path in photos:
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        os.link(path, folder / path.parent.name / path.name)


class Clock:
    "Seconds since it was last read."

    def __init__(self):
        self.start = time.perf_counter()

    def __call__(self) -> float:
        then, self.start = self.start, time.perf_counter()
        return self.start - then


def scanned(folder: Path, manifest: Path) -> dict[str, float]:
    from species_wb.contracts import write_table
    from species_wb.photos.scan import scan

    clock = Clock()
    table = scan(folder)
    found = {"scan": clock()}
    write_table(table, manifest)
    return found


def trained(folder: Path, manifest: Path) -> dict[str, float]:
    from dataclasses import asdict, replace

    from species_wb.train import checkpoints
    from species_wb.train.augment import pipeline
    from species_wb.contracts import read_manifest
    from species_wb.train.decoded_photos import DecodedCache
    from species_wb.train.loading import PhotoDataset
    from species_wb.train.recipe import Recipe
    from species_wb.train.steps import one_step
    from species_wb.train.trainer import Trainer
    from species_wb.models.registry import build
    from species_wb.photos.findings import require_trainable
    from species_wb.train.training_set import photos_of_splits

    found, clock = {"imports": peak()}, Clock()
    table = read_manifest(manifest)
    labels = require_trainable(table)
    train, recipe = photos_of_splits(table, labels, ("train",)), Recipe(epochs=1, batch=LOADED["batch"])
    checkpoints.origin(train.photos, train.truth.tolist(), asdict(recipe))
    network, spec, _ = build("simple_cnn", len(labels))
    spec = replace(spec, input_size=LOADED["spec_size"])
    found["set-up"] = clock()
    with tempfile.TemporaryDirectory(dir=manifest.parent) as aside:
        cache = DecodedCache(aside, spec.canonical_size, CACHE)
        cache.fill(train.photos)
        found["fill"] = clock()
        trainer = Trainer(network, PhotoDataset(cache, train.photos, train.truth, spec, pipeline(spec)), recipe)
        trainer.batches.at(1)
        found["set-up"] += clock()
        done = 0
        for pixels, truth in trainer.loader:  # noqa: B007 (the last batch is trained on)
            done += len(truth)
            if done >= min(FIRST, len(train.photos)):
                break
        found["load"] = clock() / done
        one_step(trainer, pixels, truth)
    return found


def predicted(folder: Path, manifest: Path) -> dict[str, float]:
    from species_wb.engine.model_file import open_model
    from species_wb.contracts import read_manifest
    from species_wb.engine.predict import predict_manifest

    table, model = read_manifest(manifest), open_model(manifest.parent / "model.onnx")
    found, clock = {"imports": peak()}, Clock()
    return {**found, "predict": len(predict_manifest(model, table.slice(0, FIRST), batch=16)) and clock() / min(FIRST, len(table))}


def peak() -> float:  # MB
    "The most memory that was resident. On Linux getrusage would count what the parent held when it started this process."
    if sys.platform == "linux":
        return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


STAGES = {"scan": scanned, "again": scanned, "train": trained, "predict": predicted}


def export(path: Path, labels: list[str]) -> None:
    "Write a model file for the predictions."
    from species_wb.contracts import ModelInfo
    from species_wb.models.export import to_onnx
    from species_wb.models.registry import build

    network, spec, _ = build("simple_cnn", len(labels))
    to_onnx(network, ModelInfo(labels, list(range(len(labels))), spec), path)


def measure(stage: str, folder: Path, manifest: Path) -> dict[str, Any]:
    "Run a stage in a fresh process."
    home = {**os.environ, "SPECIES_WB_HOME": str(manifest.parent)}
    done = subprocess.run([sys.executable, __file__, "--stage", stage, str(folder), str(manifest)], env=home, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def table(counts: list[int], aside: Path) -> None:
    clock = Clock()
    photos = sorted(make(max(counts), aside).rglob("*.jpg"), key=lambda path: path.name)
    print(f"{len(photos):,} photos of {SIDE} px, {sum(p.stat().st_size for p in photos) / 1e6:,.0f} MB, made in {clock():.0f} s\n")
    export(aside / "model.onnx", sorted({path.parent.name for path in photos}))
    head = ("photos", "scan, ms a photo", "again", "peak MB", "set-up, s", "filling the cache, ms a photo", f"loading {FIRST:,}, ms a photo", "peak MB", f"predict {FIRST:,}, ms a photo", "peak MB")
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    peaks, setups = {}, {}
    for n in counts:
        folder = aside / f"{n}"
        link(photos[:n], folder)
        found = {stage: measure(stage, folder, aside / f"{n}.parquet") for stage in STAGES}
        scan, again, train, predict = found.values()
        peaks[n], setups[n] = {stage: f["peak"] for stage, f in found.items()}, train["set-up"]
        cells = [
            f"{n:,}", f"{1e3 * scan['scan'] / n:.2f}", f"{1e3 * again['scan'] / n:.2f}", f"{scan['peak']:.0f}", f"{train['set-up']:.1f}",
            f"{1e3 * train['fill'] / n:.2f}", f"{1e3 * train['load']:.2f}", f"{train['peak']:.0f}", f"{1e3 * predict['predict']:.2f}", f"{predict['peak']:.0f}",
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\nThe imports alone: train {train['imports']:.0f} MB, predict {predict['imports']:.0f} MB (with the manifest read).")
    if len(counts) > 1:
        least, most = min(counts), max(counts)
        grown = {stage: 1e3 * (peaks[most][stage] - peaks[least][stage]) / (most - least) for stage in STAGES}
        print(f"Memory a photo, from {least:,} to {most:,}: " + ", ".join(f"{stage} {kilobytes:.1f} kB" for stage, kilobytes in grown.items()) + f". Set-up: {1e3 * (setups[most] - setups[least]) / (most - least):.3f} ms a photo.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", nargs="*", help="how many photos")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)  # a fresh process: of the folder and manifest that follow
    given = parser.parse_args()
    if given.stage:
        folder, manifest = map(Path, given.counts)
        found = STAGES[given.stage](folder, manifest)
        print(json.dumps({**found, "peak": peak()}))
        return
    with tempfile.TemporaryDirectory() as aside:
        table(sorted(int(n.replace(",", "")) for n in given.counts) or [1_000, 10_000, 100_000], Path(aside))


if __name__ == "__main__":
    main()
