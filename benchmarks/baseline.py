"""How far hand-made features get: the floor that a network trained from nothing has to beat.

    python benchmarks/baseline.py PHOTOS [--run RUN_FOLDER]

Logistic regression (scikit-learn) on colour histograms (RGB a channel, and joint HSV; of the whole photo and its quarters; square roots, that is
Hellinger's kernel) and on histograms of oriented gradients (Dalal and Triggs 2005; scikit-image, cells of 8 and of 16 pixels), from photos that `pixels.prepare`
brings to 128×128. The split is that of `scan.scan(seed=0)`. The features (colours, gradients or both, each block weighing the same) and the strength C are chosen on valid, then it is fitted again on train and
valid together, each photo also mirrored, and the test photos are scored once. With --run, a finished run's predictions for the same photos
stand beside it, with the paired difference.
"""

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression

from species_wb.contracts import ModelSpec, manifest_root, read_table
from species_wb.core import cpu_count
from species_wb.fields import text_path
from species_wb.metrics.calibration import softmax
from species_wb.metrics.scores import scores
from species_wb.metrics.paired import paired
from species_wb.photos.findings import require_trainable
from species_wb.photos.scan import scan
from species_wb.photos.pixels import load
from species_wb.predictions import prediction_labels

SPEC = ModelSpec("baseline", 128, (0.5,) * 3, (0.5,) * 3, crop_fraction=1.0)
CELLS = (8, 16)  # pixels
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # C
FEATURES = {"colours": ("colours",), "gradients": ("hog8", "hog16"), "both": ("colours", "hog8", "hog16")}


