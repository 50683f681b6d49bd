"""The corruptions against closed forms, brute force, scipy, torch, Pillow and colorsys, and on photographs."""

from __future__ import annotations

import colorsys
import io
import itertools
import zlib
from math import ceil, cos, exp, hypot, radians, sin

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, signal, stats
from sklearn.datasets import load_sample_images
from torch.nn import functional as F

from poolzoo.common.errors import UsageError
from poolzoo.metrics import corruptions
from poolzoo.metrics.corruptions import EXTRA, NAMES, NOTES, SEVERITIES, corrupt
from poolzoo.metrics.image_ops import PerImageRng, plasma

each = pytest.mark.parametrize("name", NAMES + EXTRA)
each_severity = pytest.mark.parametrize("severity", SEVERITIES)
each_side = pytest.mark.parametrize(
    "side", [32, 72]
)  # lengths go with the size: those for 72 pixels are 2.25 times longer

# Severities in the order in which the mean squared distance from the clean image grows. Where it is not 1 to 5, that
# is what the published constants do: mud follows water, more color follows less, and so on.
ORDERS = {
    "glass_blur": [(2, 4), (3, 5), (1, 4)],  # 1–3 shuffle once, 4 and 5 twice; more blur brings the shuffled back
    "motion_blur": [(1, 2, 3, 5), (1, 2, 4, 5)],  # 3 and 4 have one width, and what else differs weighs nothing
    "frost": [(1, 2, 3)],  # 3–5 also darken the image, which undoes what the frost brightens
    "elastic_transform": [(5, 4, 3, 2, 1)],  # the affine part shrinks while the local part grows
    "spatter": [(1, 2, 3), (4, 5)],
    "saturate": [(1, 2), (3, 4, 5)],
}
UNMOVED = {"defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast", "saturate", "pixelate"}
SEEDLESS = UNMOVED | {"jpeg_compression"}


def crops(count: int, size: tuple[int, int] = (32, 32), shrink: int = 4) -> np.ndarray:
    """Pieces of the two photographs that scikit-learn brings, `uint8[count, *size, 3]`."""
    photographs = [np.asarray(Image.fromarray(one).reduce(shrink)) for one in load_sample_images().images]
    generator, pieces = np.random.default_rng(0), []
    for index in range(count):
        whole = photographs[index % 2]
        row, column = (generator.integers(n - side + 1) for n, side in zip(whole.shape[:2], size, strict=True))
        pieces.append(whole[row : row + size[0], column : column + size[1]])
    return np.stack(pieces)


def flat(level: int, count: int = 100) -> np.ndarray:
    return np.full((count, 32, 32, 3), level, np.uint8)


def same_draws(name: str, severity: int, count: int) -> PerImageRng:
    """The random numbers that `corrupt` takes with seed 0."""
    return PerImageRng(count, (0, zlib.crc32(name.encode()), severity))


def assert_close(got: np.ndarray, expected: np.ndarray, slack: float = 0.01) -> None:
    """Gray levels are `expected`, 0–1 and cut off at both, rounded; `slack` levels are for float32."""
    off = np.abs(got - 255 * np.clip(expected, 0, 1))
    assert off.max() <= 0.5 + slack, f"off by {off.max():.3f} at {np.unravel_index(off.argmax(), off.shape)}"


def smoothed(x: np.ndarray, sigma: float, truncate: float, border: str) -> np.ndarray:
    """Gaussian blur of `[N, H, W, …]`, tap by tap."""
    radius = int(truncate * sigma + 0.5)
    taps = [exp(-(i**2) / (2 * sigma**2)) if sigma else 1.0 for i in range(-radius, radius + 1)]
    for axis in (1, 2):
        margins = [(radius, radius) if k == axis else (0, 0) for k in range(x.ndim)]
        padded, n = np.pad(x, margins, border), x.shape[axis]
        x = sum(tap * padded.take(range(i, i + n), axis) for i, tap in enumerate(taps)) / sum(taps)
    return x


