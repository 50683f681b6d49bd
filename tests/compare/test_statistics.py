"""Comparisons of variants: the figures against other ways to get them, and how often the conclusions are wrong."""

from __future__ import annotations

import json
from itertools import product
from math import sqrt

import numpy as np
import pytest
from scipy import stats

from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare.conclusions import conclusions
from poolzoo.compare.estimates import Correctness
from poolzoo.compare.statistics import Statistics, compare, holm
from poolzoo.compare.variance import SeedVariance, seed_variances
from poolzoo.report.results import Delta

Rows = dict[int, np.ndarray]


def ease(rng: np.random.Generator, images: int) -> np.ndarray:
    """The chance that an image is recognized: 0.45 for the hard fifth, 0.95 for the others; 0.85 in the mean."""
    return np.where(rng.random(images) < 0.2, 0.45, 0.95)


def trained(rng: np.random.Generator, chance: np.ndarray, sd: np.ndarray) -> Rows:
    """What one network a seed has right; `sd`, `float[S]`, is by how much its accuracy is off."""
    return {s: rng.random(len(chance)) < chance + off for s, off in enumerate(sd)}


def two(seed: int, seeds: int, images: int, sd: float, gap: float) -> dict[str, Rows]:
    """Two variants that find different images easy, the second `gap` better."""
    rng = np.random.default_rng(seed)
    easy, otherwise = ease(rng, images), ease(rng, images)
    first = trained(rng, easy - gap, rng.normal(0, sd, seeds))
    return {"base": first, "new": trained(rng, otherwise, rng.normal(0, sd, seeds))}


def table(right: dict[str, Rows]) -> np.ndarray:
    return np.array([right["new"][s].astype(int) - right["base"][s] for s in sorted(right["base"])])


def crossed(d: np.ndarray, between: SeedVariance | None = None) -> tuple[float, float]:
    """Standard error and degrees of freedom of the mean of seeds × images, from the residuals of the two-way layout.

    The variance `between` seeds, where it is given, replaces that of the table itself.
    """
    s, n = d.shape
    rows, columns, mean = d.mean(1, keepdims=True), d.mean(0, keepdims=True), d.mean()
    between = between or SeedVariance(float(rows.var(ddof=1)), s - 1)
    seeds = n * between.variance
    images = s * ((columns - mean) ** 2).sum() / (n - 1)
    rest = ((d - rows - columns + mean) ** 2).sum() / ((s - 1) * (n - 1))
    both = max(seeds, images, seeds + images - rest)
    spread = seeds**2 / between.df + images**2 / (n - 1) + rest**2 / ((s - 1) * (n - 1))
    return sqrt(both / (s * n)), both**2 / spread


def by_loop(d: np.ndarray, resamples: int = 4000) -> np.ndarray:
    """The means of resampled images, one resample after the other."""
    rng, n = np.random.default_rng(99), d.shape[1]
    return np.array([d[:, rng.integers(0, n, n)].mean() for _ in range(resamples)])


# What decides, then the arguments of `two`: each of the three is once the largest p and once the widest interval.
CASES = {
    "seeds": (10, 4, 900, 0.03, 0.05),
    "both": (0, 5, 300, 0.02, 0.07),
    "images": (11, 8, 400, 0.0005, 0.05),
}


@pytest.mark.parametrize("decides", CASES)
def test_p_is_the_largest_of_three_tests(decides: str) -> None:
    right = two(*CASES[decides])
    d = table(right)
    error, df = crossed(d)
    accuracies = [[right[name][s].mean() for s in sorted(right[name])] for name in ("new", "base")]
    p = {"seeds": stats.ttest_rel(*accuracies).pvalue, "both": 2 * stats.t.sf(abs(d.mean()) / error, df)}
    beyond = (abs(by_loop(d, 9999) - d.mean()) >= d.mean() - 1e-12).sum()
    p["images"] = (1 + beyond) / 10_000
    print(p)
    assert max(p, key=lambda name: p[name]) == decides
    assert beyond == 0 or decides != "images"  # so that the loop's other random numbers do not show
    assert compare(right, "base").variants["new"].delta.p == pytest.approx(p[decides], rel=1e-9)