def histograms(rgb: np.ndarray) -> np.ndarray:
    "Colours of one picture, N×N×3 uint8 → 288."
    hsv = np.asarray(Image.fromarray(rgb).convert("HSV")).reshape(-1, 3)
    joint = np.histogramdd(hsv, bins=(12, 4, 4), range=[(0, 256)] * 3)[0].ravel()
    channels = [np.bincount(rgb[..., k].ravel() // 8, minlength=32) for k in range(3)]
    return np.sqrt(np.concatenate([joint, *channels]) / len(hsv))


def describe(path: str) -> dict[str, list[np.ndarray]]:
    "Features of a photo, by block: as it is, and mirrored."
    photo, half = load(path, SPEC), SPEC.input_size // 2
    found: dict[str, list[np.ndarray]] = {name: [] for name in FEATURES["both"]}
    for picture in (photo, np.ascontiguousarray(photo[:, ::-1])):
        quarters = [picture[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        found["colours"].append(np.concatenate([histograms(np.ascontiguousarray(part)) for part in (picture, *quarters)]))
        for cell in CELLS:
            found[f"hog{cell}"].append(hog(picture, 9, (cell, cell), (2, 2), block_norm="L2-Hys", transform_sqrt=True, channel_axis=-1))
    return {name: [v.astype(np.float32) for v in views] for name, views in found.items()}


def extract(paths: list[str], workers: int) -> dict[str, np.ndarray]:
    "Features of all photos, by block: N × 2 views × D."
    with ProcessPoolExecutor(workers) as pool:
        found = list(pool.map(describe, paths, chunksize=32))
    return {name: np.stack([np.stack(f[name]) for f in found]) for name in FEATURES["both"]}


def matrices(blocks: dict[str, np.ndarray], names: tuple[str, ...], fit: np.ndarray, judge: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray]:
    "Standardise by the photos fitted to (with 2 views they come mirrored, too), and let every block weigh the same."
    left, right, width = [], [], np.mean([blocks[name].shape[2] for name in names])
    for name in names:
        ours = np.concatenate([blocks[name][fit, view] for view in range(views)])
        mean, scale = ours.mean(0), np.maximum(ours.std(0), 1e-3) * np.float32((ours.shape[1] / width) ** 0.5)
        left.append((ours - mean) / scale)
        right.append((blocks[name][judge, 0] - mean) / scale)
    return np.concatenate(left, 1), np.concatenate(right, 1)


def fits(fitted: np.ndarray, truth: np.ndarray, judged: np.ndarray, strengths: tuple[float, ...]) -> Iterator[tuple[float, np.ndarray]]:
    "Yield, for each C, the probabilities of the judged photos; each fit starts from the one before."
    model = LogisticRegression(max_iter=1000, warm_start=True)
    for c in strengths:
        model.set_params(C=c).fit(fitted, truth)
        yield c, model.predict_proba(judged)


def baseline(blocks: dict[str, np.ndarray], truth: np.ndarray, split: np.ndarray, labels: list[str]) -> tuple[np.ndarray, str, float]:
    "Choose on valid, fit on train and valid, answer for test: probabilities of the test photos."
    train, valid, test = (np.flatnonzero(split == name) for name in ("train", "valid", "test"))
    tried = {}
    print(f"\nAccuracy on the {len(valid):,} validation photos, by features and C:\n\n| features | " + " | ".join(f"{c:.2g}" for c in STRENGTHS) + " |\n|" + " --- |" * (len(STRENGTHS) + 1))
    for what, names in FEATURES.items():
        fitted, judged = matrices(blocks, names, train, valid, 1)
        for c, p in fits(fitted, truth[train], judged, STRENGTHS):
            tried[what, c] = float((p.argmax(1) == truth[valid]).mean())
        print(f"| {what} | " + " | ".join(f"{tried[what, c]:.3f}" for c in STRENGTHS) + " |", flush=True)
    what, c = max(tried, key=tried.__getitem__)
    both = np.concatenate([train, valid])
    fitted, judged = matrices(blocks, FEATURES[what], both, test, 2)
    _, p = next(fits(fitted, np.tile(truth[both], 2), judged, (c / 2,)))  # C goes with the sum over photos, of which there are twice as many
    return p, what, c


def said(name: str, n: int, score: dict[str, Any]) -> str:
    return f"| {name} | {n:,} | " + " | ".join(f"{score[k]['value']:.3f} [{score[k]['low']:.3f}, {score[k]['high']:.3f}]" for k in ("accuracy", "weighted_f1")) + " |"


def answers(run: Path, sha256: list[str], labels: list[str]) -> np.ndarray:
    "Probabilities that a run's exported model gave to these photos, N×C; rows of photos it did not answer are NaN."
    table = read_table(run / "predictions.parquet")
    order, known = prediction_labels(table), {}
    if sorted(order) != sorted(labels):
        raise SystemExit(f"{run} knows the classes {', '.join(order)}, and these photos are of {', '.join(labels)}.")
    for row in table.select(["sha256", "logits"]).to_pylist():
        if row["logits"]:
            known[row["sha256"]] = softmax([row["logits"]])[0][[order.index(name) for name in labels]]
    return np.array([known.get(sha, np.full(len(labels), np.nan)) for sha in sha256])


def compare(run: Path | None, probabilities: np.ndarray, rows: list[dict[str, Any]], labels: list[str]) -> None:
    "Print the test scores, and the run's beside them on the photos that both answered."
    truth, groups = np.array([labels.index(row["label"]) for row in rows]), [row["group"] for row in rows]
    print("| what | test photos | accuracy | weighted F1 |\n| --- | --- | --- | --- |")
    print(said("logistic regression", len(rows), scores(probabilities, truth, labels, groups)))
    if run is None:
        return
    theirs = answers(run, [row["sha256"] for row in rows], labels)
    both = np.flatnonzero(~np.isnan(theirs).any(1))
    if not len(both):
        raise SystemExit(f"{run} answered for none of these test photos: it was made from other photos, or another split.")
    theirs, ours, truth, groups = theirs[both], probabilities[both], truth[both], [groups[k] for k in both]
    print(said(run.name, len(both), scores(theirs, truth, labels, groups)))
    pair = paired([theirs, ours], truth, groups)["pairs"][0]
    print(f"\n{run.name} less logistic regression, the same {len(both):,} photos, paired bootstrap over {len(set(groups)):,} groups:\n")
    for name in ("accuracy", "weighted_f1"):
        print(f"- {name}: {100 * pair[name]['value']:+.1f} points [{100 * pair[name]['low']:+.1f}, {100 * pair[name]['high']:+.1f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path, default=os.environ.get("SWB_PHOTOS", Path(__file__).resolve().parents[2] / "shared" / "photos"))
    parser.add_argument("--run", type=Path, help="a finished run on the same photos")
    parser.add_argument("--workers", type=int, default=cpu_count(), help="processes that extract features")
    given = parser.parse_args()
    manifest = scan(given.photos, seed=0)
    labels = require_trainable(manifest)
    rows = [row for row in manifest.to_pylist() if row["status"] == "ok" and row["split"]]
    truth, split = np.array([labels.index(row["label"]) for row in rows]), np.array([row["split"] for row in rows])
    print(f"{given.photos}: {len(rows):,} photos of {len(labels)} classes: " + ", ".join(f"{(split == s).sum():,} {s}" for s in ("train", "valid", "test")))
    start, root = time.perf_counter(), manifest_root(manifest)
    blocks = extract([os.path.join(root, text_path(row["path"])) for row in rows], given.workers)
    print(f"{sum(b.shape[2] for b in blocks.values()):,} features a photo, extracted in {time.perf_counter() - start:.0f} s")
    start = time.perf_counter()
    probabilities, what, c = baseline(blocks, truth, split, labels)
    print(f"\nChosen on valid: {what}, C = {c:.2g}; all fits together {time.perf_counter() - start:.0f} s.\n")
    compare(given.run, probabilities, [row for row in rows if row["split"] == "test"], labels)


if __name__ == "__main__":
    main()
