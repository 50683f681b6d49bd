"""Which variants a race stops: those that are worse than another variant beyond seed variance and sampling variance.

Every claim rests on trainings of full length. An accuracy in the middle of a training says nothing certain about the
end, since learning curves may cross; so there is no stop within a first seed.

A race looks S − 1 times: look r comes when all that still run have r seeds, and its pilots all S (`schedule`). A look
compares all pairs of variants, so that it may be after the best one, whichever that is. The difference of two
variants from n₁ and n₂ seeds is tested twice, against

* seed variance: `σ₁² / n₁ + σ₂² / n₂`, estimated from all variants (`variance.own_seed_variances`). Seeds are not
  paired, because pilots were chosen by the first one: pairing would take that choice for a common effect.
* both: the same plus the variance of the images' mean differences, minus the part that both contain, which is the
  variance within an image from seed to seed. Of a variant from one seed that part is taken to be the smallest known.

The larger p decides. It is that of the studentized range of all variants (Tukey, The Problem of Multiple Comparisons,
1953), with the standard error of the pair (Kramer, Biometrics 12(3), 1956) and its degrees of freedom (Games and
Howell, Journal of Educational Statistics 1(2), 1976).

Two fifths of alpha are for stops. Looks spend them as Lan and DeMets, Biometrika 70(3), 1983, with their function of
Pocock's type, at the fraction r / S of the seeds. What they leave is the level of the last tests (`statistics`), so
that stops and verdicts together are wrong with a probability of at most alpha. Simulations hold this where one variant
has up to three times the standard deviation of the others. A wilder one can be stopped by one bad seed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from math import e, exp, inf, log, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import stdtr, stdtrit

from poolzoo.common import json_reader
from poolzoo.compare.variance import own_seed_variances
from poolzoo.report import results
from poolzoo.report.results import Delta, Stop

if TYPE_CHECKING:
    from scipy.interpolate import PchipInterpolator

SHARE: Final = 0.4  # of alpha that stops may spend
NODES: Final = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 24.0, inf)  # degrees of freedom that are tabulated


def spent(alpha: float, fraction: float) -> float:
    """The part of `alpha` that stops have spent when a fraction of the seeds, 0–1, is trained."""
    return SHARE * alpha * log(1 + (e - 1) * fraction)


def look_level(alpha: float, look: int, seeds: int) -> float:
    """The level of a look, 1 to `seeds` − 1."""
    return spent(alpha, look / seeds) - spent(alpha, (look - 1) / seeds)


def verdict_level(alpha: float, seeds: int) -> float:
    """The level of the tests after the last seed."""
    return alpha - spent(alpha, (seeds - 1) / seeds)


@cache
def _quantiles(level: float, count: int) -> PchipInterpolator:
    from scipy.interpolate import PchipInterpolator
    from scipy.stats import studentized_range

    q = [log(studentized_range.ppf(1 - level, count, df)) for df in NODES]
    return PchipInterpolator([1 / df for df in reversed(NODES)], q[::-1])


def critical_value(level: float, count: int, df: float) -> float:
    """How many standard errors a difference must exceed: the studentized range over √2, to three digits.

    Args:
        level: Of all pairs together.
        count: Number of variants.
        df: Degrees of freedom; below one nothing is beyond chance.
    """
    return exp(float(_quantiles(level, count)(1 / df))) / sqrt(2) if df >= 1 else inf


@dataclass(frozen=True)
class Gap:
    """The difference of two variants' accuracies, 0–1, and the two standard errors with their degrees of freedom."""

    mean: float
    errors: tuple[tuple[float, float], tuple[float, float]]

    def half_width(self, level: float, count: int) -> float:
        """Of the interval that holds for all pairs together (`critical_value`); zero where the two never differ."""
        return max((size * critical_value(level, count, df) for size, df in self.errors if size), default=0.0)

    def significant(self, level: float, count: int) -> bool:
        """Whether it is beyond chance."""
        return self.mean != 0 and abs(self.mean) > self.half_width(level, count)

    @property
    def p(self) -> float:
        """Two-sided, that of this pair alone; 1 where the variants agree on every image."""
        sizes = [(abs(self.mean) / size, df) for size, df in self.errors if size]
        return max((2 * float(stdtr(df, -t)) for t, df in sizes), default=1.0) if self.mean else 1.0

    def p_of_all(self, count: int) -> float:
        """The p of all pairs together."""
        from scipy.stats import studentized_range

        sizes = [(abs(self.mean) / size, df) for size, df in self.errors if size]
        if not self.mean or not sizes or min(df for _, df in sizes) < 1:
            return 1.0
        return max(float(studentized_range.sf(t * sqrt(2), count, df)) for t, df in sizes)


