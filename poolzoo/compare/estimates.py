"""Means over tables of seeds × images, their standard errors, p-values and intervals; what `statistics` tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Final

import numpy as np
from scipy.special import stdtr, stdtrit

from poolzoo.compare.variance import SeedVariance, seed_variances

CHUNK: Final = 4_000_000  # numbers held at a time while resampling: 32 MB


@dataclass(frozen=True)
class StandardError:
    """A standard error, and the degrees of freedom of its estimate."""

    size: float
    df: float


@dataclass(frozen=True)
class MeanSquares:
    """The analysis of variance of a table of seeds × images: mean squares of the seeds, the images and the rest.

    Attributes:
        seeds: Of one cell; the variance of a seed's mean times the number of images.
        images: Of one cell; the variance of an image's mean times the number of seeds.
        rest: The residual variance of one cell.
        df: Degrees of freedom of `seeds`.
    """

    seeds: float
    images: float
    rest: float
    df: float


@dataclass(frozen=True)
class Estimate:
    """The mean over a table of seeds × images, with its standard errors.

    The table has two crossed random factors without repetition. The analysis of variance gives the variance of its
    mean: that of the seeds' means, plus that of the images' means, minus the residual variance, which both contain.
    Its degrees of freedom are those of Satterthwaite, An Approximate Distribution of Estimates of Variance Components,
    Biometrics Bulletin 2(6), 1946.

    Args:
        totals: `int[S]`, the sum over images for each seed.
        products: `int[S, S]`, the sum over images of the products of two seeds' rows.
        deviations: `float[B]`, by how much each bootstrap resample of the images changes the mean.
        images: N.
        difference: Whether the table is one of differences, whose mean is zero under the null hypothesis.
        seed_variance: That of the seeds' means, where all variants tell it; None for the table's own.
    """

    totals: np.ndarray
    products: np.ndarray
    deviations: np.ndarray
    images: int
    difference: bool
    seed_variance: SeedVariance | None = None

    @property
    def seeds(self) -> int:
        return len(self.totals)

    @property
    def mean(self) -> float:
        return int(self.totals.sum()) / (self.seeds * self.images)

    @property
    def sd(self) -> float | None:
        """Standard deviation of the seeds' means, with S − 1 degrees of freedom; None for one seed."""
        return float((self.totals / self.images).std(ddof=1)) if self.seeds > 1 else None

    @cached_property
    def mean_squares(self) -> MeanSquares:
        """For two seeds and more: what the standard errors are made of.

        Differences that are the same for every seed of every variant have no seed variance. They get that of McNemar's
        test for one seed: `n / N`, n the number of images that only one of the two has right. It is zero only where
        the variants agree on every image.
        """
        s, n = self.seeds, self.images
        whole = int(self.totals.sum()) ** 2 / (s * n)
        by_seed = int((self.totals**2).sum()) / n - whole
        by_image = int(self.products.sum()) / s - whole
        residual = int(self.products.trace()) - whole - by_seed - by_image
        seeds, images, rest = by_seed / (s - 1), by_image / (n - 1), residual / ((s - 1) * (n - 1))
        df = s - 1.0
        if self.seed_variance is not None:
            seeds, df = n * self.seed_variance.variance, self.seed_variance.df
        if self.difference and (seeds == 0 or not self.products.any()):
            seeds = int(self.products.trace()) / (s * n)
        return MeanSquares(seeds, images, rest, df)

    @cached_property
    def errors(self) -> tuple[StandardError, StandardError]:
        """For two seeds and more: the standard errors of the mean from seed variance, and from both variances."""
        s, n = self.seeds, self.images
        cells = s * n
        found = self.mean_squares
        seeds, images, rest, df = found.seeds, found.images, found.rest, found.df
        both = max(seeds, images, seeds + images - rest)
        parts = seeds**2 / df + images**2 / (n - 1) + rest**2 / ((s - 1) * (n - 1))
        return (
            StandardError(sqrt(seeds / cells), df),
            StandardError(sqrt(both / cells), both**2 / parts if parts else float(n - 1)),
        )

    @property
    def p(self) -> float:
        """Two-sided, that the mean is zero, from two seeds and more: the largest of the three."""
        if self.mean == 0:
            return 1.0
        size = abs(self.mean)
        by_images = (1 + np.count_nonzero(np.abs(self.deviations) >= size)) / (1 + len(self.deviations))
        return float(max(by_images, *(2 * stdtr(e.df, -size / e.size) for e in self.errors)))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The hull of the three intervals at level 1 − `alpha`; for one seed, the bootstrap interval alone."""
        low, high = (float(x) for x in self.mean + np.quantile(self.deviations, (alpha / 2, 1 - alpha / 2)))
        if not self.difference and self.mean == 1:  # no resample has an error: Clopper and Pearson, Biometrika 26, 1934
            low = (alpha / 2) ** (1 / self.images)
        if not self.difference and self.mean == 0:
            high = 1 - (alpha / 2) ** (1 / self.images)
        if self.seeds > 1:
            half = max(float(-stdtrit(e.df, alpha / 2) * e.size) for e in self.errors)
            low, high = min(low, self.mean - half), max(high, self.mean + half)
        return (low, high) if self.difference else (max(low, 0.0), min(high, 1.0))


class Correctness:
    """Which images every variant has right, reduced to integer sums, which do not depend on any order.

    Args:
        right: For each variant and seed, `bool[N]`.
        resamples: Number of bootstrap resamples of the images.
        seed: Of the resampling.
    """

    def __init__(self, right: Mapping[str, Mapping[int, np.ndarray]], resamples: int, seed: int) -> None:
        self.seeds = {name: sorted(right[name]) for name in sorted(right)}
        keys = [(name, s) for name, seeds in self.seeds.items() for s in seeds]
        self._row = {key: i for i, key in enumerate(keys)}
        # Sums of zeros and ones are exact in float32 up to 2²⁴ images, and its matrix product is the fast one.
        table = np.stack([right[name][s] for name, s in keys]).astype(np.float32)
        self.images = table.shape[1]
        self._products = (table @ table.T).astype(np.int64)
        self._totals = table.sum(1, dtype=np.int64)
        accuracies = self._totals / self.images
        self._seed_variances = seed_variances(
            {name: {s: accuracies[self._row[name, s]] for s in seeds} for name, seeds in self.seeds.items()}
        )
        self._deviations = (
            np.hstack([table @ w.T for w in _weights(self.images, resamples, seed)]) - self._totals[:, None]
        )

    def accuracy(self, name: str) -> Estimate:
        """The mean over the variant's seeds."""
        rows = [self._row[name, s] for s in self.seeds[name]]
        deviations = self._deviations[rows].sum(0) / (len(rows) * self.images)
        return Estimate(self._totals[rows], self._products[rows][:, rows], deviations, self.images, False)

    def difference(self, first: str, second: str) -> Estimate | None:
        """`first` minus `second` over the seeds that both have; None where these are fewer than two."""
        common = [s for s in self.seeds[first] if (second, s) in self._row]
        if len(common) < 2:
            return None
        a, b = ([self._row[name, s] for s in common] for name in (first, second))
        rows = self._products[a] - self._products[b]
        products = rows[:, a] - rows[:, b]
        deviations = (self._deviations[a] - self._deviations[b]).sum(0) / (len(common) * self.images)
        variance = self._seed_variances[first] + self._seed_variances[second]
        return Estimate(self._totals[a] - self._totals[b], products, deviations, self.images, True, variance)


def _weights(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is drawn in each resample, `float32[chunk, N]` at a time."""
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // images)
    for start in range(0, resamples, rows):
        n = min(rows, resamples - start)
        drawn = generator.integers(images, size=(n, images)) + images * np.arange(n)[:, None]
        yield np.bincount(drawn.ravel(), minlength=n * images).reshape(n, images).astype(np.float32)
