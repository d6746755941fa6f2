"""How fast photos are loaded, and a network trained on them: ours, torchvision's reference script and timm's train script, in one run.

    python benchmarks/training.py [PHOTOS] [--arch efficientnet_lite0] [--size 224] [--batch 32] [--photos 320] [--rounds 5]

PHOTOS holds class folders; so many of its photos, drawn at random, are copied to a temporary folder, the same for all. All train the same network on photos of the same
size in the same batches, in fp32, each with the augmentation, loss, optimizer and bookkeeping that it has by default:

- ours: `trainer.Trainer` on `loading.PhotoDataset`, as `fit_finetune` puts them together (TrivialAugment, AdamW, clipped gradients, averaged weights), with the decoded cache full,
  and with no room in it, so that every photo is decoded each time; where the plan would choose bfloat16 on this machine, that too;
- torchvision: references/classification/train.py of pytorch/vision with its `ClassificationPresetTrain` (crop, mirror, normalise; SGD; accuracy of every batch). It has no
  option for channels_last;
- timm: train.py of huggingface/pytorch-image-models (crop at a random interpolation, mirror, colour jitter; smoothed labels; SGD; cosine schedule), with --channels-last.

Both scripts are written down here step by step with their own libraries' calls, because neither is a module that can be imported; validation and checkpoints are left out for all.
Each contestant is a process of its own, so that none gains from what another sets (ours tells glibc to keep freed memory); they take turns, and are given the number of
worker processes at which they were fastest. A round is an epoch. Medians are printed, and the range.
"""

import argparse
import multiprocessing as mp
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from species_wb.runs import set_seed
from species_wb.train.augment import pipeline
from species_wb.engine.backends import cpu_name
from species_wb.core import cpu_count
from species_wb.train.finetune import _keep_freed_memory
from species_wb.train.decoded_photos import DecodedCache
from species_wb.train.loading import PhotoDataset
from species_wb.train.recipe import Recipe
from species_wb.train.steps import one_epoch
from species_wb.train.trainer import Trainer
from species_wb.models.registry import build
from species_wb.photos.findings import require_trainable
from species_wb.photos.scan import scan
from species_wb.train.training_set import photos_of_splits

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
WORKERS = (4, 8, cpu_count()) if CUDA else (0, 1, 2)
MANY = 10_000  # epochs that schedules are told of: more than are run


class Logits(nn.Module):
    "Our network as the scripts want theirs: logits alone."

    def __init__(self, arch: str, classes: int):
        super().__init__()
        self.network = build(arch, classes)[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)[0]


class Ours:
    "species_wb."

    def __init__(self, given: argparse.Namespace, limit: int | None = None, precision: str = "fp32"):
        _keep_freed_memory()
        manifest = scan(given.folder, seed=0)
        labels = require_trainable(manifest)
        network, spec, _ = build(given.arch, len(labels))
        self.spec, chosen = replace(spec, input_size=given.size), photos_of_splits(manifest, labels, ("train", "valid", "test"))
        cache = DecodedCache(tempfile.mkdtemp(dir=given.folder.parent), spec.canonical_size, limit)
        start = time.perf_counter()
        if limit is None:
            cache.fill(chosen.photos, cpu_count())
        self.filled = time.perf_counter() - start
        recipe = Recipe(epochs=MANY, batch=given.batch, rate=1e-4, precision=precision)
        photos = PhotoDataset(cache, chosen.photos, chosen.truth, self.spec, pipeline(self.spec, recipe.policy, recipe.least), cpu_count())
        self.trainer = Trainer(network, photos, recipe)
        self.workers = (self.trainer.loader.num_workers,)  # it chooses itself

    def loaded(self, workers: int) -> Iterator[int]:
        self.trainer.batches.at(self.trainer.epoch)
        self.trainer.epoch += 1
        for _, truth in self.trainer.loader:
            yield len(truth)

    def trained(self, workers: int) -> Iterator[int]:
        photos: list[int] = []
        one_epoch(self.trainer, photos.append)
        yield from photos


