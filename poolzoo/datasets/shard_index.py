"""Where the samples of a WebDataset shard lie in the tar file: read once from its headers, and kept in the cache."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np

from poolzoo.common import files, json_reader, json_writer
from poolzoo.common.errors import CheckFailed, reason
from poolzoo.data import images
from poolzoo.plugin.image_index import Names

LABELS: Final = ("cls", "json", "txt")  # members that hold a label, the first that a sample has
KEYS: Final = ("label", "labels", "class", "classes", "class_name", "category")  # of a label in a `.json`
MAX_LABEL: Final = 1 << 20  # bytes of a member that holds a label
_BLOCK: Final = 512  # bytes of a header
_FORMAT: Final = 2  # of the file in the cache


@dataclass(frozen=True)
class Shard:
    """The samples of one tar file that have an image.

    Attributes:
        names: Names of the images' members.
        offsets: Where each one's bytes begin, `int64[N]`.
        sizes: How many they are, `int64[N]`.
        labels: The label of each one as JSON: a text, a number or a list; "" where the sample has none.
        others: Number of samples without an image.
    """

    names: Names
    offsets: np.ndarray
    sizes: np.ndarray
    labels: Names
    others: int


class _Member(NamedTuple):
    key: str
    suffix: str
    name: str
    offset: int
    size: int


def read(path: Path, cache_dir: Path) -> Shard:
    """The samples of a shard, from the cache where it has not changed since it was read.

    Raises:
        CheckFailed: It is no tar file, or damaged.
        OSError: It cannot be read.
    """
    about = path.stat()
    facts = (_FORMAT, str(path.resolve()), about.st_size, about.st_mtime_ns)
    kept = cache_dir / "shards" / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.npz"
    with suppress(Exception):  # it is not there, or damaged: it is made anew
        return _load(kept)
    shard = _scan(path)
    with suppress(OSError):  # a cache that cannot be kept is no reason to fail
        files.make_private(kept.parent)
        files.write_atomically(kept, _packed(shard))
    return shard


def _packed(shard: Shard) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        names=np.frombuffer(shard.names.encoded, np.uint8),
        name_ends=shard.names.ends,
        labels=np.frombuffer(shard.labels.encoded, np.uint8),
        label_ends=shard.labels.ends,
        offsets=shard.offsets,
        sizes=shard.sizes,
        others=np.array(shard.others),
    )
    return buffer.getvalue()


def _load(path: Path) -> Shard:
    """Raises CheckFailed or ValueError where the file is not what `_packed` makes."""
    found = files.read_archive(path)
    counts = {found[name].shape for name in ("offsets", "sizes", "name_ends", "label_ends")}
    numbers = (found[name] for name in ("offsets", "sizes", "name_ends", "label_ends"))
    if len(counts) != 1 or any(one.dtype != np.int64 or one.ndim != 1 or (one < 0).any() for one in numbers):
        raise ValueError("it is no index of images")
    names, labels = (Names(found[f"{one}s"].tobytes(), found[f"{one}_ends"]) for one in ("name", "label"))
    return Shard(names, found["offsets"], found["sizes"], labels, int(found["others"]))


def _scan(path: Path) -> Shard:
    names, labels, offsets, sizes, others = [], [], array("q"), array("q"), 0
    with files.open_file(path) as file:
        for sample in _samples(path, file):
            image = _image(path, sample)
            if image is None:
                others += 1
                continue
            names.append(image.name)
            offsets.append(image.offset)
            sizes.append(image.size)
            labels.append(_label(path, file, sample))
    return Shard(
        Names.of(names),
        np.array(offsets, np.int64),
        np.array(sizes, np.int64),
        Names.of(labels),
        others,
    )


def _image(path: Path, sample: Sequence[_Member]) -> _Member | None:
    """The image of a sample; of several the one whose suffix is an ending alone, since `seg.png` is another thing.

    Raises:
        CheckFailed: There are several that may be it.
    """
    found = [one for one in sample if f".{one.suffix.rpartition('.')[2]}" in images.extensions()]
    chosen = [one for one in found if "." not in one.suffix] or found
    if len(chosen) > 1:
        text = f"{path} holds several images in one sample, {chosen[0].name} and {chosen[1].name}"
        raise CheckFailed(text, "a dot ends the key of a sample; give each image a key of its own, and one dot")
    return chosen[0] if chosen else None


def _samples(path: Path, file: BinaryIO) -> Iterator[list[_Member]]:
    """The members that follow each other with one key, as WebDataset groups them."""
    sample: list[_Member] = []
    for member in _members(path, file):
        if sample and member.key != sample[0].key:
            yield sample
            sample = []
        if any(member.suffix == one.suffix for one in sample):
            text = f"{path} holds {member.name} twice in a sample"
            raise CheckFailed(text, "a dot ends the key of a sample; give the files names with one dot")
        sample.append(member)
    if sample:
        yield sample


def _members(path: Path, file: BinaryIO) -> Iterator[_Member]:
    """The files in a tar, in their order; a header that is damaged is an error, where `tarfile` sees an end."""
    from webdataset.tariterators import base_plus_ext

    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                if not member.isreg() or member.name.startswith("__"):
                    continue
                if member.size < 0:
                    raise tarfile.HeaderError(f"{member.name} has {member.size} bytes")
                key, suffix = base_plus_ext(member.name)
                if key is not None:
                    yield _Member(key, suffix.lower(), member.name, member.offset_data, member.size)
            end = tar.offset
    except OSError:
        raise
    except Exception as error:  # tarfile has classes of its own, and raises others for odd fields of a header
        hint = "write it again; a compressed tar must be unpacked: gunzip"
        raise CheckFailed(f"shard {path} is no tar file, or damaged: {reason(error, 200)}", hint) from error
    size = os.fstat(file.fileno()).st_size
    file.seek(end)
    if end < size and any(file.read(_BLOCK)):
        raise CheckFailed(f"shard {path} is damaged at byte {end:,} of {size:,}", "write it again")


def _label(path: Path, file: BinaryIO, sample: list[_Member]) -> str:
    """The label of a sample as JSON; "" where it has none."""
    member = next((one for suffix in LABELS for one in sample if one.suffix == suffix), None)
    if member is None:
        return ""
    if member.size > MAX_LABEL:
        raise CheckFailed(f"{path}: {member.name} takes {member.size:,} bytes", "a label is a short text")
    content = os.pread(file.fileno(), member.size, member.offset)
    try:
        text = content.decode("utf-8-sig").strip()
        value: object = json_reader.parse(text) if member.suffix == "json" else text
        if isinstance(value, dict):
            value = next((value[key] for key in KEYS if key in value), None)
        return json_writer.dumps(value) if value is not None and value != "" else ""
    except (ValueError, RecursionError) as error:  # that of json, and of the decoder
        raise CheckFailed(f"{path}: {member.name} holds no label: {error}", "labels are UTF-8 text") from None
