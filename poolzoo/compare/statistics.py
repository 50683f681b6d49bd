"""Which variants differ beyond the luck of training and the luck of the test images, and by how much.

A variant is a pooling in a backbone, trained from S seeds and tested on the same N images as all others. Two of them
are compared by a table of seeds × images: 1 where only the first is right, −1 where only the second is, else 0. Its
mean is the difference of their accuracies, and three questions are put to it:

* seeds: is it beyond the luck of training? A t-test over the seeds' means, whose variance is learnt from all variants
  (`spread`); of two variants it is the paired one.
* images: is it beyond the luck of the test set? The bootstrap over images; all variants and seeds share the resamples.
* both: is it beyond the two together? The t-test on the sum of both variances. They add up in what new seeds and new
  images would give, so that a difference can be past either one and still be luck.

The reported p is the largest of the three, the interval the hull of the three. Accuracies are fractions, 0–1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import ceil, sqrt
from typing import Any, Final

import numpy as np
from scipy.special import nctdtrinc, stdtr, stdtrit

from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare.variance import Spread, between_seeds

RESAMPLES: Final = 9_999  # the smallest p is one over this plus one
POWER: Final = 0.8  # the customary share of repetitions in which a difference is to be seen
CHUNK: Final = 4_000_000  # numbers held at a time while resampling: 32 MB


@dataclass(frozen=True)
class Error:
    """A standard error, and the degrees of freedom that it was estimated with."""

    size: float
    freedom: float


@dataclass(frozen=True)
class Estimate:
    """The mean over a table of seeds × images, and how far luck may have moved it.

    The table is a sample from two crossed sources without repetition, for which the analysis of variance gives the
    variance of the mean: that of the seeds' means, plus that of the images' means, minus that of what is left, which
    the other two hold both. Its degrees of freedom are those of Satterthwaite, An Approximate Distribution of Estimates
    of Variance Components, Biometrics Bulletin 2(6), 1946.

    Args:
        totals: `int[S]`, the sum over images for each seed.
        products: `int[S, S]`, the sum over images of the products of two seeds' rows.
        moved: `float[B]`, by how much each resample of the images changes the mean.
        images: N.
        difference: Whether the table is one of differences, whose mean may be zero by hypothesis.
        between: What is known of the variance of the seeds' means from elsewhere; None for what this table tells.
    """

    totals: np.ndarray
    products: np.ndarray
    moved: np.ndarray
    images: int
    difference: bool
    between: Spread | None = None

    @property
    def seeds(self) -> int:
        return len(self.totals)

    @property
    def mean(self) -> float:
        return int(self.totals.sum()) / (self.seeds * self.images)

    @property
    def sd(self) -> float | None:
        """Of the seeds' means, with S − 1 below the line; None for one seed."""
        return float((self.totals / self.images).std(ddof=1)) if self.seeds > 1 else None

    @cached_property
    def errors(self) -> tuple[Error, Error]:
        """For two seeds and more: the standard errors of the mean from seeds, and from both.

        Differences that are the same for every seed of every variant leave the t-test without a spread. They get that
        of one seed's difference if each of the n images that only one of two equal networks has right fell to either
        by a coin's toss: `sqrt(n) / N`, as in McNemar's test. It is zero only where the variants agree on every image.
        """
        s, n = self.seeds, self.images
        cells = s * n
        whole = int(self.totals.sum()) ** 2 / cells
        by_seed = int((self.totals**2).sum()) / n - whole
        by_image = int(self.products.sum()) / s - whole
        left = int(self.products.trace()) - whole - by_seed - by_image
        seeds, images, rest = by_seed / (s - 1), by_image / (n - 1), left / ((s - 1) * (n - 1))
        freedom = s - 1.0
        if self.between is not None:
            seeds, freedom = n * self.between.variance, self.between.freedom
        if self.difference and (seeds == 0 or not self.products.any()):
            seeds = int(self.products.trace()) / (s * n)
        both = max(seeds, images, seeds + images - rest)
        spread = seeds**2 / freedom + images**2 / (n - 1) + rest**2 / ((s - 1) * (n - 1))
        return (
            Error(sqrt(seeds / cells), freedom),
            Error(sqrt(both / cells), both**2 / spread if spread else float(n - 1)),
        )

    @property
    def p(self) -> float:
        """Two-sided, that the mean is zero, from two seeds and more: the largest of the three."""
        if self.mean == 0:
            return 1.0
        size = abs(self.mean)
        by_images = (1 + np.count_nonzero(np.abs(self.moved) >= size)) / (1 + len(self.moved))
        return float(max(by_images, *(2 * stdtr(e.freedom, -size / e.size) for e in self.errors)))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The hull of the three at level 1 − `alpha`; of one seed's accuracy that over images alone."""
        low, high = (float(x) for x in self.mean + np.quantile(self.moved, (alpha / 2, 1 - alpha / 2)))
        if not self.difference and self.mean == 1:  # no resample has an error: Clopper and Pearson, Biometrika 26, 1934
            low = (alpha / 2) ** (1 / self.images)
        if not self.difference and self.mean == 0:
            high = 1 - (alpha / 2) ** (1 / self.images)
        if self.seeds > 1:
            half = max(float(-stdtrit(e.freedom, alpha / 2) * e.size) for e in self.errors)
            low, high = min(low, self.mean - half), max(high, self.mean + half)
        return (low, high) if self.difference else (max(low, 0.0), min(high, 1.0))


