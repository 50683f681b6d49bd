"""Graphs that fail are reduced to the node at fault: wrong graphs, wrong runtimes, NaN, and what is left on an end."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from poolzoo.common.errors import UsageError
from poolzoo.parity.reduction import folder, running
from poolzoo.parity.reduction.difference import compare
from poolzoo.parity.reduction.reduce import NothingToReduce, reduce_failure


class Network(nn.Module):
    """Convolutions, a pooling with a power and a root, and a classifier, small enough for tests."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.classifier = nn.Linear(4, 5)

    def forward(self, x):
        x = self.second(self.first(x).relu()).abs()
        x = nn.functional.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False)
        x = (x.pow(3).mean((2, 3)) + 1e-3).sqrt()
        return self.classifier(x).softmax(1)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture
def graph(network):
    """What an exporter makes of the network."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["first"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Relu", ["first"], ["active"]),
        node("Conv", ["active", "w2", "b2"], ["second"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Abs", ["second"], ["size"]),
        node("AveragePool", ["size"], ["pooled"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Pow", ["pooled", "three"], ["cubes"]),
        node("ReduceMean", ["cubes", "axes"], ["mean"], keepdims=0),
        node("Add", ["mean", "eps"], ["more"]),
        node("Sqrt", ["more"], ["root"]),
        node("Gemm", ["root", "w3", "b3"], ["logits"], transB=1),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    tensors = {
        **{f"w{i}": layer.weight for i, layer in enumerate(network.children(), 1)},
        **{f"b{i}": layer.bias for i, layer in enumerate(network.children(), 1)},
    }
    arrays = {name: one.detach().numpy() for name, one in tensors.items()}
    arrays |= {"three": np.float32(3), "eps": np.float32(1e-3), "axes": np.array([2, 3])}
    return model(nodes, {"x": ["batch", 3, 8, 8]}, ["probabilities"], arrays)


def model(nodes, inputs, outputs, arrays):
    given = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    weights = [numpy_helper.from_array(np.asarray(one), name) for name, one in arrays.items()]
    whole = helper.make_graph(nodes, "g", given, results, weights)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def noise(batch=1, shape=(3, 8, 8)):
    return np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32)


def node_of(graph, output):
    return next(node for node in graph.graph.node if output in node.output)


def set_attribute(output, **values):
    def plant(graph):
        node = node_of(graph, output)
        kept = [one for one in node.attribute if one.name not in values]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in values.items())])

    return plant


def set_constant(name, change):
    def plant(graph):
        tensor = next(one for one in graph.graph.initializer if one.name == name)
        value = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.array(change(value), value.dtype), name))

    return plant


def without(output):
    def plant(graph):
        node = node_of(graph, output)
        for other in graph.graph.node:
            other.input[:] = [node.input[0] if name == output else name for name in other.input]
        graph.graph.node.remove(node)

    return plant


def without_bias(graph):
    node_of(graph, "second").input.pop()


def surplus(graph):
    behind(graph, "size", [helper.make_node("Neg", ["size_right"], ["size"])])


def surplus_clip(graph):
    """Behind it lies a relu, after which a relu in its place would show nothing."""
    behind(
        graph, "first", [helper.make_node("Clip", ["first_right", "", "most"], ["first"])], {"most": np.float32(0.2)}
    )


FAULTS = {
    "axis": (set_attribute("probabilities", axis=0), "probabilities", "attribute", "axis", 2),
    "pads": (set_attribute("second", pads=[0, 1, 2, 1]), "second", "attribute", "pads", 1),
    "count_include_pad": (set_attribute("pooled", count_include_pad=1), "pooled", "attribute", "count_include_pad", 1),
    "eps": (set_constant("eps", lambda v: v * 30), "more", "constant", "eps", 1),
    "exponent": (set_constant("three", lambda v: v + 0.37), "cubes", "constant", "three", 1),
    "axes": (set_constant("axes", lambda v: [-1, 2]), None, None, None, 1),
    "mirrored": (set_constant("w2", lambda v: v[..., ::-1]), "second", "weights", "w2", 1),
    "relu": (without("active"), "second", "missing node", "", 1),
    "bias": (without_bias, "second", "missing node", "", 1),
    "surplus": (surplus, "size", "surplus node", "", 1),
    "surplus clip": (surplus_clip, "first", "surplus node", "", 1),
}


LONG = ("mirrored", "bias", "pads")  # all other attributes and constants are tried first


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in FAULTS if name != "axes"],
)
def test_a_planted_fault_is_reduced_to_the_node_that_has_it(network, graph, name):
    plant, node, part, of, batch = FAULTS[name]
    plant(graph)
    found = reduce_failure(graph, {"x": noise(batch)}, network)
    assert (found.kind, found.fault, found.complete) == ("translation", "graph", True)
    assert found.nodes == 1
    assert found.bytes <= 64
    assert (found.repair.node, found.repair.part) == (node, part)
    assert of in found.repair.name
    assert found.repairs_all
    assert found.source.layer in ("", "first", "second")
    assert found.source.line.startswith("test_reduction.py:")


class Attention(nn.Module):
    """A relu that two read, and a softmax between products."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(6, 6)

    def forward(self, x):
        x = x.relu()
        return (self.mix(x) @ x.transpose(1, 2)).softmax(2) @ x


