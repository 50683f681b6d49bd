"""The export check of a pooling: its ONNX graph under ONNX Runtime against the layer, with a noise-floor tolerance."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Final

import onnx
import torch
from torch import Tensor, nn

from poolzoo.testing.checked_pooling import CHANNELS, CheckedPooling, assert_finite, signed
from poolzoo.testing.graph import exported

SIDES: Final = (7, 8)  # of feature maps
LARGE: Final = 1e3  # scale of the feature map with large numbers


def assert_exports(checked: CheckedPooling, sides: Sequence[int] = SIDES) -> onnx.ModelProto:
    """Exports a layer at 7 × 7 and 8 × 8 and compares its graph on zeros, ties, negative, large and random inputs.

    Args:
        checked: The pooling.
        sides: Sides of other feature maps, one or two.

    Returns:
        The graph, with one input and one output for each size.

    Raises:
        AssertionError: The export fails, or the graph differs by more than ten times the noise between float32 and
            float64.
    """
    geometry = None
    if checked.pooling.kind == "local":
        accepted = checked.geometries()
        geometry = accepted[1] if len(accepted) > 1 else accepted[0]  # with padding, where it is accepted
    layer = checked.build(geometry)
    exact = copy.deepcopy(layer).double()
    examples = [signed(2, CHANNELS, side, side) for side in sides]
    try:
        all_sizes = exported(layer if len(sides) == 1 else _OneLayer(layer), examples, "all sizes")
    except AssertionError:
        for side, example in zip(sides, examples, strict=True):  # names the size that fails
            exported(layer, [example], f"{side} × {side}")
        raise
    for inputs in zip(*(_inputs(side) for side in sides), strict=True):
        name, maps = inputs[0][0], [x for _, x in inputs]
        for side, x, found in zip(sides, maps, all_sizes.answers(maps), strict=True):
            _assert_same(found, layer, exact, x, f"{side} × {side}, {name}")
    return all_sizes.graph


class _OneLayer(nn.Module):
    """One layer on feature maps of two sizes: two exports at the price of little more than one."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, odd: Tensor, even: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(odd), self.layer(even)


def _inputs(side: int) -> Iterator[tuple[str, Tensor]]:
    for count in (1, 2, 7, 64):  # with many images, ONNX Runtime uses several threads
        yield f"{count} images", signed(count, CHANNELS, side, side)
    x = signed(2, CHANNELS, side, side)
    yield "zeros", torch.zeros_like(x)
    yield "ties", (2 * x).round() / 2
    yield "negative", -x.abs()
    yield "large", LARGE * x
    yield "dead channels", x.relu() * (torch.arange(CHANNELS) % 2).view(-1, 1, 1)


def _assert_same(found: Tensor, layer: nn.Module, exact: nn.Module, x: Tensor, what: str) -> None:
    with torch.inference_mode():
        expected = layer(x)
        noise = (expected.double() - exact(x.double())).abs().max().item()
    assert_finite(found, f"ONNX Runtime, {what}")
    assert found.shape == expected.shape, f"ONNX Runtime, {what}: shape {list(found.shape)}"
    error, scale = (found - expected).abs().max().item(), expected.abs().max().item()
    allowed = 10 * noise + 2e-6 * max(scale, 1e-3)
    assert error <= allowed, f"ONNX Runtime, {what}: differs by {error:.3g}, allowed {allowed:.3g}"
