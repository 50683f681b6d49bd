"""The smallest difference that seeds × images can show, from variance components, and how many seeds one needs.

A table of differences between two variants, seeds × images, has three variance components: σ²ₛ of the seeds, σ²ᵢ of the
images, and σ²ᵣ of one cell, the residual. S seeds and N images give the standard errors of the mean difference
`√(σ²ₛ/S + σ²ᵣ/(S·N))` from seed variance, and `√(σ²ₛ/S + σ²ᵢ/N + σ²ᵣ/(S·N))` from both. More seeds leave `√(σ²ᵢ/N)`:
the test images bound what can be seen. From the standard errors on, the computation is that of a finished comparison
(`statistics.detectable`). Accuracies are fractions, 0–1. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import chdtri

from poolzoo.common import json_reader
from poolzoo.compare import statistics
from poolzoo.compare.estimates import Correctness
from poolzoo.compare.racing import verdict_level
from poolzoo.compare.variance import MAX_PRIOR_DF, SeedVariance, seed_variances

if TYPE_CHECKING:
    from poolzoo.compare.config import ComparisonConfig

COVERAGE: Final = 0.8  # of the range around a predicted resolution, from how well the seed variance is known
MOST_IMAGES: Final = 10**8  # test images that are worth a mention
# Share of the test images on which only one of two variants is right: that of most pairs in
# docs/results/leaderboard.md, from heads on one frozen backbone to networks trained from scratch.
DISAGREEMENT: Final = (0.05, 0.30)


@dataclass(frozen=True)
class VarianceComponents:
    """Variance components of a difference between two variants.

    Attributes:
        seed: σ²ₛ, what training again changes in the difference of the accuracies.
        image: σ²ᵢ, by how much images differ in which of the two finds them easier.
        residual: σ²ᵣ of one seed on one image.
        images: Number of test images that they were estimated from.
        df: Degrees of freedom of the seed variance.
        prior_df: Those that variants have in common, d₀ of `variance`.
    """

    seed: float
    image: float
    residual: float
    images: int
    df: float
    prior_df: float = MAX_PRIOR_DF

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> VarianceComponents | None:
        """Reads what `to_json` gave; None where a number is missing."""
        found = json_reader.mapping(value)
        numbers = [json_reader.number(found.get(name)) for name in ("seed", "image", "residual", "df", "prior_df")]
        known = [number for number in numbers if number is not None and number >= 0]
        images = json_reader.integer(found.get("images"))
        if len(known) < len(numbers) or not images or known[3] <= 0:
            return None
        seed, image, residual, df, prior_df = known
        return cls(seed=seed, image=image, residual=residual, images=images, df=df, prior_df=prior_df)

    @property
    def disagreement(self) -> float:
        """Share of the images on which only one of two alike variants is right."""
        return self.seed + self.image + self.residual

    def scaled(self, ratio: float) -> VarianceComponents:
        """The components if the variance of a seed's mean were `ratio` times as large as it was estimated."""
        noise = self.residual / self.images
        return replace(self, seed=max(0.0, ratio * (self.seed + noise) - noise))

    @property
    def range(self) -> tuple[VarianceComponents, VarianceComponents]:
        """The least and the most that the seed variance may be: the ends of its 80 % interval."""
        tail = (1 - COVERAGE) / 2
        return self.scaled(self.df / chdtri(self.df, tail)), self.scaled(self.df / chdtri(self.df, 1 - tail))


def components(right: Mapping[str, Mapping[int, np.ndarray]], baseline: str) -> VarianceComponents | None:
    """The medians, over the differences from the baseline, of their variance components.

    Args:
        right: As for `statistics.compare`.
        baseline: The variant that the others are compared with.

    Returns:
        None without a variant that has two seeds in common with the baseline.
    """
    table = Correctness(right, resamples=1, seed=0)
    differences = [table.difference(name, baseline) for name in table.seeds if name != baseline]
    squares = [(one.mean_squares, one.seeds) for one in differences if one is not None]
    if not squares:
        return None
    n = table.images
    accuracies = {name: {s: float(row.mean()) for s, row in rows.items()} for name, rows in right.items()}
    priors = [one.prior_df for one in seed_variances(accuracies).values()]
    return VarianceComponents(
        seed=float(np.median([max(0.0, one.seeds - one.rest) / n for one, _ in squares])),
        image=float(np.median([max(0.0, one.images - one.rest) / s for one, s in squares])),
        residual=float(np.median([one.rest for one, _ in squares])),
        images=n,
        df=float(np.median([one.df for one, _ in squares])),
        prior_df=priors[0] if priors else MAX_PRIOR_DF,
    )


