"""The one sink for everything a person or a program reads: data goes to stdout, logs to stderr.

Names, summaries, errors and paths come from outside. Control characters in them are escaped here, once for all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final, Literal, Protocol

from poolzoo.common import streams
from poolzoo.common.text import json_escaped, one_line, visible

QUIET, NORMAL, VERBOSE = 0, 1, 2
MIN_BAR: Final = 60  # columns of a terminal that has room for a progress bar with its label …
MIN_NOTE: Final = 40  # … and for a note beside the count and the time left
MAX_DATA: Final = 10_000  # characters of one line of data; JSON holds all of it

_verbosity = NORMAL
_quiet = False
_rank = 0  # of this process among those that do the same


def set_verbosity(level: int) -> None:
    """Sets how much is logged on stderr: QUIET (errors only), NORMAL or VERBOSE."""
    global _verbosity
    _verbosity = level


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, `say` prints with `-v` only: for work that repeats what was logged before."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


def is_quiet() -> bool:
    """Whether this work repeats what was logged before."""
    return _quiet


def say(text: str) -> None:
    """Logs a line: what is being done, what was decided."""
    if _verbosity >= (VERBOSE if _quiet else NORMAL) and _rank == 0:
        _log("", one_line(text))


def detail(text: str) -> None:
    """Logs a line that `-v` asks for."""
    if _verbosity >= VERBOSE and _rank == 0:
        _log("", one_line(text))


def warn(text: str, hint: str = "") -> None:
    """Logs a warning: something that did not stop the work but that the user should know."""
    if _verbosity >= NORMAL and _rank == 0:
        _log("warning", one_line(text) + (f" (hint: {one_line(hint)})" if hint else ""))


def error(message: str, hint: str = "") -> None:
    """Logs the reason for a non-zero exit code: one line, and a hint on its own line."""
    if _rank < 0:
        return
    process = f"process {_rank}: " if _rank else ""
    _log("error", f"{process}{one_line(message)}")
    if hint:
        _log("hint", one_line(hint))


_COLORS: Final = {"error": "red", "warning": "yellow", "hint": "cyan"}


def _log(label: str, text: str) -> None:
    """Logs a line behind a label; a terminal that is narrower gets it on several lines, broken between words."""
    head = f"{label}: " if label else ""
    lines = wrapped(head + text, streams.log_columns())
    if label and streams.logs_in_color():
        import click

        lines[0] = click.style(f"{label}:", fg=_COLORS[label], bold=True) + lines[0].removeprefix(f"{label}:")
    streams.log("\n".join(lines))


def wrapped(text: str, columns: int | None) -> list[str]:
    """A line as those that fit into so many columns, broken between words; a longer word stays whole, to be copied."""
    if columns is None or (len(text) <= columns and text.isascii()):
        return [text]
    from rich.cells import cell_len

    if cell_len(text) <= columns:
        return [text]
    lines: list[str] = []
    line = ""
    for word in re.findall(r"\s*\S+", text):
        indented = "  " + word.lstrip()
        if line.strip() and cell_len(line + word) > columns:
            lines.append(line)
            line = indented
        else:
            line += word
    return [*lines, line]


def data(text: str) -> None:
    """Prints a line of what was asked for."""
    if _rank == 0:
        shown = visible(text[: MAX_DATA + 1])
        whole = shown if len(shown) <= MAX_DATA else shown[: MAX_DATA - 1] + "…"
        streams.write("\n".join(wrapped(whole, streams.data_columns())) + "\n")


def page(text: str) -> None:
    """Prints a text of our own that has several lines, such as a command's help."""
    if _rank == 0:
        streams.write(f"{text}\n")


def help_on_stderr(text: str) -> None:
    """Prints the help of a command that lacks an argument, where errors go."""
    if _rank == 0:
        streams.log(text)


def emit_json(value: Any) -> None:
    """Prints one JSON value on one line, whole; NaN and infinities become null."""
    if _rank == 0:
        from poolzoo.common import json_writer

        streams.write(json_escaped(json_writer.dumps(value)) + "\n")


