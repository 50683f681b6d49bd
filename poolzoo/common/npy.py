"""The start of `.npy` files of unknown origin, and such files memory-mapped: nothing in them is believed unseen.

numpy maps an array whose type takes no bytes by a division by zero, which ends the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy

from poolzoo.common.opening import open_file

MAX_HEADER: Final = 10_000  # characters, as numpy has it
KINDS: Final = "biuf"  # of arrays that poolzoo writes: booleans, integers and floats; texts beside them
TEXT: Final = "U"


def header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and type, from the start of a `.npy` file.

    Raises:
        ValueError: It has no such start.
    """
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format is unknown")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read_header(file, max_header_size=MAX_HEADER)
    return shape, is_fortran, dtype


def require(name: str, shape: Sequence[int], dtype: np.dtype[Any], size: int) -> None:
    """Makes sure that a header states plain values, and as many bytes as there are.

    Args:
        name: Of the file, for messages.
        shape: As stated.
        dtype: As stated.
        size: Bytes behind the header.

    Raises:
        ValueError: It does not.
    """
    count = _count(shape)
    if dtype.kind not in KINDS + TEXT or not dtype.itemsize:
        raise ValueError(f"{name} holds {dtype}, and no plain numbers")
    if count * dtype.itemsize != size:
        raise ValueError(f"{name} has {size:,} bytes, and states {dtype}{list(shape)}")


def mapped(path: Path) -> np.ndarray:
    """The array of a `.npy` file, memory-mapped to be read.

    Raises:
        ValueError: It is no array of plain values, or is not as long as it states.
        OSError: It cannot be read.
    """
    with open_file(path) as file:
        shape, is_fortran, dtype = header(file)
        start = file.tell()
        require(path.name, shape, dtype, file.seek(0, 2) - start)
        return np.memmap(file, dtype, "r", start, shape, "F" if is_fortran else "C")


def _count(shape: Sequence[int]) -> int:
    """The number of values; a Python integer never overflows."""
    if any(isinstance(side, bool) or not isinstance(side, int) or side < 0 for side in shape):
        raise ValueError(f"{list(shape)} is no shape")
    count = 1
    for side in shape:
        count *= side
    return count
