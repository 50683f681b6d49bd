"""The outcome of one check of a submission: its name, `ok`, `failed` or `skipped`, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from poolzoo.common.errors import explain

OK: Final = "ok"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"


@dataclass(frozen=True)
class Check:
    """One line of the report: its name, `ok`, `failed` or `skipped`, and what was found."""

    name: str
    status: str
    reason: str

    def to_json(self) -> dict[str, object]:
        return {"check": self.name, "status": self.status, "reason": self.reason}


def attempt(name: str, function: Callable[[], str]) -> Check:
    """Runs one check; whatever it raises is a failure with its reason."""
    try:
        return Check(name, OK, function())
    except Exception as error:  # damaged files raise anything
        shown = explain(error)
        return Check(name, FAILED, shown.message)


def skipped(names: Sequence[str], why: str) -> list[Check]:
    """Checks that could not be made."""
    return [Check(name, SKIPPED, why) for name in names]
