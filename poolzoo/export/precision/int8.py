"""Quantizes a graph to int8: with activation ranges from calibration images, or computed for every batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_dynamic
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from poolzoo.export.precision.ranges import Range
from poolzoo.runtime.graph_view import GraphView

QUANTIZED: Final = frozenset(QLinearOpsRegistry) | frozenset(QDQRegistry)
# Operators that are quantized only where what they read is: they round nothing that others do not round.
FOLLOWERS: Final = frozenset(
    [
        *("AveragePool", "MaxPool", "Clip", "Relu", "Pad", "Resize", "Gather", "GatherElements", "TopK"),
        *("Flatten", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    ]
)


def static(proto: onnx.ModelProto, float32: list[str], found: Mapping[str, Range], target: Path) -> None:
    """Writes a graph with unsigned activations and signed weights per channel, in the QDQ format.

    The graph is that of ONNX Runtime's `quantize_static`, which keeps every activation of a calibration batch in
    memory. `ranges.measure` finds the same ranges in a tenth of the memory.

    Args:
        proto: The graph in float32, without shapes.
        float32: Nodes that stay in float32.
        found: The range of every value.
        target: The file to write.
    """
    data = {name: TensorData(lowest=np.array([of.low]), highest=np.array([of.high])) for name, of in found.items()}
    quantizer = QDQQuantizer(
        model=save_and_reload_model_with_shape_infer(proto),
        per_channel=True,
        reduce_range=False,  # all eight bits
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],  # all
        nodes_to_exclude=float32,
        op_types_to_quantize=sorted(QUANTIZED),
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    made: onnx.ModelProto = quantizer.model.model
    _read_exact_values(made.graph, set(float32))
    _keep_in_float32(made.graph, set(float32))
    onnx.save(made, target)


def _read_exact_values(graph: onnx.GraphProto, float32: Collection[str]) -> None:
    """Lets nodes in float32 read what other nodes in float32 compute as it is, not rounded for a third node."""
    view = GraphView(graph)
    exact = {}
    for node in graph.node:
        before = view.made_by(node.input[0], "QuantizeLinear") if node.op_type == "DequantizeLinear" else None
        maker = view.producers.get(before.input[0]) if before is not None else None
        if maker is not None and before is not None and not _is_quantized(maker, float32, view):
            exact[node.output[0]] = before.input[0]
    for node in graph.node:
        if node.op_type != "QuantizeLinear" and not _is_quantized(node, float32, view):
            for index, name in enumerate(node.input):
                node.input[index] = exact.get(name, name)


def _is_quantized(node: onnx.NodeProto, float32: Collection[str], view: GraphView) -> bool:
    """Whether a runtime computes a node in int8, as far as its inputs tell."""
    known = node.op_type in QUANTIZED and node.name not in float32
    return known and view.made_by(node.input[0], "DequantizeLinear") is not None


def _keep_in_float32(graph: onnx.GraphProto, float32: Collection[str]) -> None:
    """Puts a `Concat` of one value before layers in float32 that ONNX Runtime's optimizer would quantize itself.

    It does so right behind a `DequantizeLinear`, and it removes an `Identity`. It quantizes float32 weights with one
    scale for all channels, which ruins a depthwise convolution. Its softmax in int8 is wrong where the range of the
    output is not 0 to 1.
    """
    view = GraphView(graph)
    nodes = []
    for node in graph.node:
        weighted = node.op_type in ("Conv", "ConvTranspose", "Gemm") and node.input[1] in view.initializers
        softmax = node.op_type == "Softmax" and node.name in float32
        if (weighted or softmax) and view.made_by(node.input[0], "DequantizeLinear") is not None:
            name = f"{node.name}_float32"
            nodes.append(onnx.helper.make_node("Concat", [node.input[0]], [name], name=name, axis=0))
            node.input[0] = name
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def dynamic(proto: onnx.ModelProto, float32: list[str], target: Path) -> None:
    """Writes a graph with signed weights, whose activation ranges are computed for every batch.

    Args:
        proto: The graph in float32, without shapes.
        float32: Nodes that stay in float32.
        target: The file to write.
    """
    excluded = float32 + [f"{name}_MatMul" for name in float32]  # the name of the MatMul that a Gemm becomes
    quantize_dynamic(proto, target, weight_type=QuantType.QInt8, nodes_to_exclude=excluded)
