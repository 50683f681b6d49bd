"""Which variants differ beyond seed variance and sampling variance, and by how much.

A variant is a pooling in a backbone, trained from S seeds and tested on the same N images as all others. Two of them
are compared by a table of seeds × images: 1 where only the first is right, −1 where only the second is, else 0. Its
mean is the difference of their accuracies. Three tests ask whether that is zero:

* seeds: against seed variance. A t-test over the seeds' means, whose variance is estimated from all variants
  (`variance`); of two variants it is the paired one.
* images: against sampling variance, that of the test set. The bootstrap over images; all variants and seeds share the
  resamples.
* both: against the sum of both variances, by a t-test. New seeds and new images would vary together, so a difference
  can pass either test alone and still be chance.

The reported p is the largest of the three, the interval the hull of the three. Accuracies are fractions, 0–1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import ceil
from typing import Final

import numpy as np
from scipy.special import nctdtrinc, stdtrit

from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare.estimates import Correctness, Estimate
from poolzoo.compare.racing import Stopped
from poolzoo.report.results import Accuracy, Delta

RESAMPLES: Final = 9_999  # the smallest p is one over this plus one
POWER: Final = 0.8  # of the detectable difference; the customary value


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p that control the family-wise error rate.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6(2), 1979.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted.tolist()


def detectable_difference(estimates: Sequence[Estimate], alpha: float) -> float | None:
    """The smallest true difference of a median variant that is found with power 0.8 from as many seeds and images.

    `max(δ · seeds, (z(1 − α/2m) + z(0.8)) · both)`: `seeds` and `both` are the standard errors of a difference, medians
    over the m comparisons, and z is the normal quantile. δ is the non-centrality with which a t-test with the median of
    their degrees of freedom passes its critical value t(1 − α/2m) with that power. The level α/m is that of Holm's
    first step, so later steps find a little more. None where nothing was compared or no variant differs on any image.
    """
    if not estimates:
        return None
    seeds, both = (float(np.median([e.errors[i].size for e in estimates])) for i in (0, 1))
    df = float(np.median([e.errors[0].df for e in estimates]))
    return detectable(seeds, both, df, alpha / len(estimates)) or None


def detectable(seeds: float, both: float, df: float, level: float) -> float:
    """The difference that is found with power 0.8; see `detectable_difference`.

    Args:
        seeds: Standard error of a difference from seed variance.
        both: Its standard error from both variances.
        df: Degrees of freedom of `seeds`.
        level: Two-sided level of the test.
    """
    by_seeds = nctdtrinc(df, 1 - POWER, -stdtrit(df, level / 2)) * seeds
    return float(max(by_seeds, normal_factor(level) * both))


def normal_factor(level: float) -> float:
    """How many standard errors a difference must be to pass a normal test at a two-sided level with power 0.8."""
    return float(stdtrit(np.inf, POWER) - stdtrit(np.inf, level / 2))


@dataclass(frozen=True)
class VariantStatistics:
    """What the statistics say of one variant.

    Attributes:
        accuracy: Mean and standard deviation over its seeds, and the interval at `1 − alpha`, not adjusted. For one
            seed, the interval is that of this one network over images.
        delta: The difference from the baseline over common seeds; None for the baseline. p is adjusted by Holm's
            method over the family, the interval by Bonferroni's: with probability `1 − alpha` all of the family hold.
            Without two common seeds, its figures are None and the family is smaller.
        rank: 1 plus the number of variants that are significantly better, by Holm over all pairs. That family is
            larger, so a variant may be better than the baseline and share its rank.
    """

    accuracy: Accuracy
    delta: Delta | None
    rank: int


@dataclass(frozen=True)
class Statistics:
    """What `compare` found, the same for any order of its input.

    Attributes:
        baseline, alpha: As they were given.
        images: N.
        resamples: Of the images.
        comparisons: Number of variants that were tested against the baseline after the last seed.
        seeds: The least number of seeds that two compared variants have in common; None without a comparison.
        detectable: See `detectable_difference`.
        groups: The names for each rank.
        variants: By name, the best first.
    """

    baseline: str
    alpha: float
    images: int
    resamples: int
    comparisons: int
    seeds: int | None
    detectable: float | None
    groups: Sequence[Sequence[str]]
    variants: Mapping[str, VariantStatistics]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def compare(
    right: Mapping[str, Mapping[int, np.ndarray]],
    baseline: str,
    alpha: float = 0.05,
    resamples: int | None = None,
    seed: int = 0,
    stopped: Mapping[str, Stopped] | None = None,
    level: float | None = None,
) -> Statistics:
    """Accuracies, differences from the baseline and ranks of variants that were trained and tested alike.

    Args:
        right: For each variant the seeds it was trained from, at least one, and for each seed `bool[N]`: which of the
            test images it has right. Seeds pair the variants, so a seed that failed is left out.
        baseline: The variant that the others are compared with.
        alpha: The significance level of the tests; `1 − alpha` is that of the intervals.
        resamples: Of the images; by default enough that the smallest p is half of what the strictest test asks for.
        seed: Of the resampling.
        stopped: The variants that a race has stopped, which are not tested again. Those whose difference from the
            baseline the race has left open remain in the family, as if their p were 1.
        level: The part of alpha that a race has left for these tests; all of it by default. Adjusted p are scaled by
            alpha over it, so that they too are compared with alpha.

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
    stopped, level = stopped or {}, alpha if level is None else level
    pairs = list(combinations(sorted(set(right) - set(stopped)), 2))
    resamples = resamples or max(RESAMPLES, ceil(2 * len(pairs) / level))
    table = Correctness(right, resamples, seed)

    tested = {name: table.difference(name, baseline) for name in table.seeds if name not in (baseline, *stopped)}
    family = {name: estimate for name, estimate in tested.items() if estimate}
    left_open = sum(not one.decided for one in stopped.values())
    deltas = {name: Delta() for name in tested}
    deltas |= _deltas(family, alpha, level, left_open) | {name: one.delta for name, one in stopped.items()}
    better_ones = _count_better(table, pairs, level)
    better_ones |= {name: len(one.stop.worse_than) for name, one in stopped.items()}
    better_ones[baseline] += sum(one.delta.better for one in stopped.values())
    accuracies = {name: table.accuracy(name) for name in table.seeds}
    variants = {
        name: VariantStatistics(_accuracy(accuracies[name], alpha), deltas.get(name), 1 + better_ones[name])
        for name in sorted(right, key=lambda name: (-accuracies[name].mean, name))
    }
    ranks = sorted({variant.rank for variant in variants.values()})
    return Statistics(
        baseline=baseline,
        alpha=alpha,
        images=table.images,
        resamples=resamples,
        comparisons=len(family),
        seeds=min((estimate.seeds for estimate in family.values()), default=None),
        detectable=detectable_difference(list(family.values()), level),
        groups=[[name for name, variant in variants.items() if variant.rank == rank] for rank in ranks],
        variants=variants,
    )


