"""Pooling over regions of the feature map: grids, pyramids, overlapping squares, strips."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.model.geometry import MAX_SIDE, Geometry
from poolzoo.poolings.local import LocalPooling, local_build
from poolzoo.poolings.shared import GlobalPooling, at_least_float32, normalized

Mode = Literal["avg", "max"]
OVERLAP = 0.4  # of neighboring regions of R-MAC, as in the paper


def cells(length: int, count: int) -> list[tuple[int, int]]:
    """Begin and end of `count` cells along an axis: ⌊i·length/count⌋ to ⌈(i+1)·length/count⌉."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def adaptive_pool(x: Tensor, size: tuple[int, int], mode: Mode) -> Tensor:
    """Mean or maximum over a grid of cells: `float[N, C, H, W] → float[N, C, *size]`, as `nn.AdaptiveAvgPool2d`."""
    if mode == "avg":
        return F.adaptive_avg_pool2d(x, size)
    if not torch.compiler.is_exporting():
        return F.adaptive_max_pool2d(x, size)
    for dim in (2, 3):  # ONNX has no such operator where the size does not divide the feature map
        x = _max_along(x, dim, size[dim - 2])
    return x


def _max_along(x: Tensor, dim: int, count: int) -> Tensor:
    """The maximum over `count` cells along one axis: cells repeated to equal lengths, then a plain max pool."""
    bounds = cells(x.shape[dim], count)
    longest = max(end - begin for begin, end in bounds)
    index = [min(begin + i, end - 1) for begin, end in bounds for i in range(longest)]
    gathered = x.index_select(dim, torch.tensor(index, device=x.device))
    return F.max_pool2d(gathered, (longest, 1) if dim == 2 else (1, longest))


class GlobalAdaptive(nn.Module):
    """Mean or maximum over a grid of `size × size` cells, flattened: `float[N, C, H, W] → float[N, C · size²]`.

    Cell (i, j) covers rows ⌊i·H/size⌋ to ⌈(i+1)·H/size⌉ (exclusive) and the columns alike, as in
    `nn.AdaptiveAvgPool2d`; cells overlap where the size does not divide the feature map, and repeat where it
    is smaller.
    """

    def __init__(self, channels: int, *, size: int = 2, mode: Mode = "avg") -> None:
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        super().__init__()
        self.size = size
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_pool(x, (self.size, self.size), self.mode).flatten(1)


class LocalAdaptive(LocalPooling):
    """Mean or maximum over a grid of cells that cover the feature map, as many as the geometry has windows."""

    def __init__(self, channels: int, geometry: Geometry, *, mode: Mode = "avg") -> None:
        super().__init__(channels, geometry)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_pool(x, self.output_size(x), self.mode)


local_adaptive = local_build(LocalAdaptive)


class SPP(nn.Module):
    """Spatial pyramid: adaptive pooling to several grids, one after the other: `float[N, C, H, W] → float[N, C Σ n²]`.

    He, Zhang, Ren and Sun, Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition, ECCV 2014,
    arXiv:1406.4729.

    Args:
        levels: Sides n of the grids, such as 1-2-4.
        mode: Mean or maximum over each cell.
    """

    def __init__(self, channels: int, *, levels: str = "1-2-4", mode: Mode = "max") -> None:
        super().__init__()
        sides = levels.split("-")
        if not all(side.isdecimal() and len(side) < 9 and 0 < int(side) <= MAX_SIDE for side in sides):
            raise ValueError(f"levels={levels} must be whole numbers from 1 to {MAX_SIDE}, such as 1-2-4")
        self.sides = [int(side) for side in sides]
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "max" and not torch.is_grad_enabled() and not torch.compiler.is_exporting():
            x = x.contiguous(memory_format=torch.channels_last)  # the same maxima in a sixth of the time
        return torch.cat([adaptive_pool(x, (side, side), self.mode).flatten(1) for side in self.sides], 1)


