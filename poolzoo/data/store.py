"""The decoded images of large folders, kept on disk and memory-mapped: a folder is decoded once, not once a run.

`<cache>/images/<key>/` holds `pixels.npy` (`uint8[N, H, W, 3]`), `labels.npy` (`int64[N]`) and `about.json`. The key is
a fingerprint of the files, so one that was added, removed, rewritten or touched gives another key; what nobody asks for
any more is evicted in time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL

from poolzoo import jsontext, output
from poolzoo.data import decode, disk, images

WORTH: Final = 2000  # images from which on keeping them is worth the disk: fewer are decoded in a second or two
_FORMAT: Final = 1  # of the directory; another gives other keys
_EXTRA: Final = 8192  # bytes that `about.json` and the headers of the arrays take at most


def shelf(cache_dir: Path) -> disk.Shelf:
    """Where decoded images are kept, with the limit of `POOLZOO_CACHE_LIMIT`."""
    return disk.Shelf(cache_dir / "images", disk.limit())


@dataclass(frozen=True)
class Images:
    """Image files that become one array.

    Attributes:
        folder: What they all lie under.
        files: Their paths.
        labels: `int64[N]`.
        split: "train" or "test", for what is said.
        size: (height, width) to bring them to; None to take them as they are.
        how: In which way.
    """

    folder: Path
    files: Sequence[Path]
    labels: np.ndarray
    split: str
    size: decode.Size | None
    how: images.Fit = images.PLAIN

    @cached_property
    def key(self) -> str:
        """What tells these images, made into pixels in this way, from any others.

        The place of the folder counts too: two splits of a reproducible archive may hold files of the same names,
        sizes and times.
        """
        how = (_FORMAT, PIL.__version__, self.transform, self.how, self.size, str(self.folder.resolve()))
        digest = hashlib.sha256(repr(how).encode())
        skip = len(str(self.folder))
        for file, label in zip(self.files, self.labels.tolist(), strict=True):
            about = file.stat()
            line = f"{str(file)[skip:]}\0{label}\0{about.st_size}\0{about.st_mtime_ns}\n"
            digest.update(os.fsencode(line))
        return digest.hexdigest()[:32]

    @property
    def transform(self) -> str:
        """How they become pixels, in words."""
        return images.TRANSFORMS[self.how.reader]

    def decoded(self) -> Generator[np.ndarray, None, None]:
        """The images one by one, as `decode.each` gives them."""
        return decode.each(self.files, self.split, self.size, self.how)


def load(shelf: disk.Shelf, wanted: Images) -> np.ndarray:
    """The pixels, `uint8[N, H, W, 3]`: memory-mapped and read-only where they are kept, else decoded into memory.

    Raises:
        decode.MixedSizesError: No size is given and the images differ.
        CheckFailed: Some images cannot be read.
    """
    pixels = None
    if len(wanted.files) >= WORTH and shelf.limit_bytes:
        try:
            pixels = _mapped(shelf, wanted)
            if pixels is None and _may_build(shelf, wanted):
                _build(shelf, wanted)
                pixels = _mapped(shelf, wanted)
        except OSError as error:
            reason = error.strerror or str(error)
            output.warn(
                f"decoded images cannot be kept in {shelf.root} ({reason}), they are read into memory",
                "POOLZOO_CACHE names another directory",
            )
    return decode.gather(len(wanted.files), wanted.decoded()) if pixels is None else pixels


def _mapped(shelf: disk.Shelf, wanted: Images) -> np.ndarray | None:
    """What is kept of these images; None where there is nothing, or it is damaged (and then removed)."""
    place = shelf.find(wanted.key)
    if place is None:
        return None
    try:
        about = json.loads((place / "about.json").read_text(encoding="utf-8"))
        mixed = about.get("mixed")
        if mixed is None:
            pixels = np.lib.format.open_memmap(place / "pixels.npy", mode="r")
            complete = pixels.offset + pixels.nbytes == (place / "pixels.npy").stat().st_size
            if complete and _is_right(pixels, np.load(place / "labels.npy"), about, wanted):
                return pixels
    except PermissionError:  # another user's, who may want it
        raise
    except Exception:  # whatever numpy and json say of a damaged file; it is made anew
        mixed = None
    if mixed is not None:
        raise decode.MixedSizesError(mixed)
    output.detail(f"{place} is damaged and made anew")
    shelf.drop(wanted.key)
    return None


def _is_right(pixels: np.ndarray, labels: np.ndarray, about: dict[str, Any], wanted: Images) -> bool:
    shape = (len(wanted.files), *(wanted.size or about["shape"][1:3]), 3)
    right = pixels.shape == shape == tuple(about["shape"]) and pixels.dtype == np.uint8
    return right and pixels.flags.c_contiguous and np.array_equal(labels, wanted.labels)


def _may_build(shelf: disk.Shelf, wanted: Images) -> bool:
    """Whether there is room; says where the images will be kept and how large they are, or why they are not."""
    size = wanted.size or decode.header_size(wanted.files[0])
    if size is None:  # decoding will name it, and all that are like it
        return False
    needed = len(wanted.files) * (size[0] * size[1] * 3 + 8) + _EXTRA
    what = f"the {len(wanted.files):,} {wanted.split} images decoded, {_show(needed)},"
    if not shelf.room(needed):
        kept, free = _show(shelf.limit_bytes), _show(shelf.free())
        why = f"POOLZOO_CACHE_LIMIT is {kept}, the disk has {free} free"
        output.say(f"{what} do not fit into {shelf.root} ({why}): they are read into memory")
        return False
    output.say(f"{what} will be kept in {shelf.root / wanted.key}")
    return True


def _show(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _build(shelf: disk.Shelf, wanted: Images) -> None:
    about = {"folder": str(wanted.folder), "split": wanted.split, "images": len(wanted.files), "size": wanted.size}
    try:
        with shelf.building(wanted.key) as place, closing(wanted.decoded()) as rows:
            disk.write_rows(place / "pixels.npy", len(wanted.files), rows)
            pixels = np.lib.format.open_memmap(place / "pixels.npy", mode="r")
            np.save(place / "labels.npy", wanted.labels)
            _describe(place, {**about, "shape": pixels.shape, "transform": wanted.transform, "pillow": PIL.__version__})
            del pixels  # or Windows would not let the directory be renamed
    except decode.MixedSizesError as mixed:
        # Kept as well, or every load would decode all up to the odd one before it knew.
        with suppress(OSError), shelf.building(wanted.key) as place:
            _describe(place, {**about, "mixed": str(mixed)})
        raise


def _describe(place: Path, about: dict[str, Any]) -> None:
    (place / "about.json").write_text(jsontext.dumps(about, indent=2) + "\n", encoding="utf-8")
