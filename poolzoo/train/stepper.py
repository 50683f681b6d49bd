"""The steps of several modules on the same batch, at the same time where each learns bitwise what it would alone."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import torch
from torch import Tensor

from poolzoo.common import output
from poolzoo.train.cores import Cores, cores
from poolzoo.train.loaders import Inputs, TrainingBatch
from poolzoo.train.training_module import TrainingModule

SHORT: Final = 0.1  # of the time that each thread works in a step, at most, for a short step
TOGETHER: Final = 0.25  # of that time, for short steps that are put together
Read = TypeVar("Read", TrainingBatch, Inputs)


class Stepper:
    """Distributes the steps of modules among threads.

    torch has one generator of random numbers for all threads. Modules that draw from it follow each other in one
    thread, each with a seed of its own. The first step of a module shows whether it draws. The others share the
    remaining threads; the longest steps come first.

    Args:
        threads: How many modules step at the same time, each with one thread of torch. None to take the steps one
            after the other with all threads of torch.
    """

    def __init__(self, threads: int | None) -> None:
        self.threads = threads
        self._cores = Cores(1)
        self._seconds: dict[int, float] = {}
        self._one_by_one = threads is None or threads == 1

    @contextmanager
    def working(self, device: torch.device) -> Iterator[None]:
        """The threads exist within it.

        Args:
            device: Of the modules.
        """
        if self.threads is None:
            yield
            return
        with cores(device, self.threads) as self._cores:
            yield

    def ahead(self, batches: Iterator[Read], keys: Collection[str]) -> Generator[Read, None, None]:
        """Batches, of which the next one is read while the modules work on the one before.

        Args:
            batches: Of a loader.
            keys: Of the inputs that the modules need.
        """
        if self._one_by_one:
            yield from batches
            return

        def read(batch: Read) -> Read:
            inputs = batch.inputs if isinstance(batch, TrainingBatch) else batch
            for key in keys:
                inputs[key]
            return batch

        yield from self._cores.stream(read, batches, ahead=1)

    def step(self, modules: Sequence[TrainingModule], batch: TrainingBatch, number: int) -> None:
        """A step of each module.

        Args:
            modules: The modules.
            batch: Inputs and labels.
            number: Steps of the whole run before this one.
        """
        if self._one_by_one:
            for module in modules:
                module.step(batch, number)
            return
        new = [module for module in modules if id(module) not in self._seconds]
        for module in new:
            started = time.perf_counter()
            module.step_observed(batch, number)
            self._seconds[id(module)] = time.perf_counter() - started
        known = [module for module in modules if module not in new]
        drawing = [module for module in known if module.draws]
        tasks = self._tasks([module for module in known if not module.draws]) + ([drawing] if drawing else [])
        before = torch.default_generator.get_state()

        def work(task: list[TrainingModule]) -> torch.Tensor | None:
            for module in task:
                started = time.perf_counter()
                if module.draws:
                    module.step(batch, number)
                else:
                    module.step_unseeded(batch, number)
                self._seconds[id(module)] = time.perf_counter() - started
            return torch.default_generator.get_state() if task is drawing else None

        tasks.sort(key=lambda task: -sum(self._seconds[id(module)] for module in task))
        states = [state for state in self._cores.each(work, tasks) if state is not None]
        if not torch.equal(states[0] if states else before, torch.default_generator.get_state()):
            self._one_by_one = True
            output.warn(
                "a pooling draws random numbers in some steps only, but is not marked as stochastic",
                "set stochastic=True in its plugin; its heads now take their steps one after the other",
            )

    def _tasks(self, modules: Sequence[TrainingModule]) -> list[list[TrainingModule]]:
        """Modules that step in one thread; short steps are put together.

        Short steps spend most of their time in the interpreter, of which there is one for all threads. So one thread
        takes them while the others are busy with long steps.
        """
        share = sum(self._seconds[id(module)] for module in modules) / self._cores.count
        tasks: list[list[TrainingModule]] = [[]]
        seconds = 0.0
        for module in modules:
            own = self._seconds[id(module)]
            if own > SHORT * share:
                tasks.append([module])
                continue
            tasks[0].append(module)
            seconds += own
            if seconds > TOGETHER * share:
                tasks.insert(0, [])
                seconds = 0.0
        return [task for task in tasks if task]

    def logits(self, modules: Sequence[TrainingModule], inputs: Inputs) -> list[Tensor]:
        """The logits of each module, which the caller puts into eval mode."""
        return self._cores.each(lambda module: module.logits(inputs[module.input_key]), modules)