def streaked(image: np.ndarray, radius: float, sigma: float, degrees: float) -> np.ndarray:
    """ImageMagick's motion blur of `[H, W, C]`, tap by tap."""
    taps = [exp(-(i**2) / (2 * sigma**2)) for i in range(2 * ceil(radius) + 1)]
    down, right = sin(radians(degrees)), cos(radians(degrees))
    rows, columns = (np.arange(n) for n in image.shape[:2])
    result = np.zeros(image.shape)
    for i, tap in enumerate(taps):
        row = np.clip(rows + ceil(i * down - 0.5), 0, rows[-1])
        column = np.clip(columns + ceil(i * right - 0.5), 0, columns[-1])
        result += tap * image[row[:, None], column]
    return result / sum(taps)


def clipped_zoom(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle of `[S, S, C]` magnified to the same size by scipy."""
    side = len(image)
    kept = ceil(side / factor)
    start = (side - kept) // 2
    middle = image[start : start + kept, start : start + kept]
    large = ndimage.zoom(middle, (factor, factor, 1), order=1)
    start = (len(large) - side) // 2
    return large[start : start + side, start : start + side]


# --- Noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "deviations"),
    [
        ("gaussian_noise", [255 * c for c in (0.04, 0.06, 0.08, 0.09, 0.10)]),
        ("speckle_noise", [128 * c for c in (0.06, 0.1, 0.12, 0.16, 0.2)]),
    ],
)
def test_noise_has_the_mean_and_deviation_of_its_closed_form(name, deviations):
    images = flat(128)
    for severity, deviation in enumerate(deviations, 1):
        noise = corrupt(images, name, severity).astype(float) - 128
        assert abs(noise.mean()) < 5 * deviation / noise.size**0.5
        assert noise.std() == pytest.approx((deviation**2 + 1 / 12) ** 0.5, rel=0.006)  # rounding adds 1/12
        channels = np.corrcoef(noise.reshape(-1, 3).T)
        assert np.abs(channels - np.eye(3)).max() < 0.02


@each_severity
def test_shot_noise_counts_photons(severity):
    """How often each gray level occurs, against the probabilities of a Poisson distribution."""
    photons = (500, 250, 100, 75, 50)[severity - 1]
    counts = np.arange(2 * photons)
    level, chance = np.rint(255 * counts / photons).clip(0, 255), stats.poisson.pmf(counts, photons * 100 / 255)
    expected = np.bincount(level.astype(int), chance, 256)
    noisy = corrupt(flat(100), "shot_noise", severity)
    shares = np.bincount(noisy.ravel(), minlength=256) / noisy.size
    assert (shares[expected < 1e-12] == 0).all()
    assert (np.abs(shares - expected) < 5 * (expected / noisy.size) ** 0.5 + 1e-5).all()


@each_severity
def test_impulse_noise_is_salt_and_pepper(severity):
    share, noisy = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1], corrupt(flat(128), "impulse_noise", severity)
    assert set(np.unique(noisy)) == {0, 128, 255}
    for level in (0, 255):
        spread = (share / 2 / noisy.size) ** 0.5
        assert abs((noisy == level).mean() - share / 2) < 5 * spread


# --- Blur ------------------------------------------------------------------------------------------------------------


@each_severity
@each_side
def test_gaussian_blur_is_a_gaussian_that_scales_with_the_size(severity, side):
    images, sigma = crops(4, (side, side), 2), (0.4, 0.6, 0.7, 0.8, 1)[severity - 1] * side / 32
    assert_close(corrupt(images, "gaussian_blur", severity), smoothed(images / 255, sigma, 4, "edge"))


@each_severity
@each_side
def test_defocus_blur_is_a_convolution_with_a_soft_disk(severity, side):
    radius, softness = np.array([(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)][severity - 1]) * side / 32
    disk = np.array([[float(hypot(i, j) <= radius) for j in range(-8, 9)] for i in range(-8, 9)])
    reach = ceil(side / 32)  # one tap a side as published, more for larger images
    taps = np.array([exp(-(i**2) / (2 * softness**2)) for i in range(-reach, reach + 1)])
    kernel = torch.from_numpy(signal.convolve2d(disk, np.outer(taps, taps), "same"))
    images = crops(8, (side, side), 2)
    x = F.pad(torch.from_numpy(images / 255).permute(0, 3, 1, 2), (8, 8, 8, 8), mode="reflect")
    blurred = F.conv2d(x, (kernel / kernel.sum()).expand(3, 1, 17, 17), groups=3)
    assert_close(corrupt(images, "defocus_blur", severity), blurred.permute(0, 2, 3, 1).numpy())


def test_a_large_disk_has_the_area_of_a_circle():
    """At 320 × 320 the disk of severity 5 has a radius of 15 pixels: a white pixel is spread over π 15² of them."""
    images = np.zeros((1, 320, 320, 3), np.uint8)
    images[:, 100:220, 100:220] = 255
    edge = corrupt(images, "defocus_blur", 5)[0, 160, 60:160, 0] / 255
    exact = [0.5 + (u * (225 - u * u) ** 0.5 + 225 * np.arcsin(u / 15)) / (np.pi * 225) for u in np.arange(-14.5, 15)]
    assert edge[25:55] == pytest.approx(np.array(exact), abs=0.02)


@each_severity
@each_side
def test_glass_blur_is_the_published_loop(severity, side):
    """Pixel by pixel from the lower right; assigning views to one another copies the neighbor.

    In larger images neighbors lie on all sides, and the loop would meet its own work: there it reads what was before.
    """
    sigma, rounds = [(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)][severity - 1]
    images, draws = crops(2, (side, side)), same_draws("glass_blur", severity, 2)
    reach, sigma = {32: 1, 72: 2}[side], sigma * side / 32
    expected = smoothed(images / 255, sigma, 4, "edge")
    for _ in range(rounds):
        steps = draws.integers(-reach, reach, 2, side - 2 * reach, side - 2 * reach)
        for x, (downs, rights) in zip(expected, steps, strict=True):
            before = x if reach == 1 else x.copy()
            for row in range(side - reach, reach, -1):
                for column in range(side - reach, reach, -1):
                    at = row - reach - 1, column - reach - 1
                    x[row, column] = before[row + downs[at], column + rights[at]]
    assert_close(corrupt(images, "glass_blur", severity), smoothed(expected, sigma, 4, "edge"))


@each_severity
@each_side
def test_motion_blur_is_imagemagicks(severity, side):
    radius, sigma = np.array([(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)][severity - 1]) * side / 32
    images, angles = crops(3, (side, side)), same_draws("motion_blur", severity, 3).uniform(-45, 45)
    expected = [streaked(image / 255, radius, sigma, angle) for image, angle in zip(images, angles, strict=True)]
    assert_close(corrupt(images, "motion_blur", severity), np.stack(expected))


def test_the_directions_of_motion_are_spread_over_a_right_angle():
    angles = same_draws("motion_blur", 1, 2000).uniform(-45, 45)
    assert (angles.min(), angles.max()) == pytest.approx((-45, 45), abs=0.3)
    assert angles.std() == pytest.approx(90 / 12**0.5, rel=0.05)


@each_severity
def test_zoom_blur_is_the_mean_of_magnified_images(severity):
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    images = crops(3)
    expected = [(x + sum(clipped_zoom(x, f) for f in factors)) / (len(factors) + 1) for x in images / 255]
    assert_close(corrupt(images, "zoom_blur", severity), np.stack(expected))


# --- Weather ---------------------------------------------------------------------------------------------------------


def test_plasma_is_the_diamond_square_algorithm():
    """Against one that visits point by point, from the same noise."""
    draws, decay, side, amplitude = PerImageRng(1, (7,)), 1.5, 16, 1.0
    grid, step = np.zeros((side, side)), side
    while step > 1:
        half, count = step // 2, side // step
        noise = amplitude * draws.uniform(-1, 1, 3, count, count)[0]
        at = lambda row, column: grid[row % side, column % side]  # noqa: E731
        for i, j in np.ndindex(count, count):
            r, c = i * step, j * step
            grid[r + half, c + half] = (at(r, c) + at(r, c + step) + at(r + step, c) + at(r + step, c + step)) / 4
            grid[r + half, c + half] += noise[0, i, j]
        for i, j in np.ndindex(count, count):
            for which, (r, c) in ((1, (i * step, j * step + half)), (2, (i * step + half, j * step))):
                around = at(r - half, c) + at(r + half, c) + at(r, c - half) + at(r, c + half)
                grid[r, c] = around / 4 + noise[which, i, j]
        step, amplitude = half, amplitude / decay**2
    expected = (grid - grid.min()) / (grid.max() - grid.min())
    assert plasma(PerImageRng(1, (7,)), 16, 11, decay)[0] == pytest.approx(expected[:, :11], abs=1e-5)


@each_severity
def test_fog_keeps_the_brightest_value_and_lifts_the_dark(severity):
    thickness = (0.2, 0.5, 0.75, 1, 1.5)[severity - 1]
    foggy, m = corrupt(flat(153), "fog", severity) / 255, 0.6
    assert foggy.max((1, 2, 3)) == pytest.approx(m, abs=0.002)  # fractal noise 1
    assert foggy.min((1, 2, 3)) == pytest.approx(m * m / (m + thickness), abs=0.002)  # fractal noise 0
    assert np.ptp(foggy, -1).max() == 0  # gray


@each_severity
def test_frost_is_laid_over_the_image(severity):
    kept, ice = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)][severity - 1]
    black, gray = (corrupt(flat(level), "frost", severity).astype(int) for level in (0, 100))
    assert np.abs(gray - black - kept * 100).max() <= 1
    assert 0.25 * ice * 255 - 1 <= black[..., 2].min()
    assert black.max() <= ice * 255 + 1
    assert (black[..., 2] >= black[..., 0]).all()  # bluish
    assert black.std((1, 2)).min() > 0.05 * ice * 255  # a texture, not a veil


SNOW = [
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
]


@each_severity
@each_side
def test_snow_is_streaks_of_thresholded_noise_over_a_paled_image(severity, side):
    mean, deviation, size, least, radius, sigma, kept = SNOW[severity - 1]
    images, draws, larger = crops(2, (side, side)), same_draws("snow", severity, 2), side / 32
    noise, angles = mean + deviation * draws.normal(side, side), draws.uniform(-135, -45)
    expected = []
    for x, layer, angle in zip(images / 255, noise, angles, strict=True):
        flakes = clipped_zoom(layer[..., None], larger * size)
        flakes[flakes < least] = 0
        flakes = streaked(flakes.clip(0, 1), larger * radius, larger * sigma, angle)
        gray = (x * [0.299, 0.587, 0.114]).sum(-1, keepdims=True)
        expected.append(kept * x + (1 - kept) * np.maximum(x, 1.5 * gray + 0.5) + flakes + np.rot90(flakes, 2))
    assert_close(corrupt(images, "snow", severity), np.stack(expected))


@pytest.mark.parametrize("severity", [4, 5])
def test_mud_covers_where_smoothed_noise_is_high(severity):
    sigma, least, softness = {4: (0.7, 0.69, 0.6), 5: (0.5, 0.68, 0.6)}[severity]
    images, noise = crops(20), 0.65 + 0.1 * same_draws("spatter", severity, 20).normal(32, 32)
    cover = smoothed((smoothed(noise, sigma, 4, "edge") >= least).astype(float), softness, 4, "edge")[..., None]
    cover[cover < 0.8] = 0
    assert 0.02 < (cover > 0).mean() < 0.5
    expected = images / 255 * (1 - cover) + np.array([63, 42, 20]) / 255 * cover
    assert_close(corrupt(images, "spatter", severity), expected)


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_water_glints_where_smoothed_noise_is_high(severity):
    """Pixel by pixel: distances to the rims, a levelled histogram, an emboss filter."""
    mean, deviation, sigma, least = [(0.62, 0.1, 0.7, 0.7), (0.65, 0.1, 0.8, 0.7), (0.65, 0.3, 1, 0.69)][severity - 1]
    images = crops(3)
    noise = mean + deviation * same_draws("spatter", severity, 3).normal(32, 32)
    expected = []
    for x, liquid in zip(images / 255, smoothed(noise, sigma, 4, "edge"), strict=True):
        wet = np.pad(liquid >= least, 1, constant_values=True)
        dry_beside = ~(wet[:-2, 1:-1] & wet[2:, 1:-1] & wet[1:-1, :-2] & wet[1:-1, 2:])
        rims = np.argwhere(wet[1:-1, 1:-1] & dry_beside)
        distance = np.array([min(np.linalg.norm(rims - at, axis=1).min(), 20) for at in np.ndindex(32, 32)])
        whole = np.floor(box(distance.reshape(32, 32)) + 1e-6)
        first = (whole == whole.min()).sum()
        levelled = np.array([np.rint(255 * ((whole <= v).sum() - first) / (1024 - first)) for v in whole.flat])
        kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
        lit = signal.correlate2d(np.pad(levelled.reshape(32, 32), 1, "reflect"), kernel, "valid")
        light = np.where(liquid >= least, liquid, 0) * box(lit.clip(0, 255))
        expected.append(x + 0.5 * (light / light.max())[..., None] * np.array([175, 238, 238]) / 255)
    assert_close(corrupt(images, "spatter", severity), np.stack(expected))


def box(x: np.ndarray) -> np.ndarray:
    return signal.correlate2d(np.pad(x, 1, "reflect"), np.full((3, 3), 1 / 9), "valid")


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_an_image_without_a_drop_stays_as_it_is(severity, monkeypatch):
    def no_drops(self, *shape):
        return np.full((len(self.generators), *shape), -1, np.float32)

    monkeypatch.setattr(PerImageRng, "normal", no_drops)
    images = crops(3)
    assert (corrupt(images, "spatter", severity) == images).all()


# --- Digital ---------------------------------------------------------------------------------------------------------


def in_hsv(change) -> tuple[np.ndarray, np.ndarray]:
    """Random, gray, black and white pixels, and what colorsys makes of them with `change(h, s, v)`."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    pixels[0, 0] = np.arange(32)[:, None] * 8  # grays, of which the first is black
    pixels[0, 1, 0] = 255
    changed = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel / 255))) for pixel in pixels.reshape(-1, 3)]
    return pixels, np.array(changed).reshape(pixels.shape)


