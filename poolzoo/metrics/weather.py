"""Weather: snow, frost, fog and spatter. Each takes and gives `float32[N, H, W, 3]`, 0–1; the caller clips.

Constants are those of CIFAR-10-C: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations, ICLR 2019, arXiv:1903.12261 (github.com/hendrycks/robustness, make_cifar_c.py).
"""

from __future__ import annotations

import numpy as np
import scipy  # its parts are imported when they are used: some take long

from poolzoo.metrics.blur import magnifier, streaks
from poolzoo.metrics.image_ops import PerImageRng, plasma, scale

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in the published script's gray image
ICE = np.array([0.82, 0.92, 1.0], np.float32)  # the tint of the synthetic frost, ours
WATER = np.array([175, 238, 238], np.float32) / 255  # pale turquoise
MUD = np.array([63, 42, 20], np.float32) / 255


def snow(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """The image paled, plus flakes that fall along a direction of each image's own, and those turned by 180°.

    Flakes are the pixels of Gaussian noise, magnified, that exceed a threshold, drawn out by a motion blur.
    """
    mean, deviation, size, least, radius, sigma, kept = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
    (height, width), factor = x.shape[1:3], scale(x)
    flakes = mean + deviation * rng.normal(height, width)
    down, across = (magnifier(length, size * factor).toarray().astype(np.float32) for length in (height, width))
    flakes = down @ flakes @ across.T
    flakes = np.where(flakes < least, 0, np.minimum(flakes, 1))[..., None]
    flakes = streaks(flakes, radius * factor, sigma * factor, rng.uniform(-135, -45))
    paled = np.maximum(x, 1.5 * (x @ LUMA)[..., None] + 0.5)
    snowy: np.ndarray = kept * x + (1 - kept) * paled + flakes + flakes[:, ::-1, ::-1]
    return snowy


def frost(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """`a x + b f` with the published a and b, but f is synthetic; the authors use photographs of frost.

    The texture is bluish white needles, the ridges of one fractal, on a haze, which is another.
    """
    kept, ice = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    height, width = x.shape[1:3]
    needles = 1 - np.abs(2 * plasma(rng, height, width, 1.3) - 1)
    haze = plasma(rng, height, width, 1.6)
    frosted: np.ndarray = kept * x + ice * (0.25 + 0.35 * haze + 0.4 * needles**3)[..., None] * ICE
    return frosted


def fog(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """`(x + c f) m / (m + c)`: fractal noise f is added, and m, the image's largest value, is kept."""
    thickness, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    brightest = x.max((1, 2, 3), keepdims=True)
    height, width = x.shape[1:3]
    noise = plasma(rng, height, width, decay)[..., None]
    foggy: np.ndarray = (x + thickness * noise) * brightest / (brightest + thickness)
    return foggy


def spatter(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """Drops of water (severities 1 to 3) or mud (4 and 5), where smoothed Gaussian noise exceeds a threshold.

    The light on a drop of water is an embossed map of the distances to the drops' rims. The rims are the pixels of
    drops that have a neighbor outside, where the published script runs a Canny edge detector on the drops. The light's
    own filters are 3 × 3 at every size.
    """
    mean, deviation, sigma, least, strength = (
        (0.62, 0.1, 0.7, 0.7, 0.5),
        (0.65, 0.1, 0.8, 0.7, 0.5),
        (0.65, 0.3, 1.0, 0.69, 0.5),
        (0.65, 0.1, 0.7, 0.69, 0.6),
        (0.65, 0.1, 0.5, 0.68, 0.6),
    )[severity - 1]
    factor = scale(x)
    # Smoothing by a longer σ divides the noise's deviation by the factor: more noise keeps the drops' share.
    noise = mean + factor * deviation * rng.normal(*x.shape[1:3])
    liquid = scipy.ndimage.gaussian_filter(noise, factor * sigma, mode="nearest", axes=(1, 2))
    drops = liquid >= least
    if severity > 3:
        cover = scipy.ndimage.gaussian_filter(drops.astype(np.float32), factor * strength, mode="nearest", axes=(1, 2))
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        muddy: np.ndarray = x * (1 - cover) + MUD * cover
        return muddy
    light = np.where(drops, liquid, 0) * _embossed(_distances(drops))
    light *= strength / np.maximum(light.max((1, 2), keepdims=True), 1e-6)  # an image may have no drop
    wet: np.ndarray = x + light[..., None] * WATER
    return wet


def _distances(drops: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest rim of a drop, `bool[N, H, W] → float32[N, H, W]`, at most 20, smoothed."""
    cross = scipy.ndimage.generate_binary_structure(2, 1)[None]
    rims = drops & ~scipy.ndimage.binary_erosion(drops, cross, border_value=1)
    far = 1e6  # between images, so that no rim of another image is the nearest
    distances = (
        scipy.ndimage.distance_transform_edt(~rims, sampling=(far, 1, 1)) if rims.any() else np.full(rims.shape, far)
    )
    smooth: np.ndarray = scipy.ndimage.uniform_filter(np.minimum(distances, 20), (0, 3, 3), mode="mirror")
    return smooth.astype(np.float32)


def _embossed(distances: np.ndarray) -> np.ndarray:
    """Whole distances with a levelled histogram, `float32[N, H, W]` 0–255, lit from the lower right and smoothed."""
    count, pixels = len(distances), distances[0].size
    levels = distances.astype(np.int64)
    index = levels + 21 * np.arange(count)[:, None, None]
    below = np.cumsum(np.bincount(index.ravel(), minlength=21 * count).reshape(count, 21), 1)
    first = below[np.arange(count), levels.min((1, 2))][:, None]
    levelled = np.rint(255 * (below - first) / np.maximum(pixels - first, 1)).clip(0).astype(np.float32)
    lit = scipy.ndimage.correlate(
        levelled.ravel()[index], np.array([[[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]], np.float32), mode="mirror"
    )
    smooth: np.ndarray = scipy.ndimage.uniform_filter(lit.clip(0, 255), (0, 3, 3), mode="mirror")
    return smooth
