"""Training on photographs, beside timm's loader with a plain loop, and beside the same steps on one batch in memory.

python -m benchmarks.data.finetune --pictures DIR [--images 4000] [--steps 40] [--workers 2] [--rounds 1]

timm/mobilenetv3_small_050 on random resized crops of 128 with mirror images, batches of 64, SGD. Every side has a
process of its own in every round, in shuffled order; three steps are not timed:

    first     ours, in the epoch that reduces the photographs
    ours      ours, in an epoch after that
    step      our step on one batch in memory: what the network itself costs
    timm      create_loader and a plain loop

`run` is a whole fine-tuning of as many epochs as `finetune` chooses for so many images: one as `first`, the others as
`ours`. All sides learn the same: crops of 0.08 to 1 of the area, bilinear, half of them mirrored, no color jitter,
label smoothing of 0.1, Nesterov's momentum, two threads. Only steps are timed: no validation, no checkpoint, no start.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from benchmarks.data import photographs
from benchmarks.train import peers
from poolzoo.train.defaults import default_epochs

SIDES = ("first", "ours", "step", "timm")
MODEL, SIZE, BATCH, LR = "timm/mobilenetv3_small_050", 128, 64, 0.05


def measure(side: str, folder: str, workers: int, steps: int, cache: str) -> dict[str, float]:
    """Seconds and processor seconds for an image of a side."""
    import torch

    torch.set_num_threads(2)
    run = _timm(folder, workers) if side == "timm" else _ours(side, folder, workers, cache)
    warm = sum(1 for _ in islice(run, peers.WARM_UP))
    wall, cpu = time.perf_counter(), photographs.cpu_seconds()
    timed = sum(1 for _ in islice(run, steps))
    wall, cpu = time.perf_counter() - wall, photographs.cpu_seconds() - cpu
    if warm + timed < peers.WARM_UP + steps:
        raise SystemExit(f"{warm + timed} steps of {steps + peers.WARM_UP}: give more --images")
    return {"seconds": wall / timed / BATCH, "cpu": cpu / timed / BATCH}


def _ours(side: str, folder: str, workers: int, cache: str) -> Iterator[None]:
    import os

    from poolzoo.common import output
    from poolzoo.train.build import build_engine
    from poolzoo.train.checkpoint import Checkpoint, RunIdentity
    from poolzoo.train.prepare import prepare
    from poolzoo.train.settings import Settings

    os.environ["POOLZOO_CACHE"] = cache
    settings = Settings(
        data=f"folder:{folder}",
        backbone=MODEL,
        image_size=SIZE,
        batch_size=BATCH,
        epochs=3,
        lr=LR,
        optimizer="sgd",
        threads=2,
        augment="standard",
        color_jitter=0.0,
        data_cache="reduced",
        data_workers=workers,
    )
    with output.quiet():
        prepared = prepare(settings)
    engine = build_engine([prepared], Checkpoint(Path(cache), RunIdentity({}, "")))
    (module,) = engine.modules.values()
    module.start_epoch(1)
    if side == "ours":
        for _ in engine.loader.epoch(1):
            pass
    batches = engine.loader.epoch(1 if side == "first" else 2)
    for number, batch in enumerate(repeat(next(iter(batches))) if side == "step" else batches):
        module.step(batch, number)
        yield


def _timm(folder: str, workers: int) -> Iterator[float]:
    import timm
    import torch

    loader = peers.crop_loader(folder, size=SIZE, batch=BATCH, workers=workers)
    network = timm.create_model(MODEL.removeprefix("timm/"), num_classes=photographs.CLASSES)
    optimizer = torch.optim.SGD(network.parameters(), LR, momentum=0.9, nesterov=True)
    return peers.plain_steps(network, optimizer, loader)


def _mean(first: dict[str, float], later: dict[str, float], epochs: int) -> dict[str, float]:
    """Of a run, of which the first epoch differs from the others."""
    return {key: (first[key] + (epochs - 1) * later[key]) / epochs for key in first}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="holds train/<class>/*")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "poolzoo-photographs"))
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    folder = photographs.make(given.folder / str(given.images), given.pictures, given.images, 375, 500)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for turn in range(given.rounds):
        for side in random.Random(turn).sample(SIDES, len(SIDES)):
            with tempfile.TemporaryDirectory(dir=given.folder) as cache:
                arguments: dict[str, Any] = {"side": side, "folder": str(folder), "workers": given.workers}
                arguments |= {"steps": given.steps, "cache": cache}
                found[side].append(peers.elsewhere("benchmarks.data.finetune:measure", arguments))
    epochs = default_epochs(given.images)
    found["run"] = [_mean(*one, epochs) for one in zip(found["first"], found["ours"], strict=True)]
    print(f"{MODEL} at {SIZE}, {given.images} photographs of 375×500, {given.workers} workers, {epochs} epochs a run")
    print(f"{'':8} {'ms/image':>9} {'CPU ms/image':>13}   times timm (wall, CPU)   of the step (wall, CPU)")
    for side, runs in found.items():
        wall, cpu = (1e3 * statistics.median(one[key] for one in runs) for key in ("seconds", "cpu"))
        ratios = []
        for other, key in (("timm", "seconds"), ("timm", "cpu"), ("step", "seconds"), ("step", "cpu")):
            pairs = zip(found[other], runs, strict=True)
            ratios.append(statistics.median(theirs[key] / ours[key] for theirs, ours in pairs))
        print(
            f"{side:8} {wall:9.2f} {cpu:13.2f}   {ratios[0]:10.2f} {ratios[1]:5.2f} "
            f"{1 / ratios[2]:17.2f} {1 / ratios[3]:5.2f}"
        )


if __name__ == "__main__":
    main()
