"""The sums inside a float32 graph's nodes, as nodes that compute them: a result does not show what overflows before it.

Sums of magnitudes bound the sums themselves, and every partial sum of them. So a mean, a norm or a convolution whose
terms cancel is seen as well. Those of convolutions and matrix products cost as much as the node. They are computed only
where a bound, the largest input times the sum of the weights, does not already show that they fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from poolzoo.export.precision.ranges import Range

Node = onnx.NodeProto
WINDOW: Final = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")  # attributes of a LpPool
LP_POOL_18: Final = ("ceil_mode", "dilations")  # that it has since opset 18
PRODUCTS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")


class Sums:
    """A copy of a graph with nodes for the sums inside its nodes.

    Attributes:
        graph: The copy.
        inside: The names of the sums by the name of their node.
    """

    def __init__(self, proto: onnx.ModelProto, products: Collection[str] | None = None) -> None:
        """Adds the sums of reductions and poolings; or with `products`, of the products of these names instead."""
        self.graph = onnx.ModelProto()
        self.graph.CopyFrom(proto)
        self.inside: dict[str, list[str]] = {}
        self._opset = max((one.version for one in proto.opset_import if not one.domain), default=18)
        known = onnx.shape_inference.infer_shapes(proto).graph
        values = [v for v in (*known.input, *known.value_info, *known.output) if _is_float(v)]
        self._ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
        self._nodes: list[Node] = []
        for node in proto.graph.node:
            self._nodes.append(node)
            if products is None:
                self._add_sums(node)
            elif node.name in products:
                self._add_product(node)
        del self.graph.graph.node[:]
        self.graph.graph.node.extend(self._nodes)

    def _add_sums(self, node: Node) -> None:
        rank = self._ranks.get(node.input[0]) if node.input else None
        chain = SUMS.get(node.op_type)
        if rank is None or chain is None:
            return
        value = node.input[0]
        for kind, others, attributes in chain(self, node, rank):
            value = self._append(node, kind, [value, *others], **attributes)
            self.inside.setdefault(node.name, []).append(value)

    def _add_product(self, node: Node) -> None:
        """The same node without a bias, of the magnitudes of its inputs."""
        factors = list(node.input) if node.op_type == "Einsum" else node.input[:2]  # the third one is a bias
        factors = [self._append(node, "Abs", [name], suffix=f"/{index}") for index, name in enumerate(factors)]
        copy = Node()
        copy.CopyFrom(node)
        result = f"{node.name}/{node.op_type}"
        copy.name = copy.output[0] = result
        copy.input[:] = factors
        for one in copy.attribute:
            if one.name == "alpha":
                one.f = abs(one.f)
        self._nodes.append(copy)
        self.inside.setdefault(node.name, []).append(result)

    def _append(self, node: Node, kind: str, inputs: list[str], *, suffix: str = "", **attributes: Any) -> str:
        result = f"{node.name}/{kind}{suffix}"
        self._nodes.append(helper.make_node(kind, inputs, [result], name=result, **attributes))
        return result

    def constant(self, node: Node, kind: str, value: np.ndarray) -> str:
        """The name of a constant of a node, added to the graph."""
        name = f"{node.name}/{kind}"
        self.graph.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    @property
    def opset(self) -> int:
        """The opset of the graph."""
        return self._opset


def too_large(proto: onnx.ModelProto, found: Mapping[str, Range], limit: float) -> list[str]:
    """The names of the convolutions and products whose sums a bound does not show to stay below a limit.

    Args:
        proto: The graph.
        found: The ranges of its values.
        limit: The limit.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    known = onnx.shape_inference.infer_shapes(proto).graph
    shapes = {value.name: _sides(value) for value in (*known.input, *known.value_info, *known.output)}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in PRODUCTS and len(node.input) >= 2 and _bound(node, constants, shapes, found) > limit
    ]


def long_softmaxes(proto: onnx.ModelProto, limit: float) -> dict[str, int]:
    """How many exponentials a Softmax sums, by the node's name, where that is above a limit: each may be one."""
    known = onnx.shape_inference.infer_shapes(proto).graph
    shapes = {value.name: _sides(value) for value in (*known.input, *known.value_info, *known.output)}
    nodes = [node for node in proto.graph.node if node.op_type == "Softmax" and shapes.get(node.input[0])]
    counts = {node.name: shapes[node.input[0]][_attribute(node, "axis", -1)] for node in nodes}
    return {name: count for name, count in counts.items() if count > limit}


