"""A sample of many images, small enough to come with weights: it shows how many of other images are among them.

It has the smallest digests (bottom-k sketch: Cohen and Kaplan, Summarizing Data using Bottom-k Sketches, PODC 2007). An
image whose digest is as small as these is in the sample, or it was not among the images. The share of the former
estimates the share of all. Digests are those of decoded pixels: another encoding or size of an image is another image.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from poolzoo.data.image_facts import DIGEST_BYTES

SIZE: Final = 2048  # digests, 16 kB


class Overlap(NamedTuple):
    """How many images a sample can judge, and how many of these are in it."""

    judged: int
    found: int

    @property
    def share(self) -> float:
        """The estimated share of all images, 0–1; 0 where none can be judged."""
        return self.found / self.judged if self.judged else 0.0


def sketch(digests: np.ndarray) -> np.ndarray:
    """The sample of images with these digests, `uint8[N, 8] → uint8[at most SIZE, 8]`."""
    return np.unique(_numbers(digests))[:SIZE, None].view(np.uint8)


def overlap(sample: np.ndarray, digests: np.ndarray) -> Overlap:
    """What a sample says about images with these digests, `uint8[N, 8]`."""
    known, others = _numbers(sample), _numbers(digests)
    judged = others[others <= known.max()] if len(known) else others[:0]
    return Overlap(len(judged), int(np.isin(judged, known).sum()))


def _numbers(digests: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(digests).view(f"<u{DIGEST_BYTES}").ravel()
