"""Comparisons as blocks of a table, and the stratified bootstrap over them: resampled seeds and test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from poolzoo.compare.variance import SeedVariance, seed_variances

CHUNK: Final = 4_000_000  # weights of images held at a time
TRIM: Final = 0.25  # of each end, in the interquartile mean


@dataclass(frozen=True)
class Predictions:
    """Which test images are right, `bool[N]` by variant and seed; `images`, `uint64[N]`, says which images they are."""

    right: Mapping[str, Mapping[int, np.ndarray]]
    images: np.ndarray


@dataclass(frozen=True)
class Block:
    """One comparison in one backbone.

    Attributes:
        name: For messages and tables.
        test_set: Blocks with the same number share test images.
        accuracies: By variant and seed, fractions of 0–1.
        n_test: Number of test images.
        errors: The standard error of each variant's gain that its reported interval implies; used without predictions.
        predictions: None where they are not at hand.
    """

    name: str
    test_set: int
    accuracies: Mapping[str, Mapping[int, float]]
    n_test: int
    errors: Mapping[str, float]
    predictions: Predictions | None = None

    def mean(self, variant: str) -> float:
        """Mean accuracy over the seeds."""
        return float(np.mean(list(self.accuracies[variant].values())))

    def gain(self, variant: str, baseline: str) -> float:
        return self.mean(variant) - self.mean(baseline)

    def seed_variance(self, variant: str) -> SeedVariance:
        """Of the mean over the variant's seeds; estimated from all variants of the comparison."""
        one = self._seed_variances[variant]
        return replace(one, variance=one.variance / len(self.accuracies[variant]))

    @cached_property
    def _seed_variances(self) -> Mapping[str, SeedVariance]:
        return seed_variances(self.accuracies)


def weights(blocks: Sequence[Block]) -> np.ndarray:
    """The weight of each block: test sets count the same, and so do the blocks of one test set."""
    sets = [block.test_set for block in blocks]
    return np.array([1 / (len(set(sets)) * sets.count(one)) for one in sets])


@dataclass(frozen=True)
class Estimates:
    """The figures of the runs themselves."""

    iqm: float
    improvement: float
    error_ratio: float


@dataclass(frozen=True)
class Resampled:
    """The figures of one variant, and those of each resample, `float[B]`."""

    estimates: Estimates
    gain: np.ndarray
    iqm: np.ndarray
    improvement: np.ndarray
    error_ratio: np.ndarray


