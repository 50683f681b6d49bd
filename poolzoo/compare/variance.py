"""How far a variant's accuracy moves from seed to seed, estimated from all variants together.

Two or three seeds say almost nothing about one variant's variance, but thirty variants say a lot about what such
variances are like. Smyth, Linear Models and Empirical Bayes Methods for Assessing Differential Expression, Statistical
Applications in Genetics and Molecular Biology 3(1), 2004, takes a variance s² with d degrees of freedom to be drawn as
σ² χ²(d) / d, and 1 / σ² from χ²(d₀) / (d₀ s₀²), with d₀ and s₀² the same for all. The posterior estimate of σ² is
`(d₀ s₀² + d s²) / (d₀ + d)`, with d₀ + d degrees of freedom: where the variances are alike, d₀ is large and they are
nearly pooled; where they are not, it is small and each is on its own.

Two limits make this more careful. d₀ is at most 8, since a few dozen estimates cannot tell alike from nearly alike. No
variance is taken for less than the variant's own. Where variances differ much, both keep false positives rarer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, log

import numpy as np
from scipy.special import polygamma, psi

MAX_PRIOR_DF = 8.0  # degrees of freedom that a variant may have from all
MIN_RATIO = 1e-5  # to the median variance, of the smallest whose logarithm is taken, as in Smyth's own program


@dataclass(frozen=True)
class SeedVariance:
    """The variance over seeds of a variant's accuracy, or of the difference of two; and its degrees of freedom.

    Attributes:
        variance: Of fractions, 0–1.
        own_df: Degrees of freedom from the variant's own seeds.
        prior_df: Degrees of freedom from all variants together, d₀.
        max_df: All that there are; it cannot have more.
    """

    variance: float
    own_df: float
    prior_df: float = 0.0
    max_df: float = inf

    @property
    def df(self) -> float:
        """Degrees of freedom in all."""
        return min(self.own_df + self.prior_df, self.max_df)

    def of_mean(self, seeds: int) -> SeedVariance:
        """The variance of the mean over so many seeds."""
        return replace(self, variance=self.variance / seeds)

    def __add__(self, other: SeedVariance) -> SeedVariance:
        """The variance of a difference, with the degrees of freedom of Satterthwaite, Biometrics Bulletin 2(6), 1946.

        Both have the prior's degrees of freedom. The sum has at most as many as with these counted once.
        """
        total = self.variance + other.variance
        largest = min(self.own_df + other.own_df + self.prior_df, self.max_df)
        if not total:
            return SeedVariance(0.0, largest)
        parts = self.variance**2 / self.df + other.variance**2 / other.df
        return SeedVariance(total, min(total**2 / parts, largest))


def seed_variances(accuracy: Mapping[str, Mapping[int, float]]) -> dict[str, SeedVariance]:
    """The variance over seeds of each variant's accuracy, without the effect that a seed has on all variants.

    Of two variants it is half the variance of their differences, so that their t-test is the paired one.

    Args:
        accuracy: By variant and seed.

    Returns:
        By variant; empty where no degree of freedom is left, which is so for one seed and for one variant.
    """
    residuals, df = _residuals(accuracy)
    squares = {name: float(np.square(residuals[name]).sum()) for name in accuracy}
    return {name: variance for name, variance in _shrunk(squares, df).items() if variance.own_df}


def own_seed_variances(accuracy: Mapping[str, Mapping[int, float]]) -> dict[str, SeedVariance]:
    """The same with the effect that a seed has on all variants, for differences of variants that share no seeds.

    Where all are affected alike, such a difference is smaller than these variances say, so that they are safe. They are
    for a few variants of which some have one seed. Such a variant has the prior's variance, with the prior's degrees of
    freedom. A few variances cannot tell d₀: it is 8, and s₀² the pooled variance.

    Args:
        accuracy: By variant and seed.

    Returns:
        By variant; empty where none has two seeds.
    """
    values = {name: np.array(list(of.values())) for name, of in accuracy.items()}
    squares = {name: float(np.square(_rounded(own - own.mean())).sum()) for name, own in values.items()}
    return _shrunk(squares, {name: len(own) - 1.0 for name, own in values.items()}, MAX_PRIOR_DF)


def _shrunk(
    squares: Mapping[str, float], df: Mapping[str, float], prior_df: float | None = None
) -> dict[str, SeedVariance]:
    """The posterior variances from the sums of squared residuals; empty where no degree of freedom is left."""
    known = [name for name in squares if df[name] > 1e-9]
    if not known:
        return {}
    d = np.array([df[name] for name in known])
    raw = np.array([squares[name] for name in known]) / d
    largest = float(d.sum())
    prior, scale = _prior(raw, d) if prior_df is None else (prior_df, float((raw * d).sum() / largest))
    shrunk = dict(zip(known, np.maximum((prior * scale + d * raw) / (prior + d), raw).tolist(), strict=True))
    return {
        name: SeedVariance(shrunk[name], float(df[name]), prior, largest)
        if name in shrunk
        else SeedVariance(scale, 0.0, prior, largest)
        for name in squares
    }


def _residuals(accuracy: Mapping[str, Mapping[int, float]]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Residuals of a fit of one mean for each variant and one for each seed, and the residual degrees of freedom.

    Those of a variant are the sum of 1 − h over its cells, h the leverage; their sum is that of the whole fit.
    """
    names = list(accuracy)
    seeds = sorted({seed for of in accuracy.values() for seed in of})
    cells = [(i, seeds.index(seed), value) for i, name in enumerate(names) for seed, value in accuracy[name].items()]
    design = np.zeros((len(cells), len(names) + len(seeds)))
    for row, (i, j, _) in enumerate(cells):
        design[row, i] = design[row, len(names) + j] = 1
    inverse = np.linalg.pinv(design)
    y = np.array([value for *_, value in cells])
    left = _rounded(y - design @ (inverse @ y))
    free = 1 - np.einsum("ij,ji->i", design, inverse)
    owner = np.array([i for i, *_ in cells])
    return (
        {name: left[owner == i] for i, name in enumerate(names)},
        {name: float(free[owner == i].sum()) for i, name in enumerate(names)},
    )


def _rounded(residuals: np.ndarray) -> np.ndarray:
    """Without the errors of rounding: accuracies are fractions of at most millions of images."""
    return np.where(np.abs(residuals) < 1e-12, 0.0, residuals)


def _prior(raw: np.ndarray, d: np.ndarray) -> tuple[float, float]:
    """d₀ and s₀², from the mean and variance of log s² (Smyth 2004, section 6.2)."""
    pooled = float((raw * d).sum() / d.sum())
    positive = raw[raw > 0]
    if len(positive) == 0 or len(raw) < 3:
        return MAX_PRIOR_DF, pooled
    e = np.log(np.maximum(raw, MIN_RATIO * np.median(positive))) - psi(d / 2) + np.log(d / 2)
    excess = float(e.var(ddof=1) - polygamma(1, d / 2).mean())
    if excess <= polygamma(1, MAX_PRIOR_DF / 2):  # the variances differ hardly more than by chance
        return MAX_PRIOR_DF, pooled
    from scipy.optimize import brentq

    half = brentq(lambda x: float(polygamma(1, x)) - excess, 1e-4, MAX_PRIOR_DF / 2)
    return 2 * half, float(np.exp(e.mean() + psi(half) - log(half)))
