"""A graph with what rules and rewrites look up: constants, producers, users and shapes by name. Needs onnx."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from onnx import NodeProto


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def used(nodes: Sequence[NodeProto], outputs: Set[str]) -> list[NodeProto]:
    """The nodes that the outputs depend on, in the same order; a rewrite may leave others behind."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


@dataclass(frozen=True)
class GraphView:
    """A graph with its constants, producers, users and shapes by the name of a value, as it was when they were read."""

    graph: onnx.GraphProto

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        return {output: node for node in self.graph.node for output in node.output}

    @cached_property
    def users(self) -> dict[str, list[NodeProto]]:
        """The nodes that read a value, once for each input."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def outputs(self) -> set[str]:
        return {value.name for value in self.graph.output}

    @cached_property
    def floats(self) -> set[str]:
        """The values that the file states to be float32."""
        known = (*self.graph.input, *self.graph.value_info, *self.graph.output)
        return {one.name for one in known if one.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}

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

    def made_by(self, value: str, operator: str) -> NodeProto | None:
        """The node that computes a value, where it is of this type."""
        node = self.producers.get(value)
        return node if node is not None and node.op_type == operator else None

    def sides(self, value: str) -> list[int]:
        """The shape of a value with 0 for what the file does not state as a number; empty where it states none."""
        return [side if isinstance(side, int) else 0 for side in self.shapes.get(value, ())]

    def constant(self, value: str) -> np.ndarray | None:
        """The numbers of a constant, None for what the graph computes."""
        if value in self.initializers:
            return onnx.numpy_helper.to_array(self.initializers[value])
        node = self.made_by(value, "Constant")
        value_of = attribute(node, "value") if node else None
        return onnx.numpy_helper.to_array(value_of) if isinstance(value_of, onnx.TensorProto) else None
