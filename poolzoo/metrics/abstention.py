"""Abstention: a network accepts an image where its largest probability reaches a threshold. Needs no torch.

Among all images that a threshold accepts, the share of right ones is the selective accuracy. The threshold is chosen on
validation images by fixed-sequence testing: Angelopoulos, Bates, Candès, Jordan and Lei, Learn then Test: Calibrating
Predictive Algorithms to Achieve Risk Control, arXiv:2110.01052, section 4 and algorithm 1; the guarantee is that of
Geifman and El-Yaniv, Selective Classification for Deep Neural Networks, NeurIPS 2017, arXiv:1705.08500.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from poolzoo.common import json_reader, numerals
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.metrics.intervals import BY_CHANCE, beta_binomial_cdf, clopper_pearson

ACCURACY, COVERAGE = "accuracy", "coverage"
CONFIDENCE: Final = 0.95
# Thresholds in descending order, evenly spaced in the logit, and 0, which accepts every image. They do not depend on
# the images, as the test requires.
GRID: Final = np.append(1 / (1 + np.exp(-np.arange(16.0, -7.0, -0.02))), 0.0).astype(np.float32)
# Where a sequence of tests starts, as a factor on the logit of the target, and its share of the error probability.
# Where probabilities are calibrated, images above a threshold of 0.99 are right more often than 0.99. The other starts
# are for probabilities of which the logits are twice or half as large.
STARTS: Final = ((1.0, 0.8), (2.0, 0.1), (0.5, 0.1))
STEP: Final = 1e-3  # of the accuracies that are tried to name one that can be reached


@dataclass(frozen=True)
class Target:
    """What a threshold must reach: `kind` "accuracy" of the accepted images, or "coverage", the share of these."""

    kind: str
    value: float

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Reads "accuracy=0.99" or "coverage=0.8".

        Raises:
            UsageError: It is neither, or the number is not between 0 and 1.
        """
        kind, _, number = text.partition("=")
        try:
            value = numerals.real(number)
        except ValueError:
            value = math.nan
        if kind not in (ACCURACY, COVERAGE) or not 0 < value < 1:
            hint = "write accuracy=0.99 or coverage=0.8, with a number between 0 and 1"
            raise UsageError(f"--abstain-at {text!r:.60} is no target", hint)
        return cls(kind, value)


@dataclass(frozen=True)
class Abstention:
    """A threshold, and the validation images that it was chosen on.

    Attributes:
        threshold: The least probability of the most probable class of an accepted image, a float32 number.
        target: What it was chosen for.
        confidence: The probability, over draws of the validation images, that the target is reached; None for a
            target of coverage, which holds on average over these draws.
        images: Number of validation images.
        accepted: How many of them it accepts.
        errors: How many of the accepted ones have another class.
    """

    threshold: float
    target: Target
    confidence: float | None
    images: int
    accepted: int
    errors: int

    def accept(self, probabilities: np.ndarray) -> np.ndarray:
        """`float[N, C] → bool[N]`: which images are accepted; none whose probabilities are NaN."""
        accepted: np.ndarray = probabilities.astype(np.float32).max(1) >= np.float32(self.threshold)
        return accepted

    def to_json(self) -> dict[str, object]:
        """The value of `abstention` in `config.json` and in the metadata of a graph."""
        counts = {"images": self.images, "accepted": self.accepted, "errors": self.errors}
        target = {"target": {self.target.kind: self.target.value}, "confidence": self.confidence}
        return {"threshold": self.threshold, **target, "validation": counts}

    @classmethod
    def from_json(cls, found: object) -> Abstention | None:
        """Reads what `to_json` wrote; None stands for no abstention.

        Raises:
            ValueError: It is no threshold.
        """
        if found is None:
            return None
        given = json_reader.mapping(found)
        threshold = json_reader.number(given.get("threshold"))
        if threshold is None or not 0 <= threshold <= 1:
            raise ValueError("abstention with a threshold between 0 and 1")
        kind, value = next(iter(json_reader.mapping(given.get("target")).items()), (ACCURACY, None))
        counts = json_reader.mapping(given.get("validation"))
        return cls(
            threshold=threshold,
            target=Target(COVERAGE if kind == COVERAGE else ACCURACY, json_reader.number(value) or 0.0),
            confidence=json_reader.number(given.get("confidence")),
            images=json_reader.integer(counts.get("images")) or 0,
            accepted=json_reader.integer(counts.get("accepted")) or 0,
            errors=json_reader.integer(counts.get("errors")) or 0,
        )


