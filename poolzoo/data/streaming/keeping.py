"""How the images of a run are kept: decoded at one size, reduced once, or not at all. This is decided here, and said.

decoded  all images are brought to one size before training begins: small images, in seconds
reduced  each image is reduced when it first comes up, and kept: photographs of which random crops are wanted, to a
         little above the size of the crops; others, and those that networks are tested on, to the size itself
none     each image is decoded whenever it is needed: what is kept would exceed the limit of the cache
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import PIL

from poolzoo.common import files, memory, output, resources
from poolzoo.data import decode, disk, headers, sizes
from poolzoo.data.identity import scope
from poolzoo.data.resize import Fit
from poolzoo.data.sizes import Size
from poolzoo.data.streaming.photographs import reduced_size
from poolzoo.data.streaming.row_file import RowFile, sweep
from poolzoo.plugin.image_index import ImageIndex
from poolzoo.plugin.spec import Split

Mode = Literal["decoded", "reduced", "none"]
# Processor seconds that decoding an image takes, a constant and for each pixel; measured on 2020s x86, and rounded up.
SECONDS_EACH, SECONDS_A_PIXEL = 1e-4, 1e-8
LONGEST: Final = 100.0  # processor seconds of decoding before training begins; more images are read while it trains
CAN_READ_AT_A_PLACE: Final = hasattr(os, "preadv")  # Windows cannot
_FORMAT: Final = 3  # of what is kept; another gives other keys
_SPARE: Final = 1.05  # of the bytes that a sample of headers lets expect


@dataclass(frozen=True)
class Part:
    """Images that are needed at one size.

    Attributes:
        index: The encoded images.
        size: Height and width.
        crops: Whether random crops of that size are wanted, instead of resized and center-cropped images.
        count: How many of them are kept; None for all.
        split: The one that they are of.
    """

    index: ImageIndex
    size: Size
    crops: bool = False
    count: int | None = None
    split: Split = "train"

    @property
    def sampled(self) -> list[Size]:
        """The sizes, (height, width), of some images by their headers."""
        found = (decode.header_size(self.index, position) for position in headers.sample(len(self.index)))
        return [size for size in found if size is not None]

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all images decoded at the size."""
        return len(self.index) * self.size[0] * self.size[1] * 3

    @property
    def kept_bytes(self) -> int:
        """Bytes of what is kept when each is reduced, about."""
        count = len(self.index) if self.count is None else self.count
        kept = [reduced_size(size, self.size) if self.crops else self.size for size in self.sampled]
        return int(_SPARE * count * 3 * float(np.mean([height * width for height, width in kept] or [0])))


def is_quick(parts: Sequence[Part]) -> bool:
    """Whether all parts can be decoded at one size at once: in little time, and onto the disk or into memory.

    Headers of the first part stand for all, so that no file is opened again to be decoded.
    """
    needed, count = sum(part.decoded_bytes for part in parts), sum(len(part.index) for part in parts)
    pixels = float(np.mean([height * width for height, width in parts[0].sampled] or [0]))
    fits = needed <= disk.limit() or memory.fits(needed)
    return fits and count * (SECONDS_EACH + SECONDS_A_PIXEL * pixels) <= LONGEST


def choose(asked: str, parts: Sequence[Part], shelf: disk.Shelf) -> Mode:
    """How images are kept, by the sizes in their headers and the limit of the cache; says it where it is not decoded.

    Args:
        asked: auto, decoded, reduced or none.
        parts: What is needed.
        shelf: Where it is kept.
    """
    as_they_are = all(set(part.sampled) == {part.size} for part in parts if part.crops)
    if asked == "decoded" or (asked == "auto" and as_they_are and is_quick(parts)):
        return "decoded"
    count, needed = sum(len(part.index) for part in parts), sum(part.kept_bytes for part in parts)
    headers.close()  # of files that are not decoded now
    what = f"the {count:,} images are read while the network trains"
    if asked == "none":
        output.say(f"{what}: decoded anew in every epoch")
        return "none"
    if not _can_keep(needed, shelf):
        limit = resources.size(shelf.limit_bytes)
        output.say(
            f"{what}: decoded anew in every epoch, since {resources.size(needed)} of them reduced do not fit into "
            f"{shelf.root} (POOLZOO_CACHE_LIMIT is {limit})"
        )
        return "none" if asked == "auto" else "reduced"  # whose pixels do not depend on what is kept
    crops = [part for part in parts if part.crops and part.sampled]
    example = f" to about {sizes.show(reduced_size(crops[0].sampled[0], crops[0].size))}" if crops else ""
    output.say(
        f"{what}: the first epoch reduces them{example} and keeps them, {resources.size(needed)}, in {shelf.root} "
        "(--data-cache decoded or none overrules)"
    )
    return "reduced"


def _can_keep(needed: int, shelf: disk.Shelf) -> bool:
    if not shelf.limit_bytes or not CAN_READ_AT_A_PLACE:
        return False
    try:
        files.make_private(shelf.root)
        return needed <= shelf.limit_bytes and needed + disk.SPARE <= shelf.free() + disk.size(shelf.root)
    except OSError:
        return False


def rows(shelf: disk.Shelf, parts: Sequence[Part], digests: Sequence[np.ndarray], how: Fit) -> list[RowFile | None]:
    """What keeps the reduced images of each part; None where the disk has no room for them.

    Args:
        shelf: Where they are kept.
        parts: The images.
        digests: Of the files of each part, `uint8[N, 8]`, as `identity.file_digests` gives them.
        how: By which rules files become pixels.
    """
    if not CAN_READ_AT_A_PLACE:
        return [None] * len(parts)
    keys = [_key(part, known, how) for part, known in zip(parts, digests, strict=True)]
    try:
        places = [shelf.find(key) for key in keys]
        for place in places:
            if place is not None:
                sweep(place)
        kept = [0 if place is None else disk.size(place) for place in places]
        budgets = [max(0, part.kept_bytes - known) for part, known in zip(parts, kept, strict=True)]
        if any(budgets) and not shelf.room(sum(budgets)):
            budgets = [0] * len(parts)  # what is there already serves
        return [
            RowFile(shelf.root / key, len(part.index), budget)
            for key, part, budget in zip(keys, parts, budgets, strict=True)
        ]
    except OSError as error:
        text = f"images cannot be kept in {shelf.root} ({error.strerror or error})"
        output.warn(text, "POOLZOO_CACHE names another directory")
        return [None] * len(parts)
    finally:
        headers.close()


def _key(part: Part, digests: np.ndarray, how: Fit) -> str:
    about = (_FORMAT, PIL.__version__, how, part.size, part.crops, str(part.index.storage.place))
    digest = hashlib.sha256(repr(about).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(digests).data)
    digest.update(scope(part.index, part.split).encode())
    return digest.hexdigest()[:32]
