"""A scale and bias of each class beside the temperature, where validation images that did not fit it prefer that.

Of one label each this is vector scaling (Guo et al. 2017, section 4.2), of several Platt scaling of each label (Platt,
Probabilistic Outputs for Support Vector Machines, 1999). A bias may change predictions, so that the evidence has to be
strong: the NLL of held-out images in cross-validation, with a paired t-test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from poolzoo.metrics.calibration import Calibration

ALPHA: Final = 0.01  # of the paired test; with several labels divided by their number
FOLDS: Final = 5
MIN_PER_CLASS: Final = (
    20  # validation images of every class, or with and without a label: two numbers are fitted to each
)
MAX_NUMBERS: Final = 500_000  # logits that the fits read
SMALLEST: Final = 0.05  # of a scale, as a share of the common one
LARGEST: Final = 20.0


def improved(logits: np.ndarray, labels: np.ndarray, common: Calibration | None) -> Calibration | None:
    """A calibration with scales and biases; None where it is no better than the common temperature beyond chance.

    Args:
        logits: `float[N, K]`, finite.
        labels: `int64[N]`, or `uint8[N, K]` for several labels.
        common: The temperature that it has to beat; None for 1.
    """
    scaled = (common or Calibration(1.0)).apply(logits)
    count = scaled.shape[1]
    most = MAX_NUMBERS // count
    if len(scaled) > most:
        drawn = np.random.default_rng(0).permutation(len(scaled))[:most]
        scaled, labels = scaled[drawn], labels[drawn]
    temperature = 1.0 if common is None else common.temperature
    if labels.ndim == 2:
        pairs = [_platt(scaled[:, label], labels[:, label] > 0, ALPHA / count) for label in range(count)]
        if all(pair is None for pair in pairs):
            return None
        scales, biases = zip(*(pair or (1.0, 0.0) for pair in pairs), strict=True)
        return Calibration(temperature, _rounded(scales), _rounded(biases))
    if np.bincount(labels, minlength=count).min() < MIN_PER_CLASS:
        return None
    gains = np.zeros(len(scaled))
    for fitted, held_out in _folds(len(scaled)):
        scale, bias = _fit(scaled[fitted], labels[fitted])
        before = _nll(scaled[held_out], labels[held_out])
        gains[held_out] = before - _nll(scaled[held_out] * scale + bias, labels[held_out])
    if not _is_gain(gains, ALPHA):
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
    gains = np.zeros(len(x))
    for fitted, held_out in _folds(len(x)):
        scale, bias = _fit(two[fitted], own[fitted], shared=True)
        before = _nll(two[held_out], own[held_out])
        gains[held_out] = before - _nll(two[held_out] * scale + bias, own[held_out])
    if not _is_gain(gains, alpha):
        return None
    scale, bias = _fit(two, own, shared=True)
    return float(scale[1]), float(bias[1] - bias[0])


def _folds(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices to fit on and held-out ones, five times."""
    order = np.random.default_rng(0).permutation(count)
    parts = np.array_split(order, FOLDS)
    return [(np.concatenate([*parts[:fold], *parts[fold + 1 :]]), parts[fold]) for fold in range(FOLDS)]


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


def _nll(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The NLL of each image, `float64[N]`."""
    shifted = z - z.max(1, keepdims=True)
    own: np.ndarray = shifted[np.arange(len(z)), labels]
    return np.asarray(np.log(np.exp(shifted).sum(1)) - own)


def _is_gain(gains: np.ndarray, alpha: float) -> bool:
    """Whether the mean is above 0 beyond chance, in a one-sided t-test."""
    from scipy.special import stdtr

    deviation = gains.std(ddof=1)
    if not gains.mean() > 0 or deviation == 0:
        return False
    return bool(stdtr(len(gains) - 1, -gains.mean() / (deviation / np.sqrt(len(gains)))) < alpha)


def _rounded(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
