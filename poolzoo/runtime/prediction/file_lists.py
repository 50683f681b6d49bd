"""The image files that arguments of a command mean: files, folders, lists in files, names on stdin. One at a time."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from poolzoo.common import csv_writer, files
from poolzoo.common.errors import EnvironmentProblem, UsageError
from poolzoo.common.text import one_line
from poolzoo.data import walk

COLUMNS: Final = ("file", "path", "image")  # one of these holds the names; the only column may have any name
STDIN_HINT: Final = "for example: find photos -print0 | poolzoo predict BUNDLE -"
INSTALL: Final = "pip install 'poolzoo[parquet]'"  # for Parquet files, read or written
BLOCK: Final = 1 << 20  # bytes of a list of names that are read at once


def is_list(argument: str) -> bool:
    """Whether an argument is a list of images: `@FILE`, or a `.csv` or `.parquet` file."""
    return argument.startswith("@") or (_ending(argument) in (".csv", ".parquet") and not os.path.isdir(argument))


def list_path(argument: str) -> Path:
    """The file of a list."""
    return Path(argument.removeprefix("@"))


def images_in(argument: str, tally: walk.Tally) -> Iterator[str]:
    """The image files that one argument means, in order.

    A folder means the images in it and its subfolders, sorted; of a data set those that training reads. A list means
    what it names, relative to the current directory. `-` is a list of names on stdin.

    Args:
        argument: A file, a folder, a list, or `-`.
        tally: Counts what is ignored in a folder.

    Raises:
        UsageError: A folder or a list holds no image, or a table has no column of names.
        EnvironmentProblem: A Parquet file is given and pyarrow is not installed.
        OSError: A list cannot be read.
    """
    if argument == "-":
        yield from _found(_stdin(), "stdin names no image", STDIN_HINT)
    elif is_list(argument):
        path = list_path(argument)
        if not path.exists() or path.is_dir():
            raise UsageError(f"list {path} {files.absence(path)}", "name a file with one image a line")
        read = {".csv": _csv, ".parquet": _parquet}.get(_ending(argument), _lines)
        yield from _found(read(path), f"list {path} names no image", "it has one name a line")
    elif os.path.isdir(argument):
        hint = "name files, or a folder that holds some"
        found = walk.images_under(argument, tally)
        yield from _found(found, f"folder {argument} holds no image", hint, tally)
    else:
        yield argument


def _found(names: Iterator[str], message: str, hint: str, tally: walk.Tally | None = None) -> Iterator[str]:
    """The names; an error where there are none."""
    first = next(names, None)
    if first is None:
        ignored = f" ({line})" if tally is not None and (line := tally.line()) else ""
        raise UsageError(f"{message}{ignored}", hint)
    yield first
    yield from names


def _ending(argument: str) -> str:
    return os.path.splitext(argument)[1].lower()


def _stdin() -> Iterator[str]:
    given = sys.stdin.buffer.read() if sys.stdin else b""  # None where it was closed
    names = given.split(b"\0") if b"\0" in given else given.splitlines()
    return (os.fsdecode(name) for name in names if name)


def _lines(path: Path) -> Iterator[str]:
    """The names in a text, separated by newlines, or by NUL if the first block has one."""
    with files.open_file(path, pipe=True) as file:
        block = file.read(BLOCK)
        end, rest = b"\0" if b"\0" in block else b"\n", b""
        while block:
            *whole, rest = (rest + block).split(end)
            yield from (os.fsdecode(name) for line in whole if (name := line.removesuffix(b"\r")))
            block = file.read(BLOCK)
        if rest.removesuffix(b"\r"):
            yield os.fsdecode(rest.removesuffix(b"\r"))


def _csv(path: Path) -> Iterator[str]:
    """The names in a column of a CSV file with a header."""
    import csv

    with (
        files.open_file(path, pipe=True) as content,
        io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
    ):
        rows = csv.reader(file)
        try:
            header = next(rows, [])
            at = header.index(_column(header, path)) if header else 0
            yield from (csv_writer.plain(row[at]) for row in rows if len(row) > at and row[at])
        except csv.Error as error:
            raise UsageError(f"{path}, line {rows.line_num:,}: {error}", "write the list again") from None


def _parquet(path: Path) -> Iterator[str]:
    """The names in a column of a Parquet file."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise EnvironmentProblem(f"{path} needs pyarrow, which is not installed", INSTALL) from None
    try:
        with parquet.ParquetFile(path) as file:
            column = _column(file.schema_arrow.names, path)
            for batch in file.iter_batches(columns=[column]):
                yield from (str(name) for name in batch.column(0).to_pylist() if name)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if getattr(error, "errno", None) is not None:  # it may not be read, or is gone
            raise
        raise UsageError(
            f"{path} is no Parquet file, or damaged: {one_line(str(error), 200)}", "write it again"
        ) from error


def _column(names: list[str], path: Path) -> str:
    found = [name for name in COLUMNS if name in names] or (names if len(names) == 1 else [])
    if not found:
        raise UsageError(f"{path} has no column {' or '.join(COLUMNS)}", f"it has: {', '.join(names[:10])}")
    return found[0]
