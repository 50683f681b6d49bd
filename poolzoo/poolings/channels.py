"""Poolings that change the number of channels: across channels, or from spatial locations to channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.model.geometry import Geometry
from poolzoo.poolings.local import LocalPooling, local_build


def _checked(group: int) -> int:
    if group < 1:
        raise ValueError(f"group={group} must be at least 1")
    return group


class GlobalDepth(nn.Module):
    """Maximum over groups of g channels, then the mean over the feature map: `float[N, C, H, W] → float[N, ⌈C/g⌉]`.

    `y[d] = mean of max over c in group d of x[c]`. The maximum across channels is from Goodfellow, Warde-Farley, Mirza,
    Courville and Bengio, Maxout Networks, ICML 2013, arXiv:1302.4389.

    Args:
        group: g; the last group is smaller where it does not divide C.
    """

    def __init__(self, channels: int, *, group: int = 2) -> None:
        super().__init__()
        self.group = _checked(group)

    def forward(self, x: Tensor) -> Tensor:
        return _group_max(x, self.group).mean((2, 3))


class LocalDepth(LocalPooling):
    """Maximum over each window and over groups of g channels: `float[N, C, H, W] → float[N, ⌈C/g⌉, h, w]`.

    With `window=1,stride=1` across the channels alone. It changes the number of channels, so the network around it
    must measure them, as the nano/ backbones do.

    Args:
        group: g; the last group is smaller where it does not divide C.
    """

    def __init__(self, channels: int, geometry: Geometry, *, group: int = 2) -> None:
        super().__init__(channels, geometry)
        self.group = _checked(group)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return _group_max(self.max_pool(x), self.group)
        rest = -x.shape[1] % self.group
        if rest:
            x = F.pad(x, (0, 0, 0, 0, 0, rest), value=-torch.inf)
        kernel = self.group, self.kernel_size, self.kernel_size
        stride = self.group, self.stride, self.stride
        padding = 0, self.padding, self.padding
        return F.max_pool3d(x.unsqueeze(1), kernel, stride, padding, ceil_mode=self.ceil_mode).squeeze(1)


def _group_max(x: Tensor, group: int) -> Tensor:
    """The maximum over groups of channels: `float[N, C, H, W] → float[N, ⌈C/g⌉, H, W]`.

    For export never in five dimensions: channels × spatial locations are one map, and a group is a window of g × 1 of
    it. Else the channels of a location, which lie side by side, are a row.
    """
    count, channels, height, width = x.shape
    if not torch.compiler.is_exporting():
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)
        grouped = F.max_pool1d(rows, group, ceil_mode=channels % group > 0)
        return grouped.reshape(count, height, width, -1).permute(0, 3, 1, 2)
    columns = x.reshape(count, 1, channels, height * width)
    grouped = F.max_pool2d(columns, (group, 1), ceil_mode=channels % group > 0)
    return grouped.reshape(count, -(-channels // group), height, width)


local_depth = local_build(LocalDepth)


class SpaceToDepth(LocalPooling):
    """The values of each window become channels, without loss: `float[N, C, H, W] → float[N, k² C, h, w]`.

    `y[c k² + i k + j]` is value (i, j) of the window of channel c, 0 in the padding. Where windows tile the
    feature map, this is `nn.PixelUnshuffle`. The network around it must measure the channels, as
    the nano/ backbones do.
    Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network, CVPR 2016, arXiv:1609.05158, have its inverse.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.patches(x, 0.0).flatten(1, 2)


space_to_depth = local_build(SpaceToDepth)
