"""How fast the confusion explorer is, in a real browser: python benchmarks/explorer.py

A run of 10,000 made-up predictions (100 classes, 1,280 features, 100 logits each) is opened, and a cell of 500 photos in it, of which 1,600 × 1,200 pixels each lie on the disk.
Measured is what a person waits for: from making the explorer to a drawn matrix, from a click on the cell to every picture on the first screen, first with no thumbnail made yet and then again; and a correction.
The limits say what cannot be saved: reading the columns that are shown, and decoding the pictures on the first screen, nothing else. The plain way is what one writes in a notebook: read the
whole table, make a thumbnail of all 500 photos with Pillow. Needs Chromium."""

import argparse
import hashlib
import io
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from harness import Stage

from species_wb.apps.explorer import Explorer
from species_wb.photos.pixels import decode, encode_jpeg
from species_wb.curate.predictions import COLUMNS
from species_wb.predictions import predictions_table, write_predictions

CLASSES, ROWS, CELL, ROUNDS = 100, 10_000, 500, 3
LABELS = [f"species {k:03}" for k in range(CLASSES)]
SEEN = "[...document.querySelectorAll('.swb-card')].filter(node => node.getBoundingClientRect().top < innerHeight)"
READY = f"(() => {{ const seen = {SEEN}; return seen.length > 3 && seen.every(node => node.querySelector('img')?.complete) }})()"


def made_up(folder: Path) -> Path:
    "Write the table, and the photos of the cell."
    rng, rows = np.random.default_rng(0), []
    base = np.kron(rng.integers(0, 256, (15, 20, 3)), np.ones((80, 80, 1)))
    for k in range(ROWS):
        in_cell, path = k < CELL, f"photos/{k:05}.jpg"
        truth = 0 if in_cell else int(rng.integers(1, CLASSES))
        taken = 1 if in_cell else truth if rng.random() < 0.85 else int(rng.integers(1, CLASSES))
        sha256 = hashlib.sha256(str(k).encode()).hexdigest()
        if in_cell:
            data = encode_jpeg(np.clip(np.roll(base, k * 7, 1) + rng.normal(0, 6, (1200, 1600, 1)), 0, 255).astype(np.uint8))
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest()
        score = float(rng.uniform(0.3, 1))
        top = [{"label": LABELS[taken], "score": score}, *({"label": LABELS[j], "score": (1 - score) / 4} for j in rng.integers(0, CLASSES, 4))]
        rows.append({"path": path, "sha256": sha256, "status": "ok", "label": LABELS[taken], "score": score, "top": top, "abstained": False, "truth": LABELS[truth], "split": "test", "site": f"site {k % 12}"})
    table = predictions_table(rows, folder, LABELS)
    for name, width in (("logits", CLASSES), ("embedding", 1280)):
        values = pa.array(rng.normal(size=ROWS * width).astype(np.float32))
        table = table.append_column(name, pa.ListArray.from_arrays(pa.array(np.arange(ROWS + 1, dtype=np.int32) * width), values))
    write_predictions(table, folder / "predictions.parquet")
    return folder / "predictions.parquet"


def seconds(work, *given) -> float:
    start = time.perf_counter()
    work(*given)
    return time.perf_counter() - start


def plain(table: Path, photos: list[Path]) -> None:
    pq.read_table(table).to_pylist()
    for path in photos:
        with Image.open(path) as image:
            image.thumbnail((256, 256))
            image.save(io.BytesIO(), "JPEG")


def round_of(browser, table: Path) -> dict[str, float]:
    "Go through the explorer once, from a workspace without thumbnails."
    shutil.rmtree(os.environ["SPECIES_WB_HOME"] + "/.cache", ignore_errors=True)
    found, name = {}, f"500 photos of {LABELS[0]}, taken for {LABELS[1]}"
    for what in ("no thumbnail made yet", "thumbnails made before"):
        start = time.perf_counter()
        with Stage(browser, Explorer(table)) as stage:
            page = stage.page
            page.locator("td[role=gridcell]").first.wait_for()
            found.setdefault("open 10,000 predictions: to a drawn matrix", time.perf_counter() - start)
            start = time.perf_counter()
            page.locator(".swb-go").first.click()
            page.wait_for_function(READY, polling=20)
            found[f"open the cell of 500, {what}"] = time.perf_counter() - start
            found["pictures"] = page.evaluate(f"{SEEN}.length")
            assert page.locator(".swb-count").inner_text().startswith(name), page.locator(".swb-count").inner_text()
            if "before" in what:
                start = time.perf_counter()
                page.locator(".swb-card").first.click()
                page.locator(".swb-large img").wait_for()
                found["one photo in full, with its neighbours among 10,000"] = time.perf_counter() - start
                start = time.perf_counter()
                page.keyboard.press("x")
                page.locator(".swb-status", has_text="excluded").wait_for()
                found["exclude a photo: matrix, cell and sentence anew"] = time.perf_counter() - start
                page.keyboard.press("z")
                page.locator(".swb-status", has_text="Undone").wait_for()
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        os.environ["SPECIES_WB_HOME"] = name
        table = made_up(folder)
        photos = sorted((folder / "photos").iterdir())
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        rounds = [round_of(browser, table) for _ in range(ROUNDS)]
        browser.close()
        on_screen = int(rounds[0].pop("pictures"))
        rows = {what: median(one[what] for one in rounds) for what in rounds[0]}
        limits = {
            "limit: read the columns that are shown": median(seconds(lambda: pq.read_table(table, columns=[n for n in COLUMNS if n in pq.read_schema(table).names])) for _ in range(ROUNDS)),
            f"limit: read and decode {on_screen} photos": median(seconds(lambda: [decode(path.read_bytes(), 256) for path in photos[:on_screen]]) for _ in range(ROUNDS)),
            "plain: read it all, 500 thumbnails with Pillow": seconds(plain, table, photos),
        }
    print(f"\nThe confusion explorer, {ROWS:,} predictions in {CLASSES} classes, {on_screen} photos on the first screen, {os.cpu_count()} processors shared with the browser, median of {ROUNDS}")
    for what, taken in {**rows, **limits}.items():
        print(f"{what:56}{taken:8.2f} s")


if __name__ == "__main__":
    main()
