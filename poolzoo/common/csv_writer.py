"""The one writer of comma-separated values: what it gives is data to a spreadsheet too, and never a formula.

A spreadsheet computes a cell that begins with `=`, `+`, `-` or `@`, whatever it is quoted with. File names and names of
classes may begin so. Such a text gets an apostrophe in front, which spreadsheets take for "text". Numbers stay as they
are, also those in a text. JSON holds the very text, and poolzoo reads its own tables back without the apostrophe.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

# What a formula begins with, also in the full width that East Asian spreadsheets take for the same.
FORMULA: Final = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)


def cell(value: object) -> object:
    """A cell that no spreadsheet computes: a text that would be a formula gets an apostrophe in front.

    One that is such a text behind apostrophes of its own gets another, so that `plain` gives every text back.
    """
    if isinstance(value, str) and FORMULA.match(value.lstrip("'")) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def plain(text: str) -> str:
    """The text that `cell` was given."""
    return text[1:] if text[:1] == "'" and FORMULA.match(text.lstrip("'")) else text


def line(cells: Sequence[object], end: str = "\r\n") -> str:
    """A row with the end of its line. With `\\r\\n` as end, a cell that holds either half of it is quoted."""
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerow(map(cell, cells))
    return text.getvalue()


def document(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A whole file: its headers and its rows, each ended by a newline."""
    return "".join(line(cells, "\n") for cells in (headers, *rows))
