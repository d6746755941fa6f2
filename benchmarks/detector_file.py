"""A YOLOX file read by species_wb against YOLOX's own post-processing: average precision on boxes by hand, and the time of one photo.

    python benchmarks/detector_file.py NETWORK.onnx FOLDER

FOLDER holds photos and boxes.json (COCO JSON). Both run the same network; the other side is a port of YOLOX's tools/demo.py with OpenCV's resizing (`preproc`, `demo_postprocess`, `postprocess`).
Average precision is pycocotools', for all classes as one, since a detector's words for an animal need not be the boxes'. It needs opencv-python-headless, torchvision and pycocotools, no requirements of ours.
"""

import argparse
import contextlib
import io
import json
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import torch
import torchvision
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from species_wb.detect.boxes import Boxes
from species_wb.detect.decode import decode
from species_wb.detect.detector import official, open_detector
from species_wb.detect.kinds import kind_of
from species_wb.detect.letterbox import as_input, fitted

FLOOR = 0.01  # as `test_conf` of its exps/default
Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # corners in pixels, scores, whether an animal


def theirs(session: ort.InferenceSession, path: Path, size: int, agnostic: bool) -> Found:
    "Do what YOLOX's demo does."
    image = cv2.imread(str(path))
    ratio = min(size / image.shape[0], size / image.shape[1])
    padded = np.full((size, size, 3), 114, np.uint8)
    small = cv2.resize(image, (int(image.shape[1] * ratio), int(image.shape[0] * ratio)), interpolation=cv2.INTER_LINEAR)
    padded[: small.shape[0], : small.shape[1]] = small
    out = session.run(None, {session.get_inputs()[0].name: padded.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
    grids, strides = [], []
    for stride in (8, 16, 32):
        x, y = np.meshgrid(np.arange(size // stride), np.arange(size // stride))
        grids.append(np.stack((x, y), 2).reshape(-1, 2))
        strides.append(np.full((len(grids[-1]), 1), stride))
    grid, stride = np.concatenate(grids), np.concatenate(strides)
    out[:, :2], out[:, 2:4] = (out[:, :2] + grid) * stride, np.exp(out[:, 2:4]) * stride
    best = out[:, 5:].argmax(1)
    scores = out[:, 4] * out[np.arange(len(out)), 5 + best]
    keep = scores >= FLOOR
    corners = np.concatenate([out[keep, :2] - out[keep, 2:4] / 2, out[keep, :2] + out[keep, 2:4] / 2], 1)
    own = torch.from_numpy(corners), torch.from_numpy(scores[keep]), torch.from_numpy(best[keep])
    stay = (torchvision.ops.nms(own[0], own[1], 0.45) if agnostic else torchvision.ops.batched_nms(*own, 0.45)).numpy()
    return corners[stay] / ratio, scores[keep][stay], np.isin(best[keep][stay], range(14, 24))


def as_found(boxes: Boxes, width: int, height: int) -> Found:
    return boxes.corners * [width, height, width, height], boxes.scores, np.array([kind_of(label) == "animal" for label in boxes.labels], bool)


def precision(truth: COCO, found: dict[int, Found], animals: bool) -> tuple[float, float]:  # AP50, AP50:95
    "Return pycocotools' average precision of all boxes as one class, or of those of animals."
    rows = []
    for image, (corners, scores, animal) in found.items():
        for (x0, y0, x1, y1), score, is_animal in zip(corners, scores, animal, strict=True):
            if is_animal or not animals:
                rows.append({"image_id": image, "category_id": 1, "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)], "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        scored = COCOeval(truth, truth.loadRes(rows), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return scored.stats[1], scored.stats[0]


def timed(detector, photo: np.ndarray, rounds: int = 40) -> list[float]:  # ms: preparation, network, post-processing
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        picture, placed = fitted(photo, detector.layout.wants)
        given = as_input(picture, detector.layout.wants)
        prepared = time.perf_counter()
        out = detector.session.run(list(detector.layout.outputs), {detector.layout.inputs[0].name: given})
        answered = time.perf_counter()
        decode(detector.layout, out, placed)
        times.append((prepared - start, answered - prepared, time.perf_counter() - answered))
    return list(np.median(times, 0) * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    detector = open_detector(args.network)
    size = detector.layout.wants.width
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(args.folder / "boxes.json")
    images = json.loads((args.folder / "boxes.json").read_text())["images"]
    ways: dict[str, dict[int, Found]] = {"YOLOX's own": {}, "YOLOX's own, all classes as one": {}, "species_wb, decoded alone": {}, "species_wb, a source": {}}
    for image in images:
        path = args.folder / image["file_name"]
        photo = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        height, width = photo.shape[:2]
        ways["YOLOX's own"][image["id"]] = theirs(detector.session, path, size, False)
        ways["YOLOX's own, all classes as one"][image["id"]] = theirs(detector.session, path, size, True)
        ways["species_wb, decoded alone"][image["id"]] = as_found(official(detector.session, detector.layout, photo, args.network), width, height)
        ways["species_wb, a source"][image["id"]] = as_found(detector.find(photo, {}), width, height)
    print(f"{len(images)} photos, {len(truth.anns)} boxes; AP50 and AP50:95 of all boxes, and of boxes of animals only")
    for name, found in ways.items():
        print(f"{name:34}", *(f"{value:.4f}" for animals in (False, True) for value in precision(truth, found, animals)))
    print("ms of one photo (preparation, network, post-processing):", *(f"{ms:.1f}" for ms in timed(detector, photo)), f"at {photo.shape[1]}×{photo.shape[0]}")


if __name__ == "__main__":
    main()
