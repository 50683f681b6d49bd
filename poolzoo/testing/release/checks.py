"""All release checks, in their order."""

from __future__ import annotations

from typing import Any, Final

from poolzoo.testing.base import Check, Checks
from poolzoo.testing.release import archives, built, installed, metadata

BUILD: Final = "release: build"
METADATA: Final = "release: metadata"
FILES: Final = "release: files"
INSTALLED: Final = "release: installed"
CHECKS: Final[dict[str, Checks[Any]]] = {
    BUILD: built.checks,
    METADATA: metadata.checks,
    FILES: archives.checks,
    INSTALLED: installed.checks,
}


def all_ids() -> list[str]:
    """The ids of all release checks."""
    return [check.id for _, check in all_checks()]


def all_checks() -> list[tuple[str, Check[Any]]]:
    """Every release check with its group."""
    return [(group, check) for group, checks in CHECKS.items() for check in checks]
