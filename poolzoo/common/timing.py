"""Timing things against one another: interleaved, in shuffled order, after a warm-up."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

WARM_UP: Final = 3  # calls of each before any is timed …
WARM_UP_SECONDS: Final = 0.1  # … but no further one after so long
LEAST_ROUNDS, MOST_ROUNDS = 5, 200
FEW_ROUNDS: Final = 3  # the least where each takes long and nothing is chosen by them: slow calls vary little
NARROW: Final = 0.03  # `within` of a report: runs of the same program differ by more
ALPHA: Final = 0.05  # how often the interval of a median misses it


def interleaved(
    calls: dict[str, Callable[[], Any]],
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
    rounds: int | None = None,
    *,
    reported: bool = False,
    within: float = 0.0,
    least: int = LEAST_ROUNDS,
) -> dict[str, list[float]]:
    """Milliseconds of each call, a list a name: every round runs all of them, in an order drawn anew.

    A call that alone fills the time is in the first `least` rounds only; two others go on without it.

    Args:
        calls: What to time, by name.
        seconds: For how long by `clock`, after the warm-up; at least `least` rounds in any case.
        clock: `time.perf_counter`, or `time.process_time` where other work shares the machine.
        rounds: How many at most; by default `MOST_ROUNDS`.
        reported: Whether each call returns its own milliseconds, as one that is measured in another process does.
        within: Stops once each median, and that of the ratios to the first call, is known to this fraction of itself.
        least: How many rounds at least.
    """
    for call in calls.values():
        started = time.perf_counter()
        for _ in range(WARM_UP):
            call()
            if time.perf_counter() - started > min(seconds, WARM_UP_SECONDS):
                break
    times: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    order, shuffle = list(calls), random.Random(0).shuffle
    for done in range(MOST_ROUNDS if rounds is None else rounds):
        if done >= least:
            order = [name for name in order if spent[name] <= seconds]
            if len(order) < min(2, len(calls)) or sum(spent[name] for name in order) > seconds:
                break
        if within and _all_known(list(times.values()), within):
            break
        shuffle(order)
        for name in order:
            started = clock()
            result = calls[name]()
            taken = clock() - started
            spent[name] += taken
            times[name].append(float(result) if reported else taken * 1e3)
    return times


def _all_known(times: Sequence[Sequence[float]], within: float) -> bool:
    """Whether all medians, and those of the ratios to the first times, are known to a fraction of themselves."""
    if not all(_is_known(taken, within) for taken in times):
        return False
    return all(_is_known(_ratios(times[0], taken), within) for taken in times[1:])


def _is_known(values: Sequence[float], within: float) -> bool:
    """Whether the interval of a median reaches no further than a fraction of it to either side, on average.

    It lies between two order statistics, and supposes nothing of how values are distributed: Conover, Practical
    Nonparametric Statistics, section 3.2. Stopping at a fixed width keeps its confidence as that becomes small: Chow
    and Robbins, On the Asymptotic Theory of Fixed-Width Sequential Confidence Intervals for the Mean, 1965.
    """
    rank = _rank(len(values))
    if not rank:
        return False
    ordered = sorted(values)
    return ordered[-rank] - ordered[rank - 1] <= 2 * within * statistics.median(ordered)


@cache
def _rank(count: int) -> int:
    """The number of the order statistic, from both ends, between which the median lies; 0 where there is none."""
    tail, rank = 0.0, 0
    while (tail := tail + math.comb(count, rank) / 2**count) <= ALPHA / 2:
        rank += 1
    return rank


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
    return [a / b for a, b in zip(first, second, strict=False)]  # a slow one is in the first rounds only
