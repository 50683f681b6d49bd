"""Rows and columns at the border of an image that a backbone never sees, by its gradients, and sizes that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from poolzoo.data.sizes import Size
from poolzoo.model.layout import Layout, as_feature_map

FARTHEST: Final = 64  # pixels above a size up to which one that fits is looked for, the stride of the deepest networks
Rebuild = Callable[[Size], tuple[nn.Module, Layout]]


@dataclass(frozen=True)
class UnseenBorder:
    """Pixels at the border on which no spatial location of the feature map depends.

    Attributes:
        size: Of the image, height and width.
        rows, columns: How many rows and columns are never seen.
        below, above: The next smaller and the next larger size without such pixels; None where none was found.
    """

    size: Size
    rows: int
    columns: int
    below: Size | None
    above: Size | None

    def line(self, backbone: str) -> str:
        """What is not seen, and the sizes that fit, height × width."""
        counts = ((self.rows, "row"), (self.columns, "column"))
        lost = [f"{count} {what}{'s' if count > 1 else ''}" for count, what in counts if count]
        fits = " and ".join(f"{h}×{w}" for h, w in filter(None, (self.below, self.above)))
        text = f"{backbone} never sees {' and '.join(lost)} of {self.size[0]}×{self.size[1]} images"
        return f"{text}; all is seen of {fits}" if fits else text


def find_unseen_border(module: nn.Module, layout: Layout, size: Size, rebuild: Rebuild) -> UnseenBorder | None:
    """What a backbone does not see of images of a size; None where it sees all.

    Args:
        module: The backbone, built for that size.
        layout: Of its features.
        size: Height and width in pixels.
        rebuild: Builds the backbone for another size; raises where the backbone refuses it.
    """
    rows, columns = _lost(module, layout, size)
    if not rows and not columns:
        return None
    fits = (size[0] - rows, size[1] - columns)
    below = fits if min(fits) > 0 and _fits(rebuild, fits) else None
    steps = [max(1, round(side / count)) for side, count in zip(fits, layout.map_size, strict=True)]
    return UnseenBorder(size, rows, columns, below, _above(rebuild, size, fits, steps, (rows > 0, columns > 0)))


def _above(rebuild: Rebuild, size: Size, fits: Size, steps: list[int], lost: tuple[bool, bool]) -> Size | None:
    """The next size above of which all is seen: one stride more than what is seen now, or the first that is found."""
    next_up = [fit + step if axis else side for side, fit, step, axis in zip(size, fits, steps, lost, strict=True)]
    if all(new >= side for new, side in zip(next_up, size, strict=True)) and _fits(rebuild, (next_up[0], next_up[1])):
        return next_up[0], next_up[1]
    for more in range(1, FARTHEST + 1):
        tried = (size[0] + more * lost[0], size[1] + more * lost[1])
        if _fits(rebuild, tried):
            return tried
    return None


def _fits(rebuild: Rebuild, size: Size) -> bool:
    try:
        return _lost(*rebuild(size), size) == (0, 0)
    except Exception:  # the network refuses such a size
        return False


def _lost(module: nn.Module, layout: Layout, size: Size) -> tuple[int, int]:
    """How many rows and columns of a random image the feature map does not depend on."""
    was_training = module.training
    module.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), _nonzero(module):
            torch.manual_seed(0)
            x = torch.randn(1, 3, *size, requires_grad=True)
            features = as_feature_map(module(x), layout)
            if not features.requires_grad:  # a backbone that is only used frozen may run without gradients
                return 0, 0
            weights = torch.randn_like(features)  # a norm's outputs may add up to a constant
            (gradient,) = torch.autograd.grad((features * weights).sum(), x, allow_unused=True)
    finally:
        module.train(was_training)
    if gradient is None:
        return 0, 0
    seen = gradient[0].abs().sum(0) > 0
    return _unseen_count(seen.any(1)), _unseen_count(seen.any(0))


@contextmanager
def _nonzero(module: nn.Module) -> Iterator[None]:
    """Within it, parameters that are all zero have random values, such as the last scale of a residual branch.

    With zeros, the gradient of that branch is zero, and only the skip connection would count.
    """
    zero = [p for p in module.parameters() if p.is_floating_point() and not p.detach().any()]
    before = [parameter.detach().clone() for parameter in zero]
    with torch.no_grad():
        for parameter in zero:
            parameter.normal_()
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(zero, before, strict=True):
                parameter.copy_(values)


def _unseen_count(seen: Tensor) -> int:
    """How many come before the first and after the last that is seen; gaps between are due to strides."""
    found = seen.nonzero().flatten().tolist()
    return len(seen) - (found[-1] - found[0] + 1) if found else 0
