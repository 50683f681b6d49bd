"""What a pooling layer measures up to: the width it gives, its parameters, what it costs on this machine."""

from __future__ import annotations

import statistics
from typing import Any, Final

import torch
from torch import Tensor, nn

from poolzoo.common import timing
from poolzoo.model.assemble import build_pooling
from poolzoo.plugin import loader

CHANNELS: Final = (64, 512)  # of a small network's map, and of ResNet-18's
SHAPES: Final[dict[str, tuple[int, int, int, int]]] = {
    "global": (8, 512, 7, 7),
    "local": (8, 64, 32, 32),
}  # of the maps that costs are measured on
GEOMETRY: Final = (2, 2, 0, False)  # of the local layers that are measured
SECONDS: Final = 0.5


def build_for(resolved: loader.Resolved, channels: int, map_size: tuple[int, int]) -> nn.Module:
    """A layer, local ones with windows of 2 × 2 and stride 2."""
    if resolved.item.kind == "global":
        return build_pooling(resolved, channels, map_size)
    return resolved.build(channels, *GEOMETRY, **resolved.options)


def sizes(resolved: loader.Resolved) -> dict[str, dict[int, int]]:
    """Output width and number of parameters, by channels of the input.

    Raises:
        Exception: Whatever a plugin's code raises.
    """
    found: dict[str, dict[int, int]] = {"width": {}, "parameters": {}}
    for channels in CHANNELS:
        layer = build_for(resolved, channels, (8, 8)).eval()
        with torch.inference_mode():
            found["width"][channels] = layer(torch.zeros(1, channels, 8, 8)).shape[1]
        found["parameters"][channels] = sum(p.numel() for p in layer.parameters())
    return found


def cost(resolved: loader.Resolved) -> dict[str, Any]:
    """Milliseconds of a forward pass and of one with its gradients, and the first in passes over the map (`x.sum()`).

    On one thread of this machine, interleaved; the shape of the map is among the answers.
    """
    shape = SHAPES[resolved.item.kind]
    layer, x = build_for(resolved, shape[1], (shape[2], shape[3])).eval(), torch.randn(shape)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = timing.interleaved(calls(layer, x), SECONDS)
    finally:
        torch.set_num_threads(threads)
    return {
        "map": list(shape),
        "forward_ms": round(statistics.median(times["forward"]), 4),
        "training_ms": round(statistics.median(times["training"]), 4),
        "passes_over_the_map": round(timing.ratio(times["forward"], times["sum"]), 2),
    }


def calls(layer: nn.Module, x: Tensor) -> dict[str, Any]:
    """What is timed: a forward pass without gradients, one with, and reading the map once."""
    tracked = x.detach().requires_grad_()  # the same memory, so that all layers that are compared read the same
    with torch.no_grad():
        ones = torch.ones_like(layer(x))

    def forward() -> None:
        with torch.inference_mode():
            layer(x)

    def training() -> None:
        layer(tracked).backward(ones)
        tracked.grad = None

    return {"forward": forward, "training": training, "sum": x.sum}