class Torchvision:
    "references/classification/train.py, presets.py and utils.py of github.com/pytorch/vision, at their defaults."

    workers = WORKERS

    def __init__(self, given: argparse.Namespace):
        from torchvision import transforms
        from torchvision.datasets import ImageFolder

        steps = [
            transforms.RandomResizedCrop(given.size), transforms.RandomHorizontalFlip(0.5), transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]  # fmt: skip
        self.dataset, self.batch = ImageFolder(given.folder, transforms.Compose(steps)), given.batch
        self.model = Logits(given.arch, len(self.dataset.classes)).to(DEVICE)
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1 * given.batch / 256, momentum=0.9, weight_decay=1e-4)

    def loader(self, workers: int) -> torch.utils.data.DataLoader:
        sampler = torch.utils.data.RandomSampler(self.dataset)
        return torch.utils.data.DataLoader(self.dataset, self.batch, sampler=sampler, num_workers=workers, pin_memory=CUDA)

    def loaded(self, workers: int) -> Iterator[int]:
        for _, target in self.loader(workers):
            yield len(target)

    def trained(self, workers: int) -> Iterator[int]:
        self.model.train()
        for image, target in self.loader(workers):
            image, target = image.to(DEVICE), target.to(DEVICE)
            output = self.model(image)
            loss = self.criterion(output, target)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            best = output.detach().topk(min(5, output.shape[1]), 1).indices.eq(target[:, None])  # top-1 and top-5 accuracy, and the loss, read out at every step
            best[:, :1].sum().item(), best.sum().item(), loss.item()
            yield len(target)


class Timm:
    "train.py of github.com/huggingface/pytorch-image-models, at its defaults, with --channels-last."

    workers = WORKERS

    def __init__(self, given: argparse.Namespace):
        from timm.data import create_dataset
        from timm.loss import LabelSmoothingCrossEntropy
        from timm.optim import create_optimizer_v2

        self.given = given
        self.dataset = create_dataset("", root=str(given.folder), is_training=True, batch_size=given.batch)
        self.loaders: dict[int, Any] = {}
        self.model = Logits(given.arch, len(self.dataset.reader.class_to_idx)).to(DEVICE, memory_format=torch.channels_last)
        self.criterion = LabelSmoothingCrossEntropy(0.1)
        self.optimizer = create_optimizer_v2(self.model, opt="sgd", lr=0.1 * given.batch / 256, momentum=0.9, weight_decay=2e-5)
        self.updates, self.schedule = 0, None

    def loader(self, workers: int) -> Any:
        from timm.data import create_loader
        from timm.scheduler import create_scheduler_v2

        if workers not in self.loaders:  # its workers stay from epoch to epoch
            self.loaders[workers] = create_loader(
                self.dataset, (3, self.given.size, self.given.size), self.given.batch, is_training=True, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5, color_jitter=0.4,
                interpolation="random", num_workers=workers, device=DEVICE, use_prefetcher=True,
            )  # fmt: skip
            self.schedule, _ = create_scheduler_v2(self.optimizer, "cosine", num_epochs=MANY, warmup_epochs=5, updates_per_epoch=len(self.loaders[workers]))
        return self.loaders[workers]

    def loaded(self, workers: int) -> Iterator[int]:
        for _, target in self.loader(workers):
            yield len(target)

    def trained(self, workers: int) -> Iterator[int]:
        self.model.train()
        self.optimizer.zero_grad()
        for image, target in self.loader(workers):
            image = image.contiguous(memory_format=torch.channels_last)
            loss = self.criterion(self.model(image), target)
            loss.backward()
            self.optimizer.step()
            loss.item()
            self.updates += 1
            self.optimizer.zero_grad()
            self.schedule.step_update(num_updates=self.updates)
            yield len(target)


CONTESTANTS = {
    "ours": (Ours, {}),
    "ours, no cache": (Ours, {"limit": 0}),
    "ours, bf16": (Ours, {"precision": "bf16"}),
    "torchvision": (Torchvision, {}),
    "timm, channels last": (Timm, {}),
}
PEERS = ("torchvision", "timm, channels last")


