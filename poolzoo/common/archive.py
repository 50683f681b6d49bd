"""Arrays from a `.npz` file of unknown origin: no object in it is unpickled, and no promise in it takes memory.

An archive may unpack to a thousand times its size. A header in it may state a shape that its bytes do not have. Both
are compared with what is there before anything is allocated.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common import npy
from poolzoo.common.opening import open_file

MAX_BYTES: Final = 512 << 20  # that an archive may unpack to, whatever its size …
MAX_RATIO: Final = 32  # … or so many times its size, where that is more
ENDING: Final = ".npy"


def read(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays by name: the named ones, or all.

    Raises:
        ValueError: It is no archive of plain arrays, is damaged, lacks a name, or unpacks to far more than it is.
        OSError: It cannot be read.
    """
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as found:
            entries = {entry.filename.removesuffix(ENDING): entry for entry in found.infolist()}
            if len(entries) < len(found.infolist()):  # readers differ in which one they take
                raise ValueError("it has two arrays of one name")
            wanted = list(entries) if names is None else list(names)
            if absent := [name for name in wanted if name not in entries]:
                raise ValueError(f"it has no {absent[0]}")
            chosen = [entries[name] for name in wanted]
            total, most = sum(entry.file_size for entry in chosen), max(MAX_BYTES, MAX_RATIO * path.stat().st_size)
            if total > most:
                raise ValueError(f"it unpacks to {total:,} bytes, and {most:,} are the most for its size")
            return {name: _array(found, entry) for name, entry in zip(wanted, chosen, strict=True)}
    except (OSError, ValueError):
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error  # a RuntimeError asks for a password
    except Exception as error:  # lzma and struct have classes of their own, and tokenize, which reads a header
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as file:
        shape, is_fortran, dtype = npy.header(file)
        left = entry.file_size - file.tell()
        npy.require(entry.filename, shape, dtype, left)
        flat = np.frombuffer(bytearray(file.read(left)), dtype)
        return flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)
