"""Trains one trial, or the heads of many poolings on one frozen backbone; an interrupted one is resumed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from poolzoo.artifacts import manifest
from poolzoo.common import files, json_reader, output
from poolzoo.common.errors import disk_full, explain
from poolzoo.common.text import one_line
from poolzoo.compare.grid import Trial
from poolzoo.compare.records import TrialRecord
from poolzoo.train.settings import Settings


def settings_of(base: Settings, trial: Trial) -> Settings:
    """The settings of a trial: those of the comparison, with the same data splits for every seed."""
    variant = trial.variant
    return replace(
        base,
        backbone=variant.backbone,
        pool=variant.pool,
        local_pool=variant.local_pool,
        seed=trial.seed,
        split_seed=base.seed if base.split_seed is None else base.split_seed,
    )


def train(base: Settings, trial: Trial, folder: Path) -> TrialRecord:
    """Trains a trial in its own run directory, or resumes it there. A failure is a record too.

    Args:
        base: The settings of the comparison.
        trial: What to train.
        folder: Where its run directory is.
    """
    from poolzoo.train import run

    place = folder / trial.key
    try:
        if not files.has_file(place / manifest.MANIFEST):
            if files.has_file(place / "run.toml"):
                run.resume(place, alone=False)
            else:
                shutil.rmtree(place, ignore_errors=True)
                folder.mkdir(parents=True, exist_ok=True)
                run.finetune(settings_of(base, trial), place, alone=False)
        return finished(trial, place)
    except Exception as error:
        if disk_full(error) is not None:  # the next trial would fail as well
            raise
        return failed(trial, error)


def train_heads(base: Settings, trials: Sequence[Trial], folder: Path) -> list[TrialRecord]:
    """Trains many poolings together on one frozen backbone, from one seed. One that fails does not stop the others.

    Args:
        base: The settings of the comparison.
        trials: With the same backbone, local pooling and seed.
        folder: Where their run directories go, in one that they share.
    """
    from poolzoo.train import heads
    from poolzoo.train.prepare import prepare_heads

    first = trials[0]
    pools = {trial.variant.pool: trial for trial in trials}
    parts = (first.variant.backbone, first.variant.local_pool or "own", f"seed{first.seed}", _digest(pools))
    place = folder / "-".join(map(files.slug, parts))
    settings = settings_of(base, first)
    records: list[TrialRecord] = []
    try:
        heads.finetune_heads(settings, list(pools), place)
    except Exception as error:
        if disk_full(error) is not None:
            raise
        if len(pools) == 1 or isinstance(error, OSError):  # which no head is to blame for
            return [failed(trial, error) for trial in pools.values()]
        for pool, trial in list(pools.items()):  # which of them is it?
            try:
                prepare_heads(settings, [pool])
            except Exception as reason:
                records.append(failed(trial, reason))
                del pools[pool]
        if not records:  # none by itself: train them one by one
            return [train_heads(base, [trial], folder)[0] for trial in trials]
        output.warn(f"without {', '.join(record.pool for record in records)}: {explain(error).message}")
        return [*records, *(train_heads(base, list(pools.values()), folder) if pools else [])]
    return [*records, *(finished(trial, place / files.slug(pool)) for pool, trial in pools.items())]


def _digest(pools: Iterable[str]) -> str:
    """A hash of the set of heads: training that was started with other heads cannot be resumed."""
    return hashlib.sha256("\n".join(sorted(pools)).encode()).hexdigest()[:6]


def finished(trial: Trial, place: Path) -> TrialRecord:
    """The record of a finished run.

    Raises:
        CheckFailed: It is damaged.
    """
    manifest.check(place, "run")
    found = json_reader.mapping(files.read_json(place / "metrics.json"))
    test, validation = json_reader.mapping(found.get("test")), json_reader.mapping(found.get("val"))
    return replace(
        TrialRecord.of(trial, "done"),
        run=str(place),
        accuracy=json_reader.number(test.get("accuracy")),
        f1=json_reader.number(test.get("f1")),
        validation=json_reader.number(validation.get("accuracy")),
        seconds=json_reader.number(found.get("seconds")),
    )


def failed(trial: Trial, error: BaseException) -> TrialRecord:
    """The record of a trial that failed; a warning says why."""
    shown = explain(error)
    output.warn(f"{trial.variant.name}, seed {trial.seed}, failed: {shown.message}", shown.hint)
    return replace(TrialRecord.of(trial, "failed"), error=one_line(shown.message))
