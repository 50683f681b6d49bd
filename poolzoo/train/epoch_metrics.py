"""The metrics of one epoch: a line of `metrics.jsonl`, a callback's argument, and a row of the learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from poolzoo.common import files, json_writer
from poolzoo.metrics.tasks import CLASSIFICATION, TASKS, Task

FILE: Final = "metrics.jsonl"


@dataclass(frozen=True)
class EpochMetrics:
    """What one module reached in one epoch.

    Attributes:
        epoch: Counted from 1.
        loss: Mean training loss.
        train_score: Accuracy, or with several labels F1, on the augmented training images while they were trained on.
        val_loss: Mean cross entropy on the validation images; None if it is not finite.
        val_score: Accuracy, or with several labels mAP, on the validation images.
        lr: Learning rate of the last step.
        seconds: Duration of training, without validation.
        images_per_s: Training throughput.
        task: Gives the names of the two scores.
    """

    epoch: int
    loss: float
    train_score: float
    val_loss: float | None
    val_score: float
    lr: float
    seconds: float
    images_per_s: float
    task: Task = TASKS[CLASSIFICATION]

    def to_json(self) -> dict[str, float | None]:
        """The object that `metrics.jsonl` has on a line."""
        return {
            "epoch": self.epoch,
            "loss": self.loss,
            self.task.train_key: self.train_score,
            "val_loss": self.val_loss,
            self.task.val_key: self.val_score,
            "lr": self.lr,
            "seconds": self.seconds,
            "images_per_s": self.images_per_s,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> EpochMetrics:
        """Reads what `to_json` wrote, also in earlier versions, which had no `val_loss`."""
        task = next(task for task in TASKS.values() if task.val_key in found)
        return cls(
            epoch=found["epoch"],
            loss=found["loss"],
            train_score=found[task.train_key],
            val_loss=found.get("val_loss"),
            val_score=found[task.val_key],
            lr=found["lr"],
            seconds=found["seconds"],
            images_per_s=found["images_per_s"],
            task=task,
        )


def write_history(path: Path, history: Sequence[EpochMetrics]) -> None:
    """Writes `metrics.jsonl` of a run.

    Args:
        path: The run directory.
        history: Metrics of all epochs.
    """
    files.write_atomically(path / FILE, "".join(json_writer.dumps(epoch.to_json()) + "\n" for epoch in history))
