"""What torch computed, value by value: recorded, computed again, and recognized in a graph; and cases made smaller."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from poolzoo.parity.reduction import cutting, graphs, running, shrinking
from poolzoo.parity.reduction.case import Case, Oracle, TimeIsUp
from poolzoo.parity.reduction.locating import Region, behind, locate
from poolzoo.parity.reduction.recordings import Recordings
from poolzoo.parity.reduction.tape import public_path, record
from poolzoo.parity.reduction.torch_side import Recorded, Replayed, TorchSide, close, record_both

X = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)


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
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])
    tensors = [numpy_helper.from_array(np.asarray(one), name) for name, one in arrays.items()]
    whole = helper.make_graph(nodes, "g", [given], [helper.make_empty_tensor_value_info("d")], tensors)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


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