def test_bootstrap_over_images_is_that_of_the_binomial() -> None:
    """Four of a hundred images are gained by all of forty seeds: a resample gains a binomial number of them."""
    d = np.arange(100) < 4
    right = {"base": dict.fromkeys(range(40), ~d), "new": dict.fromkeys(range(40), np.ones(100, bool))}
    exact = stats.binom.pmf(0, 100, 0.04) + stats.binom.sf(7, 100, 0.04)
    delta = compare(right, "base", resamples=40_000).variants["new"].delta
    assert delta.p == pytest.approx(exact, abs=4 * sqrt(exact / 40_000))
    assert delta.high == pytest.approx(stats.binom.ppf(0.975, 100, 0.04) / 100, rel=1e-12)


def test_resamples_are_the_bootstrap_distribution() -> None:
    """All 256 ways to draw four images from four, each as likely as the next, for two variants at once."""
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    outcomes = Correctness({"a": {0: a}, "b": {0: b}}, 20_000, 3)
    drawn = np.array([outcomes.accuracy("a").deviations, outcomes.accuracy("b").deviations]) * 4 + 2
    seen = np.histogram2d(*drawn, bins=np.arange(-0.5, 5))[0]
    expected = np.zeros((5, 5))
    for draw in product(range(4), repeat=4):
        expected[a[list(draw)].sum(), b[list(draw)].sum()] += 20_000 / 256
    assert stats.chisquare(seen[expected > 0], expected[expected > 0]).pvalue > 0.001
    assert seen[expected == 0].sum() == 0


@pytest.mark.parametrize("decides", CASES)
def test_the_interval_is_the_hull_of_three_adjusted_intervals(decides: str) -> None:
    right = two(*CASES[decides])
    d, alpha = table(right), 0.05 / 3
    right |= {f"same {i}": {s: ~row for s, row in right["new"].items()} for i in range(2)}
    known = seed_variances({n: {s: float(row.mean()) for s, row in rows.items()} for n, rows in right.items()})
    between = known["new"] + known["base"]
    error, df = crossed(d, between)
    seeds_error = sqrt(between.variance / len(d))
    half = max(stats.t.isf(alpha / 2, between.df) * seeds_error, stats.t.isf(alpha / 2, df) * error)
    low, high = d.mean() - half, d.mean() + half
    resampled = np.quantile(by_loop(d), (alpha / 2, 1 - alpha / 2))
    low, high = min(low, resampled[0]), max(high, resampled[1])
    delta = compare(right, "base").variants["new"].delta
    assert (delta.mean, delta.low, delta.high) == pytest.approx(
        (d.mean(), low, high), rel=1e-9 if decides != "images" else 0.1
    )


def test_accuracy_has_the_t_interval_over_seeds() -> None:
    rng = np.random.default_rng(1)
    rows = trained(rng, ease(rng, 4000), np.array([-0.04, 0.01, 0.03]))
    means = [rows[s].mean() for s in range(3)]
    figures = compare({"only": rows}, "only", resamples=500).variants["only"]
    expected = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    assert (figures.accuracy.low, figures.accuracy.high) == pytest.approx(expected, rel=2e-3)
    assert figures.accuracy.mean == pytest.approx(np.mean(means))
    assert figures.accuracy.sd == pytest.approx(np.std(means, ddof=1))
    assert (figures.accuracy.n, figures.delta, figures.rank) == (3, None, 1)


def test_accuracy_of_one_seed_has_the_bootstrap_interval() -> None:
    row = np.random.default_rng(2).random(500) < 0.9
    figures = compare({"only": {7: row}}, "only").variants["only"].accuracy
    assert figures.sd is None
    loop = np.quantile(by_loop(row[None]), (0.025, 0.975))
    assert (figures.low, figures.high) == pytest.approx(loop, abs=0.004)


@pytest.mark.parametrize("value", [True, False])
def test_perfect_and_hopeless_variants_keep_an_interval(value: bool) -> None:
    rows = dict.fromkeys(range(3), np.full(60, value))
    figures = compare({"only": rows}, "only").variants["only"].accuracy
    expected = stats.binomtest(60 * value, 60).proportion_ci(0.95, "exact")
    assert (figures.low, figures.high) == pytest.approx((expected.low, expected.high))


