"""Label smoothing taken back beside the temperature, where validation images that did not fit it prefer that.

It changes no prediction (`calibration.py` has the map). It can still be worse than a temperature on other images. So
the evidence has to be strong: the NLL of held-out images in cross-validation, with a paired t-test.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from poolzoo.metrics import held_out
from poolzoo.metrics.activations import softmax
from poolzoo.metrics.calibration import CORNER, MAX_SMOOTHING, MIN_SMOOTHING, Calibration

ALPHA: Final = 0.001  # of the paired test
MIN_IMAGES: Final = 50  # with fewer, a mean of gains is far from normal
MAX_NUMBERS: Final = 500_000  # logits that the fits read
SMALLEST: Final = 0.05  # of the inverse of the temperature, as a share of the common one
LARGEST: Final = 20.0
USUAL: Final = 0.1  # the smoothing where its prior is largest
STARTS: Final = (0.02, 0.2)  # smoothing: the NLL may have two minima


def improved(logits: np.ndarray, labels: np.ndarray, common: Calibration | None) -> Calibration | None:
    """A calibration with smoothing; None where it is no better than the common temperature beyond chance.

    Args:
        logits: `float[N, K]`, finite.
        labels: `int64[N]`.
        common: The temperature that it has to beat; None for 1.
    """
    logits, labels = held_out.drawn(logits, labels, MAX_NUMBERS)
    if len(logits) < MIN_IMAGES:
        return None
    wrong = logits.argmax(1) != labels
    if not held_out.is_gain(gains(logits, labels, common), wrong, ALPHA):
        return None
    return fitted(logits, labels, common)


def gains(logits: np.ndarray, labels: np.ndarray, common: Calibration | None) -> np.ndarray:
    """How far a map that was fitted on other images lowers the NLL of each, `float64[N]`; as for `improved`."""
    z = (common or Calibration(1.0)).apply(logits)
    found = held_out.nll(z, labels)
    for rows, others in held_out.folds(len(z)):
        slope, smoothing = _fit(z[rows], labels[rows])
        after = Calibration(1 / slope, smoothing=smoothing).apply(z[others])
        found[others] -= held_out.nll(after, labels[others])
    return found


def fitted(logits: np.ndarray, labels: np.ndarray, common: Calibration | None) -> Calibration:
    """The best calibration with smoothing, whether it helps or not; as for `improved`."""
    common = common or Calibration(1.0)
    slope, smoothing = _fit(common.apply(logits), labels)
    return Calibration(held_out.rounded(common.temperature / slope), smoothing=held_out.rounded(smoothing))


def _fit(z: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The slope β = 1 / T and the smoothing s with the least NLL, under priors that weigh as much as one image.

    The prior of each is that of 1 / T in `calibration_fit`, a − log a, of β and of s / 0.1.

    Args:
        z: Logits, `float64[N, K]`.
        labels: `int64[N]`.
    """
    from scipy.optimize import minimize

    images, classes = z.shape
    rows = np.arange(images)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, level = parameters[0], np.exp(parameters[1]) / classes
        q = softmax(slope * z)
        x = q - level
        root = np.sqrt(x**2 + (CORNER * level) ** 2)
        height = x + root
        total = height.sum(1)
        # The derivatives of the NLL by each height, and of each height by x.
        errors = np.repeat(1 / total[:, None], classes, axis=1)
        errors[rows, labels] -= 1 / height[rows, labels]
        errors *= height / root
        by_slope = (errors * q * (z - (q * z).sum(1, keepdims=True))).sum()
        raised = (errors / height * level**2 * CORNER**2 - errors * level).sum()
        nll = float((np.log(total) - np.log(height[rows, labels])).sum())
        share = level * classes / USUAL
        prior = slope - np.log(slope) + share - np.log(share)
        return float(nll + prior) / images, np.array([by_slope + 1 - 1 / slope, raised + share - 1]) / images

    bounds = [(SMALLEST, LARGEST), (np.log(MIN_SMOOTHING), np.log(MAX_SMOOTHING))]
    found = [minimize(objective, [1.0, np.log(s)], jac=True, method="L-BFGS-B", bounds=bounds) for s in STARTS]
    slope, logarithm = min(found, key=lambda one: float(one.fun)).x
    return float(slope), float(np.clip(np.exp(logarithm), MIN_SMOOTHING, MAX_SMOOTHING))
