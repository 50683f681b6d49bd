"""`compare --dry-run`: what would be trained, how large it is, and how long that would take, from a few real steps."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from poolzoo.common import output
from poolzoo.common.errors import OK, PoolzooError
from poolzoo.compare import trial
from poolzoo.compare.session import ComparisonConfig, heads_together
from poolzoo.model.assemble import parameters_and_macs
from poolzoo.train.features import reads
from poolzoo.train.loaders import MAP
from poolzoo.train.prepare import Prepared, prepare

STEPS: Final = 3  # that are timed, after one that is not


def show(plan: ComparisonConfig, as_json: bool) -> int:
    """Prints the plan; trains and writes nothing."""
    rows, seconds = [], 0.0
    seed = plan.settings.seed
    firsts = [one for one in plan.trials if one.seed == seed]
    frozen = plan.settings.freeze == "backbone"
    for group in heads_together(firsts) if frozen else [[one] for one in firsts]:
        shared = 0.0
        for one in group:
            variant = one.variant
            row: dict[str, Any] = {"backbone": variant.backbone, "pool": variant.pool, "local_pool": variant.local_pool}
            try:
                with output.quiet() if rows else nullcontext():  # what is said of the data is said once
                    prepared = prepare(trial.settings_of(plan.settings, one))
            except PoolzooError as error:
                rows.append({**row, "error": error.message})
                continue
            parameters, macs = parameters_and_macs(prepared.assembly)
            times = _times(prepared)
            shared = max(shared, times.backbone)
            seconds += times.trial * plan.seeds + times.vectors
            rows.append({**row, "parameters": parameters, "macs": macs, "seconds": round(times.trial, 1)})
        seconds += shared  # the features of a frozen backbone, once for all heads and seeds
    total = {"trials": len(plan.trials), "seeds": plan.seeds, "rows": rows, "seconds": round(seconds)}
    if as_json:
        output.emit_json(total)
        return OK
    cells = [
        (
            *(row["backbone"], row["pool"], row["local_pool"] or "its own"),
            *(
                (f"{row['parameters']:,}", f"{row['macs'] / 1e6:.1f}", f"{row['seconds']:.0f}")
                if "macs" in row
                else ("", "", row["error"])
            ),
        )
        for row in rows
    ]
    output.table(("backbone", "pool", "local pool", "parameters", "million MACs", "s a trial"), cells, right=(3, 4, 5))
    output.data(f"{total['trials']} trials, {plan.seeds} seeds each; training takes about {_duration(seconds)} here")
    return OK


@dataclass(frozen=True)
class _Times:
    """Seconds to train a trial, and once for all trials: to run a frozen backbone, and to keep a pooling's vectors."""

    trial: float
    backbone: float = 0.0
    vectors: float = 0.0


def _times(prepared: Prepared) -> _Times:
    settings, data, policy = prepared.settings, prepared.data, prepared.policy
    assert settings.batch_size is not None
    assert settings.epochs is not None
    network = prepared.assembly.network
    images = torch.from_numpy(data.images[data.chosen[: settings.batch_size]]).to(policy.device)
    labels = torch.from_numpy(data.labels[data.chosen[: settings.batch_size]]).to(policy.device)
    steps = len(data.chosen) // settings.batch_size * settings.epochs
    batches = (len(data.images) + 2 * len(data.test[1])) / len(images)
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
        if reads(prepared) == MAP:
            return _Times(_seconds(lambda: _step(network.head, maps, labels)) * steps, backbone)
        return _Times(_seconds(lambda: _step(network.classifier, pooled, labels)) * steps, backbone, vectors)


def _step(network: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> None:
    torch.nn.functional.cross_entropy(network(x), labels).backward()


def _seconds(call: Any) -> float:
    call()
    began = time.perf_counter()
    for _ in range(STEPS):
        call()
    return (time.perf_counter() - began) / STEPS


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} hours"
        if seconds >= 5400
        else f"{seconds / 60:.0f} minutes"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )
