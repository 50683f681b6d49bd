"""Which values of an exported graph are whose layer's: names, order, inputs, and what lies inside."""

from __future__ import annotations

import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from poolzoo.parity.layers import Layers, path_of, read_layers


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.active = nn.ReLU()

    def forward(self, x):
        return self.active(x * 2)


class Joined(nn.Module):
    def forward(self, x, other):
        return x + other


class Network(nn.Module):
    """A block whose last layer ends where it ends, a layer of two inputs, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Scaled()
        self.joined = Joined()
        self.unused = nn.ReLU()
        self.head = nn.Linear(3, 2)

    def forward(self, images):
        x = images.float()
        logits = self.head(self.joined(self.block(x), x))
        return logits, logits.softmax(1)


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    return torch.export.export(Network().eval(), (torch.zeros(4, 3, dtype=torch.uint8),), strict=False)


def graph_of(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    """A node for each operation, named as torch's exporter names them, with the scopes that it notes."""
    nodes, names = [], {}
    last = [node.name for node in program.graph.output_node().args[0]]
    names.update(zip(last, ("logits", "probabilities"), strict=True))
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        inputs = [names.get(one.name, one.name) for one in node.all_input_nodes]
        made = helper.make_node(str(node.target), inputs, [names.get(node.name, node.name)])
        scopes = ["", *(path for path in (path_of(node),) if path), node.name]
        made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(scopes))
        nodes.append(made)
    nodes.append(helper.make_node("Identity", ["logits"], ["copy"]))  # one that no exporter noted anything of
    results = [helper.make_empty_tensor_value_info(name) for name in names.values()]
    return helper.make_model(helper.make_graph(nodes, "g", [helper.make_empty_tensor_value_info("images")], results))


def value(program: torch.export.ExportedProgram, operator: str) -> torch.fx.Node:
    (found,) = (node for node in program.graph.nodes if node.op == "call_function" and operator in str(node.target))
    return found


def test_values_of_layers_have_the_names_of_the_exporter(program):
    found = read_layers(program, graph_of(program))
    doubled, active, joined = (value(program, name).name for name in ("mul", "relu", "add"))
    # The innermost first of those that end together. A layer that nothing calls has no value.
    assert list(found.outputs.items()) == [
        ("block.active", active), ("block", active), ("joined", joined), ("head", "logits"),
    ]  # fmt: skip
    (scaled,) = (one for one in value(program, "mul").all_input_nodes)
    assert found.inputs == {"": "images", "block": scaled.name, "block.active": doubled, "head": joined}
    assert found.inside["block"] == {doubled}
    assert found.inside["block.active"] == {active}
    assert found.inside["head"] == {"logits"}
    assert found.inside[""] >= {scaled.name, "probabilities", joined}
    assert "copy" not in found.inside[""]


def test_values_that_the_graph_lacks_are_no_layers(program):
    proto = graph_of(program)
    fused = value(program, "relu").name
    joined = value(program, "add").name
    for node in list(proto.graph.node):
        node.input[:] = [one for one in node.input if one not in (fused, joined)]
        if node.output[0] in (fused, joined):
            proto.graph.node.remove(node)
    found = read_layers(program, proto)
    assert list(found.outputs) == ["head"]
    assert {fused, joined}.isdisjoint(found.inside[""])


def test_an_operation_belongs_to_the_innermost_module(program):
    assert path_of(value(program, "relu")) == "block.active"
    assert path_of(value(program, "mul")) == "block"
    assert path_of(value(program, "softmax")) == ""
    assert path_of(next(node for node in program.graph.nodes if node.op == "placeholder")) == ""


def test_values_inside_of_layers_get_new_names():
    layers = Layers(outputs={"a": "x"}, inputs={"a": "y"}, inside={"a": frozenset({"x", "y"}), "b": frozenset({"z"})})
    found = layers.renamed_inside({"x": "new", "q": "r"})
    assert found.inside == {"a": {"new", "y"}, "b": {"z"}}
    assert (found.outputs, found.inputs) == (layers.outputs, layers.inputs)
