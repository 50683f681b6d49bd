"""Heads of 25 poolings on one frozen backbone: together on cached features, beside 25 runs that compute them again.

python -m benchmarks.train.frozen --data folder:PATH [--images 2000] [--backbone timm/resnet18] [--epochs 10] [--full]

Ours is `finetune_heads` with an empty cache. Its time includes reading the images, one pass of the backbone, and
validation after every epoch. The other side is 25 plain loops over timm's create_loader, which run the backbone in
every epoch, in eval mode and without gradients. One such run is measured, of a cheap pooling and without validation.
The rest follows from it: runs × epochs × images / (images/s). Each side has a process of its own.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.train import peers
from poolzoo.common import output

POOLS = 25  # of the catalog's global ones, without those with the most expensive heads
LR = 5e-3


def affordable(backbone: str, size: int, classes: int) -> dict[str, Any]:
    """The 25 poolings of the catalog whose heads are the cheapest, with the milliseconds an image of each."""
    from poolzoo.common import timing
    from poolzoo.common.errors import PoolzooError
    from poolzoo.model import cost
    from poolzoo.model.assemble import assemble_backbone, attach_head
    from poolzoo.model.config import ModelConfig
    from poolzoo.model.layout import as_feature_map
    from poolzoo.plugin import loader as host
    from poolzoo.plugin import spec

    torch.set_num_threads(1)
    config = ModelConfig(backbone, "avg", classes, (size, size), (size, size))
    assembled = assemble_backbone(config)
    x = as_feature_map(assembled.features, assembled.layout).detach()
    x = x[torch.arange(16) % len(x)].clone()
    found: dict[str, float] = {}
    for entry in host.catalog().select(spec.Pooling):
        item = entry.item
        if not isinstance(item, spec.Pooling) or item.kind != "global":
            continue
        try:
            head = attach_head(
                assembled, ModelConfig(backbone, item.name, classes, (size, size), (size, size))
            ).network.head.eval()
        except PoolzooError:  # it does not fit this map
            continue
        times = timing.interleaved({"head": cost.timed_calls(head, x)["training"]}, 0.05)["head"]
        found[item.name] = round(statistics.median(times) / len(x), 4)
    return dict(sorted(found.items(), key=lambda pair: pair[1])[:POOLS])


def ours(
    data: str, images: int | None, backbone: str, size: int, epochs: int, batch: int, threads: int, pools: Sequence[str]
) -> dict[str, Any]:
    """Seconds until all heads are trained, and until they are tested and their run directories are written."""
    from poolzoo.train.heads import finetune_heads
    from poolzoo.train.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        os.environ["POOLZOO_CACHE"] = f"{folder}/cache"
        settings = Settings(
            data=data,
            backbone=backbone,
            image_size=size,
            limit=images,
            batch_size=batch,
            epochs=epochs,
            freeze="backbone",
            threads=threads,
            lr=LR,
        )
        started, trained = time.perf_counter(), []
        runs = Path(folder) / "runs"
        reports = finetune_heads(settings, pools, runs, lambda pool, metrics: trained.append(time.perf_counter()))
        ended = time.perf_counter()
        report = reports[pools[0]]
    learnt = report.images_per_s * report.seconds / epochs
    return {
        "trained_s": round(trained[-1] - started, 3),
        "whole_s": round(ended - started, 3),
        "steps_s": report.seconds,
        "learnt": batch * round(learnt / batch),  # images an epoch, in whole batches; the figures are rounded
        "peak_mb": peers.peak_mb(),
    }


def theirs(
    data: str,
    images: int,
    backbone: str,
    size: int,
    epochs: int,
    batch: int,
    threads: int,
    pool: str,
    classes: int,
    workers: int,
) -> dict[str, Any]:
    """Images a second of one run of some epochs, the start of the loader's workers with it."""
    import poolzoo

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = poolzoo.create_model(backbone, pool=pool, num_classes=classes, image_size=size)
    network.backbone.eval().requires_grad_(False)
    head = network.head
    optimizer = torch.optim.AdamW(head.parameters(), lr=LR)
    loader = peers.timm_loader(data, images, size, batch, workers)

    def maps() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for x, labels in loader:
            with torch.no_grad():
                x = network.forward_map(x)
            yield x, labels

    started, seen = time.perf_counter(), 0
    for _ in range(epochs):
        seen += batch * sum(1 for _ in peers.plain_steps(head, optimizer, maps()))
    seconds = time.perf_counter() - started
    return {"images_per_s": seen / seconds, "seconds": round(seconds, 3), "seen": seen, "peak_mb": peers.peak_mb()}


