"""Reductions off the usual path: a wrong kernel, an operator that the reference lacks, numbers that nobody knows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from poolzoo.common.errors import CheckFailed, Terminated
from poolzoo.parity.reduction import folder, graphs, running
from poolzoo.parity.reduction.reduce import NothingToReduce, reduce_failure

X = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
REFERENCE, PLAIN = "onnx.reference, float64", "onnxruntime, ORT_DISABLE_ALL"


def graph(*nodes: onnx.NodeProto, arrays: Mapping[str, object] | None = None) -> onnx.ModelProto:
    """A graph from `x` to the last node's output."""
    tensors = [numpy_helper.from_array(np.asarray(one), name) for name, one in (arrays or {}).items()]
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])
    result = helper.make_empty_tensor_value_info(nodes[-1].output[0])
    whole = helper.make_graph(nodes, "g", [given], [result], tensors)
    sets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(whole, opset_imports=sets, ir_version=8)


node = helper.make_node


def operators(proto: onnx.ModelProto) -> list[str]:
    return [one.op_type for one in proto.graph.node]


class Largest(nn.Module):
    def forward(self, x):
        return (x * 2).amax(3).abs()


def test_a_kernel_that_loses_a_nan_is_the_runtimes_fault():
    nodes = [
        node("Mul", ["x", "two"], ["twice"]),
        node("ReduceMax", ["twice", "axes"], ["most"], keepdims=0),
        node("Abs", ["most"], ["y"]),
    ]
    x = X.copy()
    x[1, 0, 2, 3] = np.nan
    found = reduce_failure(graph(*nodes, arrays={"two": np.float32(2), "axes": np.array([3])}), {"x": x}, Largest())
    assert (found.kind, found.fault, found.complete) == ("non-finite", "runtime", True)
    assert operators(found.graph) == ["ReduceMax"]
    assert found.oracle == "the same graph in onnx.reference in float64"
    assert np.isnan(found.expected).any()
    assert found.optimizer is None  # with all or none of them
    assert found.by_runtime[REFERENCE].relative == 0
    assert found.by_runtime[PLAIN].non_finite


QUICK = {"domain": "com.microsoft", "alpha": 1.0}


def test_an_operator_that_the_reference_lacks_is_compared_with_the_runtime(tmp_path):
    proto = graph(node("Exp", ["x"], ["e"]), node("QuickGelu", ["e"], ["g"], **QUICK), node("Tanh", ["g"], ["y"]))

    def wrong(part, inputs):
        odd = "QuickGelu" in operators(part)
        return [one + 1 if odd else one for one in running.unoptimized(part, inputs)]

    found = reduce_failure(proto, {"x": X}, None, actual=wrong)
    assert (found.kind, found.fault, found.source) == ("runtime", "runtime", None)
    assert operators(found.graph) == ["QuickGelu"]
    assert found.oracle == "the same graph in onnxruntime without optimizations"
    assert found.by_runtime[REFERENCE] is None
    assert found.by_runtime[PLAIN].relative == 0
    folder.write(found, tmp_path / "found")
    assert f"| {REFERENCE} | cannot run it |" in (tmp_path / "found" / "report.md").read_text()
    assert "ReferenceEvaluator" not in (tmp_path / "found" / "reproduce.py").read_text()


class Quick(nn.Module):
    def forward(self, x):
        return x * (x * 1.702).sigmoid()


def test_what_torch_passes_repairs_an_operator_that_the_reference_lacks():
    found = reduce_failure(graph(node("QuickGelu", ["x"], ["y"], **QUICK)), {"x": X}, Quick())
    assert (found.kind, found.fault) == ("translation", "graph")
    assert (found.repair.part, found.repair.name, found.repair.expected) == ("attribute", "alpha", "1.702")
    assert found.oracle.startswith("onnxruntime, of the graph with the repair, which agrees with torch ")
    assert found.by_runtime[REFERENCE] is None
    assert found.repairs_all


class Kept(nn.Module):
    def forward(self, x):
        return x.exp().mean(3, keepdim=True).neg()


def test_an_axis_that_is_lost_is_a_fault_of_shapes():
    nodes = [
        node("Exp", ["x"], ["e"]),
        node("ReduceMean", ["e", "axes"], ["m"], keepdims=0),
        node("Neg", ["m"], ["y"]),
    ]
    found = reduce_failure(graph(*nodes, arrays={"axes": np.array([3])}), {"x": X}, Kept())
    assert (found.fault, found.difference.max_abs) == ("graph", None)
    assert (found.repair.node, found.repair.part, found.repair.name) == ("m", "attribute", "keepdims")
    assert (found.repair.found, found.repair.expected, found.repairs_all) == ("0", "1", True)
    assert found.difference.describe() == "the shapes differ"


class Scaled(nn.Module):
    """A factor that torch reads from a weight, and not from an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(3.217))

    def forward(self, x):
        return x.tanh() * self.factor


def test_a_number_that_torch_does_not_pass_is_fitted():
    proto = graph(node("Tanh", ["x"], ["t"]), node("Mul", ["t", "k"], ["y"]), arrays={"k": np.float32(2)})
    found = reduce_failure(proto, {"x": X}, Scaled())
    assert (found.repair.node, found.repair.part, found.repair.name) == ("y", "constant", "k")
    assert (found.repair.found, found.repair.expected) == ("2", "3.217")
    assert found.repairs_all
    assert found.nodes == 1


class Masked(nn.Module):
    """Weights that exist in torch as a product alone."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn((4, 5), generator=generator))
        self.scale = nn.Parameter(torch.randn((4, 1), generator=generator))

    def forward(self, x):
        return x @ (self.weight * self.scale)


