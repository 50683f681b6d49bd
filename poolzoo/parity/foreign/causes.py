"""Why a file does not agree with its module: the known changes of its input are tried, and what they give is measured.

A few images decide between the changes; the best is then measured on all of them. What a file computes after a known
mistake agrees but for rounding, so a cause is named where differences fall below a thousandth of the largest logit.
Crops are resized by one filter of many, so that a change that comes close is named as such.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from poolzoo.parity.foreign.changes import Change, known_changes
from poolzoo.parity.foreign.images import evenly_spaced
from poolzoo.runtime import tolerance
from poolzoo.runtime.foreign.scaling import Scaling

FEW: Final = 4  # images that decide between changes
EXACT: Final = 1e-3  # of the largest logit: a change with which a file agrees
CLOSE: Final = 0.2  # of the difference without any change: one that comes close, where the class also agrees
CLOSE_AGREEMENT: Final = 0.9
SECONDS: Final = 60.0  # after which no further change is tried

Map = Callable[[np.ndarray], np.ndarray]  # images in 0–1 to numbers, or numbers to scores `[N, K]`


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


@dataclass(frozen=True)
class Side:
    """The file or the module.

    Attributes:
        run: Its scores, `[N, K]`, for its numbers, `float32[N, C, H, W]`.
        scale: Its numbers for images in 0–1.
        takes_floats: Whether these may be any floats, and not whole levels alone.
    """

    run: Map
    scale: Map
    takes_floats: bool


def find_cause(images: np.ndarray, file: Side, module: Side, scaling: Scaling) -> Cause | None:
    """The change of its input with which a file agrees with its module, or comes closest; None where none does.

    Args:
        images: In 0–1, `float32[N, C, H, W]`; natural ones, or noise: what looks the same in a mirror tells nothing.
        file: The file.
        module: The module.
        scaling: What images in 0–1 are scaled to where a side takes floats.
    """
    few = images[evenly_spaced(len(images), FEW)]
    expected, found = module.run(module.scale(few)), file.run(file.scale(few))
    before = _error(found, expected)
    started = time.monotonic()
    best, least = None, np.inf
    for change in known_changes(scaling, file_floats=file.takes_floats, module_floats=module.takes_floats):
        error = _error(*_scores(change, few, file, module, (found, expected)))
        if error < least:
            best, least = change, error
        if least <= min(EXACT, CLOSE * before) or time.monotonic() - started > SECONDS:
            break
    if best is None or least > CLOSE * before:  # none where the file gives NaN whatever it gets
        best, least = REORDERED, _error(np.sort(found, 1), np.sort(expected, 1))
        if least > min(EXACT, CLOSE * before):
            return None
    found, expected = _scores(best, images, file, module, None)
    cause = Cause(
        change=best.text,
        agrees=_error(found, expected) <= min(EXACT, CLOSE * before),
        max_abs=float(np.abs(found - expected).max()),
        scale=float(np.abs(expected).max()),
        agreement=float((found.argmax(1) == expected.argmax(1)).mean()),
        images=len(images),
    )
    return cause if cause.agrees or cause.agreement >= CLOSE_AGREEMENT else None


REORDERED: Final = Change("the classes are put into another order")


def _scores(
    change: Change, images: np.ndarray, file: Side, module: Side, known: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of file and module with a change; `known` are those without, where they were computed before."""
    changed, other = (module, file) if change.of_module else (file, module)
    numbers = change.apply(images, changed.scale)
    if known is not None:
        ours = known[0] if change.of_module else known[1]
        theirs = known[1] if change.of_module else known[0]
        if not np.array_equal(numbers, changed.scale(images)):  # else nothing changes
            theirs = changed.run(numbers)
    else:
        ours, theirs = other.run(other.scale(images)), changed.run(numbers)
    found, expected = (ours, theirs) if change.of_module else (theirs, ours)
    return (np.sort(found, 1), np.sort(expected, 1)) if change is REORDERED else (found, expected)


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a part of the largest score; infinite where one is not finite."""
    if found.shape != expected.shape:
        return float("inf")
    scale = float(np.abs(expected).max()) or 1.0
    return float(tolerance.distances(found, expected).max()) / scale
