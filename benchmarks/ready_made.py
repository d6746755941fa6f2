"""Which network the ready-made model is made of, with which three numbers, and how good it is: a table of all candidates, and species_wb/data/ready_made.json.

    python benchmarks/ready_made.py PHOTOS_TRAIN --objects FOLDER [--test PHOTOS_TEST]
    python benchmarks/ready_made.py PHOTOS_TRAIN --promises

PHOTOS_TRAIN holds one folder a taxon. Photos of plain objects come from what scikit-image and matplotlib carry, and from FOLDER, the folder `examples` of Debian's package
opencv-doc (`apt-get download opencv-doc && dpkg-deb -x opencv-doc_*.deb . && ls usr/share/doc/opencv-doc/examples`). OBJECTS names those that were looked at and show no organism:
people (who are no record of wildlife, as in the taxon table), things, streets, printed pages, the moon. Left out are drawings, second views of the same scene, and whatever has a tree in it.

For each network, ImageNet's thousand logits are computed once by ONNX Runtime. Inner temperature (from INNER), offset of "none of these" and temperature have the least log loss on
both kinds of photos, where the objects weigh as much as if they were OBJECT_SHARE of all. Below the least of INNER the loss falls by less than 0.003, and a sum becomes a maximum.
A mix is the mean of its members' calibrated probabilities. Chosen is the smallest single network, unless the gain in accuracy of another is more than GAIN at the lower end of its paired 95 % interval;
mixes are shown for their gain, but the ready-made model is one file. The figures in the JSON are the written file's own. Three numbers were fitted to the photos they are measured on:
`out_of_fold` has the figures where each fifth of the photos is scored with numbers fitted to the others. The taxon table was made with a look at these photos, too, so expect a little less elsewhere.
The time of a network is the least of 60 single photos, so that other work on the machine counts little; that of a mix is the sum. It is shown, but what is chosen rests on the size of the file, which does not waver.
With --test, the file is scored on photos that nothing was chosen with.
With --promises, only the sets and the table of risks (metrics.promises) are calibrated anew, with the numbers that are there. They are calibrated on the photos that the three numbers were fitted to;
three numbers for 955 photos hardly adapt to them (`out_of_fold` against `validation` in the JSON shows how little), but strictly the promise is approximate.
"""

import argparse
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import skimage
from scipy.optimize import minimize
from scipy.special import logsumexp

from species_wb.engine import model_file, speed
from species_wb.models import ready_made, registry
from species_wb.photos import pixels
from species_wb.contracts import ModelInfo
from species_wb.core import UserError, in_threads, plural, write_json
from species_wb.progress import progress
from species_wb.models.export import to_onnx
from species_wb.metrics.calibration import softmax
from species_wb.metrics.intervals import wilson
from species_wb.metrics.promises import promises
from species_wb.metrics.scores import scores, shares
from species_wb.simulate.scenery import HABITATS, draw_ground
from species_wb.taxa import CLASSES

NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
INNER = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
OBJECT_SHARE = 0.1
GAIN = 0.01
LABELS = [*CLASSES, ready_made.NONE]
OBJECTS = {
    "skimage": "astronaut.png brick.png camera.png clock_motion.png coffee.png coins.png gravel.png hubble_deep_field.jpg moon.png motorcycle_left.png page.png rocket.jpg text.png",
    "matplotlib": "grace_hopper.jpg",
    "opencv": "data/basketball1.png data/board.jpg data/box.png data/box_in_scene.png data/cards.png data/ela_original.jpg data/graf1.png data/home.jpg data/left.jpg data/left01.jpg data/leuvenA.jpg "
    "data/licenseplate_motion.jpg data/pca_test1.jpg data/smarties.png data/stuff.jpg data/sudoku.png data/text_defocus.jpg data/text_motion.jpg reg/LR_05.png reg/home.png "
    "text/scenetext02.jpg text/scenetext03.jpg text/scenetext05.jpg text/scenetext_segmented_word03.jpg text/scenetext_segmented_word04.jpg text/scenetext_segmented_word05.jpg "
    "text/scenetext_word02.jpg text/scenetext_word03.jpg text/scenetext_word04.jpg",
}


