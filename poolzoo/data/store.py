"""Decoded images, kept on disk and memory-mapped: a set of images is decoded once, not once a run.

`<cache>/images/<key>/` holds `pixels.npy` (`uint8[N, H, W, 3]`), `labels.npy` (`int64[N]`), the facts `digests.npy` and
`sums.npy`, and `about.json`, which also names the files that could not be read and those whose values do not fit. The
key is a fingerprint of the images, so one that was added, removed, rewritten or touched gives another key; what nobody
asks for any more is evicted in time. Images of several labels have `uint8[N, K]` of these.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL

from poolzoo.common import json_writer, memory, npy, output, resources
from poolzoo.data import decode, disk, headers, image_facts, images
from poolzoo.data.identity import scope
from poolzoo.data.image_facts import Collector, Facts
from poolzoo.data.labels import plain
from poolzoo.data.sizes import Size
from poolzoo.plugin.image_index import ImageIndex

MENTIONED: Final = 100_000_000  # bytes on the disk from which on a line says where they are
_FORMAT: Final = 3  # of the directory; another gives other keys
CHECKED_BYTES: Final = 4 << 30  # of an array; a larger one, which takes more than a second, is not checked when opened
_ARRAYS: Final = ("pixels", "digests", "sums")  # files whose bytes have a checksum; labels are compared
_EXTRA: Final = 8192  # bytes that `about.json` and the headers of the arrays take at most
_EXTRA_EACH: Final = 8 + image_facts.DIGEST_BYTES + 6 * 8  # bytes of an image's label, digest and sums
_held: dict[str, Decoded] | None = None  # what was decoded into memory, inside `shared`
_warned: set[str] = set()  # what was said of shelves, which stay as they are


def shelf(cache_dir: Path) -> disk.Shelf:
    """Where decoded images are kept, with the limit of `POOLZOO_CACHE_LIMIT`."""
    return disk.Shelf(cache_dir / "images", disk.limit())


@dataclass(frozen=True)
class Images:
    """Encoded images that become one array.

    Attributes:
        index: Where they are, with their labels.
        split: "train" or "test", for what is said.
        size: (height, width) to bring them to; None to take them as they are.
        how: In which way.
        native: (height, width) in the files where it is known, for the bytes that they will take.
    """

    index: ImageIndex
    split: str
    size: Size | None
    how: images.Fit = images.PLAIN
    native: Size | None = None

    @cached_property
    def key(self) -> str:
        """What tells these images, made into pixels in this way, from any others.

        The place counts too: two splits of a reproducible archive may hold files of the same names, sizes and times.
        """
        place = str(Path(self.index.storage.place).resolve())
        about = (_FORMAT, PIL.__version__, self.transform, self.how, self.size, place)
        digest = hashlib.sha256(repr(about).encode())
        digest.update(scope(self.index, self.split).encode())
        for position, (name, label) in enumerate(zip(self.index.names, self.index.labels.tolist(), strict=True)):
            try:
                size, time = self.index.stamp(position)
            except OSError:  # it is gone, or never was there: whoever decodes it says so
                size, time = -1, -1
            digest.update(os.fsencode(f"/{name}\0{label}\0{size}\0{time}\n"))
        return digest.hexdigest()[:32]

    @property
    def transform(self) -> str:
        """How they become pixels, in words."""
        return images.TRANSFORMS[self.how.reader]

    @cached_property
    def pixel_bytes(self) -> int | None:
        """What the decoded images will take; None where no header tells."""
        found = (decode.header_size(self.index, position) for position in headers.sample(len(self.index)))
        size = self.size or self.native or next((size for size in found if size is not None), None)
        return None if size is None else len(self.index) * size[0] * size[1] * 3

    def decoded(self, report: decode.Report) -> Generator[np.ndarray, None, None]:
        """The images one by one, as `decode.each` gives them."""
        return decode.each(self.index, self.split, self.size, self.how, report)

    def without(self, broken: Sequence[tuple[int, str]]) -> np.ndarray:
        """Which images are left where some, by their positions, cannot be read, `bool[N]`."""
        keep = np.ones(len(self.index), bool)
        keep[[position for position, _ in broken]] = False
        return keep


@dataclass(frozen=True)
class Decoded:
    """What came of encoded images.

    Attributes:
        pixels: Of those that can be read, `uint8[N, H, W, 3]`; memory-mapped and read-only, or in memory.
        facts: About these.
        report: Those that cannot, and those whose values do not fit.
    """

    pixels: np.ndarray
    facts: Facts
    report: decode.Report = field(default_factory=decode.Report)


@contextmanager
def shared() -> Iterator[None]:
    """Within it, images that cannot be kept on disk are decoded once and stay in memory, as for many runs on them."""
    global _held
    before, _held = _held, {}
    try:
        yield
    finally:
        _held = before


def require_room(shelf: disk.Shelf, parts: Sequence[Images]) -> None:
    """Makes sure that the parts of a data set fit on the disk or into memory together, before any is decoded.

    Raises:
        EnvironmentProblem: They do not.
    """
    parts = [part for part in parts if part.pixel_bytes is not None]  # of others decoding names the broken files
    if memory.fits(sum(part.pixel_bytes or 0 for part in parts)):
        return
    missing = [part for part in parts if not (_held and part.key in _held)]
    waiting: list[Images] = []
    with suppress(OSError):  # whoever decodes says why nothing can be kept
        missing = [part for part in missing if not (shelf.limit_bytes and shelf.find(part.key))]
        on_disk = 0
        for part in missing:
            if shelf.limit_bytes and shelf.room(on_disk + _disk_bytes(part)):
                on_disk += _disk_bytes(part)
            else:
                waiting.append(part)
        missing = waiting
    if missing:
        what = " and ".join(f"{len(part.index):,} decoded {part.split}" for part in missing)
        memory.require(f"the {what} images", sum(part.pixel_bytes or 0 for part in missing))


def load(shelf: disk.Shelf, wanted: Images) -> Decoded:
    """The pixels of the images that can be read, and what is known of them and of the others.

    Raises:
        decode.MixedSizesError: No size is given and the images differ.
        EnvironmentProblem: They fit neither on the disk nor into memory; none has been decoded.
    """
    found = None
    if shelf.limit_bytes:
        try:
            found = _mapped(shelf, wanted)
            if found is not None and _is_outdated(wanted, found.report.broken):
                shelf.drop(wanted.key)
                found = None
            if found is None and _may_build(shelf, wanted) and _build(shelf, wanted):
                found = _mapped(shelf, wanted)
        except OSError as error:
            reason = error.strerror or str(error)
            text = f"decoded images cannot be kept in {shelf.root} ({reason}), they are read into memory"
            if text not in _warned:  # by another split, or another trial of a comparison
                _warned.add(text)
                output.warn(text, "POOLZOO_CACHE names another directory")
    try:
        return _in_memory(wanted) if found is None else found
    finally:
        headers.close()


def _in_memory(wanted: Images) -> Decoded:
    if _held is not None and wanted.key in _held:
        return _held[wanted.key]
    _require_memory(wanted)
    collected, report = Collector(len(wanted.index)), decode.Report()
    pixels = decode.gather(len(wanted.index), collected.watch(wanted.decoded(report)))
    found = Decoded(pixels, _facts(wanted, collected.digests, collected.sums, report), report)
    resources.hold(f"the decoded {wanted.split} images", pixels.nbytes, memory.DATA_HINT)
    if _held is not None:
        _held[wanted.key] = found
    return found


def _facts(wanted: Images, digests: np.ndarray, sums: np.ndarray, report: decode.Report) -> Facts:
    keep = wanted.without(report.broken)
    names = tuple(name for name, kept in zip(wanted.index.names, keep, strict=True) if kept)
    return Facts(digests[: len(names)], sums[: len(names)], names)


def _require_memory(wanted: Images) -> None:
    if wanted.pixel_bytes is not None:  # else decoding will name the broken file
        memory.require(f"the {len(wanted.index):,} decoded {wanted.split} images", wanted.pixel_bytes)


def _mapped(shelf: disk.Shelf, wanted: Images) -> Decoded | None:
    """What is kept of these images; None where there is nothing, or it is damaged (and then removed)."""
    place = shelf.find(wanted.key)
    if place is None:
        return None
    try:
        about = json.loads((place / "about.json").read_text("utf-8", "surrogateescape"))
        mixed = about.get("mixed")
        if mixed is None:
            pixels = npy.mapped(place / "pixels.npy")
            digests, sums, labels = (
                np.array(npy.mapped(place / f"{one}.npy")) for one in ("digests", "sums", "labels")
            )
            whole = len(digests) == len(sums) == len(pixels)
            broken = [(int(position), str(reason)) for position, reason in about["broken"]]
            report = decode.Report(broken, decode.Misfits(about["misfits"]))
            same = "crc32" not in about or about["crc32"] == _checksums(place)  # earlier versions wrote none
            if whole and same and _is_right(pixels, labels, about, wanted, wanted.without(broken)):
                return Decoded(pixels, _facts(wanted, digests, sums, report), report)
    except PermissionError:  # another user's, who may want it
        raise
    except Exception:  # whatever numpy and json say of a damaged file; it is made anew
        mixed = None
    if mixed is not None:
        raise decode.MixedSizesError(mixed)
    output.detail(f"{place} is damaged and made anew")
    shelf.drop(wanted.key)
    return None


def _is_right(pixels: np.ndarray, labels: np.ndarray, about: dict[str, Any], wanted: Images, keep: np.ndarray) -> bool:
    shape = (int(keep.sum()), *(wanted.size or about["shape"][1:3]), 3)
    right = pixels.shape == shape == tuple(about["shape"]) and pixels.dtype == np.uint8
    return right and pixels.flags.c_contiguous and np.array_equal(labels, wanted.index.labels[keep])


def _is_outdated(wanted: Images, broken: Sequence[tuple[int, str]]) -> bool:
    """Whether an image can be read that could not be: its permissions, or a disk, may be repaired without a trace."""
    if not broken:
        return False
    part = wanted.index.take(np.array([position for position, _ in broken], np.int64))
    with closing(decode.each(part, wanted.split, wanted.size, wanted.how)) as rows:
        return next(rows, None) is not None


def _may_build(shelf: disk.Shelf, wanted: Images) -> bool:
    """Whether there is room; says where the images will be kept and how large they are, or why they are not."""
    pixel_bytes = wanted.pixel_bytes
    if pixel_bytes is None:  # decoding will name it, and all that are like it
        return False
    needed = _disk_bytes(wanted)
    what = f"the {len(wanted.index):,} {wanted.split} images decoded, {resources.size(needed)},"
    if not shelf.room(needed):
        _require_memory(wanted)
        kept, free = resources.size(shelf.limit_bytes), resources.size(shelf.free())
        why = f"POOLZOO_CACHE_LIMIT is {kept}, the disk has {free} free"
        output.say(f"{what} do not fit into {shelf.root} ({why}): they are read into memory")
        return False
    tell = output.say if needed >= MENTIONED else output.detail
    tell(f"{what} will be kept in {shelf.root / wanted.key}")
    return True


def _disk_bytes(wanted: Images) -> int:
    """What the decoded images will take on the disk at most."""
    return (wanted.pixel_bytes or 0) + len(wanted.index) * _EXTRA_EACH + _EXTRA


class _NoImageError(Exception):
    """None of the images can be read."""


def _build(shelf: disk.Shelf, wanted: Images) -> bool:
    """Decodes the images into the shelf; whether there is any."""
    about = {
        "folder": wanted.index.storage.place,
        "split": wanted.split,
        "images": len(wanted.index),
        "size": wanted.size,
    }
    report = decode.Report()
    try:
        with shelf.building(wanted.key) as place, closing(wanted.decoded(report)) as rows:
            collected = Collector(len(wanted.index))
            count = len(wanted.index)
            count = disk.write_rows(place / "pixels.npy", count, collected.watch(rows), or_fewer=True)
            if not count:
                raise _NoImageError
            np.save(place / "digests.npy", collected.digests[:count])
            np.save(place / "sums.npy", collected.sums[:count])
            keep = wanted.without(report.broken)
            pixels = npy.mapped(place / "pixels.npy")
            labels = wanted.index.labels[keep]
            np.save(place / "labels.npy", plain(labels))
            found = {"broken": report.broken, "misfits": report.misfits.to_json(), "crc32": _checksums(place)}
            made = {"shape": pixels.shape, "transform": wanted.transform, "pillow": PIL.__version__}
            _describe(place, {**about, **made, **found})
            del pixels  # or Windows would not let the directory be renamed
    except _NoImageError:
        return False
    except decode.MixedSizesError as mixed:
        # Kept as well, or every load would decode all up to the odd one before it knew.
        with suppress(OSError), shelf.building(wanted.key) as place:
            _describe(place, {**about, "mixed": str(mixed)})
        raise
    return True


def _checksums(place: Path) -> dict[str, int]:
    """CRC-32 of each array, by name; 0 of one that is too large. Read and not mapped, which would count as memory."""
    found = {}
    for name in _ARRAYS:
        file, value = place / f"{name}.npy", 0
        if file.stat().st_size <= CHECKED_BYTES:
            with file.open("rb", buffering=0) as opened:
                while block := opened.read(1 << 20):
                    value = zlib.crc32(block, value)
        found[name] = value
    return found


def _describe(place: Path, about: Mapping[str, object]) -> None:
    text = json_writer.dumps(about, indent=2) + "\n"
    (place / "about.json").write_text(text, "utf-8", "surrogateescape")  # any bytes may be a file's name
