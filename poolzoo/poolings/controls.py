"""Controls for local poolings: subsampling without pooling, and a strided convolution.

Every layer has the output shape of `nn.MaxPool2d(kernel_size, stride, padding, ceil_mode)`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.model.geometry import Geometry
from poolzoo.poolings.local import LocalPooling, local_build


class Subsample(LocalPooling):
    """The stride without the pooling: `y[i, j] = x` at the center of window (i, j), half a pixel before in even ones.

    Windows of 2 × 2 with stride 2, and of 3 × 3 with padding 1, become `x[:, :, ::2, ::2]`. The centers are those of
    `blur`, so that the two differ only by the filter. A center in the padding moves to the nearest location inside,
    which its window contains. It aliases and is sensitive to shifts on purpose. No canonical paper.
    """

    def forward(self, x: Tensor) -> Tensor:
        first = (self.kernel_size - 1) // 2 - self.padding
        lasts = [first + (count - 1) * self.stride for count in self.output_size(x)]
        before = max(0, -first)
        below, right = (max(0, last - (length - 1)) for last, length in zip(lasts, x.shape[2:], strict=True))
        if before or below or right:  # centers in the padding
            x = F.pad(x, (before, right, before, below), mode="replicate")
        start, (bottom, end) = first + before, (last + before + 1 for last in lasts)
        kept = x[:, :, start : bottom : self.stride, start : end : self.stride]
        return kept.clone()  # its own memory, so that an in-place layer behind it does not write into the feature map


subsample = local_build(Subsample)


class LocalConv(LocalPooling):
    """A strided convolution with a bias where the pooling was: `y[d] = b[d] + Σ_c w[d, c] · x[c]` over each window.

    Padding is zero. It starts as the mean of each channel (`w[d, c] = 1/k²` where d = c, else 0, b = 0), as `lip` does,
    and draws no random numbers. Pretrained or frozen layers behind it therefore get the features that they expect.
    Springenberg, Dosovitskiy, Brox and Riedmiller, Striving for Simplicity: The All Convolutional Net, ICLR workshop
    2015, arXiv:1412.6806, follow it with a ReLU and start at random.

    Args:
        depthwise: Whether each output channel depends on one input channel: k² weights each instead of C k².
    """

    def __init__(self, channels: int, geometry: Geometry, *, depthwise: bool = False) -> None:
        super().__init__(channels, geometry)
        self.groups = channels if depthwise else 1
        k = geometry.kernel_size
        own = torch.ones(channels, 1) if depthwise else torch.eye(channels)
        # Parameters instead of an nn.Conv2d, which would count as a strided convolution of the backbone (--stem small).
        self.weight = nn.Parameter((own / k**2)[:, :, None, None].repeat(1, 1, k, k))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        below, right = (max(0, over - self.padding) for over in self.end_padding(x))
        if below or right:  # with ceil_mode, windows that reach beyond the padding
            x = F.pad(x, (0, right, 0, below))
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)


local_conv = local_build(LocalConv)
