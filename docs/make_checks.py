"""Fills the tables of docs/reference/checks.md: `python docs/make_checks.py`. A test compares them."""

from __future__ import annotations

import re
from pathlib import Path

from poolzoo.testing import kinds
from poolzoo.testing.release import checks

PAGE = Path(__file__).parent / "reference" / "checks.md"
HEAD = "| kind | id | promise |\n|---|---|---|\n"


def render(text: str) -> str:
    """The page with its two tables, conformance and release, brought up to date."""
    tables = iter([kinds.all_checks(), checks.all_checks()])

    def filled(found: re.Match[str]) -> str:
        rows = (f"| {kind} | `{one.id}` | {_cell(one.expected)} |\n" for kind, one in next(tables))
        return HEAD + "".join(rows)

    return re.sub(rf"{re.escape(HEAD)}(?:\|.*\n)*", filled, text)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
