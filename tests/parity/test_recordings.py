"""What torch computed, value by value: recorded, computed again, and recognized in a graph; and cases made smaller."""

from __future__ import annotations

import time
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from poolzoo.common.errors import Terminated
from poolzoo.parity.reduction import culprit, cutting, graphs, running, shrinking
from poolzoo.parity.reduction.case import Case, Oracle, TimeIsUp
from poolzoo.parity.reduction.locating import Region, behind, locate
from poolzoo.parity.reduction.recordings import Recordings
from poolzoo.parity.reduction.tape import public_path, record
from poolzoo.parity.reduction.torch_side import Recorded, Replayed, TorchSide, close, record_both

X = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)


def graph_of(nodes, output, constants=MappingProxyType({})):
    """Nodes that compute an output from `x`."""
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])
    tensors = [numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()]
    whole = helper.make_graph(nodes, "g", [given], [helper.make_empty_tensor_value_info(output)], tensors)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1, bias=False)
        self.conv.weight.data = torch.arange(15.0).reshape(5, 3, 1, 1) / 8

    def forward(self, x):
        y = self.conv(x).clamp(min=0.25)
        return y.mean((2, 3), keepdim=False) + 2.0


@pytest.fixture(scope="module")
def network() -> Network:
    return Network().eval()


@pytest.fixture(scope="module")
def recordings(network) -> Recordings:
    return record_both(network, [X])


def expected(x: np.ndarray = X, weight: np.ndarray | None = None) -> list[np.ndarray]:
    """All that the network computes, by numpy."""
    w = np.arange(15.0).reshape(5, 3) / 8 if weight is None else weight
    convolved = np.einsum("dc,nchw->ndhw", w, x.astype(np.float64))
    clamped = convolved.clip(0.25)
    return [convolved, clamped, clamped.mean((2, 3)), clamped.mean((2, 3)) + 2]


def test_each_operation_is_recorded_with_where_it_was_written(network, recordings):
    tape = recordings.double
    first, *others = (step.operator.split(".")[1] for step in tape.steps)
    assert first in ("conv2d", "convolution")
    assert others == ["clamp", "mean", "add"]
    for step, wanted in zip(tape.steps, expected(), strict=True):
        (made,) = step.outputs
        np.testing.assert_allclose(tape.array(made), wanted, atol=1e-12)
        assert tape.step_of(made) is step
        assert step.line.startswith("test_recordings.py:")
    assert [step.layer for step in tape.steps] == ["conv", "", "", ""]
    assert tape.steps[1].code == "y = self.conv(x).clamp(min=0.25)"
    assert tape.steps[1].describe() == "aten.clamp.default(·, 0.25)"
    assert tape.steps[2].describe() == "aten.mean.dim(·, [2, 3])"
    assert tape.steps[1].arguments() == [0.25]
    assert tape.steps[2].arguments() == [[2, 3]]
    assert tape.outputs == list(tape.steps[3].outputs)
    assert np.array_equal(tape.array(tape.inputs[0]), X)
    assert tape.step_of(tape.inputs[0]) is None
    assert tape.modules["conv"] == tape.steps[0].outputs[0]
    assert tape.array(tape.inputs[0]).dtype == np.float64
    assert record(network, [X], torch.float32).values[0].dtype == torch.float32
    assert network.conv.weight.dtype == torch.float32


def test_what_a_value_is_made_of_is_known(recordings):
    tape = recordings.double
    x, (convolved, clamped, mean, end) = tape.inputs[0], [step.outputs[0] for step in tape.steps]
    assert tape.steps_between({convolved}, mean) == [1, 2]
    assert tape.steps_between({x}, end) == [0, 1, 2, 3]
    assert tape.steps_between({end}, end) == []
    (weight,) = tape.leaves({x}, end)
    np.testing.assert_allclose(tape.array(weight).reshape(-1), np.arange(15) / 8, atol=1e-6)
    assert tape.leaves(set(), convolved) == {x, weight}
    assert tape.leaves({clamped}, end) == set()
    assert tape.reads(convolved) == {x, weight}
    assert tape.reads(x) == set()