class Evidence:
    """What every variant got right, reduced to sums that are whole numbers and so do not depend on any order."""

    def __init__(self, right: Mapping[str, Mapping[int, np.ndarray]], resamples: int, seed: int) -> None:
        self.seeds = {name: sorted(right[name]) for name in sorted(right)}
        keys = [(name, s) for name, seeds in self.seeds.items() for s in seeds]
        self._row = {key: i for i, key in enumerate(keys)}
        # Sums of zeros and ones are exact in float32 up to 2²⁴ images, and its matrix product is the fast one.
        table = np.stack([right[name][s] for name, s in keys]).astype(np.float32)
        self.images = table.shape[1]
        self._products = (table @ table.T).astype(np.int64)
        self._totals = table.sum(1, dtype=np.int64)
        shares = self._totals / self.images
        self._spread = between_seeds({n: {s: shares[self._row[n, s]] for s in of} for n, of in self.seeds.items()})
        self._drawn = np.hstack([table @ w.T for w in _weights(self.images, resamples, seed)]) - self._totals[:, None]

    def accuracy(self, name: str) -> Estimate:
        """The mean over the variant's seeds."""
        rows = [self._row[name, s] for s in self.seeds[name]]
        moved = self._drawn[rows].sum(0) / (len(rows) * self.images)
        return Estimate(self._totals[rows], self._products[rows][:, rows], moved, self.images, False)

    def difference(self, first: str, second: str) -> Estimate | None:
        """`first` minus `second` over the seeds that both have; None where these are fewer than two."""
        common = [s for s in self.seeds[first] if (second, s) in self._row]
        if len(common) < 2:
            return None
        a, b = ([self._row[name, s] for s in common] for name in (first, second))
        half = self._products[a] - self._products[b]
        products = half[:, a] - half[:, b]
        moved = (self._drawn[a] - self._drawn[b]).sum(0) / (len(common) * self.images)
        between = self._spread[first] + self._spread[second]
        return Estimate(self._totals[a] - self._totals[b], products, moved, self.images, True, between)


