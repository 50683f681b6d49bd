"""What training is measured against: the loaders of timm and torchvision, and a plain training loop.

Each side runs in a process of its own, since kept memory, the threads' wait policy and peak memory belong to a process.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.data.choice import choose

IMAGENET: Final = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # timm's and torchvision's default mean and deviation
SMOOTHING: Final = 0.1  # of labels: timm's train.py's default, and ours
WARM_UP: Final = 3  # steps before any is timed
SLEEPING: Final = {"OMP_WAIT_POLICY": "PASSIVE"}  # as the command line of poolzoo sets it

Normalization = tuple[Sequence[float], Sequence[float]]


# --- Processes -----------------------------------------------------------------------------------------------------


def elsewhere(
    function: str, arguments: dict[str, Any], *, sleeping: bool = True, show_stderr: bool = False
) -> dict[str, Any]:
    """Runs a function in a new process, and returns its result.

    Args:
        function: As `benchmarks.train.speed:ours`.
        arguments: Its keyword arguments, as JSON can hold them.
        sleeping: Whether threads sleep at a barrier, as under `poolzoo` on the command line, or spin, as torch's do.
        show_stderr: Whether its stderr is shown while it runs, or only where it fails.

    Raises:
        RuntimeError: It failed; the text is the end of its stderr.
    """
    command = [sys.executable, "-m", "benchmarks.train.peers", function, json.dumps(arguments)]
    environment = {key: value for key, value in os.environ.items() if key not in SLEEPING}
    environment.update(SLEEPING if sleeping else {})
    stderr = None if show_stderr else subprocess.PIPE
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{function} failed with {done.returncode}\n{(done.stderr or '')[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_mb() -> float:
    """The largest resident set of this process so far in MB; a loader's workers are not in it."""
    from poolzoo.train.memory import peak_memory

    return round((peak_memory("cpu").host_bytes or 0) / 1e6, 1)


# --- Networks and loaders ------------------------------------------------------------------------------------------


def network(model: str, size: int, classes: int) -> nn.Module:
    """The network that every side trains: poolzoo's with average pooling, or timm's own where the map is 1 × 1."""
    import timm

    import poolzoo
    from poolzoo.common.errors import UsageError

    torch.manual_seed(0)
    try:
        return poolzoo.create_model(model, pool="avg", num_classes=classes, image_size=size)
    except UsageError as error:
        if not is_too_small(error) or not model.startswith("timm/"):
            raise
        return timm.create_model(model.removeprefix("timm/"), num_classes=classes)


def is_too_small(error: Exception) -> bool:
    """Whether a network was refused because its map would be 1 × 1, where there is nothing to pool."""
    return "1×1 feature map" in str(error)


def folder_of(data: str) -> Path:
    """The folder that `folder:PATH` names.

    Raises:
        SystemExit: It is something else, or holds no train/.
    """
    kind, _, path = data.partition(":")
    folder = Path(path).expanduser().absolute()
    if kind != "folder" or not (folder / "train").is_dir():
        raise SystemExit(f"--data {data!r} is no folder:PATH that holds train/<class>/ and test/<class>/")
    return folder


def classes_of(data: str) -> int:
    """How many class folders there are."""
    return sum(entry.is_dir() for entry in (folder_of(data) / "train").iterdir())


def _limited(samples: list[tuple[str, int]], images: int | None) -> list[tuple[str, int]]:
    """At most `images` of them, the classes in their own proportions, as ours chooses them."""
    return [samples[index] for index in choose(np.array([label for _, label in samples]), images, 0)]


def timm_loader(
    data: str,
    images: int | None,
    size: int,
    batch: int,
    workers: int,
    normalization: Normalization = IMAGENET,
    interpolation: str = "bilinear",
) -> Any:
    """timm's loader as it comes: random resized crops, mirrored, color jitter 0.4; without the prefetcher on a CPU."""
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(folder_of(data)), split="train")
    dataset.reader.samples = _limited(dataset.reader.samples, images)
    mean, std = normalization
    return create_loader(
        dataset,
        (3, size, size),
        batch,
        is_training=True,
        interpolation=interpolation,
        mean=tuple(mean),
        std=tuple(std),
        num_workers=workers,
        use_prefetcher=False,
        device=torch.device("cpu"),
    )


