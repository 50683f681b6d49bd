"""Extreme inputs of single layers: which there are, and what is said of a part of a graph that is wrong on one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from poolzoo.common.errors import CheckFailed
from poolzoo.parity import photographs
from poolzoo.parity.first_difference import find_first_difference
from poolzoo.parity.layers import Layers, nodes_between, subgraph, with_outputs
from poolzoo.parity.probes import Part, check_inputs, check_part, core_probes, find_part, layer_probes, run_probes
from poolzoo.parity.reduction import running


def test_the_probes_of_a_layer_are_what_their_names_say():
    found = layer_probes((5, 4, 3))
    assert all(one.shape == (3, 5, 4, 3) and one.dtype == np.float32 for one in found.values())
    noise = found["noise"]
    assert 0.8 < noise.std() < 1.2
    assert not found["zeros"].any()
    assert [np.unique(one).tolist() for one in found["a constant"]] == [[0.25], [2.125], [4.0]]
    assert (found["negatives"] < 0).all()
    assert np.array_equal(found["ties"], np.rint(noise))
    assert not found["half of it zero"][:, :3].any()
    assert (found["half of it zero"][:, 3:] > 0).all()
    assert [one[one != 0].tolist() for one in found["one spike"]] == [[3.0]] * 3
    assert np.allclose(found["tiny values"], noise * 1e-6)
    assert np.allclose(found["large values"], noise * 1e3)
    assert len(found) == 9
    assert np.array_equal(layer_probes((5, 4, 3))["noise"], noise)


def test_the_probes_of_a_network_have_what_no_image_has():
    found = core_probes((3, 4, 6))
    assert all(one.shape == (3, 3, 4, 6) and one.dtype == np.float32 for one in found.values())
    assert not found["zeros"].any()
    assert np.unique(found["+1000"]).tolist() == [1000.0]
    assert np.unique(found["-1000"]).tolist() == [-1000.0]
    assert 800 < found["noise × 1000"].std() < 1200
    assert 0 < np.abs(found["denormals"]).max() < 1e-38
    for name, value in (("one NaN", np.nan), ("one +inf", np.inf), ("one -inf", -np.inf)):
        x = found[name]
        assert np.argwhere(~np.isfinite(x)).tolist() == [[row, 1, 2, 3] for row in range(3)]
        assert np.array_equal(x[:, 1, 2, 3], np.full(3, value), equal_nan=True)
    assert len(found) == 8


class Session:
    """A part of a graph in numpy; `batches` are the sizes that it was called with."""

    def __init__(self, function) -> None:
        self.function = function
        self.batches: list[int] = []
        self.images: list[np.ndarray] = []

    def get_inputs(self):
        return [SimpleNamespace(name="given")]

    def run(self, names, inputs):
        x = inputs["given"]
        self.batches.append(len(x))
        self.images += [inputs["images"]] if "images" in inputs else []
        with np.errstate(all="ignore"):
            return [np.asarray(self.function(x), np.float32)]


class Halves(nn.Module):
    def forward(self, x):
        return x / 2


class Root(nn.Module):
    """Infinite or NaN on some of the probes."""

    def forward(self, x):
        return x.sum((1, 2)).reciprocal()


def part(
    function, module: nn.Module | None = None, *, loses_nan: bool = False, image: np.ndarray | None = None
) -> Part:
    return Part(
        name="network.pool",
        module=module or Halves(),
        session=Session(function),
        shape=(4, 3),
        image=image,
        loses_nan=loses_nan,
    )


X = np.random.default_rng(0).standard_normal((3, 4, 3)).astype(np.float32)


def test_a_part_that_agrees_passes_in_all_batches():
    image = np.full((1, 2, 2, 3), 7, np.uint8)
    right = part(lambda x: x / 2, image=image)
    found = check_inputs(right, {**right.probes(), "mine": X})
    assert [one.probe for one in found] == [*layer_probes((4, 3)), "mine"]
    assert all(one.passed and one.part == "network.pool" for one in found)
    assert found[-1].max_abs == 0.0
    assert found[-1].allowed == pytest.approx(5e-6 * np.abs(X / 2).max())
    assert found[-1].note == f"0.00e+00 where {found[-1].allowed:.2e} is allowed"
    assert right.session.batches == [3, 1, 1, 1, 2, 1] * 10
    assert [len(one) for one in right.session.images] == right.session.batches
    assert all(np.array_equal(np.unique(one), [7]) for one in right.session.images)
    assert list(part(lambda x: x).probes()) == list(layer_probes((4, 3)))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_part_that_is_wrong_in_one_batch_size_fails(size):
    wrong = part(lambda x: x / 2 + (0.25 if len(x) == size else 0.0))
    found = check_part(wrong, "mine", X)
    assert not found.passed
    assert found.max_abs == pytest.approx(0.25, rel=1e-5)
    assert found.note.startswith("2.50e-01 where ")


def test_what_lies_between_tolerance_and_limit_decides():
    allowed = check_part(part(lambda x: x / 2), "mine", X).allowed
    assert check_part(part(lambda x: x / 2 + 0.5 * allowed), "mine", X).passed
    assert not check_part(part(lambda x: x / 2 + 100 * allowed), "mine", X).passed


def test_nan_and_infinity_must_be_where_torch_has_them():
    def root(x):
        return 1 / x.sum((1, 2))

    zeros = np.zeros_like(X)
    both = check_part(part(root, Root()), "zeros", zeros)
    assert both.passed
    assert both.max_abs == 0.0
    lost = check_part(part(lambda x: np.zeros(len(x)), Root()), "zeros", zeros)
    assert not lost.passed
    assert lost.note == "NaN or infinity in 0 places where torch has none, none in 3 where it has"
    new = check_part(part(lambda x: x / 2 + np.where(x == x.max(), np.nan, 0)), "mine", X)
    assert not new.passed
    assert new.max_abs is None
    assert new.note == "NaN or infinity in 3 places where torch has none, none in 0 where it has"


@pytest.mark.parametrize("loses_nan", [True, False])
def test_only_an_operator_that_loses_nan_may_lose_it(loses_nan):
    x = X.copy()
    x[:, 1, 1] = np.nan
    found = check_part(part(lambda x: np.nan_to_num(x / 2), loses_nan=loses_nan), "one NaN", x)
    assert found.passed is loses_nan
    assert found.allowed is None
    excuse = " (ONNX Runtime loses it in a max or clip operator)"
    text = "NaN or infinity in 0 places where torch has none, none in 3 where it has"
    assert found.note == text + (excuse if loses_nan else "")
    kept = check_part(part(lambda x: x / 2 + 1), "one NaN", x)
    assert kept.passed
    assert kept.note == "differs by 1.00e+00 where both are finite"


def test_a_part_of_another_shape_is_refused():
    with pytest.raises(CheckFailed, match=r"network\.pool gives \(3, 12\) in the graph, \(3, 4, 3\) in torch"):
        check_part(part(lambda x: x.reshape(len(x), -1)), "mine", X)


def test_a_module_that_needs_float32_is_its_own_reference():
    class Casts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x):
            if x.dtype != torch.float32:
                raise RuntimeError("expected float32")
            return x / 2 * self.weight

    module = Casts()
    assert check_part(part(lambda x: x / 2, module), "mine", X).passed
    assert module.weight.dtype == torch.float32


def test_a_choice_among_almost_equal_values_is_excused_by_rounding():
    """The module keeps one of two channels that rounding alone tells apart, and another term shows which."""

    class Chooses(nn.Module):
        def forward(self, x):
            a, b = x.sum(2).unbind(1)
            return torch.where(a > b, 1.0, -1.0).to(x.dtype)

    row = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], np.float32)
    x = np.stack([np.stack([row, row])] * 3)

    def other(x):
        return np.ones(len(x))

    tied = Part(name="p", module=Chooses(), session=Session(other), shape=(2, 7), image=None, loses_nan=False)
    found = check_part(tied, "ties", x)
    assert found.max_abs == 2.0
    assert found.passed
    apart = x + np.array([0.0, 1.0], np.float32)[:, None]
    assert not check_part(tied, "apart", apart).passed


def graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Mul", ["images", "k"], ["a"], name="one"),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Neg", ["a"], ["n"]),
        helper.make_node("Sub", ["c", "n"], ["logits"]),
    ]
    given = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3])
    weights = [numpy_helper.from_array(np.float32(value), name) for name, value in (("k", 2.0), ("b", 1.0))]
    whole = helper.make_graph(nodes, "g", [given], [helper.make_empty_tensor_value_info("logits")], weights)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_part_between_two_values_computes_them_alone():
    whole = graph()
    assert [one.output[0] for one in nodes_between(whole, "a", "c")] == ["c"]
    assert [one.output[0] for one in nodes_between(whole, None, "n")] == ["a", "n"]
    assert [one.output[0] for one in nodes_between(whole, "a", "logits")] == ["c", "n", "logits"]
    part = subgraph(whole, "a", "logits", (3,))
    assert [one.name for one in part.graph.input] == ["a"]
    assert [one.name for one in part.graph.initializer] == ["b"]
    shape = part.graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, shape[1].dim_value) == ("batch", 3)
    assert (part.ir_version, part.opset_import[0].version) == (8, 18)
    x = np.ones((2, 3), np.float32)
    assert np.array_equal(running.unoptimized(part, {"a": x})[0], x + 1 + x)
    more = with_outputs(whole, ["a", "logits", "n"])
    assert [one.name for one in more.graph.output] == ["logits", "a", "n"]
    assert [one.name for one in whole.graph.output] == ["logits"]


def test_layers_are_those_that_the_graph_still_has():
    names = {"p": "a", "q": "gone"}
    inside = {"p": frozenset({"a", "c", "gone"})}
    found = Layers(outputs=names, inputs=names, inside=inside).within(graph())
    assert found == Layers(outputs={"p": "a"}, inputs={"p": "a"}, inside={"p": frozenset({"a", "c"})})


class Steps(nn.Module):
    """The graph as modules; `change` is added behind the second one."""

    def __init__(self, change: float = 0.0) -> None:
        super().__init__()
        self.twice = Times(2.0, 0.0)
        self.more = Times(1.0, 1.0 + change)

    def forward(self, images):
        x = self.twice(images.float())
        return self.more(x) + x


class Times(nn.Module):
    def __init__(self, factor: float, shift: float) -> None:
        super().__init__()
        self.factor = factor
        self.shift = shift

    def forward(self, x):
        return x * self.factor + self.shift


@pytest.mark.parametrize(("change", "layer"), [(0.0, None), (0.25, "more"), (1e-6, None), (float("nan"), "more")])
def test_the_first_layer_that_differs_is_found(change, layer):
    image = np.array([1, 2, 3], np.uint8)
    found = find_first_difference(
        model=Steps(change),
        proto=graph(),
        layers=Layers(outputs={"twice": "a", "more": "c", "absent": "n"}),
        open_part=lambda content: running.session(onnx.load_from_string(content), optimized=False),
        image=image,
        inputs=image[None].astype(np.float32),
    )
    if layer is None:
        assert found is None
        return
    assert found.layer == layer
    if np.isfinite(change):
        assert (found.max_abs, found.largest) == (0.25, 7.25)
        assert found.allowed == pytest.approx(7.25e-4, rel=1e-3)
    else:
        assert found.max_abs is None


class Doubled(nn.Module):
    """The graph behind its first value, as a network with its preprocessing."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.more = Times(1.0, 1.0)

        def forward(self, x):
            return self.more(x) + x

    def __init__(self) -> None:
        super().__init__()
        self.network = self.Inner()

    def forward(self, images):
        x = self.network(images.float().mean((1, 2)) * 2)
        return x, x.softmax(1)


