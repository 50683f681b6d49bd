"""`--test-fraction`: which images of a data set without a test part are held out to test on."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from poolzoo.common.errors import UsageError
from poolzoo.data.choice import strata
from poolzoo.data.held_out import HeldOut
from poolzoo.plugin.image_index import ImageIndex


def test_images(index: ImageIndex, part: HeldOut) -> np.ndarray:
    """Which images are test images, `bool[N]`: the classes in their own proportions, to one image.

    An image's name and the seed decide, so that the order of the images does not matter. Every class keeps at least
    one training image, and a class of one image has no test image.

    Args:
        index: All images.
        part: The share of them to hold out, between 0 and 1, and the seed of the choice.

    Raises:
        UsageError: There are too few images.
    """
    key, fraction = part.seed.to_bytes(8, "little"), part.fraction
    ranks = np.fromiter((_hashed(os.fsencode(name), key) for name in index.names), np.uint64, len(index))
    kinds, classes, counts = np.unique(strata(index.labels), return_inverse=True, return_counts=True)
    exact = fraction * counts
    wanted = np.floor(exact).astype(np.int64)
    # Images that the rounding leaves over go to the classes that lost most by it; a hash decides between equal ones.
    ties = np.fromiter((_hashed(str(kind).encode(), key) for kind in kinds.tolist()), np.uint64, len(kinds))
    order = np.lexsort((ties, wanted - exact))
    order = order[wanted[order] < counts[order] - 1]
    wanted[order[: max(0, round(fraction * len(index)) - int(wanted.sum()))]] += 1
    if not wanted.sum():
        raise UsageError(
            f"--test-fraction {fraction:g} of {len(index):,} images leaves no test image, or a class without training "
            "images",
            "give a larger fraction, or more images",
        )
    chosen = np.zeros(len(index), bool)
    by_class = np.lexsort((ranks, classes))
    place = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)  # within the class
    chosen[by_class] = place < wanted[classes[by_class]]
    return chosen


def _hashed(text: bytes, key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key).digest(), "little")
