"""A float32 graph with a switch for each value that lower precision rounds: one session serves all combinations.

A switch is an input of the graph, `bool[]`. An `If` node behind the value reads it and passes the value on, rounded or
as it is. So the harm of a layer takes one run of an opened session, not a conversion and a session of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.quant_utils import add_dequant_output_suffix

from poolzoo.runtime.graph_view import GraphView, attribute
from poolzoo.runtime.ort_session import LOG_FATAL

PREFIX: Final = "round:"  # of a switch's name


@dataclass(frozen=True)
class Rounding:
    """How lower precision rounds one value of a float32 graph.

    Attributes:
        nodes: Nodes that compute `rounded` from the value.
        rounded: The name of the rounded value.
        constants: What the nodes read beside the value.
        readers: The nodes that read the rounded value, by name; None for all.
    """

    nodes: tuple[onnx.NodeProto, ...]
    rounded: str
    constants: tuple[onnx.TensorProto, ...] = ()
    readers: frozenset[str] | None = None

    def concerns(self, node: onnx.NodeProto) -> bool:
        """Whether a node reads the rounded value, or is one of all that do or that compute it."""
        return self.readers is None or node.name in self.readers


def quantized(value: str, scale: np.ndarray, zero_point: np.ndarray) -> Rounding:
    """A value quantized with fixed ranges."""
    names = [f"{value}/scale", f"{value}/zero_point"]
    nodes = (
        helper.make_node("QuantizeLinear", [value, *names], [f"{value}/q"]),
        helper.make_node("DequantizeLinear", [f"{value}/q", *names], [f"{value}/rounded"]),
    )
    arrays = (scale, zero_point)
    constants = tuple(numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True))
    return Rounding(nodes, f"{value}/rounded", constants)


def quantized_by_batch(value: str, readers: Collection[str]) -> Rounding:
    """A value quantized with the ranges of each batch."""
    names = [f"{value}/{part}" for part in ("q", "scale", "zero_point")]
    nodes = (
        helper.make_node("DynamicQuantizeLinear", [value], names),
        helper.make_node("DequantizeLinear", names, [f"{value}/rounded"]),
    )
    return Rounding(nodes, f"{value}/rounded", readers=frozenset(readers))


def halved(value: str) -> Rounding:
    """A value in float16."""
    nodes = (
        helper.make_node("Cast", [value], [f"{value}/half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{value}/half"], [f"{value}/rounded"], to=TensorProto.FLOAT),
    )
    return Rounding(nodes, f"{value}/rounded")


def constant(value: str, rounded: np.ndarray, readers: Collection[str] | None = None) -> Rounding:
    """A weight that is stored in lower precision."""
    tensor = numpy_helper.from_array(rounded.astype(np.float32), f"{value}/lower")
    nodes = (helper.make_node("Identity", [tensor.name], [f"{value}/rounded"]),)
    return Rounding(nodes, f"{value}/rounded", (tensor,), None if readers is None else frozenset(readers))


def of_static(proto: onnx.ModelProto, converted: onnx.ModelProto) -> dict[str, Rounding]:
    """What a graph with fixed ranges, in the QDQ format, rounds: roundings by the value's name in float32.

    Args:
        proto: The graph in float32.
        converted: The same in int8.
    """
    weights = {add_dequant_output_suffix(one.name): one.name for one in proto.graph.initializer}
    values = {name for node in proto.graph.node for name in node.output}
    values |= {one.name for one in proto.graph.input}
    view = GraphView(converted.graph)
    found = {}
    for node in converted.graph.node:
        parameters = [view.constant(name) for name in node.input[1:]]
        scale, zero_point = parameters if len(parameters) == 2 else (None, None)
        if scale is None or zero_point is None:
            continue
        if node.op_type == "QuantizeLinear" and node.input[0] in values:
            found[node.input[0]] = quantized(node.input[0], scale, zero_point)
        stored = view.constant(node.input[0])
        if node.op_type == "DequantizeLinear" and node.output[0] in weights and stored is not None:
            shape = [1] * stored.ndim
            if scale.ndim:
                shape[int(str(attribute(node, "axis", 1)))] = -1
                scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
            name = weights[node.output[0]]
            found[name] = constant(name, (stored.astype(np.float32) - zero_point) * scale)
    return found


def of_dynamic(proto: onnx.ModelProto, float32: Collection[str]) -> dict[str, Rounding]:
    """What a graph with ranges of each batch rounds: the inputs and weights of convolutions and products.

    Args:
        proto: The graph in float32.
        float32: Nodes that stay in float32.
    """
    view = GraphView(proto.graph)
    readers: dict[str, set[str]] = {}
    for node in proto.graph.node:
        weight = view.initializers.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type in ("Conv", "Gemm", "MatMul") and weight is not None and node.name not in float32:
            for name in node.input[:2]:
                readers.setdefault(name, set()).add(node.name)
    found = {}
    for name, by in readers.items():
        if name not in view.initializers:
            found[name] = quantized_by_batch(name, by)
            continue
        weight_array = numpy_helper.to_array(view.initializers[name])
        scale = max(float(np.abs(weight_array).max()) / 127, float(np.finfo(np.float32).tiny))
        found[name] = constant(name, np.clip(np.rint(weight_array / scale), -128, 127) * scale, by)
    return found


def of_half(proto: onnx.ModelProto, float32: Collection[str]) -> dict[str, Rounding]:
    """What a graph in fp16 rounds: every value and every weight of a node that does not stay in float32."""
    known = onnx.shape_inference.infer_shapes(proto)
    floats = GraphView(known.graph).floats | {
        one.name for one in proto.graph.initializer if one.data_type == TensorProto.FLOAT
    }
    half = [node for node in proto.graph.node if node.name not in float32]
    return {name: halved(name) for node in half for name in (*node.input, *node.output) if name in floats}


@dataclass
class SwitchedGraph:
    """A float32 graph, opened, in which values can be rounded.

    Attributes:
        proto: The graph; it is not changed.
        roundings: How values are rounded, by their name.
    """

    proto: onnx.ModelProto
    roundings: Mapping[str, Rounding]
    _session: onnxruntime.InferenceSession = field(init=False, repr=False)

    def __post_init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = LOG_FATAL
        options.enable_cpu_mem_arena = False  # which would keep the memory of all values
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        content = with_switches(self.proto, self.roundings).SerializeToString()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def logits(self, batches: Iterable[np.ndarray], rounded: Collection[str]) -> np.ndarray:
        """The logits `float32[N, classes]` of all batches, with the named values rounded and all others exact."""
        switches = {f"{PREFIX}{name}": np.array(name in rounded) for name in self.roundings}
        return np.concatenate([self._session.run(["logits"], {"images": batch, **switches})[0] for batch in batches])


def with_switches(proto: onnx.ModelProto, roundings: Mapping[str, Rounding]) -> onnx.ModelProto:
    """A copy of a graph with an input `bool[]` for each rounding, named `PREFIX` and the value's name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.value_info[:]
    behind = {value: _switch(value, one) for value, one in roundings.items()}
    for one in roundings.values():
        copy.graph.initializer.extend(one.constants)
    copy.graph.input.extend(
        helper.make_tensor_value_info(f"{PREFIX}{name}", TensorProto.BOOL, []) for name in roundings
    )
    available = [value.name for value in (*proto.graph.input, *proto.graph.initializer)]
    nodes = [behind[name] for name in available if name in behind]
    for node in copy.graph.node:
        for index, name in enumerate(node.input):
            if name in behind and roundings[name].concerns(node):
                node.input[index] = behind[name].output[0]
        nodes.append(node)
        nodes += [behind[name] for name in node.output if name in behind]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _switch(value: str, rounding: Rounding) -> onnx.NodeProto:
    """An `If` that passes a value on, rounded or as it is."""
    exact = f"{value}/exact"
    branches: dict[str, onnx.GraphProto] = {
        "then_branch": _branch(rounding.nodes, rounding.rounded),
        "else_branch": _branch([helper.make_node("Identity", [value], [exact])], exact),
    }
    return helper.make_node("If", [f"{PREFIX}{value}"], [f"{value}/switched"], name=f"switch {value}", **branches)


def _branch(nodes: Sequence[onnx.NodeProto], output: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])