def test_holm_rejects_what_the_procedure_rejects() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        p = [float(x) for x in rng.choice([0.001, 0.01, 0.012, 0.02, 0.04, 0.3], size=rng.integers(1, 8))]
        for alpha in (0.011, 0.0301, 0.0499, 0.0601, 0.11):
            rejected, left = set(), sorted(range(len(p)), key=lambda i: p[i])
            while left and p[left[0]] <= alpha / len(left):
                rejected.add(left.pop(0))
            assert {i for i, adjusted in enumerate(holm(p)) if adjusted <= alpha} == rejected, (p, alpha)


def test_baseline_family_is_adjusted_by_holm() -> None:
    rng = np.random.default_rng(6)
    chance = ease(rng, 1500)
    right = {f"v{i}": trained(rng, chance - 0.01 * i, rng.normal(0, 0.005, 5)) for i in range(5)}
    deltas = {name: v.delta for name, v in compare(right, "v0").variants.items() if v.delta}
    smallest, second, *_ = ordered = sorted(deltas.values(), key=lambda d: d.p)
    assert smallest.p_adjusted == pytest.approx(4 * smallest.p)
    assert second.p_adjusted == pytest.approx(max(3 * second.p, 4 * smallest.p))
    assert [d.worse for d in ordered] == [d.p_adjusted < 0.05 for d in ordered]
    assert {d.worse for d in ordered} == {True, False}


def test_pairs_by_seed_whatever_the_order_and_whatever_is_missing() -> None:
    right = two(*CASES["both"])
    new, base = right["new"], right["base"]
    holes = {"base": {s: base[s] for s in (4, 1, 3, 0)}, "new": {s: new[s] for s in (2, 3, 4, 1)}}
    common = {name: {s: rows[s] for s in (1, 3, 4)} for name, rows in right.items()}
    got, expected = (compare(r, "base").variants["new"] for r in (holes, common))
    assert got.accuracy.n == 4
    means = [[rows[s].mean() for s in (1, 3, 4)] for rows in (new, base)]
    assert got.delta.mean == pytest.approx(np.mean(means[0]) - np.mean(means[1]))
    assert got.delta.p >= stats.ttest_rel(*means).pvalue * (1 - 1e-9)
    for key in ("p", "low", "high"):
        assert getattr(got.delta, key) == pytest.approx(getattr(expected.delta, key), abs=0.02)
    assert compare(holes, "base").seeds == 3


def text(found: Statistics) -> str:
    return json.dumps(found.to_json())


def test_same_result_for_any_order() -> None:
    rng = np.random.default_rng(7)
    right = {name: trained(rng, ease(rng, 230), rng.normal(0, 0.01, 7)) for name in "abcdefghij"}
    del right["c"][1]
    right["k"] = right["a"]  # a tie
    first = text(compare(right, "b", resamples=500))
    for _ in range(5):
        names = rng.permutation(list(right))
        turned = {name: {s: right[name][s] for s in rng.permutation(list(right[name]))} for name in names}
        assert text(compare(turned, "b", resamples=500)) == first
    assert text(compare(right, "b", resamples=500, seed=1)) != first


def test_fewer_than_two_common_seeds_prove_nothing() -> None:
    good, bad = np.ones(500, bool), np.zeros(500, bool)
    right = {"base": {0: bad, 1: bad}, "one": {1: good, 2: good}, "none": {3: good}, "two": {0: good, 1: good}}
    found = compare(right, "base")
    for name in ("one", "none"):
        delta = found.variants[name].delta
        assert (delta.better, delta.worse) == (False, False)
        assert delta == Delta()
        assert found.variants[name].rank == 1
    two_seeds = found.variants["two"].delta
    assert two_seeds.p_adjusted == two_seeds.p  # the family is this one alone
    assert any("one" in line and "none" in line and "two in common" in line for line in conclusions(found))


