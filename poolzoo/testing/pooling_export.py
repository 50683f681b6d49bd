"""The export check of a pooling: its ONNX graph under ONNX Runtime against the layer, with a noise-floor tolerance."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from poolzoo.testing.checked_pooling import CHANNELS, CheckedPooling, assert_finite, signed
from poolzoo.testing.graph import answer, exported

LARGE: Final = 1e3  # scale of the feature map with large numbers


def assert_exports(checked: CheckedPooling) -> None:
    """Exports a layer at 7 × 7 and 8 × 8 and compares its graph on zeros, ties, negative, large and random inputs.

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
    for side in (7, 8):
        session = exported(layer, signed(2, CHANNELS, side, side), f"{side} × {side}")
        for name, x in _inputs(side):
            _assert_same(session, layer, exact, x, f"{side} × {side}, {name}")


def _inputs(side: int) -> Iterator[tuple[str, Tensor]]:
    for count in (1, 2, 7, 64):  # with many images, ONNX Runtime uses several threads
        yield f"{count} images", signed(count, CHANNELS, side, side)
    x = signed(2, CHANNELS, side, side)
    yield "zeros", torch.zeros_like(x)
    yield "ties", (2 * x).round() / 2
    yield "negative", -x.abs()
    yield "large", LARGE * x
    yield "dead channels", x.relu() * (torch.arange(CHANNELS) % 2).view(-1, 1, 1)


def _assert_same(session: Any, layer: nn.Module, exact: nn.Module, x: Tensor, what: str) -> None:
    with torch.inference_mode():
        expected = layer(x)
        noise = (expected.double() - exact(x.double())).abs().max().item()
    found = answer(session, x)
    assert_finite(found, f"ONNX Runtime, {what}")
    assert found.shape == expected.shape, f"ONNX Runtime, {what}: shape {list(found.shape)}"
    error, scale = (found - expected).abs().max().item(), expected.abs().max().item()
    allowed = 10 * noise + 2e-6 * max(scale, 1e-3)
    assert error <= allowed, f"ONNX Runtime, {what}: differs by {error:.3g}, allowed {allowed:.3g}"