def crop_loader(folder: str, *, size: int, batch: int, workers: int, **options: Any) -> Any:
    """timm's batches of random resized crops with mirror images from a folder, on the CPU, without color jitter."""
    from timm.data import create_dataset, create_loader

    return create_loader(
        create_dataset("", root=folder, split="train"),
        (3, size, size),
        batch,
        is_training=True,
        color_jitter=None,
        interpolation="bilinear",
        num_workers=workers,
        use_prefetcher=False,
        device=torch.device("cpu"),
        **options,
    )


def torchvision_loader(data: str, images: int | None, size: int, batch: int, workers: int) -> Any:
    """ImageFolder and DataLoader, with the crops and mirror images that are usual for CIFAR."""
    from torchvision import datasets, transforms

    steps = [
        transforms.Resize((size, size)),  # leaves images of that size alone
        transforms.RandomCrop(size, padding=size // 8),  # 4 pixels of 32
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(*IMAGENET),
    ]
    dataset = datasets.ImageFolder(str(folder_of(data) / "train"), transforms.Compose(steps))
    dataset.samples = _limited(dataset.samples, images)
    return torch.utils.data.DataLoader(dataset, batch, shuffle=True, num_workers=workers, drop_last=True)


# --- Loops ---------------------------------------------------------------------------------------------------------


def plain_steps(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Iterator[float]:
    """The loop that everybody writes, over one pass of a loader; gives the loss of every step."""
    criterion = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    network.to(memory_format=memory_format).train()
    for x, labels in batches:
        loss = criterion(network(x.contiguous(memory_format=memory_format)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def pace(steps: Iterator[Any], count: int, batch: int) -> float:
    """Images a second over the steps that follow the first three, `count` in all."""
    warm = sum(1 for _ in islice(steps, WARM_UP))
    started = time.perf_counter()
    timed = sum(1 for _ in islice(steps, count - WARM_UP))
    seconds = time.perf_counter() - started
    if warm + timed < count:
        raise ValueError(f"{warm + timed} steps of {count}")
    return timed * batch / seconds


# --- Reports -------------------------------------------------------------------------------------------------------


def options(text: str | None, images: int | None) -> argparse.ArgumentParser:
    """The options of all these commands."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument(
        "--data", required=True, metavar="folder:PATH", help="PATH holds train/<class>/ and test/<class>/"
    )
    how_many = f"of the training images; default {images or 'all'}"
    parser.add_argument("--images", type=int, default=images, metavar="N", help=how_many)
    parser.add_argument("--threads", type=int, default=2, help="of torch; default 2")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the peers' loaders; the best counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keeps all numbers")
    return parser


def conditions(threads: int, **others: Any) -> dict[str, Any]:
    """What a measurement was made on and with."""
    from poolzoo.artifacts import run
    from poolzoo.runtime.environment import current_environment

    found = run.environment(torch.device("cpu"))
    found["versions"]["lightning"] = _version("lightning")
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {**found, "device_name": current_environment(threads).processor, "threads": threads, "load": load, **others}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def show_conditions(found: dict[str, Any]) -> None:
    """One line of conditions under a table."""
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("torch", "torchvision", "timm", "lightning"))
    known = {"python", "platform", "device", "device_name", "threads", "cpus", "versions", "load"}
    rest = "; ".join(f"{key} {value}" for key, value in found.items() if key not in known)
    print(
        f"{found['device_name']}, {found['cpus']} cores, {found['threads']} threads, float32; "
        f"load at the start {found['load']}; {versions}; {rest}"
    )


def median_and_range(values: Sequence[float], digits: int = 0) -> str:
    """The median, and from where to where, if there are several."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def keep(file: Path | None, content: dict[str, Any]) -> None:
    """Writes everything that was measured so far."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def say(text: str) -> None:
    """A line for who waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    place, name = sys.argv[1].split(":")
    chosen: Callable[..., Any] = getattr(importlib.import_module(place), name)
    print(json.dumps(chosen(**json.loads(sys.argv[2]))))
