"""The layers: one wavelet step along both axes, each as a product with a matrix that depends on the size alone.

The matrix holds the filter, the periodic continuation and the repeated last row of an odd map at once, so maps smaller
than the filter are no special case, and the graph of an export is two products.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import pywt
import torch
from torch import Tensor, nn

Taps = tuple[float, ...]

KEPT: Final = 256  # matrices that are kept; a network uses a few, a service that sees all sizes must not collect them


def filters(wavelet: str) -> tuple[Taps, Taps]:
    """The low-pass and high-pass filters of the analysis, in PyWavelets' order and with its signs.

    They are those of Daubechies, Ten Lectures on Wavelets, SIAM 1992; the low-pass one sums to √2.
    """
    found = pywt.Wavelet(wavelet)
    return tuple(map(float, found.dec_lo)), tuple(map(float, found.dec_hi))


def step_matrix(taps: Taps, length: int) -> list[list[float]]:
    """One step along an axis, `float[⌈length/2⌉, length]`: `y[k] = Σ_j taps[j] x[(T/2 + 2k − j) mod P]`.

    T is the number of taps, P the length made even: an odd axis has its last position twice. This is PyWavelets'
    `mode="periodization"`.
    """
    period = length + length % 2
    rows = [[0.0] * length for _ in range(period // 2)]
    for k, row in enumerate(rows):
        for j, tap in enumerate(taps):  # added up, for a short axis meets several taps
            row[min((len(taps) // 2 + 2 * k - j) % period, length - 1)] += tap
    return rows


def step(x: Tensor, *bank: Taps) -> Tensor:
    """One step along both axes with every filter of the bank.

    Args:
        x: A map, `float[N, C, H, W]`.
        bank: k filters.

    Returns:
        `float[N, C, k⌈H/2⌉, k⌈W/2⌉]`: k × k bands, block (i, j) with filter i along the height and filter j along the
        width. It is float64 for a float64 map and float32 for others, under autocast too.
    """
    x = x if x.dtype == torch.float64 else x.float()
    with torch.autocast(x.device.type, enabled=False):
        return _matrix(bank, x.shape[2], x) @ (x @ _matrix(bank, x.shape[3], x).T)


def _matrix(bank: tuple[Taps, ...], length: int, like: Tensor) -> Tensor:
    """The step matrices of the bank, one below the other, in the dtype and on the device of `like`.

    Made from Python's numbers, not kept as a buffer, so that `.double()` gives the filters in all their digits. While a
    graph is traced they are made anew, because what is made there is no tensor to keep.
    """
    if torch.compiler.is_compiling() or type(like) not in (Tensor, nn.Parameter):
        return _new_matrix(bank, length, like.dtype, like.device)
    return _kept_matrix(bank, length, like.dtype, like.device)


def _new_matrix(bank: tuple[Taps, ...], length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor([row for taps in bank for row in step_matrix(taps, length)], dtype=dtype, device=device)


@lru_cache(KEPT)
def _kept_matrix(bank: tuple[Taps, ...], length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a tensor made in inference mode could never be used in training
        return _new_matrix(bank, length, dtype, device)


class LowPass(nn.Module):
    """The low-pass band of one wavelet step: `y = (l ⊗ l * x)↓2`, `float[N, C, H, W] → float[N, C, h, w]`.

    h and w are what `nn.MaxPool2d(2, 2, 0, ceil_mode=ceil_mode)` gives. The map is continued periodically. Of an odd
    map the last row or column is repeated with ceil_mode, and left out without it, as `nn.MaxPool2d` does.
    Williams and Li, Wavelet Pooling for Convolutional Neural Networks, ICLR 2018. They take the second-level band of a
    two-step transform back by one step; that is this band.

    Args:
        wavelet: PyWavelets' name.
        kernel_size, stride, padding, ceil_mode: Geometry; kernel_size and stride must be 2, padding 0.

    Raises:
        ValueError: The geometry is another one.
    """

    def __init__(self, wavelet: str, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> None:
        if (kernel_size, stride, padding) != (2, 2, 0):
            raise ValueError(
                f"kernel_size={kernel_size}, stride={stride}, padding={padding} is no wavelet step, that is 2, 2, 0 "
                f"(--local-pool wavelet-{wavelet}:window=2,stride=2,padding=0)"
            )
        super().__init__()
        self.wavelet, self.ceil_mode = wavelet, ceil_mode
        self.low, _ = filters(wavelet)

    def extra_repr(self) -> str:
        return f"{self.wavelet}, ceil_mode={self.ceil_mode}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.ceil_mode:
            height, width = (length - length % 2 for length in x.shape[2:])
            if not height or not width:
                raise ValueError(f"a map of {x.shape[2]} × {x.shape[3]} holds no window of 2 × 2")
            x = x[:, :, :height, :width]
        return step(x, self.low).to(x.dtype)


class BandMeans(nn.Module):
    """The mean size of the four bands of one wavelet step, `float[N, C, H, W] → float[N, 4C]`. It is ours.

    `y = [mean LL, mean |LH|, mean |HL|, mean |HH|]`, each for all C channels. The first letter is the filter along the
    height, the second the one along the width: LH, low along the height and high along the width, answers to vertical
    edges. In PyWavelets' `dwt2` the four are cA, cV, cH and cD. The map is continued periodically, an odd one after its
    last row or column is repeated, so any H, W ≥ 1 will do. On a map with even sides mean LL is twice the mean.

    A mean of absolute values and no root of a mean of squares: its gradient is finite where a band is zero.

    Args:
        wavelet: PyWavelets' name.
    """

    def __init__(self, wavelet: str) -> None:
        super().__init__()
        self.wavelet = wavelet
        self.bank = filters(wavelet)

    def extra_repr(self) -> str:
        return self.wavelet

    def forward(self, x: Tensor) -> Tensor:
        (ll, lh), (hl, hh) = (half.chunk(2, 3) for half in step(x, *self.bank).chunk(2, 2))
        sizes = [ll.mean((2, 3)), *(band.abs().mean((2, 3)) for band in (lh, hl, hh))]
        return torch.cat(sizes, 1).to(x.dtype)
