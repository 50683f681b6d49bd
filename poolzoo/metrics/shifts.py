"""Shift consistency: how often two shifted copies of an image get the same prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from poolzoo.common.errors import UsageError
from poolzoo.data.sizes import show
from poolzoo.metrics.classification import NO_CLASS, predictions
from poolzoo.metrics.draws import windows
from poolzoo.plugin.grammar import suggest

KINDS: Final = {"crop": "reflect", "circular": "wrap"}  # and how numpy calls what is beyond the border


def pairs(
    images: np.ndarray, kind: str, reach: int | None = None, seed: int = 0, *, offset: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Two copies of each image, shifted by two independent draws from {-reach … reach} an axis.

    `crop`: the image is padded by its mirror image and cropped at two places (Zhang, Making Convolutional Networks
    Shift-Invariant Again, ICML 2019, arXiv:1904.11486, who crops 224 of 256 pixels; padding is for small images).
    `circular`: what leaves on one side comes back on the other (Chaman and Dokmanić, Truly Shift-Invariant
    Convolutional Neural Networks, CVPR 2021, arXiv:2011.14214, whose script draws one pair of shifts a batch).

    Args:
        images: `uint8[N, H, W, 3]`.
        kind: `crop` or `circular`.
        reach: In pixels; None for an eighth of min(H, W).
        seed: Of the draws; those of an image depend on its index alone.
        offset: Index of the first image, where `images` is a part of a set.

    Returns:
        Two of `uint8[N, H, W, 3]`.

    Raises:
        UsageError: The kind does not exist, or the reach is below 1 or not below min(H, W).
    """
    if kind not in KINDS:
        raise UsageError(f"there is no shift {kind!r}", suggest(kind, KINDS) or f"there are {' and '.join(KINDS)}")
    count, height, width, _ = images.shape
    reach = default_reach(images) if reach is None else reach
    if not 1 <= reach < min(height, width):
        raise UsageError(
            f"a reach of {reach} pixels does not fit images of {show((height, width))}",
            f"take 1 to {min(height, width) - 1}",
        )
    margins = (0, 0), (reach, reach), (reach, reach), (0, 0)
    padded = np.pad(images, margins, mode=KINDS[kind])
    draws = np.random.default_rng(seed).integers(0, 2 * reach + 1, (offset + count, 2, 2))[offset:]
    first, second = draws.transpose(1, 2, 0)
    return windows(padded, *first, (height, width)), windows(padded, *second, (height, width))


def default_reach(images: np.ndarray) -> int:
    """An eighth of the shorter side of `[N, H, W, 3]` in pixels, at least 1."""
    return max(1, min(images.shape[1:3]) // 8)


def agreement(first_logits: np.ndarray, second_logits: np.ndarray) -> float:
    """Rank of the rows of two `float[N, classes]` with the same largest logit; NaN and infinity agree with nothing."""
    return float(_agree(predictions(first_logits), predictions(second_logits)).mean())


def _agree(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first == second) & (first != NO_CLASS)


def consistency(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    labels: np.ndarray | None,
    *,
    kind: str,
    reach: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """How often predictions agree under two shifts, and how often both are right.

    Args:
        predict: Gives the logits, `uint8[N, H, W, 3] → float[N, classes]`.
        images: `uint8[N, H, W, 3]`.
        labels: `int[N]`, or None.
        kind, reach, seed: As for `pairs`.

    Returns:
        `kind`, `reach` (pixels), `n`, and as fractions 0–1 `consistency` and `stability`, the share of images with
        both predictions right, None without labels.

    Raises:
        UsageError: As for `pairs`.
    """
    first, second = (predict(shifted) for shifted in pairs(images, kind, reach, seed))
    return compared(first, second, labels, kind=kind, reach=default_reach(images) if reach is None else reach)


def compared(
    first_logits: np.ndarray, second_logits: np.ndarray, labels: np.ndarray | None, *, kind: str, reach: int
) -> dict[str, Any]:
    """The same from the logits of both copies, two of `float[N, classes]`."""
    first, second = predictions(first_logits), predictions(second_logits)
    agree = _agree(first, second)
    return {
        "kind": kind,
        "reach": reach,
        "n": len(agree),
        "consistency": float(agree.mean()),
        "stability": None if labels is None else float((agree & (first == labels)).mean()),
    }
