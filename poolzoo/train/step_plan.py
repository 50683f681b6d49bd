"""How many steps a run has, and how that number was fitted again while it ran under a time budget."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

MAX_DURATION: Final = 1e9  # seconds, thirty years
DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


@dataclass(frozen=True)
class Fit:
    """From a step on, the run has so many steps in all; both are counted from the start of the run."""

    step: int
    total: int


@dataclass(frozen=True)
class StepPlan:
    """The steps of a run. The learning rate reaches its end with the last of them.

    Attributes:
        fits: In the order of their steps; the first one starts at step 0.
    """

    fits: tuple[Fit, ...]

    @classmethod
    def of(cls, total: int) -> StepPlan:
        """The plan of a run whose number of steps never changes."""
        return cls((Fit(0, total),))

    @classmethod
    def parse(cls, text: str) -> StepPlan:
        """Reads what `str` gives, such as `1240` or `1240,400:1100`: the total at first, and at step 400.

        Raises:
            ValueError: It is no plan.
        """
        first, *rest = text.split(",")
        pairs = (part.partition(":") for part in rest)
        fits = [Fit(0, int(first)), *(Fit(int(step), int(total)) for step, _, total in pairs)]
        rises = all(one.step < other.step for one, other in pairwise(fits))
        if not rises or any(fit.total < max(1, fit.step) for fit in fits):
            raise ValueError(text)
        return cls(tuple(fits))

    def __str__(self) -> str:
        return ",".join([str(self.fits[0].total), *(f"{fit.step}:{fit.total}" for fit in self.fits[1:])])

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.fits[-1].total

    def refitted(self, step: int, total: int) -> StepPlan:
        """The plan with another total from a step on."""
        return StepPlan((*self.fits, Fit(step, total)))

    def position(self, step: int) -> float:
        """The step of the first fit's schedule whose learning rate a step has.

        It grows evenly between two fits, so that the rate never jumps. With one fit it is the step itself.
        """
        end = self.fits[0].total
        position: float = 0
        current = self.fits[0]
        for following in self.fits[1:]:
            if step < following.step:
                break
            position = _advanced(position, current, following.step, end)
            current = following
        return _advanced(position, current, step, end)


def _advanced(position: float, fit: Fit, step: int, end: int) -> float:
    return position + (end - position) * (step - fit.step) / max(1, fit.total - fit.step)


def parse_duration(text: str) -> float:
    """The seconds of `90s`, `25m` or `1h30m`.

    Raises:
        ValueError: It is no duration, or it is zero.
    """
    found = DURATION.fullmatch(text)
    hours, minutes, seconds = (float(part or 0) for part in (found.groups() if found else ()))  # ValueError if none
    if not 0 < (total := 3600 * hours + 60 * minutes + seconds) <= MAX_DURATION:
        raise ValueError(f"{text!r} is no duration above zero")
    return total


def show_duration(seconds: float) -> str:
    """A duration as `parse_duration` reads it, in whole seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts: Iterable[tuple[int, str]] = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"
