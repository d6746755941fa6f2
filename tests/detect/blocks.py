"""A source of boxes for the tests, and photos with animals that it finds."""

import sys
from functools import cache
from pathlib import Path

import numpy as np

from species_wb.detect.boxes import Boxes, boxes_from
from species_wb.photos.pixels import encode_jpeg

COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "person": (230, 20, 230), "vehicle": (20, 230, 230), "bench": (230, 230, 20)}


class Blocks:
    "Finds the coloured blocks of a grid of 4 × 4 on a dark photo; the surest is the brightest."

    name, sha256, sees_people, side, least = "the blocks", "b" * 64, True, 64, 0.2

    def find(self, photo: np.ndarray, row: dict) -> Boxes:
        height, width = photo.shape[:2]
        found = []
        for k in range(16):
            y, x = divmod(k, 4)
            part = photo[y * height // 4 : (y + 1) * height // 4, x * width // 4 : (x + 1) * width // 4]
            mean = part[part.shape[0] // 4 : -part.shape[0] // 4, part.shape[1] // 4 : -part.shape[1] // 4].mean((0, 1))
            if mean.max() > 100:
                near = {name: np.abs(mean - colour).sum() for name, colour in COLOURS.items()}
                word = min(near, key=near.get)
                edges = [x / 4, y / 4, (x + 1) / 4, (y + 1) / 4]
                found.append((edges, 0.9 - k / 100, "animal" if word in ("red", "green") else word))
        return boxes_from([e for e, *_ in found], [s for _, s, _ in found], [w for *_, w in found])


def scene(*blocks: str, width: int = 320, height: int = 240, seed: int = 0) -> np.ndarray:
    "A dark photo with a coloured block in each of the named places, a word for a place; - leaves it dark."
    photo = np.random.default_rng(seed).integers(0, 30, (height, width, 3)).astype(np.uint8)
    for k, word in enumerate(blocks):
        if word != "-":
            y, x = divmod(k, 4)
            photo[y * height // 4 : (y + 1) * height // 4, x * width // 4 : (x + 1) * width // 4] = COLOURS[word]
    return photo


@cache
def jpeg(*blocks: str, seed: int = 0, **size: int) -> bytes:
    return encode_jpeg(scene(*blocks, seed=seed, **size), 92)


SCENES = (("red", "-", "green"), (), ("red",), ("-", "-", "-", "-", "person"), ("red", "red", "red"))


def card(folder: Path, count: int, first: int = 0) -> Path:
    "A memory card: two animals, none, one, a person, three animals, and so on."
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(first, first + count):
        (folder / f"IMG_{k:05}.JPG").write_bytes(jpeg(*SCENES[k % len(SCENES)], seed=k % 25))
    return folder


def run(model_path: str, photos: str, out: str) -> None:
    "Classify a folder with boxes, as a process of its own does it."
    from species_wb.classify import job
    from species_wb.classify.resume import Job, Task
    from species_wb.detect.source import Detect
    from species_wb.engine import model_file
    from species_wb.photos import sources

    model, where, detect = model_file.open_model(model_path, 1), sources.sources([photos]), Detect(Blocks())
    todo = Job(Path(out), where, Task(where.root, **detect.task()), model.sha256)
    print(*job.run_job(todo, model, job.here(model, detect=detect)).sentences, sep="\n")


if __name__ == "__main__":
    run(*sys.argv[1:])
