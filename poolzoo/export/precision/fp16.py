"""Converts a graph to fp16; nodes whose values overflow or vanish in half precision stay in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, MutableSequence
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from poolzoo.export.precision import half_range
from poolzoo.export.precision.half_range import RangeAnalysis
from poolzoo.export.precision.ranges import Images
from poolzoo.parity import layers
from poolzoo.runtime import half_arithmetic

MAX_ROUNDS: Final = 8  # of running the graph in half arithmetic and keeping more nodes in float32


def convert(
    proto: onnx.ModelProto, float32: list[str], inputs: Images, analysis: RangeAnalysis | None = None
) -> tuple[onnx.ModelProto, RangeAnalysis]:
    """Converts a graph, and keeps more nodes in float32 until every value is finite in half arithmetic.

    Args:
        proto: The graph in float32, without shapes.
        float32: Nodes that stay in float32 in any case.
        inputs: Images as the graph's input, on which every value is measured.
        analysis: An earlier analysis of the graph, whose measurements are used again; None to measure.

    Returns:
        The graph, and the analysis: its `reasons` name the nodes beyond `float32` that stay in float32.
    """
    analysis = analysis or half_range.analyze(proto, inputs)
    reasons = dict(analysis.reasons)
    checked = inputs[half_arithmetic.sample_rows(len(inputs))]
    for last in range(MAX_ROUNDS, -1, -1):
        converted = with_float32_nodes(proto, {*float32, *reasons})
        broken = _first_not_finite(converted, checked, analysis.finite) if last else None
        touching = [node.name for node in proto.graph.node if broken in (*node.input, *node.output)]
        new = {name: f"{broken} is not finite in half precision" for name in touching if name not in reasons}
        if broken is None or not new:
            break
        reasons.update(new)
    for name in float32:
        reasons.pop(name, None)
    return converted, replace(analysis, reasons=reasons)


def _first_not_finite(converted: onnx.ModelProto, inputs: np.ndarray, finite: Collection[str]) -> str | None:
    """The first value, by its name in float32, that is finite in float32 and not in half arithmetic."""
    graph = half_arithmetic.HalfGraph(converted)
    for index in range(len(inputs)):
        for _, values in graph.values(inputs[index : index + 1]):
            for name, value in values.items():
                original = name.removesuffix("_cast_to_fp16").removesuffix("_cast_to_fp32")
                if original in finite and not np.isfinite(value).all():
                    return original
    return None


def with_float32_nodes(proto: onnx.ModelProto, float32: Collection[str]) -> onnx.ModelProto:
    """A copy of a graph in fp16, in which the named nodes stay in float32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    blocked = {node.name for node in copy.graph.node if node.op_type in DEFAULT_OP_BLOCK_LIST} | set(float32)
    _copy_shared_constants(copy, blocked)
    converted = convert_float_to_float16(
        copy, keep_io_types=True, op_block_list=list(DEFAULT_OP_BLOCK_LIST), node_block_list=sorted(blocked)
    )
    return _without_biased_products(_without_double_casts(converted))


def _copy_shared_constants(proto: onnx.ModelProto, blocked: Collection[str]) -> None:
    """Gives nodes that stay in float32 their own copies of constants: the converter would round shared ones."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    shared = {name for node in proto.graph.node if node.name not in blocked for name in node.input} & constants.keys()
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            if node.name in blocked and name in shared and constants[name].data_type == onnx.TensorProto.FLOAT:
                own = f"{name}_float32"
                if own not in constants:
                    constants[own] = proto.graph.initializer.add()
                    constants[own].CopyFrom(constants[name])
                    constants[own].name = own
                node.input[index] = own


def _without_double_casts(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Removes casts to fp16 and back between nodes in float32, and sorts the nodes.

    The converter casts the value between two nodes in float32 to fp16 and back, once for each reader. So it does with
    an output of the graph that such a node computes. It appends all casts to the end of the graph.
    """
    makers = {node.output[0]: node for node in reversed(proto.graph.node)}  # of duplicate nodes the first
    instead = {}
    for name, node in makers.items():
        before = makers.get(node.input[0]) if node.op_type == "Cast" else None
        if before is not None and before.op_type == "Cast" and before.input[0].endswith("_cast_to_fp16"):
            instead[name] = before.input[0]  # the value in float32
    outputs = {instead[one.name]: one.name for one in proto.graph.output if one.name in instead}
    for name in outputs.values():
        del makers[name]
    for node in makers.values():
        _rename(node.input, instead)
        _rename(node.input, outputs)
        _rename(node.output, outputs)
    nodes = list(makers.values())
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    alive = {node.output[0] for one in proto.graph.output for node in layers.nodes_between(proto, None, one.name)}
    kept = [node for node in nodes if node.output[0] in alive]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    ordered = OnnxModel(proto)
    ordered.topological_sort()
    result: onnx.ModelProto = ordered.model
    return result


def _without_biased_products(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Adds biases in fp16 to products behind them, as tract gives float32 for a `Gemm` with one.

    ONNX Runtime merges the two nodes when it opens the graph.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    users = Counter(name for node in proto.graph.node for name in node.input)
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "Gemm" and len(node.input) == 3 else None
        given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
        if weight is None or weight.data_type != onnx.TensorProto.FLOAT16 or not plain or users[weight.name] > 1:
            nodes.append(node)
            continue
        if given.get("transB", 0):
            turned = np.ascontiguousarray(onnx.numpy_helper.to_array(weight).T)
            weight.CopyFrom(onnx.numpy_helper.from_array(turned, weight.name))
        product = f"{node.output[0]}_product"
        nodes.append(onnx.helper.make_node("MatMul", node.input[:2], [product], node.name))
        nodes.append(onnx.helper.make_node("Add", [product, node.input[2]], node.output, f"{node.name}_bias"))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def _rename(names: MutableSequence[str], table: dict[str, str]) -> None:
    for index, name in enumerate(names):
        names[index] = table.get(name, name)
