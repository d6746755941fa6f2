"""How good models are on field photos: photos of other places, cameras and people than those that a model was made with.

    python benchmarks/field.py FOLDER [--model ready-made] [--model runs/A/model.onnx] [--sources SOURCES.csv] [--cameras camtrapR,zamba,biowatch] [--paired]

With --paired, the last tables compare every two of the models on the same photos (`metrics.paired`): a negative difference of log losses says that the first of the two is better.

FOLDER holds one folder a class; a folder named Empty holds photos without an organism. SOURCES.csv has a column `file` (the path below FOLDER, or one that ends in it) and says where each
photo is from and under which licence, in the columns that `species_wb.photos.credits` reads; it is found in FOLDER by itself. A photo is a camera trap's where one of --cameras stands in its
source. A photo may be known to the network where its source or licence names the collection that the network was pretrained on, such as ImageNet: two numbers say how well each kind is named.
Nothing is fitted or chosen here: a model is only scored.

Two answers are counted. `best label` is the class with the highest score, whatever that is. `as answered` is the label in the table: a photo that is left open counts as not right.
Frames of one burst, and near duplicates, are one witness: intervals (95 %) come from a bootstrap over the groups that `species_wb.photos.groups` finds (bursts within a site, equal and nearly
equal photos), and n groups is written beside n photos; one more comes from a bootstrap over the sources, since photos of one collection resemble each other, too. The mean over classes weighs each class alike, however many photos it has; its interval draws whole groups within each class. Log loss and calibration error are those of the scores that
the table shows, over the photos whose class the model knows.
"""

import argparse
import csv
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from species_wb.core import UserError
from species_wb.engine import model_file
from species_wb.engine.predict import predict_manifest
from species_wb.evaluate.photo_sources import collections_in, pretrained_on
from species_wb.metrics.calibration import softmax
from species_wb.metrics.intervals import tied
from species_wb.metrics.paired import paired
from species_wb.metrics.scores import BINS, bin_numbers, scores, shares
from species_wb.models.names import named_file
from species_wb.photos.credits import credits_of
from species_wb.photos.scan import scan

EMPTY = "empty"
CAMERAS = "camtrapR,zamba,biowatch"  # sources of shared/field whose photos camera traps took
COLUMNS = ("n", "groups", "best label", "as answered", "left open")


def sources_of(folder: Path, table: Path | None) -> dict[str, dict[str, str]]:
    "Return the row of each photo, by the last two parts of its path (class and file); nothing where no table says it."
    path = table or folder / "SOURCES.csv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {end_of(row["file"]): row for row in csv.DictReader(file)}


def end_of(path: str) -> str:
    "Return class and file name of a photo."
    return "/".join(path.split("/")[-2:])


def wanted(folder: Path) -> pa.Table:
    "Return the manifest of the labelled photos that open."
    found = scan(folder)
    kept = [row["label"] is not None and row["status"] == "ok" for row in found.to_pylist()]
    if not any(kept):
        raise UserError(f"{folder} has no photos in class folders: name a folder with one folder a class.")
    return found.filter(pa.array(kept))


def interval(found: dict[str, float] | None) -> str:
    "Write a score with its interval."
    return "" if found is None else f"{found['value']:.3f} ({found['low']:.2f} to {found['high']:.2f})"


