"""Where the encoded images of a split lie, and their labels: an index that holds no image, under 200 bytes each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, Protocol, overload

import numpy as np

from poolzoo.common.errors import PoolzooError, reason
from poolzoo.common.opening import open_file


class Names(Sequence[str]):
    """Many names in one buffer of bytes: a Python string alone takes 49 bytes more.

    Args:
        encoded: All names, one behind the other, as `os.fsencode` gives them.
        ends: Where each one ends in `encoded`, `int64[N]`.
    """

    def __init__(self, encoded: bytes, ends: np.ndarray) -> None:
        self.encoded = encoded
        self.ends = ends

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """The names in their order."""
        encoded = [os.fsencode(name) for name in names]
        return cls(b"".join(encoded), np.fromiter(accumulate(map(len, encoded)), np.int64, len(encoded)))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> Names: ...
    def __getitem__(self, position: int | slice) -> str | Names:
        if isinstance(position, slice):
            return self.take(np.arange(len(self))[position])
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        position %= len(self)
        start = int(self.ends[position - 1]) if position else 0
        return os.fsdecode(self.encoded[start : int(self.ends[position])])

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self.ends.tolist():
            yield os.fsdecode(self.encoded[start:end])
            start = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Names):
            return NotImplemented
        return self.encoded == other.encoded and np.array_equal(self.ends, other.ends)

    __hash__ = None  # type: ignore[assignment]

    def take(self, chosen: np.ndarray) -> Names:
        """The names at positions `int64[n]`."""
        starts = np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])
        pairs = zip(starts[chosen].tolist(), self.ends[chosen].tolist(), strict=True)
        encoded = b"".join(self.encoded[start:end] for start, end in pairs)
        return Names(encoded, np.cumsum(self.ends[chosen] - starts[chosen], dtype=np.int64))


class Storage(Protocol):
    """Encoded images by their rows. It goes to worker processes by pickle, and opens files there when it first reads.

    Attributes:
        place: The folder, file or pattern, for messages and for the identity of what is cached.
    """

    @property
    def place(self) -> str: ...

    def open(self, row: int, name: str) -> BinaryIO:
        """The encoded image of a row as a seekable binary file; the caller closes it.

        Raises:
            OSError: It cannot be read.
        """
        ...

    def stamp(self, row: int, name: str) -> tuple[int, int]:
        """Bytes and modification time in nanoseconds, which change when the image is rewritten.

        Raises:
            OSError: It is gone.
        """
        ...


@dataclass(frozen=True)
class FileStorage:
    """Images that are files below a folder, by their names."""

    place: str

    def open(self, row: int, name: str) -> BinaryIO:
        """The file, opened."""
        return open_file(os.path.join(self.place, name))

    def stamp(self, row: int, name: str) -> tuple[int, int]:
        """Of the file."""
        about = os.stat(os.path.join(self.place, name))
        return about.st_size, about.st_mtime_ns


@dataclass(frozen=True)
class ImageIndex:
    """The encoded images of a split in their order.

    Attributes:
        storage: What reads them.
        names: Their names, unique in the split: paths below `storage.place` with `/`, or keys of records.
        labels: `int32[N]`, places in the names of the classes; `uint8[N, K]` of zeros and ones for several labels.
        rows: Rows in the storage, `int64[N]`; None for 0, 1, …
    """

    storage: Storage
    names: Names
    labels: np.ndarray
    rows: np.ndarray | None = field(default=None)

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.names) or (self.rows is not None and len(self.rows) != len(self.names)):
            raise ValueError(f"{len(self.names)} names need as many labels and rows")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def nbytes(self) -> int:
        """Bytes that the index takes, without the storage."""
        rows = 0 if self.rows is None else self.rows.nbytes
        return len(self.names.encoded) + self.names.ends.nbytes + self.labels.nbytes + rows

    def open(self, position: int) -> BinaryIO:
        """One encoded image as a seekable binary file, which the caller closes.

        Raises:
            OSError: It cannot be read, whatever the storage raises or gives.
        """
        try:
            file = self.storage.open(self._row(position), self.names[position])
        except (OSError, PoolzooError, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            raise OSError(f"open failed: {reason(error)}") from error
        if not (hasattr(file, "read") and hasattr(file, "seek")):
            raise OSError(f"open gave {type(file).__name__}, and no binary file")
        return file

    def stamp(self, position: int) -> tuple[int, int]:
        """Bytes and modification time in nanoseconds of one image.

        Raises:
            OSError: It is gone, or whatever the storage raises or gives instead.
        """
        try:
            size, time = self.storage.stamp(self._row(position), self.names[position])
            return int(size), int(time)
        except (OSError, PoolzooError, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # a plugin may raise or give anything
            raise OSError(f"stamp failed: {reason(error)}") from error

    def where(self, position: int) -> Path:
        """One image for messages, such as `photos/train/ant/1.jpg` or `shards/0001.tar/1.jpg`."""
        return Path(self.storage.place, self.names[position])

    def take(self, chosen: np.ndarray) -> ImageIndex:
        """The part of the index at positions `int64[n]`."""
        rows = chosen.astype(np.int64) if self.rows is None else self.rows[chosen]
        return ImageIndex(self.storage, self.names.take(chosen), self.labels[chosen], rows)

    def _row(self, position: int) -> int:
        return position if self.rows is None else int(self.rows[position])
