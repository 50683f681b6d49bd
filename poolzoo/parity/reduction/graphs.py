"""Changes of a graph by the names of its values: cut between values, a value made an input or a constant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def without_notes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without what exporters note in it, such as stack traces with paths of the machine that made it."""
    copy = copied(proto)
    for made in (copy, copy.graph, *copy.functions):
        _forget(made)
    for graph in _graphs(copy.graph):
        for part in (*graph.initializer, *graph.input, *graph.output, *graph.value_info, *graph.node, graph):
            _forget(part)
    for node in (node for function in copy.functions for node in function.node):
        _forget(node)
    return copy


def _forget(part: Any) -> None:
    """Clears the notes of a protobuf message, whatever its type."""
    for field in ("doc_string", "metadata_props"):
        part.ClearField(field)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for attribute in (one for node in graph.node for one in node.attribute):
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _graphs(inner)


def with_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which what `Constant` nodes hold is among the weights."""
    copy = copied(proto)
    for node in [one for one in copy.graph.node if one.op_type == "Constant"]:
        value = _constant(node)
        if value is not None:
            copy.graph.node.remove(node)
            copy.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    return copy


def _constant(node: NodeProto) -> np.ndarray | None:
    attribute = node.attribute[0]
    if attribute.HasField("t"):
        return np.asarray(numpy_helper.to_array(attribute.t))
    types = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    if attribute.name not in types:
        return None
    return np.asarray(helper.get_attribute_value(attribute), types[attribute.name])


def cut(proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray], outputs: str | Sequence[str]) -> onnx.ModelProto:
    """The part of a graph that computes one value, or several, from others.

    Args:
        proto: The graph; it is not changed.
        inputs: Values that become inputs, with an example of each. Those that the part does not read are left out.
        outputs: The values that become the only outputs.
    """
    ends = [outputs] if isinstance(outputs, str) else list(outputs)
    nodes = nodes_behind(proto, set(inputs), *ends)
    used = {name for node in nodes for name in reads(node)}
    weights = [tensor for tensor in proto.graph.initializer if tensor.name in used and tensor.name not in inputs]
    given = [_input(name, example) for name, example in inputs.items() if name in used]
    results = [helper.make_empty_tensor_value_info(name) for name in ends]
    graph = helper.make_graph(nodes, "reduced", given, results, weights)
    made = helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=proto.ir_version)
    made.functions.extend(proto.functions)
    return made


def _input(name: str, example: np.ndarray) -> onnx.ValueInfoProto:
    """An input of an array's type and shape, with any number of rows."""
    shape: list[int | str] = list(example.shape)
    if shape and (example.dtype.kind == "f" or example.dtype == np.uint8):
        shape[:1] = ["batch"]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(example.dtype), shape)


def nodes_behind(proto: onnx.ModelProto, stops: set[str], *outputs: str) -> list[NodeProto]:
    """The nodes that compute values, back to the values `stops`, in the graph's order."""
    makers = {name: node for node in proto.graph.node for name in node.output if name}
    wanted: set[str] = set()
    todo = list(outputs)
    while todo:
        name = todo.pop()
        if name in stops or name not in makers or makers[name].output[0] in wanted:
            continue
        wanted.add(makers[name].output[0])
        todo += reads(makers[name])
    return [node for node in proto.graph.node if node.output[0] in wanted]


def reads(node: NodeProto) -> list[str]:
    """The values that a node reads, those of its subgraphs included."""
    found = [name for name in node.input if name]
    for attribute in node.attribute:
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            made = {name for one in inner.node for name in one.output}
            found += [name for one in inner.node for name in reads(one) if name not in made]
            found += [value.name for value in inner.output if value.name not in made]
    return found


def computed(proto: onnx.ModelProto) -> list[str]:
    """The names of all values that nodes compute, in the graph's order."""
    return [name for node in proto.graph.node for name in node.output if name]


def constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The weights and other constants of a graph by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def with_constant(proto: onnx.ModelProto, name: str, value: np.ndarray) -> onnx.ModelProto:
    """A copy in which a value is this constant; nodes that are not needed any more are gone."""
    copy = copied(proto)
    for tensor in [tensor for tensor in copy.graph.initializer if tensor.name == name]:
        copy.graph.initializer.remove(tensor)
    for node in [node for node in copy.graph.node if list(node.output) == [name]]:
        copy.graph.node.remove(node)
    for given in [given for given in copy.graph.input if given.name == name]:
        copy.graph.input.remove(given)
    copy.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    return pruned(copy)


def with_constant_values(proto: onnx.ModelProto, name: str, value: np.ndarray) -> onnx.ModelProto:
    """A copy with other numbers in a weight."""
    copy = copied(proto)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.array(value), name))
    return copy


def pruned(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph with one output, without nodes, weights and inputs that it does not need."""
    copy = copied(proto)
    nodes = nodes_behind(copy, set(), copy.graph.output[0].name)
    used = {name for node in nodes for name in reads(node)}
    for field, kept in (
        (copy.graph.node, nodes),
        (copy.graph.initializer, [one for one in copy.graph.initializer if one.name in used]),
        (copy.graph.input, [one for one in copy.graph.input if one.name in used]),
    ):
        saved = [type(one).FromString(one.SerializeToString()) for one in kept]
        del field[:]
        field.extend(saved)
    return copy


def renamed(proto: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """A copy in which nodes read other values in the place of some; their subgraphs stay."""
    copy = copied(proto)
    for node in copy.graph.node if names else ():
        node.input[:] = [names.get(one, one) for one in node.input]
    return copy


def with_node(proto: onnx.ModelProto, output: str, nodes: Sequence[NodeProto]) -> onnx.ModelProto:
    """A copy in which other nodes are in the place of the one whose first output is `output`."""
    copy = copied(proto)
    index = next(i for i, node in enumerate(copy.graph.node) if node.output[0] == output)
    kept = [*copy.graph.node[:index], *nodes, *copy.graph.node[index + 1 :]]
    saved = [NodeProto.FromString(one.SerializeToString()) for one in kept]
    del copy.graph.node[:]
    copy.graph.node.extend(saved)
    return copy
