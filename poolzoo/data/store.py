"""The decoded images of folders, kept on disk and memory-mapped: a folder is decoded once, not once a run.

`<cache>/images/<key>/` holds `pixels.npy` (`uint8[N, H, W, 3]`), `labels.npy` (`int64[N]`), the facts `digests.npy` and
`sums.npy`, and `about.json`. The key is a fingerprint of the files, so one that was added, removed, rewritten or
touched gives another key; what nobody asks for any more is evicted in time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL

from poolzoo import jsontext, memory, output, resources
from poolzoo.data import decode, disk, facts, headers, images
from poolzoo.data.facts import Collector, Facts

MENTIONED: Final = 100_000_000  # bytes on the disk from which on a line says where they are
_FORMAT: Final = 2  # of the directory; another gives other keys
_EXTRA: Final = 8192  # bytes that `about.json` and the headers of the arrays take at most
_EXTRA_EACH: Final = 8 + facts.DIGEST_BYTES + 6 * 8  # bytes of an image's label, digest and sums
_held: dict[str, tuple[np.ndarray, Facts]] | None = None  # what was decoded into memory, inside `shared`


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

    @property
    def names(self) -> tuple[str, ...]:
        """The files' names below the folder, with `/` on every system."""
        return tuple(file.relative_to(self.folder).as_posix() for file in self.files)

    @cached_property
    def pixel_bytes(self) -> int | None:
        """What the decoded images will take; None where no header tells."""
        size = self.size or decode.header_size(self.files[0])
        return None if size is None else len(self.files) * size[0] * size[1] * 3

    def decoded(self) -> Generator[np.ndarray, None, None]:
        """The images one by one, as `decode.each` gives them."""
        return decode.each(self.files, self.split, self.size, self.how)


@contextmanager
def shared() -> Iterator[None]:
    """Within it, images that cannot be kept on disk are decoded once and stay in memory, as for many runs on them."""
    global _held
    before, _held = _held, {}
    try:
        yield
    finally:
        _held = before


def load(shelf: disk.Shelf, wanted: Images) -> tuple[np.ndarray, Facts]:
    """The pixels, `uint8[N, H, W, 3]`, and facts about them: memory-mapped and read-only, or decoded into memory.

    Raises:
        decode.MixedSizesError: No size is given and the images differ.
        CheckFailed: Some images cannot be read.
        EnvironmentProblem: They fit neither on the disk nor into memory; none has been decoded.
    """
    found = None
    if shelf.limit_bytes:
        try:
            found = _mapped(shelf, wanted)
            if found is None and _may_build(shelf, wanted):
                _build(shelf, wanted)
                found = _mapped(shelf, wanted)
        except OSError as error:
            reason = error.strerror or str(error)
            output.warn(
                f"decoded images cannot be kept in {shelf.root} ({reason}), they are read into memory",
                "POOLZOO_CACHE names another directory",
            )
    try:
        return _in_memory(wanted) if found is None else found
    finally:
        headers.close()


def _in_memory(wanted: Images) -> tuple[np.ndarray, Facts]:
    if _held is not None and wanted.key in _held:
        return _held[wanted.key]
    _require_memory(wanted)
    collected = Collector(len(wanted.files))
    pixels = decode.gather(len(wanted.files), collected.watch(wanted.decoded()))
    found = pixels, Facts(collected.digests, collected.sums, wanted.names)
    resources.hold(f"the decoded {wanted.split} images", pixels.nbytes, memory.DATA_HINT)
    if _held is not None:
        _held[wanted.key] = found
    return found


def _require_memory(wanted: Images) -> None:
    if wanted.pixel_bytes is not None:  # else decoding will name the broken file
        memory.require(f"the {len(wanted.files):,} decoded {wanted.split} images", wanted.pixel_bytes)


def _mapped(shelf: disk.Shelf, wanted: Images) -> tuple[np.ndarray, Facts] | None:
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
            digests, sums, labels = (np.load(place / f"{name}.npy") for name in ("digests", "sums", "labels"))
            whole = len(digests) == len(sums) == len(pixels)
            if complete and whole and _is_right(pixels, labels, about, wanted):
                return pixels, Facts(digests, sums, wanted.names)
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
    pixel_bytes = wanted.pixel_bytes
    if pixel_bytes is None:  # decoding will name it, and all that are like it
        return False
    needed = pixel_bytes + len(wanted.files) * _EXTRA_EACH + _EXTRA
    what = f"the {len(wanted.files):,} {wanted.split} images decoded, {resources.size(needed)},"
    if not shelf.room(needed):
        _require_memory(wanted)
        kept, free = resources.size(shelf.limit_bytes), resources.size(shelf.free())
        why = f"POOLZOO_CACHE_LIMIT is {kept}, the disk has {free} free"
        output.say(f"{what} do not fit into {shelf.root} ({why}): they are read into memory")
        return False
    tell = output.say if needed >= MENTIONED else output.detail
    tell(f"{what} will be kept in {shelf.root / wanted.key}")
    return True


def _build(shelf: disk.Shelf, wanted: Images) -> None:
    about = {"folder": str(wanted.folder), "split": wanted.split, "images": len(wanted.files), "size": wanted.size}
    try:
        with shelf.building(wanted.key) as place, closing(wanted.decoded()) as rows:
            collected = Collector(len(wanted.files))
            disk.write_rows(place / "pixels.npy", len(wanted.files), collected.watch(rows))
            np.save(place / "digests.npy", collected.digests)
            np.save(place / "sums.npy", collected.sums)
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
