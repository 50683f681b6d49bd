"""`--time-budget`: fits the number of steps to the time that is left, from the measured time of a step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Final, TypedDict

from poolzoo.data.batches import Rank
from poolzoo.train import distributed
from poolzoo.train.loaders import Loader, endless
from poolzoo.train.snapshot import restored
from poolzoo.train.step_plan import Fit, StepPlan, show_duration
from poolzoo.train.training_module import TrainingModule

PROBE_FRACTION: Final = 0.05  # of the budget that the first measurement may take …
PROBE_SECONDS: Final = 10.0  # … and at most so long
WARMUP_STEPS: Final = 2  # which compile and fill caches, and are not measured
FIT_EVERY: Final = 4  # the plan is fitted again after this part of the remaining steps: 1/4 …
FEWEST_STEPS: Final = 16  # … while so many remain


class ClockState(TypedDict):
    """What a checkpoint keeps of `ClockReading`."""

    wall: float
    validation: float
    fits: list[dict[str, int]]


@dataclass(frozen=True)
class StepCost:
    """Seconds of one step, and of one validation with what else happens at the end of an epoch."""

    step: float
    validation: float

    def steps_in(self, seconds: float, done: int, steps_per_epoch: int) -> int:
        """How many more steps fit into a time, with a validation after every epoch and after the last step.

        Args:
            seconds: The time that is left.
            done: Finished steps.
            steps_per_epoch: Steps an epoch.
        """
        low, high = 0, max(0, int(seconds / self.step)) if self.step > 0 else 0
        while low < high:  # the largest number whose cost is not above the time
            middle = (low + high + 1) // 2
            ends = -(-(done + middle) // steps_per_epoch) - done // steps_per_epoch
            if middle * self.step + ends * self.validation <= seconds:
                low = middle
            else:
                high = middle - 1
        return low


@dataclass
class ClockReading:
    """How much of its budget a run has used, and the plan that follows.

    Attributes:
        wall: Seconds of training so far, with validation and checkpoints, over all resumes.
        validation: Seconds of the last validation, or its estimate.
        plan: The steps of the run; None before the first fit.
    """

    wall: float = 0.0
    validation: float = 0.0
    plan: StepPlan | None = None

    def state_dict(self) -> ClockState:
        """The state for a checkpoint."""
        fits = [] if self.plan is None else [asdict(fit) for fit in self.plan.fits]
        return {"wall": self.wall, "validation": self.validation, "fits": fits}

    @classmethod
    def from_state_dict(cls, state: ClockState) -> ClockReading:
        """Reads what `state_dict` gave."""
        fits = tuple(Fit(**fit) for fit in state["fits"])
        return cls(wall=state["wall"], validation=state["validation"], plan=StepPlan(fits) if fits else None)


class BudgetClock:
    """Fits the plan of a run to its budget: before the first step, and again while it trains.

    Args:
        seconds: The budget.
        steps_per_epoch: Steps an epoch.
        rank: This process; rank 0 measures and decides.
    """

    def __init__(self, seconds: float, steps_per_epoch: int, rank: Rank) -> None:
        self.seconds = seconds
        self.steps_per_epoch = steps_per_epoch
        self.rank = rank
        self.reading = ClockReading()
        self._started = time.perf_counter()
        self._wall_before = 0.0
        self._measured_from: tuple[int, float] | None = None

    def start(self) -> None:
        """Begins to count; called after `reading` was restored, if it was."""
        self._started = time.perf_counter()
        self._wall_before = self.reading.wall

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.seconds - self.read().wall

    def read(self) -> ClockReading:
        """The reading of this moment."""
        self.reading.wall = self._wall_before + time.perf_counter() - self._started
        return self.reading

    def plan(self, modules: Mapping[str, TrainingModule], loader: Loader, val_images: int) -> StepPlan:
        """The plan before the first step, from steps whose effect is undone.

        Args:
            modules: What is trained.
            loader: Serves the batches.
            val_images: Validation images of this process.
        """
        limit = min(PROBE_SECONDS, PROBE_FRACTION * self.seconds)
        with restored(modules.values()):
            step = _step_seconds(modules, loader, limit, self.rank)
            self.reading.validation = _validation_seconds(modules, loader, val_images, limit / 2)
        total = self._decide(StepCost(step=step, validation=self.reading.validation), done=0)
        self.reading.plan = StepPlan.of(max(1, total))
        return self.reading.plan

    def describe(self) -> str:
        """The plan in words."""
        assert self.reading.plan is not None
        total = self.reading.plan.total
        epochs = total / self.steps_per_epoch
        left = show_duration(max(0.0, self.left))
        return f"{left} of training are left: {total:,} steps, {epochs:.3g} epochs, as the first steps suggest"

    def is_due(self, done: int) -> bool:
        """Whether the plan is fitted again after so many steps of the run; the same in all processes."""
        assert self.reading.plan is not None  # `plan` comes first
        last = self.reading.plan.fits[-1]
        remaining = last.total - last.step
        return remaining >= FEWEST_STEPS and done == last.step + max(1, remaining // FIT_EVERY)

    def refit(self, done: int, train_seconds: float) -> StepPlan:
        """The plan that fits the time that is left; the modules have finished their steps.

        Args:
            done: Finished steps of the run.
            train_seconds: Seconds of training so far, without validation.
        """
        assert self.reading.plan is not None
        since, seconds = self._measured_from or (done, train_seconds)
        self._measured_from = (done, train_seconds)
        total = self.reading.plan.total
        if done > since:
            cost = StepCost(step=(train_seconds - seconds) / (done - since), validation=self.reading.validation)
            total = done + self._decide(cost, done=done)
        self.reading.plan = self.reading.plan.refitted(done, total)
        return self.reading.plan

    def measure_from(self, done: int, train_seconds: float) -> None:
        """Where the next `refit` measures from."""
        self._measured_from = (done, train_seconds)

    def _decide(self, cost: StepCost, done: int) -> int:
        steps = cost.steps_in(self.left, done, self.steps_per_epoch)
        return distributed.all_gather_objects(steps, self.rank)[0]


def _step_seconds(modules: Mapping[str, TrainingModule], loader: Loader, limit: float, rank: Rank) -> float:
    """Seconds of a step of all modules, after the first ones, which compile and fill caches."""
    for module in modules.values():
        module.start_epoch(1)
    batches = enumerate(endless(loader))

    def seconds(steps: int) -> float:
        started = time.perf_counter()
        for number, batch in islice(batches, steps):
            for module in modules.values():
                module.step(batch, number)
                module.training_means()  # waits for the device
        return (time.perf_counter() - started) / steps

    seconds(WARMUP_STEPS)
    one = seconds(1)
    more = distributed.all_gather_objects(int(limit / one) if one else 0, rank)[0]  # as many in all processes
    return seconds(more) if more else one


def _validation_seconds(modules: Mapping[str, TrainingModule], loader: Loader, images: int, limit: float) -> float:
    """Seconds of a validation on so many images, from its first batches."""
    for module in modules.values():
        module.eval_module.eval()
    started = time.perf_counter()
    seen = 0
    for inputs in loader.validation():
        for module in modules.values():
            count = len(module.logits(inputs[module.input_key]).cpu())
        seen += count
        if time.perf_counter() - started > limit:
            break
    return (time.perf_counter() - started) * images / max(1, seen)