def csv_row(cells: Sequence[object]) -> None:
    """Prints a line of CSV: to a program the cells of `csv_writer`, to a person these with what is not seen escaped."""
    if _rank == 0:
        from poolzoo.common import csv_writer

        exact = csv_writer.line(cells).removesuffix("\r\n")
        streams.write(f"{visible(exact) if streams.stdout_is_terminal() else exact}\n")


def emit_json_rows(rows: Iterable[Any]) -> None:
    """Prints JSON values as they come, as one array on one line; it is closed whatever ends them."""
    if _rank != 0:
        return
    from poolzoo.common import json_writer

    separator = "["
    try:
        for row in rows:
            streams.write(separator + json_escaped(json_writer.dumps(row)))
            separator = ", "
    finally:
        streams.write("[]\n" if separator == "[" else "]\n")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int] = ()) -> None:
    """Prints a table with its headers: aligned and colored on a terminal, tab-separated in a pipe.

    A terminal that is too narrow for the longest words of all columns gets a paragraph for each row.

    Args:
        headers: The column titles.
        rows: The cells, each shown with `str`.
        right: Indices of the columns that hold numbers and are aligned to the right.
    """
    if _rank != 0:
        return
    lines = (tuple(one_line(str(cell)) for cell in row) for row in chain([headers], rows))
    columns = streams.data_columns()
    if columns is None:
        for line in lines:
            streams.write("\t".join(line) + "\n")
        return
    titles, *cells = lines
    widths = _least_widths(titles, cells)
    if sum(widths) + 2 * len(widths) > columns:
        for line in cells:
            _paragraph(titles, line, columns)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # of which no part is read as markup

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, header in enumerate(titles):
        least = None if index else widths[0]  # a name is never broken
        justify: Literal["left", "right"] = "right" if index in right else "left"
        drawn.add_column(Text(header), justify=justify, overflow="fold", min_width=least)
    for line in cells:
        drawn.add_row(*map(Text, line))
    system: Literal["auto"] | None = "auto" if streams.data_in_color() else None  # which leaves bold out too
    Console(file=streams.data(), width=columns, color_system=system).print(drawn)


_WORD: Final = 24  # cells of a word up to which a column is at least as wide; the first column holds whole names


def _least_widths(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """The cells that each column of a table needs to be readable: those of its longest word."""
    from rich.cells import cell_len

    columns = zip(titles, *rows, strict=True)
    words = [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    return [width if not index else min(width, _WORD) for index, width in enumerate(words)]


def _paragraph(titles: Sequence[str], row: Sequence[str], columns: int) -> None:
    """Prints a row of a table as lines of a title and a cell; the first cell heads them."""
    lines = wrapped(row[0], columns)
    for title, cell in zip(titles[1:], row[1:], strict=True):
        if cell:
            lines += wrapped(f"  {title}: {cell}" if title else f"  {cell}", columns)
    streams.write("\n".join(lines) + "\n")


class Progress(Protocol):
    """What a long task reports while it runs."""

    def update(self, completed: float, note: str = "") -> None: ...


class _Silent:
    def update(self, completed: float, note: str = "") -> None:
        pass


@contextmanager
def progress(label: str, total: float) -> Iterator[Progress]:
    """A progress bar with the time left, on stderr; nothing without a label, a terminal, or with `-q`."""
    if not label or not shows_progress():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    width = streams.log_columns() or MIN_BAR
    wide = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=16)) if width >= MIN_BAR else ()
    note = (TextColumn("{task.fields[note]}", markup=False),) if width >= MIN_NOTE else ()
    console = Console(stderr=True, width=width)
    with Bar(
        *wide,
        MofNCompleteColumn(),
        *note,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
    ) as bar:
        task = bar.add_task(one_line(label), total=total, note="")

        class _Drawn:
            def update(self, completed: float, note: str = "") -> None:
                bar.update(task, completed=completed, note=one_line(note))

        yield _Drawn()


def shows_progress() -> bool:
    """Whether somebody sees a progress bar (so that reading a number off the device for it is worth a wait)."""
    return _verbosity >= NORMAL and _rank == 0 and streams.stderr_is_terminal() and not streams.is_dumb()


def set_rank(rank: int) -> None:
    """Of several processes that do the same, the first one writes; the others only log errors, with their rank.

    Args:
        rank: Of this process, from 0; -1 for one whose errors would be those of the first.
    """
    global _rank
    _rank = rank
