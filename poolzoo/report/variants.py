"""The variants of a comparison as a page shows them: in order, named and colored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from poolzoo.common.text import one_line
from poolzoo.report.results import ComparisonResult, MeanSd, VariantResult

HUES: Final = 10  # colors of the style sheet, `--hue-0` and so on
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")  # for more variants than colors
LONGEST: Final = 80  # characters of a name in a chart's hover text and legend
NOT_SIGNIFICANT: Final = "not significant"


@dataclass(frozen=True)
class VariantView:
    """One variant on a page.

    Attributes:
        place: Its number on the page, 0 for the best.
        name: Its poolings, and its backbone where several were compared.
        baseline: Whether the others of its backbone are compared with it.
        color: A color of the style sheet.
        dash: How its lines are drawn.
        result: Its figures.
    """

    place: int
    name: str
    baseline: bool
    color: str
    dash: str
    result: VariantResult

    @property
    def done(self) -> bool:
        """Whether it was trained and measured."""
        return self.result.done

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy in percent."""
        return percent(self.result.accuracy.mean) if self.result.accuracy else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the accuracy in percent; None where it is not known."""
        found = self.result.accuracy
        if found is None or found.low is None or found.high is None:
            return None
        return 100 * found.low, 100 * found.high

    @property
    def gain(self) -> float | None:
        """The difference from the baseline in points; None for the baseline, and where it was not tested."""
        return percent(self.result.delta.mean) if self.result.delta else None

    @property
    def significance(self) -> str:
        """Its comparison with the baseline in a word or two; a dash where there is none."""
        delta = self.result.delta
        if not self.done:
            return self.result.status or "failed"
        if self.baseline:
            return "baseline"
        if delta is None or delta.mean is None:
            return "–"
        return "better" if delta.better else "worse" if delta.worse else NOT_SIGNIFICANT

    def corruptions(self) -> Iterator[tuple[str, list[float | None]]]:
        """Each corruption with the accuracies in percent at severities 1 to 5; their mean first."""
        found = self.result.corruption_accuracy
        if found is None:
            return iter(())
        named = {"mean of all": found.by_severity, **found.by_kind}
        return ((kind, [percent(share) for share in shares]) for kind, shares in named.items() if shares)


def percent(share: float | None) -> float | None:
    """A fraction of 0–1 in percent, or None."""
    return None if share is None else 100 * share


def mean_percent(figures: MeanSd | None) -> float | None:
    """The mean of a fraction of 0–1 in percent, or None."""
    return None if figures is None else percent(figures.mean)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are not None, or None."""
    kept = [value for value in values if value is not None]
    return fmean(kept) if kept else None


def ordered(found: ComparisonResult) -> list[VariantView]:
    """All variants: the most accurate first, those that failed last."""
    several = len({result.backbone for result in found.results}) > 1
    results = sorted(found.results, key=lambda result: (not result.done, _loss(result)))
    return [_view(place, result, found.baseline, several) for place, result in enumerate(results)]


def _loss(result: VariantResult) -> float:
    mean = result.accuracy.mean if result.accuracy else None
    return math.inf if mean is None else -mean


def _view(place: int, result: VariantResult, baseline: str | None, several: bool) -> VariantView:
    name = " + ".join(filter(None, (result.pool, result.local_pool)))
    is_baseline = name == baseline and result.delta is None and result.done
    return VariantView(
        place=place,
        name=one_line(f"{name} · {result.backbone}" if several else name, LONGEST),
        baseline=is_baseline,
        color=f"--hue-{place % HUES}",
        dash=DASHES[place // HUES % len(DASHES)],
        result=result,
    )


def count(number: int, noun: str) -> str:
    """`1 variant`, `2 variants`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def baselines(views: Sequence[VariantView]) -> list[VariantView]:
    """The baselines among variants, one for each backbone."""
    return [view for view in views if view.baseline]
