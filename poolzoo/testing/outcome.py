"""The outcome of a check: it passed, failed, failed as expected, or passed though it was expected to fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from poolzoo.testing.base import Failure

PASSED: Final = "passed"
FAILED: Final = "failed"
EXPECTED: Final = "failed as expected"
SURPRISE: Final = "passed unexpectedly"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check.

    Attributes:
        check: Its id.
        failure: How it failed; None where it passed.
        expected: Why it is expected to fail; None where it is not.
    """

    check: str
    failure: Failure | None = None
    expected: str | None = None

    @property
    def result(self) -> str:
        """One of `PASSED`, `FAILED`, `EXPECTED` and `SURPRISE`."""
        if self.expected is None:
            return PASSED if self.failure is None else FAILED
        return SURPRISE if self.failure is None else EXPECTED

    @property
    def is_good(self) -> bool:
        """Whether it is as it should be."""
        return self.result in (PASSED, EXPECTED)

    @property
    def error(self) -> tuple[str, str] | None:
        """What is wrong, and a hint; None where nothing is."""
        if self.result == SURPRISE:
            return f"it passes, and is expected to fail ({self.expected})", "remove it from the expected failures"
        return (self.failure.found, self.failure.hint) if self.failure is not None and not self.is_good else None

    def to_json(self) -> dict[str, object]:
        found: dict[str, object] = {"check": self.check, "passed": self.failure is None, "result": self.result}
        if self.failure is not None:
            found |= {"found": self.failure.found, "expected": self.failure.expected, "hint": self.failure.hint}
        return found if self.expected is None else found | {"reason": self.expected}
