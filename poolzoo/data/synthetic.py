"""Synthetic images: extreme ones that a data set may lack, and colored noise where there is none. Needs numpy alone."""

from __future__ import annotations

import numpy as np

from poolzoo.data.sizes import Size


def synthetic_images(size: Size, count: int, seed: int = 0) -> np.ndarray:
    """Colored noise from a fixed seed, `uint8[count, H, W, 3]`, from white noise to very smooth images.

    The amplitude of a spatial frequency f falls as f^-s, with s from 0 to 2; natural images lie near 1.

    Args:
        size: Height and width.
        count: How many images.
        seed: The seed.
    """
    height, width = size
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])[..., None]
    frequency[0, 0] = 1.0  # the mean; it is chosen below
    images = []
    for slope in np.linspace(0, 2, count):
        white = np.fft.fft2(random.standard_normal((height, width, 3)), axes=(0, 1))
        noise = np.fft.ifft2(white * frequency**-slope, axes=(0, 1)).real
        noise = (noise - noise.mean()) / noise.std()
        pixels = random.uniform(64, 192, 3) + random.uniform(16, 64) * noise
        images.append(np.rint(pixels.clip(0, 255)).astype(np.uint8))
    return np.stack(images)


def edge_cases(size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Synthetic edge cases by name, `uint8[H, W, 3]` each: extreme images that a data set may lack."""
    height, width = size
    board = np.indices((height, width)).sum(0) % 2 * 255
    flat = np.zeros((height, width, 3), np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    red = flat.copy()
    red[..., 0] = 255
    dot = flat.copy()
    dot[height // 2, width // 2] = 255
    return {
        "black": flat,
        "white": flat + np.uint8(255),
        "gray": flat + np.uint8(128),
        "checkerboard": np.repeat(board[..., None], 3, -1).astype(np.uint8),
        "red": red,
        "one bright pixel": dot,
        "noise": noise,
    }