def test_identical_networks_do_not_differ() -> None:
    rows = two(1, 3, 100, 0.01, 0.0)["base"]
    found = compare({"base": rows, "copy": dict(rows)}, "base")
    delta = found.variants["copy"].delta
    assert delta == Delta(mean=0, low=0, high=0, p=1, p_adjusted=1)
    assert found.detectable is None
    assert conclusions(found) == ["Nothing beats base beyond seed variance and sampling variance."]


def test_equal_differences_get_the_variance_of_mcnemar() -> None:
    """Every seed gains 9 other images and loses 3: a difference of 6, standard deviation √12, over 2 seeds."""
    base, new = np.zeros((2, 100), bool), np.zeros((2, 100), bool)
    for s in range(2):
        new[s, 20 * s : 20 * s + 9] = True
        base[s, 20 * s + 9 : 20 * s + 12] = True
    right = {"base": dict(enumerate(base)), "new": dict(enumerate(new))}
    delta = compare(right, "base").variants["new"].delta
    t = 6 / (sqrt(12) / sqrt(2))
    assert delta.p == pytest.approx(2 * stats.t.sf(t, 1), rel=0.03)  # a little more for the sampling variance
    half = stats.t.isf(0.025, 1) * sqrt(12) / sqrt(2) / 100
    assert (delta.low, delta.high) == pytest.approx((0.06 - half, 0.06 + half), rel=0.1)


def levels() -> Statistics:
    """Two equals at 0.90, one at 0.80, one at 0.70, all differences significant."""
    rng = np.random.default_rng(8)
    accuracy = {"max": 0.9, "gem": 0.9, "avg": 0.8, "skip": 0.7}
    sd = {name: rng.normal(0, 0.003, 5) for name in accuracy}
    return compare({n: trained(rng, np.full(2000, a), sd[n]) for n, a in accuracy.items()}, "avg")


def test_equals_share_a_rank() -> None:
    found = levels()
    assert {name: v.rank for name, v in found.variants.items()} == {"max": 1, "gem": 1, "avg": 3, "skip": 4}
    assert [sorted(group) for group in found.groups] == [["gem", "max"], ["avg"], ["skip"]]
    means = [v.accuracy.mean for v in found.variants.values()]
    assert means == sorted(means, reverse=True)


def test_conclusions_say_what_beats_the_baseline_and_what_is_worse() -> None:
    found = levels()
    lines = conclusions(found)
    best, worst = (found.variants[name].delta for name in ("max", "skip"))
    for name, d, start, (low, high) in (
        ("max", best, "max beats avg by", (best.low, best.high)),
        ("skip", worst, "skip is worse than avg by", (-worst.high, -worst.low)),
    ):
        line = next(line for line in lines if line.startswith(name))
        assert line.startswith(f"{start} {100 * abs(d.mean):.2f} points ({100 * low:.2f} to {100 * high:.2f}, ")
    assert [line.split()[1] for line in lines[:3]] == ["beats", "beats", "is"]
    assert lines[-1] == (
        f"With 5 seeds, 2000 images and 3 comparisons, a true difference of {100 * found.detectable:.2f} points "
        "is found with a power of 0.8 at level 0.05."
    )
    assert not any("Nothing" in line for line in lines)


def test_conclusions_say_when_no_difference_can_be_seen() -> None:
    rng = np.random.default_rng(9)
    right = {name: trained(rng, ease(rng, 30), rng.normal(0, 0.2, 2)) for name in "ab"}
    found = compare(right, "a", resamples=500)
    assert found.detectable > 1
    said = "With 2 seeds, 30 images and 1 comparison, no true difference is found with a power of 0.8 at level 0.05."
    assert conclusions(found)[-1] == said


def test_what_cannot_be_compared_is_refused() -> None:
    rows = {0: np.ones(4, bool)}
    with pytest.raises(UsageError, match="no variant is named 'x'"):
        compare({"a": rows}, "x")
    with pytest.raises(CheckFailed, match="4 and 5 images"):
        compare({"a": rows, "b": {0: np.ones(5, bool)}}, "a")
    with pytest.raises(CheckFailed, match="on 1 images"):
        compare({"a": {0: np.ones(1, bool)}}, "a")
    with pytest.raises(CheckFailed, match="b has no seed"):
        compare({"a": rows, "b": {}}, "a")


