"""The variance between seeds against the paired test, the analysis of variance and a likelihood."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from poolzoo.compare.statistics import compare
from poolzoo.compare.variance import SeedVariance, seed_variances


def accuracies(values: np.ndarray) -> dict[str, dict[int, float]]:
    """Variants × seeds as the function takes them."""
    return {f"v{i}": {s: float(x) for s, x in enumerate(row)} for i, row in enumerate(values)}


def test_of_two_variants_it_is_the_paired_variance() -> None:
    values = np.random.default_rng(0).normal(0.9, 0.01, (2, 5))
    values[1] += np.array([0.1, -0.1, 0.2, 0.0, 0.05])  # a seed effect that both have, and more
    values[0] += np.array([0.1, -0.1, 0.2, 0.0, 0.05])
    found = seed_variances(accuracies(values))
    both = found["v0"] + found["v1"]
    assert both.variance == pytest.approx(np.var(values[1] - values[0], ddof=1), rel=1e-9)
    assert both.df == pytest.approx(4)


def test_alike_variances_are_pooled_as_in_the_analysis_of_variance() -> None:
    """The residual mean square of variants × seeds, by hand; the spreads are exactly alike, so that d₀ is the most."""
    pattern = np.array([[-1.0, 0.0, 1.0], [1.0, -1.0, 0.0], [0.0, 1.0, -1.0]] * 4)
    values = 0.5 + 0.01 * pattern + np.arange(12)[:, None] / 100
    residuals = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    found = seed_variances(accuracies(values))
    assert [one.variance for one in found.values()] == pytest.approx([(residuals**2).sum() / (11 * 2)] * 12)
    assert [one.df for one in found.values()] == pytest.approx([8 + 22 / 12] * 12)


@pytest.mark.parametrize(("prior", "seeds"), [(4.0, 6), (2.5, 4)])
def test_prior_is_that_of_the_likelihood(prior: float, seeds: int) -> None:
    """Variances are drawn as the model says; s² / s₀² is then F(d, d₀), whose likelihood gives d₀ and s₀² otherwise."""
    rng, n = np.random.default_rng(1), 500
    variance = 1e-4 * prior / rng.chisquare(prior, n)
    values = 0.8 + rng.normal(0, 1, (n, seeds)) * np.sqrt(variance)[:, None]
    d = (seeds - 1) * (n - 1) / n
    raw = ((values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()) ** 2).sum(1) / d

    def unlikely(x: np.ndarray) -> float:
        return -float(stats.f.logpdf(raw / np.exp(x[1]), d, np.exp(x[0])).sum() - n * x[1])

    best = optimize.minimize(unlikely, [np.log(5), np.log(1e-4)], method="Nelder-Mead").x
    found = seed_variances(accuracies(values))
    assert next(iter(found.values())).prior_df == pytest.approx(np.exp(best[0]), rel=0.3)
    d0, s0 = np.exp(best)
    shrunk = np.maximum((d0 * s0 + d * raw) / (d0 + d), raw)
    assert [one.variance for one in found.values()] == pytest.approx(shrunk, rel=0.2)


def test_missing_seeds_leave_the_fit_of_the_others() -> None:
    """One seed that one variant lacks: residuals by least squares, solved by scipy."""
    rng = np.random.default_rng(2)
    table = accuracies(rng.normal(0.7, 0.02, (4, 3)))
    del table["v2"][1]
    cells = [(i, s, x) for i, of in enumerate(table.values()) for s, x in of.items()]
    design = np.zeros((len(cells), 4 + 2))  # the last seed is the one that the others are measured from
    for row, (i, s, _) in enumerate(cells):
        design[row, i] = 1
        if s < 2:
            design[row, 4 + s] = 1
    y = np.array([x for *_, x in cells])
    _, squares, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    assert rank == 6
    found = seed_variances(table)
    assert sum(one.own_df for one in found.values()) == pytest.approx(len(cells) - 6)
    assert {one.max_df for one in found.values()} == {sum(one.own_df for one in found.values())}
    assert found["v2"].own_df < found["v0"].own_df == pytest.approx(found["v3"].own_df)
    # Four variances differ by no more than chance: s₀² is the pooled one, and none is less than its own.
    pooled = squares[0] / (len(cells) - 6)
    assert all(one.variance > 8 * pooled / (8 + one.own_df) for one in found.values())
    assert any(one.variance < pooled for one in found.values())


def test_variants_that_never_move_have_no_variance() -> None:
    found = seed_variances(accuracies(np.array([[0.5, 0.5, 0.5], [1.0, 1.0, 1.0], [0.2, 0.2, 0.2]])))
    assert {one.variance for one in found.values()} == {0.0}
    assert seed_variances({"only": {0: 0.5, 1: 0.6}}) == {}
    assert seed_variances({"a": {0: 0.5}, "b": {0: 0.6}}) == {}


def test_sum_of_two_has_the_degrees_of_freedom_of_welch() -> None:
    a, b = np.random.default_rng(3).normal(0, 1, 6), np.random.default_rng(4).normal(0, 4, 6)
    total = SeedVariance(a.var(ddof=1) / 6, 5) + SeedVariance(b.var(ddof=1) / 6, 5)
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert total.df == pytest.approx(welch.df)
    assert (SeedVariance(0, 2) + SeedVariance(0, 3)).variance == 0


def experiment(rng: np.random.Generator, gain: np.ndarray, sd: np.ndarray, images: int) -> dict:
    """Variants of given gain and spread from three seeds, on images of which some are hard."""
    ease = np.where(rng.random(images) < 0.2, 0.4, 0.9)
    moved = gain[:, None] + rng.normal(0, 1, (len(gain), 3)) * sd[:, None] + rng.normal(0, 0.01, 3)
    right = {f"v{i}": {s: rng.random(images) < ease + off for s, off in enumerate(row)} for i, row in enumerate(moved)}
    return compare(right, "v0", resamples=1999).variants


def test_three_seeds_of_twenty_eight_find_three_points() -> None:
    """Nearly always; the t-test of each pair alone, with two degrees of freedom at α / 27, would find none."""
    rng, found = np.random.default_rng(5), 0
    for _ in range(10):
        variants = experiment(rng, 0.03 * (np.arange(28) == 7), np.full(28, 0.003), 5000)
        found += variants["v7"].delta.better
    assert found >= 7


@pytest.mark.parametrize("repetitions", [40, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("uneven", [0.0, 0.5])
def test_equal_variants_of_uneven_variance_seldom_differ(uneven: float, repetitions: int) -> None:
    """The spread of a network's accuracy varies by a factor of exp(uneven) from variant to variant; none is better."""
    rng, wrong = np.random.default_rng(6), 0
    for _ in range(repetitions):
        sd = 0.02 * np.exp(uneven * rng.normal(0, 1, 20))
        variants = experiment(rng, np.zeros(20), sd, 400).values()
        wrong += any(v.delta.better or v.delta.worse for v in variants if v.delta)
    print(wrong, repetitions)
    assert wrong / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
