"""The two standard streams: stdout carries our data alone, stderr all the rest.

While a command owns stdout, what plugins and libraries print lands on stderr, whichever way they print it: `print`,
file descriptor 1, a C library, a child process.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any, BinaryIO, Final, NamedTuple, TextIO

from poolzoo.common.text import MAX_LINE, one_line

EXCERPT: Final = 20  # lines that a plugin may print while it loads
MOST_DIGITS: Final = 6  # of a width of a terminal


class ReaderGone(BrokenPipeError):
    """The reader of our output has closed it, as in `poolzoo list | head -1`."""


class _Patient(io.FileIO):
    """A file that waits while it is full. Whoever shares a pipe may have made it one that refuses, as Node does."""

    def write(self, content: Any, /) -> int:
        while (written := super().write(content)) is None:
            import select

            select.select([], [self], [])
        return written


class Foreign(io.TextIOBase):
    """Stands for `sys.stdout` while that is ours: what is written goes to stderr; closing it closes nothing."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def write(self, text: str) -> int:
        with suppress(ValueError, AttributeError, OSError):  # stderr is closed, None, or nobody reads it
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(ValueError, AttributeError, OSError):
            sys.stderr.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return stderr_is_terminal()

    def fileno(self) -> int:
        return 1

    @property
    def buffer(self) -> BinaryIO:
        return open(1, "wb", buffering=0, closefd=False)

    def detach(self) -> Any:
        """The raw stream, for a plugin that wraps it in another encoding."""
        return self.buffer

    def close(self) -> None:
        """A plugin's `sys.stdout.close()` must not take the stream from everybody else."""

    def reconfigure(self, **changes: Any) -> None:
        """A plugin that sets the encoding of stdout does not mean ours."""


class Excerpt(Foreign):
    """The same for stdout and stderr while a plugin loads: its first lines, with what a terminal obeys written out.

    Afterwards it is like its base, as loggers that the plugin made keep it.
    """

    def __init__(self) -> None:
        self._target = sys.stderr
        self._lines = 0
        self._rest = ""
        self._ended = False

    def write(self, text: str) -> int:
        if self._ended:
            return super().write(text)
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            self._show(line)
        self._rest = self._rest[: 2 * MAX_LINE]  # of a line without end
        return len(text)

    def isatty(self) -> bool:
        try:
            return not self._ended and self._target.isatty()
        except (ValueError, AttributeError):  # it is closed, or None
            return False

    def fileno(self) -> int:
        return 2

    def end(self, who: str) -> None:
        """Says how many lines of `who` were left out."""
        if self._rest:
            self._show(self._rest)
        self._ended = True
        if self._lines > EXCERPT:
            log(f"{who} printed {self._lines - EXCERPT:,} more lines")

    def flush(self) -> None:
        if self._ended:
            super().flush()

    def _show(self, line: str) -> None:
        self._lines += 1
        if self._lines <= EXCERPT:
            with suppress(ValueError, AttributeError, OSError):  # as above
                self._target.write(one_line(line) + "\n")
                self._target.flush()


class _Ownership(NamedTuple):
    """Where our data goes, and what it takes to put everything back."""

    data: TextIO
    python: TextIO | None  # the object that was `sys.stdout`; kept, as collecting it could close descriptor 1
    descriptor: int | None  # a private duplicate of descriptor 1
    logs: int | None  # a private duplicate of descriptor 2, in case stderr is closed


_ownership: _Ownership | None = None


def take() -> None:
    """Makes stdout ours: our data goes through a private duplicate, descriptor 1 and `sys.stdout` lead to stderr."""
    global _ownership
    python = sys.stdout
    with suppress(OSError, ValueError, AttributeError):
        python.flush()
    is_first = _number(python) == 1
    descriptor = _duplicate(1)
    logs = _duplicate(2)
    _point(1, at=2)
    data: TextIO
    if is_first and descriptor is not None:
        buffer = io.BufferedWriter(_Patient(descriptor, "w", closefd=False))
        data = io.TextIOWrapper(buffer, encoding=python.encoding, errors="backslashreplace")
    else:
        data = python if python is not None else open(os.devnull, "w")  # noqa: SIM115
    _ownership = _Ownership(data, python, descriptor, logs)
    sys.stdout = Foreign()


def give_back() -> None:
    """Undoes `take`."""
    global _ownership
    owned = _ownership
    assert owned is not None
    _ownership = None
    with suppress(OSError):  # a plugin may have closed anything
        if owned.descriptor is None:
            os.close(1)  # as it was
        else:
            os.dup2(owned.descriptor, 1)
    for number in (owned.descriptor, owned.logs):
        if number is not None:
            with suppress(OSError):
                os.close(number)
    sys.stdout = owned.python


