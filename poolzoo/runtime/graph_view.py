"""A graph with what rules on it look up: constants, producers and shapes by the name of a value. Needs onnx."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

if TYPE_CHECKING:
    from onnx import NodeProto

WINDOWED: Final = {"Conv", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"}


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


@dataclass(frozen=True)
class GraphView:
    """A graph with its constants, producers and shapes by the name of a value."""

    graph: onnx.GraphProto

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        return {output: node for node in self.graph.node for output in node.output}

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def shapes(self) -> dict[str, tuple[int | str, ...]]:
        """Shapes as far as the file states them; a dimension without a number is its name."""
        known = (*self.graph.input, *self.graph.value_info, *self.graph.output)
        return {
            value.name: tuple(
                d.dim_value if d.HasField("dim_value") else d.dim_param for d in value.type.tensor_type.shape.dim
            )
            for value in known
            if value.type.tensor_type.HasField("shape")
        }

    @cached_property
    def behind_windows(self) -> set[str]:
        """Values that depend on a convolution or a pooling."""
        behind: set[str] = set()
        for node in self.graph.node:
            if node.op_type in WINDOWED or not behind.isdisjoint(node.input):
                behind.update(node.output)
        return behind

    def made_by(self, value: str, operator: str) -> NodeProto | None:
        """The node that computes a value, where it is of this type."""
        node = self.producers.get(value)
        return node if node is not None and node.op_type == operator else None

    def constant(self, value: str) -> np.ndarray | None:
        """The numbers of a constant, None for what the graph computes."""
        if value in self.initializers:
            return onnx.numpy_helper.to_array(self.initializers[value])
        node = self.made_by(value, "Constant")
        value_of = attribute(node, "value") if node else None
        return onnx.numpy_helper.to_array(value_of) if isinstance(value_of, onnx.TensorProto) else None