def labelled(folder: Path) -> tuple[list[Path], np.ndarray]:
    "Photos in class folders, and their classes."
    found = [(path, c) for c, name in enumerate(CLASSES) for path in sorted((folder / name).glob("*"))]
    if not found:
        raise UserError(f"{folder} has no photos in folders named {', '.join(CLASSES)}: name one that has.")
    return [path for path, _ in found], np.array([c for _, c in found])


def objects(opencv: Path) -> list[Path]:
    "Photos without an organism."
    places = {"skimage": Path(skimage.__file__).parent / "data", "matplotlib": Path(matplotlib.get_data_path()) / "sample_data", "opencv": opencv}
    found = [places[place] / name for place, names in OBJECTS.items() for name in names.split()]
    if lacking := [path for path in found if not path.is_file()]:
        raise UserError(f"{lacking[0]} is not there (and {len(lacking) - 1} more): --objects is the folder `examples` of Debian's package opencv-doc, and scikit-image and matplotlib must be installed.")
    return found


def answers(engine: model_file.ModelFile, photos: Sequence[Path | np.ndarray], what: str) -> np.ndarray:
    "The logits of each photo, one at a time as `classify` would at worst."
    spec = engine.info.spec
    prepared = in_threads(lambda p: pixels.prepare(p, spec) if isinstance(p, np.ndarray) else pixels.load(p, spec), photos, 1, 8)
    return np.concatenate([model_file.run_network(engine, one[None], ("logits",))[0] for one in progress(prepared, what, len(photos))]).astype(float)


def thousand(name: str, photos: Sequence[Path]) -> tuple[np.ndarray, dict[str, Any]]:
    "ImageNet's logits of each photo, and the speed of the network."
    network, spec, _ = registry.build(name, 1000, "imagenet")
    weight, bias = registry.imagenet_head(name)
    network.head.weight.data, network.head.bias.data = weight, bias
    with tempfile.TemporaryDirectory() as folder:
        to_onnx(network, ModelInfo([f"c{k}" for k in range(1000)], list(range(1000)), spec), Path(folder) / "m.onnx")
        engine = model_file.open_model(Path(folder) / "m.onnx")
        latency = speed.latency(engine)
        return answers(engine, photos, name), {**latency, "milliseconds": min(latency["milliseconds"]), "size": engine.size}


def summed(logits: np.ndarray, inner: float, offset: float) -> np.ndarray:
    "The evidence for each of the eleven, N×11."
    found = np.stack([logsumexp(logits[:, kind] / inner, axis=1) for kind in ready_made.groups()], 1)
    found[:, -1] += offset
    return found


def fit(logits: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    "Inner temperature, offset and temperature with the least weighted log loss."
    best: tuple[float, dict[str, float]] = (np.inf, {})
    for inner in INNER:
        plain = summed(logits, inner, 0.0)

        def loss(numbers: np.ndarray, plain: np.ndarray = plain) -> float:
            shifted = plain.copy()
            shifted[:, -1] += numbers[0]
            own = softmax(shifted, float(np.exp(numbers[1])))[np.arange(len(truth)), truth]
            return float(-(weight @ np.log(own.clip(1e-12))) / weight.sum())

        found = minimize(loss, (-1.0, 0.0), method="Nelder-Mead")
        if found.fun < best[0]:
            best = found.fun, {"inner_temperature": inner, "none_offset": round(float(found.x[0]), 3), "temperature": round(float(np.exp(found.x[1])), 4)}
    return best[1]


def calibrated(logits: np.ndarray, numbers: dict[str, float]) -> np.ndarray:
    return softmax(summed(logits, numbers["inner_temperature"], numbers["none_offset"]), numbers["temperature"])


def out_of_fold(logits: np.ndarray, truth: np.ndarray, weight: np.ndarray, seed: int = 0) -> np.ndarray:
    "Probabilities from numbers that were fitted to the other four fifths."
    fold, found = np.random.default_rng(seed).permutation(len(truth)) % 5, np.empty((len(truth), len(LABELS)))
    for k in range(5):
        rest = fold != k
        found[~rest] = calibrated(logits[~rest], fit(logits[rest], truth[rest], weight[rest]))
    return found


def measured(p: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    "What is said of probabilities N×11 of photos of organisms; an abstained photo is not right."
    found, abstained = scores(p, truth, LABELS), int((p.argmax(1) == len(CLASSES)).sum())
    low, high = wilson(abstained, len(p))
    spread = {f"{name}{end}": found[name][key] for name in ("accuracy", "ece") for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))}
    share = {"abstained": abstained / len(p), "abstained_low": low, "abstained_high": high}
    return {"n": len(p), **spread, "accuracy_of_ten": float((p[:, :-1].argmax(1) == truth).mean()), "log_loss": found["log_loss"]["value"], **share}


