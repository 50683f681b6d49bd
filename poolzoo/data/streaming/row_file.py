"""Images that were computed once and are kept on disk, each when it first came up, while a network trains.

Each process that adds images writes a part of its own: `<part>.rows` with the pixels one behind the other, and
`<part>.table` with a record for each. It reads the parts of all, so that processes need no lock. A record is written
when the disk has its pixels. So whatever has a record is whole, and a killed run goes on where it was. A record holds a
checksum of the pixels, which is compared when a process first reads an image that another one wrote.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from poolzoo.common import files, locks, output
from poolzoo.data import disk
from poolzoo.data.sizes import MAX_SIDE, Size

# Of images that a killed process may have to compute again: bytes, and seconds as between two checkpoints.
FLUSH_BYTES, FLUSH_SECONDS = 256 << 20, 10.0
BEGIN_BYTES: Final = 8 << 20  # after which the disk begins to write: a flush has little left to wait for
RECORD: Final = np.dtype(
    [
        *[("position", "<u4"), ("crc", "<u4"), ("offset", "<i8"), ("height", "<u4"), ("width", "<u4")],
        *[("rows", "<u4"), ("columns", "<u4")],
        ("check", "<u8"),  # of the others, so that a damaged record is none
    ]
)
_FACTORS: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64)


class Kept(NamedTuple):
    """Where an image is kept: its position, the part, where its pixels begin, its size there, and that in its file."""

    position: int
    part: int
    offset: int
    size: Size
    full: Size


class RowFile:
    """Images by their positions, `uint8[h, w, 3]` each of its own size.

    Methods may be called by several threads. Where the disk is full or the budget spent, nothing more is added, and
    one line says so.

    Args:
        place: The directory, which is made when something is added.
        count: How many images there may be.
        budget: Bytes that this process may add.

    Raises:
        OSError: The directory cannot be read.
    """

    def __init__(self, place: Path, count: int, budget: int) -> None:
        self.place = place
        self._budget = budget
        self._lock = threading.Lock()
        self._part = np.full(count, -1, np.int16)
        self._checked = np.zeros(count, bool)  # images whose pixels are those that were written
        self._record = np.zeros(count, RECORD)
        self._names: list[str] = []
        self._files: list[int] = []
        self._read: dict[str, int] = {}  # records of each table that are known
        self._own: str | None = None
        self._end = 0
        self._begun = 0  # up to where the disk has begun to write
        self._pending: list[tuple[int, ...]] = []
        self._pending_bytes = 0
        self._flushed_at = time.monotonic()
        self.refresh()

    def refresh(self) -> None:
        """Takes notice of what other processes have added."""
        with self._lock:
            for table in sorted(self.place.glob("*.table")):
                if table.stem != self._own:
                    with suppress(OSError):  # damaged, or evicted by another process: it keeps nothing then
                        self._load(table)

    def find(self, position: int) -> Kept | None:
        """Where an image is; None where it is not kept."""
        part = int(self._part[position])
        if part < 0:
            return None
        _, _, offset, height, width, rows, columns, _ = self._record[position].tolist()
        return Kept(position, part, offset, (height, width), (rows, columns))

    def read(self, kept: Kept, top: int = 0, bottom: int | None = None) -> np.ndarray:
        """Rows `top` to `bottom` of an image, `uint8[bottom - top, w, 3]`.

        Raises:
            OSError: The disk does not give them, or gives other pixels than were written; the image is not kept then.
        """
        bottom = kept.size[0] if bottom is None else bottom
        if self._checked[kept.position]:
            return self._rows(kept, top, bottom)
        whole = self._rows(kept, 0, kept.size[0])
        if zlib.crc32(whole.data) != self._record["crc"][kept.position]:
            with self._lock:
                self._part[kept.position] = -1
            output.detail(f"image {kept.position} in {self.place} is damaged and made anew")
            raise OSError("the pixels are damaged")
        self._checked[kept.position] = True
        return whole[top:bottom]

    def _rows(self, kept: Kept, top: int, bottom: int) -> np.ndarray:
        width = kept.size[1]
        pixels = np.empty((bottom - top, width, 3), np.uint8)
        if os.preadv(self._files[kept.part], [pixels.data.cast("B")], kept.offset + top * width * 3) != pixels.nbytes:
            raise OSError(f"{self.place / self._names[kept.part]}.rows is cut off")
        return pixels

    def add(self, position: int, pixels: np.ndarray, full: Size) -> None:
        """Keeps an image `uint8[h, w, 3]`, whose height and width in its file were `full`."""
        with self._lock:
            if self._part[position] >= 0 or self._end + pixels.nbytes > self._budget:
                return
            try:
                part = self._own_part()
            except OSError as error:
                self._give_up(error)
                return
            offset = self._end
            self._end += pixels.nbytes
        content = np.ascontiguousarray(pixels).data.cast("B")
        try:
            written = os.pwrite(self._files[part], content, offset)
            if written != pixels.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._give_up(error)
            return
        record = (position, zlib.crc32(content), offset, *pixels.shape[:2], *full, 0)
        with self._lock:
            self._record[position] = record
            self._checked[position] = True
            self._part[position] = part
            self._pending.append(record)
            self._pending_bytes += pixels.nbytes
            due = self._pending_bytes >= FLUSH_BYTES or time.monotonic() - self._flushed_at > FLUSH_SECONDS
            start, end = self._begun, self._end
            begins = end - start >= BEGIN_BYTES
            if begins:
                self._begun = end
        if begins:
            disk.begin_to_write(self._files[part], start, end)
        if due:
            self.flush()

    def flush(self) -> None:
        """Brings to the disk what was added; what has come there stays after a kill or a power cut."""
        with self._lock:
            pending, self._pending = self._pending, []
            self._pending_bytes = 0
            self._flushed_at = time.monotonic()
            own = self._own
        if not pending or own is None:
            return
        try:
            os.fsync(self._files[self._names.index(own)])
            with (self.place / f"{own}.table").open("ab", buffering=0) as file:
                records = np.array(pending, RECORD)
                records["check"] = _check(records)
                written = file.write(records.tobytes())
                if written != records.nbytes:
                    file.truncate(file.tell() // RECORD.itemsize * RECORD.itemsize)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Flushes, and closes the files."""
        self.flush()
        with self._lock:
            self._part[:] = -1
            while self._files:
                os.close(self._files.pop())
            self._names.clear()

    def __del__(self) -> None:
        with suppress(Exception):  # the interpreter may be shutting down
            self.close()

    def _own_part(self) -> int:
        """The part of this process, which is made when something is first added."""
        if self._own is None:
            files.make_private(self.place)
            number, name = tempfile.mkstemp(prefix="part-", suffix=".rows", dir=self.place)
            locks.lock(number)  # until it is closed: other processes see that it grows
            self._own = Path(name).stem
            self._names.append(self._own)
            self._files.append(number)
        return self._names.index(self._own)

    def _load(self, table: Path) -> None:
        rows = table.with_suffix(".rows")
        known = self._read.get(table.stem, 0)
        with table.open("rb") as file:
            file.seek(known * RECORD.itemsize)
            content = file.read()
        records = np.frombuffer(content[: len(content) // RECORD.itemsize * RECORD.itemsize], RECORD)
        records = records[records["check"] == _check(records)]
        records = records[(records["height"] <= MAX_SIDE) & (records["width"] <= MAX_SIDE)]
        sizes = records["height"].astype(np.int64) * records["width"] * 3
        whole = (sizes > 0) & (records["offset"] >= 0) & (records["offset"] <= rows.stat().st_size - sizes)
        whole &= records["position"] < len(self._part)
        self._read[table.stem] = known + len(content) // RECORD.itemsize
        if not whole.any():
            return
        if table.stem not in self._names:
            self._names.append(table.stem)
            self._files.append(os.open(rows, os.O_RDONLY))
        records = records[whole]
        self._record[records["position"]] = records
        self._checked[records["position"]] = False
        self._part[records["position"]] = self._names.index(table.stem)

    def _give_up(self, error: OSError) -> None:
        if self._budget:
            self._budget = 0
            output.warn(
                f"no more images are kept in {self.place}: {error.strerror or error}",
                "POOLZOO_CACHE names another directory",
            )


def sweep(place: Path) -> None:
    """Removes pixels without a record, which killed processes have left in a directory."""
    for rows in place.glob("part-*.rows"):
        with suppress(OSError):
            if locks.is_held(rows, unknown=True):
                continue
            table = rows.with_suffix(".table")
            content = table.read_bytes() if table.is_file() else b""
            records = np.frombuffer(content[: len(content) // RECORD.itemsize * RECORD.itemsize], RECORD)
            ends = records["offset"] + records["height"].astype(np.int64) * records["width"] * 3
            if not len(ends):
                rows.unlink()
            elif ends.max() < rows.stat().st_size:
                os.truncate(rows, int(ends.max()))


def _check(records: np.ndarray) -> np.ndarray:
    """A checksum of the fields of each record, `uint64[N]`."""
    words = np.ascontiguousarray(records).view(np.uint64).reshape(-1, RECORD.itemsize // 8)[:, :-1]
    mixed = (words ^ (words >> np.uint64(29))) * _FACTORS
    found: np.ndarray = np.bitwise_xor.reduce(mixed ^ (mixed >> np.uint64(31)), axis=1)
    return found + np.uint64(1)  # zeros have one that is not zero