def pooled(found: Sequence[VarianceComponents]) -> VarianceComponents:
    """Components of several comparisons as one: means, weighted by the degrees of freedom, which add up."""
    weights = [one.df for one in found]

    def mean(values: Sequence[float]) -> float:
        return float(np.average(values, weights=weights))

    return VarianceComponents(
        seed=mean([one.seed for one in found]),
        image=mean([one.image for one in found]),
        residual=mean([one.residual for one in found]),
        images=min(one.images for one in found),
        df=sum(weights),
        prior_df=mean([one.prior_df for one in found]),
    )


def assumed(images: int) -> tuple[VarianceComponents, VarianceComponents]:
    """The least and the most where nothing is known, from the two ends of `DISAGREEMENT`.

    At the low end every seed disagrees on other images, so that seeds help as much as they can. At the high end all
    seeds disagree on the same ones, so that they do not help, as in McNemar's test. Neither has seed variance beyond
    that.
    """
    low, high = DISAGREEMENT
    best = VarianceComponents(seed=0.0, image=0.0, residual=low, images=images, df=1.0)
    return best, VarianceComponents(seed=0.0, image=high, residual=0.0, images=images, df=1.0)


@dataclass(frozen=True)
class Design:
    """A comparison as its statistics see it.

    Attributes:
        images: N.
        variants: Those of one backbone, the baseline among them.
        alpha: The level of the tests.
    """

    images: int
    variants: int
    alpha: float

    @classmethod
    def of(cls, config: ComparisonConfig, images: int, variants: int) -> Design:
        """That of the variants of one backbone; a race leaves a part of alpha for the last tests."""
        races = config.race and config.seeds > 1
        return cls(images, variants, verdict_level(config.alpha, config.seeds) if races else config.alpha)

    @property
    def comparisons(self) -> int:
        """Number of variants that are compared with the baseline, the family."""
        return self.variants - 1

    @property
    def level(self) -> float:
        """The level of the strictest test of the family."""
        return self.alpha / max(1, self.comparisons)

    def detectable(self, found: VarianceComponents, seeds: int) -> float:
        """The detectable difference that so many seeds are expected to end with; 1 or more where they show none.

        Args:
            found: The variance components.
            seeds: Two or more.
        """
        noise = found.residual / self.images
        df = _df(found, seeds, self.variants)
        by_seeds = sqrt((found.seed + noise) / seeds)
        both = sqrt((found.seed + noise) / seeds + found.image / self.images)
        return statistics.detectable(by_seeds, both, df, self.level)

    def bound(self, found: VarianceComponents) -> float:
        """The detectable difference that more and more seeds approach."""
        return statistics.normal_factor(self.level) * sqrt(found.image / self.images)

    def seeds(self, found: VarianceComponents, wanted: float, most: int) -> int | None:
        """The fewest seeds, of two to `most`, that show a difference; None where so many do not."""
        # It does not rise with the number of seeds: both standard errors fall, and so does the factor of the t-test.
        low, high = 2, most
        if self.detectable(found, high) > wanted:
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.detectable(found, middle) <= wanted else (middle + 1, high)
        return low

    def images_for(self, found: VarianceComponents, wanted: float, seeds: int) -> int | None:
        """The fewest test images with which so many seeds show a difference; None where no number of images does."""
        low, high = 2, MOST_IMAGES
        if replace(self, images=high).detectable(found, seeds) > wanted:
            return None
        while low < high:
            middle = (low + high) // 2
            enough = replace(self, images=middle).detectable(found, seeds) <= wanted
            low, high = (low, middle) if enough else (middle + 1, high)
        return _rounded_up(low)


def _df(found: VarianceComponents, seeds: int, variants: int) -> float:
    """Degrees of freedom of the seed variance of a difference, where all variants have so many seeds."""
    most = float((seeds - 1) * (variants - 1))
    one = SeedVariance(1.0, most / variants, found.prior_df, most)
    return (one + one).df


def _rounded_up(count: int) -> int:
    """With two significant digits, since it is an estimate."""
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return ceil(count / unit) * unit
