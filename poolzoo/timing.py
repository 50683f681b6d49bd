"""Timing things against one another: interleaved, in shuffled order, after a warm-up."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

WARM_UP: Final = 3  # calls of each before any is timed
LEAST_ROUNDS, MOST_ROUNDS = 7, 200


def interleaved(
    calls: dict[str, Callable[[], Any]], seconds: float = 2.0, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Milliseconds of each call, a list a name: every round runs all of them, in an order drawn anew.

    Args:
        calls: What to time, by name.
        seconds: For how long, after the warm-up; at least `LEAST_ROUNDS` rounds in any case.
        clock: `time.perf_counter`, or `time.process_time` where other work shares the machine.
    """
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    end = time.perf_counter() + seconds
    for rounds in range(MOST_ROUNDS):
        if rounds >= LEAST_ROUNDS and time.perf_counter() > end:
            break
        shuffle(order)
        for name in order:
            started = clock()
            calls[name]()
            times[name].append((clock() - started) * 1e3)
    return times


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """How many times as long the first takes as the second: the median over the rounds that both were timed in."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))
