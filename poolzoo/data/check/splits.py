"""The splits of a data set as a check reads them: encoded images of an index, or decoded ones of an array."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from poolzoo.common.text import printable
from poolzoo.data.check import look
from poolzoo.plugin.image_index import ImageIndex


class Images(Protocol):
    """The images of one split."""

    @property
    def labels(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def key(self, position: int) -> np.ndarray:
        """What is another number when the image is another: `uint64[2]`; raises OSError where it is gone."""
        ...

    def look(self, position: int) -> np.ndarray:
        """The row of an image; raises one of `images.Unreadable`."""
        ...

    def name(self, position: int) -> str:
        """An image for messages."""
        ...

    def pixels(self, position: int, side: int) -> np.ndarray:
        """An image as `uint8[h, w, 3]`, at most about `side` pixels wide and high; raises one of `Unreadable`."""
        ...


@dataclass(frozen=True)
class IndexedImages:
    """Of an index of encoded images.

    Attributes:
        index: It.
        root: The folder that names for messages start from.
    """

    index: ImageIndex
    root: str = ""

    @property
    def labels(self) -> np.ndarray:
        return self.index.labels

    def __len__(self) -> int:
        return len(self.index)

    def key(self, position: int) -> np.ndarray:
        """By its place, its bytes and its time."""
        return _key(os.path.abspath(self.index.where(position)), *self.index.stamp(position))

    def look(self, position: int) -> np.ndarray:
        with self.index.open(position) as file:
            return look.look(file, self.index.names[position])

    def name(self, position: int) -> str:
        where = os.path.abspath(self.index.where(position))
        return printable(where.removeprefix(f"{self.root}/") if self.root else where)

    def pixels(self, position: int, side: int) -> np.ndarray:
        from PIL import Image

        from poolzoo.data import images

        images.with_heif()
        with self.index.open(position) as file, Image.open(file) as image:
            if image.format in ("JPEG", "MPO"):
                image.draft(None, (side, side))
            rgb = images.to_rgb(image)
        rgb.thumbnail((side, side))
        return np.asarray(rgb)


@dataclass(frozen=True)
class ArrayImages:
    """Of an array of decoded images, `uint8[N, H, W, 3]`; a name is a split and a number."""

    split: str
    array: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.array)

    def key(self, position: int) -> np.ndarray:
        """By its pixels."""
        return _key(hashlib.blake2b(np.ascontiguousarray(self.array[position]).tobytes()).hexdigest())

    def look(self, position: int) -> np.ndarray:
        return look.look_at_pixels(np.asarray(self.array[position]))

    def name(self, position: int) -> str:
        return f"{self.split}/{position}"

    def pixels(self, position: int, side: int) -> np.ndarray:
        from PIL import Image

        image = Image.fromarray(np.asarray(self.array[position]))
        image.thumbnail((side, side))
        return np.asarray(image)


def _key(*what: object) -> np.ndarray:
    text = repr((look.VERSION, look.has_hashes(), *what))
    found: np.ndarray = look.digest(text.encode("utf-8", "surrogateescape"))
    return found
