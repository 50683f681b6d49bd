"""A command in this process whose two streams are terminals of a given width, or pipes; what they were sent."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from poolzoo import cli
from poolzoo.common import output
from poolzoo.plugin import loader


@dataclass(frozen=True)
class Screen:
    """What a command wrote: its exit code, and what each stream got."""

    code: int
    out: str
    err: str


def run(columns: int | None, *arguments: object, **variables: str) -> Screen:
    """Runs a command.

    Args:
        columns: Of both terminals; None for pipes.
        arguments: Of the command line.
        variables: Of the environment, beside a `TERM` that obeys escape codes.
    """
    loader.forget()
    output.set_verbosity(output.NORMAL)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm-256color")
        for name, value in variables.items():
            patch.setenv(name, value)
        with _stream(columns) as out, _stream(columns) as err:
            patch.setattr(sys, "stdout", out.file)
            patch.setattr(sys, "stderr", err.file)
            code = cli.run([str(one) for one in arguments])
    loader.forget()
    return Screen(code, out.text, err.text)


class _Stream:
    """The writing end of a terminal or a pipe, and what was read from the other end."""

    def __init__(self, columns: int | None) -> None:
        self._end, other = os.pipe() if columns is None else pty.openpty()
        if columns is not None:
            fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.file = open(other, "w", encoding="utf-8")  # noqa: SIM115 - `close` closes it
        self._bytes = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                found = os.read(self._end, 65536)
            except OSError:  # the other end of a terminal is closed
                return
            if not found:
                return
            self._bytes += found

    def close(self) -> None:
        self.file.close()
        self._reader.join()
        os.close(self._end)

    @property
    def text(self) -> str:
        return self._bytes.decode().replace("\r\n", "\n")


@contextmanager
def _stream(columns: int | None) -> Iterator[_Stream]:
    stream = _Stream(columns)
    try:
        yield stream
    finally:
        stream.close()


def width(line: str) -> int:
    """The cells of a line in a terminal, from Unicode's own tables."""
    cells = {"F": 2, "W": 2}
    shown = (one for one in line if not unicodedata.combining(one) and unicodedata.category(one) not in ("Cf", "Mn"))
    return sum(cells.get(unicodedata.east_asian_width(one), 1) for one in shown)


def too_wide(text: str, columns: int) -> list[str]:
    """The lines that a terminal would break although they have a space where they could end."""
    lines = (line for line in text.splitlines() if width(line) > columns)
    return [line for line in lines if " " in line.strip()]