@each_severity
def test_brightness_raises_the_value_of_hsv(severity):
    rise = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    pixels, expected = in_hsv(lambda h, s, v: (h, s, min(v + rise, 1)))
    assert_close(corrupt(pixels, "brightness", severity), expected)


@each_severity
def test_saturate_changes_the_saturation_of_hsv(severity):
    gain, rise = [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)][severity - 1]
    pixels, expected = in_hsv(lambda h, s, v: (h, min(gain * s + rise, 1), v))
    assert_close(corrupt(pixels, "saturate", severity), expected)


@each_severity
def test_contrast_draws_each_channel_to_its_mean(severity):
    images, share = crops(20), (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    mean = np.array([[image[..., channel].mean() for channel in range(3)] for image in images])[:, None, None]
    assert_close(corrupt(images, "contrast", severity), (mean + share * (images - mean)) / 255)


@each_severity
@each_side
def test_elastic_transform_is_an_affine_map_and_a_smooth_displacement(severity, side):
    shares = [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)]
    amplitude, sigma, jitter = side * np.array(shares[severity - 1])
    amplitude *= side / 32  # what smoothing with a longer sigma takes from the noise
    images, draws = crops(4, (side, side)), same_draws("elastic_transform", severity, 4)
    old = side // 2 + side // 3 * np.array([[1, 1], [1, -1], [-1, -1]])
    new = old + draws.uniform(-jitter, jitter, 3, 2)
    noise = draws.uniform(-1, 1, 2, side, side).swapaxes(0, 1).reshape(8, side, side)
    noise = smoothed(noise, sigma, 3, "symmetric")
    rows, columns = np.mgrid[:side, :side]
    for index, got in enumerate(corrupt(images, "elastic_transform", severity)):
        matrix = np.linalg.inv(np.column_stack([new[index], np.ones(3)])) @ old  # from the output to the input
        down, right = amplitude * noise[index], amplitude * noise[4 + index]
        for channel in range(3):
            x = images[index, ..., channel] / 255
            x = ndimage.affine_transform(x, matrix[:2].T, matrix[2], order=1, mode="mirror")
            x = ndimage.map_coordinates(x, [rows + down, columns + right], order=1, mode="mirror")
            assert_close(got[..., channel], x)


