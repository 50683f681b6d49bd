"""Chooses a calibration on validation images: a temperature, and more than that only where it helps beyond chance.

Taking label smoothing back has to beat it on held-out images, and then a scale and bias of each class what was chosen
so far.

A temperature minimizes the negative log-likelihood (NLL), which is convex in 1 / T (Guo et al. 2017, section 4.2). It
is kept where twice the sum by which it lowers the NLL is above 2: Akaike's criterion then expects a lower NLL of other
images (A New Look at the Statistical Model Identification, IEEE Transactions on Automatic Control 19(6), 1974). The
derivative at T = 1 would not do instead: a network that is far too certain has few errors with a huge derivative each,
and their spread hides it. The ratio is divided by the variance of the derivative between images, where that is above
the curvature, as it is with labels that depend on each other (Chandler and Bate, Inference for Clustered Data Using the
Independence Loglikelihood, Biometrika 94(1), 2007). Where every validation image is right, the NLL falls without end as
T goes to 0. A Gamma prior of β = 1 / T with its mode at 1, shape 2 and rate 1, keeps T finite: it adds β − log β to the
sum over all images, about as much as one image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from poolzoo.metrics import held_out, unsmoothing, vector_scaling
from poolzoo.metrics.activations import sigmoid
from poolzoo.metrics.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, Calibration
from poolzoo.metrics.decisions import is_finite
from poolzoo.metrics.intervals import Z_95

LEVEL: Final = 0.1573  # of the test of T = 1: a likelihood ratio is above 2 by chance as often
MIN_IMAGES: Final = 10  # with fewer there is nothing to test
FEW_IMAGES: Final = 50  # below it, a message says how uncertain the temperature is
MAX_NUMBERS: Final = 20_000_000  # logits that a fit reads; of more images a part is drawn with a fixed seed
PRECISION: Final = 1e-4  # of the last Newton step, as a share of 1 / T; its own error is about the square of that
MAX_STEPS: Final = 60


@dataclass(frozen=True)
class CalibrationFit:
    """What the validation images say about the probabilities of a network.

    Attributes:
        calibration: What was chosen; None where probabilities stay as they are.
        images: Number of validation images with finite logits that it was fitted on.
        temperature: The best temperature alone, also where it was not kept; 1 where it could not be fitted.
        interval: Its 95 % interval, from the sandwich estimate of the variance of 1 / T.
        p_value: Of the test of T = 1; 1 where it could not be fitted.
        nll: Mean NLL of these images before, in nats.
        nll_after: The same with the calibration.
        reason: Why there is no calibration; "" where there is one.
    """

    calibration: Calibration | None
    images: int
    temperature: float = 1.0
    interval: tuple[float, float] = (MIN_TEMPERATURE, MAX_TEMPERATURE)
    p_value: float = 1.0
    nll: float | None = None
    nll_after: float | None = None
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        """The object `calibration` in `metrics.json`."""
        return {
            "chosen": None if self.calibration is None else self.calibration.to_json(),
            "images": self.images,
            "temperature": self.temperature,
            "interval": list(self.interval),
            "p_value": self.p_value,
            "nll": self.nll,
            "nll_after": self.nll_after,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> CalibrationFit:
        """Reads what `to_json` wrote.

        Raises:
            KeyError, ValueError: A key is missing, or has no such value.
        """
        chosen = found["chosen"]
        count = len(chosen.get("scale", ())) if chosen else 0
        low, high = found["interval"]
        values = {name: found[name] for name in ("images", "temperature", "p_value", "nll", "nll_after", "reason")}
        return cls(calibration=Calibration.from_json(chosen, count), interval=(low, high), **values)

    def describe(self) -> str:
        """One sentence about it."""
        low, high = self.interval
        found = f"temperature {self.temperature:.3g} (95 % interval {low:.3g} to {high:.3g})"
        if self.calibration is None:
            return f"probabilities are not calibrated: {self.reason}"
        if self.calibration.smoothing is not None:
            taken = f"label smoothing of {self.calibration.smoothing:.3g} is taken back"
            found = f"temperature {self.calibration.temperature:.3g}, and {taken}, better than {found} alone"
        more = " with a scale and bias of each class" if self.calibration.scale is not None else ""
        few = "; so few images leave it uncertain" if self.images < FEW_IMAGES else ""
        return f"probabilities are calibrated on {self.images} validation images: {found}{more}{few}"


def fit(logits: np.ndarray, labels: np.ndarray, *, smoothing: bool = True, vector: bool = True) -> CalibrationFit:
    """Chooses a calibration.

    Images whose logits are not finite are left out.

    Args:
        logits: Of validation images, `float[N, K]`.
        labels: `int64[N]`, or `uint8[N, K]` for several labels.
        smoothing: Whether to try to take label smoothing back too, of one label each, which costs more.
        vector: Whether to try a scale and bias of each class too, which costs more and may change predictions.
    """
    finite = is_finite(logits)
    logits, labels = logits[finite], labels[finite]
    count = len(logits)
    if count < MIN_IMAGES:
        return CalibrationFit(None, count, reason=f"{count} validation images are too few")
    if logits.shape[1] < 2 and labels.ndim == 1:
        return CalibrationFit(None, count, reason="there is one class only")
    most = max(MIN_IMAGES, MAX_NUMBERS // logits.shape[1])
    if count > most:
        drawn = np.random.default_rng(0).permutation(count)[:most]
        logits, labels = logits[drawn], labels[drawn]
    problem = _Problem.of(logits, labels)
    before = problem.at(1.0)
    best = problem.minimum(before)
    found = CalibrationFit(
        calibration=None,
        images=len(logits),
        temperature=held_out.rounded(1 / best.beta),
        interval=best.interval(),
        p_value=_p_value(before, best, logits.shape[1] if labels.ndim == 2 else 1),
        nll=before.nll,
    )
    common = Calibration(found.temperature) if found.p_value < LEVEL else None
    unsmoothed = unsmoothing.improved(logits, labels, common) if smoothing and labels.ndim == 1 else None
    scaled = vector_scaling.improved(logits, labels, common, unsmoothed) if vector else None
    kept = scaled or unsmoothed or common
    if kept is None:
        low, high = found.interval
        reason = (
            f"temperature {found.temperature:.3g} ({low:.3g} to {high:.3g}), fitted on {found.images} validation "
            "images, is expected to be no better than 1"
        )
        return replace(found, nll_after=found.nll, reason=reason)
    after = best.nll if kept.method == "temperature" else _Problem.of(kept.apply(logits), labels).at(1.0).nll
    return replace(found, calibration=kept, nll_after=after)


def _p_value(before: _Point, best: _Point, labels: int) -> float:
    """Of a likelihood-ratio test of T = 1.

    Args:
        before: At T = 1.
        best: At the best temperature.
        labels: How many independent labels each image has at most.
    """
    from scipy.special import chdtrc

    ratio = 2 * len(best.slopes) * labels * max(0.0, before.nll - best.nll)
    spread = labels * np.mean(best.slopes**2)
    return float(chdtrc(1, ratio * min(1.0, best.curvature / spread) if spread > 0 else ratio))


@dataclass(frozen=True)
class _Point:
    """The NLL of validation images at one β = 1 / T.

    Attributes:
        beta: That β.
        nll: The mean NLL; with several labels the mean over images and labels.
        slopes: The derivative of each image's NLL by β, `float64[N]`.
        slope: The derivative of the mean NLL with the prior's share.
        curvature: The second derivative of the same.
    """

    beta: float
    nll: float
    slopes: np.ndarray
    slope: float
    curvature: float

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the temperature, if this is the minimum."""
        if not self.curvature > 0:
            return MIN_TEMPERATURE, MAX_TEMPERATURE
        error = Z_95 * np.sqrt(np.mean(self.slopes**2) / len(self.slopes)) / self.curvature
        highest = 1 / (self.beta - error) if self.beta > error else MAX_TEMPERATURE
        lowest = 1 / (self.beta + error)
        return held_out.rounded(max(MIN_TEMPERATURE, lowest)), held_out.rounded(min(MAX_TEMPERATURE, highest))


