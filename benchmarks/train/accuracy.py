"""Accuracy against training time: our recipes, and timm's training for as long, on the same network.

python -m benchmarks.train.accuracy --data folder:PATH --timm [--recipes fast strong] [--seeds 3] [--minutes M]
                                    [--json FILE]
python -m benchmarks.train.accuracy --data folder:PATH --backbone lite0 --pretrained --seeds 1 --timm
    (pip install plugins/poolzoo-lite0, or --plugin plugins/poolzoo-lite0/src/poolzoo_lite0/__init__.py)

Ours is `finetune` with an empty cache. Its time ends with the last validation, so it includes decoding, the features of
a frozen backbone, validation and checkpoints. timm gets as much time for training steps alone, seed by seed. With
--minutes both get that time, and ours as many epochs as fit.

timm: create_loader as train.py calls it (random resized crop, mirror, color jitter 0.4, random interpolation), AdamW,
1e-3, weight decay 0.05, batches of 128, label smoothing 0.1, cosine per step to 0 after 5 % of warm-up, all training
images (ours holds a tenth out to select the epoch), the last weights. The better one of `--workers` is found in 20
steps before the clock starts. The cosine follows the clock, so it ends with the time on a busy machine too. Initial
weights, normalization, test images and metrics are the same. Threads sleep at barriers on both sides.

--set NAME=VALUE changes settings of ours, such as --set batch_size=128 cutmix=0.5. Choose them by the column of the
validation images: the test images are for the last table.

Every finished run is a line of JSON in FILE, and is not run again.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.train import peers
from poolzoo.common import output

BATCH, LR, DECAY = 128, 1e-3, 0.05  # the batch is train.py's default, the rest usual for AdamW in timm
WARM_UP, WARM_UP_LR = 0.05, 1e-5  # share of the steps, and train.py's default of the first one's rate
TIMED = 20  # steps that a speed is conditions from
SAY_EVERY = 30  # seconds
SPARED = 0.95  # fraction of the minutes for training; the rest is for validation and checkpoints


def ours(settings: dict[str, Any], plugin: str | None, budget: float | None) -> dict[str, Any]:
    """One run of a recipe; with a budget in seconds, as many epochs as fit into it."""
    from poolzoo.train.run import finetune
    from poolzoo.train.settings import Settings

    _load(plugin)
    with tempfile.TemporaryDirectory() as folder:
        if budget is not None:
            os.environ["POOLZOO_CACHE"] = f"{folder}/trial"
            settings = {**settings, "epochs": _epochs(Settings(**settings), SPARED * budget)}
        os.environ["POOLZOO_CACHE"] = f"{folder}/cache"
        run, ends = Path(folder) / "run", []
        started = time.perf_counter()
        report = finetune(Settings(**settings), run, lambda metrics: ends.append(time.perf_counter()))
        assert report is not None
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    curve = [
        [line["epoch"], round(end - started, 2), line["val_accuracy"]] for line, end in zip(lines, ends, strict=True)
    ]
    return {
        "seconds": round(ends[-1] - started, 2),
        "step_seconds": report.seconds,
        "images_per_s": report.images_per_s,
        "epochs": len(lines),
        "accuracy": report.test.accuracy,
        "flip_tta": report.test_flip_tta,
        "validation": curve,  # epoch, seconds, accuracy
        "peak_mb": peers.peak_mb(),
    }


def _epochs(settings: Any, budget: float) -> int:
    """How many epochs fit: the seconds of preparing, and of some steps, are measured."""
    from poolzoo.train.build import build_engine
    from poolzoo.train.checkpoint import Checkpoint, RunIdentity
    from poolzoo.train.prepare import prepare

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        prepared = prepare(settings)
        engine = build_engine([prepared], Checkpoint(Path(folder), RunIdentity({}, "")))
        (module,) = engine.modules.values()
        module.start_epoch(1)
        ready = time.perf_counter() - started

        def steps() -> Iterator[None]:
            for number, batch in enumerate(engine.loader.epoch(1)):
                module.step(batch, number)
                yield

        count = min(peers.WARM_UP + TIMED, len(engine.loader))
        if count <= peers.WARM_UP:
            return 1
        epoch = len(engine.loader) / peers.pace(steps(), count, 1)
        started = time.perf_counter()
        module.eval_module.eval()
        for inputs in engine.loader.validation():
            module.logits(inputs[module.input_key])
        epoch += time.perf_counter() - started
    return max(1, int((budget - ready) / epoch))


def timm(settings: dict[str, Any], plugin: str | None, budget: float, workers: list[int], lr: float) -> dict[str, Any]:
    """timm's recipe for some seconds, on the network that our settings give."""
    from timm.scheduler import CosineLRScheduler

    from poolzoo.common import allocator
    from poolzoo.metrics import classification
    from poolzoo.train import inference
    from poolzoo.train.prepare import prepare
    from poolzoo.train.settings import Settings

    _load(plugin)
    allocator.keep = lambda: False  # type: ignore[assignment]  # nobody does that for timm
    with tempfile.TemporaryDirectory() as folder:
        os.environ["POOLZOO_CACHE"] = folder
        prepared = prepare(Settings(**settings))
        network, data, preprocess = prepared.assembly.network, prepared.data, prepared.preprocess
        network.to(memory_format=torch.contiguous_format)
        size = prepared.assembly.image_size[0]
        given = (settings["data"], settings["limit"], size, BATCH)
        loaders = {n: peers.timm_loader(*given, n, preprocess.statistics, "random") for n in workers}
        rates = {n: _trial(network, loader, lr) for n, loader in loaders.items()}
        best = max(rates, key=lambda n: rates[n])
        loader = loaders.pop(best)
        loaders.clear()  # and their workers
        torch.manual_seed(settings["seed"])
        optimizer, ticks = _adamw(network, lr), 1_000_000
        schedule = CosineLRScheduler(
            optimizer, ticks, warmup_t=round(WARM_UP * ticks), warmup_lr_init=WARM_UP_LR, t_in_epochs=False
        )
        done, spent, said, started = 0, 0.0, 0.0, time.perf_counter()
        while spent < budget:
            for loss in peers.plain_steps(network, optimizer, loader):
                done, spent = done + 1, time.perf_counter() - started
                schedule.step_update(round(ticks * min(1.0, spent / budget)))
                if spent - said > SAY_EVERY:
                    said = spent
                    peers.say(f"timm: step {done}  {spent:.0f}/{budget:.0f} s  loss {loss:.3f}")
                if spent >= budget:
                    break
        seconds = time.perf_counter() - started
        images, labels = data.test
        logits = inference.predict_logits(network, preprocess, images, prepared.policy)
        averaged = None
        if data.flip:
            flipped_logits = inference.predict_logits(network, preprocess, images[:, :, ::-1], prepared.policy)
            averaged = classification.flip_averaged_logits(logits, flipped_logits)
    return {
        "seconds": round(seconds, 2),
        "step_seconds": round(seconds, 2),
        "images_per_s": round(done * BATCH / seconds, 1),
        "epochs": round(done / len(loader), 2),
        "steps": done,
        "workers": best,
        "accuracy": classification.accuracy(logits, labels),
        "flip_tta": None if averaged is None else classification.accuracy(averaged, labels),
        "peak_mb": peers.peak_mb(),
    }


