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
from onnx import numpy_helper

from poolzoo.export.precision import half_sums, ranges
from poolzoo.export.precision.half_sums import Sums
from poolzoo.export.precision.ranges import Images, Range

FLOAT16_MAX: Final = float(np.finfo(np.float16).max)
FLOAT16_MIN_NORMAL: Final = float(np.finfo(np.float16).tiny)  # below it bits are lost
HEADROOM: Final = 4.0  # other images may give larger values than the measured ones
MAX_ROUNDING: Final = 1 / 64  # of the norm of a constant
SUM_IMAGES: Final = 16  # on which sums inside convolutions and products are measured, where a bound says too little

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
    sums = Sums(proto)
    found = ranges.measure(sums.graph, inputs)
    inside = sums.inside
    if products := half_sums.too_large(proto, found, FLOAT16_MAX / HEADROOM):
        sums = Sums(proto, products)
        rows = np.unique(np.linspace(0, len(inputs) - 1, min(len(inputs), SUM_IMAGES)).round().astype(int))
        measured = ranges.measure(sums.graph, inputs[rows])
        found |= {name: measured[name] for names in sums.inside.values() for name in names}
        inside = {**inside, **sums.inside}
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
    for name, count in half_sums.long_softmaxes(proto, FLOAT16_MAX / HEADROOM).items():
        reasons.setdefault(name, f"it sums {count:,} exponentials")
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


def _is_tensor(node: Node) -> bool:
    return node.op_type == "Constant" and node.attribute[0].name == "value"
