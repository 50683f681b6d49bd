"""Where random crops of streamed images come from: encoded photographs, or photographs that are reduced once."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np

from poolzoo.data import images
from poolzoo.data.augment.crops import Box, part_of, resize_into, scaled_box
from poolzoo.data.resize import PLAIN, Fit
from poolzoo.data.sizes import Size
from poolzoo.data.streaming.row_file import RowFile
from poolzoo.plugin.image_index import ImageIndex

MARGIN: Final = 8 / 7  # sides of a reduced photograph through those of the crops: 256 for crops of 224
Choose = Callable[[Size], Box]


@runtime_checkable
class Keeper(Protocol):
    """What keeps images that were computed once."""

    def refresh(self) -> None:
        """Takes notice of what other processes have kept; called before an epoch."""
        ...

    def flush(self) -> None:
        """Brings to the disk what is kept; called after an epoch, and where one is broken off."""
        ...


class CropSource(Protocol):
    """Images of which parts are read. Several threads may read at once."""

    def crop(self, position: int, choose: Choose, out: np.ndarray) -> None:
        """Writes a part of one image into `out`, `uint8[h, w, 3]`, resized bilinearly with antialiasing.

        Args:
            position: Of the image.
            choose: Gives the part for the height and width of the image in its file.
            out: Where it goes.

        Raises:
            OSError, ValueError, …: One of `images.Unreadable`.
        """
        ...

    def where(self, position: int) -> Path:
        """The image, for messages."""
        ...


class Encoded:
    """Decodes each image anew, a JPEG at the smallest part of its size that has the pixels of the crop.

    Args:
        index: The encoded images.
        how: By which rules files become pixels.
    """

    def __init__(self, index: ImageIndex, how: Fit = PLAIN) -> None:
        self.index = index
        self.how = how

    def crop(self, position: int, choose: Choose, out: np.ndarray) -> None:
        wanted: Size = (out.shape[0], out.shape[1])
        chosen = cache(choose)
        with self.index.open(position) as file:
            found = images.scaled(file, lambda full: part_of(chosen(full), wanted), self.how)
        pixels = found.array()
        box = scaled_box(chosen(found.full), found.full, pixels.shape[:2], found.start, found.part)
        resize_into(pixels, box, out)

    def where(self, position: int) -> Path:
        return self.index.where(position)


class Reduced:
    """Photographs that are reduced when they first come up, to a little above the size of the crops, and kept.

    A crop always comes from the reduced photograph, so that its pixels do not depend on what was kept already.

    Args:
        index: The encoded images.
        size: Height and width of the crops.
        kept: Keeps the reduced photographs; None reduces them anew each time, to the same pixels.
        how: By which rules files become pixels.
    """

    def __init__(self, index: ImageIndex, size: Size, kept: RowFile | None, how: Fit = PLAIN) -> None:
        self.index = index
        self.size = size
        self.kept = kept
        self.how = how

    def crop(self, position: int, choose: Choose, out: np.ndarray) -> None:
        kept = self.kept.find(position) if self.kept is not None else None
        if self.kept is not None and kept is not None:
            box = scaled_box(choose(kept.full), kept.full, kept.size)
            with suppress(OSError):  # of the cache, not of the photograph
                pixels = self.kept.read(kept, box.top, box.top + box.height)
                resize_into(pixels, box._replace(top=0), out)
                return
        pixels, full = self.reduce(position)
        if self.kept is not None:
            self.kept.add(position, pixels, full)
        resize_into(pixels, scaled_box(choose(full), full, pixels.shape[:2]), out)

    def reduce(self, position: int) -> tuple[np.ndarray, Size]:
        """A photograph reduced, `uint8[h, w, 3]`, and its height and width in the file.

        Raises:
            OSError, ValueError, …: One of `images.Unreadable`.
        """

        def whole(full: Size) -> Box:
            return Box(0, 0, *full)

        with self.index.open(position) as file:
            found = images.scaled(file, lambda full: part_of(whole(full), reduced_size(full, self.size)), self.how)
        size, pixels = reduced_size(found.full, self.size), found.array()
        if size == pixels.shape[:2]:
            return pixels, found.full
        small = np.empty((*size, 3), np.uint8)
        box = scaled_box(whole(found.full), found.full, pixels.shape[:2], found.start, found.part)
        resize_into(pixels, box, small)
        return small, found.full

    def where(self, position: int) -> Path:
        return self.index.where(position)

    def refresh(self) -> None:
        if self.kept is not None:
            self.kept.refresh()

    def flush(self) -> None:
        if self.kept is not None:
            self.kept.flush()


def reduced_size(full: Size, wanted: Size) -> Size:
    """Height and width of a reduced photograph: both sides at least `MARGIN` times those of the crops, or as they are.

    Args:
        full: Height and width of the photograph.
        wanted: Those of the crops.
    """
    factor = min(1.0, MARGIN * max(wanted[0] / full[0], wanted[1] / full[1]))
    return math.ceil(full[0] * factor - 1e-9), math.ceil(full[1] * factor - 1e-9)
