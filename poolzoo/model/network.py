"""The network and what comes before it: backbone, pooling and classifier as one module, and the preprocessing."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.data import recycled
from poolzoo.data.sizes import Size
from poolzoo.model.layout import Layout, as_feature_map
from poolzoo.model.published import FinalNorm

MAX_BY_PRODUCTS: Final = 40  # pixels a side; of larger images a matrix product takes longer than Resize


class Network(nn.Module):
    """Backbone, global pooling and classifier: normalized `float[N, 3, H, W] → float[N, num_classes]`, logits.

    Args:
        backbone: Gives the features.
        pool: The global pooling.
        classifier: Gives logits of pooled vectors.
        layout: How to read the features as a feature map.
        norm: A norm that the published network has behind its pooling, if any.
        norm_first: Whether the norm applies to every spatial location of the feature map instead of to the pooled
            vectors.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pool: nn.Module,
        classifier: nn.Module,
        layout: Layout,
        norm: FinalNorm | None = None,
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.classifier = classifier
        self.layout = layout
        self.norm = norm
        self.norm_first = norm_first

    def forward_map(self, x: Tensor) -> Tensor:
        """The backbone's feature map, `float[N, C, H', W']`."""
        features: Tensor = self.backbone(x)
        return as_feature_map(features, self.layout)

    def with_backbone(self, backbone: nn.Module) -> Network:
        """A network with another backbone, and the same modules behind it."""
        if backbone is self.backbone:
            return self
        return Network(backbone, self.pool, self.classifier, self.layout, self.norm, self.norm_first)

    @property
    def head(self) -> nn.Sequential:
        """What follows the backbone, `float[N, C, H', W'] → float[N, num_classes]`: the same modules, not copies."""
        return in_order(self.pool, self.classifier, self.norm, self.norm_first)

    @property
    def behind_pool(self) -> nn.Module:
        """What follows the pooling, `float[N, D] → float[N, num_classes]`: the same modules, not copies."""
        if self.norm is None or self.norm_first:
            return self.classifier
        return nn.Sequential(OrderedDict(norm=self.norm, classifier=self.classifier))

    @property
    def dropped(self) -> frozenset[str]:
        """Names of the tensors that earlier versions saved although nothing reads them."""
        return frozenset(f"backbone.{name}" for name in getattr(self.backbone, "dropped", ()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_map(x)
        if self.norm is not None and self.norm_first:
            x = self.norm(x)
        x = self.pool(x)
        if self.norm is not None and not self.norm_first:
            x = self.norm(x)
        logits: Tensor = self.classifier(x)
        return logits


def in_order(pool: nn.Module, classifier: nn.Module, norm: nn.Module | None, norm_first: bool) -> nn.Sequential:
    """Pooling, classifier and the published norm, if any, in the order in which the network applies them."""
    if norm is None:
        return nn.Sequential(OrderedDict(pool=pool, classifier=classifier))
    if norm_first:
        return nn.Sequential(OrderedDict(norm=norm, pool=pool, classifier=classifier))
    return nn.Sequential(OrderedDict(pool=pool, norm=norm, classifier=classifier))


class Preprocess(nn.Module):
    """Images as they are stored to the backbone's input: `uint8[N, h, w, 3] → float[N, 3, H, W]`.

    Scales to 0–1, normalizes, and resizes bilinearly to `image_size` where that differs from `data_size`. A graph
    computes the same in fewer operators: scaling and normalization as one, and the resizing of a small image as two
    matrix products, which every runtime computes alike, and ONNX Runtime faster than its Resize.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], data_size: Size, image_size: Size) -> None:
        super().__init__()
        self.resize = image_size if image_size != data_size else None
        self.by_products = max(data_size) <= MAX_BY_PRODUCTS
        self.statistics = tuple(mean), tuple(std)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if _can_change_copies(images):
            return self._resize(self._normalized(images))
        x = images.permute(0, 3, 1, 2).to(self.mean.dtype)
        if torch.compiler.is_exporting():
            return self._resize((x - 255 * self.mean) / (255 * self.std))
        return self.normalize(x / 255)

    def normalize(self, x: Tensor) -> Tensor:
        """`float[N, 3, h, w]` in 0–1 `→ float[N, 3, H, W]`."""
        return self._resize((x - self.mean) / self.std)

    def _normalized(self, images: Tensor) -> Tensor:
        """The same as `normalize(x / 255)` for bytes on the CPU: the same values in a quarter of the time, in place.

        Statistics are repeated for a row of pixels, since operations on three channels at a time are not vectorized.
        """
        dtype, width = self.mean.dtype, images.shape[2]
        x = torch.from_numpy(recycled.empty((images.numel() * dtype.itemsize,))).view(dtype).view(images.shape)
        x.copy_(images)
        mean, std = (each.flatten().repeat(width) for each in (self.mean, self.std))
        x.flatten(2).div_(255).sub_(mean).div_(std)
        return x.permute(0, 3, 1, 2)

    def _resize(self, x: Tensor) -> Tensor:
        if self.resize is None:
            return x
        if torch.compiler.is_exporting() and self.by_products:
            (height, width), (rows, columns) = x.shape[2:], self.resize
            return _bilinear(height, rows, x) @ (x @ _bilinear(width, columns, x).T)
        return F.interpolate(x, size=self.resize, mode="bilinear", align_corners=False)


def _can_change_copies(images: Tensor) -> bool:
    """Whether operations run one by one on the CPU, where one that works in place saves time."""
    if torch.compiler.is_exporting() or torch.compiler.is_compiling():
        return False
    is_plain = type(images) is Tensor and images.is_contiguous() and not images.requires_grad
    return is_plain and images.device.type == "cpu"


def _bilinear(length: int, resized: int, like: Tensor) -> Tensor:
    """The matrix `float[resized, length]` by which `F.interpolate` resizes a side, half-pixel centers, no antialias."""
    center = (torch.arange(resized, dtype=torch.float64) + 0.5) * (length / resized) - 0.5
    distance = (center.clamp(0, length - 1)[:, None] - torch.arange(length, dtype=torch.float64)).abs()
    return (1 - distance).clamp_min(0).to(like)
