"""Ranks of variants over data sets, and whether they would be the same on other data: Friedman, Nemenyi, Wilcoxon.

Here a test set is one observation, as in Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets,
Journal of Machine Learning Research 7, 2006. Two variants are compared by Wilcoxon's signed-rank test with Holm's
correction. Nemenyi's critical difference is given beside it, for readers who know it. It does not decide: whether it
separates two variants depends on which others are in the table (Benavoli, Corani and Mangili, Should We Really Use
Post-Hoc Tests Based on Mean-Ranks?, Journal of Machine Learning Research 17(5), 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import sqrt
from typing import Final

import numpy as np
from scipy import stats

from poolzoo.compare.statistics import holm

PERMUTATIONS: Final = 9_999  # the smallest p of Friedman's test is one over this plus one
DIGITS: Final = 12  # of a score: two that differ by rounding alone are a tie


def ranks(scores: np.ndarray) -> np.ndarray:
    """The rank of each variant on each test set, 1 for the highest score; ties share the mean of their ranks.

    Args:
        scores: `float[T, V]`, test sets × variants.
    """
    return np.asarray(stats.rankdata(-np.round(scores, DIGITS), axis=1))


def friedman(scores: np.ndarray, seed: int = 0) -> float:
    """The p-value that variants keep their order over test sets no more than by chance.

    Friedman, The Use of Ranks to Avoid the Assumption of Normality, Journal of the American Statistical Association 32,
    1937. The chi-squared distribution of the statistic needs many test sets. Here ranks are permuted within test sets.

    Args:
        scores: `float[T, V]`.
        seed: Of the permutations.
    """
    observed = ranks(scores)
    found = np.square(observed.sum(0)).sum()
    generator = np.random.default_rng(seed)
    as_large = 0
    for count in (PERMUTATIONS // 9,) * 9:  # a ninth at a time holds less memory
        permuted = generator.permuted(np.broadcast_to(observed, (count, *observed.shape)), axis=2)
        as_large += int((np.square(permuted.sum(1)).sum(1) >= found - 1e-9).sum())
    return (1 + as_large) / (1 + PERMUTATIONS)


def critical_difference(variants: int, test_sets: int, alpha: float) -> float:
    """Nemenyi's critical difference of average ranks: `q(alpha) · sqrt(V (V + 1) / (6 T))`.

    Nemenyi, Distribution-free Multiple Comparisons, PhD thesis, Princeton, 1963, as in Demšar (2006), section 3.2.2.
    q is the quantile of the studentized range for V groups and infinitely many degrees of freedom over `sqrt(2)`.
    """
    q = stats.studentized_range.ppf(1 - alpha, variants, np.inf) / sqrt(2)
    return float(q * sqrt(variants * (variants + 1) / (6 * test_sets)))


def signed_rank(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, exact for any number of test sets, with ties too.

    Wilcoxon, Individual Comparisons by Ranking Methods, Biometrics Bulletin 1(6), 1945. Differences of zero are left
    out; where fewer than two are left, p is 1. The distribution of the rank sum is built one rank at a time. Each has
    either sign with probability 1/2; ranks are doubled, so that shared ones are whole numbers.

    Args:
        differences: One a test set.
    """
    left = np.round(np.asarray(differences, dtype=float), DIGITS)
    left = left[left != 0]
    if len(left) < 2:  # a single one has either sign with the same probability
        return 1.0
    doubled = np.rint(2 * stats.rankdata(np.abs(left))).astype(int)
    total = int(doubled.sum())
    chance = np.zeros(total + 1)
    chance[0] = 1
    for rank in doubled:
        chance[rank:] += chance[:-rank].copy()
        chance /= 2
    distance = abs(2 * int(doubled[left > 0].sum()) - total)
    return min(1.0, float(chance[abs(2 * np.arange(total + 1) - total) >= distance].sum()))


def smallest_p(test_sets: int) -> float:
    """The smallest two-sided p that the signed-rank test has: all differences have the same sign."""
    return min(1.0, 2.0 ** (1 - test_sets))


def needed_test_sets(comparisons: int, alpha: float) -> int:
    """The fewest test sets with which Holm's first step over some comparisons can pass at all."""
    needed = 1
    while comparisons * smallest_p(needed) >= alpha:
        needed += 1
    return needed


def pairwise(scores: np.ndarray) -> np.ndarray:
    """p of all pairs of variants by the signed-rank test, adjusted by Holm's method: `float[V, V]`, 1 on the diagonal.

    Args:
        scores: `float[T, V]`.
    """
    variants = scores.shape[1]
    pairs = list(combinations(range(variants), 2))
    adjusted = np.ones((variants, variants))
    if len(pairs) * smallest_p(len(scores)) < 1:  # else each is 1 after its correction
        p = holm([signed_rank(scores[:, i] - scores[:, j]) for i, j in pairs])
        for (i, j), value in zip(pairs, p, strict=True):
            adjusted[i, j] = adjusted[j, i] = value
    return adjusted


def cliques(order: Sequence[int], p: np.ndarray, alpha: float) -> list[tuple[int, int]]:
    """The longest stretches of a ranking within which no two variants differ: first and last place, from 0.

    Args:
        order: The variants by their average rank.
        p: As of `pairwise`.
        alpha: Significance level.
    """
    found: list[tuple[int, int]] = []
    for first in range(len(order)):
        last = first
        while last + 1 < len(order) and all(p[order[i], order[last + 1]] >= alpha for i in range(first, last + 1)):
            last += 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
