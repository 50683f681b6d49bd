"""How often a race is wrong, how often it finds what there is, and how much training it saves; from simulated races.

python -m benchmarks.compare.racing [--races 2000] [--alternatives 100] [--variants 12] [--seeds 3] [--images 500]

Each simulated race draws new test images, new networks and what each has right, then runs poolzoo's own race and its
last tests on that. Images differ in difficulty, and for each variant in another way; a seed shifts the accuracy of one
network, and in part that of all variants alike. The last third of the variants are costly: they take five times as
long to train. In the null races all variants have the same expected accuracy; any stop and any difference from the
baseline is an error. `--alternatives` is the number of races of each other row.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final, TypedDict

import numpy as np

from poolzoo.common import output
from poolzoo.compare.race import Race, replay
from poolzoo.compare.statistics import compare
from poolzoo.report.results import Delta

RESAMPLES: Final = 999  # of the images in the last tests
POINTS: Final = (1, 2, 3, 5)
COSTLY: Final = 5.0  # seconds that a costly variant trains where the others train one
SHARPER: Final = 8  # times as many test images where differences are to be found


class Common(TypedDict):
    """What all rows share."""

    seeds: int
    alpha: float


@dataclass(frozen=True)
class World:
    """What is drawn from.

    Attributes:
        images: N, the test images.
        seed_sd: Standard deviation of a network's accuracy that its own seed causes, over and above that of images that
            are right or wrong independently, which is 1.3 points for 500 images.
        common_sd: The same, of what a seed does to all variants alike.
        taste_sd: Of what a variant does to the chance of an image: the interaction that makes sampling variance.
        uneven: Standard deviation of the logarithm of the factor by which a variant's `seed_sd` differs.
        noisy: Of the last variants, the factor on the whole standard deviation from seed to seed.
        noisy_count: How many they are.
    """

    images: int = 500
    seed_sd: float = 0.005
    common_sd: float = 0.004
    taste_sd: float = 0.05
    uneven: float = 0.0
    noisy: float = 1.0
    noisy_count: int = 1

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
        last = slice(count - self.noisy_count, count)
        sd[last] = np.sqrt(self.noisy**2 * (sd[last] ** 2 + independent) - independent)
        taste = rng.normal(0, self.taste_sd, (count, 1, self.images))
        common = rng.normal(0, self.common_sd, (1, seeds, 1))
        own = rng.normal(0, 1, (count, seeds, 1)) * sd[:, None, None]
        right = rng.random((count, seeds, self.images)) < ease + taste + common + own + gains[:, None, None]
        return {f"v{i:02}": dict(enumerate(rows)) for i, rows in enumerate(right)}


@dataclass
class Outcome:
    """Counts over the races of one row.

    Attributes:
        races: That were run.
        stops: Races with a wrong stop: of a variant that is as good as the best.
        verdicts: Races with a wrong verdict: better or worse than the baseline where that is not so.
        wrong: Races with either.
        trained, trials: Trials that the races trained, and those of whole comparisons.
        race_seconds, seconds: What these took.
        last: Races in which the last variant was stopped.
        found, found_by_all: How often the last variant's true difference from the baseline was found: by the race, and
            by the whole comparison of the same networks.
    """

    races: int = 0
    stops: int = 0
    verdicts: int = 0
    wrong: int = 0
    trained: int = 0
    trials: int = 0
    race_seconds: float = 0.0
    seconds: float = 0.0
    last: int = 0
    found: int = 0
    found_by_all: int = 0

    def percent(self, count: int) -> str:
        """A share of the races with its standard error."""
        p = count / self.races
        return f"{100 * p:.1f} ± {100 * sqrt(p * (1 - p) / self.races):.1f}"

    @property
    def saved(self) -> tuple[str, str]:
        """Percent of the trials that the races did not train, and of the seconds."""
        return f"{100 * (1 - self.trained / self.trials):.0f}", f"{100 * (1 - self.race_seconds / self.seconds):.0f}"


def simulate(
    world: World,
    gains: Sequence[float],
    seeds: int,
    races: int,
    *,
    alpha: float = 0.05,
    seen: Sequence[float] | None = None,
    whole: bool = False,
) -> Outcome:
    """Runs races of variants of which the first is the baseline.

    Args:
        world: What is drawn from.
        gains: By how much each variant's expected accuracy is above the common one, fractions.
        seeds: S.
        races: Number of races.
        alpha: The level of the comparison.
        seen: Other gains that the looks see in place of these, as those of trainings that are not finished.
        whole: Whether the whole comparison is tested too.
    """
    gain = np.asarray(gains, dtype=float)
    costly_from = len(gain) - len(gain) // 3
    outcome = Outcome()
    for number in range(races):
        rng = np.random.default_rng(number)
        right = world.draw(rng, np.asarray(seen or gains, dtype=float), seeds)
        names = list(right)
        race = Race(names, names[0], range(seeds), alpha)
        cost = {name: COSTLY if i >= costly_from else 1.0 for i, name in enumerate(names)}
        trained = replay(right, race, {name: dict.fromkeys(range(seeds), one) for name, one in cost.items()})
        true = dict(zip(names, gain - gain[0], strict=True))
        found = compare(trained, names[0], alpha, RESAMPLES, stopped=race.stopped, level=race.level)
        wrong_stop = any(true[name] >= max(true.values()) for name in race.stopped)
        wrong_verdict = any(_is_wrong(one.delta, true[name]) for name, one in found.variants.items())
        outcome.races += 1
        outcome.stops += wrong_stop
        outcome.verdicts += wrong_verdict
        outcome.wrong += wrong_stop or wrong_verdict
        outcome.trained += sum(map(len, trained.values()))
        outcome.trials += seeds * len(names)
        outcome.race_seconds += sum(cost[name] * len(rows) for name, rows in trained.items())
        outcome.seconds += seeds * sum(cost.values())
        outcome.last += names[-1] in race.stopped
        outcome.found += _is_found(found.variants[names[-1]].delta, true[names[-1]])
        if whole:
            of_all = compare(right, names[0], alpha, RESAMPLES).variants[names[-1]].delta
            outcome.found_by_all += _is_found(of_all, true[names[-1]])
    return outcome


def _is_wrong(delta: Delta | None, true: float) -> bool:
    return delta is not None and ((delta.better and true <= 0) or (delta.worse and true >= 0))


def _is_found(delta: Delta | None, true: float) -> bool:
    return delta is not None and ((delta.better and true > 0) or (delta.worse and true < 0))


def _print_errors(plain: World, level: Sequence[float], races: int, common: Common) -> None:
    print(f"\nAll variants are equal: how often is a race wrong? Percent of {races} races, {plain.images} test images.")
    rows, costly = [], len(level) // 3
    for name, world in (
        ("alike", plain),
        ("uneven: a factor of two between variants", replace(plain, uneven=0.7)),
        ("one costly variant has twice the standard deviation", replace(plain, noisy=2.0)),
        ("one costly variant has three times the standard deviation", replace(plain, noisy=3.0)),
        ("one costly variant has five times the standard deviation", replace(plain, noisy=5.0)),
        ("the costly variants have twice the standard deviation", replace(plain, noisy=2.0, noisy_count=costly)),
    ):
        one = simulate(world, level, races=races, **common)
        rows.append((name, one.percent(one.wrong), one.percent(one.stops), one.percent(one.verdicts)))
    output.table(("variances from seed to seed", "wrong", "by a stop", "by a verdict"), rows, right=(1, 2, 3))


def _print_power(plain: World, level: Sequence[float], races: int, common: Common) -> None:
    print(f"\nOne variant differs: how often is that found? Percent of {races} races, {plain.images} test images.")
    rows = []
    for points in (*(-p for p in reversed(POINTS)), *POINTS):
        one = simulate(plain, [*level[1:], points / 100], races=races, whole=True, **common)
        found = one.percent(one.found), one.percent(one.found_by_all)
        rows.append((f"{points:+d}", *found, one.percent(one.wrong), *one.saved))
    headers = ("points", "by the race", "by the whole comparison", "wrong", "trials saved", "time saved")
    output.table(headers, rows, right=(0, 1, 2, 3, 4, 5))
    behind = [0.0, 0.0, 0.0, *np.linspace(-0.03, -0.1, len(level) - 3)]
    one = simulate(plain, behind, races=races, **common)
    print("Three are level, the others 3 to 10 points behind. In percent:")
    output.table(("trials saved", "time saved", "wrong"), [(*one.saved, one.percent(one.wrong))], right=(0, 1, 2))


def _print_crossing(plain: World, level: Sequence[float], races: int, common: Common) -> None:
    print("\nCurves cross: one variant ends 3 points ahead of all, and is 5 points behind in the middle.")
    print(f"How often do looks stop it? Percent of {races} races.")
    rows = []
    for name, seen in (("in the middle of the training", -0.05), ("at its end, as poolzoo does", 0.03)):
        one = simulate(plain, [*level[1:], 0.03], races=races, seen=[*level[1:], seen], **common)
        rows.append((name, one.percent(one.last)))
    output.table(("looks", "stopped"), rows, right=(1,))


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare.racing", description=__doc__.split("\n")[0])
    parser.add_argument("--races", type=int, default=2000, metavar="R", help="of each null row; 0 skips them")
    parser.add_argument(
        "--alternatives", type=int, default=100, metavar="R", help="races of each other row; 0 skips them"
    )
    parser.add_argument("--variants", type=int, default=12, metavar="M")
    parser.add_argument("--seeds", type=int, default=3, metavar="S")
    parser.add_argument("--images", type=int, default=500, metavar="N", help="test images")
    parser.add_argument("--alpha", type=float, default=0.05, help="level of the comparison")
    given = parser.parse_args()
    common: Common = {"seeds": given.seeds, "alpha": given.alpha}
    level = [0.0] * given.variants
    print(f"{given.variants} variants, {given.seeds} seeds, alpha {given.alpha:g}")
    if given.races:
        _print_errors(World(images=given.images), level, given.races, common)
    if given.alternatives:
        sharp = World(images=SHARPER * given.images)
        _print_power(sharp, level, given.alternatives, common)
        _print_crossing(sharp, level, given.alternatives, common)
    return 0


if __name__ == "__main__":
    sys.exit(main())
