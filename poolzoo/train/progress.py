"""How far a run is: finished epochs and steps, and the metrics of its epochs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from poolzoo.train.epoch_metrics import EpochMetrics
from poolzoo.train.time_budget import ClockState


class ProgressState(TypedDict):
    """What a checkpoint keeps of `Progress`."""

    epoch: int
    step: int
    seconds: float
    lines: dict[str, list[dict[str, float | None]]]
    clock: NotRequired[ClockState]  # of a run with a time budget


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: Finished epochs.
        step: Finished steps of the next epoch.
        seconds: Duration of training so far, without validation.
        history: Metrics of the finished epochs, by module.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    history: dict[str, list[EpochMetrics]] = field(default_factory=dict)

    def state_dict(self) -> ProgressState:
        """The state for a checkpoint."""
        lines = {name: [epoch.to_json() for epoch in epochs] for name, epochs in self.history.items()}
        return {"epoch": self.epoch, "step": self.step, "seconds": self.seconds, "lines": lines}

    @classmethod
    def from_state_dict(cls, state: ProgressState) -> Progress:
        """Reads what `state_dict` gave."""
        history = {name: [EpochMetrics.from_json(line) for line in lines] for name, lines in state["lines"].items()}
        return cls(epoch=state["epoch"], step=state["step"], seconds=state["seconds"], history=history)
