"""Why a file does not agree with its module: the known changes of its input are tried, and what they give is measured.

A few images decide between the changes; the best is then measured on all of them. What a file computes after a known
mistake agrees but for rounding, so a cause is named where differences fall below a thousandth of the largest logit.
Crops are resized by one filter of many, so that a change that comes close is named as such.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from poolzoo.parity.foreign.changes import Change, double_changes, single_changes
from poolzoo.runtime.foreign.scaling import Scaling

FEW: Final = 4  # images that decide between changes
EXACT: Final = 1e-3  # of the largest logit: a change with which a file agrees
CLOSE: Final = 0.2  # of the difference without any change: one that comes close, where the class also agrees
CLOSE_AGREEMENT: Final = 0.9
SECONDS: Final = 60.0  # after which no further change is tried

Run = Callable[[np.ndarray], np.ndarray]  # `[N, C, H, W]` to scores `[N, K]`


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What was found of a change.

    Attributes:
        change: What is changed, in words.
        agrees: Whether the file agrees then, but for rounding; else it comes close.
        max_abs: The largest difference of a score then.
        scale: The module's largest score.
        agreement: The fraction of images on which the predicted class agrees then.
        images: How many images.
    """

    change: str
    agrees: bool
    max_abs: float
    scale: float
    agreement: float
    images: int

    def describe(self) -> str:
        """`it agrees when the channels are reversed (difference …, …)`."""
        measured = f"difference {self.max_abs:.1e} of scores up to {self.scale:.2g}, same class on "
        measured += f"{self.agreement:.1%} of {self.images} images"
        return f"it {'agrees' if self.agrees else 'comes close'} when {self.change} ({measured})"

    def to_json(self) -> dict[str, object]:
        """`cause` in `verify --json`."""
        return asdict(self)


def find_cause(
    images: np.ndarray, *, run_file: Run, run_module: Run, scaling: Scaling, of_values: bool
) -> Cause | None:
    """The change of its input with which a file agrees with its module, or comes closest; None where none does.

    Args:
        images: In 0–1, `float32[N, C, H, W]`; natural ones, or noise: what looks the same in a mirror tells nothing.
        run_file: The file's scores for its numbers.
        run_module: The module's for images in 0–1.
        scaling: What images in 0–1 are scaled to for the module, and for a file of floats.
        of_values: Whether the file takes floats.
    """
    usual = scaling.apply if of_values else _levels
    few = images[np.unique(np.linspace(0, len(images) - 1, FEW).round().astype(int))]
    expected = run_module(few)
    before = _error(run_file(usual(few)), expected)
    started = time.monotonic()
    best: tuple[float, Change] | None = None

    def attempts() -> Iterable[Change]:
        yield from single_changes(scaling, of_values=of_values)
        yield from double_changes(scaling, of_values=of_values)

    for change in attempts():
        error = _try(change, few, expected, run_file, run_module, usual)
        if best is None or error < best[0]:
            best = error, change
        if best[0] <= EXACT or time.monotonic() - started > SECONDS:
            break
    if best is None or not best[0] <= CLOSE * before:
        best = _permuted(run_file(usual(few)), expected)
        if best is None:
            return None
    change = best[1]
    wanted = run_module(change.pixels(images) if change.of_module and change.pixels is not None else images)
    found = run_file(_numbers(change, images, usual))
    if change is REORDERED:
        found, wanted = np.sort(found, 1), np.sort(wanted, 1)
    cause = Cause(
        change=change.text,
        agrees=_error(found, wanted) <= EXACT,
        max_abs=float(np.abs(found - wanted).max()),
        scale=float(np.abs(wanted).max()),
        agreement=float((found.argmax(1) == wanted.argmax(1)).mean()),
        images=len(images),
    )
    return cause if cause.agrees or cause.agreement >= CLOSE_AGREEMENT else None


REORDERED: Final = Change("the classes are put into another order")


def _permuted(found: np.ndarray, expected: np.ndarray) -> tuple[float, Change] | None:
    """Whether each image has the scores that it should have, of other classes."""
    error = _error(np.sort(found, 1), np.sort(expected, 1))
    return (error, REORDERED) if error <= EXACT else None


def _try(change: Change, few: np.ndarray, expected: np.ndarray, run_file: Run, run_module: Run, usual: Run) -> float:
    """How far the file is from the module with a change; infinite where it cannot be made."""
    if change.of_module and change.pixels is not None:
        expected = run_module(change.pixels(few))
    numbers = _numbers(change, few, usual)
    if np.array_equal(numbers, usual(few)) and not change.of_module:
        return float("inf")  # nothing changes
    return _error(run_file(numbers), expected)


def _numbers(change: Change, images: np.ndarray, usual: Run) -> np.ndarray:
    """What the file gets."""
    if change.pixels is not None and not change.of_module:
        images = change.pixels(images)
    numbers = (change.values or usual)(images)
    if change.numbers is not None:
        numbers = change.numbers(numbers)
    return np.ascontiguousarray(numbers, np.float32)


def _levels(images: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(images * 255))


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a part of the largest score; infinite where one is not finite."""
    if found.shape != expected.shape:
        return float("inf")
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max()) / scale
