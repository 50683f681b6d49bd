"""Aggregates and ranks against other ways to them: scipy, worked examples, enumeration; and how often chance wins."""

from __future__ import annotations

from itertools import permutations, product
from math import sqrt

import numpy as np
import pytest
from scipy import stats
from support.planted_comparisons import correct

from poolzoo.compare.across import ranks
from poolzoo.compare.across.aggregate import aggregate
from poolzoo.compare.across.resampling import Block, Draws, Predictions, interquartile_mean, weights

# Area under the ROC curve of C4.5 and three variants of it on 14 data sets: Demšar (2006), table 6.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def block(number, accuracies, errors=None, test_set=None, n_test=1000):
    """A block without predictions, from the accuracies of each variant in the order of its seeds."""
    seeds = {name: dict(enumerate(of)) for name, of in accuracies.items()}
    errors = dict.fromkeys(accuracies, 1e-9) if errors is None else errors
    return Block(f"b{number}", number if test_set is None else test_set, seeds, n_test, errors)


def with_images(right, images, test_set=0):
    seeds = {name: {seed: float(row.mean()) for seed, row in of.items()} for name, of in right.items()}
    return Block(f"b{test_set}", test_set, seeds, len(images), {}, Predictions(right, images))


# --- Ranks ----------------------------------------------------------------------------------------------------------


def test_average_ranks_are_those_of_demsars_example():
    assert ranks.ranks(DEMSAR).mean(0) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert ranks.critical_difference(4, 14, 0.05) == pytest.approx(2.569 * sqrt(4 * 5 / (6 * 14)), abs=2e-3)


def test_friedman_agrees_with_the_chi_squared_test_on_many_data_sets():
    known = stats.friedmanchisquare(*DEMSAR.T).pvalue
    assert ranks.friedman(DEMSAR) == pytest.approx(known, abs=0.008)
    assert known < 0.05


def test_friedman_counts_the_permutations_of_few_data_sets():
    scores = np.array([[3.0, 2.0, 1.0], [2.0, 3.0, 1.0], [3.0, 1.0, 2.0]])
    observed = np.square(ranks.ranks(scores).sum(0)).sum()
    every = [np.square(np.array(rows).sum(0)).sum() for rows in product(permutations([1, 2, 3]), repeat=3)]
    assert ranks.friedman(scores) == pytest.approx(np.mean(np.array(every) >= observed), abs=0.015)


@pytest.mark.parametrize("differences", [[1.0, 2, 3, -4, 5, 6, 7], [1.0, 1, -1, 2, 2, 3], [0.0, 1, 2, -3, 4, 0]])
def test_the_signed_rank_test_counts_all_signs(differences):
    kept = np.array([d for d in differences if d])
    rank = stats.rankdata(np.abs(kept))
    sums = np.array([rank @ (np.array(signs) > 0) for signs in product((-1, 1), repeat=len(kept))])
    observed, middle = rank @ (kept > 0), rank.sum() / 2
    assert ranks.signed_rank(differences) == pytest.approx(np.mean(np.abs(sums - middle) >= abs(observed - middle)))


def test_nothing_is_significant_with_few_test_sets():
    assert [ranks.smallest_p(n) for n in (1, 2, 5, 8)] == [1, 0.5, 1 / 16, 1 / 128]
    assert ranks.signed_rank([1.0] * 8) == 1 / 128
    assert ranks.signed_rank([1.0]) == ranks.signed_rank([0.0, 0.0]) == 1
    assert ranks.needed_test_sets(1, 0.05) == 6
    assert ranks.needed_test_sets(23, 0.05) == 10
    assert ranks.pairwise(np.random.default_rng(0).normal(size=(4, 3))).min() > 0.05


