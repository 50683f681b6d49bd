"""Means, maxima and minima, and their mixtures, over windows and over the whole feature map.

Every global layer maps `float[N, C, H, W] → float[N, D]`; every local one has the output shape of `nn.MaxPool2d`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.model.geometry import MAX_SIDE, Geometry
from poolzoo.poolings.local import LocalPooling, local_build
from poolzoo.poolings.shared import GlobalPooling, mixture

Sharing = Literal["layer", "channel"]


def map_max(x: Tensor) -> Tensor:
    """`float[N, C, H, W] → float[N, C]`. With its index the gradient is cheaper, without it the value."""
    return x.flatten(2).max(2).values if _needs_indices(x) else x.amax((2, 3))


def map_min(x: Tensor) -> Tensor:
    """`float[N, C, H, W] → float[N, C]`, as `map_max`."""
    return x.flatten(2).min(2).values if _needs_indices(x) else x.amin((2, 3))


def _needs_indices(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled() and x.is_contiguous() and not torch.compiler.is_exporting()


class GlobalAvg(GlobalPooling):
    """Mean over the feature map: `y = mean x`, `float[N, C, H, W] → float[N, C]`.

    Lin, Chen and Yan, Network in Network, ICLR 2014, arXiv:1312.4400.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class GlobalMax(GlobalPooling):
    """Maximum over the feature map: `y = max x`, `float[N, C, H, W] → float[N, C]`.

    Oquab, Bottou, Laptev and Sivic, Is object localization for free?, CVPR 2015.
    """

    def forward(self, x: Tensor) -> Tensor:
        return map_max(x)


class GlobalMin(GlobalPooling):
    """Minimum over the feature map: `y = min x`, `float[N, C, H, W] → float[N, C]`. No canonical paper."""

    def forward(self, x: Tensor) -> Tensor:
        return map_min(x)


class GlobalAvgMax(GlobalPooling):
    """Halfway between mean and maximum: `y = (mean x + max x) / 2`, `float[N, C, H, W] → float[N, C]`.

    The fixed case of "mixed" pooling in Lee, Gallagher and Tu, AISTATS 2016, arXiv:1509.08985.
    """

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean((2, 3)) + map_max(x)) / 2


class GlobalCatAvgMax(GlobalPooling):
    """Mean and maximum, in this order: `y = [mean x, max x]`, `float[N, C, H, W] → float[N, 2C]`.

    No canonical paper; timm has this order, fastai's AdaptiveConcatPool2d the reverse.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.mean((2, 3)), map_max(x)), 1)


class LocalMin(nn.Module):
    """Minimum over each window: `y = −max(−x)`; padding never wins, as in `nn.MaxPool2d`. No canonical paper."""

    def __init__(self, channels: int, geometry: Geometry) -> None:
        super().__init__()
        self.max = _max_pool(geometry)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.max(-x)
        return -y


local_min = local_build(LocalMin)


class LocalAvgMax(LocalPooling):
    """Halfway between mean and maximum of each window: `y = (mean x + max x) / 2`.

    The fixed case of "mixed" pooling in Lee, Gallagher and Tu, AISTATS 2016, arXiv:1509.08985.
    """

    def forward(self, x: Tensor) -> Tensor:
        return (self.avg_pool(x) + self.max_pool(x)) / 2


local_avg_max = local_build(LocalAvgMax)


@local_build
def local_avg(channels: int, geometry: Geometry, *, count_include_pad: bool = True) -> nn.Module:
    """torch's own layer, whose default counts the padding as zeros.

    Without padding nothing is counted: the means are the same, and runtimes disagree on what partial windows count.
    """
    counted = count_include_pad and geometry.padding > 0
    return nn.AvgPool2d(
        geometry.kernel_size, geometry.stride, geometry.padding, geometry.ceil_mode, count_include_pad=counted
    )


@local_build
def local_max(channels: int, geometry: Geometry) -> nn.Module:
    """torch's own layer."""
    return _max_pool(geometry)


def _max_pool(geometry: Geometry) -> nn.MaxPool2d:
    return nn.MaxPool2d(geometry.kernel_size, geometry.stride, geometry.padding, ceil_mode=geometry.ceil_mode)


# --- Mixtures: how much of the maximum is learned -------------------------------------------------------------------


class GlobalMixed(nn.Module):
    """A learned mixture: `y = a max x + (1 − a) mean x`, `a = σ(w)`, `float[N, C, H, W] → float[N, C]`.

    Lee, Gallagher and Tu, Generalizing Pooling Functions in CNNs, AISTATS 2016, arXiv:1509.08985. They leave a
    unbounded; the sigmoid keeps it a mixture.

    Args:
        share: One w for the layer, or one for each channel. They start at 0, where a = 1/2.
    """

    def __init__(self, channels: int, *, share: Sharing = "layer") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels if share == "channel" else 1))

    def forward(self, x: Tensor) -> Tensor:
        return mixture(x.mean((2, 3)), map_max(x), self.weight.sigmoid().to(x.dtype))