def line(name: str, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    "Return one line of a table: how many of some photos were named right."
    groups = [row["group"] for row in rows]
    best, answered, left_open = shares([[r["best"], r["label"] == r["truth"], r["label"] is None] for r in rows], tied(groups))
    return name, str(len(rows)), str(len({*groups})), interval(best), interval(answered), interval(left_open)


def show(title: str, lines: Sequence[tuple[str, ...]]) -> None:
    "Print a table."
    table = [(title, *COLUMNS), *lines]
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    print(*("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table), sep="\n", end="\n\n")


def split_by(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[str, list[dict[str, Any]]]]:
    "Divide rows by a column, the largest part first."
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        parts.setdefault(row[key], []).append(row)
    return sorted(parts.items(), key=lambda part: (-len(part[1]), part[0]))


def judged(model: model_file.Model, manifest: pa.Table, sources: dict[str, dict[str, str]], cameras: Sequence[str]) -> list[dict[str, Any]]:
    "Classify the photos, and add to each row its best label, its source, the kind of its camera, and whether it may be known from pretraining."
    labels, known = model.info.labels, np.array(model.info.label_ids) >= 0
    rows = predict_manifest(model, manifest).to_pylist()
    for row in rows:
        logits = np.where(known, row["logits"], -np.inf)
        said = credits_of(sources.get(end_of(row["path"]), {}))
        seen = pretrained_on(model) & collections_in(f"{said.get('source', '')} {said.get('licence', '')}")
        row["best"] = labels[int(logits.argmax())] == row["truth"]
        row["source"] = said.get("source", "not said")
        row["camera"] = "camera trap" if any(name.lower() in row["source"].lower() for name in cameras) else "other"
        row["pretraining"] = " and ".join(sorted(seen)) or "elsewhere"
    return rows


def over_classes(by_class: Sequence[tuple[str, list[dict[str, Any]]]], resamples: int = 2000, seed: int = 0) -> tuple[dict[str, float], dict[str, float]]:
    "Return two means over classes with their intervals: `best label` and `as answered`. In each class, whole groups are drawn."
    rng, drawn, middle = np.random.default_rng(seed), np.zeros((resamples, 2)), np.zeros(2)
    for _, some in by_class:
        right = np.array([[r["best"], r["label"] == r["truth"]] for r in some], float)
        names, group = np.unique([r["group"] for r in some], return_inverse=True)
        sums, sizes = np.zeros((len(names), 2)), np.bincount(group)
        np.add.at(sums, group, right)
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
        drawn += (times @ sums) / (times @ sizes)[:, None] / len(by_class)
        middle += right.mean(0) / len(by_class)
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    first, second = ({"value": middle[k], "low": low[k], "high": high[k]} for k in range(2))
    return first, second


def report(model: model_file.Model, rows: list[dict[str, Any]]) -> None:
    "Print what one model makes of the photos."
    labels = model.info.labels
    empty = [row for row in rows if row["truth"].casefold() == EMPTY]
    shown = [row for row in rows if row["truth"] in labels]
    unknown = len(rows) - len(empty) - len(shown)
    if not shown:
        raise UserError(f"{model.path} knows none of the classes of these photos ({', '.join(labels)}): name another model or folder.")
    show("", [line("all", shown)])
    by_class = split_by(shown, "truth")
    best, answered = over_classes(by_class)
    print(f"mean over {len(by_class)} classes: best label {interval(best)}, as answered {interval(answered)}")
    if len(collections := {row["source"] for row in shown}) > 1:
        (over,) = shares([[row["best"]] for row in shown], [row["source"] for row in shown])
        print(f"interval over the {len(collections)} sources, in place of the groups: {interval(over)}")
    found = scores(softmax([row["logits"] for row in shown], model.info.temperature), [labels.index(row["truth"]) for row in shown], labels, tied([row["group"] for row in shown]))
    sure = f"expected calibration error {interval(found['ece'])} ({by_chance(model, shown):.3f} by chance alone)"
    print(f"log loss {interval(found['log_loss'])}, Brier score {interval(found['brier'])}, {sure}, n = {len(shown)}")
    print(f"empty frames: {sum(row['label'] is not None for row in empty)} of {len(empty)} got a label" if empty else "no empty frames here")
    print(*([f"{unknown} photos are of classes that the model does not know, and are left out"] if unknown else []), sep="\n", end="\n\n")
    for key in ("pretraining", "camera", "source", "truth"):
        show(f"by {'class' if key == 'truth' else key}", [line(name, some) for name, some in split_by(shown, key)])


def by_chance(model: model_file.Model, rows: list[dict[str, Any]], times: int = 200, seed: int = 0) -> float:
    "Return the mean calibration error that scores like these would have if they were right: each answer is drawn from its probabilities."
    rng, p = np.random.default_rng(seed), softmax([row["logits"] for row in rows], model.info.temperature)
    drawn = (rng.random((times, len(p), 1)) > p.cumsum(1)[None, :, :-1]).sum(2)
    score, gaps = p.max(1), (p.max(1) - (drawn == p.argmax(1)))
    bins = bin_numbers(score, BINS)
    return float(np.mean([np.abs(np.bincount(bins, gap)).sum() / len(p) for gap in gaps]))


def compared(names: Sequence[str], found: Sequence[tuple[model_file.Model, list[dict[str, Any]]]]) -> None:
    "Print how far every two models differ on the photos whose class both know; a photo or a burst counts once."
    labels = [*dict.fromkeys(label for model, _ in found for label in model.info.labels)]
    known = set.intersection(*({*model.info.labels} for model, _ in found))
    rows, p = [[row for row in some if row["truth"] in known] for _, some in found], []
    for (model, _), some in zip(found, rows, strict=True):
        p.append(np.zeros((len(some), len(labels))))
        p[-1][:, [labels.index(label) for label in model.info.labels]] = softmax([row["logits"] for row in some], model.info.temperature)
    truth = [labels.index(row["truth"]) for row in rows[0]]
    for unit in ("group", "source"):
        units = [row[unit] for row in rows[0]]
        print(f"paired differences, n = {len(truth)}, {len({*units})} {unit}s")
        for pair in paired(p, truth, units)["pairs"]:
            said = [f"{name.replace('_', ' ')} {d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})" for name in ("log_loss", "accuracy") for d in [pair[name]]]
            print(f"  {names[pair['a']]} minus {names[pair['b']]}: {', '.join(said)}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", action="append", help="a model file, a mix, a run folder or ready-made; several are shown one below the other")
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--cameras", default=CAMERAS)
    parser.add_argument("--paired", action="store_true", help="also compare every two of the models on the same photos")
    asked = parser.parse_args()
    manifest, sources = wanted(asked.folder), sources_of(asked.folder, asked.sources)
    print(f"{asked.folder}, {len(manifest)} photos, {date.today()}, {platform.machine()}\n")
    names, found = asked.model or ["ready-made"], []
    for name in names:
        model = model_file.open_model(named_file(name, print))
        print(f"== {name} ({model.info.spec.name}, {model.sha256[:16]})")
        found.append((model, judged(model, manifest, sources, asked.cameras.split(","))))
        report(*found[-1])
    if asked.paired:
        compared(names, found)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
