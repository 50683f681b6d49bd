"""Frames between the host and the process of a runtime: a JSON header and raw arrays. No object is unpickled.

A frame is the magic, the length of the header, the header, and the bytes of the arrays that the header describes.
Numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np

from poolzoo.common import json_reader
from poolzoo.common.json_writer import dumps

MAGIC: Final = b"pzrt"
MAX_HEADER: Final = 1 << 20  # bytes
MAX_ARRAY: Final = 8 << 30  # bytes
MAX_SIDES: Final = 32  # of an array, as each release of numpy has it
DTYPES: Final = ("uint8", "float16", "float32", "float64")


class BadFrame(ValueError):
    """What was read is no frame."""


class NoFrame(EOFError):
    """The other side has closed the stream."""


@dataclass(frozen=True)
class Frame:
    """A message: a JSON object and arrays."""

    header: Mapping[str, Any]
    arrays: tuple[np.ndarray, ...] = ()


def write(stream: IO[bytes], header: Mapping[str, object], arrays: Sequence[np.ndarray] = ()) -> None:
    """Writes a frame, at once.

    Args:
        stream: A buffered binary stream.
        header: What JSON can hold.
        arrays: Of the types in `DTYPES`.
    """
    described = [{"dtype": array.dtype.name, "shape": list(array.shape)} for array in arrays]
    text = dumps({**header, "arrays": described}).encode()
    stream.write(MAGIC + struct.pack("<I", len(text)) + text)
    for array in arrays:
        stream.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    stream.flush()


def read(stream: IO[bytes]) -> Frame:
    """Reads a frame.

    Raises:
        NoFrame: The stream has ended.
        BadFrame: Something else was written to it.
    """
    start = stream.read(len(MAGIC) + 4)
    if len(start) < len(MAGIC) + 4:
        raise NoFrame
    (length,) = struct.unpack("<I", start[len(MAGIC) :])
    if start[: len(MAGIC)] != MAGIC or length > MAX_HEADER:
        raise BadFrame("writes something else to the pipe of its answers")
    try:
        header: Any = json_reader.parse(_exactly(stream, length))
        kinds = [(str(one["dtype"]), tuple(int(side) for side in one["shape"])) for one in header["arrays"]]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise BadFrame("writes an answer without a header") from error
    arrays = []
    for name, shape in kinds:
        if name not in DTYPES or min(shape, default=0) < 0 or len(shape) > MAX_SIDES:
            raise BadFrame(f"writes an answer with an array of {name}{list(shape)}")
        dtype = np.dtype(name).newbyteorder("<")
        count = dtype.itemsize
        for side in shape:
            count *= side
        if count > MAX_ARRAY:
            raise BadFrame(f"writes an answer with an array of {name}{list(shape)}")
        arrays.append(np.frombuffer(bytearray(_exactly(stream, count)), dtype).reshape(shape))
    return Frame(header, tuple(arrays))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise NoFrame
    return content