def test_a_value_is_computed_again_from_others(recordings):
    tape = recordings.double
    other = np.random.default_rng(1).standard_normal((3, 3, 4, 4))
    found = tape.replay({tape.inputs[0]: torch.from_numpy(other)}, tape.outputs[0])
    np.testing.assert_allclose(found.numpy(), expected(other)[-1], atol=1e-6)
    clamped = tape.steps[1].outputs[0]
    again = tape.replay({clamped: torch.ones(2, 5, 4, 4, dtype=torch.float64)}, tape.outputs[0])
    assert np.array_equal(again.numpy(), np.full((2, 5), 3.0))


def test_both_precisions_are_compared_where_their_steps_are_the_same(network, recordings):
    assert recordings.single is not None
    index = recordings.double.outputs[0]
    exact, single = recordings.double.array(index), recordings.single.array(index)
    noise = np.abs(single - exact).max()
    assert recordings.tolerance(index) == pytest.approx(8 * noise + 4e-6 * np.abs(exact).max())
    assert Recordings(recordings.double, None).tolerance(index) == pytest.approx(4e-6 * np.abs(exact).max())

    class Small(Network):
        def forward(self, x):
            return super().forward(x) * 2**-10

    small = Recordings(record_both(Small(), [X]).double, None)
    largest = np.abs(exact).max() * 2**-10
    assert small.tolerance(small.double.outputs[0]) == pytest.approx(4e-6 * largest)

    class Casts(Network):
        def forward(self, x):
            if x.dtype != torch.float32:
                raise RuntimeError("expected float32")
            return super().forward(x)

    alone = record_both(Casts(), [X])
    assert alone.single is None
    assert alone.double.array(0).dtype == np.float32

    class Branches(Network):
        def forward(self, x):
            return super().forward(x) if x.dtype == torch.float32 else super().forward(x) + 0

    assert record_both(Branches(), [X]).single is None


def test_values_of_torch_are_recognized_by_their_numbers(recordings):
    convolved, clamped, mean, end = (step.outputs[0] for step in recordings.double.steps)
    a, b, c, d = expected()
    assert [recordings.equal(one.astype(np.float32)) for one in (a, b, c, d)] == [[convolved], [clamped], [mean], [end]]
    assert recordings.equal(X) == recordings.double.inputs
    assert recordings.equal(np.zeros((7, 7))) == []
    assert recordings.agrees(d, end)
    assert not recordings.agrees(d, mean)
    far = d.copy()
    far[1, 3] += 2 * recordings.tolerance(end)
    assert recordings.equal(far) == []
    broken = a.copy()
    broken[0, 0, 0, 1] = np.nan
    assert recordings.equal(broken) == []


def test_numbers_of_classes_and_empty_values_are_no_values_to_recognize():
    class Chooses(nn.Module):
        def forward(self, x):
            return x[:, 3:] * 2, torch.nn.functional.one_hot(x.argmax(1), 3).to(x.dtype)

    found = record_both(Chooses(), [X])
    best = X.argmax(1)
    assert found.equal(best.astype(np.float32)) == []
    assert found.equal(np.zeros((2, 0, 4, 4), np.float32)) == []
    assert found.equal(np.eye(3, dtype=np.float32)[best]) == [found.double.outputs[1]]


def test_infinity_and_nan_are_recognized_where_they_are():
    class Inverse(nn.Module):
        def forward(self, x):
            return x.clamp(min=0).reciprocal(), x.clamp(min=0) - 3

    recorded = record_both(Inverse(), [X])
    first, second = recorded.double.outputs
    with np.errstate(divide="ignore"):
        infinite = 1 / X.clip(0)
    assert np.isinf(infinite).any()
    assert recorded.equal(infinite) == [first]
    assert recorded.tolerance(first) < 1e-3 * infinite[np.isfinite(infinite)].max()
    assert recorded.equal(X.clip(0) - 3) == [second]
    assert not recorded.agrees(np.where(np.isinf(infinite), 7, infinite), first)
    assert not recorded.agrees(-infinite, first)