@each_severity
def test_pixelate_averages_areas(severity):
    share, images = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1], crops(8, (32, 48))

    def overlap(made: int, given: int) -> np.ndarray:
        """Rank of each given pixel's length in each made one; enlarging takes the nearest."""
        if made > given:
            return np.eye(given)[[int((i + 0.5) * given / made) for i in range(made)]]
        # Pillow's box filter gives whole pixels weights: those whose center lies in the made pixel, edges included.
        ratio = given / made
        centers = (np.arange(given) + 0.5)[None] - (np.arange(made)[:, None] + 0.5) * ratio
        weights = ((centers > -ratio / 2) & (centers <= ratio / 2)).astype(float)
        return weights / weights.sum(1, keepdims=True)

    rows, columns = (overlap(n, int(n * share)) @ overlap(int(n * share), n) for n in (32, 48))
    expected = np.einsum("ij,njkc,lk->nilc", rows, images.astype(float), columns)
    assert_close(corrupt(images, "pixelate", severity), expected / 255, slack=1.5)  # Pillow rounds four times


@each_severity
def test_jpeg_is_pillows(severity):
    images = crops(5)
    for image, got in zip(images, corrupt(images, "jpeg_compression", severity), strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=(80, 65, 58, 50, 40)[severity - 1])
        assert (got == np.asarray(Image.open(file))).all()


