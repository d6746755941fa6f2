"""How good models are on field photos: photos of other places, cameras and people than those that a model was made with.

    python benchmarks/field.py FOLDER [--model ready-made] [--model runs/A/model.onnx] [--sources SOURCES.csv] [--cameras camtrapR,zamba,biowatch]

FOLDER holds one folder a class; a folder named Empty holds photos without an organism. SOURCES.csv has a column `file` (the path below FOLDER) and a column `repo` (where the photo
is from); it is found in FOLDER by itself. A photo is a camera trap's where one of --cameras stands in its source. Nothing is fitted or chosen here: a model is only scored.

Two answers are counted. `best label` is the class with the highest score, whatever that is. `as answered` is the label in the table: a photo that is left open counts as not right.
Frames of one burst, and near duplicates, are one witness: intervals (95 %) come from a bootstrap over the groups that `species_wb.photos.groups` finds (bursts within a site, equal and nearly
equal photos), and n groups is written beside n photos; one more comes from a bootstrap over the sources, since photos of one collection resemble each other, too. The mean over classes weighs each class alike, however many photos it has. Log loss and calibration error are those of the scores that
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
from species_wb.metrics.calibration import softmax
from species_wb.metrics.intervals import tied
from species_wb.metrics.scores import scores, shares
from species_wb.models.names import named_file
from species_wb.photos.scan import scan

EMPTY = "empty"
CAMERAS = "camtrapR,zamba,biowatch"  # sources of shared/field whose photos camera traps took
COLUMNS = ("n", "groups", "best label", "as answered", "left open")


def sources_of(folder: Path, table: Path | None) -> dict[str, str]:
    "Return the source of each photo, by its path below the folder; nothing where no table says it."
    path = table or folder / "SOURCES.csv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {row["file"]: row.get("repo") or "" for row in csv.DictReader(file)}


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
    return name, str(len(rows)), str(len({*groups})), interval(best), interval(answered), f"{left_open['value']:.2f}"


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


def judged(model: model_file.Model, manifest: pa.Table, sources: dict[str, str], cameras: Sequence[str]) -> list[dict[str, Any]]:
    "Classify the photos, and add to each row its best label, its source and the kind of its camera."
    labels, known = model.info.labels, np.array(model.info.label_ids) >= 0
    rows = predict_manifest(model, manifest).to_pylist()
    for row in rows:
        logits = np.where(known, row["logits"], -np.inf)
        row["best"] = labels[int(logits.argmax())] == row["truth"]
        row["source"] = sources.get(row["path"], "not said")
        row["camera"] = "camera trap" if any(name.lower() in row["source"].lower() for name in cameras) else "other"
    return rows


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
    best, answered = np.mean([np.mean([[r["best"], r["label"] == r["truth"]] for r in some], axis=0) for _, some in by_class], axis=0)
    print(f"mean over {len(by_class)} classes: best label {best:.3f}, as answered {answered:.3f}")
    if len(collections := {row["source"] for row in shown}) > 1:
        (over,) = shares([[row["best"]] for row in shown], [row["source"] for row in shown])
        print(f"interval over the {len(collections)} sources, in place of the groups: {interval(over)}")
    found = scores(softmax([row["logits"] for row in shown], model.info.temperature), [labels.index(row["truth"]) for row in shown], labels, tied([row["group"] for row in shown]))
    print(f"log loss {interval(found['log_loss'])}, expected calibration error {interval(found['ece'])}, n = {len(shown)}")
    print(f"empty frames: {sum(row['label'] is not None for row in empty)} of {len(empty)} got a label" if empty else "no empty frames here")
    print(*([f"{unknown} photos are of classes that the model does not know, and are left out"] if unknown else []), sep="\n", end="\n\n")
    for key in ("camera", "source", "truth"):
        show(f"by {'class' if key == 'truth' else key}", [line(name, some) for name, some in split_by(shown, key)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", action="append", help="a model file, a mix, a run folder or ready-made; several are shown one below the other")
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--cameras", default=CAMERAS)
    asked = parser.parse_args()
    manifest, sources = wanted(asked.folder), sources_of(asked.folder, asked.sources)
    print(f"{asked.folder}, {len(manifest)} photos, {date.today()}, {platform.machine()}\n")
    for name in asked.model or ["ready-made"]:
        model = model_file.open_model(named_file(name, print))
        print(f"== {name} ({model.info.spec.name}, {model.sha256[:16]})")
        report(model, judged(model, manifest, sources, asked.cameras.split(",")))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
