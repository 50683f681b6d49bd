"""Means, maxima and minima over windows and over the whole map.

Every global layer maps `float[N, C, H, W] → float[N, D]`; every local one has the output shape of `nn.MaxPool2d`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GlobalAvg(nn.Module):
    """Mean over the map: `y = mean x`, `float[N, C, H, W] → float[N, C]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class GlobalMax(nn.Module):
    """Maximum over the map: `y = max x`, `float[N, C, H, W] → float[N, C]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


class GlobalMin(nn.Module):
    """Minimum over the map: `y = min x`, `float[N, C, H, W] → float[N, C]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amin((2, 3))


class GlobalAvgMax(nn.Module):
    """Halfway between mean and maximum: `y = (mean x + max x) / 2`, `float[N, C, H, W] → float[N, C]`."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean((2, 3)) + x.amax((2, 3))) / 2


class GlobalCatAvgMax(nn.Module):
    """Mean and maximum, in this order: `y = [mean x, max x]`, `float[N, C, H, W] → float[N, 2C]`."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1)


class GlobalAdaptive(nn.Module):
    """Mean or maximum over a grid of `size × size` cells, flattened: `float[N, C, H, W] → float[N, C · size²]`.

    Cell (i, j) covers rows ⌊i·H/size⌋ to ⌈(i+1)·H/size⌉ (exclusive) and the columns alike, as in
    `nn.AdaptiveAvgPool2d`; cells overlap where the size does not divide the map, and repeat where the map is smaller.
    """

    def __init__(self, size: int, mode: Literal["avg", "max"]) -> None:
        super().__init__()
        self.size, self.mode = size, mode

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # adaptive_max_pool2d has no ONNX form where the size does not divide the map
            return torch.cat([self._reduce(cell).unsqueeze(-1) for cell in self._cells(x)], -1).flatten(1)
        pool = F.adaptive_avg_pool2d if self.mode == "avg" else F.adaptive_max_pool2d
        return pool(x, self.size).flatten(1)

    def _cells(self, x: Tensor) -> list[Tensor]:
        rows, columns = (self._bounds(length) for length in x.shape[2:])
        return [x[:, :, top:bottom, left:right] for top, bottom in rows for left, right in columns]

    def _bounds(self, length: int) -> list[tuple[int, int]]:
        return [(i * length // self.size, -(-(i + 1) * length // self.size)) for i in range(self.size)]

    def _reduce(self, cell: Tensor) -> Tensor:
        return cell.mean((2, 3)) if self.mode == "avg" else cell.amax((2, 3))


class LocalMin(nn.Module):
    """Minimum over each window: `y = −max(−x)`; padding never wins, as in `nn.MaxPool2d`."""

    def __init__(self, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> None:
        super().__init__()
        self.max = nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        return -self.max(-x)


def global_avg(channels: int) -> nn.Module:
    return GlobalAvg()


def global_max(channels: int) -> nn.Module:
    return GlobalMax()


def global_min(channels: int) -> nn.Module:
    return GlobalMin()


def global_avgmax(channels: int) -> nn.Module:
    return GlobalAvgMax()


def global_catavgmax(channels: int) -> nn.Module:
    return GlobalCatAvgMax()


def global_adaptive(channels: int, *, size: int = 2, mode: Literal["avg", "max"] = "avg") -> nn.Module:
    if size < 1:
        raise ValueError(f"size={size} must be at least 1")
    return GlobalAdaptive(size, mode)


def local_avg(
    channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool, *, count_include_pad: bool = True
) -> nn.Module:
    return nn.AvgPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)


def local_max(channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> nn.Module:
    return nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode)


def local_min(channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> nn.Module:
    return LocalMin(kernel_size, stride, padding, ceil_mode)
