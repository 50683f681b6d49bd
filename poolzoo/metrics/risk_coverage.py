"""The risk–coverage curve of a classifier: how often it is wrong on the images that it is most certain of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

POINTS: Final = 200  # of the curve that are kept, at most


@dataclass(frozen=True)
class RiskCoverage:
    """The curve and the area under it.

    Attributes:
        coverage: Shares of the images, those with the largest top probability first, ascending to 1.
        risk: The share of wrong ones among them.
        aurc: The area under the curve: the mean risk over all numbers of images (Geifman, Uziel and El-Yaniv,
            Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, ICLR 2019, arXiv:1805.08206).
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: float

    def to_json(self) -> dict[str, object]:
        """`risk_coverage` in `config.json`: the area alone, since the page draws the curve."""
        return {"aurc": self.aurc}


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> RiskCoverage:
    """The curve of labeled images.

    Of images with the same top probability, each order counts the same.

    Args:
        probabilities: `float[N, C]`; images with NaN come last and are wrong.
        labels: `int[N]`.
    """
    largest = np.nan_to_num(probabilities.max(1), nan=-1.0)
    wrong = (probabilities.argmax(1) != labels) | (largest < 0)
    order = np.argsort(-largest, kind="stable")
    count = np.arange(1, len(labels) + 1)
    ends = np.flatnonzero(np.append(np.diff(largest[order]) != 0, True)) + 1
    errors = np.interp(count, np.append(0, ends), np.append(0, wrong[order].cumsum()[ends - 1]))
    risk = errors / count
    kept = np.unique(np.linspace(0, len(count) - 1, min(POINTS, len(count))).round().astype(int))
    return RiskCoverage(
        coverage=tuple((count[kept] / len(count)).tolist()), risk=tuple(risk[kept].tolist()), aurc=float(risk.mean())
    )