class Standings:
    """What is known of the variants of a race at one look.

    Args:
        right: For each variant the seeds that are trained, and for each `bool[N]`: which images it has right.
    """

    def __init__(self, right: Mapping[str, Mapping[int, np.ndarray]]) -> None:
        self.seeds = {name: len(rows) for name, rows in right.items()}
        self._shares = {name: np.stack(list(rows.values())).mean(0) for name, rows in right.items()}
        self.accuracy = {name: float(share.mean()) for name, share in self._shares.items()}
        self._variances = own_seed_variances(
            {name: {s: float(row.mean()) for s, row in rows.items()} for name, rows in right.items()}
        )

    @cached_property
    def _within(self) -> dict[str, float]:
        """The variance within an image from seed to seed, over N: that part of an accuracy's variance, one seed."""
        own = {}
        for name, share in self._shares.items():
            if (n := self.seeds[name]) > 1:  # of zeros and ones: p(1 − p) n / (n − 1)
                own[name] = float((share * (1 - share)).mean()) * n / (n - 1) / len(share)
        least = min(own.values(), default=0.0)
        return {name: own.get(name, least) for name in self.seeds}

    def gap(self, first: str, second: str, seeds: Mapping[str, int] | None = None) -> Gap | None:
        """`first` minus `second`; None where no variant has two seeds, and for a single image.

        Args:
            first, second: Names.
            seeds: Of how many seeds the standard errors are, where it is not of those that are trained.
        """
        if not self._variances or len(self._shares[first]) < 2:
            return None
        n = seeds or self.seeds
        difference = self._shares[first] - self._shares[second]
        images, squares = len(difference), float(np.square(difference).mean())
        between = self._variances[first].of_mean(n[first]) + self._variances[second].of_mean(n[second])
        within, now = (sum(self._within[one] / of[one] for one in (first, second)) for of in (n, self.seeds))
        sampling = max(0.0, float(difference.var(ddof=1)) / images - now) + within
        # Variants whose accuracies never move get the variance of McNemar's test, as in `estimates`.
        variance = between.variance or squares / images
        both = max(variance, sampling, variance + sampling - within)
        parts = variance**2 / between.df + sampling**2 / (images - 1)
        df = both**2 / parts if parts else float(images)
        return Gap(self.accuracy[first] - self.accuracy[second], ((sqrt(variance), between.df), (sqrt(both), df)))


@dataclass(frozen=True)
class Stopped:
    """A variant that a look stopped: why, and what is known of its difference from the baseline."""

    stop: Stop
    delta: Delta

    @property
    def decided(self) -> bool:
        """Whether it is better or worse than the baseline beyond chance."""
        return self.delta.better or self.delta.worse

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Stopped:
        """Reads what `to_json` gave."""
        stop, delta = Stop.from_json(found.get("stop")), results.delta(found.get("delta"))
        return cls(stop or Stop(), delta or Delta())


def stopped_in_look(
    right: Mapping[str, Mapping[int, np.ndarray]],
    baseline: str,
    waiting: Collection[str],
    look: int,
    seeds: int,
    count: int,
    alpha: float,
) -> dict[str, Stopped]:
    """The variants that stop at a look, by name.

    A variant that is worse than the best goes on where more seeds would probably show whether it differs from the
    baseline too.

    Args:
        right: For each variant that has not been stopped, its trained seeds and which images each has right, `bool[N]`.
        baseline: Name of the baseline, which never stops.
        waiting: Names of those that may stop.
        look: Its number, from 1.
        seeds: S, that of the whole comparison.
        count: Number of variants of the race, stopped ones included.
        alpha: The level of the comparison.
    """
    standings, level = Standings(right), look_level(alpha, look, seeds)
    found: dict[str, Stopped] = {}
    for name in sorted(set(waiting) & set(right) - {baseline}):
        gaps = {other: gap for other in right if other != name and (gap := standings.gap(other, name))}
        beyond = {other: gap for other, gap in gaps.items() if gap.mean > 0 and gap.significant(level, count)}
        if not beyond:
            continue
        delta = Delta()
        if baseline in gaps:
            delta = _delta(gaps[baseline], level, count, alpha)
            if not (delta.better or delta.worse) and _would_differ(standings, name, baseline, seeds, count, alpha):
                continue
        behind = max(beyond, key=lambda other: (beyond[other].mean, other))
        gap, half = beyond[behind], beyond[behind].half_width(level, count)
        stop = Stop(
            seeds=standings.seeds[name],
            behind=behind,
            mean=gap.mean,
            low=gap.mean - half,
            high=gap.mean + half,
            p_adjusted=min(1.0, gap.p_of_all(count) * alpha / level),
            worse_than=sorted(beyond),
        )
        found[name] = Stopped(stop, delta)
    return found


def _delta(ahead: Gap, level: float, count: int, alpha: float) -> Delta:
    """A variant's difference from the baseline, from the gap by which the baseline is ahead."""
    half, significant = ahead.half_width(level, count), ahead.significant(level, count)
    return Delta(
        mean=0.0 - ahead.mean,  # not −0
        low=0.0 - ahead.mean - half,
        high=0.0 - ahead.mean + half,
        p=ahead.p,
        p_adjusted=min(1.0, ahead.p_of_all(count) * alpha / level),
        better=significant and ahead.mean < 0,
        worse=significant and ahead.mean > 0,
    )


def _would_differ(standings: Standings, name: str, baseline: str, seeds: int, count: int, alpha: float) -> bool:
    """Whether the difference from the baseline would be significant if it stayed as it is up to the last seed."""
    gap = standings.gap(name, baseline, {name: seeds, baseline: seeds})
    assert gap is not None
    strictest = verdict_level(alpha, seeds) / (2 * (count - 1))
    return abs(gap.mean) > max(float(-stdtrit(df, strictest)) * size for size, df in gap.errors)


def stopped_from_json(found: object) -> dict[str, Stopped]:
    """Reads the stops of a look, by name."""
    return {str(name): Stopped.from_json(json_reader.mapping(one)) for name, one in json_reader.mapping(found).items()}
