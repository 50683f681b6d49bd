"""Rounds of a measurement: as many as its medians need, and no more than are allowed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from poolzoo.common import timing

ROUNDS = 200


class Clock:
    """Simulated time, by which each call takes what a generator says."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def taking(self, draw: Callable[[], float]) -> Callable[[], None]:
        def call() -> None:
            self.seconds += draw() / 1e3

        return call


def measured(noise: float, seed: int = 0, **options: float) -> dict[str, list[float]]:
    """Two calls of 3 and 1 milliseconds, each with its own relative noise."""
    clock, generator = Clock(), np.random.default_rng(seed)
    calls = {
        name: clock.taking(lambda mean=mean: mean * (1 + noise * generator.standard_normal()))
        for name, mean in (("first", 3.0), ("other", 1.0))
    }
    return timing.interleaved(calls, clock=clock, rounds=ROUNDS, **options)


def test_steady_calls_are_timed_in_few_rounds():
    assert len(measured(0.0, within=0.02)["first"]) == 6  # the least with an interval of 95 %
    assert len(measured(0.01, within=0.02)["first"]) < 25


def test_noisy_calls_take_all_rounds():
    assert len(measured(0.5, within=0.02)["first"]) == ROUNDS


def test_without_a_width_all_rounds_are_taken():
    assert len(measured(0.0)["first"]) == ROUNDS


def test_a_call_that_fills_the_time_leaves_it_to_the_others():
    clock = Clock()
    calls = {name: clock.taking(lambda ms=ms: ms) for name, ms in (("first", 1.0), ("slow", 900.0), ("other", 3.0))}
    found = timing.interleaved(calls, clock=clock, rounds=ROUNDS, seconds=0.5, least=3)
    counts = {name: len(times) for name, times in found.items()}
    assert (counts["slow"], counts["first"]) == (3, counts["other"])
    assert 100 < counts["first"] < 130
    assert timing.ratio(found["first"], found["slow"]) == pytest.approx(1 / 900)


@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_medians_and_ratio_are_known_to_the_width(noise):
    """Over many measurements, as often as the interval promises, up to what stopping early costs."""
    wrong = []
    for seed in range(60):
        found = measured(noise, seed, within=0.02)
        medians = [np.median(found["first"]) / 3 - 1, np.median(found["other"]) - 1]
        wrong += [abs(error) > 0.02 for error in (*medians, timing.ratio(found["first"], found["other"]) / 3 - 1)]
    assert np.mean(wrong) < 0.1