@dataclass(frozen=True)
class SelectiveMetrics:
    """What a threshold does to images that did not choose it; intervals are 95 % Clopper–Pearson.

    Attributes:
        images: Number of images.
        accepted: How many are accepted.
        errors: How many of these have another class.
    """

    images: int
    accepted: int
    errors: int

    @property
    def coverage(self) -> float:
        """The share of accepted images."""
        return self.accepted / self.images

    @property
    def coverage_interval(self) -> tuple[float, float]:
        """Of the coverage."""
        return clopper_pearson(self.accepted, self.images)

    @property
    def accuracy(self) -> float | None:
        """The share of right ones among the accepted images; None where there are none."""
        return 1 - self.errors / self.accepted if self.accepted else None

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Of the accuracy; 0 to 1 where no image is accepted."""
        return clopper_pearson(self.accepted - self.errors, self.accepted)

    def misses(self, abstention: Abstention) -> bool:
        """Whether the images show, beyond chance, that the target of a threshold is not reached.

        A coverage holds on average over draws of the validation images: for one draw it has a beta distribution.
        """
        if abstention.target.kind == ACCURACY:
            return self.accuracy_interval[1] < abstention.target.value
        place = _place(abstention.images, abstention.target.value)
        others = abstention.images + 1 - place
        return place > 0 and beta_binomial_cdf(self.accepted, self.images, others, place) < BY_CHANCE

    def to_json(self) -> dict[str, object]:
        """`test` of `abstention` in `config.json`."""
        return {
            "images": self.images,
            "accepted": self.accepted,
            "errors": self.errors,
            "coverage": self.coverage,
            "coverage_interval": list(self.coverage_interval),
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> SelectiveMetrics:
        """Reads what `to_json` wrote.

        Raises:
            KeyError: A count is missing.
        """
        images, accepted, errors = (json_reader.integer(found[key]) or 0 for key in ("images", "accepted", "errors"))
        return cls(images=images, accepted=accepted, errors=errors)


def measure(abstention: Abstention, probabilities: np.ndarray, labels: np.ndarray) -> SelectiveMetrics:
    """What a threshold does to labeled images: calibrated probabilities `float[N, C]` and labels `int[N]`."""
    accepted = abstention.accept(probabilities)
    errors = int((probabilities.argmax(1) != labels)[accepted].sum())
    return SelectiveMetrics(images=len(labels), accepted=int(accepted.sum()), errors=errors)


def choose_abstention(
    probabilities: np.ndarray, labels: np.ndarray, target: Target, confidence: float = CONFIDENCE
) -> Abstention:
    """Chooses a threshold on validation images.

    For an accuracy, it is the lowest threshold of `GRID` that the tests reach. The hypothesis of a threshold is that
    the accuracy of the images that it accepts, in the population, is below the target. The number of errors among the
    accepted images is binomial then, which gives a p-value. A sequence of tests starts at a threshold that does not
    depend on the images, goes down the grid, and ends at the first p-value above its level. There are three sequences,
    and their levels add up to `1 − confidence`. So with this confidence the threshold has the accuracy.

    For a coverage, it is a conformal quantile: of `n` images, the `⌊(n + 1)(1 − coverage)⌋`-th smallest of the largest
    probabilities. Another image is accepted with at least that probability, on average over draws of the images.

    Args:
        probabilities: Calibrated, `float[N, C]`.
        labels: `int[N]`.
        target: What to reach.
        confidence: For an accuracy, the probability that it is reached, over draws of the validation images.

    Raises:
        CheckFailed: No threshold reaches the accuracy on these images; names the best one that can be reached.
    """
    largest = probabilities.astype(np.float32).max(1)
    wrong = probabilities.argmax(1) != labels
    if target.kind == COVERAGE:
        place = _place(len(labels), target.value)
        sorted_ones = np.sort(np.nan_to_num(largest, nan=0.0))  # images with NaN are never accepted
        threshold = float(sorted_ones[place - 1]) if place else 0.0
    else:
        counts = _counts(largest, wrong)
        lowest = _lowest(*counts, target.value, confidence)
        if lowest is None:
            raise _unreachable(*counts, target, confidence)
        threshold = float(GRID[lowest])
    accepted = largest >= np.float32(threshold)
    return Abstention(
        threshold=threshold,
        target=target,
        confidence=None if target.kind == COVERAGE else confidence,
        images=len(labels),
        accepted=int(accepted.sum()),
        errors=int(wrong[accepted].sum()),
    )


def _place(images: int, coverage: float) -> int:
    """The place of the conformal quantile among the largest probabilities in ascending order, from 1 on; 0 for none."""
    return math.floor(round((images + 1) * (1 - coverage), 9))


def _counts(largest: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many images each threshold of the grid accepts, and how many of these are wrong, `int64[T]` each."""
    first = np.searchsorted(-GRID, -largest)  # the first threshold in the grid that an image reaches
    accepted = np.bincount(first[np.isfinite(largest)], minlength=len(GRID) + 1)[: len(GRID)].cumsum()
    errors = np.bincount(first[np.isfinite(largest) & wrong], minlength=len(GRID) + 1)[: len(GRID)].cumsum()
    return accepted, errors


