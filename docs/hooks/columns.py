"""Hook of mkdocs: columns that a shell session separates by tabs stand under each other, as on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

SESSION = re.compile(r"^(?P<indent> *)```console\n.*?^(?P=indent)```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Aligns the columns of every table in a session."""
    return SESSION.sub(lambda found: "\n".join(_aligned(found[0].split("\n"))), markdown)


def _aligned(lines: list[str]) -> Iterator[str]:
    for is_table, group in groupby(lines, key=lambda line: "\t" in line):
        rows = [line.split("\t") for line in group]
        if not is_table:
            yield from (row[0] for row in rows)
            continue
        count = max(map(len, rows))
        widths = [max(len(row[place]) for row in rows if place < len(row)) for place in range(count)]
        yield from (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows
        )
