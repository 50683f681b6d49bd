"""The values of a graph by the layers that they belong to, and parts of the graph between two values."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import onnx
import torch

from poolzoo.runtime.graph_view import GraphView

if TYPE_CHECKING:
    from torch.fx import Node

FLOAT: Final = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Layers:
    """Names of values in an exported graph, by module path.

    Attributes:
        outputs: The output of each module, in the order in which modules finish: `{"network.backbone.conv1": "relu"}`.
            A layer that the exporter fused with the next one (a convolution with its batch norm) may be missing.
        inputs: The input of each module that has a single one.
        inside: All values that are computed inside a module.
    """

    outputs: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    inside: dict[str, frozenset[str]] = field(default_factory=dict)

    def within(self, proto: onnx.ModelProto) -> Layers:
        """The names that the graph still has."""
        present = {name for node in proto.graph.node for name in (*node.input, *node.output)}
        return Layers(
            outputs={path: name for path, name in self.outputs.items() if name in present},
            inputs={path: name for path, name in self.inputs.items() if name in present},
            inside={path: names & present for path, names in self.inside.items()},
        )

    def renamed_inside(self, names: Mapping[str, str]) -> Layers:
        """The same, where some values inside of modules have new names and are no module's output any more."""
        inside = {path: frozenset(names.get(name, name) for name in held) for path, held in self.inside.items()}
        return replace(self, inside=inside)


def read_layers(program: torch.export.ExportedProgram, proto: onnx.ModelProto) -> Layers:
    """The names that torch's exporter gave to the inputs and outputs of each module.

    Args:
        program: The program that a graph was made of. Its nodes know their modules. The graph's values have the names
            of these nodes, except for the graph's outputs.
        proto: The graph, with the exporter's metadata still on its nodes.
    """
    outputs = [value.name for value in proto.graph.output]
    nodes: list[Node] = list(program.graph.nodes)
    final: Any = next(node for node in nodes if node.op == "output").args[0]
    renamed = dict(zip((node.name for node in final), outputs, strict=True))
    members: dict[str, set[Node]] = {}
    last: dict[str, Node] = {}
    for node in nodes:
        if node.op != "call_function":
            continue
        for path, _ in (node.meta.get("nn_module_stack") or {}).values():
            members.setdefault(path, set()).add(node)
            last.pop(path, None)  # so that the order is that of the modules' ends
            last[path] = node
    inputs = {}
    for path, inside in members.items():
        outer = {one for node in inside for one in node.all_input_nodes if one not in inside}
        entering = [node for node in outer if node.op == "call_function" or node.name == "images"]
        entering = [node for node in entering if isinstance(node.meta.get("val"), torch.Tensor)]  # not the batch's size
        if len(entering) == 1:
            inputs[path] = renamed.get(entering[0].name, entering[0].name)
    # The innermost first where several end with the same value: it is the most precise name.
    order = sorted(last, key=lambda path: (nodes.index(last[path]), -path.count(".")))
    last_values = {path: renamed.get(last[path].name, last[path].name) for path in order if path}
    return Layers(last_values, inputs, _inside(proto)).within(proto)


def _inside(proto: onnx.ModelProto) -> dict[str, frozenset[str]]:
    """The values inside each module, from the exporter's metadata: `['', 'network', 'network.pool', 'mean']`."""
    found: dict[str, set[str]] = {}
    for node in proto.graph.node:
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        for path in literal_eval(metadata.get("pkg.torch.onnx.name_scopes", "[]"))[:-1]:
            found.setdefault(path, set()).update(node.output)
    return {path: frozenset(names) for path, names in found.items()}


def path_of(node: Node) -> str:
    """The path of the innermost module that a node of a program belongs to; empty for the outermost one."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def nodes_between(proto: onnx.ModelProto, start: str | None, end: str) -> list[onnx.NodeProto]:
    """The nodes that compute `end` from `start`, or from the graph's inputs, in the graph's order."""
    makers = GraphView(proto.graph).producers
    wanted: set[str] = set()
    todo = [end]
    while todo:
        name = todo.pop()
        if name == start or name not in makers:
            continue
        node = makers[name]
        if node.output[0] not in wanted:
            wanted.add(node.output[0])
            todo += [given for given in node.input if given]
    return [node for node in proto.graph.node if node.output[0] in wanted]


def subgraph(proto: onnx.ModelProto, start: str, end: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The part of a graph from one value to another as a separate graph, with the same nodes and weights.

    Args:
        proto: The graph; it is not changed.
        start: The value that becomes the first input, float32. The graph's own inputs stay inputs where the part reads
            the size of the batch from them.
        end: The value that becomes the output, float32.
        shape: The first input's shape without the batch.
    """
    nodes = nodes_between(proto, start, end)
    used = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    first = onnx.helper.make_tensor_value_info(start, FLOAT, ["batch", *shape])
    others = [value for value in proto.graph.input if value.name in used and value.name != start]
    output = onnx.helper.make_tensor_value_info(end, FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "part", [first, *others], [output], weights)
    return onnx.helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=proto.ir_version)


def with_outputs(proto: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of the graph with the named values as additional outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    have = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in have)
    return copy
