"""Anti-aliased downsampling: a binomial low-pass filter before positions are dropped.

Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019, arXiv:1904.11486. Every layer has the output
shape of `nn.MaxPool2d(kernel_size, stride, padding, ceil_mode)`: output i is centred where that window i is centred
(half a pixel before, for even windows), so that a swap moves nothing.
"""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def windows(length: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """How many windows `nn.MaxPool2d` places along an axis of `length` positions."""
    span = length + 2 * padding - kernel_size
    count = -(-span // stride) + 1 if ceil_mode else span // stride + 1
    if ceil_mode and (count - 1) * stride >= length + padding:  # the last window must start inside input or left pad
        count -= 1
    return count


def binomial(channels: int, taps: int) -> Tensor:
    """A separable binomial filter for each channel, `float[channels, 1, taps, taps]`, that sums to one."""
    row = torch.tensor([float(comb(taps - 1, k)) for k in range(taps)])
    return (torch.outer(row, row) / row.sum() ** 2).expand(channels, 1, taps, taps).clone()


def filtered(x: Tensor, weight: Tensor, stride: int, first: int, counts: list[int]) -> Tensor:
    """A depthwise filter read at `counts` positions an axis: first, first + stride, … of the mirrored map.

    Reflect padding, as in the paper; replicate padding on maps too small to reflect.
    """
    half = weight.shape[-1] // 2
    before = half - first
    after = [first + (count - 1) * stride + half - (n - 1) for count, n in zip(counts, x.shape[2:], strict=True)]
    x = x[:, :, max(0, -before) :, max(0, -before) :]
    margins = [max(0, before), max(0, after[1]), max(0, before), max(0, after[0])]
    small = max(margins[:2]) >= x.shape[3] or max(margins[2:]) >= x.shape[2]
    x = F.pad(x, margins, mode="replicate" if small else "reflect")
    height, width = (n + min(0, end) for n, end in zip(x.shape[2:], after, strict=True))
    return F.conv2d(x[:, :, :height, :width], weight.to(x.dtype), stride=stride, groups=x.shape[1])


class Blur(nn.Module):
    """Binomial filter at every stride-th position: `y = (b ⊗ b * x)↓stride`, `b = [1, 2, 1] / 4` for three taps.

    Args:
        channels: Channels C of the input.
        kernel_size, stride, padding, ceil_mode: Geometry of the pooling layer whose place this takes.
        taps: Length of the filter, odd.
    """

    filter: Tensor

    def __init__(
        self, channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool, taps: int = 3
    ) -> None:
        super().__init__()
        self.geometry = kernel_size, stride, padding, ceil_mode
        self.register_buffer("filter", binomial(channels, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel_size, stride, padding, _ = self.geometry
        counts = [windows(length, *self.geometry) for length in x.shape[2:]]
        return filtered(x, self.filter, stride, (kernel_size - 1) // 2 - padding, counts)


class MaxBlur(Blur):
    """Dense maximum, then blur and subsampling: `y = (b ⊗ b * max of x in the window, at stride 1)↓stride`."""

    def forward(self, x: Tensor) -> Tensor:
        kernel_size, stride, padding, _ = self.geometry
        counts = [windows(length, *self.geometry) for length in x.shape[2:]]
        ends = [(count - 1) * stride + kernel_size - padding for count in counts]  # where the last window ends
        over = [max(0, end - padding - length) for end, length in zip(ends, x.shape[2:], strict=True)]
        if any(over):  # windows that reach beyond the border, with ceil_mode; what they find there never wins
            x = F.pad(x, (0, over[1], 0, over[0]), value=-torch.inf)
        return filtered(F.max_pool2d(x, kernel_size, 1, padding), self.filter, stride, 0, counts)


def _checked(taps: int) -> int:
    if taps < 1 or taps % 2 == 0:
        raise ValueError(f"taps={taps} must be odd and positive")
    return taps


def local_blur(
    channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool, *, taps: int = 3
) -> nn.Module:
    return Blur(channels, kernel_size, stride, padding, ceil_mode, _checked(taps))


def local_maxblur(
    channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool, *, taps: int = 3
) -> nn.Module:
    return MaxBlur(channels, kernel_size, stride, padding, ceil_mode, _checked(taps))
