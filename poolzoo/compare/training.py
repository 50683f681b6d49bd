"""Trains trials of a comparison in this process; what a runner is, which may train them elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from poolzoo.compare import trial
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial
from poolzoo.compare.records import TrialRecord

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
