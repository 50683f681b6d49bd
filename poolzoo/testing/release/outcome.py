"""The outcome of release checks, and the report of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from poolzoo.testing.outcome import Outcome


class Skipped(Exception):
    """A check that cannot be made here; its text says why."""


@dataclass(frozen=True)
class ReleaseOutcome:
    """The outcome of one release check.

    Attributes:
        outcome: Whether it passed, or is expected to fail.
        against: The poolzoo that it ran with; "" where none takes part.
        found: What it found, in words.
        skipped: Why it was not made; "" where it was.
        seconds: How long it took.
    """

    outcome: Outcome
    against: str = ""
    found: str = ""
    skipped: str = ""
    seconds: float = 0.0

    @property
    def result(self) -> str:
        """As of the outcome, or "skipped"."""
        return "skipped" if self.skipped else self.outcome.result

    @property
    def is_good(self) -> bool:
        """Whether it is as it should be, or was skipped."""
        return bool(self.skipped) or self.outcome.is_good

    def to_json(self) -> dict[str, object]:
        found: dict[str, object] = {**self.outcome.to_json(), "result": self.result, "seconds": round(self.seconds, 3)}
        if self.skipped:
            found |= {"passed": None, "skipped": self.skipped}
        if self.found:
            found["found"] = self.found
        return found | ({"against": self.against} if self.against else {})


@dataclass(frozen=True)
class ReleaseReport:
    """What the release checks of a plugin found.

    Attributes:
        project: The folder of the project.
        name: The name of the distribution; "" where it does not build.
        version: Its version; likewise.
        outcomes: One for each check that was selected, in order.
        remarks: What was done without a check, such as which environments were made.
    """

    project: str
    name: str
    version: str
    outcomes: tuple[ReleaseOutcome, ...]
    remarks: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether every check is as it should be."""
        return all(outcome.is_good for outcome in self.outcomes)

    def to_json(self) -> dict[str, object]:
        return {
            "project": self.project,
            "name": self.name,
            "version": self.version,
            "passed": self.passed,
            "remarks": list(self.remarks),
            "checks": [outcome.to_json() for outcome in self.outcomes],
        }
