"""Ranks the layers of a graph by the harm that lower precision does to the logits when it rounds one layer alone.

Rounding all layers but one would hide a layer behind another that does as much harm. Rounding one alone shows both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from poolzoo.artifacts import schema
from poolzoo.common import output
from poolzoo.export.precision.switches import Rounding, SwitchedGraph
from poolzoo.parity.layers import Layers
from poolzoo.runtime.graph_view import GraphView

PRODUCTS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
IMAGES: Final = 16  # calibration images on which harm is measured


@dataclass(frozen=True)
class LowLayer:
    """A layer that lower precision rounds.

    Attributes:
        path: The module's path; a node's name where no module is known.
        nodes: Its nodes, by name. If these stay in float32, so does the layer.
        values: The values that are rounded for it, by name: its inputs, outputs and weights.
        weighted: Whether it multiplies with a stored matrix or kernel, which is where the work is.
    """

    path: str
    nodes: tuple[str, ...]
    values: frozenset[str]
    weighted: bool


@dataclass(frozen=True)
class LayerHarm:
    """What rounding one layer alone does to the logits.

    Attributes:
        layer: The module's path.
        nodes: Its nodes, by name.
        harm: The root mean square difference of the logits, as a fraction of their standard deviation over classes and
            images; infinite where a logit is not finite.
        weighted: Whether it multiplies with a stored matrix or kernel.
    """

    layer: str
    nodes: tuple[str, ...]
    harm: float
    weighted: bool

    def to_json(self) -> schema.FloatLayer:
        """An entry of `layers` in `search` of a candidate; a harm that is infinite is None."""
        harm = self.harm if np.isfinite(self.harm) else None
        return {"layer": self.layer, "nodes": list(self.nodes), "harm": harm}


def low_layers(
    proto: onnx.ModelProto,
    names: Layers,
    float32: Collection[str],
    roundings: Mapping[str, Rounding],
    operators: Collection[str] | None = None,
) -> list[LowLayer]:
    """The layers that lower precision rounds, in the graph's order.

    Args:
        proto: The graph in float32.
        names: Which of its values are which layers'.
        float32: Nodes that stay in float32 in any case.
        roundings: How lower precision rounds the values.
        operators: Operators that lower precision converts; None for all. A `Relu` that is none of them has one
            rounded output together with the node before it.
    """
    view = GraphView(proto.graph)
    weighted: set[str] = set()
    nodes: dict[str, list[str]] = {}
    values: dict[str, set[str]] = {}
    for node in proto.graph.node:
        if node.name in float32 or (operators is not None and node.op_type not in operators):
            continue
        given = (*node.input, *node.output)
        touched = {name for name in given if name in roundings and roundings[name].concerns(node)}
        for name in node.output if operators is not None else ():
            behind = view.users.get(name, [])
            if name not in roundings and len(behind) == 1 and behind[0].op_type in ("Relu", "Clip"):
                touched |= {one for one in behind[0].output if one in roundings}
        if touched:
            path = _path(node, names)
            nodes.setdefault(path, []).append(node.name)
            values.setdefault(path, set()).update(touched)
            if node.op_type in PRODUCTS and node.input[1] in view.initializers:
                weighted.add(path)
    return [LowLayer(path, tuple(nodes[path]), frozenset(values[path]), path in weighted) for path in nodes]


def rank(
    proto: onnx.ModelProto, roundings: Mapping[str, Rounding], layers: Sequence[LowLayer], batches: Sequence[np.ndarray]
) -> list[LayerHarm]:
    """Measures the harm of each layer, and returns the layers in descending order of it.

    Args:
        proto: The graph in float32.
        roundings: How lower precision rounds its values.
        layers: The layers.
        batches: Images as the graph's input.
    """
    graph = SwitchedGraph(proto, roundings)
    exact = graph.logits(batches, ()).astype(np.float64)
    spread = float(exact.std()) or 1.0
    found = []
    with output.progress("harm of each layer", len(layers)) as bar:
        for done, layer in enumerate(layers, start=1):
            difference = graph.logits(batches, layer.values).astype(np.float64) - exact
            harm = float(np.sqrt(np.mean(np.square(difference)))) / spread
            harm = harm if np.isfinite(harm) else float("inf")
            found.append(LayerHarm(layer.path, layer.nodes, harm, layer.weighted))
            bar.update(done)
    return sorted(found, key=lambda one: -one.harm)


def _path(node: onnx.NodeProto, names: Layers) -> str:
    """The module whose weight a node reads; for others, the innermost module that it belongs to."""
    weights = [name for name in node.input if name.endswith(".weight")]
    if weights:
        return str(weights[0]).removesuffix(".weight")
    inside = [path for path, values in names.inside.items() if path and values.intersection(node.output)]
    return max(inside, key=lambda path: path.count("."), default=node.name)
