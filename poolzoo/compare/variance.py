"""How far a variant's accuracy moves from seed to seed, estimated from all variants together.

Two or three seeds say almost nothing about one variant's variance, but thirty variants say a lot about what such
variances are like. Smyth, Linear Models and Empirical Bayes Methods for Assessing Differential Expression, Statistical
Applications in Genetics and Molecular Biology 3(1), 2004, takes a variance s² with d degrees of freedom to be drawn as
σ² χ²(d) / d, and 1 / σ² from χ²(d₀) / (d₀ s₀²), with d₀ and s₀² the same for all. What is then known of σ² is
`(d₀ s₀² + d s²) / (d₀ + d)`, with d₀ + d degrees of freedom: where the variances are alike, d₀ is large and they are
nearly pooled; where they are not, it is small and each is on its own.

Twice we are more careful than that. d₀ is at most 8, since a few dozen estimates cannot tell alike from nearly alike;
and no variance is taken for less than the variant's own. Where spreads differ much, that keeps false winners rarer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, log

import numpy as np
from scipy.optimize import brentq
from scipy.special import polygamma, psi

MOST_PRIOR = 8.0  # degrees of freedom that a variant may have from all
LEAST = 1e-5  # of the median variance: the least that a logarithm is taken of, as in Smyth's own program


@dataclass(frozen=True)
class Spread:
    """A variance, and what stands behind it.

    Attributes:
        variance: Of the accuracies of one variant, or of the differences of two.
        own: Degrees of freedom of its own.
        prior: Those that it has from all variants together, d₀.
        most: All that there are; it cannot have more.
    """

    variance: float
    own: float
    prior: float = 0.0
    most: float = inf

    @property
    def freedom(self) -> float:
        return min(self.own + self.prior, self.most)

    def __add__(self, other: Spread) -> Spread:
        """The variance of a difference, with the degrees of freedom of Satterthwaite, Biometrics Bulletin 2(6), 1946.

        They count what both have from all variants twice; so there are at most as many as with that counted once.
        """
        total, most = self.variance + other.variance, min(self.own + other.own + self.prior, self.most)
        if not total:
            return Spread(0.0, most)
        parts = self.variance**2 / self.freedom + other.variance**2 / other.freedom
        return Spread(total, min(total**2 / parts, most))


def between_seeds(accuracy: Mapping[str, Mapping[int, float]]) -> dict[str, Spread]:
    """For each variant the variance of its accuracy over seeds, what a seed does to all variants alike left out.

    Of two variants it is half the variance of their differences, so that their t-test is the paired one.

    Args:
        accuracy: By variant and seed.

    Returns:
        By variant; nothing where no seed is left to tell anything, which is so for one seed and for one variant.
    """
    residuals, freedom = _residuals(accuracy)
    known = [name for name in accuracy if freedom[name] > 1e-9]
    if not known:
        return {}
    d = np.array([freedom[name] for name in known])
    raw = np.array([float(np.square(residuals[name]).sum()) for name in known]) / d
    most = float(d.sum())  # all that there is to know
    prior, scale = _prior(raw, d)
    shrunk = np.maximum((prior * scale + d * raw) / (prior + d), raw)
    return {name: Spread(float(v), float(f), prior, most) for name, v, f in zip(known, shrunk, d, strict=True)}


def _residuals(accuracy: Mapping[str, Mapping[int, float]]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """What is left when a mean for each variant and one for each seed are fitted, and the degrees of freedom left.

    Those of a variant are the sum of 1 − h over its cells, h the leverage; all together have as many as the fit leaves.
    """
    names = list(accuracy)
    seeds = sorted({seed for of in accuracy.values() for seed in of})
    cells = [(i, seeds.index(seed), value) for i, name in enumerate(names) for seed, value in accuracy[name].items()]
    design = np.zeros((len(cells), len(names) + len(seeds)))
    for row, (i, j, _) in enumerate(cells):
        design[row, i] = design[row, len(names) + j] = 1
    inverse = np.linalg.pinv(design)
    y = np.array([value for *_, value in cells])
    left = y - design @ (inverse @ y)
    left[np.abs(left) < 1e-12] = 0.0  # rounding: accuracies are fractions of at most millions of images
    free = 1 - np.einsum("ij,ji->i", design, inverse)
    owner = np.array([i for i, *_ in cells])
    return (
        {name: left[owner == i] for i, name in enumerate(names)},
        {name: float(free[owner == i].sum()) for i, name in enumerate(names)},
    )


def _prior(raw: np.ndarray, d: np.ndarray) -> tuple[float, float]:
    """d₀ and s₀², from the mean and variance of log s² (Smyth 2004, section 6.2)."""
    pooled = float((raw * d).sum() / d.sum())
    positive = raw[raw > 0]
    if len(positive) == 0 or len(raw) < 3:
        return MOST_PRIOR, pooled
    e = np.log(np.maximum(raw, LEAST * np.median(positive))) - psi(d / 2) + np.log(d / 2)
    excess = float(e.var(ddof=1) - polygamma(1, d / 2).mean())
    if excess <= polygamma(1, MOST_PRIOR / 2):  # hardly more than chance has them differ
        return MOST_PRIOR, pooled
    half = brentq(lambda x: float(polygamma(1, x)) - excess, 1e-4, MOST_PRIOR / 2)
    return 2 * half, float(np.exp(e.mean() + psi(half) - log(half)))
