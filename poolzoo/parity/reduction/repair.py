"""A change of one node with which a graph agrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from poolzoo.parity.reduction import graphs


@dataclass(frozen=True, kw_only=True)
class Repair:
    """A change of one node with which the graph agrees.

    Attributes:
        node: The name of the node's first output.
        operator: Its operator.
        part: What of it is at fault: "attribute", "constant", "weights", "input", "operator", "missing node"
            or "surplus node".
        name: The name of the attribute or constant, or the position of the input.
        found: What the graph has, in words.
        expected: What agrees, in words.
        nodes: What is in the node's place.
        constants: New and changed constants by name.
        renamed: Values in whose place all nodes but `nodes` read another one.
    """

    node: str
    operator: str
    part: str
    name: str
    found: str
    expected: str
    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def applied(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of a graph that has the node, with the change."""
        copy = graphs.with_node(graphs.renamed(proto, self.renamed), self.node, self.nodes)
        for tensor in [one for one in copy.graph.initializer if one.name in self.constants]:
            copy.graph.initializer.remove(tensor)
        tensors = [numpy_helper.from_array(np.array(one), name) for name, one in self.constants.items()]
        copy.graph.initializer.extend(tensors)
        return copy

    def to_json(self) -> dict[str, str]:
        """`culprit` in `report.json`."""
        return {
            "node": self.node,
            "operator": self.operator,
            "part": self.part,
            "name": self.name,
            "found": self.found,
            "expected": self.expected,
        }

    def describe(self) -> str:
        """In words."""
        where = f"{self.operator} {self.node!r}"
        if self.part == "missing node":
            return f"{where}: {self.expected} is missing"
        if self.part == "surplus node":
            return f"{where} is surplus: {self.expected!r} in its place agrees"
        return f"{where}: {self.part} {self.name} is {self.found}, {self.expected} agrees".replace("  ", " ")


@dataclass(frozen=True)
class Hints:
    """What torch has in the place of a region of a graph; it is tried first.

    Attributes:
        weights: Its weights, in float32.
        arguments: Numbers and lists of integers in its calls, such as an eps, an axis, a padding.
        ranks: The number of axes of the values of the graph.
    """

    weights: Sequence[np.ndarray]
    arguments: Sequence[Any]
    ranks: Mapping[str, int]

    def numbers(self) -> list[float]:
        """The arguments that are numbers."""
        return [float(one) for one in self.arguments if isinstance(one, int | float)]

    def lists(self, length: int) -> list[list[int]]:
        """The arguments that are lists of this length, or half of it: as a padding, before and behind."""
        found = [one for one in self.arguments if isinstance(one, list)]
        return [one for one in found if len(one) == length] + [one + one for one in found if 2 * len(one) == length]


def shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return str(value)


def missing_node(
    node: NodeProto,
    nodes: Sequence[NodeProto],
    text: str,
    constants: Sequence[tuple[str, Any]] = (),
) -> Repair:
    """The repair that puts several nodes in the place of one: the same one, and what is missing beside it.

    Args:
        node: The node.
        nodes: What takes its place.
        text: What was missing, in words.
        constants: Values that the nodes read, by name.
    """
    return Repair(
        node=node.output[0],
        operator=node.op_type,
        part="missing node",
        name="",
        found="",
        expected=text,
        nodes=tuple(nodes),
        constants={name: np.asarray(value) for name, value in constants},
    )
