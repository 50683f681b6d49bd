"""Directories for temporary files. The next command removes what a killed process left of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from poolzoo.common import locks
from poolzoo.common.errors import EnvironmentProblem


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new directory in that for temporary files, which only its owner can read; gone when the block ends.

    Raises:
        EnvironmentProblem: There is no place for it.
        OSError: It cannot be made.
    """
    place = _place()
    _sweep_once(place)
    with locks.unfinished(place / "poolzoo", is_folder=True) as folder:
        yield folder


def _place() -> Path:
    try:
        return Path(tempfile.gettempdir()).absolute()
    except FileNotFoundError as error:  # it tried to write a file into each
        text = "no directory for temporary files can be written to"
        raise EnvironmentProblem(text, "free some space, or set TMPDIR to a directory that has some") from error


@cache
def _sweep_once(place: Path) -> None:
    locks.sweep(place)
