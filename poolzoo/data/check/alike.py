"""Whether two thumbnails show the same picture, perhaps cropped a little, by normalized cross-correlation.

A pair counts when two correlations are high at the same alignment: that of the luminance, and that of its detail, which
is what a local mean leaves. The first alone takes one horizon for another; the detail tells them apart.
Alignments are crops of one thumbnail, laid on the center of the other: scales, offsets, and both ways round.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Final

import numpy as np
from scipy import ndimage

from poolzoo.data.check.look import THUMB

MIN_LUMINANCE, MIN_DETAIL = 0.93, 0.70  # chosen on CIFAR-10, by benchmarks/data/copies.py
MIN_LUMINANCE_DRAWN, MIN_DETAIL_DRAWN = 0.98, 0.90  # of two drawings: any two scans of a 1 correlate at 0.95
_MIN_UNALIGNED: Final = 0.5  # below it no alignment within reach helps
_MARGIN: Final = 3  # pixels of 32 around the center that is compared
_COMPARED: Final = 26  # side of what is compared
_SCALES: Final = ((1.0, 1.0), (1.06, 1.06), (1.12, 1.12), (1.0, 1.06), (1.06, 1.0))  # of the crop, down and across
_OFFSETS: Final = (-3.0, -1.5, 0.0, 1.5, 3.0)  # pixels
_LOCAL: Final = 5  # side of the mean that detail is measured against
_AT_ONCE: Final = 2048  # pairs


def similarity(first: np.ndarray, second: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The correlation of each pair, `float32[N]`; 0 where the two show different pictures.

    Args:
        first: Thumbnails, `uint8[N, 32, 32]`.
        second: Those that they are compared with.
        drawn: Whether both of a pair are drawings, `bool[N]`.
    """
    found = np.zeros(len(first), np.float32)
    for start in range(0, len(first), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        found[part] = _similarity(first[part].astype(np.float32), second[part].astype(np.float32), drawn[part])
    return found


def _similarity(first: np.ndarray, second: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    found = np.zeros(len(first), np.float32)
    possible = np.flatnonzero(_correlation(first, second) >= _MIN_UNALIGNED)
    if not len(possible):
        return found
    first, second = first[possible], second[possible]
    luminance = np.full(len(first), -1, np.float32)
    detail = luminance.copy()
    for moved, fixed in ((first, second), (second, first)):
        center = _crop(fixed, (1.0, 1.0), (0.0, 0.0))
        for scales, offsets in _alignments():
            crop = _crop(moved, scales, offsets)
            value = _correlation(crop, center)
            if len(better := np.flatnonzero(value > luminance)):
                luminance[better] = value[better]
                detail[better] = _correlation(_detail(crop[better]), _detail(center[better]))
    drawn = drawn[possible]
    same = luminance >= np.where(drawn, MIN_LUMINANCE_DRAWN, MIN_LUMINANCE)
    same &= detail >= np.where(drawn, MIN_DETAIL_DRAWN, MIN_DETAIL)
    found[possible] = np.where(same, luminance, 0)
    return found


@cache
def _alignments() -> tuple[tuple[tuple[float, float], tuple[float, float]], ...]:
    """Scales and offsets, each down and across, whose crops lie within the thumbnail."""
    found = []
    for scales in _SCALES:
        room = [(THUMB - (THUMB - 2 * _MARGIN) * scale) / 2 for scale in scales]
        reachable = [sorted({min(max(offset, -most), most) for offset in _OFFSETS}) for most in room]
        found += [(scales, offsets) for offsets in product(*reachable)]
    return tuple(found)  # type: ignore[arg-type]


def _crop(thumbs: np.ndarray, scales: tuple[float, float], offsets: tuple[float, float]) -> np.ndarray:
    """A part of each thumbnail, resized: `float32[N, _COMPARED, _COMPARED]`."""
    down, across = (_resampling(scale, offset) for scale, offset in zip(scales, offsets, strict=True))
    return down @ thumbs @ across.T  # type: ignore[no-any-return]


@cache
def _resampling(scale: float, offset: float) -> np.ndarray:
    """The matrix that takes one axis to a part of it by linear interpolation."""
    length = (THUMB - 2 * _MARGIN) * scale
    place = (THUMB - length) / 2 + offset + (np.arange(_COMPARED) + 0.5) * length / _COMPARED - 0.5
    low = np.clip(np.floor(place).astype(int), 0, THUMB - 2)
    share = np.clip(place - low, 0, 1)
    matrix = np.zeros((_COMPARED, THUMB), np.float32)
    matrix[np.arange(_COMPARED), low] = 1 - share
    matrix[np.arange(_COMPARED), low + 1] = share
    return matrix


def _detail(images: np.ndarray) -> np.ndarray:
    return images - ndimage.uniform_filter(images, (0, _LOCAL, _LOCAL), mode="nearest")  # type: ignore[no-any-return]


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Normalized cross-correlation of images, `float32[N]`; 0 where one is constant."""
    one, other = (images.reshape(len(images), -1) for images in (first, second))
    one, other = (rows - rows.mean(1, keepdims=True) for rows in (one, other))
    size = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / np.maximum(size, 1e-6)  # type: ignore[no-any-return]