@pytest.mark.parametrize(
    ("output", "node", "expected"),
    [
        ("active", "turned", "Relu of 'x', which several nodes read,"),
        ("shares", "y", "Softmax of input 0"),
    ],
)
def test_what_is_missing_before_its_readers_is_named(output, node, expected):
    torch.manual_seed(0)
    network = Attention().eval()
    nodes = [
        helper.make_node("Relu", ["x"], ["active"]),
        helper.make_node("Transpose", ["active"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["active", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "turned"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=2),
        helper.make_node("MatMul", ["shares", "active"], ["y"]),
    ]
    arrays = {"w": network.mix.weight.detach().numpy().T.copy(), "b": network.mix.bias.detach().numpy()}
    graph = model(nodes, {"x": ["batch", 5, 6]}, ["y"], arrays)
    without(output)(graph)
    found = reduce_failure(graph, {"x": noise(2, (5, 6))}, network)
    assert (found.repair.node, found.repair.part, found.repair.expected) == (node, "missing node", expected)
    assert found.repairs_all
    assert found.nodes <= 2


def test_the_expected_values_are_those_of_the_right_graph(network, graph):
    FAULTS["pads"][0](graph)
    found = reduce_failure(graph, {"x": noise()}, network)
    assert compare(ReferenceEvaluator(found.graph).run(None, dict(found.inputs))[0], found.expected).relative > 1e-2
    right = onnx.ModelProto()
    right.CopyFrom(found.graph)
    set_attribute("second", pads=[1, 1, 1, 1])(right)
    assert compare(ReferenceEvaluator(right).run(None, dict(found.inputs))[0], found.expected).relative < 1e-6


def test_the_same_axes_by_other_numbers_are_no_fault(network, graph):
    FAULTS["axes"][0](graph)
    with pytest.raises(NothingToReduce, match="agrees"):
        reduce_failure(graph, {"x": noise()}, network)


def behind(graph, output, nodes, arrays=()):
    """Puts nodes from `<output>_right` to `output` behind the node that computes it."""
    index = list(graph.graph.node).index(node_of(graph, output))
    graph.graph.node[index].output[0] = f"{output}_right"
    for offset, node in enumerate(nodes, 1):
        graph.graph.node.insert(index + offset, node)
    graph.graph.initializer.extend(numpy_helper.from_array(np.asarray(one), name) for name, one in dict(arrays).items())


def test_a_fault_inside_a_branch_reads_values_around_it(network, graph):
    branches = {
        f"{name}_branch": helper.make_graph(nodes, name, [], [helper.make_empty_tensor_value_info(f"{name}_result")])
        for name, nodes in {
            "then": [helper.make_node("Identity", ["first_right"], ["then_result"])],
            "else": [helper.make_node("Mul", ["first_right", "factor"], ["else_result"])],
        }.items()
    }
    arrays = {"factor": np.float32(-0.9), "condition": np.array(False)}
    behind(graph, "first", [helper.make_node("If", ["condition"], ["first"], **branches)], arrays)
    found = reduce_failure(graph, {"x": noise()}, network)
    assert "If" in [node.op_type for node in found.graph.graph.node]
    assert found.nodes <= 5


def test_a_fault_between_values_in_bfloat16_is_reduced(network, graph):
    nodes = [
        helper.make_node("Cast", ["size_right"], ["short"], to=onnx.TensorProto.BFLOAT16),
        helper.make_node("Transpose", ["short"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("Cast", ["turned"], ["size"], to=onnx.TensorProto.FLOAT),
    ]
    behind(graph, "size", nodes)
    found = reduce_failure(graph, {"x": noise()}, network)
    assert found.nodes <= 5
    assert {"short", "turned"}.isdisjoint(found.inputs)


def test_a_fault_that_needs_a_batch_keeps_what_it_needs(network, graph):
    graph.graph.initializer.append(numpy_helper.from_array(np.array([0]), "rows"))
    last = node_of(graph, "logits")
    last.input[0] = "mixed"
    added = [
        helper.make_node("ReduceMean", ["root", "rows"], ["mean_image"]),
        helper.make_node("Max", ["root", "mean_image"], ["mixed"]),
    ]
    nodes = list(graph.graph.node)
    order = [*nodes[: nodes.index(last)], *added, *nodes[nodes.index(last) :]]
    saved = [onnx.NodeProto.FromString(one.SerializeToString()) for one in order]
    del graph.graph.node[:]
    graph.graph.node.extend(saved)
    with pytest.raises(NothingToReduce):
        reduce_failure(graph, {"x": noise(1)}, network)
    found = reduce_failure(graph, {"x": noise(5)}, network)
    assert found.nodes <= 3
    assert (found.repair.node, found.repair.part, found.repair.expected) == ("mixed", "surplus node", "root")


class Ratio(nn.Module):
    def forward(self, x):
        return x.sum((2, 3)) / (x.abs().sum((2, 3)) + 1e-12)


def test_a_lost_eps_is_a_fault_of_numbers_that_are_not_finite():
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0),
        helper.make_node("Abs", ["x"], ["sizes"]),
        helper.make_node("ReduceSum", ["sizes", "axes"], ["total"], keepdims=0),
        helper.make_node("Div", ["sum", "total"], ["ratio"]),
    ]
    graph = model(nodes, {"x": ["batch", 3, 8, 8]}, ["ratio"], {"axes": np.array([2, 3])})
    found = reduce_failure(graph, {"x": np.zeros((2, 3, 8, 8), np.float32)}, Ratio())
    assert (found.kind, found.fault, found.nodes) == ("non-finite", "graph", 1)
    assert "1e-12" in found.repair.expected
    assert np.isfinite(found.expected).all()


@pytest.fixture
def padded():
    """ONNX Runtime merges the padding with zeros into the pooling, which pads with the lowest number."""
    nodes = [
        helper.make_node("Exp", ["x"], ["exp"]),
        helper.make_node("Neg", ["exp"], ["negative"]),
        helper.make_node("Pad", ["negative", "pads"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["largest"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Tanh", ["largest"], ["y"]),
    ]
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    return model(nodes, {"x": ["batch", 3, 8, 8]}, ["y"], {"pads": pads})


class Padded(nn.Module):
    def forward(self, x):
        return nn.functional.max_pool2d(nn.functional.pad(-x.exp(), (1, 1, 1, 1)), 3, 2).tanh()


@pytest.mark.parametrize("network", [Padded(), None], ids=["torch", "graph alone"])
def test_two_nodes_that_a_runtime_merges_wrongly_are_found(padded, network):
    found = reduce_failure(padded, {"x": noise(2)}, network)
    assert (found.kind, found.fault) == ("runtime", "runtime")
    assert [node.op_type for node in found.graph.graph.node] == ["Pad", "MaxPool"]
    assert found.optimizer == "Pad_Fusion"
    agreeing = {name for name, one in found.by_runtime.items() if one.relative <= found.threshold}
    assert agreeing == {"onnxruntime, ORT_DISABLE_ALL", "onnx.reference, float64"}


def test_a_runtime_of_ones_own_is_searched_for_its_wrong_kernel(network, graph):
    def wrong(proto, inputs):
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        for node in changed.graph.node:
            if node.op_type == "Pow":
                node.op_type = "Mul"
        return running.unoptimized(changed, inputs)

    found = reduce_failure(graph, {"x": noise()}, network, actual=wrong)
    assert found.fault == "runtime"
    assert [node.op_type for node in found.graph.graph.node] == ["Pow"]
    assert (found.optimizer, found.source.code) == (None, "x = (x.pow(3).mean((2, 3)) + 1e-3).sqrt()")
    assert "pow" in found.source.operation
    assert found.nodes_before == 11
    assert found.seconds > 0
    assert [one.relative for one in found.by_runtime.values()] == pytest.approx([0, 0, 0], abs=1e-6)


class Two(nn.Module):
    def forward(self, x, other):
        return x * 2 + other, (other.sin() - 3).tanh()


@pytest.mark.parametrize(("wrong", "node", "inputs"), [("two", "doubled", {"x"}), ("three", "less", {"waves"})])
def test_the_output_that_differs_is_reduced_with_its_own_inputs(wrong, node, inputs):
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Add", ["doubled", "other"], ["sum"]),
        helper.make_node("Sin", ["other"], ["waves"]),
        helper.make_node("Sub", ["waves", "three"], ["less"]),
        helper.make_node("Tanh", ["less"], ["end"]),
    ]
    arrays = {"two": np.float32(2), "three": np.float32(3)}
    graph = model(nodes, {"x": ["batch", 4], "other": ["batch", 4]}, ["sum", "end"], arrays)
    given = {"x": noise(2, (4,)), "other": noise(2, (4,)) / 2}
    with pytest.raises(NothingToReduce):
        reduce_failure(graph, given, Two())
    set_constant(wrong, lambda value: value + 0.25)(graph)
    found = reduce_failure(graph, given, Two())
    assert (found.fault, found.nodes, found.repair.node, found.repair.name) == ("graph", 1, node, wrong)
    assert found.inputs.keys() == inputs
    assert found.repairs_all
    written = found.to_json()
    assert written.keys() == {
        "kind", "fault", "difference", "threshold", "oracle", "by_runtime", "optimizer", "culprit", "culprit_alone",
        "source", "nodes", "nodes_before", "input_bytes", "checked", "seconds", "complete",
    }  # fmt: skip
    (operator,) = (one.op_type for one in nodes if one.output[0] == node)
    assert written["nodes"] == [{"operator": operator, "output": node}]
    assert (written["culprit"], written["culprit_alone"]) == (found.repair.to_json(), True)
    assert (written["kind"], written["nodes_before"], written["complete"]) == ("translation", 5, True)
    assert written["input_bytes"] == sum(value.nbytes for value in found.inputs.values()) > 0
    assert written["seconds"] == round(found.seconds, 2)


FINDINGS = {
    "the whole graph": ({}, "* **Culprit:** Sub 'less': constant three is 3.25, 3 agrees. The whole graph then agrees"),
    "another fault": ({"repairs_all": False}, "3 agrees. The whole graph has another fault, too."),
    "not checked": ({"repairs_all": None}, "3 agrees.\n"),
    "of a runtime": ({"fault": "runtime"}, "* **Attribute:** Sub 'less': constant three is 3.25, 3 agrees with the"),
    "no culprit": ({"repair": None}, "* **Culprit:** no other attribute, constant or operator of a single node"),
    "an optimizer": ({"optimizer": "Some_Fusion"}, '`disabled_optimizers=["Some_Fusion"]`'),
    "not complete": ({"complete": False}, "* The search was ended before it was done"),
    "a runtime that cannot": ({"by_runtime": {"another": None}}, "| another | cannot run it |"),
    "the graph is right": ({"fault": "runtime"}, "**Runtime.** The graph is right"),
    "NaN in a runtime": (
        {"by_runtime": {"another": compare(np.float32([np.nan]), np.zeros(1))}},
        "| another | nan where 0",
    ),
    "a runtime that agrees": ({"by_runtime": {"another": compare(np.zeros(1), np.zeros(1))}}, "| another | agrees |"),
    "its size": ({"nodes_before": 77}, "* **Size:** 1 of 77 nodes, 4 bytes of input."),
}


@pytest.fixture(scope="module")
def wrong_constant():
    nodes = [helper.make_node("Sub", ["x", "three"], ["less"]), helper.make_node("Tanh", ["less"], ["y"])]
    graph = model(nodes, {"x": ["batch", 4]}, ["y"], {"three": np.float32(3.25)})
    return reduce_failure(graph, {"x": noise(2, (4,))}, Less())


class Less(nn.Module):
    def forward(self, x):
        return (x - 3).tanh()


@pytest.mark.parametrize(("change", "says"), FINDINGS.values(), ids=FINDINGS)
def test_the_report_says_what_was_found(wrong_constant, tmp_path, change, says):
    found = replace(wrong_constant, **change)
    folder.write(found, tmp_path / "found")
    report = (tmp_path / "found" / "report.md").read_text()
    assert says in report
    first, *_, last = report.split("```")
    assert first.startswith("# Sub: ")
    assert last.startswith("\n\nMade with Python ")
    assert report.splitlines()[1] == report.splitlines()[3] == ""
    assert "\n\n| run by | differs from what is expected by |\n|---|---|\n| " in report
    assert "\n\n## The graph\n\n" in report
    others = [text for other, text in FINDINGS.values() if other and set(other) != set(change)]
    assert not any(text in report for text in others)
    source = "* **Line of Python:** `test_reduction.py:"
    assert (source in report) == (found.source is not None)


@pytest.mark.parametrize(("count", "shown"), [(9, " + ".join(["Tanh"] * 9)), (10, "10 nodes")])
def test_a_title_names_the_operators_where_there_is_room(wrong_constant, count, shown):
    names = ["x", *(f"v{index}" for index in range(count))]
    nodes = [helper.make_node("Tanh", [names[i]], [names[i + 1]]) for i in range(count)]
    found = replace(wrong_constant, graph=model(nodes, {"x": ["batch", 4]}, [names[-1]], {}))
    assert folder.title(found) == f"{shown}: {found.difference.describe()}"
    assert (len(shown) == 60) == (count == 9)


def test_a_report_names_constants_that_are_not_finite_and_cuts_long_graphs(wrong_constant, tmp_path):
    names = ["x", *(f"v{index}" for index in range(150))]
    nodes = [helper.make_node("Add", [names[i], "odd_one"], [names[i + 1]]) for i in range(150)]
    arrays = {"odd_one": np.array([1, np.nan, np.inf, 2], np.float32), "fi`ne": np.ones(3, np.float32)}
    odd = model(nodes, {"x": ["batch", 4]}, [names[-1]], arrays)
    folder.write(replace(wrong_constant, graph=odd), tmp_path / "found")
    report = (tmp_path / "found" / "report.md").read_text()
    assert [line for line in report.splitlines() if "Not finite" in line] == [
        "* **Not finite:** 2 of 4 numbers of the constant odd_one."
    ]
    text = report.split("```")[1]
    assert text.endswith("\n…\n")
    assert len(text) == 4000 + len("\n\n…\n")
    assert "v3" in text
    assert "fi'ne" in text  # no name ends the block
    assert "v149" not in text.rpartition("v3 =")[2]


def test_a_value_that_torch_does_not_compute_has_no_source():
    nodes = [
        helper.make_node("Mul", ["x", "four"], ["much"]),
        helper.make_node("Exp", ["much"], ["power"]),
        helper.make_node("Mul", ["power", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "x"], ["y"]),
    ]
    arrays = {"four": np.float32(4), "zero": np.float32(0)}
    graph = model(nodes, {"x": ["batch", 4]}, ["y"], arrays)

    def wrong(proto, inputs):
        odd = any(node.op_type == "Exp" for node in proto.graph.node)
        return [one + 1 if odd else one for one in running.unoptimized(proto, inputs)]

    found = reduce_failure(graph, {"x": noise(2, (4,))}, nn.Identity(), actual=wrong)
    assert (found.fault, found.source, found.repair) == ("runtime", None, None)
    assert [node.op_type for node in found.graph.graph.node] == ["Exp"]


def test_what_was_found_stays_when_the_time_is_up(network, graph):
    FAULTS["pads"][0](graph)
    found = reduce_failure(graph, {"x": noise()}, network, budget=0)
    assert not found.complete
    assert found.nodes <= len(graph.graph.node)
    assert found.difference.relative > found.threshold


def test_an_interruption_leaves_the_smallest_case_so_far(network, graph):
    FAULTS["pads"][0](graph)
    calls = []

    def interrupted(proto, inputs):
        calls.append(proto)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return running.optimized(proto, inputs)

    found = reduce_failure(graph, {"x": noise()}, network, actual=interrupted)
    assert not found.complete
    assert found.nodes == 1
    assert found.difference.relative > found.threshold


def test_the_folder_shows_the_fault_with_public_packages_alone(network, graph, tmp_path):
    FAULTS["count_include_pad"][0](graph)
    for node in graph.graph.node:
        node.metadata_props.add(key="stack_trace", value="/somewhere/model.py")
    found = reduce_failure(graph, {"x": noise()}, network)
    folder.write(found, tmp_path / "found")
    script = tmp_path / "found" / "reproduce.py"
    lines = script.read_text().splitlines()
    assert len(lines) <= 30
    assert not any("torch" in line or "poolzoo" in line for line in lines if "import" in line)
    assert run(script) == 1
    report = (tmp_path / "found" / "report.md").read_text()
    assert "count_include_pad is 1, 0 agrees" in report
    assert "test_reduction.py:" in report
    assert str(tmp_path) not in report
    assert "site-packages" not in report
    assert b"/somewhere" not in (tmp_path / "found" / "graph.onnx").read_bytes()
    assert json.loads((tmp_path / "found" / "report.json").read_text())["culprit"]["name"] == "count_include_pad"
    onnx.save(found.repair.applied(found.graph), tmp_path / "found" / "graph.onnx")
    assert run(script) == 0
    with pytest.raises(UsageError) as refused:
        folder.write(found, tmp_path / "found")
    assert "--out" not in str(refused.value.hint)


def run(script):
    return subprocess.run([sys.executable, script], capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("found", "expected", "odd"),
    [([1.0, np.nan], [1.0, np.nan], 0), ([1.0, np.nan], [1.0, 2.0], 1), ([np.inf], [-np.inf], 1), ([0.0], [0.0], 0)],
)
def test_nan_and_infinity_are_equal_to_themselves_alone(found, expected, odd):
    difference = compare(np.array(found, np.float32), np.array(expected))
    assert difference.non_finite == odd
    assert (difference.relative == np.inf) == bool(odd)


def test_outputs_of_other_shapes_differ():
    assert compare(np.zeros((2, 3)), np.zeros((3, 2))).relative == np.inf


@pytest.mark.slow
def test_faults_in_whole_networks_are_reduced_to_five_nodes():
    from benchmarks.parity import planted, reduce

    exported = {}
    for fault in planted.FAULTS:
        if fault.network not in exported:
            exported[fault.network] = reduce.export(fault.network)
        found = reduce.reduce(fault, exported[fault.network])
        assert found is not None, fault.kind
        assert found.nodes <= reduce.MOST_NODES, fault.kind
        assert reduce.row(fault, found)["named"] != "no", fault.kind