def serve(name: str, given: argparse.Namespace, pipe: Connection) -> None:
    "Be one contestant: answer each (what, workers) with photos a second."
    torch.set_num_threads(cpu_count())
    set_seed(0)
    os.environ["SPECIES_WB_HOME"] = str(given.folder.parent)
    if given.kept:
        _keep_freed_memory()
    kind, options = CONTESTANTS[name]
    contestant = kind(given, **options)
    pipe.send({"workers": contestant.workers, "filled": getattr(contestant, "filled", None)})
    while asked := pipe.recv():
        what, workers = asked
        start = time.perf_counter()
        photos = sum(getattr(contestant, what)(workers))
        if CUDA:
            torch.cuda.synchronize()
        pipe.send(photos / (time.perf_counter() - start))


class Process:
    "A contestant in a process of its own."

    def __init__(self, name: str, given: argparse.Namespace):
        context = mp.get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=serve, args=(name, given, far))
        self.process.start()
        far.close()
        self.told = self.pipe.recv()
        self.workers = dict.fromkeys(("loaded", "trained"), self.told["workers"][0])
        self.rates: dict[str, list[float]] = {"loaded": [], "trained": []}

    def rate(self, what: str, workers: int) -> float:
        self.pipe.send((what, workers))
        return self.pipe.recv()

    def choose(self, what: str) -> None:
        "Warm up, and find the best number of workers."
        self.rate(what, self.told["workers"][0])
        if len(self.told["workers"]) > 1:
            self.workers[what] = max(self.told["workers"], key=lambda workers: self.rate(what, workers))

    def end(self) -> None:
        self.pipe.send(None)
        self.process.join()


def sample(photos: Path, count: int, folder: Path) -> int:
    "Copy so many photos of a tree of class folders, drawn at random; return how many."
    found = sorted(p for p in photos.glob("*/*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for path in random.Random(0).sample(found, min(count, len(found))):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.parent.name / path.name)
    return min(count, len(found))


def row(name: str, process: Process, best: float, what: str) -> str:
    rates = process.rates[what]
    return f"| {name} | {process.workers[what]} | {median(rates):.1f} | {min(rates):.1f} to {max(rates):.1f} | {median(rates) / best:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    photos = Path(os.environ.get("SWB_PHOTOS", Path(__file__).resolve().parents[2] / "shared" / "photos"))
    parser.add_argument("folder", nargs="?", type=Path, default=photos / "train", help="a folder of class folders")
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, default=32, help="photos a step")
    parser.add_argument("--photos", type=int, default=320, help="photos an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kept", action="store_true", help="let the peers keep freed memory, too: what is left is loading and layout")
    parser.add_argument("--bf16", action="store_true", help="measure ours in bfloat16 as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given.photos = sample(given.folder, given.photos, Path(folder) / "photos")
        given.folder = Path(folder) / "photos"
        race(given)


def race(given: argparse.Namespace) -> None:
    "Let all take turns, and print the tables."
    names = [name for name in CONTESTANTS if name != "ours, bf16" or given.bf16]
    processes = {name: Process(name, given) for name in names}
    for process in processes.values():
        for what in process.rates:
            process.choose(what)
    for turn in range(given.rounds):
        for what in ("loaded", "trained"):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                processes[name].rates[what].append(processes[name].rate(what, processes[name].workers[what]))
    for process in processes.values():
        process.end()
    where = torch.cuda.get_device_name() if CUDA else f"{cpu_name()}, {cpu_count()} threads"
    print(f"{given.arch} at {given.size} px, {given.photos:,} photos an epoch in batches of {given.batch}, {given.rounds} rounds; {where}; torch {torch.__version__}")
    print(f"The decoded cache was filled once at {given.photos / processes['ours'].told['filled']:,.0f} photos/s." + (" The peers keep freed memory, too." if given.kept else ""))
    for what, title in (("loaded", "Loading alone, augmentation included"), ("trained", "Loading and training steps: an epoch")):
        best = max(median(processes[name].rates[what]) for name in PEERS)
        print(f"\n{title}\n\n| what | workers | photos/s | range | of the best peer |\n| --- | --- | --- | --- | --- |")
        for name in names:
            print(row(name, processes[name], best, what), flush=True)


if __name__ == "__main__":
    main()
