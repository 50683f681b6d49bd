"""A finished comparison of a choice, read as candidates: which of them may be recommended, in which order.

The winner's curse is that the best of several, chosen by the figure that is then reported, is on average worse than
that figure. Here the validation images choose among the variants that are significantly better, and the test images,
which no choice has seen, measure their difference. Its interval holds for all variants of the comparison at once, so
it holds for the chosen one, however it was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import numpy as np

from poolzoo.compare import resolution, table
from poolzoo.compare.choosing.plan import Planned
from poolzoo.compare.choosing.results import Candidate, ComparedRegime
from poolzoo.compare.grid import Trial, Variant
from poolzoo.compare.records import TrialRecord, TrialRecords
from poolzoo.compare.resolution import Design
from poolzoo.report.results import ComparisonResult, VariantResult


@dataclass(frozen=True)
class Finished:
    """One comparison with its trials.

    Attributes:
        planned: What was compared.
        result: Its `compare.json`.
        records: Its trials.
        folder: Its directory.
    """

    planned: Planned
    result: ComparisonResult
    records: TrialRecords
    folder: Path

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Those that may be recommended, the first choice first.

        Variants that are significantly worse, or that a race has stopped, are none.

        First come the variants that are significantly better than the baseline, by their validation accuracy, then the
        baseline, then those that do not differ from it beyond chance.
        """
        known = [(self._candidate(row), row) for row in self.result.results if row.done and row.stop is None]

        def place(pair: tuple[Candidate, VariantResult]) -> tuple[int, float]:
            candidate, row = pair
            better = row.delta is not None and row.delta.better
            return 0 if better else 1 if self._is_baseline(candidate.variant) else 2, -candidate.validation

        return [candidate for candidate, row in sorted(known, key=place) if row.delta is None or not row.delta.worse]

    @property
    def baseline(self) -> Candidate | None:
        """The baseline; None where it failed."""
        return next((one for one in self.candidates if self._is_baseline(one.variant)), None)

    def _is_baseline(self, variant: Variant) -> bool:
        return variant == self.planned.config.baseline_variant

    def _candidate(self, row: VariantResult) -> Candidate:
        variant = Variant(str(row.backbone), str(row.pool), row.local_pool)
        done = self.trials(variant)
        return Candidate(
            variant=variant,
            regime=self.planned.regime,
            accuracy=fmean(one.accuracy or 0.0 for one in done),
            validation=fmean(one.validation or 0.0 for one in done),
            seeds=len(done),
            delta=row.delta,
        )

    def trials(self, variant: Variant) -> list[TrialRecord]:
        """The finished trials of a variant."""
        return [self.records[one] for one in self._done(variant)]

    def _done(self, variant: Variant) -> list[Trial]:
        return [one for one in self.planned.config.trials if one.variant == variant and self.records.done(one)]

    def right(self, variant: Variant) -> Mapping[int, np.ndarray]:
        """Which test images each seed of a variant has right, `bool[N]`."""
        return {one.seed: table.correct(self.records[one].path) for one in self._done(variant)}

    @cached_property
    def images(self) -> int:
        """Number of test images; 0 without a finished trial."""
        done = [one for candidate in self.candidates for one in self.trials(candidate.variant)]
        return len(table.correct(done[0].path)) if done else 0

    @cached_property
    def detectable(self) -> float | None:
        """The difference that it finds with a power of 0.8, 0–1; None without two variants that share two seeds."""
        config = self.planned.config
        variants = [one for one in config.variants if self._done(one)]
        baseline = config.baseline_variant
        if baseline not in variants or len(variants) < 2:
            return None
        right = {one.name: self.right(one) for one in variants}
        found = resolution.components(right, baseline.name)
        if found is None:
            return None
        seeds = max(len(rows) for rows in right.values())  # of those that a race did not stop
        return Design.of(config, found.images, len(variants)).detectable(found, max(2, seeds))

    @property
    def left_out(self) -> list[str]:
        """What its time had no room for, in sentences."""
        return [f"{self.planned.title}: {line}" for line in self.result.left_out]

    def to_regime(self) -> ComparedRegime:
        """What the answer says of it."""
        config = self.planned.config
        return ComparedRegime(
            title=self.planned.title,
            regime=self.planned.regime,
            backbone=self.planned.backbone,
            directory=str(self.folder),
            epochs=config.settings.epochs,
            limit=config.settings.limit,
            seeds=config.seeds,
            alpha=config.alpha,
            baseline=config.baseline_variant.name,
            detectable=self.detectable,
            best=self.candidates[0] if self.candidates else None,
            conclusions=self.result.conclusions,
        )
