"""What a network achieves that gives images any number of labels, as values: of all labels together, and of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from poolzoo.metrics.tasks import MULTILABEL

SUMMARY: Final = ("map", "precision", "recall", "f1", "micro_precision", "micro_recall", "micro_f1", "n")


@dataclass(frozen=True)
class LabelMetrics:
    """Scores of one label as fractions 0–1; those of ranking and decisions are None where no image has the label.

    Attributes:
        name: The label.
        threshold: The least probability at which it is predicted.
        ap: Average precision.
        precision: True positives among the images that get the label; 0 where there are none.
        recall: True positives among the images that have it.
        f1: Harmonic mean of precision and recall.
        n: Number of images that have it.
        predicted: Number of images that get it.
    """

    name: str
    threshold: float
    ap: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    n: int
    predicted: int

    def to_json(self) -> dict[str, object]:
        """The row of `per_class` in `metrics.json`."""
        return {
            "class": self.name,
            "threshold": self.threshold,
            "ap": self.ap,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "n": self.n,
            "predicted": self.predicted,
        }


@dataclass(frozen=True)
class MultilabelMetrics:
    """What logits and labels say about a network with several labels; fractions are 0–1.

    Attributes:
        map: mAP, the mean average precision over the labels that occur.
        interval: Its 95 % interval by bootstrap.
        precision, recall, f1: Macro means over the labels that occur, at the thresholds.
        f1_interval: 95 % interval of the macro F1.
        micro_precision, micro_recall, micro_f1: Of all decisions about an image and a label together.
        micro_f1_interval: 95 % interval of the micro F1.
        exact: Fraction of the images whose set of labels is predicted exactly.
        ece: Class-wise expected calibration error; None where a probability is not finite.
        n: Number of images.
        per_class: One row for each label, in their order.
    """

    map: float
    interval: tuple[float, float]
    precision: float
    recall: float
    f1: float
    f1_interval: tuple[float, float]
    micro_precision: float
    micro_recall: float
    micro_f1: float
    micro_f1_interval: tuple[float, float]
    exact: float
    ece: float | None
    n: int
    per_class: tuple[LabelMetrics, ...]

    def to_json(self) -> dict[str, object]:
        """The object that `metrics.json` keeps and `poolzoo evaluate --json` prints."""
        return {
            "task": MULTILABEL,
            "map": self.map,
            "interval": list(self.interval),
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "f1_interval": list(self.f1_interval),
            "micro_precision": self.micro_precision,
            "micro_recall": self.micro_recall,
            "micro_f1": self.micro_f1,
            "micro_f1_interval": list(self.micro_f1_interval),
            "exact": self.exact,
            "ece": self.ece,
            "n": self.n,
            "per_class": [row.to_json() for row in self.per_class],
        }

    def summary(self) -> dict[str, object]:
        """mAP, macro and micro means and number of images, without intervals and tables."""
        return {key: getattr(self, key) for key in SUMMARY}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> MultilabelMetrics:
        """Reads what `to_json` wrote.

        Raises:
            KeyError: A key is missing.
        """
        pairs = {key: (found[key][0], found[key][1]) for key in ("interval", "f1_interval", "micro_f1_interval")}
        rows = [
            {("name" if key == "class" else key): value for key, value in row.items()} for row in found["per_class"]
        ]
        return cls(
            map=found["map"],
            interval=pairs["interval"],
            precision=found["precision"],
            recall=found["recall"],
            f1=found["f1"],
            f1_interval=pairs["f1_interval"],
            micro_precision=found["micro_precision"],
            micro_recall=found["micro_recall"],
            micro_f1=found["micro_f1"],
            micro_f1_interval=pairs["micro_f1_interval"],
            exact=found["exact"],
            ece=found["ece"],
            n=found["n"],
            per_class=tuple(LabelMetrics(**row) for row in rows),
        )