def _accuracy(estimate: Estimate, alpha: float) -> Accuracy:
    low, high = estimate.interval(alpha)
    return Accuracy(mean=estimate.mean, sd=estimate.sd, n=estimate.seeds, low=low, high=high)


def _deltas(family: Mapping[str, Estimate], alpha: float, level: float, left_open: int) -> dict[str, Delta]:
    """The tests of a family of differences from the baseline, to which some belong that are left open."""
    p = {name: estimate.p for name, estimate in family.items()}
    of_all = [min(1.0, one * alpha / level) for one in holm([*p.values(), *[1.0] * left_open])]
    adjusted = dict(zip(p, of_all, strict=False))
    found = {}
    for name, estimate in family.items():
        low, high = estimate.interval(level / (len(family) + left_open))
        significant = adjusted[name] < alpha
        found[name] = Delta(
            mean=estimate.mean,
            low=low,
            high=high,
            p=p[name],
            p_adjusted=adjusted[name],
            better=significant and estimate.mean > 0,
            worse=significant and estimate.mean < 0,
        )
    return found


def _count_better(table: Correctness, pairs: Sequence[tuple[str, str]], alpha: float) -> dict[str, int]:
    """For each variant the number of others that are significantly better, by Holm over all pairs."""
    tested = [(a, b, e.mean, e.p) for a, b in pairs if (e := table.difference(a, b))]
    count = dict.fromkeys(table.seeds, 0)
    for (a, b, mean, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        if p < alpha:
            count[b if mean > 0 else a] += 1
    return count
