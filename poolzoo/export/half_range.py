"""Finds the nodes of a float32 graph whose values overflow or vanish in half precision.

Half precision ends at 65,504 and has its full eleven bits from 6.1e-5 upwards. Every value is measured on images, and
so are sums inside a node, which its result does not show: a mean of 50,000 tens is 10, and its sum overflows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from poolzoo.export import ranges
from poolzoo.export.ranges import Images, Range

FLOAT16_MAX: Final = float(np.finfo(np.float16).max)
FLOAT16_MIN_NORMAL: Final = float(np.finfo(np.float16).tiny)  # below it bits are lost
HEADROOM: Final = 4.0  # other images may give larger values than the measured ones
MAX_ROUNDING: Final = 1 / 64  # of the norm of a constant
# The sums inside a node, as nodes on its first input; the sum keeps the node's axes.
SUMS: Final = {
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceL1", "ReduceLogSum", "GlobalAveragePool"), ("ReduceL1",)),
    **dict.fromkeys(("ReduceSumSquare", "ReduceL2", "LpNormalization", "GlobalLpPool"), ("ReduceSumSquare",)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "InstanceNormalization"), ("ReduceSumSquare",)),
    "GroupNormalization": ("ReduceSumSquare",),
    "ReduceLogSumExp": ("Exp", "ReduceSum"),
    **dict.fromkeys(("Softplus", "Mish"), ("Exp",)),
}

Node = onnx.NodeProto


@dataclass(frozen=True)
class RangeAnalysis:
    """Which nodes of a graph have to stay in float32.

    Attributes:
        reasons: Why a node has to stay in float32, by the node's name, in the graph's order.
        largest: The largest finite magnitude inside the graph.
        value: The value, or the sum inside a node, that has it.
        images: On how many images the values were measured.
        finite: The values that are finite in float32 on all of them.
    """

    reasons: Mapping[str, str]
    largest: float
    value: str
    images: int
    finite: frozenset[str]


def analyze(proto: onnx.ModelProto, inputs: Images) -> RangeAnalysis:
    """Measures every value of a graph in float32.

    Args:
        proto: The graph; all of its nodes have names.
        inputs: Images as the graph's input.
    """
    with_sums, inside = _with_sums(proto)
    found = ranges.measure(with_sums, inputs)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    constants |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in proto.graph.node if _is_tensor(n)}
    reasons = {node.name: reason for node in proto.graph.node if (reason := _constants_problem(node, constants))}
    for node in proto.graph.node:
        for name in (*node.input, *node.output):
            if name in found and (reason := _problem(found[name])):
                reasons.setdefault(node.name, f"{name} {reason}")
        for name in inside.get(node.name, ()):
            if found[name].largest > FLOAT16_MAX / HEADROOM:
                reasons.setdefault(node.name, f"a sum inside it reaches {found[name].largest:.3g}")
    largest_value, largest = ranges.largest(found)
    order = {node.name: index for index, node in enumerate(proto.graph.node)}
    owner = next((name for name, sums in inside.items() if largest_value in sums), None)
    return RangeAnalysis(
        reasons=dict(sorted(reasons.items(), key=lambda item: order[item[0]])),
        largest=largest,
        value=f"a sum inside {owner}" if owner else largest_value,
        images=len(inputs),
        finite=frozenset(name for name, of in found.items() if np.isfinite(of.largest)),
    )


def _problem(of: Range) -> str:
    """Why a value does not fit into half precision, in words; empty where it does."""
    if not of.largest <= FLOAT16_MAX / HEADROOM:
        return f"reaches {of.largest:.3g}"
    if 0 < of.largest < FLOAT16_MIN_NORMAL:
        return f"stays below {of.largest:.3g}"
    return ""


def _with_sums(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, list[str]]]:
    """The graph with additional nodes for the sums inside its nodes, and the names of the sums by node."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = onnx.shape_inference.infer_shapes(proto).graph
    values = [v for v in (*known.input, *known.value_info, *known.output) if _is_float(v)]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    nodes: list[Node] = []
    inside: dict[str, list[str]] = {}
    for node in proto.graph.node:
        nodes.append(node)
        value = node.input[0] if node.input else ""
        rank = ranks.get(value)
        if rank is None:
            continue
        for kind in SUMS.get(node.op_type, ()):
            result = f"{node.name}/{kind}"
            inputs = [value] if kind == "Exp" else [value, *_axes(node, rank, copy.graph)]
            nodes.append(helper.make_node(kind, inputs, [result], name=result))
            inside.setdefault(node.name, []).append(result)
            value = result
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy, inside


def _axes(node: Node, rank: int, graph: onnx.GraphProto) -> list[str]:
    """The name of the axes that a node sums over, added to the graph where it has none; empty for all axes."""
    if node.op_type.startswith("Reduce"):
        return list(node.input[1:2])
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        axes = np.arange(_axis(node) % max(rank, 1), rank)
    elif node.op_type == "LpNormalization":
        axes = np.array([_axis(node)])
    else:
        axes = np.arange(1 if node.op_type == "GroupNormalization" else 2, rank)
    name = f"{node.name}/axes"
    graph.initializer.append(numpy_helper.from_array(axes.astype(np.int64), name))
    return [name]


def _constants_problem(node: Node, constants: Mapping[str, np.ndarray]) -> str:
    """Why a node's constants cannot be rounded, in words; empty where they can."""
    for name in (*node.input, *node.output):
        if name in constants and (reason := _constant_problem(constants[name])):
            return f"{name} {reason}"
    epsilon = next((one.f for one in node.attribute if one.name == "epsilon"), None)
    if epsilon is not None and (reason := _constant_problem(np.array(epsilon, np.float32))):
        return f"its epsilon {reason}"
    return ""


def _constant_problem(constant: np.ndarray) -> str:
    """Why a constant cannot be rounded to half precision, in words; empty where it can."""
    if constant.dtype != np.float32 or not constant.size:
        return ""
    wide = constant[np.isfinite(constant)].astype(np.float64)
    if wide.size and np.abs(wide).max() > FLOAT16_MAX:
        return f"holds {np.abs(wide).max():.3g}"
    error = np.linalg.norm(wide - wide.astype(np.float16)) if wide.size else 0.0
    if error > MAX_ROUNDING * np.linalg.norm(wide):
        return f"holds nothing above {np.abs(wide).max():.3g}"
    return ""


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def _is_tensor(node: Node) -> bool:
    return node.op_type == "Constant" and node.attribute[0].name == "value"


def _axis(node: Node) -> int:
    """The attribute `axis`; -1 where there is none."""
    return next((int(one.i) for one in node.attribute if one.name == "axis"), -1)