def test_signed_ranks_are_exact_for_many_test_sets():
    rng = np.random.default_rng(0)
    for count in (14, 20, 40):
        differences = rng.normal(0.4, 1, count)
        assert ranks.signed_rank(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    assert ranks.signed_rank(np.arange(1, 31)) == ranks.smallest_p(30)
    tied = np.round(rng.normal(0.1, 1, 200), 1)
    near = stats.wilcoxon(tied, method="approx").pvalue
    assert ranks.signed_rank(tied) == pytest.approx(near, rel=0.05)


def test_many_poolings_in_a_clear_order_all_differ():
    scores = np.arange(24.0) + np.random.default_rng(0).normal(0, 0.1, (20, 24))
    adjusted = ranks.pairwise(scores)
    assert adjusted[np.triu_indices(24, 1)].max() < 0.05


def test_a_bar_joins_what_does_not_differ():
    p = np.ones((4, 4))
    p[0, 2] = p[2, 0] = p[0, 3] = p[3, 0] = p[1, 3] = p[3, 1] = 0.01
    assert ranks.cliques([0, 1, 2, 3], p, 0.05) == [(0, 1), (1, 2), (2, 3)]
    assert ranks.cliques([0, 1, 2, 3], np.ones((4, 4)), 0.05) == [(0, 3)]
    assert ranks.cliques([0, 1, 2, 3], np.zeros((4, 4)), 0.05) == []


# --- Aggregates -----------------------------------------------------------------------------------------------------


def test_one_comparison_of_two_is_the_paired_t_test():
    ours, theirs = [0.82, 0.80, 0.85, 0.83], [0.79, 0.80, 0.80, 0.81]
    (found,) = aggregate([block(0, {"new": ours, "base": theirs})], ["new"], "base", resamples=50).values()
    assert found.gain.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found.gain.low <= low + 1e-12
    assert found.gain.high >= high - 1e-12


def test_two_comparisons_combine_as_welch_and_satterthwaite_say():
    rng = np.random.default_rng(1)
    differences = [rng.normal(0.03, 0.01, 4), rng.normal(0.02, 0.03, 6)]
    blocks = [block(n, {"new": 0.8 + d, "base": np.full(len(d), 0.8)}) for n, d in enumerate(differences)]
    (found,) = aggregate(blocks, ["new"], "base", resamples=50).values()
    parts = [d.var(ddof=1) / len(d) / 4 for d in differences]
    df = sum(parts) ** 2 / sum(part**2 / (len(d) - 1) for part, d in zip(parts, differences, strict=True))
    mean = np.mean([d.mean() for d in differences])
    assert found.gain.mean == pytest.approx(mean)
    assert found.gain.p == pytest.approx(2 * stats.t.sf(mean / sqrt(sum(parts)), df))


def test_errors_on_one_test_set_add_up():
    accuracies = {"new": [0.81, 0.81001], "base": [0.8, 0.8]}
    errors = {"new": 0.01}
    apart = aggregate([block(n, accuracies, errors) for n in (0, 1)], ["new"], "base", resamples=50)["new"].gain
    same = aggregate([block(n, accuracies, errors, 0) for n in (0, 1)], ["new"], "base", resamples=50)["new"].gain
    assert apart.p == pytest.approx(2 * stats.norm.sf(0.010005 / (0.01 / sqrt(2))), rel=1e-3)
    assert same.p == pytest.approx(2 * stats.norm.sf(0.010005 / 0.01), rel=1e-3)


def test_test_sets_count_the_same_however_often_they_are_compared():
    accuracies = {"new": [0.8, 0.8], "base": [0.8, 0.8]}
    blocks = [block(n, accuracies, test_set=test_set) for n, test_set in enumerate((0, 0, 0, 1))]
    assert weights(blocks) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_resampled_seeds_have_the_variance_of_the_mean():
    ours = np.array([0.70, 0.74, 0.81])
    draws = Draws([block(0, {"new": ours, "base": np.full(3, 0.7)})], ["new", "base"], 20_000, 0)
    assert draws.statistics("new", "base").gain.var() == pytest.approx(ours.var(ddof=1) / 3, rel=0.05)


def test_resampled_images_have_the_variance_of_the_mean():
    rng = np.random.default_rng(2)
    right = correct(rng, {"new": 0.8, "base": 0.7}, 1, 500)
    images = np.arange(500, dtype=np.uint64)
    known = np.var(right["new"][0].astype(int) - right["base"][0]) / 500
    one = Draws([with_images(right, images)], ["new", "base"], 4000, 0)
    assert one.image_variance("new", "base", {0: 1.0}) == pytest.approx(known, rel=0.1)


def test_shared_images_are_resampled_together():
    right = correct(np.random.default_rng(3), {"new": 0.8, "base": 0.7}, 1, 400)
    images = np.arange(400, dtype=np.uint64)
    half = {0: 0.5, 1: 0.5}
    backwards = {name: {seed: row[::-1] for seed, row in of.items()} for name, of in right.items()}
    same = Draws([with_images(right, images), with_images(backwards, images[::-1])], ["new", "base"], 3000, 0)
    apart = Draws([with_images(right, images), with_images(right, images + 400)], ["new", "base"], 3000, 0)
    ratio = same.image_variance("new", "base", half) / apart.image_variance("new", "base", half)
    assert ratio == pytest.approx(2, rel=0.15)


def test_the_same_function_has_no_variance():
    accuracies = {"new": [0.8, 0.82, 0.79], "base": [0.8, 0.82, 0.79], "other": [0.7, 0.75, 0.71]}
    blocks = [block(n, accuracies, {"new": 0.0, "other": 0.01}) for n in (0, 1)]
    gain = aggregate(blocks, ["new", "other"], "base", resamples=50)["new"].gain
    assert (gain.mean, gain.low, gain.high, gain.p) == (0, 0, 0, 1)


def test_variants_without_common_seeds_are_not_tested():
    one = Block("b", 0, {"new": {2: 0.8, 3: 0.9}, "base": {0: 0.7, 1: 0.7}}, 100, {"new": 0.01})
    assert aggregate([one], ["new"], "base", resamples=50)["new"].gain.p is None


def test_the_probability_of_improvement_is_that_of_mann_and_whitney():
    ours, theirs = [0.80, 0.82, 0.85], [0.81, 0.82, 0.79]
    (found,) = aggregate([block(0, {"new": ours, "base": theirs})], ["new"], "base", resamples=200).values()
    assert found.improvement.mean == pytest.approx(stats.mannwhitneyu(ours, theirs).statistic / 9)
    assert found.improvement.low <= found.improvement.mean <= found.improvement.high


def test_the_interquartile_mean_ignores_one_failure():
    assert interquartile_mean(np.array([-90.0, 1, 2, 3, 4, 5, 6, 7])) == pytest.approx(np.mean([2, 3, 4, 5]))


@pytest.mark.slow
@pytest.mark.parametrize("sd", [0.0, 0.02, 0.06])
def test_equal_variants_seldom_have_a_winner(sd):
    """500 tables of three comparisons, two on the same images: at most alpha have any false winner or loser."""
    names = [f"v{number}" for number in range(5)]
    wrong = 0
    for seed in range(500):
        rng = np.random.default_rng([seed, 1])
        blocks = []
        for test_set in (0, 0, 1):
            level = np.random.default_rng([seed, 2, test_set]).random(200)
            right = {
                name: {
                    s: np.where(rng.random(200) < 0.3, rng.random(200), level) < 0.8 + rng.normal(0, sd)
                    for s in range(3)
                }
                for name in names
            }
            images = np.arange(200, dtype=np.uint64) + np.uint64(1000 * test_set)
            blocks.append(with_images(right, images, test_set))
        found = aggregate(blocks, names[1:], names[0], resamples=100)
        wrong += any(one.gain.better or one.gain.worse for one in found.values())
    assert wrong <= 0.05 * 500 + 2 * sqrt(500 * 0.05 * 0.95)
    assert wrong >= (1 if sd > 0.05 else 0)  # it could have been wrong