def main() -> None:
    parser = peers.options(__doc__, 2000)
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128, help="default 128, as timm's train.py has it")
    parser.add_argument("--pools", nargs="+", help=f"default: the {POOLS} cheapest")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peer-epochs", type=int, default=1, help="of the one run that is measured; default 1")
    parser.add_argument("--full", action="store_true", help="run ours on all images too")
    given = parser.parse_args()
    if given.images < 2 * given.batch:
        parser.error(f"--images {given.images} are less than two batches of {given.batch}")
    classes = peers.classes_of(given.data)
    about = {"backbone": given.backbone, "size": given.image_size}
    pools, costs = given.pools, {}
    if pools is None:
        costs = peers.elsewhere("benchmarks.train.frozen:affordable", {**about, "classes": classes})
        pools = list(costs)
    peers.say(f"{len(pools)} poolings: {', '.join(pools)}")
    shared = {**about, "data": given.data, "batch": given.batch, "threads": given.threads}
    measured_pool = "avg" if "avg" in pools else pools[0]
    peer = {**shared, "images": given.images, "epochs": given.peer_epochs, "pool": measured_pool, "classes": classes}
    mine = {**shared, "images": given.images, "epochs": given.epochs, "pools": pools}
    jobs = {"ours": ("ours", mine)}
    jobs |= {f"timm, {count} workers": ("theirs", {**peer, "workers": count}) for count in given.workers}

    conditions = peers.conditions(
        given.threads,
        n=given.rounds,
        backbone=given.backbone,
        px=given.image_size,
        epochs=given.epochs,
        batch=given.batch,
        poolings=len(pools),
        waiting="threads sleep",
    )
    kept: dict[str, Any] = {"conditions": conditions, "pools": pools, "ms_per_image": costs, "measurements": []}
    order, shuffle = list(jobs), random.Random(0).shuffle
    for _ in range(given.rounds):
        shuffle(order)
        for name in order:
            function, arguments = jobs[name]
            result = peers.elsewhere(f"benchmarks.train.frozen:{function}", arguments)
            peers.say(f"{name}: {result}")
            kept["measurements"].append({"side": name, **result})
            peers.keep(given.json, kept)
    if given.full:
        result = peers.elsewhere("benchmarks.train.frozen:ours", {**mine, "images": None}, show_stderr=True)
        peers.say(f"ours, all images: {result}")
        kept["measurements"].append({"side": "ours, all images", **result})
    rows = compare(kept["measurements"], len(pools), given.epochs)
    peers.keep(given.json, {**kept, "rows": rows})
    show(rows)
    print(
        f"EXTRAPOLATED: {len(pools)} separate runs were not made. One was, with {measured_pool}, {given.peer_epochs} "
        f"of {given.epochs} epochs on {given.images} images; the seconds are {len(pools)} runs × {given.epochs} epochs "
        "× our training images / its images per second, without validation, tests or more expensive poolings."
    )
    peers.show_conditions(conditions)


def compare(measurements: list[dict[str, Any]], runs: int, epochs: int) -> list[dict[str, Any]]:
    """Seconds of both sides, in every round; the peer's with the number of workers that is best."""
    by_side: dict[str, list[dict[str, Any]]] = {}
    for m in measurements:
        by_side.setdefault(m["side"], []).append(m)
    speed = {side: [m["images_per_s"] for m in found] for side, found in by_side.items() if not side.startswith("ours")}
    best = max(speed, key=lambda side: statistics.median(speed[side]))
    rows = []
    for side, found in by_side.items():
        if side not in ("ours", "ours, all images"):
            continue
        learnt = found[0]["learnt"]
        rates = speed[best] if side == "ours" else [statistics.median(speed[best])]
        theirs = [runs * epochs * learnt / rate for rate in rates]
        peer = f"{best}, {runs} runs (extrapolated)"
        rows.append({"side": peer, "images": learnt, "seconds": theirs, "ratio": None, "peak_mb": _peak(by_side[best])})
        for what, key in (("until trained", "trained_s"), ("with tests and run directories", "whole_s")):
            seconds = [m[key] for m in found]
            ratio = [a / b for a, b in zip(theirs, seconds, strict=True)]
            name = f"ours, {runs} heads at once, {what}"
            rows.append({"side": name, "images": learnt, "seconds": seconds, "ratio": ratio, "peak_mb": _peak(found)})
    return rows


def _peak(found: list[dict[str, Any]]) -> float:
    return statistics.median(m["peak_mb"] for m in found)


def show(rows: list[dict[str, Any]]) -> None:
    """The table."""
    lines = []
    for row in rows:
        ratio = peers.median_and_range(row["ratio"], 1) if row["ratio"] else "–"
        lines.append(
            (row["side"], row["images"], peers.median_and_range(row["seconds"], 1), f"{row['peak_mb']:.0f}", ratio)
        )
    output.table(("side", "images", "seconds", "peak MB", "ours is … times as fast"), lines, right=(1, 2, 3, 4))


if __name__ == "__main__":
    main()