def _lowest(accepted: np.ndarray, errors: np.ndarray, accuracy: float, confidence: float) -> int | None:
    """The place in the grid of the lowest threshold that a sequence of tests reaches; None where all fail at once."""
    reached = []
    for factor, share in STARTS:
        start = int(_start(np.array(accuracy), factor))
        failed = _p_values(accepted[start:], errors[start:], accuracy) > share * (1 - confidence)
        length = int(failed.argmax()) if failed.any() else len(failed)
        reached += [start + length - 1] if length else []
    return max(reached, default=None)


def _start(accuracy: np.ndarray, factor: float) -> np.ndarray:
    """Where in the grid a sequence starts."""
    return np.searchsorted(-GRID, (-1 / (1 + (1 / accuracy - 1) ** factor)).astype(np.float32))


def _p_values(accepted: np.ndarray, errors: np.ndarray, accuracy: float | np.ndarray) -> np.ndarray:
    """The probability of so few errors among the accepted images where the accuracy is just below the target."""
    from scipy.special import bdtr

    p_values: np.ndarray = np.where(accepted > 0, bdtr(errors.astype(np.float64), accepted, 1 - accuracy), 1.0)
    return p_values


def _unreachable(accepted: np.ndarray, errors: np.ndarray, target: Target, confidence: float) -> CheckFailed:
    """The error that names the highest accuracy that can be reached.

    It may be above the target: sequences start elsewhere for another one.
    """
    tried = np.arange(round(1 / STEP) - 1, 0, -1) * STEP
    reached = np.zeros(len(tried), bool)
    for factor, share in STARTS:
        start = _start(tried, factor)
        reached |= _p_values(accepted[start], errors[start], tried) <= share * (1 - confidence)
    images = int(accepted[-1])
    needed = math.ceil(math.log(STARTS[0][1] * (1 - confidence)) / math.log(target.value))
    text = f"no threshold reaches {target} with confidence {confidence:g} on {images} validation images"
    hint = f"validate on more images: at least {needed} without an error" if images < needed else "train longer"
    if not reached.any():
        return CheckFailed(f"{text}, and none reaches another accuracy", hint)
    best = tried[reached.argmax()]
    return CheckFailed(f"{text}; the best that is reached is accuracy={best:.3f}", f"take that, or {hint}")
