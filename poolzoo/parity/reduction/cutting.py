"""Makes a case smaller by its nodes: an earlier end, values that become inputs, and nodes that are left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from poolzoo.parity.reduction import graphs, running
from poolzoo.parity.reduction.case import Oracle


def cut_nodes(oracle: Oracle) -> None:
    """Removes what it can of the nodes of the smallest case."""
    if not isinstance(oracle.best.reference, onnx.ModelProto):
        return
    _cut_end(oracle)
    before = None
    while before != (count := len(oracle.best.graph.graph.node)):
        before = count
        _make_inputs(oracle)
        _leave_out(oracle)
        _fix_shapes(oracle)
    _fix_weights(oracle)


def _fix_shapes(oracle: Oracle) -> None:
    """Integers that the graph computes become constants."""
    values = _values(oracle)
    for name in graphs.computed(oracle.best.graph):
        value = values.get(name)
        if value is not None and value.dtype.kind in "iub" and name != oracle.best.output:
            oracle.tried(lambda proto, name=name, value=value: graphs.with_constant(proto, name, value))  # type: ignore[misc]


def _fix_weights(oracle: Oracle) -> None:
    """Inputs that a node reads as its weights become constants, as they are in a file."""
    for name, value in dict(oracle.best.inputs).items():
        if len(oracle.best.inputs) > 1 and value.dtype.kind in "iub":
            oracle.tried(lambda proto, name=name, value=value: graphs.with_constant(proto, name, value))  # type: ignore[misc]


def _values(oracle: Oracle) -> dict[str, np.ndarray]:
    """What the reference graph computes inside, with the inputs."""
    case = oracle.best
    assert isinstance(case.reference, onnx.ModelProto)
    names = graphs.computed(case.reference)
    return {**case.inputs, **running.values(case.reference, case.inputs, names)}


def _cut_end(oracle: Oracle) -> None:
    """The first value that differs, in the graph's order; halves are tried first."""
    values = _values(oracle)
    names = [
        name
        for name in graphs.computed(oracle.best.graph)
        if name in values and values[name].dtype.kind == "f" and name != oracle.best.output
    ]
    inputs = dict(oracle.best.inputs)

    def ends_at(index: int) -> bool:
        return oracle.tried(lambda proto: graphs.cut(proto, inputs, names[index]))

    low, high = 0, len(names)  # the smallest index that is known to show it is `high`
    while low < high:
        middle = (low + high) // 2
        if ends_at(middle):
            high = middle
        else:
            low = middle + 1


def _make_inputs(oracle: Oracle) -> None:
    """Values become inputs one by one, the last first, so that the nodes before them go."""
    values = _values(oracle)
    for name in reversed(graphs.computed(oracle.best.graph)):
        if name in values and name in graphs.computed(oracle.best.graph) and name != oracle.best.output:
            given = {**oracle.best.inputs, name: values[name]}
            output = oracle.best.output
            oracle.tried(lambda proto, given=given, output=output: graphs.cut(proto, given, output), given)  # type: ignore[misc]


def _leave_out(oracle: Oracle) -> None:
    """Nodes are skipped: the value that one reads takes the place of the value that it computes."""
    for node in reversed(list(oracle.best.graph.graph.node)):
        for name in dict.fromkeys(node.input):
            if name and oracle.tried(lambda proto, node=node, name=name: _skipped(proto, node.output, name)):  # type: ignore[misc]
                break


def _skipped(proto: onnx.ModelProto, outputs: Sequence[str], instead: str) -> onnx.ModelProto:
    copy = graphs.copied(proto)
    made = {name for node in copy.graph.node for name in node.output}
    name = outputs[0]
    if copy.graph.output[0].name == name:
        if instead not in made:
            raise ValueError("a graph computes something")
        return graphs.cut(copy, _examples(copy), instead)
    if name not in made:
        raise ValueError(f"{name} is gone")
    for node in copy.graph.node:
        node.input[:] = [instead if one == name else one for one in node.input]
    return graphs.pruned(copy)


def _examples(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """An array of the rank and type of each input, for a graph that keeps its inputs."""
    found = {}
    for value in proto.graph.input:
        kind = value.type.tensor_type
        sides = [max(side.dim_value, 1) for side in kind.shape.dim]
        found[value.name] = np.zeros(sides, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return found
