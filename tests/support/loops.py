"""Pooling as the textbook writes it: loops over windows in numpy. The oracle of every local strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

import poolzoo

GEOMETRIES = [(2, 2, 0, False), (3, 2, 1, False), (3, 2, 0, True), (3, 1, 1, False), (2, 2, 0, True)]
SIZES = [(8, 8), (7, 5), (13, 9), (4, 4), (3, 3)]


def layer(text: str, kind: str = "global", geometry=(2, 2, 0, False), channels: int = 6, **options) -> nn.Module:
    """A layer in eval mode and float64, in which oracles are compared."""
    kernel_size, stride, padding, ceil_mode = geometry
    sizes = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    return poolzoo.create_pooling(text, channels, kind, **sizes, **options).double().eval()


def signed(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every parameter random numbers, so that none is zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module


def output_size(shape: tuple[int, ...], geometry) -> tuple[int, int]:
    kernel_size, stride, padding, ceil_mode = geometry
    pool = nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode)
    return tuple(pool(torch.zeros(1, 1, *shape[-2:])).shape[2:])


def windows(plane: np.ndarray, geometry) -> Iterator[tuple[int, int, np.ndarray]]:
    """For each output position, the part of the plane that its window covers."""
    kernel_size, stride, padding, _ = geometry
    rows, columns = output_size(plane.shape, geometry)
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride - padding, j * stride - padding
            yield i, j, plane[max(top, 0) : top + kernel_size, max(left, 0) : left + kernel_size]


def by_loops(x: Tensor, geometry, reduce: Callable[[np.ndarray], float]) -> np.ndarray:
    """`reduce` of every window of every plane."""
    return by_planes(x, geometry, lambda plane: [(i, j, reduce(w)) for i, j, w in windows(plane, geometry)])


def by_planes(x: Tensor, geometry, entries: Callable[[np.ndarray], list[tuple[int, int, float]]]) -> np.ndarray:
    rows, columns = output_size(x.shape, geometry)
    result = np.full((*x.shape[:2], rows, columns), np.nan)
    for image in range(x.shape[0]):
        for channel in range(x.shape[1]):
            for i, j, value in entries(x[image, channel].numpy()):
                result[image, channel, i, j] = value
    return result


def assert_equal(found: Tensor, expected: np.ndarray | Tensor, tolerance: float = 1e-10) -> None:
    expected = expected.detach().numpy() if isinstance(expected, Tensor) else expected
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=tolerance * scale)
