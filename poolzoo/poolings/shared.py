"""What several families of poolings need: precision, normalization, constants that depend on sizes alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST_RMS = 1e-3  # floor of the divisor when a vector is normalized, as in LayerNorm with its eps of 1e-6


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or float64 if it is: sums of powers and exponentials need the range and the precision."""
    return x if x.dtype == torch.float64 else x.float()


def normalized(x: Tensor, dim: int) -> Tensor:
    """`x / ‖x‖₂` along `dim`; the root mean square in the divisor is at least 1e-3.

    With a smaller floor, such as torch's 1e-12, the gradient at zero is 1e12.
    """
    if torch.compiler.is_exporting():  # the root has no gradient at zero, but its graph needs no ReduceL2 and Expand
        return x / (x * x).sum(dim, keepdim=True).sqrt().clamp(min=_smallest_norm(x.shape[dim]))
    return x * inverse_norm(torch.linalg.vector_norm(x, dim=dim, keepdim=True), x.shape[dim])


def inverse_norm(norm: Tensor, length: int) -> Tensor:
    """What `normalized` multiplies a vector of so many numbers by. The gradient of a quotient costs twice as much."""
    return norm.clamp(min=_smallest_norm(length)).reciprocal()


def _smallest_norm(length: int) -> float:
    return SMALLEST_RMS * math.sqrt(length)


def mixture(a: Tensor, b: Tensor, share: Tensor | float) -> Tensor:
    """`a + share (b − a)`; torch has it as one operator, whose graph computes both of its forms and chooses."""
    return a + share * (b - a) if torch.compiler.is_exporting() else torch.lerp(a, b, share)


class GlobalPooling(nn.Module):
    """The base of global poolings without options: `float[N, C, H, W] → float[N, D]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()


def divisor_at_most(most: int, number: int) -> int:
    """The largest divisor of `number` that is not above `most`."""
    return next(d for d in range(min(most, number), 0, -1) if number % d == 0)


def constant(
    make: Callable[..., list[Any]], *sizes: int | str, like: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """`make(*sizes)` as a tensor on the device of `like`, cached for each device and dtype.

    Not cached while a graph is traced (export, compilation, fake tensors), where it is no tensor to keep.
    """
    dtype = dtype or like.dtype
    if torch.compiler.is_compiling() or type(like) not in (Tensor, nn.Parameter):
        return torch.tensor(make(*sizes), dtype=dtype, device=like.device)
    return _cached(make, sizes, dtype, like.device)


@cache
def _cached(
    make: Callable[..., list[Any]], sizes: tuple[int | str, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # a tensor made in inference mode could never be used in training
        return torch.tensor(make(*sizes), dtype=dtype, device=device)
