"""A graph in fp16, where it fits: what overflows or vanishes in half precision stays in float32, by name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from poolzoo.export import half_range
from poolzoo.parity import layers
from poolzoo.runtime import half_arithmetic

ROUNDS: Final = 8  # of running the graph in half arithmetic and keeping what breaks there in float32


def convert(proto: onnx.ModelProto, float32: list[str], inputs: np.ndarray) -> tuple[onnx.ModelProto, half_range.Fit]:
    """Converts a graph and runs it in half arithmetic, until every value is finite there that is in float32.

    Args:
        proto: The graph in float32, without shapes.
        float32: Nodes that stay as they are for reasons of their own.
        inputs: Images as it takes them, to look at every value on.

    Returns:
        The graph, and what was found: its `reasons` name the nodes beyond `float32` that stay in it.
    """
    fit = half_range.find(proto, inputs)
    judged = inputs[half_arithmetic.chosen(len(inputs))]
    for last in range(ROUNDS, -1, -1):
        made = _converted(proto, {*float32, *fit.reasons})
        broken = _first_broken(made, judged, fit.finite) if last else None
        touching = [node.name for node in proto.graph.node if broken in (*node.input, *node.output)]
        new = {name: f"{broken} is not finite in half precision" for name in touching if name not in fit.reasons}
        if broken is None or not new:
            break
        fit.reasons.update(new)
    for name in float32:
        fit.reasons.pop(name, None)
    return made, fit


def _first_broken(made: onnx.ModelProto, inputs: np.ndarray, finite: Collection[str]) -> str | None:
    """The first value, by its name in float32, that is not finite in half arithmetic, though it is there."""
    graph = half_arithmetic.HalfGraph(made)
    for index in range(len(inputs)):
        for _, values in graph.values(inputs[index : index + 1]):
            for name, value in values.items():
                plain = name.removesuffix("_cast_to_fp16").removesuffix("_cast_to_fp32")
                if plain in finite and not np.isfinite(value).all():
                    return plain
    return None


def _converted(proto: onnx.ModelProto, float32: Collection[str]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    blocked = {node.name for node in copy.graph.node if node.op_type in DEFAULT_OP_BLOCK_LIST} | set(float32)
    _part_constants(copy, blocked)
    lists = {"op_block_list": list(DEFAULT_OP_BLOCK_LIST), "node_block_list": sorted(blocked)}
    return _tidied(convert_float_to_float16(copy, keep_io_types=True, **lists))


def _part_constants(proto: onnx.ModelProto, blocked: Collection[str]) -> None:
    """Gives nodes that stay in float32 their own copies of constants: a shared one would be rounded for both."""
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


def _tidied(proto: onnx.ModelProto) -> onnx.ModelProto:
    """What the converter to fp16 leaves to be done where nodes that stay in float32 follow one another.

    It casts the value between two of them to fp16 and back, once for each reader, and puts all casts at the end. An
    output of the graph that such a node gives goes there and back as well.
    """
    makers = {node.output[0]: node for node in reversed(proto.graph.node)}  # of nodes that are there twice, the first
    instead = {}
    for name, node in makers.items():
        before = makers.get(node.input[0]) if node.op_type == "Cast" else None
        if before is not None and before.op_type == "Cast" and before.input[0].endswith("_cast_to_fp16"):
            instead[name] = before.input[0]  # the float32 that went there and back
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
    alive = {node.output[0] for one in proto.graph.output for node in layers.between(proto, None, one.name)}
    kept = [node for node in nodes if node.output[0] in alive]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    tidied = OnnxModel(proto)
    tidied.topological_sort()
    return tidied.model


def _rename(names: Any, table: dict[str, str]) -> None:
    for index, name in enumerate(names):
        names[index] = table.get(name, name)
