"""A global pooling at work: the influence of each spatial location of a feature map on the pooled vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.model import cost
from poolzoo.model.backbone import build_backbone
from poolzoo.model.network import Preprocess
from poolzoo.plugin import loader

BACKBONE: Final = "poolzoo:nano/resnet"  # its weights come with the package
DRAWS: Final = 16  # vectors of signs; for layers that treat channels alone, each gives the same
SEED: Final = 0  # of the signs, and of weights that are drawn


@dataclass(frozen=True)
class Influence:
    """The influence of each spatial location on the pooled vector.

    Attributes:
        weights: `float[h, w]`, which sum to 1.
        half: How many locations have half of the sum together, the strongest first.
    """

    weights: np.ndarray
    half: int

    @property
    def relative(self) -> np.ndarray:
        """The weights in units of a uniform weight, `float[h, w]`: 1 everywhere for a mean."""
        return self.weights * self.weights.size


def features(photograph: np.ndarray) -> Tensor:
    """The feature map of nano/resnet for a photograph: `uint8[S, S, 3] → float[1, 128, S/8, S/8]`, not below 0."""
    backbone = loader.catalog().backbone(BACKBONE)
    side = photograph.shape[0]
    module = build_backbone(backbone, (side, side), pretrained=True).eval()
    into = Preprocess(backbone.item.mean, backbone.item.std, (side, side), (side, side))
    with torch.no_grad():
        found: Tensor = module(into(torch.from_numpy(photograph[None].copy())))
    return found


def look(resolved: loader.Resolved, of: Tensor) -> Influence:
    """The influence of each location of a feature map, `float[1, C, h, w]`.

    Raises:
        Exception: The layer's own code raises it, or its output is wrong.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        layer = cost.build_layer(resolved, of.shape[1], (of.shape[2], of.shape[3])).eval()
    return measure(layer, of)


def measure(layer: nn.Module, of: Tensor) -> Influence:
    """Σ over channels of |∂(v · y)/∂x| at each location, the mean over vectors v of random signs.

    The signs keep outputs from canceling: after a layer norm, the plain sum of y never changes. Where an output sees
    one channel alone, this is Σ |∂y/∂x| exactly, whatever the signs.

    Raises:
        ValueError: The output is not a finite vector, or does not depend on the feature map.
    """
    x = of.clone().requires_grad_()
    y: Any = layer(x)
    if not isinstance(y, Tensor) or y.ndim != 2 or len(y) != 1:
        raise ValueError(f"it gives {list(y.shape) if isinstance(y, Tensor) else type(y).__name__}, not [1, D]")
    if not y.isfinite().all():
        raise ValueError("it gives values that are not finite")
    generator = torch.Generator().manual_seed(SEED)
    weights = torch.zeros(of.shape[2:], dtype=torch.float64)
    for _ in range(DRAWS):
        signs = torch.randint(2, y.shape, generator=generator).to(y.dtype) * 2 - 1
        (slope,) = torch.autograd.grad(y, x, signs, retain_graph=True, allow_unused=True)
        weights += 0 if slope is None else slope[0].double().abs().sum(0)
    total = float(weights.sum())
    if not 0 < total < float("inf"):
        raise ValueError("no location of the feature map changes its output")
    normalized = (weights / total).numpy()
    descending = np.sort(normalized.ravel())[::-1]
    return Influence(normalized, int(np.searchsorted(np.cumsum(descending), 0.5 - 1e-9) + 1))
