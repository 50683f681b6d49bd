"""Timing things against one another: interleaved, in shuffled order, after a warm-up."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

WARM_UP: Final = 3  # calls of each before any is timed; one where it takes as long as all rounds may
LEAST_ROUNDS, MOST_ROUNDS = 5, 200


def interleaved(
    calls: dict[str, Callable[[], Any]],
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
    rounds: int | None = None,
    *,
    reported: bool = False,
) -> dict[str, list[float]]:
    """Milliseconds of each call, a list a name: every round runs all of them, in an order drawn anew.

    Args:
        calls: What to time, by name.
        seconds: For how long, after the warm-up; at least `LEAST_ROUNDS` rounds in any case.
        clock: `time.perf_counter`, or `time.process_time` where other work shares the machine.
        rounds: How many at most; by default `MOST_ROUNDS`.
        reported: Whether each call returns its own milliseconds, as one that is measured in another process does.
    """
    for call in calls.values():
        started = time.perf_counter()
        for _ in range(WARM_UP):
            call()
            if time.perf_counter() - started > seconds:
                break
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    end = time.perf_counter() + seconds
    for done in range(MOST_ROUNDS if rounds is None else rounds):
        if done >= LEAST_ROUNDS and time.perf_counter() > end:
            break
        shuffle(order)
        for name in order:
            started = clock()
            result = calls[name]()
            times[name].append(float(result) if reported else (clock() - started) * 1e3)
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median, minimum and upper percentiles of at least two times in milliseconds, and how many they are."""
    percentiles = statistics.quantiles(times, n=100, method="inclusive")
    return {
        "median_ms": round(statistics.median(times), 4),
        "min_ms": round(min(times), 4),
        "p90_ms": round(percentiles[89], 4),
        "p99_ms": round(percentiles[98], 4),
        "rounds": len(times),
    }


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """How many times as long the first takes as the second: the median over the rounds that both were timed in."""
    return statistics.median(_ratios(first, second))


def ratio_spread(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """`ratio`, and between which values it lies in the middle four fifths of the rounds."""
    ratios = _ratios(first, second)
    tenths = statistics.quantiles(ratios, n=10, method="inclusive")
    return {
        "median": round(statistics.median(ratios), 3),
        "p10": round(tenths[0], 3),
        "p90": round(tenths[-1], 3),
    }


def _ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(first, second, strict=True)]
