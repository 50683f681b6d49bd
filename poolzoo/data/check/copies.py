"""Which images of a data set are copies of one another: the same bytes, or nearly the same picture, also mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from poolzoo.data.check import alike, neighbors, oddities

_AT_ONCE: Final = 65536  # pairs whose thumbnails are in memory


@dataclass(frozen=True)
class Copies:
    """Images of equal bytes, and pairs of them that look alike.

    Attributes:
        content: The same number for the same bytes, `int64[N]`: places among the contents.
        pairs: Contents that show the same picture, `int64[M, 2]`.
        similarity: Of each pair, `float32[M]`, up to 1.
        mirrored: Whether one is the other's mirror image, `bool[M]`.
    """

    content: np.ndarray
    pairs: np.ndarray
    similarity: np.ndarray
    mirrored: np.ndarray


def find(rows: np.ndarray, numbers: np.ndarray, near: bool) -> Copies:
    """Finds them.

    Args:
        rows: All rows, of which the images have some.
        numbers: The row of each image, `int64[N]`.
        near: Whether pictures that are nearly the same are looked for.
    """
    _, first, content = np.unique(rows["digest"][numbers], axis=0, return_index=True, return_inverse=True)
    content = content.ravel()  # numpy 2.0 gives it another shape
    nothing = Copies(content, np.empty((0, 2), np.int64), np.empty(0, np.float32), np.empty(0, bool))
    if not near:
        return nothing
    one_each = numbers[first]
    candidates = np.flatnonzero((rows["odd"][one_each] & oddities.PLAIN) == 0)
    if len(candidates) < 2:
        return nothing
    chosen = one_each[candidates]
    pairs, mirrored = _candidates(rows["hash"][chosen], rows["mirrored"][chosen])
    similarity = np.empty(len(pairs), np.float32)
    thumbs, drawn = rows["thumb"], (rows["odd"][chosen] & oddities.DRAWN) != 0
    for start in range(0, len(pairs), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        one, other = (thumbs[chosen[pairs[part, side]]] for side in (0, 1))
        other = np.where(mirrored[part, None, None], other[:, :, ::-1], other)
        similarity[part] = alike.similarity(one, other, drawn[pairs[part]].all(1))
    copies = np.flatnonzero(similarity)
    _, once = np.unique(pairs[copies], axis=0, return_index=True)  # a symmetric picture is a copy both ways: straight
    kept = copies[once]
    return Copies(content, candidates[pairs[kept]], similarity[kept], mirrored[kept])


def _candidates(hashes: np.ndarray, mirrored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of positions with close hashes, `int64[M, 2]`, and which of them are mirrored, `bool[M]`."""
    count = len(hashes)
    found = neighbors.pairs(np.concatenate([hashes, mirrored]))
    found = found[found[:, 0] < count]  # two mirror images are as close as what they mirror
    turned = found[:, 1] >= count
    pairs = np.sort(found % count, axis=1)
    keep = pairs[:, 0] != pairs[:, 1]  # a symmetric picture is no copy of itself
    both = np.unique(np.column_stack([pairs[keep], turned[keep]]), axis=0)
    return both[:, :2], both[:, 2].astype(bool)
