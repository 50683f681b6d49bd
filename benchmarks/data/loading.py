"""Loading alone: random resized crops of photographs, beside timm's loader and torchvision's ImageFolder with v2.

python -m benchmarks.data.loading --pictures DIR [--images 4000] [--size 375x500] [--workers 2] [--rounds 1]

DIR holds small pictures, `train/<class>/*`, of which the photographs are made. Every side has a process of its own in
every round, in shuffled order, and gives normalized `float32` batches of 64 crops of 224 with mirror images:

    reduced    ours, photographs reduced once and kept; the first epoch writes them
    none       ours, every photograph decoded in every epoch
    processes  the same as `none` with a process a worker, which is what threads are chosen over
    timm       create_loader, bilinear, without color jitter
    torchvision  ImageFolder and DataLoader, v2's transforms on Pillow's images

Ratios of wall time are what counts on an idle machine; those of processor time stay meaningful on a busy one.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, shared_memory
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data import photographs
from benchmarks.train import peers
from poolzoo.common import allocator

SIDES = ("reduced", "none", "processes", "timm", "torchvision")
OURS = ("reduced", "none", "processes")
SIZE, BATCH, SCALE = 224, 64, (0.08, 1.0)


def measure(side: str, folder: str, workers: int, epochs: int, cache: str) -> dict[str, Any]:
    """Seconds, processor seconds and images of each epoch of a side, and its peak memory in MB."""
    if side in OURS:
        allocator.keep()  # as `finetune` does
    epoch = SETUP[side](folder, workers, cache)
    found: list[dict[str, float]] = []
    with photographs.peak_pss() as pss:
        for number in range(1, epochs + 1):
            wall, cpu = time.perf_counter(), photographs.cpu_seconds()
            images = sum(len(batch) for batch in epoch(number))
            wall, cpu = time.perf_counter() - wall, photographs.cpu_seconds() - cpu
            found.append({"seconds": wall, "cpu": cpu, "images": images})
    return {"epochs": found, "pss": pss[0]}


Epochs = Callable[[int], Iterator[torch.Tensor]]


def _ours(folder: str, workers: int, cache: str, *, reduced: bool) -> Epochs:
    from poolzoo.data.augment.augmentation import Augmentation
    from poolzoo.data.streaming.images import StreamedImages
    from poolzoo.data.streaming.loader import StreamLoader
    from poolzoo.data.streaming.photographs import Encoded, Reduced
    from poolzoo.data.streaming.row_file import RowFile
    from poolzoo.model.network import Preprocess

    index, size = index_of(folder), (SIZE, SIZE)
    crops = Reduced(index, size, RowFile(Path(cache), len(index), 10**12)) if reduced else Encoded(index)
    loader = StreamLoader(
        StreamedImages(index, size),
        index.labels.astype(np.int64),
        BATCH,
        Augmentation(flip="random", crop_scale=SCALE),
        seed=0,
        device=torch.device("cpu"),
        crops=crops,
        threads=workers,
    )
    preprocess = Preprocess(*peers.IMAGENET, data_size=size, image_size=size)
    return lambda number: (preprocess(batch.images) for batch in loader.epoch(number))


def index_of(folder: str) -> Any:
    """The index of the training images of a folder with class folders."""
    from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names

    kinds = sorted(path for path in Path(folder, "train").iterdir() if path.is_dir())
    files = [(f"{kind.name}/{path.name}", label) for label, kind in enumerate(kinds) for path in sorted(kind.iterdir())]
    labels = np.array([label for _, label in files], np.int32)
    return ImageIndex(FileStorage(str(Path(folder, "train"))), Names.of(name for name, _ in files), labels)


def _in_process(index: Any, name: str, shape: tuple[int, ...], work: list[tuple[int, int, int]]) -> None:
    """Crops of some images into shared memory: the position, the place in the batch, and the epoch of each."""
    from poolzoo.data.augment.crops import CropSampler
    from poolzoo.data.streaming.photographs import Encoded

    shared = shared_memory.SharedMemory(name)
    whole, source = np.ndarray(shape, np.uint8, shared.buf), Encoded(index)
    for position, place, epoch in work:
        sampler = CropSampler(SCALE, (3 / 4, 4 / 3), seed=0, epoch=epoch)
        source.crop(position, partial(sampler.box, position), whole[place])
    del whole
    shared.close()


def _processes(folder: str, workers: int, cache: str) -> Epochs:
    """A pool of processes that decode into shared memory, two batches ahead."""
    from poolzoo.model.network import Preprocess

    index, ahead = index_of(folder), 3
    shape = (ahead * BATCH, SIZE, SIZE, 3)
    shared = shared_memory.SharedMemory(create=True, size=int(np.prod(shape)))
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
    preprocess = Preprocess(*peers.IMAGENET, data_size=(SIZE, SIZE), image_size=(SIZE, SIZE))
    whole: np.ndarray = np.ndarray(shape, np.uint8, shared.buf)

    def epoch(number: int) -> Iterator[torch.Tensor]:
        order = np.random.default_rng(number).permutation(len(index))
        steps, waiting = len(order) // BATCH, []
        for step in range(steps + ahead - 1):
            if step < steps:
                slot, part = step % ahead * BATCH, order[step * BATCH : (step + 1) * BATCH].tolist()
                work = [(position, slot + place, number) for place, position in enumerate(part)]
                pieces = (work[start : start + 4] for start in range(0, BATCH, 4))
                waiting.append([pool.submit(_in_process, index, shared.name, shape, piece) for piece in pieces])
            if step >= ahead - 1:
                for piece in waiting.pop(0):
                    piece.result()
                slot = (step - ahead + 1) % ahead * BATCH
                yield preprocess(torch.from_numpy(whole[slot : slot + BATCH].copy()))

    return epoch


def _timm(folder: str, workers: int, cache: str) -> Epochs:
    loader = peers.crop_loader(folder, size=SIZE, batch=BATCH, workers=workers, persistent_workers=False)
    return lambda number: (images for images, _ in loader)


def _torchvision(folder: str, workers: int, cache: str) -> Epochs:
    from torchvision import datasets
    from torchvision.transforms import v2

    steps = [
        v2.RandomResizedCrop(SIZE, scale=SCALE, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(*peers.IMAGENET),
    ]
    dataset = datasets.ImageFolder(str(Path(folder, "train")), v2.Compose(steps))
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True)
    return lambda number: (images for images, _ in loader)


SETUP: dict[str, Callable[[str, int, str], Epochs]] = {
    "reduced": partial(_ours, reduced=True),
    "none": partial(_ours, reduced=False),
    "processes": _processes,
    "timm": _timm,
    "torchvision": _torchvision,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="holds train/<class>/*")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "poolzoo-photographs"))
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--size", default="375x500", help="HEIGHTxWIDTH of the photographs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    folder = photographs.make(given.folder / str(given.images), given.pictures, given.images, height, width)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in given.sides}
    for turn in range(given.rounds):
        for side in random.Random(turn).sample(given.sides, len(given.sides)):
            with tempfile.TemporaryDirectory(dir=given.folder) as cache:
                arguments = {"side": side, "folder": str(folder), "workers": given.workers}
                arguments |= {"epochs": given.epochs, "cache": cache}
                runs[side].append(peers.elsewhere("benchmarks.data.loading:measure", arguments))
    _report(runs, given.images, given.size, given.workers)


def _report(runs: dict[str, list[dict[str, Any]]], images: int, size: str, workers: int) -> None:
    print(f"{images} photographs of {size}, random resized crops of {SIZE}, {workers} workers")
    print(f"{'':12} {'epoch':>5} {'images/s':>9} {'CPU ms/image':>13} {'PSS MB':>7}   times timm (wall, CPU)")
    base = runs.get("timm")
    for side, found in runs.items():
        for epoch in range(len(found[0]["epochs"])):
            rates = [one["epochs"][epoch]["images"] / one["epochs"][epoch]["seconds"] for one in found]
            cpu = [1e3 * one["epochs"][epoch]["cpu"] / one["epochs"][epoch]["images"] for one in found]
            text = f"{side:12} {epoch + 1:5} {statistics.median(rates):9.0f} {statistics.median(cpu):13.2f}"
            text += f" {statistics.median(one['pss'] for one in found):7.0f}"
            if base is not None:
                walls, cpus = [], []
                for rate, cost, other in zip(rates, cpu, base, strict=True):
                    its = other["epochs"][epoch]
                    walls.append(rate / (its["images"] / its["seconds"]))
                    cpus.append(1e3 * its["cpu"] / its["images"] / cost)
                text += f"   {statistics.median(walls):5.2f} {statistics.median(cpus):5.2f}"
            print(text)


if __name__ == "__main__":
    main()
