"""How far probabilities can be believed: calibration errors, Brier score and NLL on test images, with intervals.

* ECE: equal-width bins, see `intervals.py`; of several labels its class-wise form.
* Adaptive ECE: the same over bins of equally many images (Nixon et al., Measuring Calibration in Deep Learning, 2019,
  arXiv:1904.01685).
* Brier score: `Σ_k (p_k − y_k)²` (Brier, Verification of Forecasts Expressed in Terms of Probability, 1950), 0 to 2; of
  several labels its mean over the labels, 0 to 1.
* NLL: `−log p` of the label in nats; of several labels the binary one, as a mean over the labels.

Intervals are bootstrap percentiles over images. Each resample adds noise, which calibration errors count as error
(Kumar, Liang and Ma, Verified Uncertainty Calibration, 2019, arXiv:1909.10155), so that percentiles are moved by the
mean excess of the resamples. Both sides of a comparison use the same resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from poolzoo.common import output
from poolzoo.metrics.activations import sigmoid, softmax
from poolzoo.metrics.decisions import Decision, is_finite
from poolzoo.metrics.intervals import BINS

SCORES: Final = ("ece", "adaptive_ece", "brier", "nll")
RESAMPLES: Final = 500
FEWEST: Final = 100
BUDGET: Final = 5_000_000  # images · resamples, beyond which fewer resamples are drawn
CHUNK: Final = 1_000_000  # images · resamples in memory at once
QUANTILES: Final = (0.025, 0.975)


@dataclass(frozen=True)
class Estimate:
    """A figure, and its 95 % interval of sampling variance; None where it was not computed."""

    value: float
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Such as `0.0123 (0.0101 to 0.0150)`."""
        interval = "" if self.interval is None else f" ({self.interval[0]:.4f} to {self.interval[1]:.4f})"
        return f"{self.value:.4f}{interval}"

    def to_json(self) -> dict[str, object]:
        """Value and interval."""
        return {"value": self.value, "interval": None if self.interval is None else list(self.interval)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Estimate:
        """Reads what `to_json` wrote.

        Raises:
            KeyError: A key is missing.
        """
        interval = found["interval"]
        return cls(found["value"], None if interval is None else (interval[0], interval[1]))


@dataclass(frozen=True)
class Bin:
    """A bin of the reliability diagram: how many probabilities, their mean, and the share that came true, 0–1.

    A probability is that of the predicted class, or with several labels that of every label.
    """

    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """How far the probabilities of one network can be believed.

    Attributes:
        ece, adaptive_ece, brier, nll: See the top of this file.
        ece_floor: The mean ECE of so many images if the probabilities were right: sampling alone gives that.
        n: Number of images with finite logits.
        bins: Those of equal width that hold a probability, in order.
    """

    ece: Estimate
    adaptive_ece: Estimate
    brier: Estimate
    nll: Estimate
    ece_floor: float
    n: int
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, object]:
        """The object `before` or `after` in `metrics.json`."""
        return {
            **{name: getattr(self, name).to_json() for name in SCORES},
            "ece_floor": self.ece_floor,
            "n": self.n,
            "bins": [[one.count, one.confidence, one.accuracy] for one in self.bins],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Reliability:
        """Reads what `to_json` wrote.

        Raises:
            KeyError: A key is missing.
        """
        return cls(
            **{name: Estimate.from_json(found[name]) for name in SCORES},
            ece_floor=found["ece_floor"],
            n=found["n"],
            bins=tuple(Bin(count, confidence, accuracy) for count, confidence, accuracy in found["bins"]),
        )


@dataclass(frozen=True)
class ReliabilityChange:
    """What a calibration changes.

    Attributes:
        before: Of the probabilities of plain logits.
        after: Of calibrated ones; None where there is no calibration.
        change: After less before, by score: below 0 is better; empty where there is no calibration.
    """

    before: Reliability
    after: Reliability | None
    change: Mapping[str, Estimate]

    @property
    def now(self) -> Reliability:
        """Of the probabilities that the network gives."""
        return self.after or self.before

    def to_json(self) -> dict[str, object]:
        """The object `reliability` in `metrics.json` and in what `poolzoo evaluate --json` prints."""
        return {
            "before": self.before.to_json(),
            "after": None if self.after is None else self.after.to_json(),
            "change": {name: one.to_json() for name, one in self.change.items()},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ReliabilityChange:
        """Reads what `to_json` wrote.

        Raises:
            KeyError: A key is missing.
        """
        return cls(
            before=Reliability.from_json(found["before"]),
            after=None if found["after"] is None else Reliability.from_json(found["after"]),
            change={name: Estimate.from_json(one) for name, one in found["change"].items()},
        )


NAMES: Final = {
    "ece": "expected calibration error",
    "adaptive_ece": "adaptive calibration error",
    "brier": "Brier score",
    "nll": "negative log-likelihood",
}


def rows(found: ReliabilityChange) -> list[tuple[str, ...]]:
    """The rows of a table below `headers`: each score with its interval, before and after calibration."""
    sides = [side for side in (found.before, found.after) if side is not None]
    table = [(NAMES[name], *(str(getattr(side, name)) for side in sides)) for name in SCORES]
    changes = [str(found.change[name]) for name in SCORES] if found.change else []
    return [(*row, change) for row, change in zip(table, changes, strict=True)] if changes else table


def headers(found: ReliabilityChange) -> tuple[str, ...]:
    """The names of the columns of `rows`."""
    return ("score", "value") if found.after is None else ("score", "plain", "calibrated", "change")


def note(found: ReliabilityChange) -> str:
    """What the table's numbers are, and what sampling alone would give."""
    now = found.now
    return (
        f"On {now.n} images, with 95 % intervals of sampling variance; smaller is better. Perfect probabilities would "
        f"have an expected calibration error of {now.ece_floor:.4f} on so many images, by chance."
    )


def show(found: ReliabilityChange) -> None:
    """Prints the table and its note."""
    output.table(headers(found), rows(found))
    output.data(note(found))


def measure(logits: np.ndarray, labels: np.ndarray, decision: Decision) -> ReliabilityChange | None:
    """Scores of test images before and after the calibration of a decision.

    Args:
        logits: As the network gives them, `float[N, K]`; images whose logits are not finite are left out.
        labels: `int64[N]`, or `uint8[N, K]` for several labels.
        decision: How logits become labels.

    Returns:
        None where no image has finite logits.
    """
    finite = is_finite(logits)
    if not finite.any():
        return None
    logits, labels = logits[finite], labels[finite]
    before = _Scored.of(logits, labels)
    after = None if decision.calibration is None else _Scored.of(decision.calibrated(logits), labels)
    sides = [one for one in (before, after) if one is not None]
    samples = _resampled(sides)
    change = {}
    if after is not None:
        for row, name in enumerate(SCORES):
            difference = after.scores[row] - before.scores[row]
            change[name] = _estimate(difference, samples[1][row] - samples[0][row])
    return ReliabilityChange(
        before=before.reliability(samples[0]),
        after=None if after is None else after.reliability(samples[1]),
        change=change,
    )


@dataclass(frozen=True)
class _Scored:
    """What each image adds to the scores.

    Attributes:
        gaps: What came true less its probability, `float64[N, J]`; J is 1, or the number of labels.
        confidences: Those probabilities, `float64[N, J]`.
        equal_width, equal_mass: The bin of each, `int64[N, J]`.
        losses: Brier score and NLL of each image, `float64[2, N]`.
    """

    gaps: np.ndarray
    confidences: np.ndarray
    equal_width: np.ndarray
    equal_mass: np.ndarray
    losses: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> _Scored:
        images, z = len(logits), logits.astype(np.float64)
        if labels.ndim == 2:
            p, came_true = sigmoid(z), labels > 0
            brier = ((p - came_true) ** 2).mean(1)
            nll = np.logaddexp(0, np.where(came_true, -z, z)).mean(1)
        else:
            every, rows = softmax(z), np.arange(images)
            best = z.argmax(1)
            p, came_true = every[rows, best][:, None], (best == labels)[:, None]
            brier = (every**2).sum(1) - 2 * every[rows, labels] + 1
            shifted = z - z.max(1, keepdims=True)
            nll = np.log(np.exp(shifted).sum(1)) - shifted[rows, labels]
        width = np.clip(np.searchsorted(np.arange(BINS + 1) / BINS, p) - 1, 0, BINS - 1)
        ranks = np.argsort(np.argsort(p, axis=0, kind="stable"), axis=0, kind="stable")
        return cls(came_true - p, p, width, ranks * BINS // images, np.stack([brier, nll]))

    @property
    def scores(self) -> np.ndarray:
        """ECE, adaptive ECE, Brier score and NLL, `float64[4]`."""
        return self.resampled(np.ones((1, len(self.gaps)), np.float32))[:, 0]

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """The same of resamples, `float64[4, B]`; `weights` has how often each image was drawn, `float32[B, N]`."""
        images, count = self.gaps.shape
        errors = []
        for bins in (self.equal_width, self.equal_mass):
            total = np.zeros(len(weights))
            for label in range(count):
                columns = np.zeros((images, BINS))
                columns[np.arange(images), bins[:, label]] = self.gaps[:, label]
                total += np.abs(weights @ columns).sum(1)
            errors.append(total / (images * count))
        return np.concatenate([np.stack(errors), self.losses @ weights.T / images])

    def reliability(self, samples: np.ndarray) -> Reliability:
        """The result.

        Args:
            samples: Scores of resamples, `float64[4, B]`.
        """
        images, count = self.gaps.shape
        found = {
            name: _estimate(value, row, positive=True)
            for name, value, row in zip(SCORES, self.scores, samples, strict=True)
        }
        cells = self.equal_width + BINS * np.arange(count)
        spread = self.confidences * (1 - self.confidences)
        variance = np.bincount(cells.ravel(), weights=spread.ravel(), minlength=BINS * count)
        floor = np.sqrt(2 / np.pi * variance).sum() / (images * count)  # of |x| where x is normal around 0
        held = np.bincount(self.equal_width.ravel(), minlength=BINS)
        sums = [
            np.bincount(self.equal_width.ravel(), weights=values.ravel(), minlength=BINS)
            for values in (self.confidences, self.confidences + self.gaps)
        ]
        return Reliability(
            **found,
            ece_floor=float(floor),
            n=images,
            bins=tuple(
                Bin(int(held[at]), float(sums[0][at] / held[at]), float(sums[1][at] / held[at]))
                for at in np.flatnonzero(held)
            ),
        )


def _estimate(value: float, samples: np.ndarray, *, positive: bool = False) -> Estimate:
    """A figure with the percentiles of its resamples, moved so that their mean is the figure."""
    low, high = np.quantile(samples, QUANTILES) - (samples.mean() - value)
    return Estimate(float(value), (max(0.0, float(low)) if positive else float(low), float(high)))


def _resampled(sides: list[_Scored]) -> list[np.ndarray]:
    """The scores of both sides in the same resamples, `float64[4, B]` each; the same for the same arguments."""
    images = len(sides[0].gaps)
    resamples = min(RESAMPLES, max(FEWEST, BUDGET // images))
    generator = np.random.default_rng(0)
    chunk = max(1, CHUNK // images)
    found: list[list[np.ndarray]] = [[] for _ in sides]
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        drawn = generator.integers(images, size=(count, images), dtype=np.int32) + np.arange(count)[:, None] * images
        weights = np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).astype(np.float32)
        for rows, side in zip(found, sides, strict=True):
            rows.append(side.resampled(weights))
    return [np.concatenate(rows, axis=1) for rows in found]
