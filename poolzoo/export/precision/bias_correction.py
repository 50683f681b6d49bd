"""Corrects the biases of quantized layers: rounded weights shift the mean of an output channel, and its bias undoes it.

Nagel, van Baalen, Blankevoort, Welling: Data-Free Quantization Through Weight Equalization and Bias Correction, 2019,
section 4.2, with means that are measured on images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from poolzoo.export.precision.switches import Rounding
from poolzoo.runtime.graph_view import GraphView, attribute
from poolzoo.runtime.ort_session import LOG_FATAL


def measure(
    proto: onnx.ModelProto, roundings: Mapping[str, Rounding], batches: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """What to add to the bias of each convolution and linear layer, `float32[channels]`, by the node's name.

    It is the mean over images and locations of what the layer computes with its exact weights, minus the same with
    rounded weights.

    Args:
        proto: The graph in float32.
        roundings: How int8 rounds its values; those of weights have the rounded weight as their only constant.
        batches: Images as the graph's input.
    """
    view = GraphView(proto.graph)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    nodes = [node for node in proto.graph.node if _has_rounded_weight(node, roundings, view)]
    for node in nodes:
        weight, name = node.input[1], f"{node.name}/shift"
        lost = numpy_helper.to_array(view.initializers[weight]) - numpy_helper.to_array(roundings[weight].constants[0])
        axes = np.array([0] if node.op_type == "Gemm" else [0, *range(2, lost.ndim)])
        copy.graph.initializer.append(numpy_helper.from_array(lost, f"{name}/weight"))
        copy.graph.initializer.append(numpy_helper.from_array(axes, f"{name}/axes"))
        shift = helper.make_node(node.op_type, [node.input[0], f"{name}/weight"], [name], name=name)
        shift.attribute.extend(node.attribute)
        copy.graph.node.append(shift)
        copy.graph.node.append(helper.make_node("ReduceMean", [name, f"{name}/axes"], [f"{name}/mean"], keepdims=0))
        copy.graph.output.append(helper.make_empty_tensor_value_info(f"{name}/mean"))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_FATAL
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    sums: list[np.ndarray] = [np.zeros(())] * len(nodes)
    for batch in batches if nodes else ():
        found = session.run(None, {"images": batch})
        sums = [total + len(batch) * mean for total, mean in zip(sums, found, strict=True)]
    count = sum(len(batch) for batch in batches)
    return {node.name: (total / count).astype(np.float32) for node, total in zip(nodes, sums, strict=True)}


def apply(proto: onnx.ModelProto, corrections: Mapping[str, np.ndarray], float32: Collection[str]) -> None:
    """Adds corrections to the biases of a graph in place, but for nodes that stay in float32."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.name in corrections and node.name not in float32:
            name = f"{node.input[2]}/{node.name}"  # a bias may be that of several nodes
            bias = numpy_helper.to_array(constants[node.input[2]]) + corrections[node.name]
            proto.graph.initializer.append(numpy_helper.from_array(bias, name))
            node.input[2] = name


def _has_rounded_weight(node: onnx.NodeProto, roundings: Mapping[str, Rounding], view: GraphView) -> bool:
    """Whether a node is a layer with a bias and a rounded weight, to whose output the bias is added as it is."""
    if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or node.input[2] not in view.initializers:
        return False
    plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
    return plain and node.input[1] in roundings and node.input[1] in view.initializers