def _weights(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is drawn in each resample, `float32[chunk, N]` at a time."""
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // images)
    for start in range(0, resamples, rows):
        n = min(rows, resamples - start)
        drawn = generator.integers(images, size=(n, images)) + images * np.arange(n)[:, None]
        yield np.bincount(drawn.ravel(), minlength=n * images).reshape(n, images).astype(np.float32)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p that keep the chance of any false finding in the family below the level they are held against.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6(2), 1979.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted.tolist()


def detectable_difference(estimates: Sequence[Estimate], alpha: float) -> float | None:
    """The smallest true difference of a middling variant that 80 % of repetitions with as many seeds and images find.

    `max(δ · seeds, (z(1 − α/2m) + z(0.8)) · both)`: `seeds` and `both` are the standard errors of a difference, medians
    over the m comparisons, z the normal quantile, and δ the non-centrality with which a t-test with the median of their
    degrees of freedom passes its critical value t(1 − α/2m) in 80 %. The level α/m is that of Holm's first step, so
    that later ones find a little more. None where nothing was compared or no variant differs on any image.
    """
    if not estimates:
        return None
    level = alpha / len(estimates) / 2
    seeds, both = (float(np.median([e.errors[i].size for e in estimates])) for i in (0, 1))
    freedom = float(np.median([e.errors[0].freedom for e in estimates]))
    by_seeds = nctdtrinc(freedom, 1 - POWER, -stdtrit(freedom, level)) * seeds
    by_both = (-stdtrit(np.inf, level) + stdtrit(np.inf, POWER)) * both
    return float(max(by_seeds, by_both)) or None


def compare(
    right: Mapping[str, Mapping[int, np.ndarray]],
    baseline: str,
    alpha: float = 0.05,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracies, differences from the baseline and ranks of variants that were trained and tested alike.

    Args:
        right: For each variant the seeds it was trained from, at least one, and for each seed `bool[N]`: which of the
            test images it has right. Seeds pair the variants, so a seed that failed is left out.
        baseline: The variant that the others are compared with.
        alpha: The level of the tests; `1 − alpha` is that of the intervals.
        resamples: Of the images; by default enough that the smallest p is half of what the strictest test asks for.
        seed: Of the resampling.

    Returns:
        What can be written as JSON, the same for any order of `right`: `baseline`, `alpha`, `images`, `resamples`,
        `comparisons` (how many the family of the baseline holds), `seeds` (the least number two compared variants have
        in common, or None), `detectable` (see `detectable_difference`), `groups` (the names for each rank), and
        `variants`, the best first, each with

        * `accuracy`: `mean`, `sd` over `n` seeds, and `low` to `high` at `1 − alpha`, not adjusted; with one seed `sd`
          is None and the interval is that of this one trained network over images.
        * `delta`, None for the baseline: `mean` over common seeds, `p`, `p_adjusted` by Holm over the family, `better`
          and `worse` where that is below alpha, and `low` to `high`, by Bonferroni: with probability `1 − alpha` all
          the family's intervals hold. With fewer than two common seeds, all figures are None and the family is smaller.
        * `rank`: 1 plus the number of variants that are significantly better, by Holm over all pairs. That family is
          larger, so a variant may be better than the baseline and share its rank.

    Raises:
        UsageError: `baseline` is not among the variants.
        CheckFailed: Variants were not tested on the same images, on fewer than two, or one has no seed.
    """
    if baseline not in right:
        raise UsageError(f"no variant is named {baseline!r}", f"name one of {', '.join(sorted(right))}")
    if empty := sorted(name for name in right if not right[name]):
        raise CheckFailed(f"{empty[0]} has no seed that finished", "leave it out, or train it again")
    sizes = sorted({len(row) for rows in right.values() for row in rows.values()})
    if len(sizes) > 1 or sizes[0] < 2:
        counts = " and ".join(map(str, sizes))
        raise CheckFailed(f"the variants were tested on {counts} images", "compare on the same images, two or more")
    pairs = list(combinations(sorted(right), 2))
    resamples = resamples or max(RESAMPLES, ceil(2 * len(pairs) / alpha))
    evidence = Evidence(right, resamples, seed)

    compared = {name: evidence.difference(name, baseline) for name in evidence.seeds if name != baseline}
    family = {name: estimate for name, estimate in compared.items() if estimate}
    p = {name: estimate.p for name, estimate in family.items()}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    accuracies = {name: evidence.accuracy(name) for name in evidence.seeds}
    beaten_by = _beaten_by(evidence, pairs, alpha)

    variants: dict[str, dict[str, Any]] = {}
    for name in sorted(right, key=lambda name: (-accuracies[name].mean, name)):
        own = accuracies[name]
        delta: dict[str, Any] | None = None
        if name in family:
            low, high = family[name].interval(alpha / len(family))
            mean, found = family[name].mean, adjusted[name] < alpha
            delta = {"mean": mean, "low": low, "high": high, "p": p[name], "p_adjusted": adjusted[name]}
            delta |= {"better": found and mean > 0, "worse": found and mean < 0}
        elif name != baseline:
            delta = dict.fromkeys(("mean", "low", "high", "p", "p_adjusted")) | {"better": False, "worse": False}
        low, high = own.interval(alpha)
        figures = {"mean": own.mean, "sd": own.sd, "n": own.seeds, "low": low, "high": high}
        variants[name] = {"accuracy": figures, "delta": delta, "rank": 1 + beaten_by[name]}
    ranks = sorted({variant["rank"] for variant in variants.values()})
    return {
        "baseline": baseline,
        "alpha": alpha,
        "images": evidence.images,
        "resamples": resamples,
        "comparisons": len(family),
        "seeds": min((estimate.seeds for estimate in family.values()), default=None),
        "detectable": detectable_difference(list(family.values()), alpha),
        "groups": [[name for name, variant in variants.items() if variant["rank"] == rank] for rank in ranks],
        "variants": variants,
    }


def _beaten_by(evidence: Evidence, pairs: Sequence[tuple[str, str]], alpha: float) -> dict[str, int]:
    """For each variant the number of others that are significantly better, by Holm over all pairs."""
    tested = [(a, b, e.mean, e.p) for a, b in pairs if (e := evidence.difference(a, b))]
    count = dict.fromkeys(evidence.seeds, 0)
    for (a, b, mean, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        if p < alpha:
            count[b if mean > 0 else a] += 1
    return count


def verdict(comparison: Mapping[str, Any]) -> list[str]:
    """What `compare` found, in sentences; differences in points, hundredths of the accuracy."""
    baseline, alpha = comparison["baseline"], comparison["alpha"]
    deltas = {name: v["delta"] for name, v in comparison["variants"].items() if v["delta"]}
    lines = []
    for key, verb, sign in (("better", "beats", 1), ("worse", "is worse than", -1)):
        for name, d in deltas.items():
            if d[key]:
                size, *ends = (
                    100 * sign * x for x in (d["mean"], *sorted((d["low"], d["high"]), key=lambda x: sign * x))
                )
                p = "p < 0.001" if d["p_adjusted"] < 0.001 else f"p = {d['p_adjusted']:.3f}"
                interval = f"{ends[0]:.2f} to {ends[1]:.2f}"
                lines.append(f"{name} {verb} {baseline} by {size:.2f} points ({interval}, adjusted {p}).")
        if key == "better" and not lines:
            lines.append(f"Nothing beats {baseline} beyond the luck of training and of the test images.")
    if untested := [name for name, d in deltas.items() if d["p"] is None]:
        lines.append(f"Too few seeds to tell from {baseline}, two in common are needed: {', '.join(untested)}.")
    if comparison["detectable"]:
        m, s, n = (comparison[key] for key in ("comparisons", "seeds", "images"))
        seen = f"a true difference of {100 * comparison['detectable']:.2f} points is seen in {POWER:.0%} of repetitions"
        if comparison["detectable"] >= 1:
            seen = "no true difference is sure to be seen"
        lines.append(f"With {s} seeds, {n} images and {m} comparison{'s' * (m > 1)}, {seen} at level {alpha:g}.")
    return lines
