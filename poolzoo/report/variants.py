"""What a comparison found, one variant at a time: in order, named, colored, and without a number that is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from poolzoo.common import output

HUES: Final = 10  # colors of the style sheet, `--hue-0` and so on
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")  # for more variants than colors
LONGEST: Final = 80  # characters of a name in a chart's hover and legend


@dataclass(frozen=True)
class Variant:
    """One row of a comparison.

    Attributes:
        place: Its number on the page, 0 for the best.
        name: Its poolings, and its backbone where several were compared.
        baseline: Whether the others of its backbone are compared with it.
        color: A color of the style sheet.
        dash: How its lines are drawn.
        found: Its entry of `compare.json`.
    """

    place: int
    name: str
    baseline: bool
    color: str
    dash: str
    found: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether it was trained and measured."""
        return self.found.get("status") == "done"

    def number(self, *keys: str) -> float | None:
        """A figure by its path, such as `("accuracy", "mean")`; None where it is missing, NaN or infinite."""
        value: Any = self.found
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return finite(value)

    def percent(self, *keys: str) -> float | None:
        """A share by its path, in per cent."""
        share = self.number(*keys)
        return None if share is None else 100 * share

    def several(self, key: str) -> list[dict[str, Any]]:
        """A list of entries, such as `per_seed`; empty where there is none."""
        return self.found.get(key) or []

    def corruptions(self) -> Iterator[tuple[str, list[float | None]]]:
        """The corruptions that it met, each with its accuracies in per cent at severities 1 to 5; their mean first."""
        corruption = self.found.get("corruption") or {}
        named = {"mean of all": corruption.get("by_severity"), **(corruption.get("by_kind") or {})}
        return ((kind, [scaled(share) for share in shares]) for kind, shares in named.items() if shares)


def finite(value: object) -> float | None:
    """A number that can be drawn, or None."""
    sound = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if sound else None  # type: ignore[return-value]


def scaled(share: object) -> float | None:
    """A share of 0–1 in per cent, or None."""
    number = finite(share)
    return None if number is None else 100 * number


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are numbers, or None."""
    kept = [value for value in values if value is not None]
    return fmean(kept) if kept else None


def ordered(found: dict[str, Any]) -> list[Variant]:
    """All variants of a `compare.json`: the most accurate first, those that failed last."""
    results = found.get("results") or []
    several = len({result.get("backbone") for result in results}) > 1

    def loss(result: dict[str, Any]) -> float:
        accuracy = finite((result.get("accuracy") or {}).get("mean"))
        return math.inf if accuracy is None else -accuracy

    results = sorted(results, key=lambda result: (result.get("status") != "done", loss(result)))
    return [_variant(place, result, found.get("baseline"), several) for place, result in enumerate(results)]


def _variant(place: int, result: dict[str, Any], baseline: str | None, several: bool) -> Variant:
    name = " + ".join(str(result[key]) for key in ("pool", "local_pool") if result.get(key))
    first = name == baseline and not result.get("delta")
    name = output.one_line(f"{name} · {result.get('backbone')}" if several else name, LONGEST)
    dash = DASHES[place // HUES % len(DASHES)]
    return Variant(place, name, first and result.get("status") == "done", f"--hue-{place % HUES}", dash, result)