def _bound(
    node: Node, constants: Mapping[str, onnx.TensorProto], shapes: Mapping[str, list[int]], found: Mapping[str, Range]
) -> float:
    """A bound of the sums inside a product; 0 where its factors are not measured, such as integers."""
    first, second = node.input[:2]
    if first in constants or first not in found:
        return 0.0 if first not in found and first not in constants else math.inf
    largest = found[first].largest
    if second in constants:
        weight = np.abs(numpy_helper.to_array(constants[second]))
        if node.op_type == "Conv":
            return largest * float(weight.reshape(len(weight), -1).sum(1).max(initial=0))
        if node.op_type == "ConvTranspose":
            return largest * float(weight.sum((0, *range(2, weight.ndim))).max(initial=0))
        if node.op_type == "Gemm":
            return largest * float(weight.sum(1 if _attribute(node, "transB", 0) else 0).max(initial=0))
        if node.op_type == "MatMul":
            return largest * float(weight.sum(max(weight.ndim - 2, 0)).max(initial=0))
        return math.inf
    sides = shapes.get(first, [])
    if node.op_type != "MatMul" or second not in found or not sides or not sides[-1]:
        return math.inf
    return largest * found[second].largest * sides[-1]


Attributes = dict[str, Any]  # of a node, as onnx takes them
Chain = list[tuple[str, list[str], Attributes]]  # operators on a node's first input: kind, more inputs, attributes


def _reduction(*kinds: str) -> Callable[[Sums, Node, int], Chain]:
    def chain(sums: Sums, node: Node, rank: int) -> Chain:
        found: Chain = []
        for kind in kinds:
            found.append((kind, [] if kind == "Exp" else _axes(sums, node, rank), {}))
        return found

    return chain


def _power_pool(sums: Sums, node: Node, rank: int) -> Chain:
    """The powers that a pooling sums, in windows or over the whole map."""
    power = float(_attribute(node, "p", 2))
    found: Chain = [("Abs", [], {})]
    if power != 1:
        found.append(("Pow", [sums.constant(node, "p", np.array(power, np.float32))], {}))
    return [*found, (node.op_type, [], {**_window(sums, node), "p": 1})]


def _average_pool(sums: Sums, node: Node, rank: int) -> Chain:
    return [("LpPool", [], {**_window(sums, node), "p": 1})]


def _norm(sums: Sums, node: Node, rank: int) -> Chain:
    kind = "ReduceL1" if _attribute(node, "p", 2) == 1 else "ReduceSumSquare"
    return [(kind, _axes(sums, node, rank), {})]


SUMS: Final[dict[str, Callable[[Sums, Node, int], Chain]]] = {
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceLogSum", "GlobalAveragePool"), _reduction("ReduceL1")
    ),
    **dict.fromkeys(
        (
            "ReduceSumSquare",
            "ReduceL2",
            "LayerNormalization",
            "RMSNormalization",
            "InstanceNormalization",
            "GroupNormalization",
        ),
        _reduction("ReduceSumSquare"),
    ),
    "LpNormalization": _norm,
    **dict.fromkeys(("GlobalLpPool", "LpPool"), _power_pool),
    "AveragePool": _average_pool,
    "ReduceLogSumExp": _reduction("Exp", "ReduceSum"),
    **dict.fromkeys(("Softplus", "Mish"), _reduction("Exp")),
}


def _axes(sums: Sums, node: Node, rank: int) -> list[str]:
    """The name of the axes that a node sums over, added to the graph where it has none; empty for all axes."""
    if node.op_type.startswith("Reduce"):
        return list(node.input[1:2])
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        axes = np.arange(_attribute(node, "axis", -1) % max(rank, 1), rank)
    elif node.op_type == "LpNormalization":
        axes = np.array([_attribute(node, "axis", -1)])
    else:
        axes = np.arange(1 if node.op_type == "GroupNormalization" else 2, rank)
    return [sums.constant(node, "axes", axes.astype(np.int64))]


def _window(sums: Sums, node: Node) -> Attributes:
    kept = {one.name: helper.get_attribute_value(one) for one in node.attribute if one.name in WINDOW}
    return {name: value for name, value in kept.items() if sums.opset >= 18 or name not in LP_POOL_18}


def _attribute(node: Node, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def _sides(value: onnx.ValueInfoProto) -> list[int]:
    return [side.dim_value for side in value.type.tensor_type.shape.dim]


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)
