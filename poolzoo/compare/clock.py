"""The time budget of a comparison: how long what comes next will take, and whether that fits.

A piece of work begins only if its predicted end is within the budget, so that a comparison is late by at most the error
of one prediction. Before anything was trained, the prediction is that of `preview`. What was trained corrects it: a
variant takes as long as its last seed did, and another one as much longer than previewed as those that were trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import Final

from poolzoo.compare.grid import Trial

LEAST_SECONDS: Final = 0.1  # of a trial: `preview` is no more precise
END_SECONDS: Final = 3.0  # for the statistics and the page …
END_SECONDS_EACH: Final = 0.3  # … and for each variant, its size and its row; both on an idle machine
SLOWEST: Final = 5.0  # times as long as that on a busy one, as the preview has shown


class Clock:
    """How much of the budget is left.

    It begins to count at once.

    Args:
        budget: Seconds of the whole comparison; None for no limit.
        now: Gives the time in seconds.
    """

    def __init__(self, budget: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self._now = now
        self._used = 0.0
        self._start = self._now()
        self._cpu_start = time.process_time()
        self._slowness = 1.0
        self._previewed: dict[str, float] = {}
        self._trained: dict[str, float] = {}
        self._pieces: dict[str, float] = {}
        self._spent = self._expected = 0.0

    def start_from(self, used: float, previewed: Mapping[str, float], done: Sequence[Trial]) -> None:
        """Takes note of what is known before this session trains.

        Args:
            used: Seconds that earlier sessions took.
            previewed: Seconds of a trial of each variant, by the variant's key, in advance.
            done: What earlier sessions trained.
        """
        self._used = used
        cpu = time.process_time() - self._cpu_start
        self._slowness = min(SLOWEST, max(1.0, self.session / cpu)) if cpu > 0 else 1.0
        self._previewed = {key: max(seconds, LEAST_SECONDS) for key, seconds in previewed.items()}
        self._spent = used if done else 0.0
        self._expected = sum(self._previewed.get(one.variant.key, 0.0) for one in done)

    @property
    def session(self) -> float:
        """Seconds since this process began."""
        return self._now() - self._start

    @property
    def left(self) -> float:
        """Seconds that are left for work, without those for the end."""
        if self.budget is None:
            return inf
        end = END_SECONDS + END_SECONDS_EACH * len(self._previewed)
        return self.budget - self._used - self.session - self._slowness * end

    def seconds(self, trial: Trial) -> float:
        """The predicted seconds of a trial."""
        key = trial.variant.key
        if key in self._trained:
            return self._trained[key]
        return self._previewed.get(key, 0.0) * (self._spent / self._expected if self._expected else 1.0)

    def trained(self, trials: Sequence[Trial], seconds: float) -> None:
        """Takes note of how long some trials took together."""
        previewed = [self._previewed.get(one.variant.key, 0.0) for one in trials]
        self._spent += seconds
        self._expected += sum(previewed)
        for one, part in zip(trials, previewed, strict=True):
            share = part / sum(previewed) if sum(previewed) else 1 / len(trials)
            self._trained[one.variant.key] = share * seconds

    def fitting(self, groups: Sequence[Sequence[Trial]]) -> list[Trial]:
        """The trials that are trained next: all without a budget; else the first groups, for half of the time at most.

        One group may take all of the time. Where the first does not fit, the next one that does, or trials of it.

        Args:
            groups: Trials that should be trained together, in their order.
        """
        if self.budget is None:
            return [one for group in groups for one in group]
        chosen: list[Trial] = []
        total, room = 0.0, self.left
        for group in groups:
            expected = sum(map(self.seconds, group))
            if total + expected > (room / 2 if chosen else room) or (chosen and not self._spent):
                break
            chosen += group
            total += expected
        for group in groups if not chosen else ():  # the first that fits, or a part of it
            total = 0.0
            for one in group:
                total += self.seconds(one)
                if total <= room:
                    chosen.append(one)
            if chosen:
                break
        return chosen

    def room(self, kind: str, count: int, guess: float) -> int:
        """How many pieces of some other work fit; a single one where its time is only guessed.

        Args:
            kind: Of work.
            count: Pieces that there are.
            guess: Seconds of one, before any was done.
        """
        if self.budget is None:
            return count
        if kind not in self._pieces:
            return int(0 < guess <= self.left)
        return max(0, min(count, int(self.left / max(self._pieces[kind], 1e-3))))

    @contextmanager
    def timing(self, kind: str, count: int) -> Iterator[None]:
        """Measures some pieces of work, for the predictions of the next ones."""
        start = self._now()
        yield
        self._pieces[kind] = (self._now() - start) / count
