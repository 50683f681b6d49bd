"""The order in which a race trains the seeds of one backbone's variants, and its looks.

First comes every variant from the first seed. The pilots then get all other seeds, which tells how much accuracies
vary. All others wait: before each further seed a look stops those that are worse than another variant beyond chance
(`racing`), and the rest get it. So no trial runs that a look could have stopped, and looks know as much as they can.

Pilots are the baseline, the two most accurate variants, and then cheap ones. A race seldom stops the first three, so
that their seeds are no waste. The others serve the variance only, which any variant tells under the assumption that the
looks make for all: variances are alike from variant to variant, or differ by chance. What a training costs says nothing
about the error of its accuracy, so this choice biases neither accuracies nor variances, unlike one by accuracy. Where
costly variants do vary more than cheap ones, pilots tell too little; the simulations have such races.
Costs are compared in whole multiples of the lowest, so that the noise of a clock hardly ever decides. Those that are
alike are ranked by accuracy. A journaled cost stays, so that a race that resumes has the same pilots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from typing import Final

import numpy as np

from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.racing import Stopped, stopped_in_look, verdict_level
from poolzoo.compare.records import TrialRecords

Right = Mapping[str, Mapping[int, np.ndarray]]  # which images each variant has right, by seed
Seconds = Mapping[str, Mapping[int, float]]  # how long each variant trained, by seed
BEST: Final = 3  # pilots that are not chosen by cost, the baseline among them
DEGREES: Final = 6  # degrees of freedom of the last tests if all but the pilots are stopped


def pilot_count(variants: int, seeds: int) -> int:
    """How many variants get all seeds at once: enough for the variance, and at most two thirds of them, but two."""
    return max(2, min(1 + ceil(DEGREES / (seeds - 1)), ceil(variants * 2 / 3)))


class Race:
    """One race.

    Args:
        names: Of its variants, as they were typed.
        baseline: Name of the one that never stops.
        seeds: All of the comparison, at least two.
        alpha: The level of the comparison.
        looks: What earlier looks have stopped, by their numbers; they are not taken again.
    """

    def __init__(
        self,
        names: Sequence[str],
        baseline: str,
        seeds: Sequence[int],
        alpha: float,
        looks: Mapping[int, Mapping[str, Stopped]] | None = None,
    ) -> None:
        self.names = names
        self.baseline = baseline
        self.seeds = seeds
        self.alpha = alpha
        self.looks = {number: dict(stopped) for number, stopped in (looks or {}).items()}

    @property
    def stopped(self) -> dict[str, Stopped]:
        """All that were stopped, by name."""
        return {name: one for stopped in self.looks.values() for name, one in stopped.items()}

    @property
    def level(self) -> float:
        """What is left of alpha for the tests after the last seed."""
        return verdict_level(self.alpha, len(self.seeds))

    def pilots(self, right: Right, seconds: Seconds) -> list[str]:
        """The baseline, the most accurate variants on the first seed, and cheap ones.

        Args:
            right: What is trained.
            seconds: What that took. One without seconds is as cheap as the cheapest.
        """
        first = self.seeds[0]
        accuracy = {name: float(rows[first].mean()) for name, rows in right.items() if first in rows}
        ranked = sorted(accuracy, key=lambda name: (name != self.baseline, -accuracy[name], name))
        ranked = list(dict.fromkeys([self.baseline, *ranked]))
        others = ranked[BEST:]
        cost = {name: seconds[name][first] for name in others if seconds.get(name, {}).get(first)}
        cheap = sorted(others, key=lambda name: cost[name] // min(cost.values()) if name in cost else 1)  # stable
        return [*ranked[:BEST], *cheap][: pilot_count(len(self.names), len(self.seeds))]

    def look(self, number: int, right: Right, waiting: Sequence[str]) -> None:
        """Stops what is worse beyond chance, unless this look was taken already."""
        if number not in self.looks:
            running = {name: rows for name, rows in right.items() if name not in self.stopped and rows}
            self.looks[number] = stopped_in_look(
                running, self.baseline, waiting, number, len(self.seeds), len(self.names), self.alpha
            )

    def rungs(self, right: Callable[[], Right], seconds: Callable[[], Seconds]) -> Iterator[list[tuple[str, int]]]:
        """The trials by name and seed, rung after rung; between two of them the caller trains.

        Args:
            right: Gives what is trained up to now.
            seconds: Gives what that took.
        """
        yield [(name, self.seeds[0]) for name in self.names]
        pilots = self.pilots(right(), seconds())
        yield [(name, seed) for seed in self.seeds[1:] for name in pilots]
        waiting = [name for name in self.names if name not in pilots]
        for number, seed in enumerate(self.seeds[1:], 1):
            self.look(number, right(), waiting)
            waiting = [name for name in waiting if name not in self.stopped]
            yield [(name, seed) for name in waiting]


def replay(right: Right, race: Race, seconds: Seconds | None = None) -> dict[str, dict[int, np.ndarray]]:
    """What a race would have trained of a whole comparison; the race then knows what it stopped.

    Args:
        right: Of all variants and seeds that finished.
        race: A new one.
        seconds: That training took; by default all cost the same.
    """
    trained: dict[str, dict[int, np.ndarray]] = {name: {} for name in race.names}
    for rung in race.rungs(lambda: trained, lambda: seconds or {}):
        for name, seed in rung:
            if seed in right.get(name, {}):
                trained[name][seed] = right[name][seed]
    return {name: rows for name, rows in trained.items() if rows}


def races_of(config: ComparisonConfig, records: TrialRecords) -> dict[str, Race]:
    """The races of a comparison by their backbones, with the looks that were taken; none where nobody races."""
    if not config.race:
        return {}
    return {
        backbone: Race(
            [one.name for one in config.variants if one.backbone == backbone],
            config.baseline_variant.name,
            config.seed_numbers,
            config.alpha,
            records.looks.get(backbone),
        )
        for backbone in config.backbone_names
    }
