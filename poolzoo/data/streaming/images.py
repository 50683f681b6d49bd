"""Images of an index that are decoded when they are asked for, at one size: what evaluation reads of large data."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, suppress
from typing import Any, Final

import numpy as np

from poolzoo.common.text import one_line
from poolzoo.data import blocks, images
from poolzoo.data.resize import PLAIN, Fit
from poolzoo.data.sizes import Size
from poolzoo.data.streaming import prefetch
from poolzoo.data.streaming.row_file import RowFile
from poolzoo.data.streaming.skipped import Skipped
from poolzoo.plugin.image_index import ImageIndex

BATCH: Final = 64  # images that are read together where nobody says how many


class StreamedImages:
    """`uint8[N, H, W, 3]` of encoded images, resized and center-cropped as everywhere; an array to who only reads it.

    Args:
        index: The encoded images.
        size: Height H and width W.
        how: In which way images are brought to that size.
        threads: How many decode; None for one a processor.
        kept: Keeps images, each when it was first read; None keeps none.
        keep: Which images are kept, `bool[N]`; None for all.
        skipped: Images that may be left out: the next one that can be read takes the place of each.

    Reading raises `BrokenImages`, which names the image, where one cannot be read and may not be left out.
    """

    dtype: Final = np.dtype(np.uint8)

    def __init__(
        self,
        index: ImageIndex,
        size: Size,
        how: Fit = PLAIN,
        threads: int | None = None,
        kept: RowFile | None = None,
        keep: np.ndarray | None = None,
        skipped: Skipped | None = None,
    ) -> None:
        self.index = index
        self.size = size
        self.how = how
        self.threads = prefetch.workers(threads)
        self.kept = kept
        self.keep = keep
        self.skipped = skipped or Skipped(None, len(index))
        self.shape: tuple[int, ...] = (len(index), *size, 3)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def ndim(self) -> int:
        """4."""
        return 4

    @property
    def nbytes(self) -> int:
        """Bytes that all images would take."""
        return len(self) * blocks.row_bytes(self)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        if isinstance(chosen, slice):
            chosen = np.arange(len(self))[chosen]
        positions = np.asarray(chosen)
        if positions.dtype == bool:
            positions = np.flatnonzero(positions)
        many = np.arange(len(self))[np.atleast_1d(positions)]  # raises for what is outside, counts from the end
        found = np.empty((len(many), *self.shape[1:]), np.uint8)
        start = 0
        with closing(self.batches(many, min(BATCH, max(1, len(many) // self.threads)))) as parts:
            for part in parts:
                found[start : start + len(part)] = part
                start += len(part)
        return found if positions.ndim else found[0]

    def batches(self, positions: np.ndarray, size: int) -> Generator[np.ndarray, None, None]:
        """The images at `int64[n]` in batches of a size, the next ones decoded meanwhile.

        Raises:
            BrokenImages: One cannot be read.
        """
        parts = (positions[start : start + size] for start in range(0, len(positions), size))
        try:
            with closing(prefetch.filled(self._fill, parts, self.shape[1:], self.threads)) as found:
                for batch, _ in found:
                    yield batch
        finally:
            self.flush()

    def refresh(self) -> None:
        """Takes notice of what other processes have kept."""
        if self.kept is not None:
            self.kept.refresh()

    def flush(self) -> None:
        """Brings to the disk what is kept."""
        if self.kept is not None:
            self.kept.flush()

    def _fill(self, position: int, out: np.ndarray) -> int:
        return self.skipped.read(position, len(self), lambda place: self.fill(place, out), self.index.where)

    def fill(self, position: int, out: np.ndarray) -> None:
        """Writes one image into `out`, `uint8[H, W, 3]`.

        Raises:
            OSError, ValueError, …: One of `images.Unreadable`.
        """
        kept = self.kept.find(position) if self.kept is not None else None
        if kept is not None and self.kept is not None:
            with suppress(OSError, ValueError):  # of the cache, not of the image
                out[:] = self.kept.read(kept)
                return
        with self.index.open(position) as file:
            pixels, full = images.read_with_size(file, self.size, self.how)
        out[:] = pixels
        if self.kept is not None and (self.keep is None or self.keep[position]):
            self.kept.add(position, pixels, full)

    def unreadable(self, positions: np.ndarray) -> list[tuple[int, str]]:
        """The positions of those of the images at `int64[n]` that cannot be read, with the reasons; reads them all."""
        found: dict[int, str] = {}

        def one(position: int, out: np.ndarray) -> int:
            try:
                self.fill(position, out)
            except images.Unreadable as error:
                found[position] = one_line(images.reason(error))
            return position

        parts = (positions[start : start + BATCH] for start in range(0, len(positions), BATCH))
        with closing(prefetch.filled(one, parts, self.shape[1:], self.threads)) as found_batches:
            for _ in found_batches:
                pass
        return sorted(found.items())


def batches(array: blocks.ImageArray, positions: np.ndarray, size: int) -> Generator[np.ndarray, None, None]:
    """Images at `int64[n]` in batches of a size, from an array, or decoded ahead.

    Raises:
        BrokenImages: One cannot be read.
    """
    if isinstance(array, StreamedImages):
        yield from array.batches(positions, size)
        return
    rows = blocks.Rows(array)
    for start in range(0, len(positions), size):
        yield rows[positions[start : start + size]]