def _adamw(network: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    from timm.optim import create_optimizer_v2

    return create_optimizer_v2(network, opt="adamw", lr=lr, weight_decay=DECAY)


def _trial(network: torch.nn.Module, loader: Any, lr: float) -> float:
    """Images a second of some steps on a copy of the network; 0 where the loader has too few."""
    other = copy.deepcopy(network)
    count = min(peers.WARM_UP + TIMED, len(loader))
    if count <= peers.WARM_UP:
        return 0.0
    steps = peers.plain_steps(other, _adamw(other, lr), islice(loader, count))
    return peers.pace(steps, count, BATCH)


def _load(plugin: str | None) -> None:
    """Lets a plugin's file in; the package of an `__init__.py` becomes importable."""
    from poolzoo.plugin import loader as host

    if plugin is not None:
        path = Path(plugin).absolute()
        if path.name == "__init__.py":
            sys.path.insert(0, str(path.parents[1]))
        host.settings.files = [path]


class Kept:
    """The runs that were made, in a file of JSON lines."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file is not None and file.is_file() else []
        self.runs: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def result(self, function: str, arguments: dict[str, Any], threads: int) -> dict[str, Any]:
        """What a run with these arguments gave; it is made where the file has none."""
        wanted = json.loads(json.dumps({"function": function, **arguments}))
        for run in self.runs:
            if run["arguments"] == wanted:
                return run
        run = {"arguments": wanted, "conditions": peers.conditions(threads)}
        run["result"] = peers.elsewhere(f"benchmarks.train.accuracy:{function}", arguments, show_stderr=True)
        self.runs.append(run)
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(run, ensure_ascii=False) + "\n")
        return run


def main() -> None:
    from poolzoo.train.recipes import RECIPES, recipe_settings
    from poolzoo.train.settings import Settings

    parser = peers.options(__doc__, None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipes", nargs="+", default=["fast"], choices=[recipe.name for recipe in RECIPES])
    parser.add_argument("--backbone", default="nano/resnet")
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--weights", metavar="FILE")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--minutes", type=float, help="for every run; by default a recipe takes its own time")
    parser.add_argument("--epochs", type=int, help="instead of a recipe's own")
    parser.add_argument("--timm", action="store_true", help="timm's training beside every recipe, for as long")
    parser.add_argument("--timm-lr", type=float, default=LR)
    parser.add_argument("--plugin", metavar="FILE", help="a plugin that is not installed")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of ours, as in TOML")
    given = parser.parse_args()
    changes = tomllib.loads("\n".join(_toml(each) for each in given.set))
    if given.minutes and given.epochs:
        parser.error("--minutes chooses the epochs: leave --epochs out")
    peers.folder_of(given.data)
    network = {
        "data": given.data,
        "backbone": given.backbone,
        "pretrained": given.pretrained,
        "weights": given.weights,
        "image_size": given.image_size,
        "threads": given.threads,
        "limit": given.images,
    }
    budget = given.minutes * 60 if given.minutes else None
    kept, rows = Kept(given.json), []
    plans = [(recipe, seed) for recipe in given.recipes for seed in range(given.seeds)]
    found: dict[str, list[dict[str, Any]]] = {}
    for recipe, seed in sorted(plans, key=lambda plan: plan[1]):
        chosen = {"epochs": given.epochs} if given.epochs else {}
        settings = asdict(Settings(**{**recipe_settings(recipe), **network, **chosen, **changes, "seed": seed}))
        run = _run(kept, recipe, "ours", {"settings": settings, "plugin": given.plugin, "budget": budget}, given)
        found.setdefault(recipe, []).append(run)
        if given.timm:
            seconds = budget or run["result"]["seconds"]
            peer = {
                "settings": {**network, "seed": seed},
                "plugin": given.plugin,
                "budget": seconds,
                "workers": given.workers,
            }
            name = "timm" if budget else f"timm, as long as {recipe}"
            if len(found.get(name, [])) <= seed:
                found.setdefault(name, []).append(_run(kept, name, "timm", {**peer, "lr": given.timm_lr}, given))
    rows = [_row(name, [run["result"] for run in runs]) for name, runs in found.items()]
    for row in rows:
        peer = next((other for other in rows if other["name"] in ("timm", f"timm, as long as {row['name']}")), None)
        row["ratio"] = (1 - row["accuracy"]) / (1 - peer["accuracy"]) if peer and peer["accuracy"] < 1 else None
    show(rows)
    conditions = peers.conditions(given.threads, n=given.seeds, data=given.data, backbone=given.backbone)
    peers.show_conditions({**conditions, "pretrained": given.pretrained, "waiting": "threads sleep"})


def _toml(change: str) -> str:
    """`NAME=VALUE` as a line of TOML, in which text has quotes."""
    name, _, value = change.partition("=")
    try:
        tomllib.loads(change)
    except tomllib.TOMLDecodeError:
        return f"{name} = {json.dumps(value)}"
    return change


def _run(kept: Kept, name: str, function: str, arguments: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    before = len(kept.runs)
    run = kept.result(function, arguments, given.threads)
    what = "" if len(kept.runs) > before else " (made before)"
    shown = {key: value for key, value in run["result"].items() if key != "validation"}
    peers.say(f"{name}, seed {arguments['settings']['seed']}{what}: {shown}")
    return run


def _row(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "n": len(results),
        "seconds": statistics.mean(r["seconds"] for r in results),
        "step_seconds": statistics.mean(r["step_seconds"] for r in results),
        "images_per_s": statistics.mean(r["images_per_s"] for r in results),
        "epochs": statistics.mean(r["epochs"] for r in results),
        "accuracy": statistics.mean(r["accuracy"] for r in results),
        "accuracies": [r["accuracy"] for r in results],
        "validations": [max(value for *_, value in r["validation"]) for r in results if "validation" in r],
        "flips": [r["flip_tta"] for r in results if r["flip_tta"] is not None],
    }


def _percent(values: list[float]) -> str:
    """Mean and standard deviation of fractions, in percent."""
    if not values:
        return "–"
    mean = f"{100 * statistics.mean(values):.2f}"
    return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def show(rows: list[dict[str, Any]]) -> None:
    """The table."""
    lines = []
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None and not row["name"].startswith("timm") else "–"
        times = f"{row['seconds']:.0f}", f"{row['step_seconds']:.0f}", f"{row['epochs']:.1f}"
        cells = (row["name"], row["n"], *times, f"{row['images_per_s']:.0f}")
        found = (_percent(row[key]) for key in ("validations", "accuracies", "flips"))
        lines.append((*cells, *found, ratio))
    figures = "images/s", "validation, %", "test accuracy, %", "flip-TTA, %", "times timm's error"
    headers = ("recipe", "seeds", "seconds", "of these in steps", "epochs", *figures)
    output.table(headers, lines, right=range(1, len(headers)))


if __name__ == "__main__":
    main()
