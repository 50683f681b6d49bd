"""Prediction sets: coverage over many draws, against the definition of the paper, never empty."""

from __future__ import annotations

import numpy as np
import pytest

from poolzoo.common.errors import CheckFailed
from poolzoo.metrics.conformal import PredictionSets, choose_sets, measure_sets

DRAWS = 1000
CLASSES = 6


def draw(rng: np.random.Generator, count: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of which each is that of its class, and then made too certain by half."""
    logits = sharpness * rng.normal(size=(count, CLASSES))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (chances.cumsum(1) > rng.random((count, 1))).argmax(1)
    shown = chances**1.5
    return shown / shown.sum(1, keepdims=True), labels


def in_set(rule: PredictionSets, chances: np.ndarray, label: int) -> bool:
    """Equation 4 of the paper with u = 0, for one class of one image."""
    ahead = [other for other in chances if other > chances[label]]
    return sum(ahead) + rule.penalty * max(0, 1 + len(ahead) - rule.unpenalized) <= rule.quantile


@pytest.mark.slow
def test_coverage_holds_on_average_over_draws() -> None:
    rng = np.random.default_rng(3)
    coverages = []
    for _ in range(DRAWS):
        rule = choose_sets(*draw(rng, 61, sharpness=1.0), coverage=0.9)
        coverages.append(measure_sets(rule, *draw(rng, 100, sharpness=1.0)).coverage)

    # 49 images give the quantile: coverage is between 0.9 and 0.92 on average
    error = 4 * np.std(coverages) / np.sqrt(DRAWS)
    assert 0.9 - error <= np.mean(coverages) <= 0.92 + error


@pytest.mark.parametrize("penalty", [0.001, 0.1])
def test_sets_are_those_of_the_definition(penalty: float) -> None:
    rng = np.random.default_rng(4)
    rule = PredictionSets(coverage=0.8, quantile=0.7, penalty=penalty, unpenalized=2, images=50)
    probabilities, _ = draw(rng, 100, sharpness=1.0)
    probabilities[0] = [0.4, 0.1, 0.1, 0.2, 0.1, 0.1]  # equal ones stand or fall together

    members = rule.members(probabilities)

    chances = probabilities.astype(np.float32).astype(np.float64)
    assert members.tolist() == [[in_set(rule, row, label) for label in range(CLASSES)] for row in chances]
    assert len(set(members.sum(1).tolist())) > 2


@pytest.mark.parametrize("penalty", [0.001, 0.5])
@pytest.mark.parametrize("quantile", [0.0, 0.3, 2.0])
def test_no_set_is_empty_and_the_first_class_is_in_it(penalty: float, quantile: float) -> None:
    rule = PredictionSets(coverage=0.9, quantile=quantile, penalty=penalty, unpenalized=1, images=50)
    probabilities, _ = draw(np.random.default_rng(0), 50, sharpness=4.0)

    assert rule.members(probabilities)[np.arange(50), probabilities.argmax(1)].all()


def test_a_network_that_is_right_more_often_gets_sets_of_one() -> None:
    probabilities, labels = draw(np.random.default_rng(0), 500, sharpness=12.0)

    found = measure_sets(choose_sets(probabilities, labels, coverage=0.8), probabilities, labels)

    assert found.mean_size == 1
    assert found.coverage == (probabilities.argmax(1) == labels).mean() > 0.8


def test_a_penalty_makes_large_sets_smaller() -> None:
    probabilities, labels = draw(np.random.default_rng(0), 2000, sharpness=0.5)
    weak, strong = (
        PredictionSets(coverage=0.9, quantile=0.9, penalty=penalty, unpenalized=2, images=50)
        for penalty in (0.001, 0.2)
    )

    sizes = [measure_sets(rule, probabilities, labels).mean_size for rule in (weak, strong)]

    assert sizes[1] < sizes[0] <= CLASSES


def test_too_few_images_name_what_they_reach() -> None:
    probabilities, labels = draw(np.random.default_rng(0), 50, sharpness=1.0)

    with pytest.raises(CheckFailed, match="more than 50 validation images") as failed:
        choose_sets(probabilities, labels, coverage=0.99)

    reached = float(failed.value.hint.rpartition(" ")[2])
    assert reached == 0.975  # 40 of 41
    choose_sets(probabilities, labels, coverage=reached)


def test_a_rule_survives_json() -> None:
    rule = PredictionSets(coverage=0.9, quantile=0.5, penalty=0.1, unpenalized=2, images=7)

    assert PredictionSets.from_json(rule.to_json()) == rule
