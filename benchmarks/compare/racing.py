"""How often a race is wrong, how often it finds what there is, and how much training it saves; from simulated races.

python -m benchmarks.compare.racing [--races 2000] [--alternatives 400] [--variants 12] [--seeds 3] [--images 1000]

Each simulated race draws new test images, new networks and what each has right, then runs poolzoo's own race and its
last tests on that. Images differ in difficulty, and for each variant in another way; a seed shifts the accuracy of one
network, and in part that of all variants alike. In the null races all variants have the same expected accuracy; any
stop and any difference from the baseline is an error. `--alternatives` is the number of races for each other row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Final

import numpy as np

from poolzoo.compare.race import Race, replay
from poolzoo.compare.statistics import compare

RESAMPLES: Final = 999  # of the images in the last tests
POINTS: Final = (1, 2, 3, 5, 8)
TAUS: Final = (0.1, 1.0)  # of the simulated learning curves, in fractions of the whole training


@dataclass(frozen=True)
class World:
    """What is drawn from.

    Attributes:
        images: N, the test images.
        seed_sd: Standard deviation of a network's accuracy that its own seed causes, over and above that of images that
            are right or wrong independently, which is 0.9 points for 1,000 images.
        common_sd: The same, of what a seed does to all variants alike.
        taste_sd: Of what a variant does to the chance of an image: the interaction that makes sampling variance.
        uneven: Standard deviation of the logarithm of the factor by which a variant's `seed_sd` differs.
        noisy: Of the last variant, the factor on the whole standard deviation from seed to seed.
    """

    images: int = 1000
    seed_sd: float = 0.005
    common_sd: float = 0.004
    taste_sd: float = 0.05
    uneven: float = 0.0
    noisy: float = 1.0

    def draw(self, rng: np.random.Generator, gains: np.ndarray, seeds: int) -> dict[str, dict[int, np.ndarray]]:
        """Which images each of the variants has right, by seed.

        Args:
            rng: Random numbers.
            gains: By how much each variant's expected accuracy is above 0.69, a fraction.
            seeds: S.
        """
        count = len(gains)
        ease = np.where(rng.random(self.images) < 0.3, 0.16, 0.92)
        sd = self.seed_sd * np.exp(self.uneven * rng.normal(size=count))
        independent = float(np.mean(ease * (1 - ease))) / self.images
        sd[-1] = sqrt(self.noisy**2 * (sd[-1] ** 2 + independent) - independent)
        taste = rng.normal(0, self.taste_sd, (count, 1, self.images))
        common = rng.normal(0, self.common_sd, (1, seeds, 1))
        own = rng.normal(0, 1, (count, seeds, 1)) * sd[:, None, None]
        right = rng.random((count, seeds, self.images)) < ease + taste + common + own + gains[:, None, None]
        return {f"v{i:02}": dict(enumerate(rows)) for i, rows in enumerate(right)}


@dataclass
class Outcome:
    """Counts over the races of one row."""

    races: int = 0
    wrong_stops: int = 0
    wrong_verdicts: int = 0
    wrong: int = 0
    trained: int = 0
    trials: int = 0
    found: list[int] = field(default_factory=list)
    found_by_all: list[int] = field(default_factory=list)
    first: int = 0

    @property
    def saved(self) -> float:
        """Share of the trials that were not trained."""
        return 1 - self.trained / self.trials

    def error(self) -> str:
        """The family-wise error with its standard error, in percent."""
        p = self.wrong / self.races
        return f"{100 * p:.1f} ± {100 * sqrt(p * (1 - p) / self.races):.1f} %"


def simulate(
    world: World,
    gains: Sequence[float],
    seeds: int,
    races: int,
    alpha: float = 0.05,
    start: int = 0,
    full: bool = False,
) -> Outcome:
    """Runs races of variants with the given gains; the first one is the baseline.

    Args:
        world: What is drawn from.
        gains: By how much each variant's expected accuracy is above the common one, fractions.
        seeds: S.
        races: Number of races.
        alpha: The level of the comparison.
        start: Seed of the random numbers.
        full: Whether the whole comparison is tested too.
    """
    gain = np.asarray(gains, dtype=float)
    best = float(gain.max())
    outcome = Outcome(found=[0] * len(gain), found_by_all=[0] * len(gain))
    for number in range(races):
        right = world.draw(np.random.default_rng([start, number]), gain, seeds)
        names = list(right)
        race = Race(names, names[0], range(seeds), alpha)
        trained = replay(right, race)
        result = compare(trained, names[0], alpha, RESAMPLES, stopped=race.stopped, level=race.level)
        gain_of = dict(zip(names, gain, strict=True))
        wrong_stop = any(gain_of[name] >= best for name in race.stopped)
        wrong_verdict = False
        for place, name in enumerate(names[1:], 1):
            delta = result.variants[name].delta
            assert delta is not None
            true = gain_of[name] - gain[0]
            wrong_verdict |= (delta.better and true <= 0) or (delta.worse and true >= 0)
            outcome.found[place] += (delta.better and true > 0) or (delta.worse and true < 0)
        if full:
            whole = compare(right, names[0], alpha, RESAMPLES).variants
            for place, name in enumerate(names[1:], 1):
                delta = whole[name].delta
                assert delta is not None
                true = gain_of[name] - gain[0]
                outcome.found_by_all[place] += (delta.better and true > 0) or (delta.worse and true < 0)
        outcome.races += 1
        outcome.wrong_stops += wrong_stop
        outcome.wrong_verdicts += wrong_verdict
        outcome.wrong += wrong_stop or wrong_verdict
        outcome.trained += sum(map(len, trained.values()))
        outcome.trials += seeds * len(names)
        outcome.first += sum(one.stop.seeds == 1 for one in race.stopped.values())
    return outcome
