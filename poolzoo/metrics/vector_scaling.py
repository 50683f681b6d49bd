"""A scale and bias of each class beside the temperature, where validation images that did not fit it prefer that.

Of one label each this is vector scaling (Guo et al. 2017, section 4.2), of several Platt scaling of each label (Platt,
Probabilistic Outputs for Support Vector Machines, 1999). A bias may change predictions, so that the evidence has to be
strong: the NLL of held-out images in cross-validation, with a paired t-test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from poolzoo.metrics import held_out
from poolzoo.metrics.calibration import Calibration

ALPHA: Final = 0.01  # of the paired test; with several labels divided by their number
MIN_PER_CLASS: Final = (
    20  # validation images of every class, or with and without a label: two numbers are fitted to each
)
MAX_NUMBERS: Final = 500_000  # logits that the fits read
SMALLEST: Final = 0.05  # of a scale, as a share of the common one
LARGEST: Final = 20.0


def improved(
    logits: np.ndarray, labels: np.ndarray, common: Calibration | None, kept: Calibration | None = None
) -> Calibration | None:
    """A calibration with scales and biases; None where it is no better than what was chosen before beyond chance.

    Args:
        logits: `float[N, K]`, finite.
        labels: `int64[N]`, or `uint8[N, K]` for several labels.
        common: The temperature that the scales multiply; None for 1.
        kept: What it has to beat: smoothing taken back of images with one label, or None for the temperature.
    """
    logits, labels = held_out.drawn(logits, labels, MAX_NUMBERS)
    scaled = (common or Calibration(1.0)).apply(logits)
    count = scaled.shape[1]
    temperature = 1.0 if common is None else common.temperature
    if labels.ndim == 2:
        pairs = [_platt(scaled[:, label], labels[:, label] > 0, ALPHA / count) for label in range(count)]
        if all(pair is None for pair in pairs):
            return None
        scales, biases = zip(*(pair or (1.0, 0.0) for pair in pairs), strict=True)
        return Calibration(temperature, _rounded(scales), _rounded(biases))
    if np.bincount(labels, minlength=count).min() < MIN_PER_CLASS:
        return None
    gains = held_out.nll(scaled if kept is None else kept.apply(logits), labels)
    for fitted, others in held_out.folds(len(scaled)):
        scale, bias = _fit(scaled[fitted], labels[fitted])
        gains[others] -= held_out.nll(scaled[others] * scale + bias, labels[others])
    if not held_out.is_gain(gains, scaled.argmax(1) != labels, ALPHA):
        return None
    scale, bias = _fit(scaled, labels)
    return Calibration(temperature, _rounded(scale), _rounded(bias))


def _platt(x: np.ndarray, positive: np.ndarray, alpha: float) -> tuple[float, float] | None:
    """Scale and bias of one label; None where they do not help.

    Args:
        x: Its logits, `float64[N]`.
        positive: `bool[N]`.
        alpha: The significance level.
    """
    if min(positive.sum(), (~positive).sum()) < MIN_PER_CLASS:
        return None
    two, own = np.stack([np.zeros_like(x), x], 1), positive.astype(np.int64)  # its softmax is the sigmoid
    gains = held_out.nll(two, own)
    for fitted, others in held_out.folds(len(x)):
        scale, bias = _fit(two[fitted], own[fitted], shared=True)
        gains[others] -= held_out.nll(two[others] * scale + bias, own[others])
    if not held_out.is_gain(gains, (x > 0) != positive, alpha):
        return None
    scale, bias = _fit(two, own, shared=True)
    return float(scale[1]), float(bias[1] - bias[0])


def _fit(z: np.ndarray, labels: np.ndarray, *, shared: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scale a and bias b with the least NLL, `float64[K]` each, under priors that weigh as much as one image.

    The prior of a scale is that of 1 / T in `calibration_fit`, a − log a; that of a bias is normal, b² / 2.

    Args:
        z: Logits, `float64[N, K]`.
        labels: `int64[N]`.
        shared: Whether all classes have one scale.
    """
    from scipy.optimize import minimize

    images, count = z.shape
    target = np.zeros((images, count))
    target[np.arange(images), labels] = 1.0
    scales = 1 if shared else count

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = parameters[:scales], parameters[scales:]
        logits = z * scale + bias
        shifted = logits - logits.max(1, keepdims=True)
        powers = np.exp(shifted)
        total = powers.sum(1, keepdims=True)
        errors = (powers / total - target) / images
        by_scale = (errors * z).sum(0)
        by_scale = (by_scale.sum(keepdims=True) if shared else by_scale) + (1 - 1 / scale) / images
        prior = (scale - np.log(scale)).sum() + (bias**2).sum() / 2
        nll = float((np.log(total[:, 0]) - (target * shifted).sum(1)).mean() + prior / images)
        return nll, np.concatenate([by_scale, errors.sum(0) + bias / images])

    start = np.concatenate([np.ones(scales), np.zeros(count)])
    bounds = [(SMALLEST, LARGEST)] * scales + [(None, None)] * count
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    bias = found[scales:]
    return np.broadcast_to(found[:scales], (count,)), bias - bias.mean()


def _rounded(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(map(held_out.rounded, values))
