"""Thresholds for abstention: the guarantee over many draws, what cannot be reached, and the risk–coverage curve."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import betabinom, binomtest

from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.metrics import abstention
from poolzoo.metrics.abstention import Abstention, SelectiveMetrics, Target, choose_abstention
from poolzoo.metrics.intervals import beta_binomial_cdf, clopper_pearson
from poolzoo.metrics.risk_coverage import risk_coverage

DRAWS = 1000
LEVELS = np.linspace(0.5, 0.999, 40)  # largest probabilities that occur, each with the same frequency


def draw(rng: np.random.Generator, correct: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `[count, 2]` with the levels as the largest, and labels that are right with `correct` of each."""
    level = rng.integers(0, len(LEVELS), count)
    right = rng.random(count) < correct[level]
    return np.stack([LEVELS[level], 1 - LEVELS[level]], 1), np.where(right, 0, 1)


def violations(correct: np.ndarray, target: float, confidence: float, count: int) -> tuple[int, int]:
    """How often a chosen threshold accepts a population with a lower accuracy, and how often one is found."""
    rng = np.random.default_rng(5)
    wrong = found = 0
    for _ in range(DRAWS):
        try:
            chosen = choose_abstention(*draw(rng, correct, count), Target("accuracy", target), confidence)
        except CheckFailed:
            continue
        found += 1
        wrong += correct[np.float32(chosen.threshold) <= LEVELS.astype(np.float32)].mean() < target
    return wrong, found


@pytest.mark.parametrize(
    "correct",
    [
        pytest.param(np.full(len(LEVELS), 0.899), id="no threshold is right"),
        pytest.param(LEVELS, id="calibrated", marks=pytest.mark.slow),
        pytest.param(LEVELS**2, id="too certain", marks=pytest.mark.slow),
        pytest.param(np.where(LEVELS > 0.95, 0.8, 0.97), id="wrong where most certain", marks=pytest.mark.slow),
    ],
)
def test_the_accuracy_is_missed_at_most_as_often_as_allowed(correct: np.ndarray) -> None:
    wrong, found = violations(correct, target=0.9, confidence=0.9, count=150)

    # 1,000 draws, of which 100 may be wrong: 130 is three standard deviations above that
    assert wrong <= 130
    assert found > 0


def test_a_threshold_is_found_where_probabilities_are_calibrated() -> None:
    wrong, found = violations(0.9 + LEVELS / 10, target=0.9, confidence=0.9, count=150)

    assert (wrong, found > 0.9 * DRAWS) == (0, True)


def test_a_threshold_is_that_of_the_binomial_test() -> None:
    # 60 certain images without an error, 40 uncertain ones of which 20 are wrong
    probabilities = np.repeat([[0.96, 0.04], [0.6, 0.4]], [60, 40], axis=0)
    labels = np.repeat([0, 0, 1], [60, 20, 20])

    chosen = choose_abstention(probabilities, labels, Target("accuracy", 0.95), confidence=0.9)

    assert 0.95**60 < 0.8 * 0.1  # the first sequence starts at 0.95 and goes down as far as to the uncertain images
    assert 0.6 < chosen.threshold < 0.61
    assert (chosen.images, chosen.accepted, chosen.errors) == (100, 60, 0)


def test_an_accuracy_out_of_reach_names_the_best() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = draw(rng, LEVELS, 400)

    with pytest.raises(CheckFailed, match=r"accuracy=0\.99 with confidence 0\.95 on 400 validation images") as failed:
        choose_abstention(probabilities, labels, Target("accuracy", 0.99))

    best = float(failed.value.message.partition("accuracy=")[2].rpartition("accuracy=")[2])
    choose_abstention(probabilities, labels, Target("accuracy", best))
    with pytest.raises(CheckFailed):
        choose_abstention(probabilities, labels, Target("accuracy", best + 0.001))


def test_few_images_need_more() -> None:
    probabilities, labels = np.tile([[0.999, 0.001]], (100, 1)), np.zeros(100, np.int64)

    with pytest.raises(CheckFailed) as failed:
        choose_abstention(probabilities, labels, Target("accuracy", 0.99))

    assert 0.99**321 < 0.8 * 0.05 < 0.99**320
    assert "at least 321" in failed.value.hint


