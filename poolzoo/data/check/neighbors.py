"""Pairs of close 64-bit hashes among millions, without comparing all with all.

Locality-sensitive hashing by sampled bits [1], by sorting [2]: the bits of all hashes are permuted, the results are
sorted, and each is compared with those that follow it closely. Close hashes agree in their first bits for some of
the permutations. Time is `O(tables · (N log N + window · N))`, memory `O(N)`, whatever the hashes are.

[1] Indyk, Motwani, "Approximate Nearest Neighbors", STOC 1998. [2] Charikar, "Similarity Estimation Techniques from
Rounding Algorithms", STOC 2002, section 3.
"""

from __future__ import annotations

from typing import Final

import numpy as np

TABLES: Final = 48  # permutations
WINDOW: Final = 24  # hashes that follow in the order and are compared
RADIUS: Final = 12  # bits of 64 in which the hashes of a pair may differ
_BITS: Final = 64


def pairs(hashes: np.ndarray, radius: int = RADIUS, tables: int = TABLES, window: int = WINDOW) -> np.ndarray:
    """Pairs of positions whose hashes differ in at most `radius` bits: nearly all of them.

    Args:
        hashes: `uint64[N]`.
        radius: Bits that may differ.
        tables: How many permutations are tried.
        window: How many of those that follow are compared.

    Returns:
        `int64[M, 2]`, the smaller position first, each pair once, sorted.
    """
    count = len(hashes)
    bits = np.unpackbits(hashes.astype("<u8")[:, None].view(np.uint8), axis=1)
    generator = np.random.default_rng(0)
    found = np.empty(0, np.int64)
    for _ in range(tables):
        permuted = np.packbits(bits[:, generator.permutation(_BITS)], axis=1)
        order = np.argsort(np.ascontiguousarray(permuted).view(">u8").ravel().astype(np.uint64), kind="stable")
        ordered, fresh = hashes[order], [found]
        for step in range(1, min(window, count - 1) + 1):
            close = np.flatnonzero(np.bitwise_count(ordered[step:] ^ ordered[:-step]) <= radius)
            one, other = order[close], order[close + step]
            fresh.append(np.minimum(one, other) * count + np.maximum(one, other))
        found = np.unique(np.concatenate(fresh))
    return np.stack([found // max(count, 1), found % max(count, 1)], axis=1)
