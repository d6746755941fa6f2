"""How fast a folder of photos is classified: our engine beside the ways people do it today, and the limit, in one run on one machine.

    python benchmarks/classify.py [--photos 600] [--networks mobilenet_v2,efficientnet_lite0] [--rounds 3] [--int8]

The photos are simulated: one folder with a short side of 256 pixels, one of 12 megapixels. All ways run the same network with the same weights on the same
files, from the encoded bytes to an answer (ours to the finished table); the slower ways get an eighth of the files. Every way is run `rounds` times, in turns so
that a busy moment hits all of them, and its best time counts.

The limit has two halves: the network alone on ready arrays (the best of all ways to share the cores) and reading, decoding and preparing alone (with all
cores). The floor is the larger of their times: what the slower half would take if the other one cost nothing. Where both halves run on the same cores, as
here, nothing can be faster than their sum, so that is shown too.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from species_wb import core
from species_wb.classify import job
from species_wb.classify.resume import Job, Task
from species_wb.engine import backends, model_file, speed
from species_wb.models import registry
from species_wb.photos import pixels, sources
from species_wb.runs import versions
from species_wb.simulate import survey
from species_wb.contracts import ModelInfo, ModelSpec
from species_wb.models.export import to_onnx

CORES = core.cpu_count()
COPIES = 4  # of each photo, so that starting (0.3 s) does not count as classifying


def folders(photos: int, base: Path) -> dict[str, Path]:
    "Two folders of simulated photos: 256 px, and 12 megapixels."
    survey.survey(base / "made", photos=photos, size=256, seed=0)
    small, large = base / "256 px", base / "12 MP"
    for folder in (small, large):
        folder.mkdir()
    for k, path in enumerate(sorted((base / "made").rglob("*.jpg"))[:photos]):
        for copy in range(COPIES):
            shutil.copy(path, small / f"{copy}-{k:05}.jpg")
        if k < photos // 6:
            picture = Image.open(path).convert("RGB").resize((4032, 3024), Image.Resampling.BICUBIC)
            noise = np.random.default_rng(k).integers(-12, 13, (3024, 4032, 1), np.int16)  # a sensor's: without it the files would be too easy to decode
            Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)).save(large / f"0-{k:05}.jpg", quality=88)
            for copy in range(1, COPIES):
                shutil.copy(large / f"0-{k:05}.jpg", large / f"{copy}-{k:05}.jpg")
    return {"256 px": small, "12 MP": large}


# --- the ways ------------------------------------------------------------------------------------------------------------------


def ours(model: Path, files: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        loaded, how = speed.tuned([model])
        where = sources.sources([str(files[0].parent)])
        todo = Job(Path(folder) / "out.csv", where, Task(where.root), loaded.sha256)
        done = job.run_job(todo, loaded, job.here(loaded, how))
        assert done.summary["answered"] == len(files)


def onnx_loop(model: Path, files: list[Path]) -> None:
    "What most scripts do: Pillow, one photo after the other, all threads for the network."
    loaded = model_file.open_model(model)
    spec = loaded.info.spec
    for path in files:
        model_file.run_network(loaded, np.asarray(_pillow(path, spec))[None])


def _pillow(path: Path, spec: ModelSpec) -> Image.Image:
    image = Image.open(path).convert("RGB")
    scale = spec.input_size / spec.crop_fraction / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling[spec.interpolation.upper()])
    left, top = (image.width - spec.input_size) // 2, (image.height - spec.input_size) // 2
    return image.crop((left, top, left + spec.input_size, top + spec.input_size))


class Files(torch.utils.data.Dataset):
    def __init__(self, files: list[Path], transform: Callable):
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, k: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[k]).convert("RGB"))


@torch.inference_mode()
def torch_loop(network: torch.nn.Module, files: list[Path], transform: Callable, batch: int = 32) -> None:
    "torchvision's reference: a DataLoader with worker processes, the network in eager mode."
    for photos in torch.utils.data.DataLoader(Files(files, transform), batch, num_workers=CORES):
        network(photos.to(memory_format=torch.channels_last))


def with_torchvision(network: torch.nn.Module, spec: ModelSpec) -> Callable:
    from torchvision.transforms import v2

    steps = [v2.Resize(round(spec.input_size / spec.crop_fraction)), v2.CenterCrop(spec.input_size), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(spec.mean, spec.std)]
    return lambda model, files: torch_loop(network, files, v2.Compose(steps))


def with_timm(network: torch.nn.Module, spec: ModelSpec) -> Callable:
    from timm.data import create_transform

    transform = create_transform(spec.input_size, interpolation=spec.interpolation, mean=spec.mean, std=spec.std, crop_pct=spec.crop_fraction)
    return lambda model, files: torch_loop(network, files, transform)


def with_fastai(network: torch.nn.Module, spec: ModelSpec) -> Callable:
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, Learner, Normalize, Resize, get_image_files

    def run(model: Path, files: list[Path]) -> None:
        block = DataBlock((ImageBlock, CategoryBlock(vocab=["a", "b"])), get_items=get_image_files, get_y=lambda _: "a", item_tfms=Resize(spec.input_size), batch_tfms=Normalize.from_stats(spec.mean, spec.std))
        loaders = block.dataloaders(files[0].parent, bs=32, num_workers=CORES)
        learner = Learner(loaders, network, loss_func=torch.nn.functional.cross_entropy)
        with learner.no_bar(), learner.no_logging():
            learner.get_preds(dl=loaders.test_dl(files))

    return run


def with_openvino(network: torch.nn.Module, spec: ModelSpec) -> Callable:
    import openvino

    def run(model: Path, files: list[Path]) -> None:
        compiled = openvino.Core().compile_model(str(model), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"})
        queue = openvino.AsyncInferQueue(compiled)
        for path in files:
            queue.start_async({"pixels": np.asarray(_pillow(path, spec))[None]})
        queue.wait_all()

    return run


OTHERS = {
    "ONNX Runtime loop, Pillow": lambda network, spec: onnx_loop,
    "OpenVINO fp32, asynchronous, Pillow": with_openvino,
    "torchvision + DataLoader, eager": with_torchvision,
    "timm's transform + DataLoader, eager": with_timm,
    "fastai get_preds": with_fastai,
}


# --- the limit -----------------------------------------------------------------------------------------------------------------


def network_alone(model: Path) -> float:
    "Photos a second: the best of all ways to share the cores."
    return max(speed.photos_per_second(model_file.open_model(model, threads), workers, batch, 2.0) for threads, workers in {(1, CORES), (CORES, 1)} for batch in (1, 2, 4, 16))


def decoding_alone(files: list[Path], spec: ModelSpec) -> float:
    "Photos a second: read, decode, prepare, with all cores."
    start = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        for _ in pool.map(lambda path: pixels.load(path, spec), files):
            pass
    return len(files) / (time.perf_counter() - start)


# --- the table -----------------------------------------------------------------------------------------------------------------


def compare(name: str, model: Path, network: torch.nn.Module, spec: ModelSpec, files: list[Path], rounds: int, others: bool) -> None:
    ways: dict[str, Callable] = {"species_wb": ours}
    lacking = []
    for label, make in OTHERS.items() if others else ():
        try:
            ways[label] = make(network, spec)
        except ImportError as error:
            lacking.append(f"{label}: not installed ({error}).")
    speed.tuned([model])  # once a machine and model, and kept: some seconds
    found: dict[str, list[float]] = {label: [] for label in (*ways, "network", "decoding")}
    for _ in range(rounds):
        found["network"].append(network_alone(model))
        found["decoding"].append(decoding_alone(files, spec))
        for label, way in list(ways.items()):
            some = files if label == "species_wb" else files[: max(64, len(files) // 8)]
            start = time.perf_counter()
            try:
                way(model, some)
            except Exception as error:  # a peer that does not run is said, and the others are still measured
                lacking.append(f"{label}: did not run ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}).")
                ways.pop(label)
                found.pop(label)
                continue
            found[label].append(len(some) / (time.perf_counter() - start))
    best = {label: max(rates) for label, rates in found.items()}
    floor, both = min(best["network"], best["decoding"]), 1 / (1 / best["network"] + 1 / best["decoding"])
    print(f"\n**{name}**, {len(files):,} photos, best of {rounds}\n\n| way | photos/s | of the limit | species_wb is faster by |\n| --- | --- | --- | --- |")
    for label in ways:
        times = "" if label == "species_wb" else f"{best['species_wb'] / best[label]:.1f} ×"
        print(f"| {label} | {best[label]:.0f} | {best[label] / floor:.0%} | {times} |")
    for label, rate in (("the network alone", best["network"]), ("decoding alone", best["decoding"]), ("both on the same cores, nothing else", both)):
        print(f"| *{label}* | {rate:.0f} | {rate / floor:.0%} | |")
    print(*lacking, sep="\n", flush=True)


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--photos", type=int, default=600)
    ask.add_argument("--networks", default="mobilenet_v2,efficientnet_lite0")
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--int8", action="store_true")
    asked = ask.parse_args()
    os.environ.setdefault("SPECIES_WB_PROGRESS", "lines")
    os.environ["SPECIES_WB_CACHE"] = tempfile.mkdtemp()
    print(f"{backends.cpu_name()}, {CORES} cores; {versions()}\nto make again: python benchmarks/classify.py {' '.join(sys.argv[1:])}")
    with tempfile.TemporaryDirectory() as base:
        photos = folders(asked.photos, Path(base))
        for arch in asked.networks.split(","):
            network, spec, _ = registry.build(arch, 10, weights="auto")
            network = network.eval().to(memory_format=torch.channels_last)
            file = Path(base) / f"{arch}.onnx"
            to_onnx(network, ModelInfo([f"c{k}" for k in range(10)], list(range(10)), spec), file)
            files = {"fp32": file}
            if asked.int8:
                from species_wb.models.int8 import quantise

                files["int8"] = Path(base) / f"{arch}-int8.onnx"
                quantise(file, photos["256 px"], files["int8"], loss=0.99, agreement=0.001)  # an untrained head: only its speed is looked at
            for precision, model in files.items():
                for size, folder in photos.items():
                    compare(f"{arch} {precision}, {spec.input_size} px, photos of {size}", model, network, spec, sorted(folder.iterdir()), asked.rounds, precision == "fp32")


if __name__ == "__main__":
    main()
