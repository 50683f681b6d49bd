"""Means whose weights are the exponentials of scores: the input's own, or learned ones.

Global layers map `float[N, C, H, W] → float[N, C]`, local ones have the output shape of `nn.MaxPool2d`. Exponentials
are taken in at least float32.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.model.geometry import Geometry
from poolzoo.poolings.local import PAD_VALUE, LocalPooling, local_build
from poolzoo.poolings.shared import GlobalPooling, at_least_float32

LARGEST_SCORE = 12.0  # of learned importance, as in the paper; e^12 is far from overflow


class GlobalSoft(GlobalPooling):
    """Exponentially weighted mean: `y = Σ x e^x / Σ e^x`, `float[N, C, H, W] → float[N, C]`.

    Stergiou, Poppe and Kalliatakis, Refining activation downsampling with SoftPool, ICCV 2021, arXiv:2101.00440, for
    windows; here the window is the feature map. Shifted by the maximum, without which |x| > 88 gives NaN.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _softly_weighted(at_least_float32(x).flatten(2)).to(x.dtype)


class LocalSoft(LocalPooling):
    """Exponentially weighted mean of each window: `y = Σ x e^x / Σ e^x`.

    Stergiou, Poppe and Kalliatakis, Refining activation downsampling with SoftPool, ICCV 2021, arXiv:2101.00440.
    Shifted by the maximum, without which |x| > 88 gives NaN.
    """

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        if not torch.compiler.is_exporting():
            return _softly_weighted(self.patches(wide, -PAD_VALUE)).to(x.dtype)
        maximum = self.max_pool(wide)
        slices = self.patch_slices(wide, -PAD_VALUE)  # sums of slices are twice as fast in ONNX Runtime
        weights = [(one - maximum).exp() for one in slices]
        total = cast(Tensor, sum(w * one for w, one in zip(weights, slices, strict=True)))
        return (total / sum(weights)).to(x.dtype)


local_soft = local_build(LocalSoft)


def _softly_weighted(x: Tensor) -> Tensor:
    return (x.softmax(2) * x).sum(2)


class LocalLIP(LocalPooling):
    """Mean weighted by learned importance: `y = Σ x e^g / Σ e^g` over each window, `g = 12 σ(IN(conv₃ₓ₃(x)))`.

    Gao, Wang and Wu, LIP: Local Importance-Based Pooling, ICCV 2019, arXiv:1908.04156, their "simplified" module. The
    convolution starts at 0, where this is average pooling. On a 1 × 1 feature map, which `nn.InstanceNorm2d` refuses,
    the norm gives its bias.
    """

    def __init__(self, channels: int, geometry: Geometry) -> None:
        super().__init__(channels, geometry)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        weight = self.scores(x).exp()
        return (self.avg_pool(weight * wide) / self.avg_pool(weight)).to(x.dtype)

    def scores(self, x: Tensor) -> Tensor:
        """The importance g of each spatial location, between 0 and 12: `float[N, C, H, W]`."""
        raw = at_least_float32(self.conv(x))
        scale, shift = self.scale.to(raw.dtype), self.shift.to(raw.dtype)
        if raw.shape[2:].numel() > 1:
            normed = F.instance_norm(raw, weight=scale, bias=shift)
        else:
            normed = shift[:, None, None].expand_as(raw)
        return LARGEST_SCORE * normed.sigmoid()


local_lip = local_build(LocalLIP)
