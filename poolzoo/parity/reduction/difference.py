"""How far an output is from what is expected, where either may hold NaN or infinity."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One output against the expected one.

    Attributes:
        max_abs: The largest difference where both are finite; None where the shapes differ.
        largest: The largest finite magnitude that is expected.
        index: Where the difference is largest, or the first place where only one of the two is finite.
        found: The number there; None where the shapes differ.
        expected: What is expected there; None likewise.
        non_finite: In how many places NaN or infinity is on one side and not on the other.
    """

    max_abs: float | None
    largest: float
    index: tuple[int, ...] = ()
    found: float | None = None
    expected: float | None = None
    non_finite: int = 0

    @property
    def relative(self) -> float:
        """The largest difference over the largest magnitude; infinite where only one is finite or not zero."""
        if self.max_abs is None or self.non_finite:
            return float("inf")
        return self.max_abs / self.largest if self.largest else np.inf if self.max_abs else 0.0

    def to_json(self) -> dict[str, Any]:
        """`difference` in `report.json`."""
        return {**asdict(self), "index": list(self.index), "relative": self.relative}

    def describe(self) -> str:
        """In words."""
        if self.max_abs is None:
            return "the shapes differ"
        where = f"at {list(self.index)}"
        if self.non_finite:
            return f"{self.found:.6g} where {self.expected:.6g} is expected {where}, {self.non_finite} such places"
        return f"{self.max_abs:.3g} {where}: {self.found:.6g} where {self.expected:.6g} is expected"


def compare(found: np.ndarray, expected: np.ndarray) -> Difference:
    """Compares two arrays of numbers, in float64."""
    expected = np.asarray(expected, np.float64)
    finite = np.isfinite(expected)
    largest = float(np.abs(expected[finite]).max(initial=0))
    if found.shape != expected.shape:
        return Difference(max_abs=None, largest=largest)
    if not found.size:
        return Difference(max_abs=0.0, largest=largest)
    found = np.asarray(found, np.float64)
    both = finite & np.isfinite(found)
    with np.errstate(invalid="ignore"):
        distance = np.where(both, np.abs(found - expected), 0.0)
    odd = ~both & ~((found == expected) | (np.isnan(found) & np.isnan(expected)))
    place = np.unravel_index(int((odd if odd.any() else distance).argmax()), found.shape)
    return Difference(
        max_abs=float(distance.max()),
        largest=largest,
        index=tuple(int(one) for one in place),
        found=float(found[place]),
        expected=float(expected[place]),
        non_finite=int(odd.sum()),
    )
