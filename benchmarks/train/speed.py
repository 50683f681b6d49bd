"""Training throughput of ours beside timm, torchvision and Lightning: the same network, data, batch and optimizer.

python -m benchmarks.train.speed --data folder:PATH [--images 5000] [--rounds 3] [--variants] [--json FILE]
(Lightning: pip install -e '.[bench]'; without it its rows are left out.)

Every measurement has a process of its own; in every round the sides take turns in shuffled order. Images per second are
those of one epoch, after three steps. Ratios are taken within a round. The sides:

    ours            as `finetune`: its data, augmentation and step; files are decoded once, before
    step alone      our step on one batch in memory: the cost of the network itself
    memory returned ours without `allocator.keep()`
    timm            create_loader as it comes (random resized crop, mirror, color jitter 0.4), train.py's loop and SGD
    torchvision     ImageFolder and DataLoader (crop, mirror), a plain loop
    lightning       torchvision's loader under Lightning's Trainer, nothing logged or saved
    timm+, torchvision+   with --variants: the same with channels_last and kept memory

SGD with Nesterov momentum 0.9 and label smoothing 0.1 on every side; ours is torch's fused SGD. A peer's number of
workers is the better one of `--workers`; its peak memory is that of the main process alone. Threads sleep at barriers
on every side, as `poolzoo` sets it. With --spinning the peers' threads spin, which is torch's default; on a shared
machine that dominates the result.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import count as counting
from pathlib import Path
from typing import Any

import torch

from benchmarks.train import peers
from poolzoo.common import output

MODELS = ("nano/resnet", "timm/mobilenetv3_small_050", "timm/resnet18")
LR, MOMENTUM = 0.05, 0.9
OURS = ("ours", "step alone", "memory returned")
PEERS, VARIANTS = ("timm", "torchvision", "lightning"), ("timm+", "torchvision+")


def ours(
    side: str, data: str, images: int, model: str, size: int, batch: int, threads: int, classes: int, workers: int
) -> dict[str, Any]:
    """Images a second of our own pipeline and step."""
    from poolzoo.common import allocator
    from poolzoo.common.errors import UsageError
    from poolzoo.train.build import build_engine
    from poolzoo.train.checkpoint import Checkpoint, RunIdentity
    from poolzoo.train.loaders import IMAGES
    from poolzoo.train.prepare import prepare
    from poolzoo.train.settings import Settings
    from poolzoo.train.step_plan import StepPlan
    from poolzoo.train.training_module import TrainingModule

    if side == "memory returned":
        allocator.keep = lambda: False  # type: ignore[assignment]
    total = images // batch
    with tempfile.TemporaryDirectory() as folder:
        os.environ["POOLZOO_CACHE"] = folder
        settings = Settings(
            data=data,
            backbone=model,
            image_size=size,
            limit=images,
            batch_size=batch,
            threads=threads,
            optimizer="sgd",
            lr=LR,
            epochs=100,
        )
        started = time.perf_counter()
        outside = None
        try:
            prepared = prepare(settings)
        except UsageError as error:
            if not peers.is_too_small(error):
                raise
            prepared = prepare(replace(settings, backbone="nano/resnet"))  # for its data; the network is timm's own
            outside = prepared.policy.place(peers.network(model, size, classes))
        engine = build_engine([prepared], Checkpoint(Path(folder), RunIdentity({}, "")))
        (module,) = engine.modules.values()
        if outside is not None:
            module = TrainingModule(
                module=outside,
                input_key=IMAGES,
                objective=module.objective,
                settings=prepared.settings,
                plan=StepPlan.of(len(engine.loader)),
                policy=prepared.policy,
                rank=prepared.rank,
            )
        prepared_in = time.perf_counter() - started

        def steps() -> Iterator[None]:
            number = 0
            for epoch in counting(1):
                module.start_epoch(epoch)
                for batch in engine.loader.epoch(epoch):
                    module.step(batch, number)
                    number += 1
                    yield

        def same() -> Iterator[None]:
            module.start_epoch(1)
            batch = next(engine.loader.epoch(1))
            for number in counting():
                module.step(batch, number)
                yield

        rate = peers.pace(same() if side == "step alone" else steps(), total, batch)
    return {"images_per_s": rate, "peak_mb": peers.peak_mb(), "prepare_s": round(prepared_in, 2)}


def theirs(
    side: str, data: str, images: int, model: str, size: int, batch: int, threads: int, classes: int, workers: int
) -> dict[str, Any]:
    """Images a second of timm's or torchvision's loader and a plain loop."""
    from poolzoo.common import allocator

    torch.set_num_threads(threads)
    network, improved = peers.network(model, size, classes), side.endswith("+")
    if improved:
        allocator.keep()
    if side.startswith("timm"):
        from timm.optim import create_optimizer_v2

        loader = peers.timm_loader(data, images, size, batch, workers)
        optimizer = create_optimizer_v2(network, opt="sgd", lr=LR, momentum=MOMENTUM, weight_decay=2e-5)
    else:
        loader = peers.torchvision_loader(data, images, size, batch, workers)
        optimizer = _sgd(network)
    layout = torch.channels_last if improved else torch.contiguous_format
    rate = peers.pace(peers.plain_steps(network, optimizer, loader, layout), images // batch, batch)
    return {"images_per_s": rate, "peak_mb": peers.peak_mb()}


def _sgd(network: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM, nesterov=True, weight_decay=5e-4)


def lightning(
    side: str, data: str, images: int, model: str, size: int, batch: int, threads: int, classes: int, workers: int
) -> dict[str, Any]:
    """Images a second of Lightning's Trainer."""
    import lightning as pl

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    network, times = peers.network(model, size, classes), []
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=peers.SMOOTHING)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            x, labels = batch
            return criterion(self.network(x), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return _sgd(self.network)

    class Clock(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            times.append(time.perf_counter())

    off = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
    trainer = pl.Trainer(accelerator="cpu", devices=1, max_epochs=1, callbacks=[Clock()], **off)
    trainer.fit(Module(), peers.torchvision_loader(data, images, size, batch, workers))
    timed = times[peers.WARM_UP - 1 : images // batch]
    rate = (len(timed) - 1) * batch / (timed[-1] - timed[0])
    return {"images_per_s": rate, "peak_mb": peers.peak_mb()}


def measure(side: str, workers: int, arguments: dict[str, Any], *, spinning: bool) -> dict[str, Any]:
    """One measurement of one side in a process of its own."""
    kind = "ours" if side in OURS else "lightning" if side == "lightning" else "theirs"
    given = {"side": side, "workers": workers, **arguments}
    return peers.elsewhere(f"benchmarks.train.speed:{kind}", given, sleeping=side in OURS or not spinning)


def rows(measurements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every side of every network and size: medians, and how many times as fast ours is, round by round."""
    found = []
    for model, size in dict.fromkeys((m["model"], m["size"]) for m in measurements):
        here = [m for m in measurements if (m["model"], m["size"]) == (model, size)]
        rates: dict[str, dict[int, dict[int, float]]] = {}
        for m in here:
            rates.setdefault(m["side"], {}).setdefault(m["workers"], {})[m["round"]] = m["images_per_s"]
        for side, by_workers in rates.items():
            best = max(by_workers, key=lambda workers: statistics.median(by_workers[workers].values()))
            chosen, reference = by_workers[best], rates.get("ours", {}).get(0, {})
            peaks = [m["peak_mb"] for m in here if (m["side"], m["workers"]) == (side, best)]
            prepared = [m["prepare_s"] for m in here if m["side"] == side and "prepare_s" in m]
            found.append(
                {
                    "model": model,
                    "size": size,
                    "side": side,
                    "workers": best,
                    "images_per_s": list(chosen.values()),
                    "peak_mb": statistics.median(peaks),
                    "ratio": [reference[turn] / rate for turn, rate in chosen.items() if turn in reference],
                    "prepare_s": statistics.median(prepared) if prepared else None,
                }
            )
    order = [*OURS, *PEERS, *VARIANTS]
    return sorted(found, key=lambda row: (row["size"], row["model"], order.index(row["side"])))


def show(found: list[dict[str, Any]]) -> None:
    """The table, and what ours did before the clock ran."""
    lines = []
    for row in found:
        side = row["side"] if row["side"] in OURS else f"{row['side']}, {row['workers']} workers"
        ratio = peers.median_and_range(row["ratio"], 2) if row["ratio"] and row["side"] != "ours" else "–"
        lines.append(
            (
                row["model"],
                row["size"],
                side,
                peers.median_and_range(row["images_per_s"]),
                f"{row['peak_mb']:.0f}",
                ratio,
            )
        )
    headers = ("network", "px", "side", "images/s", "peak MB", "ours is … times as fast")
    output.table(headers, lines, right=(1, 3, 4, 5))
    if before := [row["prepare_s"] for row in found if row["side"] == "ours"]:
        print(
            f"ours decoded the folder and built the network in {min(before):.1f} to {max(before):.1f} s before, once a "
            "data set and not counted; a ratio to `step alone` is what our pipeline leaves of the network's own speed"
        )


def main() -> None:
    parser = peers.options(__doc__, 5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--sides", nargs="+", choices=(*OURS, *PEERS, *VARIANTS), help="default: all but the variants")
    parser.add_argument("--variants", action="store_true", help="add timm+ and torchvision+")
    parser.add_argument("--spinning", action="store_true", help="let the peers' threads spin at barriers")
    given = parser.parse_args()
    if given.images // given.batch <= peers.WARM_UP:
        parser.error(f"--images {given.images} are not more than {peers.WARM_UP} batches of {given.batch}")
    sides = given.sides or [*OURS, *PEERS]
    sides += [side for side in VARIANTS if given.variants and side not in sides]
    if importlib.util.find_spec("lightning") is None and "lightning" in sides:
        peers.say("lightning is not installed (pip install -e '.[bench]'): its rows are left out")
        sides.remove("lightning")
    jobs = [(side, workers) for side in sides for workers in ((0,) if side in OURS else given.workers)]

    shared = {"data": given.data, "images": given.images, "batch": given.batch, "threads": given.threads}
    shared["classes"] = peers.classes_of(given.data)
    waiting = "peers' threads spin" if given.spinning else "threads sleep"
    conditions = peers.conditions(
        given.threads, n=given.rounds, images=given.images, batch=given.batch, waiting=waiting
    )
    measurements: list[dict[str, Any]] = []
    shuffle = random.Random(0).shuffle
    for turn in range(given.rounds):
        for model in given.models:
            for size in given.sizes:
                shuffle(jobs)
                for side, workers in jobs:
                    about = {"round": turn, "model": model, "size": size, "side": side, "workers": workers}
                    try:
                        result = measure(
                            side, workers, {**shared, "model": model, "size": size}, spinning=given.spinning
                        )
                    except RuntimeError as error:
                        peers.say(f"{about}: {error}")
                        continue
                    measurements.append({**about, **result})
                    peers.say(f"{turn + 1}/{given.rounds} {model} {size} {side} {workers}: {result}")
                    peers.keep(given.json, {"conditions": conditions, "measurements": measurements})
    found = rows(measurements)
    peers.keep(given.json, {"conditions": conditions, "rows": found, "measurements": measurements})
    show(found)
    peers.show_conditions(conditions)


if __name__ == "__main__":
    main()
