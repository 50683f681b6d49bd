"""The metrics of one epoch: a line of `metrics.jsonl`, a callback's argument, and a row of the learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from poolzoo.common import files, json_writer

FILE: Final = "metrics.jsonl"


@dataclass(frozen=True)
class EpochMetrics:
    """What one module reached in one epoch.

    Attributes:
        epoch: Counted from 1.
        loss: Mean training loss.
        train_accuracy: On the augmented training images, while they were trained on.
        val_loss: Mean cross entropy on the validation images; None if it is not finite.
        val_accuracy: On the validation images.
        lr: Learning rate of the last step.
        seconds: Duration of training, without validation.
        images_per_s: Training throughput.
    """

    epoch: int
    loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float
    lr: float
    seconds: float
    images_per_s: float

    def to_json(self) -> dict[str, float | None]:
        """The object that `metrics.jsonl` has on a line."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> EpochMetrics:
        """Reads what `to_json` wrote, also in earlier versions, which had no `val_loss`."""
        return cls(
            epoch=found["epoch"],
            loss=found["loss"],
            train_accuracy=found["train_accuracy"],
            val_loss=found.get("val_loss"),
            val_accuracy=found["val_accuracy"],
            lr=found["lr"],
            seconds=found["seconds"],
            images_per_s=found["images_per_s"],
        )


def write_history(path: Path, history: Sequence[EpochMetrics]) -> None:
    """Writes `metrics.jsonl` of a run.

    Args:
        path: The run directory.
        history: Metrics of all epochs.
    """
    files.write_atomically(path / FILE, "".join(json_writer.dumps(epoch.to_json()) + "\n" for epoch in history))
