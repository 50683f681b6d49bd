"""Noise: Gaussian, shot, impulse and speckle. Each takes and gives `float32[N, H, W, 3]`, 0–1; the caller clips.

Constants are those of CIFAR-10-C: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations, ICLR 2019, arXiv:1903.12261 (github.com/hendrycks/robustness, make_cifar_c.py).
"""

from __future__ import annotations

import numpy as np

from poolzoo.metrics.image_ops import PerImageRng


def gaussian_noise(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """`x + σ n`, n standard normal, for each pixel and channel on its own."""
    return x + (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1] * rng.normal(*x.shape[1:])


def shot_noise(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """`Poisson(c x) / c`: the photons that a sensor counts, where a white pixel sends c of them."""
    photons = (500, 250, 100, 75, 50)[severity - 1]
    return rng.poisson(photons * x) / photons


def impulse_noise(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """A share of the values, channels on their own, becomes 0 or 1, each as often."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    dice = rng.uniform(0, 1, *x.shape[1:])
    return np.where(dice < share, (dice < share / 2).astype(np.float32), x)


def speckle_noise(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """`x + x σ n`, n standard normal."""
    noisy: np.ndarray = x + x * (0.06, 0.10, 0.12, 0.16, 0.20)[severity - 1] * rng.normal(*x.shape[1:])
    return noisy