class RMAC(nn.Module):
    """Regional maxima, each normalized, summed: `y = Σ_R m_R / ‖m_R‖₂`, `m_R = max over region R`.

    The regions are the whole feature map and, at scale l = 1 … levels, squares of side ⌊2 min(H, W) / (l + 1)⌋ that
    overlap by about 40 % along the longer axis. `float[N, C, H, W] → float[N, C]`.
    Tolias, Sicre and Jégou, Particular object retrieval with integral max-pooling of CNN activations, ICLR 2016,
    arXiv:1511.05879. The authors' code counts the whole map as one region more, and so do we. ‖m_R‖₂ / √C counts as
    1e-3 at least, which bounds the gradient of a feature map of zeros.

    Args:
        levels: Scales.
    """

    def __init__(self, channels: int, *, levels: int = 3) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels={levels} must be at least 1")
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        if torch.compiler.is_exporting():
            maxima = torch.cat([wide.amax((2, 3), keepdim=True).flatten(2), *self._maxima(wide)], 2)
            return normalized(maxima, 1).sum(2).to(x.dtype)
        if torch.is_grad_enabled():
            regions = [region.amax((2, 3)) for region in self._regions(wide)]
        else:  # the same maxima in a fifth of the time
            last = wide.contiguous(memory_format=torch.channels_last)
            maxima = torch.cat([last.amax((2, 3), keepdim=True).flatten(2), *self._maxima(last)], 2)
            regions = list(maxima.permute(2, 0, 1).contiguous())
        return cast(Tensor, sum(normalized(one, 1) for one in regions)).to(x.dtype)

    def _regions(self, x: Tensor) -> list[Tensor]:
        squares = rmac_squares(x.shape[2], x.shape[3], self.levels)
        return [x, *(x[:, :, top : top + side, left : left + side] for top, left, side in squares)]

    def _maxima(self, x: Tensor) -> Iterator[Tensor]:
        """The same maxima with one max pooling a level, whose graph is a fifth as long: `float[N, C, squares]` each."""
        for side, tops, lefts in rmac_grids(x.shape[2], x.shape[3], self.levels):
            strides = [_step(starts) for starts in (tops, lefts)]
            pooled = F.max_pool2d(x, side, [stride or 1 for stride in strides])
            for dim, (stride, starts) in enumerate(zip(strides, (tops, lefts), strict=True), start=2):
                if stride is None:
                    pooled = pooled.index_select(dim, torch.tensor(starts, device=x.device))
            yield pooled.flatten(2)


def rmac_squares(height: int, width: int, levels: int) -> list[tuple[int, int, int]]:
    """Top, left and side of the squares of R-MAC on a feature map of height × width."""
    grids = rmac_grids(height, width, levels)
    return [(top, left, side) for side, tops, lefts in grids for top in tops for left in lefts]


def rmac_grids(height: int, width: int, levels: int) -> list[tuple[int, list[int], list[int]]]:
    """Side, tops and lefts of the squares of each level."""
    short, long = min(height, width), max(height, width)
    # How many more squares lie along the longer axis: as many as bring the overlap nearest to 40 %.
    more = 0
    if long > short:
        more = min(range(1, 7), key=lambda n: abs((short - (long - short) / n) / short - OVERLAP))
    grids = []
    for level in range(1, min(levels, 2 * short - 1) + 1):  # later ones have a side of zero
        side = 2 * short // (level + 1)
        tops = _starts(height, side, level + (more if height > width else 0))
        lefts = _starts(width, side, level + (more if width > height else 0))
        grids.append((side, tops, lefts))
    return grids


def _starts(length: int, side: int, count: int) -> list[int]:
    """Where `count` squares begin, spread evenly."""
    return [0] if count == 1 else [i * (length - side) // (count - 1) for i in range(count)]


def _step(starts: list[int]) -> int | None:
    """The step between evenly spaced starts that cover the axis as a pooling's windows do, None between others."""
    steps = {after - before for before, after in pairwise(starts)}
    return None if len(steps) > 1 or 0 in steps else steps.pop() if steps else 1


class GlobalStrip(GlobalPooling):
    """The strongest row and column: `y = [max_i mean_j x, max_j mean_i x]`, `float[N, C, H, W] → float[N, 2C]`.

    Means along strips from Hou, Zhang, Cheng and Feng, Strip Pooling: Rethinking Spatial Pooling for Scene Parsing,
    CVPR 2020, arXiv:2003.13328; that the strips are reduced by their maximum, to a width that does not depend on the
    map, is ours.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return torch.cat((x.mean(3).amax(2), x.mean(2).amax(2)), 1)
        strips = ((1, x.shape[3]), (x.shape[2], 1))  # whose pooling takes channels last as they are
        return torch.cat([F.avg_pool2d(x, strip).amax((2, 3)) for strip in strips], 1)


class LocalStrip(LocalPooling):
    """Mean of each window of the feature map gated by its strips: `y = mean x σ(W relu(f(rows) + g(columns)))`.

    Hou, Zhang, Cheng and Feng, Strip Pooling: Rethinking Spatial Pooling for Scene Parsing, CVPR 2020,
    arXiv:2003.13328: rows and columns are means along strips, f and g convolutions of length 3 along them, W a 1 × 1
    convolution. Here f and g are depthwise and without batch norm, and the gated map is averaged over the windows,
    because the paper's block does not downsample.
    """

    def __init__(self, channels: int, geometry: Geometry) -> None:
        super().__init__(channels, geometry)
        self.rows = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), groups=channels, bias=False)
        self.columns = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), groups=channels, bias=False)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.rows(x.mean(3, keepdim=True)), self.columns(x.mean(2, keepdim=True))
        if torch.compiler.is_exporting():
            # OpenCV merges a sum into the convolution right before it, and refuses terms of two shapes. The bounds
            # keep the two apart there; ONNX Runtime merges them into the convolution.
            largest = torch.finfo(rows.dtype).max
            rows, columns = rows.clamp(-largest, largest), columns.clamp(-largest, largest)
        strips = rows + columns
        return self.avg_pool(x * self.mix(strips.relu()).sigmoid()).to(x.dtype)


local_strip = local_build(LocalStrip)
