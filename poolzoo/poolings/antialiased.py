"""Anti-aliased downsampling: a binomial low-pass filter before subsampling, or a choice of the sampling grid.

Every layer has the output shape of `nn.MaxPool2d(kernel_size, stride, padding, ceil_mode)`.
"""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.model.geometry import Geometry
from poolzoo.poolings.borders import mirrored, wrapped
from poolzoo.poolings.local import LocalPooling, local_build
from poolzoo.poolings.shared import at_least_float32


class Blur(LocalPooling):
    """Binomial filter at every stride-th position: `y = (b ⊗ b * x)↓stride`, `b = [1, 2, 1] / 4` for three taps.

    Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019, arXiv:1904.11486. Output i has the center of
    window i of the layer that it replaces (half a pixel before it for even windows), so that replacing shifts
    nothing. Padding mirrors the border, or repeats it on feature maps too small to mirror.

    Args:
        channels: Channels C of the input.
        geometry: Of the pooling layer that this one replaces.
        taps: Length of the filter, odd.
    """

    filter: Tensor

    def __init__(self, channels: int, geometry: Geometry, *, taps: int = 3) -> None:
        if taps < 1 or taps % 2 == 0:
            raise ValueError(f"taps={taps} must be odd and positive")
        super().__init__(channels, geometry)
        self.register_buffer("filter", binomial(channels, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return filtered(x, self.filter, self.stride, (self.kernel_size - 1) // 2 - self.padding, self.output_size(x))


blur = local_build(Blur)


class MaxBlur(Blur):
    """Dense maximum, then blur and subsampling: `y = (b ⊗ b * max of x in the window, at stride 1)↓stride`.

    Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019, arXiv:1904.11486. Borders as in `Blur`.
    """

    def forward(self, x: Tensor) -> Tensor:
        below, right = self.end_padding(x)
        extra = max(0, below - self.padding), max(0, right - self.padding)
        if any(extra):  # with ceil_mode, windows that reach beyond the padding; −∞ is never the maximum
            x = F.pad(x, (0, extra[1], 0, extra[0]), value=-torch.inf)
        dense = F.max_pool2d(x, self.kernel_size, 1, self.padding)
        size = self.output_size(x[:, :, : x.shape[2] - extra[0], : x.shape[3] - extra[1]])
        return filtered(dense, self.filter, self.stride, 0, size)


max_blur = local_build(MaxBlur)


def binomial(channels: int, taps: int) -> Tensor:
    """A separable binomial filter for each channel, `float[channels, 1, taps, taps]`, that sums to one."""
    row = torch.tensor([float(comb(taps - 1, k)) for k in range(taps)])
    return (torch.outer(row, row) / row.sum() ** 2).expand(channels, 1, taps, taps).clone()


def filtered(x: Tensor, weight: Tensor, stride: int, first: int, size: tuple[int, int]) -> Tensor:
    """A depthwise filter of the mirrored feature map at first, first + stride, …; the output has (h, w) = `size`."""
    half = weight.shape[-1] // 2
    if (
        half
        and first == 0
        and min(x.shape[2:]) > half
        and all((count - 1) * stride < n for count, n in zip(size, x.shape[2:], strict=True))
    ):
        return averaged(x, half, stride)[:, :, : size[0], : size[1]]
    before = half - first
    after = [first + (count - 1) * stride + half - (n - 1) for count, n in zip(size, x.shape[2:], strict=True)]
    x = x[:, :, max(0, -before) :, max(0, -before) :]
    margins = max(0, before), max(0, after[1]), max(0, before), max(0, after[0])
    x = mirrored(x, margins)
    height, width = (n + min(0, end) for n, end in zip(x.shape[2:], after, strict=True))
    return F.conv2d(x[:, :, :height, :width], weight.to(x.dtype), stride=stride, groups=x.shape[1])


def averaged(x: Tensor, times: int, stride: int) -> Tensor:
    """The binomial filter of 2 · `times` + 1 taps at 0, stride, … of the mirrored feature map, without padding it.

    Two means of neighbors are one `[1, 2, 1] / 4`. The first mean of a mirrored map repeats its border value, so the
    second one, over the values inside alone, is the same as with padding.
    """
    for step in (*[1] * (times - 1), stride):
        x = F.avg_pool2d(F.avg_pool2d(x, 2, 1), 2, step, padding=1, count_include_pad=False)
    return x


# --- Polyphase: keep one of the stride × stride shifted sampling grids, the same one for every shift of the image ---


class _Polyphase(LocalPooling):
    """Choice of a polyphase component; exactly invariant to circular shifts where the stride divides the feature map.

    On other feature maps, components wrap around the border, so that their sizes are equal.
    """

    def components(self, x: Tensor) -> Tensor:
        """The stride² shifted grids, `float[N, stride², C, h, w]`; grid (i, j) is `x[..., i::stride, j::stride]`."""
        rows, columns = self.output_size(x)
        x = _wrapped(_wrapped(x, 2, rows * self.stride), 3, columns * self.stride)
        grids = torch.unflatten(torch.unflatten(x, 3, (columns, self.stride)), 2, (rows, self.stride))
        return grids.permute(0, 3, 5, 1, 2, 4).flatten(1, 2)

    def grids(self, x: Tensor) -> list[Tensor]:
        """The same in a graph for export, which needs no value of more than four dimensions then."""
        (rows, columns), step = self.output_size(x), self.stride
        x = _wrapped(_wrapped(x, 2, rows * step), 3, columns * step)
        return [x[:, :, i::step, j::step] for i in range(step) for j in range(step)]

    def pick(self, components: Tensor, scores: Tensor) -> Tensor:
        """The component with the largest of the scores `float[N, stride²]`, the first of equal ones."""
        index = scores.argmax(1).view(-1, 1, 1, 1, 1).expand(-1, 1, *components.shape[2:])
        return components.gather(1, index).squeeze(1)


def largest_scored(grids: list[Tensor], scores: list[Tensor]) -> Tensor:
    """The grid with the largest of the scores `float[N, 1, 1, 1]`, the first of equal ones, for each image."""
    best, top = grids[0], scores[0]
    for grid, score in zip(grids[1:], scores[1:], strict=True):
        best = torch.where(score > top, grid, best)
        top = torch.maximum(score, top)
    return best


def _wrapped(x: Tensor, dim: int, length: int) -> Tensor:
    """The first `length` rows or columns of the feature map repeated along `dim`."""
    if length <= x.shape[dim]:
        return x.narrow(dim, 0, length)
    return torch.cat([x] * -(-length // x.shape[dim]), dim).narrow(dim, 0, length)


class APS(_Polyphase):
    """Adaptive polyphase sampling: of the shifted grids, the one with the largest norm.

    `y = x[:, i::stride, j::stride]`, `(i, j) = argmax ‖x[:, i::stride, j::stride]‖₂` over all channels.
    Chaman and Dokmanić, Truly shift-invariant convolutional neural networks, CVPR 2021, arXiv:2011.14214. No maximum
    is taken in front: the geometry decides the output's shape and the stride alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            grids = self.grids(x)
            return largest_scored(
                grids, [at_least_float32(grid).square().sum((1, 2, 3), keepdim=True) for grid in grids]
            )
        components = self.components(x)
        return self.pick(components, at_least_float32(components).square().sum((2, 3, 4)))


aps = local_build(APS)


class LPS(_Polyphase):
    """Learnable polyphase sampling: of the shifted grids, the one with the largest score of a small network.

    `score = mean f(grid)`, f two circular 3 × 3 convolutions with a ReLU between them, shared by the grids. In
    training `y = Σ a · grid` with a Gumbel softmax a of the scores; in eval, the grid with the largest score.
    Rojas-Gómez, Lim, Schwing, Do and Yeh, Learnable Polyphase Sampling for Shift Invariant and Equivariant
    Convolutional Networks, NeurIPS 2022, arXiv:2210.08001.

    Args:
        hidden: Channels between the two convolutions; 0 for as many as the input has.
        temperature: Of the Gumbel softmax.
    """

    def __init__(
        self,
        channels: int,
        geometry: Geometry,
        *,
        hidden: int = 0,
        temperature: float = 1.0,
    ) -> None:
        if hidden < 0 or temperature <= 0:
            raise ValueError(f"hidden={hidden} must not be negative, temperature={temperature} must be above 0")
        super().__init__(channels, geometry)
        self.temperature = temperature
        self.first = nn.Conv2d(channels, hidden or channels, 3)
        self.second = nn.Conv2d(hidden or channels, hidden or channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            grids = self.grids(x)
            scores = self.score(torch.cat(grids)).reshape(len(grids), -1, 1, 1, 1)
            return largest_scored(grids, list(scores.unbind()))
        components = self.components(x)
        scores = self.scores(components)
        if not self.training:
            return self.pick(components, scores)
        weights = F.gumbel_softmax(scores, self.temperature, dim=1)
        return (components * weights.to(x.dtype).view(*weights.shape, 1, 1, 1)).sum(1)

    def scores(self, components: Tensor) -> Tensor:
        """The score of each shifted grid: `float[N, stride², C, h, w] → float[N, stride²]`."""
        return self.score(components.flatten(0, 1)).view(components.shape[:2])

    def score(self, grids: Tensor) -> Tensor:
        """`float[N, C, h, w] → float[N]`."""
        hidden = self.first(wrapped(grids, 1)).relu()
        scores = self.second(wrapped(hidden, 1))
        return at_least_float32(scores).mean((1, 2, 3))


lps = local_build(LPS)
