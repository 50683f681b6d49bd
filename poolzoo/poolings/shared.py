"""What several families need: windows and what they hold, precision, constants that depend on sizes alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST_RMS = 1e-3  # what a vector that is normalized is divided by at least, as in LayerNorm with its eps of 1e-6
ABSENT = 1e30  # stands for ±∞ beyond the border where an infinity times a weight of zero would be NaN


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or float64 where it is that: sums of powers and exponentials need the range and the digits."""
    return x if x.dtype == torch.float64 else x.float()


def normalized(x: Tensor, dim: int) -> Tensor:
    """`x / ‖x‖₂` along `dim`; a vector whose root mean square is below 1e-3 is divided by what one of that has.

    With a floor that no vector reaches, such as torch's 1e-12, the gradient at zero is a million millions.
    """
    return F.normalize(x, dim=dim, eps=SMALLEST_RMS * math.sqrt(x.shape[dim]))


def count_windows(length: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """How many windows `nn.MaxPool2d` places along an axis of `length` positions."""
    span = length + 2 * padding - kernel_size
    count = -(-span // stride) + 1 if ceil_mode else span // stride + 1
    if ceil_mode and (count - 1) * stride >= length + padding:  # the last window must start inside input or left pad
        count -= 1
    return count


class Windows(nn.Module):
    """A local pooling: `float[N, C, H, W] → float[N, C, h, w]`, windows where `nn.MaxPool2d` has them.

    What lies beyond the border belongs to no window: a window there is a smaller one.

    Args:
        kernel_size, stride, padding, ceil_mode: As in `nn.MaxPool2d`, for both axes.
    """

    def __init__(self, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"

    def counts(self, x: Tensor) -> tuple[int, int]:
        """Rows h and columns w of the output."""
        rows, columns = (
            count_windows(length, self.kernel_size, self.stride, self.padding, self.ceil_mode) for length in x.shape[2:]
        )
        return rows, columns

    def overhang(self, x: Tensor) -> tuple[int, int]:
        """By how many rows and columns the last windows reach beyond the end of the feature map."""
        below, right = (
            max(0, (count - 1) * self.stride + self.kernel_size - self.padding - length)
            for count, length in zip(self.counts(x), x.shape[2:], strict=True)
        )
        return below, right

    def overhangs(self, x: Tensor) -> bool:
        """Whether some window is a smaller one."""
        return self.padding > 0 or any(self.overhang(x))

    def padded(self, x: Tensor, value: float) -> Tensor:
        """The map with a border of `value` that is just wide enough for every window to lie inside."""
        if not self.overhangs(x):
            return x
        below, right = self.overhang(x)
        return F.pad(x, (self.padding, right, self.padding, below), value=value)

    def gather(self, x: Tensor, value: float) -> Tensor:
        """What each window holds, row by row: `float[N, C, k², h, w]`, and `value` beyond the border."""
        if torch.compiler.is_exporting():
            return torch.stack(self.slices(x, value), 2)  # an order of magnitude faster than ONNX's form of unfold
        counts, x = self.counts(x), self.padded(x, value)
        return F.unfold(x, self.kernel_size, stride=self.stride).view(*x.shape[:2], -1, *counts)

    def slices(self, x: Tensor, value: float) -> list[Tensor]:
        """The same as k² maps `float[N, C, h, w]`, one for each place in the window."""
        (rows, columns), size, step = self.counts(x), self.kernel_size, self.stride
        x = self.padded(x, value)
        last_row, last_column = (rows - 1) * step + 1, (columns - 1) * step + 1
        return [x[:, :, i : i + last_row : step, j : j + last_column : step] for i in range(size) for j in range(size)]

    def members(self, x: Tensor) -> Tensor:
        """How many positions each window holds: `float[1, 1, h, w]`."""
        return self.gather(torch.ones_like(x[:1, :1]), 0.0).sum(2)

    def max(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, ceil_mode=self.ceil_mode)

    def mean(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, count_include_pad=False)

    def sum(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.padded(x, 0.0), self.kernel_size, self.stride) * self.kernel_size**2


def divisor_at_most(most: int, number: int) -> int:
    """The largest divisor of `number` that is not above `most`."""
    return next(d for d in range(min(most, number), 0, -1) if number % d == 0)


def constant(
    make: Callable[..., list[Any]], *sizes: int | str, like: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """`make(*sizes)` as a tensor on the device of `like`, made once for each device and dtype.

    While a graph is traced (export, compilation, fake tensors) it is made anew, because what is made there is no
    tensor to keep.
    """
    dtype = dtype or like.dtype
    if torch.compiler.is_compiling() or type(like) not in (Tensor, nn.Parameter):
        return torch.tensor(make(*sizes), dtype=dtype, device=like.device)
    return _kept(make, sizes, dtype, like.device)


@cache
def _kept(
    make: Callable[..., list[Any]], sizes: tuple[int | str, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # a tensor made in inference mode could never be used in training
        return torch.tensor(make(*sizes), dtype=dtype, device=device)
