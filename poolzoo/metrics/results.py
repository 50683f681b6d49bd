"""What a classifier achieves on labeled images, as values: of all images together, and of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from poolzoo.metrics.intervals import wilson_interval
from poolzoo.metrics.multilabel_results import LabelMetrics, MultilabelMetrics
from poolzoo.metrics.tasks import MULTILABEL

LISTED_CLASSES: Final = 5  # in the sentence about classes without test images
SUMMARY: Final = ("accuracy", "precision", "recall", "f1", "n")


@dataclass(frozen=True)
class ClassMetrics:
    """Precision, recall and F1 of one class as fractions 0–1; all None where no image has the class.

    Attributes:
        name: The class.
        precision: True positives among the images predicted as this class; 0 where there are none.
        recall: True positives among the images of this class.
        f1: Harmonic mean of precision and recall.
        n: Number of images of this class.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    n: int

    def to_json(self) -> dict[str, object]:
        """The row of `per_class` in `metrics.json`."""
        return {"class": self.name, "precision": self.precision, "recall": self.recall, "f1": self.f1, "n": self.n}


@dataclass(frozen=True)
class Metrics:
    """What logits and labels say about a classifier; fractions are 0–1.

    Attributes:
        accuracy: Fraction of the images whose largest logit is the label's.
        interval: Wilson 95 % interval of the accuracy.
        top5: Top-5 accuracy; None for five classes or fewer.
        ece: Expected calibration error; None where a confidence is not finite.
        precision: Macro mean over the classes that occur.
        recall: Macro mean over the classes that occur.
        f1: Macro mean over the classes that occur.
        n: Number of images.
        per_class: One row for each class, in the order of the labels.
        confusion: Number of images by true class (row) and predicted class (column).
    """

    accuracy: float
    interval: tuple[float, float]
    top5: float | None
    ece: float | None
    precision: float
    recall: float
    f1: float
    n: int
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, object]:
        """The object that `metrics.json` keeps and `poolzoo evaluate --json` prints."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "top5": self.top5,
            "ece": self.ece,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "n": self.n,
            "per_class": [row.to_json() for row in self.per_class],
            "confusion": [list(row) for row in self.confusion],
        }

    def summary(self) -> dict[str, object]:
        """Accuracy, macro means and number of images, without intervals and tables."""
        return {key: getattr(self, key) for key in SUMMARY}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Metrics:
        """Reads what `to_json` wrote, also in earlier versions, which had fewer keys.

        Raises:
            KeyError: A key that every version wrote is missing.
        """
        correct = round(found["accuracy"] * found["n"])
        low, high = found.get("interval") or wilson_interval(correct, found["n"])
        return cls(
            accuracy=found["accuracy"],
            interval=(low, high),
            top5=found.get("top5"),
            ece=found.get("ece"),
            precision=found["precision"],
            recall=found["recall"],
            f1=found["f1"],
            n=found["n"],
            per_class=tuple(
                ClassMetrics(
                    name=row["class"], precision=row["precision"], recall=row["recall"], f1=row["f1"], n=row["n"]
                )
                for row in found["per_class"]
            ),
            confusion=tuple(tuple(row) for row in found["confusion"]),
        )


AnyMetrics = Metrics | MultilabelMetrics


def metrics_from_json(found: Mapping[str, Any]) -> AnyMetrics:
    """Reads what `to_json` of either kind of metrics wrote; without `task` it is of one label per image.

    Raises:
        KeyError: A key is missing.
    """
    return MultilabelMetrics.from_json(found) if found.get("task") == MULTILABEL else Metrics.from_json(found)


def format_score(value: float | None) -> str:
    """A fraction with three digits; a dash where it is undefined."""
    return "–" if value is None else f"{value:.3f}"


def untested_classes(per_class: Sequence[ClassMetrics | LabelMetrics]) -> list[str]:
    """Names of the classes without test images, whose scores are undefined."""
    return [row.name for row in per_class if not row.n]


def untested_note(names: Sequence[str], scores: str = "precision") -> str:
    """A sentence about classes without test images; empty if there are none.

    Args:
        names: The classes, as `untested_classes` gives them.
        scores: What is undefined there, before "recall and F1".
    """
    if not names:
        return ""
    hidden = len(names) - LISTED_CLASSES
    more = f" and {hidden} more" if hidden > 0 else ""
    return (
        f"No test image of {', '.join(names[:LISTED_CLASSES])}{more}: {scores}, recall and F1 are undefined there and "
        "left out of the means."
    )
