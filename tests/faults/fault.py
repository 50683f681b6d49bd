"""A fault by its text, and how faults are drawn."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from faults.scenarios import Scenario

FRESH: Final = 0.06  # share of the faults that happen in a process of its own


@dataclass(frozen=True)
class Fault:
    """A fault, as text such as `finetune/kill@37`, `export/term%40+fresh`, `resume/gone:cache@12`, `compare/disk%30`.

    Attributes:
        scenario: Its name.
        kind: What happens; with a `%` at its end at a share of the time or of the disk.
        where: At which operation on files, or at how many percent.
        what: The directory that goes.
        fresh: Whether the command runs in a process of its own.
    """

    scenario: str
    kind: str
    where: int
    what: str = ""
    fresh: bool = False

    def __str__(self) -> str:
        kind, sign = (self.kind[:-1], "%") if self.kind.endswith("%") else (self.kind, "@")
        return f"{self.scenario}/{kind}{f':{self.what}' if self.what else ''}{sign}{self.where}{'+fresh' * self.fresh}"

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Reads what `str` writes."""
        scenario, _, rest = text.partition("/")
        fresh = rest.endswith("+fresh")
        rest = rest.removesuffix("+fresh")
        sign = "@" if "@" in rest else "%"
        kind, _, where = rest.rpartition(sign)
        kind, _, what = kind.partition(":")
        return cls(scenario, kind + ("%" if sign == "%" else ""), int(where), what, fresh)


@dataclass(frozen=True)
class Draw:
    """A fault before it is known how many operations its command has; `place` is a share of them."""

    scenario: str
    kind: str
    what: str
    place: float
    fresh: bool

    def fault(self, count: int) -> Fault:
        """The fault, for a command with so many operations."""
        where = int(100 * self.place) if self.kind.endswith("%") else 1 + int(count * self.place)
        return Fault(self.scenario, self.kind, where, self.what if self.kind == "gone" else "", self.fresh)


def draw(
    scenarios: Mapping[str, Scenario], count: int, kinds: Sequence[str] | None, generator: random.Random
) -> list[Draw]:
    """Draws faults; the same for the same state of the generator.

    Args:
        scenarios: Those to draw from, with their weights.
        count: How many.
        kinds: None for all.
        generator: Of random numbers.

    Raises:
        ValueError: No scenario has one of the kinds, or there is no scenario.
    """
    known = {kind for one in scenarios.values() for kind in one.kinds}
    if unknown := sorted(set(kinds or ()) - known):
        raise ValueError(f"no scenario has the kind {unknown[0]!r}; there are {', '.join(sorted(known))}")
    if not scenarios:
        raise ValueError("there is no scenario to draw from")
    names, found = list(scenarios), list[Draw]()
    while len(found) < count:
        name = generator.choices(names, [scenarios[one].weight for one in names])[0]
        weights = scenarios[name].kinds
        kind = generator.choices(list(weights), list(weights.values()))[0]
        gone = scenarios[name].gone
        drawn = Draw(name, kind, generator.choice(gone) if gone else "", generator.random(), generator.random() < FRESH)
        is_possible = (gone or kind != "gone") and not (drawn.fresh and kind == "gone")
        if is_possible and kind in (kinds or weights):
            found.append(drawn)
    return found
