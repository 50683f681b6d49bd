"""The file or folder that a source's text names: there it is, or one line says what is there instead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from poolzoo.common.errors import UsageError
from poolzoo.plugin.grammar import suggest

WORTH_LISTING: Final = 50  # files of one folder from which on reading its list is faster than asking for each


def require_folder(path: Path, hint: str) -> None:
    """Makes sure that there is a folder.

    Raises:
        UsageError: There is none; names one that is spelled alike.
    """
    if path.is_dir():
        return
    if path.exists():
        raise UsageError(f"{path} is a file and no folder", hint)
    raise UsageError(f"data folder {str(path)!r} does not exist", _near(path, needs_folder=True) or hint)


def require_file(path: Path, hint: str, endings: Sequence[str] = ()) -> None:
    """Makes sure that there is a file with one of some endings.

    Raises:
        UsageError: There is none; names one that is spelled alike.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder and no file", hint)
    if not path.exists():
        raise UsageError(f"data file {str(path)!r} does not exist", _near(path) or hint)
    if not path.is_file():
        raise UsageError(
            f"{path} is a pipe or a device, and no file", "write its content into a file, and name that one"
        )
    if endings and path.suffix.lower() not in endings:
        raise UsageError(f"{path} ends in none of {', '.join(endings)}", hint)


def _near(path: Path, *, needs_folder: bool = False) -> str:
    """`did you mean …?` for the first part of a path that does not exist; "" where nothing is spelled like it."""
    part = next(one for one in (path, *path.parents) if one.parent.is_dir())
    is_last = part == path
    beside = [one.name for one in part.parent.iterdir() if one.is_dir() or (is_last and not needs_folder)]
    return suggest(part.name, beside)


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of many names below a folder that are no files; of a folder that holds many of them, the list is read."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(name.rpartition(os.sep)[0], []).append(name)
    missing = []
    for inner, some in by_folder.items():
        listed = _files_in(os.path.join(folder, inner)) if len(some) >= WORTH_LISTING else None
        if listed is None:
            missing += [name for name in some if not os.path.isfile(os.path.join(folder, name))]
        else:
            missing += [name for name in some if name.rpartition(os.sep)[2] not in listed]
    return missing


def _files_in(folder: str) -> set[str] | None:
    """The names of the files directly in a folder; None where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return None
