"""`compare --dry-run`: what would be trained, its size, and how long training takes, from a few real steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Final

import torch
from torch import Tensor, nn

from poolzoo.common import output
from poolzoo.common.errors import PoolzooError
from poolzoo.compare import trial
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial
from poolzoo.compare.training import group_by_backbone
from poolzoo.model.cost import parameters_and_macs
from poolzoo.train.feature_entries import input_key
from poolzoo.train.loaders import FEATURE_MAP
from poolzoo.train.prepare import PreparedRun, prepare
from poolzoo.train.step_plan import StepPlan

STEPS: Final = 3  # that are timed, after one that is not


@dataclass(frozen=True)
class VariantPreview:
    """One variant: its size and the seconds of one trial; or why it cannot be trained."""

    backbone: str
    pool: str
    local_pool: str | None
    parameters: int | None = None
    macs: int | None = None
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Preview:
    """A comparison before it runs; `seconds` is the estimate for training all of it on this machine."""

    trials: int
    seeds: int
    rows: Sequence[VariantPreview]
    seconds: int

    def to_json(self) -> dict[str, object]:
        rows = [{key: value for key, value in asdict(row).items() if key != "error" or value} for row in self.rows]
        return {**asdict(self), "rows": rows}


def preview(config: ComparisonConfig) -> Preview:
    """Assembles every variant and times a few steps of it; nothing is trained or written."""
    rows: list[VariantPreview] = []
    seconds = 0.0
    firsts = [one for one in config.trials if one.seed == config.settings.seed]
    frozen = config.settings.freeze == "backbone"
    for group in group_by_backbone(firsts) if frozen else [[one] for one in firsts]:
        backbone = 0.0
        for one in group:
            try:
                with output.quiet() if rows else nullcontext():  # messages about the data are printed once
                    prepared = prepare(trial.settings_of(config.settings, one))
            except PoolzooError as error:
                rows.append(_row(one, error=error.message))
                continue
            parameters, macs = parameters_and_macs(prepared.assembly)
            times = _times(prepared)
            backbone = max(backbone, times.backbone)
            seconds += times.trial * config.seeds + times.vectors
            rows.append(_row(one, parameters=parameters, macs=macs, seconds=round(times.trial, 1)))
        seconds += backbone  # of a frozen backbone, whose features serve all heads and seeds
    return Preview(trials=len(config.trials), seeds=config.seeds, rows=rows, seconds=round(seconds))


def _row(
    one: Trial,
    *,
    parameters: int | None = None,
    macs: int | None = None,
    seconds: float | None = None,
    error: str | None = None,
) -> VariantPreview:
    variant = one.variant
    return VariantPreview(variant.backbone, variant.pool, variant.local_pool, parameters, macs, seconds, error)


@dataclass(frozen=True)
class _Times:
    """Seconds to train a trial; and once for all trials, to run a frozen backbone and to compute pooled vectors."""

    trial: float
    backbone: float = 0.0
    vectors: float = 0.0


def _times(prepared: PreparedRun) -> _Times:
    settings, data, policy = prepared.settings, prepared.data, prepared.policy
    assert settings.batch_size is not None
    network = prepared.assembly.network
    images = torch.from_numpy(data.images[data.train_indices[: settings.batch_size]]).to(policy.device)
    labels = torch.from_numpy(data.labels[data.train_indices[: settings.batch_size]]).to(policy.device)
    if (budget := settings.budget_seconds) is not None:
        return _Times(budget)
    per_epoch = len(data.train_indices) // settings.batch_size
    steps = per_epoch * settings.epochs if settings.epochs else StepPlan.parse(settings.steps or "").total
    batches = (len(data.images) + 2 * len(data.test.labels)) / len(images)
    network.train()
    with policy.context():
        x = prepared.preprocess(images)
        if not settings.caches_features:
            return _Times(_seconds(lambda: _step(network, x, labels)) * steps)
        with torch.no_grad():
            backbone = _seconds(lambda: network.forward_map(x)) * batches
            maps = network.forward_map(x)
            pooled = network.pool(maps)
            vectors = _seconds(lambda: network.pool(maps)) * batches
        if input_key(prepared) == FEATURE_MAP:
            return _Times(_seconds(lambda: _step(network.head, maps, labels)) * steps, backbone)
        return _Times(_seconds(lambda: _step(network.classifier, pooled, labels)) * steps, backbone, vectors)


def _step(network: nn.Module, x: Tensor, labels: Tensor) -> None:
    loss: Tensor = torch.nn.functional.cross_entropy(network(x), labels)
    torch.autograd.backward(loss)


def _seconds(call: Callable[[], object]) -> float:
    call()
    start = time.perf_counter()
    for _ in range(STEPS):
        call()
    return (time.perf_counter() - start) / STEPS
