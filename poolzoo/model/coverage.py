"""Which rows and columns at the border of an image a backbone never sees, measured by gradients, and sizes that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from poolzoo.model.layout import Layout, Size, as_map

FARTHEST: Final = 64  # pixels above a size up to which one that fits is looked for, the stride of the deepest networks
Make = Callable[[Size], tuple[nn.Module, Layout]]


@dataclass(frozen=True)
class Unseen:
    """Pixels at the border that no position of the map depends on.

    Attributes:
        size: Of the image, height and width.
        rows, columns: How many rows and columns are never seen.
        below, above: The next smaller and the next larger size all of which is seen; None where none was found.
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


def unseen(module: nn.Module, layout: Layout, size: Size, make: Make) -> Unseen | None:
    """What a backbone does not see of images of a size; None where it sees all.

    Args:
        module: The backbone, built for that size.
        layout: Of its features.
        size: Height and width in pixels.
        make: Builds the backbone for another size; what it raises means that the size is refused.
    """
    rows, columns = _lost(module, layout, size)
    if not rows and not columns:
        return None
    fits = (size[0] - rows, size[1] - columns)
    below = fits if min(fits) > 0 and _fits(make, fits) else None
    steps = [max(1, round(side / count)) for side, count in zip(fits, layout.map_size, strict=True)]
    return Unseen(size, rows, columns, below, _above(make, size, fits, steps, (rows > 0, columns > 0)))


def _above(make: Make, size: Size, fits: Size, steps: list[int], lost: tuple[bool, bool]) -> Size | None:
    """The next size above of which all is seen: one stride more than what is seen now, or the first that is found."""
    next_up = [fit + step if axis else side for side, fit, step, axis in zip(size, fits, steps, lost, strict=True)]
    if all(new >= side for new, side in zip(next_up, size, strict=True)) and _fits(make, (next_up[0], next_up[1])):
        return next_up[0], next_up[1]
    for more in range(1, FARTHEST + 1):
        tried = (size[0] + more * lost[0], size[1] + more * lost[1])
        if _fits(make, tried):
            return tried
    return None


def _fits(make: Make, size: Size) -> bool:
    try:
        return _lost(*make(size), size) == (0, 0)
    except Exception:  # the network refuses such a size
        return False


def _lost(module: nn.Module, layout: Layout, size: Size) -> tuple[int, int]:
    """How many rows and columns no number of the map depends on, for a random image."""
    was_training = module.training
    module.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), _awake(module):
            torch.manual_seed(0)
            x = torch.randn(1, 3, *size, requires_grad=True)
            features = as_map(module(x), layout)
            if not features.requires_grad:  # it runs without gradients, as one that is only used frozen may
                return 0, 0
            weights = torch.randn_like(features)  # a norm's outputs may add up to a constant
            (slope,) = torch.autograd.grad((features * weights).sum(), x, allow_unused=True)
    finally:
        module.train(was_training)
    if slope is None:
        return 0, 0
    seen = slope[0].abs().sum(0) > 0
    return _dark(seen.any(1)), _dark(seen.any(0))


@contextmanager
def _awake(module: nn.Module) -> Iterator[None]:
    """Gives random values to parameters that are all zero, such as the last scale of a residual branch before training.

    Such a branch would seem to see nothing, and the network what its skip connections see alone.
    """
    asleep = [one for one in module.parameters() if one.is_floating_point() and not one.detach().any()]
    before = [one.detach().clone() for one in asleep]
    with torch.no_grad():
        for one in asleep:
            one.normal_()
    try:
        yield
    finally:
        with torch.no_grad():
            for one, values in zip(asleep, before, strict=True):
                one.copy_(values)


def _dark(seen: Tensor) -> int:
    """How many there are before the first and behind the last that is seen; those between are a stride's own choice."""
    found = seen.nonzero().flatten().tolist()
    return len(seen) - (found[-1] - found[0] + 1) if found else 0
