"""Which comparison of a choice has the best candidate: regimes and backbones, on the same seeds and test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from poolzoo.compare import measures, statistics
from poolzoo.compare.choosing.finished import Finished
from poolzoo.compare.choosing.results import Candidate
from poolzoo.report.results import Delta

ALIKE: Final = 1.05  # times the fewest operations, up to which they count as as many


@dataclass(frozen=True)
class Contender:
    """A comparison, and its candidate for the recommendation."""

    comparison: Finished
    candidate: Candidate

    @property
    def title(self) -> str:
        return self.comparison.planned.title

    @property
    def macs(self) -> int:
        """Multiply–accumulate operations of the candidate for one image."""
        first = self.comparison.trials(self.candidate.variant)[0]
        return measures.size(first.path).macs if first.macs is None else first.macs


@dataclass(frozen=True)
class Between:
    """The contenders in order, and how far each is behind the first.

    Attributes:
        order: The most accurate one first.
        behind: By the title of the others, the first one's accuracy minus theirs, with its interval.
    """

    order: Sequence[Contender]
    behind: dict[str, Delta]

    @property
    def tied(self) -> list[Contender]:
        """Those that do not differ from the first beyond chance, and the first; the cheapest first.

        The fewest operations are the cheapest. Of those with nearly as many, the most accurate comes first.
        """
        found = [one for one in self.order if not self.behind.get(one.title, Delta()).better]
        if len(found) < 2:
            return found
        costs = {one.title: one.macs for one in found}
        limit = ALIKE * min(costs.values())
        return sorted(found, key=lambda one: max(limit, costs[one.title]))


def between(contenders: Sequence[Contender], alpha: float) -> Between:
    """Compares contenders.

    The test images decide which is the first, so all pairs of them count as the family.

    Args:
        contenders: One of each comparison.
        alpha: The level for all pairs together.
    """
    order = sorted(contenders, key=lambda one: -one.candidate.accuracy)
    if len(order) < 2:
        return Between(order, {})
    right = {one.title: one.comparison.right(one.candidate.variant) for one in order}
    level = alpha * 2 / len(order)  # m − 1 of m (m − 1) / 2 pairs are tested
    found = statistics.compare(right, order[0].title, level)
    deltas = {name: variant.delta for name, variant in found.variants.items() if variant.delta is not None}
    return Between(order, {name: _reversed(delta) for name, delta in deltas.items()})


def _reversed(delta: Delta) -> Delta:
    """The difference the other way round."""

    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    return replace(
        delta,
        mean=minus(delta.mean),
        low=minus(delta.high),
        high=minus(delta.low),
        better=delta.worse,
        worse=delta.better,
    )
