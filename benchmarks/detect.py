"""How good and how fast sources of boxes are, on real photos with boxes drawn by hand, on empty frames, and for naming.

    python benchmarks/detect.py SOURCE… [--model ready-made] [--boxes FOLDER] [--field FOLDER] [--rounds 3] [--without naming,speed]

Without --boxes and --field, the folders boxes and field beside the folder that SWB_PHOTOS names are taken.
A SOURCE is what `species-wb classify --detect` takes: a detector's .onnx file, a file with boxes, or self. Nothing is fitted or chosen here; each source's own least score decides which boxes count,
except for average precision, which looks at all scores.

- Average precision by COCO's rules (equal to pycocotools', see tests/metrics/test_average_precision.py), class-agnostic: with the boxes that the system takes for animals, and with all boxes
  whatever their class. Intervals (95 %) come from a bootstrap over photos; those of shares are Wilson's.
- Empty frames: the folder Empty of --field; and two kinds made from the photos of --boxes. `beside`: the largest part of a photo that touches no box, if its short side has 128 pixels or more.
  `filled`: the photo with its boxes, 5 % larger on each side, filled by what surrounds them (mirrored at each edge, the nearer edge weighs more), if the boxes cover half of the photo or less.
  A frame is called empty if no animal, person or vehicle is found in it. Frames in which a person or another animal can be seen (looked at by eye, whatever a detector says) are left out: OTHERS.
- Declined: photos of animals in which no animal is found, so that they would get no name.
- Naming: the likeliest label of the surest animal's box (joined with the whole photo's answer), or of the whole photo where none is found, against the likeliest label of the whole photo; paired over
  the same photos, with a bootstrap over the sources of the photos. `as answered` also counts a declined photo as wrong.
- Speed: photos/s of a whole folder, from files to rows, beside decoding, detecting and classifying alone, each with all cores. The limit is what the three take on the same cores and nothing else.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from field import CAMERAS, end_of, sources_of, wanted

from species_wb.contracts import manifest_root
from species_wb.core import UserError, cpu_count, in_threads, read_json
from species_wb.detect.boxes import Boxes, chosen
from species_wb.detect.kinds import kind_of
from species_wb.detect.source import Detect, NotKnown, Source
from species_wb.engine import model_file, speed
from species_wb.fields import text_path
from species_wb.metrics.average_precision import BoxedPhoto, average_precision, best_overlap
from species_wb.metrics.calibration import softmax
from species_wb.metrics.intervals import wilson
from species_wb.metrics.paired import paired
from species_wb.models.names import named_file
from species_wb.photos.items import Item
from species_wb.photos.pixels import decode
from species_wb.photos.reading import read_bytes

CORES = cpu_count()
SHORT, MARGIN, COVERED = 128, 0.05, 0.5  # pixels of the short side of a crop; around a filled box; share of the photo in filled boxes
OTHERS = {  # photos of shared/boxes that show people, cats or dogs outside the boxes, or something unclear, by number
    19, 25, 43, 51, 85, 99, 105, 127, 129, 171, 175, 181, 183, 187, 193, 195, 197,
}  # fmt: skip
ANIMALS = ("Amphibia", "Animalia", "Arachnida", "Aves", "Insecta", "Mammalia", "Mollusca", "Reptilia")
TRAPPED = ("Aves", "Mammalia")  # classes of camera-trap photos in the second line of naming


# --- photos with boxes, and empty frames ----------------------------------------------------------------------------------------


@cache
def boxed(folder: Path) -> tuple[tuple[str, np.ndarray], ...]:
    "Return the photos of a folder with boxes.json: name, and corners of the true boxes as shares."
    data = read_json(folder / "boxes.json")
    found: dict[int, list[list[float]]] = {}
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    for one in data["annotations"]:
        (x, y, w, h), (wide, high) = one["bbox"], sizes[one["image_id"]]
        found.setdefault(one["image_id"], []).append([x / wide, y / high, (x + w) / wide, (y + h) / high])
    return tuple((image["file_name"], np.array(found.get(image["id"], [])).reshape(-1, 4)) for image in data["images"])


def pixels_of(corners: np.ndarray, photo: np.ndarray, margin: float = 0.0) -> np.ndarray:
    "Return boxes as whole pixels of a photo, larger by a margin on each side."
    size = np.array(photo.shape[1::-1] * 2)
    around = margin * np.tile(corners[:, 2:] - corners[:, :2], 2) * [-1, -1, 1, 1]
    edges = (corners + around) * size
    return np.clip(np.concatenate([np.floor(edges[:, :2]), np.ceil(edges[:, 2:])], axis=1), 0, size).astype(int)


def beside(photo: np.ndarray, corners: np.ndarray) -> np.ndarray | None:
    "Return the largest part of a photo that touches no box, at most twice as long as wide; None if it is too small."
    boxes = pixels_of(corners, photo, MARGIN)
    high, wide = photo.shape[:2]
    best, area = None, 0
    xs, ys = (sorted({0, size, *boxes[:, [k, k + 2]].ravel().tolist()}) for k, size in ((0, wide), (1, high)))
    for i, x0 in enumerate(xs):
        for x1 in xs[i + 1 :]:
            for j, y0 in enumerate(ys):
                for y1 in ys[j + 1 :]:
                    free = ((boxes[:, 0] >= x1) | (boxes[:, 2] <= x0) | (boxes[:, 1] >= y1) | (boxes[:, 3] <= y0)).all()
                    w, h = min(x1 - x0, 2 * (y1 - y0)), min(y1 - y0, 2 * (x1 - x0))
                    if free and min(w, h) >= SHORT and w * h > area:
                        best, area = photo[y0 : y0 + h, x0 : x0 + w], w * h
    return best


def filled(photo: np.ndarray, corners: np.ndarray) -> np.ndarray | None:
    "Return a photo with its boxes filled by their surroundings; None if the boxes cover too much of it."
    boxes = pixels_of(corners, photo, MARGIN)
    hidden = np.zeros(photo.shape[:2], bool)
    for x0, y0, x1, y1 in boxes:
        hidden[y0:y1, x0:x1] = True
    if not len(boxes) or hidden.mean() > COVERED:
        return None
    picture = photo.astype(np.float32)
    for x0, y0, x1, y1 in boxes:
        picture[y0:y1, x0:x1] = _from_around(picture, hidden, x0, y0, x1, y1)
        hidden[y0:y1, x0:x1] = False
    return np.clip(picture, 0, 255).astype(np.uint8)


def _from_around(picture: np.ndarray, hidden: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    "Return what fills a box: the mirror images of what lies beyond its four edges; the nearer edge weighs more."
    high, wide = hidden.shape
    y, x = np.mgrid[y0:y1, x0:x1]
    total, weight = np.zeros((y1 - y0, x1 - x0, 3), np.float32), np.full((y1 - y0, x1 - x0, 1), 1e-9, np.float32)
    for room, deep, ys, xs in (
        (x0, x - x0, y, 2 * x0 - 1 - x), (wide - x1, x1 - 1 - x, y, 2 * x1 - 1 - x),
        (y0, y - y0, 2 * y0 - 1 - y, x), (high - y1, y1 - 1 - y, 2 * y1 - 1 - y, x),
    ):  # fmt: skip
        if room:
            back = np.abs((deep + room) % (2 * room) - room)  # to and fro where there is less room than the box is deep
            back = np.where(deep < room, deep, np.minimum(room - 1, back))
            shift = back - deep
            ys2 = np.clip(np.where(ys < y0, ys - shift, np.where(ys >= y1, ys + shift, ys)), 0, high - 1)
            xs2 = np.clip(np.where(xs < x0, xs - shift, np.where(xs >= x1, xs + shift, xs)), 0, wide - 1)
            near = (~hidden[ys2, xs2] / (deep + 1.0) ** 2)[..., None].astype(np.float32)
            total += near * picture[ys2, xs2]
            weight += near
    return total / weight


def photo_of(path: Path) -> np.ndarray:
    "Return a photo in its own size."
    return decode(read_bytes(path), None, path.name)


# --- what a source finds --------------------------------------------------------------------------------------------------------


def find(source: Source, photo: np.ndarray, row: dict[str, Any]) -> Boxes | None:
    "Return the boxes of a photo; None where the source knows nothing of it."
    try:
        return source.find(np.ascontiguousarray(photo), row)
    except NotKnown:
        return None


def counted(source: Source, boxes: Boxes) -> Boxes:
    "Return the boxes that get a row in the table."
    kept = [k for k, label in enumerate(boxes.labels) if kind_of(label) != "thing" and boxes.scores[k] >= source.least]
    return chosen(boxes, np.array(kept, int))


def animals(boxes: Boxes) -> Boxes:
    "Return the boxes of animals, at all scores."
    return chosen(boxes, np.array([kind_of(label) == "animal" for label in boxes.labels], bool))


def share(k: int, n: int) -> str:
    "Write a share with its interval and its n."
    return f"{k / n:.3f} ({wilson(k, n)[0]:.2f} to {wilson(k, n)[1]:.2f}; {k} of {n})" if n else "no photos"


def scored(found: dict[str, float]) -> str:
    return f"{found['value']:.4f} ({found['low']:.2f} to {found['high']:.2f})"


def on_boxes(source: Source, folder: Path) -> dict[str, str]:
    "Score a source on photos with true boxes."
    found = [find(source, photo_of(folder / name), {"path": name}) for name, _ in boxed(folder)]
    known = [(boxes, true) for boxes, (_, true) in zip(found, boxed(folder), strict=True) if boxes is not None]
    said = {"photos with true boxes": f"{len(known)} with {sum(len(true) for _, true in known)} boxes"}
    for what, pick in (("animals", animals), ("any class", lambda boxes: boxes)):
        photos = [BoxedPhoto(true, pick(boxes).corners, pick(boxes).scores) for boxes, true in known]
        points = average_precision(photos)
        said |= {f"mAP50, {what}": scored(points["map50"]), f"mAP50:95, {what}": scored(points["map50_95"])}
    kept = [animals(counted(source, boxes)) for boxes, _ in known]
    best = best_overlap([BoxedPhoto(true, some.corners, some.scores) for some, (_, true) in zip(kept, known, strict=True)])
    said["best box overlaps the animal by half"] = share(best["k"], best["n"])
    said["declined, photos with true boxes"] = share(sum(not len(some) for some in kept), len(kept))
    return said


def frames(boxes: Path, field: Path) -> dict[str, Iterator[np.ndarray]]:
    "Return the empty frames of each kind."
    alone = [(name, true) for name, true in boxed(boxes) if int(Path(name).stem.rpartition("-")[2]) not in OTHERS]
    made = [partial(make, photo_of(boxes / name), true) for make in (beside, filled) for name, true in alone]
    half = len(made) // 2
    return {
        "empty called empty, real": (photo_of(path) for path in sorted((field / "Empty").glob("*"))),
        "empty called empty, beside": (frame for make in made[:half] if (frame := make()) is not None),
        "empty called empty, filled": (frame for make in made[half:] if (frame := make()) is not None),
    }


def on_empty(source: Source, boxes: Path, field: Path) -> dict[str, str]:
    "Count the empty frames that a source calls empty."
    said = {}
    for kind, pictures in frames(boxes, field).items():
        found = [find(source, picture, {"path": f"{kind} {k}"}) for k, picture in enumerate(pictures)]
        known = [counted(source, some) for some in found if some is not None]
        said[kind] = share(sum(not len(some) for some in known), len(known))
    return said


# --- naming ---------------------------------------------------------------------------------------------------------------------


def items_of(folder: Path) -> tuple[list[Item], list[dict[str, Any]]]:
    "Return the photos of a folder of class folders, as a job reads them, and their rows of the manifest."
    manifest = wanted(folder)
    root, rows = Path(manifest_root(manifest)), manifest.to_pylist()
    fetch = [partial(read_bytes, root / text_path(row["path"])) for row in rows]
    return [({"path": row["path"]}, get) for row, get in zip(rows, fetch, strict=True)], rows


def by_photo(answers: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    "Return the rows of each photo, the surest box first."
    found: dict[str, list[dict[str, Any]]] = {}
    for row in answers:
        found.setdefault(row["path"], []).append(row)
    return found


def on_field(source: Source, model: model_file.Model, field: Path) -> dict[str, str]:
    "Name the photos with and without boxes."
    from species_wb.detect.answers import predict_boxes
    from species_wb.engine.predict import predict_items

    items, rows = items_of(field)
    whole = {row["path"]: row for row in predict_items(model, items)}
    with_boxes = by_photo([*predict_boxes(model, items, Detect(source))])
    origins, labels = sources_of(field, None), model.info.labels
    shown = [row for row in rows if row["label"] in labels]
    declined = {path for path, some in with_boxes.items() if all(row.get("code") for row in some)}
    first = {path: next((row for row in some if not row.get("code")), whole[path]) for path, some in with_boxes.items()}
    mine = [row for row in shown if row["label"] in ANIMALS]
    said = {"declined, field photos of animals": share(sum(row["path"] in declined for row in mine), len(mine))}
    cameras = [name.lower() for name in CAMERAS.split(",")]
    origin = {row["path"]: origins.get(end_of(row["path"]), {}).get("repo", "") for row in shown}
    trapped = [row for row in shown if row["label"] in TRAPPED and any(name in origin[row["path"]].lower() for name in cameras)]
    for what, some in (("all field photos", shown), ("animals", mine), ("camera-trap mammals and birds", trapped)):
        if some:
            said |= _compared(what, some, first, whole, declined, origins, model)
    return said


def _compared(
    what: str, rows: list[dict[str, Any]], first: dict, whole: dict, declined: set[str], origins: dict, model: model_file.Model
) -> dict[str, str]:
    "Compare the names with and without boxes on some photos."
    truth = np.array([model.info.labels.index(row["label"]) for row in rows])
    answers = [softmax(np.array([some[row["path"]]["logits"] for row in rows]), model.info.temperature) for some in (first, whole)]
    camera = [_camera(origins.get(end_of(row["path"]), {}), row["path"]) for row in rows]
    found = paired(answers, truth, camera, resamples=2000)["pairs"][0]["accuracy"]
    right = [answer.argmax(1) == truth for answer in answers]
    named = np.array([row["path"] not in declined for row in rows])
    n = len(rows)
    return {
        f"{what}: named right without boxes": share(int(right[1].sum()), n),
        f"{what}: named right with boxes": share(int(right[0].sum()), n),
        f"{what}: difference, interval by camera or source": f"{found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}; {len({*camera})} groups)",
        f"{what}: right as answered, with boxes": share(int((right[0] & named).sum()), n),
    }


def _camera(origin: dict[str, str], path: str) -> str:
    "Return the collection of a photo and its folder there: cameras have folders of their own."
    return f"{origin['repo']}/{Path(origin.get('path', '')).parent}" if origin.get("repo") else path


# --- speed ----------------------------------------------------------------------------------------------------------------------


def rate(work: Callable[[Any], Any], things: Sequence[Any], workers: int = CORES) -> float:
    "Return how many things a second are worked on by all cores."
    start = time.perf_counter()
    for _ in in_threads(work, things, workers, window=4 * workers):
        pass
    return len(things) / (time.perf_counter() - start)


def on_speed(source: Source, model: model_file.Model, field: Path, rounds: int) -> dict[str, str]:
    "Time a folder of photos from files to rows, and its three parts alone."
    from species_wb.detect.answers import predict_boxes, size_for

    items, _ = items_of(field)
    detect, size = Detect(source), size_for(model, Detect(source))
    read = [get() for _, get in items]
    photos = [decode(data, size) for data in read]
    rows = [row for row, _ in items]
    best = dict.fromkeys(("together", "decoding", "detecting", "classifying"), 0.0)
    pictures = 1.0
    for _ in range(rounds):
        start = time.perf_counter()
        answers = [*predict_boxes(model, items, detect)]
        best["together"] = max(best["together"], len(items) / (time.perf_counter() - start))
        pictures = 1 + sum(row.get("box") is not None and not row.get("code") for row in answers) / len(items)
        best["decoding"] = max(best["decoding"], rate(lambda data: decode(data, size), read))
        best["detecting"] = max(best["detecting"], rate(lambda k: find(source, photos[k], rows[k]), range(len(photos))))
        ways = {(1, CORES), (CORES, 1)}
        alone = max(speed.photos_per_second(model_file.open_model(model.path, threads), workers, 1, 1.0) for threads, workers in ways)
        best["classifying"] = max(best["classifying"], alone / pictures)
    limit = 1 / sum(1 / best[part] for part in ("decoding", "detecting", "classifying"))
    return {
        "photos/s, files to rows": f"{best['together']:.1f} (n = {len(items)}, {pictures:.2f} pictures a photo, best of {rounds})",
        "photos/s, decoding alone": f"{best['decoding']:.1f}", "photos/s, detecting alone": f"{best['detecting']:.1f}",
        "photos/s, classifying alone": f"{best['classifying']:.1f}",
        "photos/s, the three on the same cores, nothing else": f"{limit:.1f}", "share of that": f"{best['together'] / limit:.2f}",
    }  # fmt: skip


# --- the table ------------------------------------------------------------------------------------------------------------------


def opened(word: str, model: model_file.Model) -> Source:
    "Open a source of boxes."
    from species_wb.detect.choose import open_source

    return open_source(word, model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--model", default="ready-made")
    photos = os.environ.get("SWB_PHOTOS")
    for name in ("boxes", "field"):
        parser.add_argument(f"--{name}", type=Path, **({"default": Path(photos).resolve().parent / name} if photos else {"required": True}))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", default="", help="parts to leave out: boxes, empty, naming, speed")
    asked = parser.parse_args()
    model = model_file.open_model(named_file(asked.model, print))
    parts: dict[str, Callable[[Source], dict[str, str]]] = {
        "boxes": lambda source: on_boxes(source, asked.boxes), "empty": lambda source: on_empty(source, asked.boxes, asked.field),
        "naming": lambda source: on_field(source, model, asked.field), "speed": lambda source: on_speed(source, model, asked.field, asked.rounds),
    }  # fmt: skip
    left_out = {*asked.without.split(",")}
    print(f"{date.today()}, {platform.machine()}, {CORES} cores, model {model.info.spec.name} ({model.sha256[:16]})\n")
    columns: dict[str, dict[str, str]] = {}
    for word in asked.sources:
        source = opened(word, model)
        columns[source.name] = {"least score": f"{source.least:g}", "sees people": "yes" if source.sees_people else "no"}
        for name, part in parts.items():
            if name not in left_out:
                columns[source.name] |= part(source)
    lines = list(dict.fromkeys(line for column in columns.values() for line in column))
    print("| |", " | ".join(columns), "|\n|", "--- | " * (len(columns) + 1))
    for line in lines:
        print(f"| {line} |", " | ".join(column.get(line, "") for column in columns.values()), "|")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
