"""A global pooling at work: how much each position of a map decides of the pooled vector."""

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
DRAWS: Final = 16  # of signs; where no channel sees another, each gives the same
SEED: Final = 0  # of the signs, and of weights that are drawn


@dataclass(frozen=True)
class Influence:
    """What share of the pooled vector's pull each position has.

    Attributes:
        shares: `float[h, w]`, which sum to 1.
        half: How many positions have half of it together, the strongest first.
    """

    shares: np.ndarray
    half: int

    @property
    def times(self) -> np.ndarray:
        """The shares in even shares, `float[h, w]`: 1 everywhere for a mean."""
        return self.shares * self.shares.size


def features(photograph: np.ndarray) -> Tensor:
    """What nano/resnet makes of a photograph: `uint8[S, S, 3] → float[1, 128, S/8, S/8]`, not below 0."""
    backbone = loader.catalog().backbone(BACKBONE)
    side = photograph.shape[0]
    module = build_backbone(backbone, (side, side), pretrained=True).eval()
    into = Preprocess(backbone.item.mean, backbone.item.std, (side, side), (side, side))
    with torch.no_grad():
        found: Tensor = module(into(torch.from_numpy(photograph[None].copy())))
    return found


def look(resolved: loader.Resolved, of: Tensor) -> Influence:
    """How much each position of a map, `float[1, C, h, w]`, decides.

    Raises:
        Exception: Whatever the layer's own code raises, or what is wrong with its output.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        layer = cost.build_layer(resolved, of.shape[1], (of.shape[2], of.shape[3])).eval()
    return measure(layer, of)


def measure(layer: nn.Module, of: Tensor) -> Influence:
    """Σ over channels of |∂(v · y)/∂x| at each position, the mean over vectors v of random signs.

    The signs keep outputs from cancelling: behind a layer norm, for one, the plain sum of y never changes. Where an
    output sees one channel alone, this is Σ |∂y/∂x| exactly, whatever the signs.

    Raises:
        ValueError: The output is no finite vector, or does not depend on the map.
    """
    x = of.clone().requires_grad_()
    y: Any = layer(x)
    if not isinstance(y, Tensor) or y.ndim != 2 or len(y) != 1:
        raise ValueError(f"it gives {list(y.shape) if isinstance(y, Tensor) else type(y).__name__}, not [1, D]")
    if not y.isfinite().all():
        raise ValueError("it gives values that are not finite")
    generator = torch.Generator().manual_seed(SEED)
    pull = torch.zeros(of.shape[2:], dtype=torch.float64)
    for _ in range(DRAWS):
        signs = torch.randint(2, y.shape, generator=generator).to(y.dtype) * 2 - 1
        (slope,) = torch.autograd.grad(y, x, signs, retain_graph=True, allow_unused=True)
        pull += 0 if slope is None else slope[0].double().abs().sum(0)
    total = float(pull.sum())
    if not 0 < total < float("inf"):
        raise ValueError("no position of the map changes its output")
    shares = (pull / total).numpy()
    return Influence(shares, int(np.searchsorted(np.cumsum(np.sort(shares.ravel())[::-1]), 0.5 - 1e-9) + 1))
