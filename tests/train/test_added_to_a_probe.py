"""A new species beside the classes of a real probe, as a person types it. PyTorch is loaded by the command alone, not here."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from species_wb.contracts import read_manifest
from species_wb.engine.model_file import open_model
from species_wb.engine.predict import predict_items
from species_wb.metrics.calibration import softmax
from species_wb.photos.pixels import encode_jpeg


def test_a_species_beside_a_real_probe_leaves_the_others_as_they_were(trained, workspace):
    "The run's own embeddings are used, the old file stays, the old classes keep their proportions, and nothing is promised that was not measured."
    shutil.copytree(trained.parents[2] / ".cache" / "features", workspace / ".cache" / "features")
    before = (trained / "model.onnx").read_bytes()
    shutil.copytree(trained, workspace / "run", ignore=shutil.ignore_patterns("seed-*", "figures", "*.ipynb", "*.html"))
    (workspace / "plates").mkdir()
    for k in range(6):
        plain = np.full((64, 64, 3), 250) + np.random.default_rng(k).integers(-35, 6, (16, 16, 3)).repeat(4, 0).repeat(4, 1)
        (workspace / "plates" / f"{k}.jpg").write_bytes(encode_jpeg(plain.clip(0, 255).astype(np.uint8)))
    command = [str(Path(sys.executable).parent / "species-wb"), "train", "--add", "Zebra plate", str(workspace / "plates"), "--model", str(workspace / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "embeddings were still in the cache" in done.stdout, done.stdout + done.stderr
    old, new = open_model(workspace / "run", 1), open_model(workspace / "run" / "model-with-Zebra-plate.onnx", 1)
    assert (workspace / "run" / "model.onnx").read_bytes() == before and new.info.labels == [*old.info.labels, "Zebra plate"]
    assert new.info.names == old.info.names and new.info.temperature == old.info.temperature
    assert not new.info.conformal and not new.info.risk and "detect" not in new.info.validation
    manifest = read_manifest(trained / "manifest.parquet").slice(0, 4)
    root = Path(manifest.schema.metadata[b"root"].decode())
    photos = [root / name for name in manifest["path"].to_pylist()] + [workspace / "plates" / "1.jpg"]
    items = [({"path": str(p)}, p.read_bytes) for p in photos]
    first, second = ([row for row in predict_items(model, items)] for model in (old, new))
    assert [row["label"] for row in second] == [*(row["label"] for row in first[:4]), "Zebra plate"]
    assert [row["taxon"] for row in second[:4]] == [row["taxon"] for row in first[:4]] and second[4]["taxon"] is None
    p, q = (softmax([row["logits"] for row in rows], model.info.temperature) for rows, model in ((first, old), (second, new)))
    assert np.allclose(q[:, :-1] / q[:, :-1].sum(1, keepdims=True), p, atol=1e-4)