class LocalMixed(LocalPooling):
    """A learned mixture for each window: `y = a max x + (1 − a) mean x`, `a = σ(w)`. As the global one."""

    def __init__(self, channels: int, geometry: Geometry, *, share: Sharing = "layer") -> None:
        super().__init__(channels, geometry)
        self.weight = nn.Parameter(torch.zeros(channels if share == "channel" else 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return mixture(self.avg_pool(x), self.max_pool(x), self.weight.sigmoid().to(x.dtype))


local_mixed = local_build(LocalMixed)


class GlobalGated(nn.Module):
    """A mixture that the feature map itself decides: `y = a max x + (1 − a) mean x`, `a = σ(w · x)`.

    `float[N, C, H, W] → float[N, C]`. Lee, Gallagher and Tu, Generalizing Pooling Functions in CNNs, AISTATS 2016,
    arXiv:1509.08985, for windows; here the window is the feature map. w has the size of the feature map
    that the layer is made for. For other sizes it is interpolated, and its sum is kept.

    Args:
        map_size: (H, W) that the layer is made for; without it, w is a single number.
        share: One w for the layer, or one for each channel. They start at 0, where a = 1/2.
    """

    def __init__(self, channels: int, *, share: Sharing = "channel", map_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels if share == "channel" else 1, *(map_size or (1, 1))))

    def forward(self, x: Tensor) -> Tensor:
        weight, size = self.weight.to(x.dtype), x.shape[2:]
        if weight.shape[2:] != size:
            ratio = weight.shape[2] * weight.shape[3] / (size[0] * size[1])
            weight = F.interpolate(weight, size=size, mode="bilinear", align_corners=False) * ratio
        gate = _weighted_sum(x, weight).sigmoid()
        return mixture(x.mean((2, 3)), map_max(x), gate)


def _weighted_sum(x: Tensor, weight: Tensor) -> Tensor:
    """`Σ w x` over the feature map, `float[N, C, H, W] → float[N, C]`."""
    if torch.compiler.is_exporting():
        return (x * weight).sum((2, 3))
    # Channels last, as in memory: torch adds up the gradients of w over the images in a tenth of the time.
    x, weight = (each.flatten(2).transpose(1, 2) for each in (x, weight))
    return (x * weight).sum(1)


class LocalGated(LocalPooling):
    """A mixture that each window decides: `y = a max x + (1 − a) mean x`, `a = σ(w · x)`, w as large as the window.

    Lee, Gallagher and Tu, Generalizing Pooling Functions in CNNs, AISTATS 2016, arXiv:1509.08985.

    Args:
        share: One w for the layer, or one for each channel. They start at 0, where a = 1/2.
    """

    def __init__(self, channels: int, geometry: Geometry, *, share: Sharing = "channel") -> None:
        super().__init__(channels, geometry)
        k = geometry.kernel_size
        self.weight = nn.Parameter(torch.zeros(channels if share == "channel" else 1, 1, k, k))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype).expand(x.shape[1], -1, -1, -1)
        gate = F.conv2d(self.padded(x, 0.0), weight, stride=self.stride, groups=x.shape[1]).sigmoid()
        return mixture(self.avg_pool(x), self.max_pool(x), gate.to(x.dtype))


local_gated = local_build(LocalGated)


class LocalVariable(LocalPooling):
    """Windows whose size depends on where they lie: `border` in the outermost ring of outputs, `inside` elsewhere.

    `y[i, j] = max or mean of x over rows is − p to is − p + k(i, j), columns likewise`, k = `border` where i or j is
    the first or the last, else `inside`; padding belongs to no window. No paper has
    this rule.

    Args:
        geometry: Decides the output size, and where each window starts.
        border, inside: Sides of the windows.
        mode: Maximum or mean over each window.
    """

    def __init__(
        self,
        channels: int,
        geometry: Geometry,
        *,
        border: int = 2,
        inside: int = 3,
        mode: Literal["max", "avg"] = "max",
    ) -> None:
        if min(border, inside) <= geometry.padding:
            raise ValueError(f"border={border} and inside={inside} must be above the padding, {geometry.padding}")
        if max(border, inside) > MAX_SIDE:
            raise ValueError(f"border={border} and inside={inside} must be at most {MAX_SIDE}")
        super().__init__(channels, geometry)
        self.border = border
        self.inside = inside
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.output_size(x)
        ring = self._pool(x, self.border)
        if min(rows, columns) < 3:
            return ring
        inner = self._pool(x, self.inside)[:, :, 1:-1, 1:-1]
        inner = torch.cat((ring[:, :, 1:-1, :1], inner, ring[:, :, 1:-1, -1:]), 3)
        return torch.cat((ring[:, :, :1], inner, ring[:, :, -1:]), 2)

    def _pool(self, x: Tensor, size: int) -> Tensor:
        """The pooling with windows of one size, at the same starts."""
        rows, columns = self.output_size(x)
        for ceil_mode in (False, True):  # runtimes disagree on how many windows ceil_mode adds to padded ones
            windows = Geometry(size, self.stride, self.padding, ceil_mode)
            enough = windows.output_size(x.shape[2]) >= rows and windows.output_size(x.shape[3]) >= columns
            if enough and 2 * self.padding <= size:  # the layer's own padding, without a padded copy
                pooled = LocalPooling(x.shape[1], windows)
                return (pooled.max_pool(x) if self.mode == "max" else pooled.avg_pool(x))[:, :, :rows, :columns]
        below, right = (
            (count - 1) * self.stride + size - self.padding - length
            for count, length in zip((rows, columns), x.shape[2:], strict=True)
        )
        edges = (self.padding, right, self.padding, below)  # negative ones crop what no window reaches
        if self.mode == "max":
            return F.max_pool2d(F.pad(x, edges, value=-torch.inf), size, self.stride)
        valid = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), edges), size, self.stride)
        return F.avg_pool2d(F.pad(x, edges), size, self.stride) / valid


local_variable = local_build(LocalVariable)