@dataclass(frozen=True)
class _Problem:
    """The NLL of validation images as a function of β = 1 / T.

    Attributes:
        z: Logits, `float64[N, K]`; of one label each less the largest of its image, which changes no probability.
        labels: `int64[N]`, or `bool[N, K]`.
    """

    z: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> _Problem:
        z = logits.astype(np.float64)
        return cls(z, labels > 0) if labels.ndim == 2 else cls(z - z.max(1, keepdims=True), labels)

    def at(self, beta: float) -> _Point:
        """The NLL and its derivatives."""
        z, count = self.z, len(self.z)
        if self.labels.ndim == 2:
            p = sigmoid(beta * z)
            nll = np.logaddexp(0, np.where(self.labels, -beta, beta) * z).mean()
            slopes = ((p - self.labels) * z).mean(1)
            curvature = (p * (1 - p) * z**2).mean()
        else:
            own = z[np.arange(count), self.labels]
            weights = np.exp(beta * z)
            total = weights.sum(1)
            weights *= z
            mean = weights.sum(1) / total
            square = np.einsum("nk,nk->n", weights, z) / total
            nll = (np.log(total) - beta * own).mean()
            slopes = mean - own
            curvature = np.maximum(square - mean**2, 0.0).mean()
        slope, curvature = slopes.mean() + (1 - 1 / beta) / count, curvature + 1 / (beta**2 * count)
        return _Point(beta, float(nll), slopes, float(slope), float(curvature))

    def minimum(self, start: _Point) -> _Point:
        """The β with the least NLL of images and prior, by Newton's steps within a bracket."""
        low, high, point = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE, start
        for _ in range(MAX_STEPS):
            low, high = (point.beta, high) if point.slope < 0 else (low, point.beta)
            step = point.beta - point.slope / point.curvature if point.curvature > 0 else np.nan
            after = float(step) if low <= step <= high else (low * high) ** 0.5
            is_found = abs(after - point.beta) <= PRECISION * point.beta
            point = self.at(after)
            if is_found:
                break
        return point
