"""How fast a frozen network embeds photos on this processor: our engine against torch, both at their best batch, in one run.

    python benchmarks/embed.py [architecture]
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from species_wb.engine import backends, model_file, speed
from species_wb.models import registry
from species_wb.contracts import ModelInfo
from species_wb.models.export import FromBytes, to_onnx


def rate(run, photos, batch: int, seconds: float = 5.0) -> float:
    "Photos a second."
    part = photos[:batch]
    run(part)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        run(part)
        done += batch
    return done / (time.perf_counter() - start)


def main(arch: str = "efficientnet_lite0") -> None:
    network, spec, _ = registry.build(arch, 10)
    with tempfile.TemporaryDirectory() as folder:
        to_onnx(network, ModelInfo([f"c{k}" for k in range(10)], list(range(10)), spec), Path(folder) / "m.onnx")
        engine = model_file.open_model(Path(folder) / "m.onnx")
    module = FromBytes(network, spec).eval().to(memory_format=torch.channels_last)
    photos = np.random.default_rng(0).integers(0, 256, (32, spec.input_size, spec.input_size, 3), np.uint8)

    @torch.inference_mode()
    def with_torch(part: np.ndarray) -> None:
        module(torch.from_numpy(part))

    batches = (1, 4, 16, 32)
    torch_rate = max(rate(with_torch, photos, b) for b in batches)
    ours = rate(lambda part: model_file.run_network(engine, part), photos, speed.best_batch(engine))
    best = max(rate(lambda part: model_file.run_network(engine, part), photos, b) for b in batches)
    print(f"{arch} at {spec.input_size} px, {engine.threads} threads, {backends.cpu_name()}\n")
    print("| what | photos/s | of the best |\n| --- | --- | --- |")
    for name, value in (("torch, best batch, channels last", torch_rate), ("ours, batch found by best_batch", ours), ("ONNX Runtime, best batch", best)):
        print(f"| {name} | {value:.1f} | {value / best:.2f} |")
    print(f"\nours / torch: {ours / torch_rate:.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
