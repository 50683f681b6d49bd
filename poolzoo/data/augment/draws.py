"""Random numbers that depend on a key and a position alone, so that no order, worker or process changes them.

They are Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), for all positions
of a batch at once: a generator for each position would take longer than many operators on small images.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np

_ROUNDS: Final = 10
_MULTIPLIERS: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)
_WORDS: Final = 4  # numbers of one counter


class Purpose(IntEnum):
    """What numbers are drawn for; those of different purposes are independent. Values keep their meaning forever."""

    POLICY = 1
    COLOR_JITTER = 2
    ERASING = 3


def uniform(seed: int, epoch: int, purpose: Purpose, positions: np.ndarray, count: int) -> np.ndarray:
    """Numbers in [0, 1) for each position, with steps of 2⁻³².

    Args:
        seed: Of the run, below 2³².
        epoch: Its number, below 2³².
        purpose: What they are for.
        positions: Of images in their split, `int64[n]`, below 2³².
        count: How many for each.

    Returns:
        `float64[n, count]`.
    """
    blocks = -(-count // _WORDS)
    counters = np.zeros((len(positions), blocks, _WORDS), np.uint64)
    counters[..., 0] = positions[:, None]
    counters[..., 1] = np.arange(blocks)
    counters[..., 2] = purpose
    words = philox(counters, (seed, epoch))
    return words.reshape(len(positions), -1)[:, :count] * 2.0**-32


def philox(counters: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10 of counters `uint64[…, 4]` below 2³² with a key of two such numbers, `uint64[…, 4]`."""
    a, b, c, d = (counters[..., word] for word in range(_WORDS))
    for number in range(_ROUNDS):
        first, second = (np.uint64((value + number * step) & int(_LOW)) for value, step in zip(key, _WEYL, strict=True))
        upper, lower = _MULTIPLIERS[0] * a, _MULTIPLIERS[1] * c
        a, b, c, d = (
            (lower >> _HALF) ^ b ^ first,
            lower & _LOW,
            (upper >> _HALF) ^ d ^ second,
            upper & _LOW,
        )
    return np.stack([a, b, c, d], -1)
