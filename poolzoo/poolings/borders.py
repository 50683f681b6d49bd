"""Padding that repeats the feature map, as slices joined together: not every runtime has ONNX's `Pad` for it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Margins = tuple[int, int, int, int]  # columns before and after, rows before and after, as `F.pad` takes them


def wrapped(x: Tensor, margin: int) -> Tensor:
    """The feature map with a margin from its opposite side all around, as `F.pad` with "circular"."""
    for dim in (3, 2):
        last = x.narrow(dim, x.shape[dim] - margin, margin)
        x = torch.cat((last, x, x.narrow(dim, 0, margin)), dim)
    return x


def mirrored(x: Tensor, margins: Margins) -> Tensor:
    """The feature map with margins that mirror it, as `F.pad` with "reflect"; a small one repeats its border."""
    small = max(margins[:2]) >= x.shape[3] or max(margins[2:]) >= x.shape[2]
    if small or not torch.compiler.is_exporting():
        return F.pad(x, margins, mode="replicate" if small else "reflect")
    for dim, before, after in ((3, *margins[:2]), (2, *margins[2:])):
        last = x.shape[dim] - 1
        rows = [*range(before, 0, -1), None, *range(last - 1, last - 1 - after, -1)]
        if len(rows) > 1:
            x = torch.cat([x if row is None else x.narrow(dim, row, 1) for row in rows], dim)
    return x
