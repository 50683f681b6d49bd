"""Gains over the baseline aggregated over comparisons, for the test sets at hand: estimates, tests, intervals.

Scores are gains in accuracy over the baseline of the same comparison, so that an easy data set and a hard one have the
same zero. Each test set counts the same, and so does each comparison on it. Agarwal et al., Deep Reinforcement Learning
at the Edge of the Statistical Precipice, NeurIPS 2021, is the source of what is aggregated and resampled: the mean, the
interquartile mean, the probability of improvement and their stratified bootstrap, in which comparisons are the strata.

Three points differ, because comparisons have three seeds rather than many, and test images that they may share:

* Of S seeds, S − 1 are drawn. S draws would have a variance too small by 1/S (Rao and Wu, Resampling Inference with
  Complex Survey Data, Journal of the American Statistical Association 83, 1988).
* Test images are resampled too. Comparisons that share images share their weights, which are Poisson with mean 1
  (Hanley and MacGibbon, Creating Non-parametric Bootstrap Samples Using Poisson Frequencies, Computer Methods and
  Programs in Biomedicine 83, 2006). Where the predictions are not at hand, the standard error of a gain is that of its
  reported interval; errors on the same test set are then added as if they were fully dependent. Resampling both errs
  on the wide side: residual variance counts up to three times (Owen, The Pigeonhole Bootstrap, Annals of Applied
  Statistics 1(2), 2007).
* The interval of a gain is the hull of the bootstrap's and those of two t-tests, as in `statistics`: against seed
  variance, and against seed and sampling variance together. p is the larger one of the two tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import stdtr, stdtrit

from poolzoo.compare.resampling import Block, Draws, weights
from poolzoo.compare.statistics import RESAMPLES, holm
from poolzoo.report.across_results import Interval
from poolzoo.report.results import Delta


@dataclass(frozen=True)
class Aggregate:
    """What is known of one variant over all blocks.

    Attributes:
        gain: Over the baseline, with p adjusted by Holm and the interval by Bonferroni. Its figures are None without
            two seeds in each comparison. `better` and `worse` say whether the adjusted p is below alpha.
        iqm: Interquartile mean of the gains of single runs.
        improvement: Probability that a run of the variant beats one of the baseline, the mean over comparisons.
        error_ratio: The geometric mean of its error over that of the baseline. Half an error is added to both.
        rests_on: The block without which a significant gain is not significant, at the same level with Bonferroni's
            correction; the one that leaves most doubt. None where there is none, or where there are but two blocks.
    """

    gain: Delta
    iqm: Interval
    improvement: Interval
    error_ratio: Interval
    rests_on: str | None = None


def aggregate(
    blocks: Sequence[Block],
    variants: Sequence[str],
    baseline: str,
    alpha: float = 0.05,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Aggregate]:
    """Every variant but the baseline over all blocks.

    Args:
        blocks: Each has all variants and the baseline, with one seed or more.
        variants: What is compared with the baseline.
        baseline: The variant whose gain is zero.
        alpha: The significance level of the tests; `1 − alpha` is that of the intervals.
        resamples: Of the stratified bootstrap.
        seed: Of the resampling.
    """
    draws = Draws(blocks, [*variants, baseline], resamples, seed)
    every = range(len(blocks))
    tests = {name: _Test.of(draws, name, baseline, every) for name in variants}
    p = {name: test.p for name, test in tests.items() if test is not None}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    found = {}
    for name in variants:
        runs = draws.statistics(name, baseline)
        test = tests[name]
        delta = Delta()
        if test is not None:
            level = alpha / len(p)
            low, high = _interval(runs.gain, level)
            half = test.half_width(level)
            delta = Delta(
                mean=test.mean,
                low=min(low, test.mean - half),
                high=max(high, test.mean + half),
                p=p[name],
                p_adjusted=adjusted[name],
                better=adjusted[name] < alpha and test.mean > 0,
                worse=adjusted[name] < alpha and test.mean < 0,
            )
        found[name] = Aggregate(
            gain=delta,
            iqm=Interval(runs.estimates.iqm, *_interval(runs.iqm, alpha)),
            improvement=Interval(runs.estimates.improvement, *_interval(runs.improvement, alpha)),
            error_ratio=Interval(runs.estimates.error_ratio, *_interval(runs.error_ratio, alpha)),
            rests_on=_rests_on(draws, name, baseline, alpha / len(p)) if delta.better or delta.worse else None,
        )
    return found


def _rests_on(draws: Draws, variant: str, baseline: str, alpha: float) -> str | None:
    blocks = draws.blocks
    doubts: dict[float, str] = {}
    for left_out in range(len(blocks)) if len(blocks) > 2 else ():
        test = _Test.of(draws, variant, baseline, [place for place in range(len(blocks)) if place != left_out])
        if test is not None:
            doubts.setdefault(test.p, blocks[left_out].name)
    most = max(doubts, default=0.0)
    return doubts[most] if most >= alpha else None


def _interval(draws: np.ndarray, alpha: float) -> tuple[float, float]:
    low, high = np.quantile(draws, (alpha / 2, 1 - alpha / 2))
    return float(low), float(high)


@dataclass(frozen=True)
class _Test:
    """The aggregated gain with its standard errors and degrees of freedom: from seeds, and from seeds and images."""

    mean: float
    seeds: float
    seeds_df: float
    both: float
    both_df: float

    @classmethod
    def of(cls, draws: Draws, variant: str, baseline: str, chosen: Sequence[int]) -> _Test | None:
        """The test over some of the blocks; None where one has too few common seeds, or no error of its gain."""
        blocks = [draws.blocks[place] for place in chosen]
        weight = weights(blocks)
        parts: list[tuple[float, float]] = []  # variance from seeds, and its degrees of freedom
        sampled: list[tuple[float, float]] = []  # those of the blocks with predictions
        reported: dict[int, float] = {}
        for block, w in zip(blocks, weight, strict=True):
            common = block.accuracies[variant].keys() & block.accuracies[baseline].keys()
            if len(common) < 2 or (block.predictions is None and variant not in block.errors):
                return None
            if _identical(block, variant, baseline):
                continue
            both = block.seed_variance(variant) + block.seed_variance(baseline)
            own = (w**2 * both.variance, both.df)
            parts.append(own)
            if block.predictions is None:
                reported[block.test_set] = reported.get(block.test_set, 0.0) + w * block.errors[variant]
            else:
                sampled.append(own)
        by_seeds, seeds_df = _satterthwaite(parts)
        from_seeds, df = _satterthwaite(sampled)
        images = draws.image_variance(variant, baseline, dict(zip(chosen, weight.tolist(), strict=True)))
        total = from_seeds + images + sum(error**2 for error in reported.values())
        return cls(
            mean=float(weight @ [block.gain(variant, baseline) for block in blocks]),
            seeds=sqrt(by_seeds),
            seeds_df=seeds_df,
            both=sqrt(total),
            both_df=df * (total / from_seeds) ** 2 if from_seeds else np.inf,
        )

    @property
    def p(self) -> float:
        """Two-sided, that the aggregated gain is zero; the larger of the two tests."""
        if self.mean == 0:
            return 1.0
        tests = [(self.seeds, self.seeds_df), (self.both, self.both_df)]
        found = [2 * float(stdtr(df, -abs(self.mean) / size)) for size, df in tests if size > 0]
        return max(found, default=1.0)

    def half_width(self, alpha: float) -> float:
        """Of the wider of the two intervals at level 1 − `alpha`."""
        tests = [(self.seeds, self.seeds_df), (self.both, self.both_df)]
        return max(float(-stdtrit(df, alpha / 2)) * size for size, df in tests)


def _identical(block: Block, variant: str, baseline: str) -> bool:
    """Whether two variants are the same function, such as `max` and a backbone's own maximum: they have no variance."""
    if block.accuracies[variant] != block.accuracies[baseline]:
        return False
    if block.predictions is None:
        return block.errors[variant] == 0
    right = block.predictions.right
    return all(np.array_equal(row, right[baseline][seed]) for seed, row in right[variant].items())


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """A sum of variances and its degrees of freedom: Satterthwaite, Biometrics Bulletin 2(6), 1946."""
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / df for variance, df in parts)
    return total, total**2 / spread if spread else np.inf
