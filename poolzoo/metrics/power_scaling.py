"""A power beside the temperature, where validation images that did not fit it prefer that.

Calibrated logits are `-(d / T) ** b` of the distances d to the largest logit; b = 1 is the temperature alone.
Fine-tuning with label smoothing can leave large distances too small beside small ones, which a power above 1 undoes. It
changes no prediction (see `calibration.py` for the source). It can still be worse than a temperature on other images,
so that the evidence has to be strong: the NLL of held-out images in cross-validation, with a paired t-test.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from poolzoo.metrics import held_out
from poolzoo.metrics.calibration import MAX_POWER, MIN_POWER, Calibration

ALPHA: Final = 0.001  # of the paired test
MIN_IMAGES: Final = 50  # with fewer, a mean of gains is far from normal
MAX_NUMBERS: Final = 500_000  # logits that the fits read
SMALLEST: Final = 0.05  # of the inverse of the temperature, as a share of the common one
LARGEST: Final = 20.0


def improved(logits: np.ndarray, labels: np.ndarray, common: Calibration | None) -> Calibration | None:
    """A calibration with a power; None where it is no better than the common temperature beyond chance.

    Args:
        logits: `float[N, K]`, finite.
        labels: `int64[N]`.
        common: The temperature that it has to beat; None for 1.
    """
    logits, labels = held_out.drawn(logits, labels, MAX_NUMBERS)
    if len(logits) < MIN_IMAGES or not held_out.is_gain(gains(logits, labels, common), ALPHA):
        return None
    return fitted(logits, labels, common)


def gains(logits: np.ndarray, labels: np.ndarray, common: Calibration | None) -> np.ndarray:
    """How far a power that was fitted on other images lowers the NLL of each, `float64[N]`; as for `improved`."""
    distances = _distances(logits, common)
    found = held_out.nll(-distances, labels)
    for rows, others in held_out.folds(len(distances)):
        slope, power = _fit(distances[rows], labels[rows])
        found[others] -= held_out.nll(-((slope * distances[others]) ** power), labels[others])
    return found


def fitted(logits: np.ndarray, labels: np.ndarray, common: Calibration | None) -> Calibration:
    """The best calibration with a power, whether it helps or not; as for `improved`."""
    slope, power = _fit(_distances(logits, common), labels)
    temperature = (1.0 if common is None else common.temperature) / slope
    return Calibration(held_out.rounded(temperature), power=held_out.rounded(power))


def _distances(logits: np.ndarray, common: Calibration | None) -> np.ndarray:
    """Distances to the largest logit, divided by the temperature, `float64[N, K]`."""
    z = (Calibration(1.0) if common is None else common).apply(logits)
    return np.asarray(z.max(1, keepdims=True) - z)


def _fit(distances: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The slope β and power b with the least NLL of `-(β d) ** b`, under priors that weigh as much as one image.

    The prior of each is that of 1 / T in `calibration_fit`, a − log a.

    Args:
        distances: `float64[N, K]`, 0 for the largest logit.
        labels: `int64[N]`.
    """
    from scipy.optimize import minimize

    images = len(distances)
    rows = np.arange(images)
    logs = np.log(np.where(distances > 0, distances, 1.0))

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, power = parameters
        powers = np.where(distances > 0, np.exp(power * (np.log(slope) + logs)), 0.0)
        weights = np.exp(-powers)
        total = weights.sum(1)
        # The derivative of the NLL by each power, which is a calibrated logit less its sign.
        errors = -weights / total[:, None]
        errors[rows, labels] += 1.0
        errors *= powers
        by_slope = errors.sum() * power / slope
        by_power = (errors * (np.log(slope) + logs)).sum()
        nll = float((np.log(total) + powers[rows, labels]).sum())
        prior = slope - np.log(slope) + power - np.log(power)
        slopes = np.array([by_slope + 1 - 1 / slope, by_power + 1 - 1 / power])
        return float(nll + prior) / images, slopes / images

    bounds = [(SMALLEST, LARGEST), (MIN_POWER, MAX_POWER)]
    found = minimize(objective, np.ones(2), jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(found[0]), float(found[1])
