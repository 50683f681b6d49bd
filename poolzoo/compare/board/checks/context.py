"""What the checks of a submission look at: its runs by trial, under the checker's own protocol."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from poolzoo.common import json_reader
from poolzoo.common.errors import CheckFailed, PoolzooError
from poolzoo.compare import grid
from poolzoo.compare.board.protocol import Protocol
from poolzoo.compare.board.submission import Submission, SubmittedRun, listed
from poolzoo.compare.grid import Trial, Variant


@dataclass(frozen=True)
class Context:
    """What the checks look at: a submission and the checker's own protocol."""

    submission: Submission
    protocol: Protocol

    @property
    def runs(self) -> tuple[SubmittedRun, ...]:
        return self.submission.runs

    @cached_property
    def chosen(self) -> list[str]:
        """The poolings on the free side, the baseline first, as the plan or the runs name them."""
        if self.submission.comparison is None:
            found = [self.chosen_of(run) for run in self.runs]
        else:
            side = "pools" if self.protocol.free == "pool" else "local_pools"
            text = json_reader.text(self.submission.plan.get(side))
            if text is None:
                raise CheckFailed(f"plan.json names no {side}")
            found = grid.named(text)
        return list(dict.fromkeys([self.protocol.baseline, *found]))

    def chosen_of(self, run: SubmittedRun) -> str:
        """What a run has on the free side."""
        value = getattr(run.settings, self.protocol.free)
        return grid.NONE if value is None else str(value)

    @cached_property
    def by_trial(self) -> dict[tuple[str, int], SubmittedRun]:
        """Runs by what they have on the free side and their seed.

        Raises:
            CheckFailed: A trial is missing, unknown, or there twice.
        """
        names = {grid.identity(one): one for one in self.chosen}
        found: dict[tuple[str, int], SubmittedRun] = {}
        for run in self.runs:
            own = self.chosen_of(run)
            name, seed = names.get(grid.identity(own)), run.settings.seed
            if name is None or seed not in self.protocol.seed_range:
                raise CheckFailed(f"{run.name} is no trial of it: {own} from seed {seed}")
            if (name, seed) in found:
                text = f"{run.name} and {found[name, seed].name} are both {name} from seed {seed}"
                raise CheckFailed(text)
            found[name, seed] = run
        wanted = [(name, seed) for name in self.chosen for seed in self.protocol.seed_range]
        if missing := [f"{name} from seed {seed}" for name, seed in wanted if (name, seed) not in found]:
            raise CheckFailed(f"{len(missing)} of {len(wanted)} trials are missing: {listed(missing)}")
        return {key: found[key] for key in wanted}

    @property
    def trials(self) -> list[Trial]:
        """All trials, under the names of the plan."""
        return [Trial(self.variant(name), seed) for name, seed in self.by_trial]

    def variant(self, chosen: str) -> Variant:
        """The variant with this pooling on the free side."""
        own = self.protocol.settings_of(chosen, 0)
        return Variant(own.backbone, own.pool, own.local_pool)

    def is_known(self, chosen: str) -> bool:
        """Whether a pooling is built in, or comes with a plugin that the checker has loaded."""
        if chosen == grid.NONE:
            return True
        try:
            grid.specs(chosen, self.protocol.kind)
        except PoolzooError:
            return False
        return True