def test_many_weights_are_fitted_in_the_smallest_graph():
    network = Masked()
    right = (network.weight * network.scale).detach().numpy()
    wrong = right + np.random.default_rng(2).standard_normal(right.shape).astype(np.float32)
    found = reduce_failure(graph(node("MatMul", ["x", "w"], ["y"]), arrays={"w": wrong}), {"x": X}, network)
    assert (found.repair.node, found.repair.part) == ("y", "weights")
    assert found.oracle.startswith("onnx.reference in float64, of the graph with the repair")
    assert (found.complete, found.nodes) == (True, 1)
    assert found.bytes < X.nbytes / 4
    assert found.repairs_all is None  # its weights are not those of the whole graph
    for shown, weights in ((found.repair.found, wrong), (found.repair.expected, right)):
        assert np.abs(weights - float(shown)).min() < 1e-4


def test_padding_that_is_computed_becomes_a_constant():
    """ONNX Runtime merges a padding only where its sizes are known, and not where they are an input."""
    nodes = [
        node("Exp", ["x"], ["exp"]),
        node("Neg", ["exp"], ["negative"]),
        node("Neg", ["minus"], ["pads"]),
        node("Pad", ["negative", "pads"], ["padded"]),
        node("MaxPool", ["padded"], ["y"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    proto = graph(*nodes, arrays={"minus": -np.array([0, 0, 1, 1, 0, 0, 1, 1])})
    found = reduce_failure(proto, {"x": X}, None)
    assert operators(found.graph) == ["Pad", "MaxPool"]
    assert graphs.constants(found.graph)["pads"].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert len(found.inputs) == 1
    assert found.optimizer == "Pad_Fusion"
    assert found.oracle == "the same graph in onnx.reference in float64"


def test_a_runtime_that_agrees_leaves_nothing_to_reduce():
    proto = graph(node("Tanh", ["x"], ["y"]))
    with pytest.raises(NothingToReduce, match="agrees with ONNX Runtime without optimizations"):
        reduce_failure(proto, {"x": X}, None)
    proto.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(CheckFailed, match="the graph cannot be run"):
        reduce_failure(proto, {"x": X}, nn.Tanh())


class More(nn.Module):
    """It gives more than the graph does."""

    def forward(self, x):
        return x * 3, x.sum(), x.exp()


def test_outputs_that_the_graph_lacks_are_not_compared():
    found = reduce_failure(graph(node("Mul", ["x", "k"], ["y"]), arrays={"k": np.float32(2)}), {"x": X}, More())
    assert (found.repair.expected, found.repairs_all) == ("3", True)
    assert found.source.to_json() == {
        "layer": "",
        "line": found.source.line,
        "code": "return x * 3, x.sum(), x.exp()",
        "operation": "aten.mul.Tensor(·, 3)",
    }


@pytest.mark.parametrize(
    ("share", "threshold"),
    [(0.5, 1e-4), (2e-4, 2e-5), (3e-5, 4e-6), (6e-6, 3e-6)],
    ids=["large", "small", "least", "tiny"],
)
def test_a_smaller_case_must_differ_by_a_share_of_the_whole_one(share, threshold):
    def wrong(part, inputs):
        return [one + share * np.abs(one).max() for one in running.unoptimized(part, inputs)]

    found = reduce_failure(graph(node("Exp", ["x"], ["e"]), node("Neg", ["e"], ["y"])), {"x": X}, None, actual=wrong)
    assert found.threshold == pytest.approx(threshold, rel=0.1)
    assert found.difference.relative > found.threshold


def test_a_signal_to_end_is_no_end_of_the_time():
    calls = []

    def ended(part, inputs):
        calls.append(part)
        if len(calls) == 3:
            raise Terminated(15)
        return [one + 1 for one in running.unoptimized(part, inputs)]

    with pytest.raises(Terminated):
        reduce_failure(graph(node("Exp", ["x"], ["e"]), node("Neg", ["e"], ["y"])), {"x": X}, None, actual=ended)


def test_the_attribute_that_a_runtime_computes_wrongly_is_named():
    def wrong(part, inputs):
        attributes = {one.name: one.i for made in part.graph.node for one in made.attribute}
        return [one + attributes.get("count_include_pad", 0) for one in running.unoptimized(part, inputs)]

    pool = node("AveragePool", ["e"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    proto = graph(node("Exp", ["x"], ["e"]), pool, node("Neg", ["p"], ["y"]))
    found = reduce_failure(proto, {"x": X}, None, actual=wrong)
    assert (found.fault, operators(found.graph)) == ("runtime", ["AveragePool"])
    repair = found.repair
    assert (repair.part, repair.name, repair.found, repair.expected) == ("attribute", "count_include_pad", "1", "none")
    assert found.repairs_all is None


def test_a_runtime_with_a_fault_of_its_own_hides_none_of_the_graph():
    """The runtime computes the wrong constant rightly, and another node wrongly: no part shows what the whole does."""

    def wrong(part, inputs):
        fixed = graphs.with_constant_values(part, "k", np.float32(3))
        return [one + ("Tanh" in operators(part)) for one in running.unoptimized(fixed, inputs)]

    class Thrice(nn.Module):
        def forward(self, x):
            return (x * 3).tanh()

    proto = graph(node("Mul", ["x", "k"], ["m"]), node("Tanh", ["m"], ["y"]), arrays={"k": np.float32(2)})
    found = reduce_failure(proto, {"x": X}, Thrice(), actual=wrong)
    assert found.fault == "graph"
    assert "Tanh" in operators(found.graph)
    assert found.difference.max_abs == pytest.approx(1, abs=1e-5)
    assert found.source.operation.startswith("aten.tanh")
