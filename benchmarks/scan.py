"""How fast a folder of photos is scanned, against a plain loop and the limit, in one run: python benchmarks/scan.py [FOLDER]

The limit reads every file and hashes its bytes. The plain loop does what most scripts do: Pillow decodes each photo in full, imagehash and hashlib hash it, one after another.
`scan` does that and more (status, EXIF, near-duplicates, groups, splits), from nothing and again from its cache. Each is the median of its rounds, which take turns; files are in the page cache."""

import argparse
import hashlib
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import imagehash
from PIL import Image

from species_wb.photos.scan import scan

ROUNDS = 3


def limit(paths: list[Path]) -> None:
    for path in paths:
        hashlib.sha256(path.read_bytes()).hexdigest()


def plain(paths: list[Path]) -> None:
    for path in paths:
        hashlib.sha256(path.read_bytes()).hexdigest()
        with Image.open(path) as image:
            image.getexif()
            imagehash.phash(image.convert("RGB"))


def cold(folder: Path) -> None:
    os.environ["SPECIES_WB_HOME"] = tempfile.mkdtemp()
    scan(folder)


def seconds(work, *arguments) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def table(folder: Path, what: str) -> None:
    "Print one folder's table."
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    limit(paths)  # the page cache is warm for all alike
    rows = {"limit: read and sha256": (limit, paths), "plain loop: Pillow, imagehash, hashlib": (plain, paths), "scan, from nothing": (cold, folder), "scan, again": (scan, folder)}
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, (work, argument) in rows.items():
            taken[name].append(seconds(work, argument))
    print(f"\n{what}: {len(paths):,} photos, {sum(p.stat().st_size for p in paths) / 1e6:.0f} MB, median of {ROUNDS}")
    print(f"{'':42}{'seconds':>9}{'photos/s':>10}{'of the limit':>14}{'plain loop':>12}")
    best, loop = (median(taken[name]) for name in list(rows)[:2])
    for name, times in taken.items():
        print(f"{name:42}{median(times):9.2f}{len(paths) / median(times):10,.0f}{best / median(times):14.3f}{loop / median(times):11.1f}×")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("SWB_PHOTOS", Path(__file__).resolve().parents[2] / "shared" / "photos"))
    folder = parser.parse_args().folder
    photos = sorted(folder.rglob("*.jpg"))
    if not photos:
        parser.error(f"{folder} holds no photos: name a folder of .jpg files")
    print(f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores")
    table(folder, "As they are")
    with tempfile.TemporaryDirectory() as large:
        for i, path in enumerate(photos[:: max(1, len(photos) // 40)][:40]):
            with Image.open(path) as image:
                image.convert("RGB").resize((4000, 3000)).save(Path(large) / f"{i}.jpg", quality=90)
        table(Path(large), "Enlarged to a camera's 12 megapixels")


if __name__ == "__main__":
    main()