def graph(weight: float = 0.25) -> onnx.ModelProto:
    """The network as a graph, with this least value."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Max", ["a", "least"], ["b"]),
        helper.make_node("ReduceMean", ["b", "axes"], ["c"], keepdims=0),
        helper.make_node("Add", ["c", "two"], ["d"]),
    ]
    arrays = {
        "w": (np.arange(15.0).reshape(5, 3, 1, 1) / 8).astype(np.float32),
        "least": np.float32(weight),
        "axes": np.array([2, 3]),
        "two": np.float32(2),
    }
    return graph_of(nodes, "d", arrays)


def alive() -> None: ...


def test_the_part_that_differs_lies_between_values_that_agree(recordings):
    region = locate(graph(0.5), {"x": X}, recordings, output=0, layers={}, alive=alive)
    assert (graphs.computed(region.graph), region.output) == (["b"], "b")
    convolved, clamped = (step.outputs[0] for step in recordings.double.steps[:2])
    assert (region.starts, region.end) == ({"a": convolved}, clamped)
    np.testing.assert_allclose(region.inputs["a"], expected()[0], atol=1e-6)
    assert region.inputs["a"].dtype == np.float32
    assert behind(graph(), "b") == ["c", "d"]
    side = TorchSide(region, recordings)
    assert side.replays
    assert side.tolerance == 2 * recordings.tolerance(clamped)
    other = np.linspace(-1, 1, 40).reshape(1, 5, 2, 4)
    np.testing.assert_allclose(side.expected({"a": other}), other.clip(0.25))

    def ended() -> None:
        raise TimeIsUp

    whole = locate(graph(0.5), {"x": X}, recordings, output=0, layers={}, alive=ended)
    assert graphs.computed(whole.graph) == ["b", "c", "d"]


class Decoy(nn.Module):
    """What is multiplied by zero agrees whatever stands for it."""

    def forward(self, x):
        decoy, right = x.cos(), x.tanh()
        waves = right.sin()
        return waves * 3 + waves * 0 + decoy * 0


def test_a_value_that_changes_nothing_says_nothing():
    recorded = record_both(Decoy(), [X])
    nodes = [
        helper.make_node("Exp", ["x"], ["t"]),
        helper.make_node("Sin", ["t"], ["s"]),
        helper.make_node("Mul", ["s", "zero"], ["z"]),
        helper.make_node("Mul", ["s", "three"], ["m"]),
        helper.make_node("Add", ["m", "z"], ["y"]),
    ]
    proto = graph_of(nodes, "y", {"zero": np.float32(0), "three": np.float32(3)})
    found = locate(proto, {"x": X}, recorded, output=0, layers={}, alive=alive)
    assert (found.output, recorded.double.step_of(found.end).operator) == ("t", "aten.tanh.default")


class Active(nn.Module):
    def forward(self, x):
        return x.relu() * 2


def test_a_relu_of_what_a_relu_gave_stands_for_the_latter():
    recorded = record_both(Active(), [X])
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Relu", ["e"], ["a"]),
        helper.make_node("Mul", ["a", "two"], ["y"]),
    ]
    proto = graph_of(nodes, "y", {"two": np.float32(2)})
    found = locate(proto, {"x": X}, recorded, output=0, layers={}, alive=alive)
    assert (found.output, recorded.double.step_of(found.end).operator) == ("a", "aten.relu.default")
    assert graphs.computed(found.graph) == ["e", "a"]

    def terminated() -> None:
        raise Terminated(15)

    with pytest.raises(Terminated):
        locate(proto, {"x": X}, recorded, output=0, layers={}, alive=terminated)


class Waves(nn.Module):
    """Twenty values of one shape, of which only the last ones are read together."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Tanh()

    def forward(self, x):
        x = x * 2
        for number in range(20):
            x = (x + number).sin()
        return self.last(x * 3) * 7


def test_a_known_value_of_a_layer_is_tried_first():
    recorded = record_both(Waves(), [X])
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Abs", ["e"], ["last"]),
        helper.make_node("Mul", ["last", "seven"], ["y"]),
    ]
    proto = graph_of(nodes, "y", {"seven": np.float32(7)})

    def tries(layers: dict[str, str]) -> int:
        calls: list[None] = []
        found = locate(proto, {"x": X}, recorded, output=0, layers=layers, alive=lambda: calls.append(None))
        assert (found.output, found.end) == ("last", recorded.double.modules["last"])
        return len(calls)

    known = tries({"last": "last", "no such layer": "e", "": "e"})
    near, before = 12, 42  # values near those of the graph; all before the last one, in which no earlier end is found
    assert known == near + 1 + before
    assert known < tries({}) - 5
    assert known < tries({"last": "no such value"})


def region_of(recordings: Recordings, start: str, index: int, end: str, last: int) -> Region:
    part = graphs.cut(graph(), {start: X}, end)
    return Region(part, {start: X}, {start: X}, {start: index}, last)


def test_torchs_weights_are_sliced_with_a_regions_inputs(recordings):
    tape = recordings.double
    region = region_of(recordings, "x", tape.inputs[0], "a", tape.steps[0].outputs[0])
    whole = Replayed(region, tape)
    assert whole.sliceable
    fewer = whole.sliced(3, [0, 2])
    np.testing.assert_allclose(
        fewer({"x": X[:, [0, 2]]}),
        expected(X[:, [0, 2]], (np.arange(15.0).reshape(5, 3) / 8)[:, [0, 2]])[0],
        atol=1e-6,
    )
    np.testing.assert_allclose(whole({"x": X}), expected()[0], atol=1e-6)
    fixed = Recorded(np.ones(3))
    assert fixed.sliced(3, [0]) is fixed
    assert fixed({}) is fixed.value
    assert not fixed.sliceable


def test_equal_within_a_tolerance_means_not_finite_in_the_same_places():
    a = np.array([1.0, np.nan, np.inf])
    assert close(a + 0.01, a, 0.01 + 1e-9)
    assert not close(a + 0.02, a, 0.01)
    assert not close(np.array([1.0, 2.0, np.inf]), a, 1.0)
    assert not close(a[:2], a, 1.0)


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        (torch.nn.__file__, "torch/nn/__init__.py"),
        (np.__file__, "numpy/__init__.py"),
        ("/home/somebody/secret/net.py", "net.py"),
        (__file__, "test_recordings.py"),
    ],
    ids=["torch", "numpy", "elsewhere", "here"],
)
def test_a_source_file_is_shown_without_paths_of_the_machine(file, shown):
    assert public_path(file) == shown


def oracle(right: onnx.ModelProto, wrong: onnx.ModelProto, **more: object) -> Oracle:
    bar = SimpleNamespace(update=lambda *_: None)
    given = {"threshold": 1e-3, "non_finite": False, "kernels_agree": False, "deadline": time.monotonic() + 60, **more}
    best = Case(wrong, {"x": X}, right)
    return Oracle(actual=running.unoptimized, reference=running.reference, bar=bar, best=best, **given)


def test_a_case_shows_a_difference_beyond_its_threshold_alone():
    wrong = graph(0.5)
    found = oracle(graph(), wrong)
    assert found.shows(found.best)
    relative = found.difference(found.best).relative
    assert not oracle(graph(), wrong, threshold=1.01 * relative).shows(found.best)
    assert oracle(graph(), wrong, threshold=0.99 * relative).shows(found.best)
    assert not oracle(graph(), graph()).shows(Case(graph(), {"x": X}, graph()))
    assert not oracle(graph(), wrong, non_finite=True).shows(found.best)
    assert not found.shows(Case(wrong, {}, graph()))
    assert found.checked == 2
    with pytest.raises(TimeIsUp):
        oracle(graph(), wrong, deadline=0.0).shows(found.best)


def test_one_number_that_is_not_finite_is_enough():
    proto = graph(0.5)
    divide = helper.make_node("Div", ["right", "odd"], ["d"])
    proto.graph.node[-1].output[0] = "right"
    proto.graph.node.append(divide)
    one = np.ones((2, 5), np.float32)
    one[1, 3] = 0
    proto.graph.initializer.append(numpy_helper.from_array(one, "odd"))
    found = oracle(graph(), proto, non_finite=True)
    assert found.difference(found.best).non_finite == 1
    assert found.shows(found.best)
    assert not oracle(graph(), proto).shows(found.best)  # where numbers are in question, it is another fault


def test_rounding_inside_a_graph_is_no_difference():
    exact = oracle(graph(), graph(0.25 + 1e-7), threshold=1e-9, kernels_agree=True)
    assert not exact.shows(exact.best)
    assert oracle(graph(), graph(0.25 + 1e-7), threshold=1e-9).shows(exact.best)


def test_nodes_are_cut_before_and_behind_the_fault():
    found = oracle(graph(), graph(0.5))
    cutting.cut_nodes(found)
    best = found.best
    assert graphs.computed(best.graph) == graphs.computed(best.reference) == ["b"]
    assert [one.name for one in best.graph.graph.input] == ["a"]
    np.testing.assert_allclose(best.inputs["a"], expected()[0], atol=1e-6)
    assert float(graphs.constants(best.graph)["least"]) == 0.5
    assert float(graphs.constants(best.reference)["least"]) == 0.25


def chain(*operators: str) -> onnx.ModelProto:
    """Operators of one input one after another, from `x` to `v<last>`; the first value is `v1`."""
    names = ["x", *(f"v{index}" for index in range(1, len(operators) + 1))]
    nodes = [helper.make_node(one, [names[i]], [names[i + 1]]) for i, one in enumerate(operators)]
    return graph_of(nodes, names[-1])


def with_both(first: str, second: str):
    """A runtime that adds 1 to what graphs with two operators give."""

    def run(proto: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        found = running.unoptimized(proto, inputs)
        wrong = {first, second} <= {node.op_type for node in proto.graph.node}
        return [one + 1 if wrong else one for one in found]

    return run


def of_one_graph(proto: onnx.ModelProto, actual: object, **inputs: np.ndarray) -> Oracle:
    """The search for what a runtime makes of a graph that is right."""
    found = oracle(proto, proto)
    found.actual = actual
    found.best = Case(proto, inputs or {"x": X}, proto)
    return found


def test_values_from_before_become_inputs_where_many_nodes_read_them():
    names = ["x", *(f"v{index}" for index in range(1, 31))]
    nodes = [helper.make_node("Sin", ["x"], ["v1"])]
    nodes += [helper.make_node("Mean", [names[i - 1], names[i - 2]], [names[i]]) for i in range(2, 31)]
    nodes[20].op_type, nodes[22].op_type = "Sum", "Max"
    proto = graph_of(nodes, "v30")
    found = of_one_graph(proto, with_both("Sum", "Max"))
    cutting.cut_nodes(found)
    assert [node.op_type for node in found.best.graph.graph.node] == ["Sum", "Max"]
    assert found.best.output == "v23"
    assert found.best.inputs.keys() <= {"v19", "v20", "v22"}
    assert found.checked <= 30


def test_what_lies_between_two_nodes_at_fault_is_left_out():
    proto = chain("Neg", "Abs", "Sin", "Cos", "Relu", "Sqrt", "Tanh")
    found = of_one_graph(proto, with_both("Abs", "Sqrt"))
    assert found.shows(found.best)
    cutting.cut_nodes(found)
    assert [node.op_type for node in found.best.graph.graph.node] == ["Abs", "Sqrt"]
    assert found.best.graph is found.best.reference
    assert found.best.output == "v6"
    assert found.best.graph.graph.node[1].input[0] == found.best.graph.graph.node[0].output[0] == "v2"
    assert found.shows(found.best)


@pytest.mark.parametrize("place", [0, 30, 60, 61])
def test_a_long_graph_is_cut_in_halves(place):
    operators = ["Sin"] * 62
    operators[place] = "Abs"
    found = of_one_graph(chain(*operators), with_both("Abs", "Abs"))
    cutting.cut_nodes(found)
    assert [node.op_type for node in found.best.graph.graph.node] == ["Abs"]
    assert list(found.best.inputs) == ["x" if place == 0 else f"v{place}"]
    assert found.checked <= 6 + 6  # of the end, and what is left to try


def test_integers_become_constants_as_they_are_in_files():
    nodes = [
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Neg", ["size"], ["less"]),
        helper.make_node("Neg", ["less"], ["again"]),
        helper.make_node("Gather", ["x", "rows"], ["some"], axis=1),
        helper.make_node("Expand", ["x", "again"], ["wide"]),
        helper.make_node("Concat", ["some", "wide"], ["y"], axis=1),
    ]
    given = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4]),
        helper.make_tensor_value_info("rows", onnx.TensorProto.INT64, [2]),
    ]
    whole = helper.make_graph(nodes, "g", given, [helper.make_empty_tensor_value_info("y")])
    proto = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    rows = np.array([2, 0])

    def gathers(graph: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        found = running.unoptimized(graph, inputs)
        return [one + 1 if any(node.op_type == "Gather" for node in graph.graph.node) else one for one in found]

    found = of_one_graph(proto, gathers, x=X, rows=rows)
    cutting.cut_nodes(found)
    assert [node.op_type for node in found.best.graph.graph.node] == ["Gather"]
    assert found.best.inputs.keys() == {"x"}
    assert graphs.constants(found.best.graph)["rows"].tolist() == [2, 0]
    expands = of_one_graph(proto, with_both("Expand", "Concat"), x=X, rows=rows)
    cutting.cut_nodes(expands)
    assert [node.op_type for node in expands.best.graph.graph.node] == ["Expand", "Concat"]
    assert graphs.constants(expands.best.graph)["again"].tolist() == [2, 3, 4, 4]
    assert all(value.dtype.kind == "f" for value in expands.best.inputs.values())


def test_torchs_values_that_were_only_recorded_are_not_cut(recordings):
    found = oracle(graph(), graph(0.5))
    found.best = Case(graph(0.5), {"x": X}, Recorded(np.zeros((2, 5))))
    cutting.cut_nodes(found)
    assert found.checked == 0


def test_weights_of_torch_shrink_with_the_channels(recordings):
    tape = recordings.double
    region = region_of(recordings, "x", tape.inputs[0], "a", tape.steps[0].outputs[0])
    weights = graphs.constants(region.graph)["w"].copy()
    weights[:, 1] += 1
    found = oracle(graph(), graph())
    found.best = Case(graphs.with_constant_values(region.graph, "w", weights), {"x": X}, Replayed(region, tape))
    shrinking.shrink(found)
    best = found.best
    assert best.inputs["x"].size == 1
    assert graphs.constants(best.graph)["w"].size < weights.size
    assert found.shows(best)
    kept = graphs.constants(best.graph)["w"].reshape(-1)
    difference = found.actual(best.graph, best.inputs)[0] - found.expected(best)
    np.testing.assert_allclose(difference.reshape(-1), best.inputs["x"].item() * np.ones(len(kept)), atol=1e-6)


def test_groups_and_sizes_shrink_with_their_channels():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], group=3),
        helper.make_node("Reshape", ["a", "sides"], ["b"]),
    ]
    proto = graph_of(nodes, "b", {"w": np.ones((3, 1, 2, 2), np.float32), "sides": np.array([-1, 3, 9])})
    found = of_one_graph(proto, with_both("Conv", "Reshape"))
    shrinking.shrink(found)
    best = found.best
    assert best.inputs["x"].shape[:2] == (1, 1)
    assert best.graph.graph.node[0].attribute[0].i == 1
    assert graphs.constants(best.graph)["w"].shape[:2] == (1, 1)
    assert graphs.constants(best.graph)["sides"].tolist()[:2] == [-1, 1]
    assert found.shows(best)


def test_small_weights_are_fitted_to_what_torch_computes(recordings):
    tape = recordings.double
    region = region_of(recordings, "x", tape.inputs[0], "a", tape.steps[0].outputs[0])
    right = graphs.constants(region.graph)["w"]
    wrong = right + np.random.default_rng(2).standard_normal(right.shape).astype(np.float32)
    wrong[3, 1] += 9
    found = oracle(graph(), graph())
    found.best = Case(graphs.with_constant_values(region.graph, "w", wrong), {"x": X}, Replayed(region, tape))
    found.best = replace(found.best, inputs={"x": 1000 * X})
    repair = culprit.fit_small(found)
    assert (repair.node, repair.part, repair.name) == ("a", "weights", "w[3, 1, 0, 0]")
    np.testing.assert_allclose(repair.constants["w"], right, atol=1e-4)
    assert repair.expected == f"{repair.constants['w'][3, 1].item():.6g}"
    assert culprit.fit_small(oracle(graph(), graph(0.5))) is None  # a graph says what is right there
    found.best = Case(found.best.graph, {"x": X}, lambda inputs: expected(inputs["x"])[0] ** 3)
    assert culprit.fit_small(found) is None


def test_what_a_repair_adds_shrinks_with_the_graph():
    """The right graph alone has a vector by channel."""
    right = chain("Relu")
    right.graph.node[0].output[0] = "before"
    right.graph.node.append(helper.make_node("Add", ["before", "missing"], ["v1"]))
    vector = np.array([1, 2, 3], np.float32)[:, None, None]
    right.graph.initializer.append(numpy_helper.from_array(vector, "missing"))
    found = oracle(right, chain("Relu"))
    shrinking.shrink(found)
    assert found.best.inputs["x"].shape == (1, 1, 1, 1)
    assert graphs.constants(found.best.reference)["missing"].size == 1
    assert found.shows(found.best)


def test_weights_become_simple_numbers_but_for_the_fault():
    found = oracle(graph(), graph(0.5))
    shrinking.shrink(found)
    right, wrong = (graphs.constants(one) for one in (found.best.reference, found.best.graph))
    assert (float(right["least"]), float(wrong["least"])) == (0.25, 0.5)
    for name in ("w", "two"):
        assert np.array_equal(right[name], wrong[name])
        assert not right[name].any()
    surplus = helper.make_node("Add", ["right", "more"], ["d"])
    proto = graph()
    proto.graph.node[-1].output[0] = "right"
    proto.graph.node.append(surplus)
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.37), "more"))
    found = oracle(graph(), proto)
    shrinking.shrink(found)
    assert float(graphs.constants(found.best.graph)["more"]) == pytest.approx(0.37)  # it is the fault


def test_arrays_shrink_to_what_shows_the_fault_in_simple_numbers():
    found = oracle(graph(), graph(0.5))
    cutting.cut_nodes(found)
    shrinking.shrink(found)
    ((name, value),) = found.best.inputs.items()
    assert name == "a"
    assert value.size == 1
    assert value.dtype == np.float32
    assert value.item() == 0.0
    assert found.shows(found.best)
    untouched = oracle(graph(), graph())
    shrinking.shrink(untouched)
    assert untouched.best.inputs["x"].shape == X.shape


def test_the_row_that_differs_most_is_kept():
    """Beyond five a runtime adds what lies beyond: of seven images the third shows it best."""

    def wrong(proto: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [one + np.maximum(one - 5, 0) for one in running.unoptimized(proto, inputs)]

    x = np.arange(7, dtype=np.float32)[[5, 2, 6, 1, 0, 3, 4]] + 1
    found = of_one_graph(chain("Relu"), wrong, x=np.tile(x[:, None, None, None], (1, 3, 4, 4)))
    shrinking.shrink(found)
    assert found.best.inputs["x"].tolist() == [[[[7.0]]]]
    assert found.checked <= 10  # of each length at most one row is tried, and then simpler numbers
    assert (found.best.graph is found.best.reference, found.best.output) == (True, "v1")


@pytest.mark.parametrize("fault", [{1, 2}, {0, 6}, {2, 3, 4}, {5, 6}])
def test_rows_that_show_it_together_are_kept_together(fault):
    """A runtime that adds 1 where the numbers of several rows meet."""

    def wrong(proto: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        there = fault <= {*inputs["x"].reshape(-1)}
        return [one + there for one in running.unoptimized(proto, inputs)]

    x = np.tile(np.arange(7, dtype=np.float32)[:, None, None, None], (1, 3, 4, 4))
    found = of_one_graph(chain("Relu"), wrong, x=x)
    shrinking.shrink(found)
    rows = sorted({*found.best.inputs["x"].reshape(-1)})
    assert fault <= {*rows}
    assert len(rows) == (7 if fault == {0, 6} else len(fault))
    assert found.best.inputs["x"].shape[1:] == (1, 1, 1)


class Summed(nn.Module):
    def forward(self, x):
        return x.sum(1)


def test_height_and_width_shrink_together_where_channels_must_stay():
    """A sum and a maximum differ from two channels on; all axes have one length."""
    recorded = record_both(Summed(), [np.abs(X[:1, :, :3, :3]) + 1])
    tape = recorded.double
    nodes = [helper.make_node("ReduceMax", ["x", "axes"], ["y"], keepdims=0)]
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 3, 3])
    axes = numpy_helper.from_array(np.array([1]), "axes")
    whole = helper.make_graph(nodes, "g", [given], [helper.make_empty_tensor_value_info("y")], [axes])
    proto = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    x = tape.array(tape.inputs[0]).astype(np.float32)
    region = Region(proto, {"x": x}, {"x": x}, {"x": tape.inputs[0]}, tape.outputs[0])
    found = oracle(proto, proto)
    found.best = Case(proto, {"x": x}, Replayed(region, tape))
    shrinking.shrink(found)
    assert found.best.inputs["x"].shape == (1, 2, 1, 1)
