"""One trial, or the trials of many poolings on one frozen backbone: trained, or gone on with, and measured."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from poolzoo.artifacts import manifest
from poolzoo.common import files, output
from poolzoo.common.errors import explain
from poolzoo.compare.grid import Trial
from poolzoo.train import heads, run
from poolzoo.train.settings import Settings

Record = dict[str, Any]
# Whatever a plugin or a library may raise; what the user raises with Ctrl-C is none of it.
Failure = Exception


def settings_of(base: Settings, trial: Trial) -> Settings:
    """The settings of a trial: those of the comparison, and on the same splits whatever the seed."""
    variant = trial.variant
    return replace(
        base,
        backbone=variant.backbone,
        pool=variant.pool,
        local_pool=variant.local_pool,
        seed=trial.seed,
        split_seed=base.seed if base.split_seed is None else base.split_seed,
    )


def train(base: Settings, trial: Trial, folder: Path) -> Record:
    """Trains a trial in its own run directory; one that was interrupted goes on, and failure is a record too."""
    place = folder / trial.key
    try:
        if not (place / manifest.MANIFEST).is_file():
            if (place / "run.toml").is_file():
                run.resume(place)
            else:
                shutil.rmtree(place, ignore_errors=True)
                folder.mkdir(parents=True, exist_ok=True)
                run.finetune(settings_of(base, trial), place)
        return finished(trial, place)
    except Failure as error:
        return failed(trial, error)


def train_heads(base: Settings, trials: Sequence[Trial], folder: Path) -> list[Record]:
    """Trains many poolings at once on one frozen backbone, from one seed; one that cannot be does not stop the others.

    Args:
        base: The settings of the comparison.
        trials: With the same backbone, local pooling and seed.
        folder: Where their run directories go, in one that they share.
    """
    from poolzoo.train.prepare import prepare_heads

    first = trials[0]
    pools = {trial.variant.pool: trial for trial in trials}
    parts = (first.variant.backbone, first.variant.local_pool or "own", f"seed{first.seed}", _digest(pools))
    place = folder / "-".join(map(files.slug, parts))
    settings = settings_of(base, first)
    records: list[Record] = []
    try:
        heads.finetune_heads(settings, list(pools), place)
    except Failure as error:
        if len(pools) == 1:
            return [failed(first, error)]
        for pool, trial in list(pools.items()):  # which of them is it?
            try:
                prepare_heads(settings, [pool])
            except Failure as reason:
                records.append(failed(trial, reason))
                del pools[pool]
        if not records:  # none by itself: train them one by one
            return [train_heads(base, [trial], folder)[0] for trial in trials]
        output.warn(f"without {', '.join(record['pool'] for record in records)}: {explain(error).message}")
        return [*records, *(train_heads(base, list(pools.values()), folder) if pools else [])]
    return [*records, *(finished(trial, place / files.slug(pool)) for pool, trial in pools.items())]


def _digest(pools: Iterable[str]) -> str:
    """Tells one set of heads from another: what was begun with more of them cannot be gone on with."""
    return hashlib.sha256("\n".join(sorted(pools)).encode()).hexdigest()[:6]


def _record(trial: Trial, status: str, **facts: Any) -> Record:
    variant = trial.variant
    parts = {"backbone": variant.backbone, "pool": variant.pool, "local_pool": variant.local_pool, "seed": trial.seed}
    return {"trial": trial.key, "status": status, **parts, **facts}


def finished(trial: Trial, place: Path) -> Record:
    """What to write of a run that has ended well.

    Raises:
        CheckFailed: It is damaged.
    """
    manifest.check(place, "run")
    found = files.read_json(place / "metrics.json")
    return _record(
        trial,
        "done",
        run=str(place),
        accuracy=found["test"]["accuracy"],
        f1=found["test"]["f1"],
        validation=found["val"]["accuracy"],
        seconds=found["seconds"],
    )


def failed(trial: Trial, error: BaseException) -> Record:
    """What to write of one that has not."""
    shown = explain(error)
    output.warn(f"{trial.variant.name}, seed {trial.seed}, failed: {shown.message}", shown.hint)
    return _record(trial, "failed", error=output.one_line(shown.message))