def of_objects(p: np.ndarray) -> dict[str, Any]:
    "How many photos of objects are said to be none of these."
    said = int((p.argmax(1) == len(CLASSES)).sum())
    low, high = wilson(said, len(p))
    return {"objects": len(p), "objects_none": said / len(p), "objects_none_low": low, "objects_none_high": high}


def tidy(value: Any) -> Any:
    "The same with four decimals."
    if isinstance(value, dict):
        return {k: tidy(v) for k, v in value.items()}
    return [tidy(v) for v in value] if isinstance(value, list) else round(value, 4) if isinstance(value, float) else value


def compare(logits: dict[str, np.ndarray], speed: dict[str, dict[str, Any]], truth: np.ndarray, weight: np.ndarray) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    "Score every network and mix on the photos of organisms and of objects; smallest first among the single ones."
    organisms = truth < len(CLASSES)
    numbers = {name: fit(logits[name], truth, weight) for name in logits}
    singles = {name: calibrated(logits[name], numbers[name]) for name in sorted(logits, key=lambda name: speed[name]["size"])}
    first = next(iter(singles.values()))
    rows = []
    for names in (several for k in range(1, len(singles) + 1) for several in combinations(singles, k)):
        p = singles[names[0]] if len(names) == 1 else np.mean([singles[name] for name in names], axis=0)
        gain = None if p is first else shares(((p.argmax(1) == truth).astype(float) - (first.argmax(1) == truth))[organisms, None])[0]
        rows.append({
            "networks": list(names), **measured(p[organisms], truth[organisms]), **of_objects(p[~organisms]), "gain": gain,
            "milliseconds": sum(speed[name]["milliseconds"] for name in names), "numbers": [numbers[name] for name in names],
        })  # fmt: skip
    return rows, numbers


def table(rows: list[dict[str, Any]]) -> str:
    "The candidates for a person."
    head = ("networks", "right of the ten", "right (95 %)", "gain (95 %)", "abstained", "objects: none", "log loss", "calibration error", "ms a photo, network alone")
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for r in rows:
        gain = f"{r['gain']['value']:+.3f} ({r['gain']['low']:+.3f} to {r['gain']['high']:+.3f})" if r["gain"] else "the smallest"
        lines.append(" | ".join((
            " + ".join(r["networks"]), f"{r['accuracy_of_ten']:.3f}", f"{r['accuracy']:.3f} ({r['accuracy_low']:.3f} to {r['accuracy_high']:.3f})", gain,
            f"{r['abstained']:.3f}", f"{r['objects_none']:.2f} ({r['objects_none_low']:.2f} to {r['objects_none_high']:.2f})", f"{r['log_loss']:.3f}", f"{r['ece']:.3f}", f"{r['milliseconds']:.1f}",
        )))  # fmt: skip
    return "\n".join(f"| {line} |" for line in lines)


def promised(engine: model_file.ModelFile, logits: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    "What the file promises, from its logits of photos of organisms."
    info, on = engine.info, "photos of the ten taxa, to which its three numbers were fitted"
    made = promises(logits, truth, info.labels, info.temperature, ids=info.label_ids, calibrated_on=on)
    rules = {rate: {**rule, "quantile": round(rule["quantile"], 6), "by_class": {k: round(q, 6) for k, q in rule["by_class"].items()}} for rate, rule in made.conformal.items()}
    return {"conformal": rules, "risk": made.risk}


def empty_scenes(engine: model_file.ModelFile) -> dict[str, Any]:
    "What is said of drawn ground and vegetation with nothing in front of it; not used for any choice."
    drawn = [draw_ground(np.random.default_rng([k, seed]), habitat, 320, 0.35 if habitat.sky else 0.0) for k, habitat in enumerate(HABITATS.values()) for seed in range(5)]
    said = Counter(LABELS[k] for k in answers(engine, drawn, "empty scenes").argmax(1))
    return {"n": len(drawn), "answers": dict(said.most_common())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--objects", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--promises", action="store_true")
    given = parser.parse_args()
    path = Path(__file__).resolve().parent.parent / "species_wb" / "data" / ready_made.SETTINGS
    organisms, truth = labelled(given.photos)
    if given.promises:
        engine, known = model_file.open_model(ready_made.find()), json.loads(path.read_bytes())
        return write_json(path, {**known, **promised(engine, answers(engine, organisms, "the file"), truth)})
    if not given.objects:
        parser.error("--objects is needed")
    things = objects(given.objects)
    everything, truth = [*organisms, *things], np.append(truth, [len(CLASSES)] * len(things))
    n = len(organisms)
    weight = np.append(np.ones(n), np.full(len(things), OBJECT_SHARE / (1 - OBJECT_SHARE) * n / len(things)))
    found = {name: thousand(name, everything) for name in NETWORKS}
    logits, speed = {name: f[0] for name, f in found.items()}, {name: f[1] for name, f in found.items()}
    rows, numbers = compare(logits, speed, truth, weight)
    some = next(iter(speed.values()))
    print(f"n = {n} photos of organisms, {len(things)} of objects; {plural(some['threads'], 'thread')}, {some['cpu']}\n\n{table(rows)}\n")

    singles = [row for row in rows if len(row["networks"]) == 1]
    better = [row for row in singles if row["gain"] and row["gain"]["low"] > GAIN]
    name = max(better, key=lambda row: row["gain"]["value"])["networks"][0] if better else singles[0]["networks"][0]
    fold = out_of_fold(logits[name], truth, weight)
    chosen: dict[str, Any] = {
        "network": name, **numbers[name], "n": n, "objects": len(things), "object_share": OBJECT_SHARE, "date": date.today().isoformat(),
        "photos": hashlib.sha256("".join(sorted(hashlib.sha256(p.read_bytes()).hexdigest() for p in organisms)).encode()).hexdigest()[:16],
        "method": f"inner temperature, offset of 'none of these' and temperature by the least log loss on {n} photos of the ten taxa and {len(things)} of plain objects weighing as {OBJECT_SHARE:.0%} of all (benchmarks/ready_made.py); "
        f"smallest single network unless another gains more than {GAIN} in accuracy at the lower end of its paired 95 % interval",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        ready_made.make_file(Path(folder) / "m.onnx", chosen)
        engine = model_file.open_model(Path(folder) / "m.onnx")
        own = answers(engine, everything, "the file")
        p, kept = model_file.probabilities(engine, own), promised(engine, own[:n], truth[:n])
        chosen["validation"] = {"how": "the photos that its three numbers were fitted to", **measured(p[:n], truth[:n]), **of_objects(p[n:])}
        chosen["out_of_fold"] = {**measured(fold[:n], truth[:n]), **of_objects(fold[n:])}
        chosen["empty_scenes"] = empty_scenes(engine)
        if given.test:
            photos, classes = labelled(given.test)
            chosen["test"] = measured(model_file.probabilities(engine, answers(engine, photos, "test")), classes)
    chosen |= {"candidates": rows, "speed": {"cpu": some["cpu"], "threads": some["threads"], "n": some["n"]}}
    write_json(path, {**tidy(chosen), **kept})
    print(json.dumps({k: v for k, v in tidy(chosen).items() if k != "candidates"}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
