"""The one sink for everything a person or a program reads: data goes to stdout, talk to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Protocol

QUIET, NORMAL, VERBOSE = 0, 1, 2
MAX_LINE = 2000  # characters of one diagnostic line; longer ones are a plugin's or a library's, and nobody reads them

_verbosity = NORMAL
_hushed = False
_rank = 0  # of this process among those that do the same together


def set_verbosity(level: int) -> None:
    """Sets how much is said on stderr: QUIET (errors only), NORMAL or VERBOSE."""
    global _verbosity
    _verbosity = level


def one_line(text: str, most: int = MAX_LINE) -> str:
    """`text` on one line, without control characters, at most `most` characters long."""
    flat = "".join(character if character.isprintable() else " " for character in text)
    flat = " ".join(flat.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


@contextmanager
def hushed() -> Iterator[None]:
    """Within it, `say` speaks to who asked for `-v` alone: where one thing is done many times over."""
    global _hushed
    before, _hushed = _hushed, True
    try:
        yield
    finally:
        _hushed = before


def say(text: str) -> None:
    """A line for the person who waits: what is being done, what was decided."""
    if _verbosity >= (VERBOSE if _hushed else NORMAL) and _rank == 0:
        print(one_line(text), file=sys.stderr, flush=True)


def detail(text: str) -> None:
    """A line for who asked for `-v`."""
    if _verbosity >= VERBOSE and _rank == 0:
        print(one_line(text), file=sys.stderr, flush=True)


def warn(text: str, hint: str = "") -> None:
    """Something that did not stop the work but that the user should know."""
    if _verbosity >= NORMAL and _rank == 0:
        line = f"warning: {one_line(text)}"
        print(line if not hint else f"{line} (hint: {one_line(hint)})", file=sys.stderr, flush=True)


def error(message: str, hint: str = "") -> None:
    """The reason for a non-zero exit code: one line, and a hint on its own line."""
    if _rank < 0:
        return
    process = f"process {_rank}: " if _rank else ""
    print(f"error: {process}{one_line(message)}", file=sys.stderr)
    if hint:
        print(f"hint: {one_line(hint)}", file=sys.stderr)
    sys.stderr.flush()


def data(text: str) -> None:
    """Prints what was asked for."""
    if _rank == 0:
        print(text, flush=True)


def emit_json(value: Any) -> None:
    """Prints one JSON value on one line."""
    if _rank == 0:
        print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)


def emit_json_rows(rows: Iterable[Any]) -> None:
    """Prints JSON values as they come, as one array on one line; it is closed whatever ends them."""
    if _rank != 0:
        return
    separator = "["
    try:
        for row in rows:
            sys.stdout.write(separator + json.dumps(row, ensure_ascii=False, allow_nan=False))
            sys.stdout.flush()
            separator = ", "
    finally:
        print("[]" if separator == "[" else "]", flush=True)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int] = ()) -> None:
    """Prints a table with its headers: aligned and coloured on a terminal, tab-separated in a pipe.

    Args:
        headers: The column titles.
        rows: The cells, each shown with `str`.
        right: Indices of the columns that hold numbers and are aligned to the right.
    """
    if _rank != 0:
        return
    if not sys.stdout.isatty():
        for row in chain([headers], rows):
            print("\t".join(" ".join(str(cell).split()) for cell in row))
        sys.stdout.flush()
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, header in enumerate(headers):
        drawn.add_column(escape(header), justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(str(cell)) for cell in row))
    Console().print(drawn)


class Progress(Protocol):
    """What a long task tells while it runs."""

    def update(self, completed: float, note: str = "") -> None: ...


class _Silent:
    def update(self, completed: float, note: str = "") -> None:
        pass


@contextmanager
def progress(label: str, total: float) -> Iterator[Progress]:
    """A progress bar with the time left, on stderr; nothing without a label, a terminal, or with `-q`."""
    if not label or not watched():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=total, note="")

        class _Drawn:
            def update(self, completed: float, note: str = "") -> None:
                bar.update(task, completed=completed, note=note)

        yield _Drawn()


def watched() -> bool:
    """Whether somebody sees a progress bar (so that reading a number off the device for it is worth a wait)."""
    return _verbosity >= NORMAL and _rank == 0 and sys.stderr.isatty()


def speak_as(rank: int) -> None:
    """Of several processes that do the same, the first speaks; the others only tell of errors, with their number.

    Args:
        rank: Number of this process, from 0; -1 for one whose errors would be those of the first.
    """
    global _rank
    _rank = rank
