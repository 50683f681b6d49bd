"""Poolings that draw at random in training. In eval mode each is deterministic, which is the form that is exported."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poolzoo.model.geometry import Geometry
from poolzoo.poolings.local import LocalPooling, local_build
from poolzoo.poolings.shared import GlobalPooling, at_least_float32

FLOOR = 1e-12  # under a sum of activations that is divided by; far below any activation that matters


class GlobalStochastic(GlobalPooling):
    """One location, drawn in proportion to its activation: `float[N, C, H, W] → float[N, C]`.

    Training: `y = a_i`, i drawn with `P(i) = a_i / Σ a`. Eval: the expectation `y = Σ a² / Σ a`. `a = max(x, 0)`, and
    y = 0 where all of it is 0.
    Zeiler and Fergus, Stochastic Pooling for Regularization of Deep Convolutional Neural Networks, ICLR 2013,
    arXiv:1301.3557, for windows; here the window is the feature map. They have no negative input.
    """

    def forward(self, x: Tensor) -> Tensor:
        active = at_least_float32(x).relu()
        if self.training:
            return _drawn(active.flatten(2)).to(x.dtype)
        return (active.square().mean((2, 3)) / active.mean((2, 3)).clamp(min=FLOOR)).to(x.dtype)


class LocalStochastic(LocalPooling):
    """One location of each window, drawn in proportion to its activation. As the global one."""

    def forward(self, x: Tensor) -> Tensor:
        active = at_least_float32(x).relu()
        if self.training:
            return _drawn(self.patches(active, 0.0)).to(x.dtype)
        return (self.avg_pool(active.square()) / self.avg_pool(active).clamp(min=FLOOR)).to(x.dtype)


local_stochastic = local_build(LocalStochastic)


def _drawn(active: Tensor) -> Tensor:
    """One entry along dimension 2, drawn in proportion to its size: where the running sum passes a random height."""
    running = active.detach().cumsum(2)
    height = torch.rand_like(running[:, :, :1]) * running[:, :, -1:]
    passed = (height - running).ge_(0).sum(2, keepdim=True)  # as numbers: torch takes twice as long for booleans
    return active.gather(2, passed.long().clamp(max=active.shape[2] - 1)).squeeze(2)


class Fractional(LocalPooling):
    """Maximum over regions whose steps vary, so that any size of output fits: rows `⌊(i + u) α⌋ − ⌊u α⌋` onwards.

    `α = (H − k) / (h − 1)`, k = kernel_size, h as many as the geometry has windows; u is drawn for each image and
    channel in training, and is 1/2 in eval. A region shrinks where the feature map is too small for it. Where α is
    a whole number, as with 2 × 2 windows on an even feature map, nothing is drawn; `fractional:window=3` draws.
    Graham, Fractional Max-Pooling, 2014, arXiv:1412.6071, the pseudorandom overlapping regions of
    `nn.FractionalMaxPool2d`, which stays random in eval and cannot be exported.

    Args:
        geometry: The stride must be above 1.
    """

    def __init__(self, channels: int, geometry: Geometry) -> None:
        if geometry.stride < 2:
            raise ValueError(f"stride={geometry.stride} must be at least 2, so that regions are fewer than locations")
        super().__init__(channels, geometry)

    def forward(self, x: Tensor) -> Tensor:
        counts = self.output_size(x)
        sizes = [min(self.kernel_size, n - count + 1) for n, count in zip(x.shape[2:], counts, strict=True)]
        wide = at_least_float32(x)
        if not torch.compiler.is_exporting():
            fixed = None if self.training else wide.new_full((*x.shape[:2], 2), 0.5)
            return F.fractional_max_pool2d(wide, tuple(sizes), counts, _random_samples=fixed).to(x.dtype)
        for dim, (count, size) in enumerate(zip(counts, sizes, strict=True), start=2):
            indices = region_indices(x.shape[dim], count, size)
            x = x.index_select(dim, torch.tensor(indices, device=x.device))
        return F.max_pool2d(x, tuple(sizes))


fractional = local_build(Fractional)


def region_indices(length: int, count: int, size: int) -> list[int]:
    """The indices of all regions along an axis, one region after the other, for u = 1/2; rounded as torch rounds."""
    step = np.float32(length - size) / np.float32(max(count - 1, 1))
    first = int(np.float32(0.5) * step)
    begins = [int((np.float32(i) + np.float32(0.5)) * step) - first for i in range(count - 1)]
    return [begin + i for begin in (*begins, length - size) for i in range(size)]


class S3(LocalPooling):
    """Dense maximum, then rows and columns drawn at random from each stretch of the grid.

    Training: the maximum of the window at stride 1, of which one in stride rows is kept, drawn from each stretch
    of `grid` rows; columns likewise; the same for all images. Eval: the mean of each stride × stride block instead.
    Zhai, Wu, Kumar, Cheng, Lu, Zhang and Feris, S3Pool: Pooling with Stochastic Spatial Sampling, CVPR 2017,
    arXiv:1611.05138.

    Args:
        grid: Rows and columns in a stretch, a multiple of the stride; 0 for the stride itself.
    """

    def __init__(self, channels: int, geometry: Geometry, *, grid: int = 0) -> None:
        if grid < 0 or grid % geometry.stride:
            raise ValueError(f"grid={grid} is no multiple of the stride, {geometry.stride}")
        super().__init__(channels, geometry)
        self.grid = grid or geometry.stride

    def forward(self, x: Tensor) -> Tensor:
        dense = self.dense(x)
        if not self.training:
            partial = any(length % self.stride for length in dense.shape[2:])
            return F.avg_pool2d(dense, self.stride, ceil_mode=partial, count_include_pad=not partial)
        for dim, count in enumerate(self.output_size(x), start=2):
            dense = dense.index_select(dim, self._draw(dense.shape[dim], count, x.device))
        return dense

    def dense(self, x: Tensor) -> Tensor:
        """The maximum of the window at stride 1, up to stride × stride values for each output."""
        counts = self.output_size(x)
        lengths = [min(count * self.stride, n + self.padding) for count, n in zip(counts, x.shape[2:], strict=True)]
        below, right = (
            length - 1 + self.kernel_size - self.padding - n for length, n in zip(lengths, x.shape[2:], strict=True)
        )
        edges = (self.padding, right, self.padding, below)  # negative ones crop what no window reaches
        return F.max_pool2d(F.pad(x, edges, value=-torch.inf), self.kernel_size, 1)

    def _draw(self, length: int, count: int, device: torch.device) -> Tensor:
        """Sorted indices, `count` of `length`: one in stride of each stretch, without repetition."""
        full, each = length // self.grid, self.grid // self.stride
        drawn = torch.rand(full, self.grid, device=device).argsort(1)[:, :each].sort(1).values
        begins = torch.arange(full, device=device)[:, None] * self.grid
        rest = torch.rand(length - full * self.grid, device=device).argsort()[: count - full * each].sort().values
        return torch.cat(((drawn + begins).flatten(), rest + full * self.grid))


s3 = local_build(S3)
