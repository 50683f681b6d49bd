"""Trials whose results are planted: a runner for comparisons that trains nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial
from poolzoo.compare.records import TrialRecord
from poolzoo.train.settings import Settings

TEMPLATE = Path(__file__).parents[1] / "data/earlier/comparison/trials/nano-plain-avg-none-cb392c-seed0"
READ = ("metrics.json", "metrics.jsonl", "env.json", "config.json")  # what a table is made from, beside predictions


def config(pools: str, seeds: int = 3, **changes: object) -> ComparisonConfig:
    """A comparison on the digits, with a backbone that is quickly assembled."""
    plain = ComparisonConfig(
        pools=pools,
        local_pools=None,
        backbones="nano/plain",
        seeds=seeds,
        baseline=None,
        robustness_samples=0,
        export_top=0,
        alpha=0.05,
        settings=Settings(data="digits", limit=60, epochs=1, threads=1),
    )
    return replace(plain, **changes)


class Planted:
    """A runner. Networks draw which images they have right, by themselves for each variant and seed.

    Args:
        gains: By how much the expected accuracy of a variant, by its name, is above that of the others, a fraction.
        images: Number of test images.
        before: Called with each trial before it is "trained"; what it raises ends the comparison, as a kill does.
        failing: Names and seeds of the trials that fail.
        costs: Seconds that trials of a variant train, by its name; 10 for others.
    """

    def __init__(
        self,
        gains: dict[str, float],
        images: int = 1000,
        before: Callable[[Trial], None] = lambda trial: None,
        failing: Sequence[tuple[str, int]] = (),
        costs: Mapping[str, float] | None = None,
    ) -> None:
        self.gains, self.images, self.before, self.failing = gains, images, before, failing
        self.costs = costs or {}
        self.trained: list[tuple[str, int]] = []

    def right(self, trial: Trial) -> np.ndarray:
        ease = np.random.default_rng(1).permutation(np.linspace(0.35, 1.05, self.images))
        own = np.random.default_rng([len(trial.key), *trial.key.encode()])
        gain = self.gains.get(trial.variant.name, 0.0)
        return own.random(self.images) < ease + gain + own.normal(0, 0.002)

    def __call__(
        self, config: ComparisonConfig, trials: Sequence[Trial], folder: Path
    ) -> Iterator[Sequence[TrialRecord]]:
        for one in trials:
            self.before(one)
            self.trained.append((one.variant.name, one.seed))
            if (one.variant.name, one.seed) in self.failing:
                yield [replace(TrialRecord.of(one, "failed"), error="no more")]
            else:
                yield [self._finished(one, folder / one.key)]

    def _finished(self, one: Trial, place: Path) -> TrialRecord:
        place.mkdir(parents=True, exist_ok=True)
        for name in READ:
            shutil.copy(TEMPLATE / name, place / name)
        right = self.right(one)
        np.savez(place / "predictions.npz", predicted=1 - right.astype(int), labels=np.zeros(len(right), int))
        found = json.loads((place / "metrics.json").read_text())
        found["test"]["accuracy"] = float(right.mean())
        (place / "metrics.json").write_text(json.dumps(found))
        record = TrialRecord.of(one, "done")
        accuracy, seconds = float(right.mean()), self.costs.get(one.variant.name, 10.0)
        return replace(record, run=str(place), accuracy=accuracy, f1=accuracy, seconds=seconds)