# --- All of them -----------------------------------------------------------------------------------------------------


def test_there_are_fifteen_and_four():
    assert (len(NAMES), len(EXTRA), len({*NAMES, *EXTRA})) == (15, 4, 19)
    assert set(NOTES) <= {*NAMES, *EXTRA}


@pytest.fixture(scope="module", params=["scikit-learn", "cifar"])
def photographs(request) -> np.ndarray:
    if request.param == "scikit-learn":
        return crops(100)
    files = sorted((request.getfixturevalue("cifar_images") / "test").glob("*/*.jpg"))[::60]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


@each
def test_the_distance_from_the_clean_image_grows_with_the_severity(name, photographs):
    corrupted = {severity: corrupt(photographs, name, severity).astype(float) for severity in SEVERITIES}
    distance = {s: ((x - photographs) ** 2).mean() for s, x in corrupted.items()}
    for order in ORDERS.get(name, [SEVERITIES]):
        row = [distance[severity] for severity in order]
        assert all(a < b for a, b in itertools.pairwise(row)), f"severities {order}: {np.round(row, 1)}"


@each
def test_corruption_of_an_image_does_not_depend_on_its_batch(name, monkeypatch):
    images = crops(7)
    before, block = images.copy(), corruptions.BLOCK
    for severity in SEVERITIES:
        monkeypatch.setattr(corruptions, "BLOCK", block)
        whole = corrupt(images, name, severity, seed=3)
        assert (images == before).all()
        assert (whole.dtype, whole.shape) == (np.uint8, images.shape)
        assert (whole[4:6] == corrupt(images[4:6], name, severity, seed=3, offset=4)).all()
        monkeypatch.setattr(corruptions, "BLOCK", 2 * 32 * 32)
        assert (whole == corrupt(images, name, severity, seed=3)).all()