def test_coverage_holds_on_average_over_draws() -> None:
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(DRAWS):
        largest = rng.uniform(0.5, 1, 49)
        chosen = choose_abstention(np.stack([largest, 1 - largest], 1), np.zeros(49, int), Target("coverage", 0.8))
        shares.append(2 * (1 - chosen.threshold))  # of the population

    # 50 · 0.2 = 10: the threshold is the tenth smallest of 49, above which lies a share of 0.8 on average
    assert np.mean(shares) == pytest.approx(0.8, abs=4 * np.std(shares) / np.sqrt(DRAWS))


def test_images_that_are_not_finite_are_not_accepted() -> None:
    probabilities = np.array([[0.99, 0.01], [np.nan, np.nan]])
    every = Abstention(threshold=0.0, target=Target("coverage", 0.9), confidence=None, images=2, accepted=2, errors=0)

    assert every.accept(probabilities).tolist() == [True, False]


@pytest.mark.parametrize("text", ["0.99", "accuracy", "accuracy=1", "coverage=0", "risk=0.1", "accuracy=nan"])
def test_a_target_is_an_accuracy_or_a_coverage(text: str) -> None:
    with pytest.raises(UsageError, match="abstain-at"):
        Target.parse(text)


def test_a_rule_survives_json() -> None:
    rule = Abstention(
        threshold=0.75, target=Target.parse("accuracy=0.9"), confidence=0.95, images=9, accepted=7, errors=1
    )

    assert Abstention.from_json(rule.to_json()) == rule


def test_measures_are_counts_with_exact_intervals() -> None:
    found = SelectiveMetrics(images=200, accepted=150, errors=3)

    assert (found.coverage, found.accuracy) == (0.75, 0.98)
    assert found.accuracy_interval == pytest.approx(tuple(binomtest(147, 150).proportion_ci(0.95, "exact")))
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_a_miss_is_more_than_chance() -> None:
    def rule(target: str) -> Abstention:
        return Abstention(threshold=0.5, target=Target.parse(target), confidence=0.95, images=99, accepted=80, errors=0)

    found = SelectiveMetrics(images=200, accepted=150, errors=3)

    assert found.misses(rule("accuracy=0.999"))
    assert not found.misses(rule("accuracy=0.99"))
    # On 200 images alone 150 are too few for 0.81, but not for a threshold that is chosen on 99 images.
    assert found.coverage_interval[1] < 0.81
    assert not found.misses(rule("coverage=0.81"))
    assert found.misses(rule("coverage=0.9"))


def test_the_beta_binomial_distribution_is_that_of_scipy() -> None:
    assert beta_binomial_cdf(7, 20, 3, 5) == pytest.approx(betabinom(20, 3, 5).cdf(7))


def test_the_area_is_the_mean_risk_over_all_orders_of_equal_images() -> None:
    largest, wrong = np.array([0.9, 0.8, 0.8, 0.8, 0.6]), np.array([0, 1, 0, 1, 1])
    probabilities = np.stack([largest, 1 - largest], 1)

    curve = risk_coverage(probabilities, wrong)

    orders = [(0, *middle, 4) for middle in permutations([1, 2, 3])]
    risks = np.mean([np.cumsum(wrong[list(order)]) / np.arange(1, 6) for order in orders], 0)
    assert curve.risk == pytest.approx(risks.tolist())
    assert curve.aurc == pytest.approx(risks.mean())
    assert curve.coverage == pytest.approx((0.2, 0.4, 0.6, 0.8, 1.0))


def test_the_grid_starts_at_certainty_and_ends_at_everything() -> None:
    assert abstention.GRID[-1] == 0
    assert abstention.GRID[0] > 0.999999
    assert (np.diff(abstention.GRID) <= 0).all()


def test_images_with_nan_lower_the_threshold_of_a_coverage() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [np.nan, np.nan]])

    def chosen(coverage: float) -> float:
        return choose_abstention(probabilities, np.zeros(4, np.int64), Target("coverage", coverage)).threshold

    assert [chosen(0.2), chosen(0.4), chosen(0.6), chosen(0.8)] == pytest.approx([0.9, 0.8, 0.7, 0])
