"""How long the trainings of a choice are, and on how many images, so that all of them fit into a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from poolzoo.common import output
from poolzoo.common.errors import PoolzooError, UsageError
from poolzoo.compare import trial
from poolzoo.compare.choosing.plan import Planned
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.cost import FINISH, StepTimes, Workload, step_times
from poolzoo.compare.grid import Trial
from poolzoo.train.defaults import default_epochs
from poolzoo.train.prepare import PreparedRun, prepare
from poolzoo.train.step_plan import show_duration

FEWEST_EPOCHS: Final = 3  # as long as there are fewer images to take instead
LIMITS: Final = (20_000, 10_000, 5_000, 2_000, 1_000, 500, 200)  # training images, and as many test images at most
FILLED: Final = 0.5  # of the time by what trainings are predicted to take: whole seeds are worth more than epochs
RESERVED: Final = 0.15  # of the time, for exports


@dataclass(frozen=True)
class Load:
    """What one comparison costs, by the length of its trainings and the number of its images.

    Attributes:
        planned: The comparison.
        work: Of one trial with all images.
        times: Of every variant.
        preparing: Seconds that a trial needs before and after its training.
    """

    planned: Planned
    work: Workload
    times: Sequence[StepTimes]
    preparing: float

    def seconds(self, limit: int | None, epochs: int) -> float:
        """The estimate for all trials of the comparison."""
        work, seeds = _limited(self.work, limit, epochs), self.planned.config.seeds
        costs = [one.cost(work) for one in self.times]
        once = max(shared.once for shared, _ in costs) + sum(own.once for _, own in costs)
        each = sum(own.trial + self.preparing for _, own in costs)
        return once + seeds * each

    @property
    def most_epochs(self) -> int:
        """The length that `finetune` would take by itself."""
        return default_epochs(self.work.train)


def _limited(work: Workload, limit: int | None, epochs: int) -> Workload:
    share = 1.0 if limit is None else min(1.0, limit / (work.train + work.val))
    test = work.test if limit is None else min(work.test, limit)
    return replace(work, train=round(share * work.train), val=round(share * work.val), test=test, epochs=epochs)


@dataclass(frozen=True)
class Fitted:
    """What fits: the images that `--limit` keeps, None for all; and the epochs of each comparison."""

    limit: int | None
    epochs: Sequence[int]


def measure(planned: Sequence[Planned]) -> tuple[list[Load], list[str]]:
    """The loads of the comparisons whose variants can be assembled, and why others are left out, in sentences.

    A variant that cannot be assembled fails later, as a row of its comparison.

    Raises:
        PoolzooError: Nothing can be compared.
    """
    loads: list[Load] = []
    left_out: list[str] = []
    first_error: PoolzooError | None = None
    for one in planned:
        try:
            loads.append(_load(one, quiet=bool(loads)))
        except PoolzooError as error:
            first_error = first_error or error
            left_out.append(f"{one.title}: left out, {error.message}.")
    if not loads:
        assert first_error is not None
        raise first_error
    for line in left_out:
        output.warn(line)
    return loads, left_out


def _load(planned: Planned, *, quiet: bool) -> Load:
    """Assembles every variant of a comparison and measures some of its steps.

    Raises:
        PoolzooError: The baseline cannot be assembled.
    """
    config = planned.config
    ordered = sorted(config.variants, key=lambda one: one != config.baseline_variant)
    times: list[StepTimes] = []
    preparing: list[float] = []
    first: PreparedRun | None = None
    for variant in ordered:
        started = time.perf_counter()
        try:
            with output.quiet():
                prepared = prepare(trial.settings_of(config.settings, Trial(variant, config.settings.seed)))
        except PoolzooError:
            if first is None:
                raise
            continue
        preparing.append(time.perf_counter() - started)
        first = first or prepared
        times.append(step_times(prepared, len(ordered)))
    assert first is not None
    own = min(preparing) / (len(times) if config.settings.freeze == "backbone" else 1)  # heads are prepared at once
    return Load(planned, Workload.of(first), times, own + FINISH)


def fit(loads: Sequence[Load], seconds: float, spent: float = 0.0) -> Fitted:
    """The longest trainings on the most images that fit into a time.

    All comparisons have the same images, so that they can be compared with one another. The number of images comes
    first, as long as every training has three epochs; what time is left then makes trainings longer.

    Args:
        loads: Of the comparisons.
        seconds: For all of them together, and for what was done before.
        spent: That this took.

    Raises:
        UsageError: Not even one pass over a few images fits.
    """
    usable = FILLED * (seconds - spent)
    images = loads[0].work.train + loads[0].work.val
    limits = [None, *(limit for limit in LIMITS if limit < images)]
    for fewest in (FEWEST_EPOCHS, 1):
        for limit in limits:
            least = [min(fewest, load.most_epochs) for load in loads]
            needed = [load.seconds(limit, epochs) for load, epochs in zip(loads, least, strict=True)]
            if sum(needed) <= usable:
                return Fitted(limit, _lengthened(loads, limit, least, usable))
    least_seconds = spent + sum(load.seconds(limits[-1], 1) for load in loads) / FILLED
    trials = sum(len(load.planned.config.trials) for load in loads)
    needed_time = show_duration(5 * (least_seconds // 5 + 1))
    raise UsageError(
        f"--time-budget {show_duration(seconds)} is too short: one pass of {trials} trainings over "
        f"{limits[-1] or images:,} images takes about {needed_time}",
        f"--time-budget {needed_time}, fewer --seeds, or fewer poolings",
    )


def _lengthened(loads: Sequence[Load], limit: int | None, least: Sequence[int], usable: float) -> list[int]:
    """The epochs of each comparison when the time that is left is shared, cheap comparisons first."""
    epochs = list(least)
    left = usable - sum(load.seconds(limit, count) for load, count in zip(loads, least, strict=True))

    def full(index: int) -> float:
        return loads[index].seconds(limit, loads[index].most_epochs)

    waiting = sorted(range(len(loads)), key=full)
    for done, index in enumerate(waiting):
        load, share = loads[index], left / (len(loads) - done)
        before = load.seconds(limit, epochs[index])
        while epochs[index] < load.most_epochs and load.seconds(limit, epochs[index] + 1) - before <= share:
            epochs[index] += 1
        left -= load.seconds(limit, epochs[index]) - before
    return epochs


def fitted_config(config: ComparisonConfig, limit: int | None, epochs: int) -> ComparisonConfig:
    """A comparison with that many images and epochs."""
    settings = config.settings
    kept = settings.limit if limit is None else limit
    return replace(config, settings=replace(settings, limit=kept, epochs=epochs))