def within(count: int, repetitions: int, low: float, high: float) -> None:
    """Fails when the share lies further outside than three standard errors."""
    share = count / repetitions
    print(f"{count} of {repetitions}: {share:.3f}")
    assert low - 3 * sqrt(low * (1 - low) / repetitions) <= share <= high + 3 * sqrt(high * (1 - high) / repetitions)


# Seeds, images, sd of training: where training, the images, and both together are what moves the figures.
REGIMES = [(5, 600, 0.025), (5, 150, 0.002), (15, 500, 0.03)]


@pytest.mark.parametrize("repetitions", [100, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("seeds", "images", "sd"), REGIMES)
def test_intervals_cover_the_truth(seeds: int, images: int, sd: float, repetitions: int) -> None:
    """Each repetition draws new images and new seeds; the variants find different images easy, none is better.

    The chances are a tenth lower than `ease`, so that seed variance never takes one past 1.
    """
    rng = np.random.default_rng(10)
    accuracy = delta = 0
    for _ in range(repetitions):
        offsets = rng.normal(0, sd, (2, seeds))
        right = {name: trained(rng, 0.9 * ease(rng, images), offsets[i]) for i, name in enumerate(("base", "new"))}
        new = compare(right, "base", resamples=399).variants["new"]
        accuracy += new.accuracy.low <= 0.765 <= new.accuracy.high
        delta += new.delta.low <= 0 <= new.delta.high
    within(accuracy, repetitions, 0.95, 0.97)
    within(delta, repetitions, 0.95, 0.97)


@pytest.mark.parametrize(
    ("seeds", "repetitions"), [(5, 100), *(pytest.param(seeds, 400, marks=pytest.mark.slow) for seeds in (3, 5))]
)
def test_twenty_names_for_one_thing_seldom_differ(seeds: int, repetitions: int) -> None:
    """In at most 5 % of the experiments is any variant called better or worse, though all are the same network."""
    rng, wrong = np.random.default_rng(11), 0
    for _ in range(repetitions):
        chance = ease(rng, 200)
        right = {f"v{i}": trained(rng, chance, rng.normal(0, 0.004, seeds)) for i in range(20)}
        variants = compare(right, "v0", resamples=399).variants.values()
        wrong += any(v.delta.better or v.delta.worse for v in variants if v.delta)
    within(wrong, repetitions, 0.0, 0.05)


def test_five_points_are_found_among_twenty() -> None:
    rng, found = np.random.default_rng(12), 0
    for _ in range(10):
        chance = ease(rng, 4000) - 0.05
        gain = [0.05 * (i == 7) for i in range(20)]
        right = {f"v{i}": trained(rng, chance + gain[i], rng.normal(0, 0.005, 5)) for i in range(20)}
        variants = compare(right, "v0", resamples=999).variants
        found += variants["v7"].delta.better
    assert found >= 9


def test_detectabledifference_is_detected_as_often_as_said() -> None:
    """Four seeds on 400 images: the formula at the true spread, and what the estimates of it come to."""
    rng, found, repetitions, said = np.random.default_rng(13), 0, 400, []
    sd, spread = 0.02, 0.8 * 0.75 * 0.25 + 0.2 * 0.25 * 0.75  # binomial, at chances of 0.75 and 0.25
    error = sqrt(2 * (sd**2 + spread / 400) / 4)
    grid = np.linspace(0, 10, 2001)
    gap = error * grid[np.searchsorted(stats.nct.sf(stats.t.isf(0.025, 3), 3, grid), 0.8)]
    for _ in range(repetitions):
        chance = np.where(rng.random(400) < 0.2, 0.25, 0.75)
        right = {n: trained(rng, chance + g, rng.normal(0, sd, 4)) for n, g in (("base", -gap / 2), ("new", gap / 2))}
        result = compare(right, "base", resamples=199)
        said.append(result.detectable)
        found += result.variants["new"].delta.better
    print(gap, np.sqrt(np.mean(np.square(said))))
    assert np.sqrt(np.mean(np.square(said))) == pytest.approx(gap, rel=0.08)
    within(found, repetitions, 0.75, 0.8)