@each
def test_equal_images_are_corrupted_differently_where_chance_decides(name):
    images = np.repeat(crops(1), 2, 0)
    one, other = corrupt(images, name, 3), corrupt(images, name, 3, seed=1)
    assert (one[0] == one[1]).all() == (name in SEEDLESS)
    assert (one == other).all() == (name in SEEDLESS)


@each
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (40, 8), (50, 67)])
def test_other_sizes_work(name, size):
    images = crops(6, size)
    for severity in SEVERITIES:
        corrupted = corrupt(images, name, severity)
        assert corrupted.shape == images.shape
        magnified = max(size) * (1 + 0.05 * severity) >= max(size) + 0.5  # by less than half a pixel nothing happens
        assert (corrupted != images).any() or (name == "zoom_blur" and not magnified)


@pytest.mark.parametrize("name", ["spatter", "glass_blur", "zoom_blur"])
def test_a_larger_image_is_corrupted_as_strongly(name):
    """The same photographs at three times the side move about as far from clean."""
    large = crops(60, (96, 96), 1)
    small = np.stack([np.asarray(Image.fromarray(image).reduce(3)) for image in large])
    for severity in (2, 4):
        near, far = (((corrupt(x, name, severity) - x.astype(float)) ** 2).mean() for x in (small, large))
        assert 0.4 < far / near < 2.5, f"severity {severity}: {near:.0f} at 32 pixels, {far:.0f} at 96"


def test_unknown_names_severities_and_sizes_are_told():
    with pytest.raises(UsageError, match="gausian_noise") as told:
        corrupt(crops(1), "gausian_noise", 1)
    assert "gaussian_noise" in told.value.hint
    with pytest.raises(UsageError, match="'rain'") as told:
        corrupt(crops(1), "rain", 1)
    for severity in (0, 6, 2.5):
        with pytest.raises(UsageError, match=str(severity)):
            corrupt(crops(1), "fog", severity)
    with pytest.raises(UsageError, match="7×20"):
        corrupt(crops(1, (7, 20)), "fog", 1)
