"""Shift consistency: how often two shifted copies of an image get the same prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, Literal

import numpy as np

from poolzoo.common.errors import UsageError
from poolzoo.data.sizes import show
from poolzoo.metrics.classification import NO_CLASS, predictions
from poolzoo.metrics.image_ops import windows
from poolzoo.plugin.grammar import suggest

KINDS: Final[dict[str, Literal["reflect", "wrap"]]] = {"crop": "reflect", "circular": "wrap"}  # and numpy's padding


@dataclass(frozen=True)
class ShiftConsistency:
    """How predictions agree under two shifts, as fractions 0–1.

    Attributes:
        kind: `crop` or `circular`.
        reach: Largest shift along each axis in pixels.
        n: Number of images.
        consistency: Fraction of the images with the same prediction in both copies.
        stability: Fraction with the correct prediction in both copies; None without labels.
    """

    kind: str
    reach: int
    n: int
    consistency: float
    stability: float | None

    def to_json(self) -> dict[str, object]:
        """The values by name."""
        return asdict(self)


def pairs(
    images: np.ndarray, kind: str, reach: int | None = None, seed: int = 0, *, offset: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Two copies of each image, shifted independently along each axis by {-reach … reach} pixels.

    `crop`: the image is padded by reflection and cropped at two places (Zhang, Making Convolutional Networks
    Shift-Invariant Again, ICML 2019, arXiv:1904.11486, who crops 224 of 256 pixels; padding is for small images).
    `circular`: pixels that leave on one side return on the other (Chaman and Dokmanić, Truly Shift-Invariant
    Convolutional Neural Networks, CVPR 2021, arXiv:2011.14214, whose script draws one pair of shifts a batch).

    Args:
        images: `uint8[N, H, W, 3]`.
        kind: `crop` or `circular`.
        reach: Largest shift in pixels; None for an eighth of min(H, W).
        seed: Of the shifts; those of an image depend on its index only.
        offset: Index of the first image, where `images` is a part of a set.

    Returns:
        Two of `uint8[N, H, W, 3]`.

    Raises:
        UsageError: The kind does not exist, or the reach is not between 1 and min(H, W) − 1.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no shift {kind!r}", suggest(kind, KINDS) or f"there are {' and '.join(KINDS)}")
    count, height, width, _ = images.shape
    reach = default_reach(images) if reach is None else reach
    if not 1 <= reach < min(height, width):
        raise UsageError(
            f"a reach of {reach} pixels does not fit images of {show((height, width))}",
            f"use 1 to {min(height, width) - 1}",
        )
    margins = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = np.pad(images, margins, mode=KINDS[kind])
    shifts = np.random.default_rng(seed).integers(0, 2 * reach + 1, (offset + count, 2, 2))[offset:]
    first, second = (
        windows(padded, rows=shifts[:, copy, 0], columns=shifts[:, copy, 1], size=(height, width)) for copy in (0, 1)
    )
    return first, second


def default_reach(images: np.ndarray) -> int:
    """An eighth of the shorter side of `[N, H, W, 3]` in pixels, at least 1."""
    shorter_side: int = min(images.shape[1:3])
    return max(1, shorter_side // 8)


def agreement(first_logits: np.ndarray, second_logits: np.ndarray) -> float:
    """Fraction of the rows of two `float[N, classes]` with the same largest logit; NaN and infinity never agree."""
    return float(_agree(predictions(first_logits), predictions(second_logits)).mean())


def _agree(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    agree: np.ndarray = (first == second) & (first != NO_CLASS)
    return agree


def consistency(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    labels: np.ndarray | None,
    *,
    kind: str,
    reach: int | None = None,
    seed: int = 0,
) -> ShiftConsistency:
    """Measures how often predictions agree under two shifts, and how often both are correct.

    Args:
        predict: Gives the logits, `uint8[N, H, W, 3] → float[N, classes]`.
        images: `uint8[N, H, W, 3]`.
        labels: `int[N]`, or None.
        kind: As for `pairs`.
        reach: As for `pairs`.
        seed: As for `pairs`.

    Raises:
        UsageError: As for `pairs`.
    """
    first, second = (predict(shifted) for shifted in pairs(images, kind, reach, seed))
    reach = default_reach(images) if reach is None else reach
    return consistency_of_logits(first, second, labels, kind=kind, reach=reach)


def consistency_of_logits(
    first_logits: np.ndarray, second_logits: np.ndarray, labels: np.ndarray | None, *, kind: str, reach: int
) -> ShiftConsistency:
    """The same from the logits of both copies, two of `float[N, classes]`."""
    first, second = predictions(first_logits), predictions(second_logits)
    agree = _agree(first, second)
    return ShiftConsistency(
        kind=kind,
        reach=reach,
        n=len(agree),
        consistency=float(agree.mean()),
        stability=None if labels is None else float((agree & (first == labels)).mean()),
    )
