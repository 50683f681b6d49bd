"""Which comparison of a choice has the best candidate: regimes and backbones, on the same seeds and test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from poolzoo.compare import statistics
from poolzoo.compare.choosing.finished import Finished
from poolzoo.report.results import Delta


@dataclass(frozen=True)
class Between:
    """The comparisons in order, and how far each is behind the first.

    Attributes:
        order: The first is that with the most accurate candidate.
        behind: By the title of the others, the first one's accuracy minus theirs, with its interval.
    """

    order: Sequence[Finished]
    behind: dict[str, Delta]

    @property
    def tied(self) -> list[Finished]:
        """Those that do not differ from the first beyond chance, and the first."""
        return [one for one in self.order if not self.behind.get(one.planned.title, Delta()).better]


def between(comparisons: Sequence[Finished], alpha: float) -> Between:
    """Compares the first candidates of several comparisons.

    The test images decide which comparison is the first, so all pairs of them count as the family.

    Args:
        comparisons: Each with a candidate.
        alpha: The level for all pairs together.
    """
    order = sorted(comparisons, key=lambda one: -one.candidates[0].accuracy)
    right = {one.planned.title: one.right(one.candidates[0].variant) for one in order}
    top = order[0].planned.title
    if len(order) < 2:
        return Between(order, {})
    found = statistics.compare(right, top, alpha * 2 / len(order))  # tested: m − 1 of m (m − 1) / 2 pairs
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
