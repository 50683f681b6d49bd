"""What a pooling layer costs: its output features, its parameters and its time; and a network's parameters and MACs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from poolzoo.common import timing
from poolzoo.model import surgery
from poolzoo.model.geometry import Geometry
from poolzoo.model.pooling import build_pooling
from poolzoo.plugin import loader, spec

if TYPE_CHECKING:
    from poolzoo.model.assemble import Assembly

CHANNELS: Final = (64, 512)  # of a small network's feature map, and of ResNet-18's
SHAPES: Final[dict[spec.Kind, tuple[int, int, int, int]]] = {
    "global": (8, 512, 7, 7),
    "local": (8, 64, 32, 32),
}  # of the feature maps on which costs are measured
GEOMETRY: Final = Geometry(kernel_size=2, stride=2)  # of the local layers that are measured
SECONDS: Final = 0.5


@dataclass(frozen=True)
class LayerSize:
    """Size of a pooling layer by the channels of its input.

    Attributes:
        out_features: Features of the pooled vector; the output channels of a local layer.
        parameters: Number of parameters.
    """

    out_features: dict[int, int]
    parameters: dict[int, int]

    def to_json(self) -> dict[str, dict[int, int]]:
        return {"out_features": self.out_features, "parameters": self.parameters}


@dataclass(frozen=True)
class LayerCost:
    """Time of a pooling layer, on one thread of this machine.

    Attributes:
        shape: Of the feature map that it was measured on, (N, C, H, W).
        forward_ms: Milliseconds of a forward pass.
        training_ms: Milliseconds of a forward and a backward pass.
        passes_over_the_map: The forward pass as a multiple of `x.sum()`.
    """

    shape: tuple[int, int, int, int]
    forward_ms: float
    training_ms: float
    passes_over_the_map: float

    def to_json(self) -> dict[str, object]:
        return {
            "map": list(self.shape),
            "forward_ms": self.forward_ms,
            "training_ms": self.training_ms,
            "passes_over_the_map": self.passes_over_the_map,
        }


def build_layer(resolved: loader.Resolved, channels: int, map_size: tuple[int, int]) -> nn.Module:
    """A pooling layer; local ones have windows of 2 × 2 and stride 2."""
    if _kind(resolved) == "global":
        return build_pooling(resolved, channels, map_size)
    return GEOMETRY.build(resolved.build, channels, resolved.options)


def _kind(resolved: loader.Resolved) -> spec.Kind:
    assert isinstance(resolved.item, spec.Pooling)
    return resolved.item.kind


def layer_size(resolved: loader.Resolved) -> LayerSize:
    """Measures the out_features and counts the parameters of a pooling.

    Raises:
        Exception: Whatever a plugin's code raises.
    """
    out_features, parameters = {}, {}
    for channels in CHANNELS:
        layer = build_layer(resolved, channels, (8, 8)).eval()
        with torch.inference_mode():
            out_features[channels] = layer(torch.zeros(1, channels, 8, 8)).shape[1]
        parameters[channels] = sum(p.numel() for p in layer.parameters())
    return LayerSize(out_features, parameters)


def layer_cost(resolved: loader.Resolved) -> LayerCost:
    """Measures the time of a pooling; the measurements are interleaved."""
    shape = SHAPES[_kind(resolved)]
    layer, x = build_layer(resolved, shape[1], (shape[2], shape[3])).eval(), torch.randn(shape)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = timing.interleaved(timed_calls(layer, x), SECONDS)
    finally:
        torch.set_num_threads(threads)
    return LayerCost(
        shape=shape,
        forward_ms=round(statistics.median(times["forward"]), 4),
        training_ms=round(statistics.median(times["training"]), 4),
        passes_over_the_map=round(timing.ratio(times["forward"], times["sum"]), 2),
    )


def timed_calls(layer: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    """What to time: a forward pass without gradients, one with a backward pass, and reading the feature map once."""
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


def parameters_and_macs(assembly: Assembly) -> tuple[int, int]:
    """Number of parameters, and multiply–accumulate operations for one image (half of torch's count of FLOPs)."""
    from torch.utils.flop_counter import FlopCounterMode

    network = assembly.network
    with FlopCounterMode(display=False) as counter:
        surgery.dry_run(network, torch.randn(1, 3, *assembly.image_size, device=next(network.parameters()).device))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2
