"""The tasks of a network, and what its scores are called in files and messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CLASSIFICATION: Final = "classification"
MULTILABEL: Final = "multilabel"


@dataclass(frozen=True)
class Task:
    """What a network decides about an image, and the words for how well it does.

    Attributes:
        name: The value of `--task`.
        val_score: The score that chooses the best epoch, in words.
        score_key: Its key in `metrics.json`.
        validation: What messages call that score.
        val_key: Its key in a line of `metrics.jsonl`.
        train_score: The score on the training images, in words.
        train_key: Its key in a line of `metrics.jsonl`.
    """

    name: str
    val_score: str
    score_key: str
    validation: str
    val_key: str
    train_score: str
    train_key: str

    @property
    def is_multilabel(self) -> bool:
        """Whether an image has any number of labels, and not exactly one."""
        return self.name == MULTILABEL


TASKS: Final = {
    CLASSIFICATION: Task(
        name=CLASSIFICATION,
        val_score="accuracy",
        score_key="accuracy",
        validation="validation",
        val_key="val_accuracy",
        train_score="accuracy",
        train_key="train_accuracy",
    ),
    # mAP needs no thresholds. F1 would need some, chosen on the images that it is then measured on.
    MULTILABEL: Task(
        name=MULTILABEL,
        val_score="mAP",
        score_key="map",
        validation="validation mAP",
        val_key="val_map",
        train_score="F1",
        train_key="train_f1",
    ),
}