class Draws:
    """Accuracies of single runs under resampled images, and which seeds each resample draws."""

    def __init__(self, blocks: Sequence[Block], variants: Sequence[str], resamples: int, seed: int) -> None:
        self.blocks = blocks
        self._weights = weights(blocks)
        generator = np.random.default_rng(seed)
        self._runs = _resampled_runs(blocks, variants, resamples, generator)
        most = [max(len(block.accuracies[name]) for name in variants) for block in blocks]
        self._uniform = [generator.random((resamples, seeds)) for seeds in most]
        self._others = [generator.random((resamples, seeds)) for seeds in most]

    def image_variance(self, variant: str, baseline: str, weight: Mapping[int, float]) -> float:
        """The variance of an aggregated gain from resampled images alone, over the blocks that have a weight."""
        total: float | np.ndarray = 0.0
        for place, share in weight.items():
            if self.blocks[place].predictions is not None:
                runs = self._runs[place]
                total = total + share * (runs[variant].mean(0) - runs[baseline].mean(0))
        return float(np.var(total))

    def statistics(self, variant: str, baseline: str) -> Resampled:
        """The aggregates of a variant in every resample."""
        gains, scores, improvements, ratios = [], [], [], []
        known = _Known([], [], [])
        for number, (block, runs) in enumerate(zip(self.blocks, self._runs, strict=True)):
            ours, theirs = (_drawn(self._uniform[number], runs[name]) for name in (variant, baseline))
            gains.append(ours.mean(0) - theirs.mean(0))
            scores.append(_paired(ours, theirs))
            improvements.append(_improvement(ours, _drawn(self._others[number], runs[baseline])))
            half = 0.5 / block.n_test
            ratios.append(np.log(1 - ours.mean(0) + half) - np.log(1 - theirs.mean(0) + half))
            known.add(block, variant, baseline)
        over = self._weighted
        return Resampled(
            estimates=known.estimates(self._weights),
            gain=over(gains),
            iqm=interquartile_mean(np.concatenate(scores)),
            improvement=over(improvements),
            error_ratio=np.exp(over(ratios)),
        )

    def _weighted(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(self._weights @ np.stack(rows))


def _drawn(uniform: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """One seed fewer than there are, drawn with replacement: `float[S − 1, B]` of `float[S, 1 or B]`.

    Args:
        uniform: Random numbers `float[B, S or more]`. Variants with as many seeds draw the same ones from the same
            numbers, which keeps them paired.
        runs: The accuracies of single runs.
    """
    seeds = len(runs)
    chosen = (uniform[:, : max(1, seeds - 1)] * seeds).astype(int).T
    return np.take_along_axis(np.broadcast_to(runs, (seeds, len(uniform))), chosen, axis=0)


@dataclass(frozen=True)
class _Known:
    """Figures of the runs themselves, collected block by block."""

    scores: list[np.ndarray]
    improvements: list[float]
    ratios: list[float]

    def add(self, block: Block, variant: str, baseline: str) -> None:
        ours, theirs = (np.array(list(block.accuracies[name].values()))[:, None] for name in (variant, baseline))
        half = 0.5 / block.n_test
        self.scores.append(_paired(ours, theirs))
        self.improvements.append(float(_improvement(ours, theirs)[0]))
        self.ratios.append(float(np.log(1 - ours.mean() + half) - np.log(1 - theirs.mean() + half)))

    def estimates(self, weight: np.ndarray) -> Estimates:
        return Estimates(
            iqm=float(interquartile_mean(np.concatenate(self.scores))[0]),
            improvement=float(weight @ self.improvements),
            error_ratio=float(np.exp(weight @ self.ratios)),
        )


def _paired(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Gains of single runs, seed by seed; over the baseline's mean where it has another number of seeds."""
    return np.asarray(ours - (theirs if len(theirs) == len(ours) else theirs.mean(0)))


def _improvement(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """How often a run of ours is above one of theirs, ties counting half: `float[B]` of `float[S, B]`.

    The statistic of Mann and Whitney over S², as in Agarwal et al. (2021), section 4.3.
    """
    difference = np.round(ours[:, None] - theirs[None], 12)
    return np.asarray((0.5 + 0.5 * np.sign(difference)).mean((0, 1)))


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half along the first axis."""
    from scipy.stats import trim_mean

    return np.asarray(trim_mean(scores, TRIM, axis=0))


def _resampled_runs(
    blocks: Sequence[Block], variants: Sequence[str], resamples: int, generator: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    """For each block and variant the accuracy of each seed, `float[S, B]`, or `float[S, 1]` without predictions."""
    runs = [{name: np.array([[a] for a in block.accuracies[name].values()]) for name in variants} for block in blocks]
    for test_set in sorted({block.test_set for block in blocks}):
        known = [
            (place, block.predictions)
            for place, block in enumerate(blocks)
            if block.test_set == test_set and block.predictions is not None
        ]
        if not known:
            continue
        ids = np.unique(np.concatenate([found.images for _, found in known]))
        tables = [
            (place, np.searchsorted(ids, found.images), _table(found, blocks[place], variants))
            for place, found in known
        ]
        parts: list[list[np.ndarray]] = [[] for _ in tables]
        rows = max(1, CHUNK // len(ids))
        for start in range(0, resamples, rows):
            drawn = generator.poisson(1.0, (min(rows, resamples - start), len(ids))).astype(np.float32)
            for part, (_, columns, table) in zip(parts, tables, strict=True):
                own = drawn[:, columns]
                part.append(table @ own.T / np.maximum(own.sum(1), 1.0))
        for part, (place, _, _) in zip(parts, tables, strict=True):
            _split(np.hstack(part), runs[place], variants)
    return runs


def _table(found: Predictions, block: Block, variants: Sequence[str]) -> np.ndarray:
    """All runs of a block, `float32[R, N]`, in the order of the variants and of their seeds."""
    rows = [found.right[name][seed] for name in variants for seed in block.accuracies[name]]
    return np.stack(rows).astype(np.float32)


def _split(table: np.ndarray, runs: dict[str, np.ndarray], variants: Sequence[str]) -> None:
    """Gives each variant its rows of a table, in place."""
    start = 0
    for name in variants:
        count = len(runs[name])
        runs[name] = table[start : start + count].astype(float)
        start += count
