"""Pooling in the frequency domain, as products with fixed matrices, which export and run faster than transforms."""

from __future__ import annotations

import cmath
import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from poolzoo.model.geometry import Geometry
from poolzoo.poolings.borders import wrapped
from poolzoo.poolings.local import LocalPooling, local_build
from poolzoo.poolings.shared import at_least_float32, constant

_ROOT3 = math.sqrt(3)
# Low-pass filters of orthogonal wavelets, from Daubechies, Ten Lectures on Wavelets, SIAM 1992; each sums to √2.
LOW_PASS = {
    "haar": [1 / math.sqrt(2)] * 2,
    "db2": [t / (4 * math.sqrt(2)) for t in (1 + _ROOT3, 3 + _ROOT3, 3 - _ROOT3, 1 - _ROOT3)],
}


class Spectral(LocalPooling):
    """Crop to the low frequencies: `y = Re ifft(crop(fft(x)))`, `float[N, C, H, W] → float[N, C, h, w]`.

    The crop keeps the frequencies −⌊h/2⌋ … ⌈h/2⌉ − 1 of the rows and of the columns alike, scaled so that means stay
    means. Rippel, Snoek and Adams, Spectral Representations for Convolutional Neural Networks, NIPS 2015,
    arXiv:1506.03767. Taking the real part is how a cropped spectrum that is not symmetric is made so.

    Args:
        geometry: Decides only the output size; the stride must be above 1.
    """

    def __init__(self, channels: int, geometry: Geometry) -> None:
        if geometry.stride < 2:
            raise ValueError(f"stride={geometry.stride} would keep all frequencies; it must be at least 2")
        super().__init__(channels, geometry)

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        rows, columns = self.output_size(x)
        with torch.autocast(x.device.type, enabled=False):
            real, imaginary = constant(crop_matrix, columns, x.shape[3], like=wide)
            down_real, down_imaginary = constant(crop_matrix, rows, x.shape[2], like=wide)
            y: Tensor = down_real @ (wide @ real.T)
            if rows % 2 == 0 and columns % 2 == 0:  # with an odd side, the imaginary part of its matrix is 0
                y = y - down_imaginary @ (wide @ imaginary.T)
        return y.to(x.dtype)


spectral = local_build(Spectral)


def crop_matrix(kept: int, length: int) -> list[list[list[float]]]:
    """Real and imaginary part of transform, crop and inverse transform along an axis: `float[2, kept, length]`."""
    frequencies = range(-(kept // 2), kept - kept // 2)
    matrix = [
        [
            sum(cmath.exp(2j * math.pi * f * (i / kept - j / length)) for f in frequencies) / length
            for j in range(length)
        ]
        for i in range(kept)
    ]
    return [[[entry.real for entry in row] for row in matrix], [[entry.imag for entry in row] for row in matrix]]


class Wavelet(LocalPooling):
    """The low-pass band of one wavelet step: `y = (l ⊗ l * x)↓2`; with `haar` twice the mean over 2 × 2 windows.

    The border is periodic. A feature map with an odd side first repeats its last row or column.
    Williams and Li, Wavelet Pooling for Convolutional Neural Networks, ICLR 2018. They take the second-level band of a
    two-step transform back by one step; that is this band.

    Args:
        geometry: kernel_size and stride must be 2, padding 0.
        wavelet: Which one.
    """

    def __init__(
        self,
        channels: int,
        geometry: Geometry,
        *,
        wavelet: Literal["haar", "db2"] = "haar",
    ) -> None:
        if (geometry.kernel_size, geometry.stride, geometry.padding) != (2, 2, 0):
            raise ValueError(
                f"kernel_size={geometry.kernel_size}, stride={geometry.stride}, padding={geometry.padding} "
                "is no wavelet step, that is 2, 2, 0 "
                "(--local-pool wavelet:window=2,stride=2,padding=0)"
            )
        super().__init__(channels, geometry)
        self.wavelet = wavelet

    def forward(self, x: Tensor) -> Tensor:
        below, right = self.end_padding(x)
        if below or right:  # with ceil_mode, of a feature map with an odd side
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        if self.wavelet == "haar":
            return 2 * F.avg_pool2d(x, 2)  # the same, without a convolution
        rows, columns = self.output_size(x)
        filter = constant(low_pass_filter, self.wavelet, like=x)
        before = len(filter) // 2 - 1
        x = wrapped(x[:, :, : 2 * rows, : 2 * columns], before)
        return F.conv2d(x, filter.expand(x.shape[1], 1, -1, -1), stride=2, groups=x.shape[1])


wavelet = local_build(Wavelet)


def low_pass_filter(wavelet: str) -> list[list[float]]:
    """The two-dimensional low-pass filter, the product of two one-dimensional ones: `float[taps, taps]`."""
    return [[a * b for b in LOW_PASS[wavelet]] for a in LOW_PASS[wavelet]]