INSIDE = Layers(outputs={"network.more": "c"}, inputs={"network": "a", "network.more": "a"})


def opened(content: bytes):
    return running.session(onnx.load_from_string(content), optimized=False)


@pytest.mark.parametrize(("shift", "wrong"), [(1.0, set()), (1.25, {"core", "network.more"})])
def test_the_core_and_each_layer_of_a_plugin_are_probed(shift, wrong):
    proto = graph()
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.float32(shift), "b"))
    found = run_probes(Doubled().eval(), proto, INSIDE, (2, 2), opened)
    assert {one.part for one in found} == {"core", "network.more"}
    assert {one.part for one in found if not one.passed} == wrong
    names = {one.probe for one in found if one.part == "network.more"}
    part, alone = find_part(Doubled().eval(), proto, INSIDE, (2, 2), opened, "network.more")
    assert (part.name, part.shape, part.image) == ("network.more", (3,), None)
    assert isinstance(part.module, Times)
    assert part.probes().keys() == names
    x = np.ones((2, 3), np.float32)
    assert np.array_equal(running.unoptimized(alone, {"a": x})[0], x + shift)
    core, whole = find_part(Doubled().eval(), proto, INSIDE, (2, 2), opened, "core")
    assert core.name == "core"
    assert isinstance(core.module, Doubled.Inner)
    assert np.array_equal(running.unoptimized(whole, {"a": x})[0], x + shift + x)
    assert np.array_equal(core.session.run(None, {"a": x})[0], x + shift + x)


def test_photographs_are_images_side_by_side_cut_to_odd_sizes():
    images = np.arange(3 * 6 * 4 * 3, dtype=np.uint8).reshape(3, 6, 4, 3)
    found = photographs.make_photographs(images)
    assert [one.shape for one in found] == [(4, 4, 3), (7, 6, 3), (6, 7, 3), (13, 13, 3), (17, 13, 3)]
    assert np.array_equal(found[0], images[0, :4])
    assert np.array_equal(found[1][:6, :4], images[1])
    assert np.array_equal(found[1][:6, 4:], images[2, :, :2])
    assert np.array_equal(found[1][6:, :4], images[0, :1])
    assert np.array_equal(found[2][:, :4], images[2])
    assert np.array_equal(found[3][6:12, :4], images[(3 + 4) % 3])
    assert all(one.flags.c_contiguous for one in found)
