"""What a planned comparison can show, in sentences: from which variances, with how many seeds, at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from poolzoo.compare import earlier, resolution
from poolzoo.compare.earlier import Conditions, EarlierComparison
from poolzoo.compare.resolution import COVERAGE, DISAGREEMENT, Design, VarianceComponents
from poolzoo.compare.statistics import POWER

SHOWN: Final = 3  # earlier comparisons that are named


@dataclass(frozen=True)
class Evidence:
    """Where variance components come from.

    Attributes:
        source: "earlier comparisons", or "assumption" where there is none.
        low, high: The least and the most that they may be.
        likely: The best estimate; None of an assumption.
        used: The earlier comparisons.
        differences: In what they differ from the planned one, in words.
    """

    source: str
    low: VarianceComponents
    high: VarianceComponents
    likely: VarianceComponents | None = None
    used: Sequence[EarlierComparison] = ()
    differences: str = ""

    def describe(self) -> str:
        """Where the numbers come from."""
        if self.likely is None:
            low, high = (round(100 * share) for share in DISAGREEMENT)
            return (
                f"no earlier comparison is like this one; if two variants disagree on {low} to {high} % of the test "
                "images, and if all seeds agree on which in the worst case"
            )
        names = ", ".join(one.name for one in self.used[-SHOWN:])
        more = f" and {len(self.used) - SHOWN} more" if len(self.used) > SHOWN else ""
        trained = sum(one.variants * one.seeds for one in self.used)
        return f"variances of {trained} earlier trials ({self.differences}): {names}{more}"


def evidence(conditions: Conditions, images: int) -> Evidence:
    """The variances of the earlier comparisons that are most alike; of none, an assumption.

    Args:
        conditions: Of the planned comparison.
        images: Its number of test images.
    """
    found = earlier.alike(conditions)
    if not found:
        low, high = resolution.assumed(images)
        return Evidence("assumption", low, high)
    used = [one for one, _ in found]
    likely = resolution.pooled([one.components for one in used])
    low, high = likely.range
    texts = dict.fromkeys(differences.describe() for _, differences in found)
    return Evidence("earlier comparisons", low, high, likely, used, "; ".join(texts))


@dataclass(frozen=True)
class Wanted:
    """A difference that a comparison is to show, and what it needs.

    Attributes:
        difference: As a fraction, 0–1.
        seeds: How many are expected to show it; None where no sensible number does.
        fewest, most: The same for the ends of the range of variances.
        bound: The difference that more and more seeds approach.
        images: Where no number of seeds does: test images with which the seeds of the plan show it; None where no
            number of images does either.
    """

    difference: float
    seeds: int | None
    fewest: int | None
    most: int | None
    bound: float
    images: int | None = None


@dataclass(frozen=True)
class ResolutionPreview:
    """What the variants of one backbone can show against the baseline.

    Attributes:
        backbone: Their backbone.
        images, variants, alpha: See `Design`.
        seeds: Of the plan.
        evidence: Where the variances come from.
        low, high: The detectable difference for the ends of the range of variances, as fractions.
        likely: The one that is expected; None of an assumption. All three are None with one seed.
        wanted: For `--resolution`.
    """

    backbone: str
    images: int
    variants: int
    alpha: float
    seeds: int
    evidence: Evidence
    low: float | None
    high: float | None
    likely: float | None
    wanted: Wanted | None = None

    @property
    def design(self) -> Design:
        return Design(self.images, self.variants, self.alpha)

    def to_json(self) -> dict[str, object]:
        used = [
            {"path": one.path, "ended": one.ended, "seeds": one.seeds, "variants": one.variants}
            for one in self.evidence.used
        ]
        values = {key: value for key, value in asdict(self).items() if key != "evidence"}
        known = self.evidence.likely
        components = asdict(known) if known is not None else None
        source = {"source": self.evidence.source, "comparisons": used, "differences": self.evidence.differences or None}
        return {**values, "power": POWER, "evidence": {**source, "components": components}}

    def lines(self) -> list[str]:
        """The preview in sentences."""
        comparisons = f"{self.variants - 1} comparison{'s' * (self.variants > 2)}"
        if self.low is None or self.high is None:
            first = f"{self.seeds} seed gives no p-value: two or more do"
        else:
            shown = f"{_points(self.low)} to {_points(self.high)}"
            if self.likely is not None:
                shown = f"{_points(self.likely)} ({100 * COVERAGE:.0f} % range {shown})"
            first = (
                f"{self.seeds} seeds × {self.images:,} test images show a true difference of {shown} points, with a "
                f"power of {POWER:g} at level {self.alpha:g} over {comparisons}"
            )
        return [self.evidence.describe(), first]


def _points(fraction: float) -> str:
    return f"{100 * min(1.0, fraction):.2f}"


def resolve(
    conditions: Conditions, design: Design, seeds: int, wanted: float | None, most: int
) -> ResolutionPreview | None:
    """What a planned comparison can show; None where nothing is compared.

    Args:
        conditions: Of the variants on one backbone.
        design: The same as its statistics see them.
        seeds: Of the plan.
        wanted: The difference that it is to show, a fraction; None without one.
        most: The largest number of seeds that is sensible.
    """
    if not design.comparisons:
        return None
    found = evidence(conditions, design.images)
    enough = seeds > 1
    likely = found.likely or found.high
    needed = None
    if wanted is not None:
        needed = Wanted(
            difference=wanted,
            seeds=design.seeds(likely, wanted, most),
            fewest=design.seeds(found.low, wanted, most),
            most=design.seeds(found.high, wanted, most),
            bound=design.bound(likely),
        )
        if needed.seeds is None:
            needed = replace(needed, images=design.images_for(likely, wanted, max(2, seeds)))
    return ResolutionPreview(
        backbone=conditions.backbone,
        images=design.images,
        variants=design.variants,
        alpha=design.alpha,
        seeds=seeds,
        evidence=found,
        low=design.detectable(found.low, seeds) if enough else None,
        high=design.detectable(found.high, seeds) if enough else None,
        likely=design.detectable(found.likely, seeds) if enough and found.likely is not None else None,
        wanted=needed,
    )
