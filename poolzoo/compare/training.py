"""Trains the trials of a comparison that are not done yet, in this process or wherever a runner takes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from poolzoo.common import output
from poolzoo.compare import trial
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial
from poolzoo.compare.records import TrialRecord, TrialRecords

# Trains trials in run directories under a folder, and yields the records of those that ended together.
Runner = Callable[[ComparisonConfig, Sequence[Trial], Path], Iterator[Sequence[TrialRecord]]]


def run_local(config: ComparisonConfig, trials: Sequence[Trial], folder: Path) -> Iterator[Sequence[TrialRecord]]:
    """Trains trials one after the other in this process; the heads of a frozen backbone together."""
    if config.settings.freeze != "backbone":
        for one in trials:
            yield [trial.train(config.settings, one, folder)]
        return
    for group in group_by_backbone(trials):
        yield trial.train_heads(config.settings, group, folder)


def group_by_backbone(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials on the same frozen backbone from the same seed, whose heads are trained together."""

    def key(one: Trial) -> tuple[str, str, int]:
        return one.variant.backbone, one.variant.local_pool or "", one.seed

    return [list(group) for _, group in groupby(sorted(trials, key=key), key)]


def train_remaining(config: ComparisonConfig, records: TrialRecords, folder: Path, runner: Runner) -> None:
    """Trains what is not done yet, and reports progress on stderr after every trial."""
    remaining = [one for one in config.trials if not records.done(one)]
    total, start = len(config.trials), time.monotonic()
    if len(remaining) < total:
        output.say(f"{total - len(remaining)} of {total} trials are done already")
    ended, count = runner(config, remaining, folder), 0
    while count < len(remaining):
        with output.quiet():
            finished = next(ended)
        count += len(finished)
        eta = _duration((time.monotonic() - start) / count * (len(remaining) - count))
        for number, record in enumerate(finished, total - len(remaining) + count - len(finished) + 1):
            records.add(record)
            output.say(f"trial {number}/{total}  {_progress(record)}  {eta} left")


def _progress(record: TrialRecord) -> str:
    name = f"{record.pool} + {record.local_pool}" if record.local_pool else record.pool
    outcome = f"accuracy {record.accuracy:.4f}" if record.done else "failed"
    return f"{record.backbone}  {name}  seed {record.seed}  {outcome}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
