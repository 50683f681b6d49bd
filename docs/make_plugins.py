"""Fills the tables of checks in docs/how-to/plugins.md: `python docs/make_plugins.py`. A test compares them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from poolzoo.testing import backbones, datasets, poolings, runtimes
from poolzoo.testing.base import Checks

PAGE = Path(__file__).parent / "how-to" / "plugins.md"


def render(text: str) -> str:
    """The page with its tables brought up to date."""
    tables = iter([poolings.checks, backbones.checks, datasets.checks, runtimes.checks])
    head = re.escape("| id | promise |\n|---|---|\n")
    return re.sub(rf"({head})(?:\|.*\n|\$\w+\n)*", lambda found: found[1] + _rows(next(tables)), text)


def _rows(checks: Checks[Any]) -> str:
    return "".join(f"| `{check.id}` | {check.expected.replace('|', chr(92) + '|')} |\n" for check in checks)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
