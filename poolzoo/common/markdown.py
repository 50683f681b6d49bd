r"""Markdown around foreign text: the one place where class names, paths and plugins' words are escaped.

Class names are the names of folders, so that they may hold `|`, `$`, backticks, line breaks, HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from poolzoo.common import json_writer
from poolzoo.common.text import one_line


def text(value: object) -> str:
    """Text that shows as it is, wherever it stands in a line: no markup, no HTML, one line."""
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", escape(one_line(str(value)), quote=False))


def table(headers: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table of foreign cells; columns of numbers, in which a dash may stand, are aligned to the right."""
    cells = [[text(cell) for cell in row] for row in rows]
    columns = zip(*cells, strict=True) if cells else ((),) * len(headers)
    sides = ["---:" if column and all(map(_is_number, column)) else "---" for column in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in ([text(header) for header in headers], sides, *cells))


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell == "–"


def scalar(value: str | float) -> str:
    """A value in the YAML of the front matter: JSON, which YAML reads as it is, without what is not seen."""
    if isinstance(value, str):
        value = one_line("".join(character if character.isprintable() else " " for character in value))
    return json_writer.dumps(value)