@contextmanager
def owned() -> Iterator[None]:
    """Within it stdout is ours; inside of another one it changes nothing."""
    if _ownership is not None:
        yield
        return
    take()
    try:
        yield
    finally:
        give_back()


def data() -> TextIO:
    """The stream for our data."""
    return _ownership.data if _ownership is not None else sys.stdout


def stdout_is_terminal() -> bool:
    """Whether our data goes to a terminal."""
    stream = data()
    return stream is not None and stream.isatty()


def stderr_is_terminal() -> bool:
    """Whether logs go to a terminal."""
    try:
        return sys.stderr.isatty()
    except (ValueError, AttributeError):  # it is closed, or None
        return False


def data_columns() -> int | None:
    """The width of the terminal that our data goes to; None in a pipe or a file."""
    return _columns(data()) if stdout_is_terminal() else None


def log_columns() -> int | None:
    """The width of the terminal that logs go to; None in a pipe or a file."""
    return _columns(sys.stderr) if stderr_is_terminal() else None


def is_dumb() -> bool:
    """Whether terminals here obey no escape codes."""
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def data_in_color() -> bool:
    """Whether our data may have colors; in a pipe it never has, as a program reads it."""
    return stdout_is_terminal() and not is_dumb() and not os.environ.get("NO_COLOR")


def logs_in_color() -> bool:
    """Whether logs may have colors: NO_COLOR forbids them, FORCE_COLOR asks for them, a terminal shows them."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stderr_is_terminal() and not is_dumb())


def _columns(stream: TextIO) -> int:
    """The width of a terminal, which COLUMNS overrides; 80 where it does not say."""
    stated = os.environ.get("COLUMNS", "")
    if stated.isdecimal() and len(stated) <= MOST_DIGITS and int(stated):
        return int(stated)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def write(text: str) -> None:
    """Writes data, at once.

    Raises:
        ReaderGone: Nobody reads it any more.
        OSError: It cannot be written, such as to a disk that is full.
    """
    stream = data()
    if stream is None:  # it was closed
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        if _ownership is not None:  # what is left in the buffer would be tried again at exit
            with suppress(OSError, ValueError):
                _point(stream.fileno(), at=None)
        if isinstance(error, BrokenPipeError):
            raise ReaderGone from error
        raise


def log(line: str) -> None:
    """Writes a line to stderr, at once, whatever a plugin has done to it. Where nobody reads it, the work goes on."""
    for stream in (sys.stderr, sys.__stderr__):
        try:
            _write_all(stream, line + "\n")  # type: ignore[arg-type]
            return
        except BrokenPipeError:
            _point(2, at=None)  # or the interpreter would try again at exit, and fail
            return
        except (ValueError, AttributeError, OSError):  # closed, None, or its descriptor is closed
            continue
    if _ownership is not None and _ownership.logs is not None:
        with suppress(OSError):
            os.write(_ownership.logs, f"{line}\n".encode("utf-8", "backslashreplace"))


def _write_all(stream: TextIO, text: str) -> None:
    """Writes to a stream, and waits where its pipe is full and does not wait itself."""
    number = _number(stream) if isinstance(stream, io.TextIOWrapper) else None
    if number is None or not hasattr(os, "get_blocking") or os.get_blocking(number):
        stream.write(text)
        stream.flush()
        return
    with suppress(BlockingIOError):
        stream.flush()  # what others wrote
    with io.BufferedWriter(_Patient(number, "w", closefd=False)) as patient:
        patient.write(text.encode(stream.encoding, "backslashreplace"))


@contextmanager
def stderr_for_python() -> Iterator[None]:
    """Moves Python's stderr to a descriptor of its own, while 2, which libraries in C write to, leads nowhere."""
    try:
        shared = sys.stderr.fileno() == 2
    except (OSError, ValueError):  # it is closed, or no file
        shared = False
    if not shared:
        yield
        return
    sys.stderr.flush()
    encoding = sys.stderr.encoding
    with (
        open(os.dup(2), "w", buffering=1, encoding=encoding, errors="backslashreplace") as ours,
        open(os.devnull, "w") as nowhere,
    ):
        os.dup2(nowhere.fileno(), 2)
        try:
            with redirect_stderr(ours):
                yield
        finally:
            ours.flush()
            os.dup2(ours.fileno(), 2)


def _number(stream: TextIO | None) -> int | None:
    try:
        return stream.fileno() if stream is not None else None
    except (OSError, ValueError, AttributeError):  # one in memory, as tests have
        return None


def _duplicate(number: int) -> int | None:
    """A duplicate of a descriptor that child processes do not inherit; None where it is closed."""
    try:
        return os.dup(number)
    except OSError:
        return None


def _point(number: int, *, at: int | None) -> None:
    """Makes a descriptor lead where another one does; where there is none, nowhere."""
    try:
        if at is None:
            raise OSError
        os.dup2(at, number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
