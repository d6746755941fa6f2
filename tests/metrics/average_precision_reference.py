"""Make tests/metrics/average_precision.npz: random boxes, and what pycocotools makes of them.

    python -m venv v && v/bin/pip install pycocotools && v/bin/python tests/metrics/average_precision_reference.py

It is no test: pycocotools is no requirement of this package. The boxes have four classes, one of which is found but never there; crowds, equal scores,
and photos with more than a hundred boxes. The boxes of a photo stand by class, because pycocotools keeps this order among equal scores.
"""

import contextlib
import io
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

rng = np.random.default_rng(16)
true, found = [], []  # photo, class, x, y, width, height, then crowd or score
for photo in range(1, 41):
    for kind in sorted(rng.integers(1, 4, rng.integers(0, 7))):
        side = rng.integers(8, 60, 2)
        true.append([photo, kind, *rng.integers(0, 200, 2), *side, rng.random() < 0.12])
    near = [row for row in true if row[0] == photo for _ in range(rng.integers(0, 4))]
    rows = [[photo, row[1] if rng.random() < 0.8 else 4, *np.maximum(np.array(row[2:6]) + rng.integers(-3, 4, 4), 1), round(rng.random(), 1)] for row in near]
    far = 130 if photo in (7, 8, 9) else rng.integers(0, 6)
    rows += [[photo, rng.integers(1, 5) if far < 130 else 2, *rng.integers(0, 200, 2), *rng.integers(8, 60, 2), round(rng.random() / 2, 1)] for _ in range(far)]
    found += sorted(rows, key=lambda row: row[1])
true, found = np.array(true, float), np.array(found, float)
data = {
    "info": {}, "images": [{"id": k, "width": 300, "height": 300} for k in range(1, 41)],
    "categories": [{"id": k, "name": str(k)} for k in range(1, 5)],
    "annotations": [
        {"id": k, "image_id": int(r[0]), "category_id": int(r[1]), "bbox": r[2:6].tolist(), "area": r[4] * r[5], "iscrowd": int(r[6])}
        for k, r in enumerate(true, 1)
    ],
}  # fmt: skip
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO()
    coco.dataset = data
    coco.createIndex()
    results = coco.loadRes([{"image_id": int(r[0]), "category_id": int(r[1]), "bbox": r[2:6].tolist(), "score": r[6]} for r in found])
    said = {}
    for name, classes in (("by_class", 1), ("agnostic", 0)):
        judge = COCOeval(coco, results, "bbox")
        judge.params.useCats = classes
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        precision = judge.eval["precision"][:, :, :, 0, 2]  # thresholds × recalls × classes; all areas, 100 boxes
        each = [[precision[0, :, k].mean(), precision[:, :, k].mean()] for k in range(precision.shape[2])]
        said[name], said[f"{name}_each"] = judge.stats[[1, 0]], np.array(each)
to = Path("tests/metrics/average_precision.npz")
np.savez_compressed(to, true=true.astype(np.int16), found=found.astype(np.float32), **said)
print({k: np.round(v, 4).tolist() for k, v in said.items()}, len(true), len(found), to.stat().st_size)
