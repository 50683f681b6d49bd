"""The change of one node with which a wrong graph agrees: what is tried, in which order, and how it is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from poolzoo.parity.reduction import alternatives, culprit, graphs, node_repairs, running
from poolzoo.parity.reduction.difference import Difference, compare
from poolzoo.parity.reduction.fitting import Trial, fits, weight_fits
from poolzoo.parity.reduction.repair import Hints, Repair, shown
from poolzoo.parity.reduction.repairs import find_change, find_repair

NONE = Hints(weights=(), arguments=(), ranks={})
X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)


def graph(*nodes: onnx.NodeProto, arrays: dict[str, object] | None = None) -> onnx.ModelProto:
    """A graph from `x` to the first output of the last node."""
    weights = [numpy_helper.from_array(np.asarray(one), name) for name, one in (arrays or {}).items()]
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [*X.shape])
    result = helper.make_empty_tensor_value_info(nodes[-1].output[0])
    whole = helper.make_graph(nodes, "g", [given], [result], weights)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def node(operator: str, *inputs: str, output: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [output], **attributes)


def outputs(proto: onnx.ModelProto, x: np.ndarray = X) -> np.ndarray:
    return np.asarray(running.unoptimized(proto, {"x": x})[0])


def repaired(wrong: onnx.ModelProto, right: onnx.ModelProto, hints: Hints = NONE) -> Repair | None:
    """What `find_repair` finds, whose graph computes what the right one does."""
    expected = outputs(right)

    def agrees(proto: onnx.ModelProto) -> bool:
        found = running.attempt(running.unoptimized, proto, {"x": X})
        return found is not None and found.shape == expected.shape and np.allclose(found, expected, atol=1e-5)

    found = find_repair(wrong, hints, agrees)
    assert found is None or agrees(found.applied(wrong))
    return found


W = np.arange(1, 19, dtype=np.float32).reshape(2, 3, 1, 3) / 10
BIAS = np.array([0.5, -0.25, 2.0], np.float32)
AXES = {"axes": np.array([2])}
CASES = {
    "an attribute": (
        graph(node("Softmax", "x", axis=1)),
        graph(node("Softmax", "x", axis=3)),
        ("Softmax", "attribute", "axis", "3", "1"),
    ),
    "an attribute that is missing": (
        graph(node("LeakyRelu", "x", alpha=0.1)),
        graph(node("LeakyRelu", "x")),
        ("LeakyRelu", "attribute", "alpha", "0.01", "0.1"),
    ),
    **{
        f"a relu that became {wrong.op_type}": (
            graph(node("Relu", "x")),
            graph(wrong, arrays={"slope": np.float32([0.25])}),
            (wrong.op_type, "operator", "", wrong.op_type, "Relu"),
        )
        for wrong in (node("LeakyRelu", "x", alpha=0.3), node("Elu", "x"), node("PRelu", "x", "slope"))
    },
    "a word": (
        graph(node("Pad", "x", "pads", mode="edge"), arrays={"pads": np.array([0, 0, 1, 0, 0, 0, 0, 0])}),
        graph(node("Pad", "x", "pads", mode="reflect"), arrays={"pads": np.array([0, 0, 1, 0, 0, 0, 0, 0])}),
        ("Pad", "attribute", "mode", "reflect", "edge"),
    ),
    "an order of axes": (
        graph(node("Transpose", "x", perm=[0, 1, 3, 2])),
        graph(node("Transpose", "x", perm=[0, 3, 1, 2])),
        ("Transpose", "attribute", "perm", "[0, 3, 1, 2]", "[0, 1, 3, 2]"),
    ),
    "a padding that is missing": (
        graph(node("MaxPool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1])),
        graph(node("MaxPool", "x", kernel_shape=[3, 3])),
        ("MaxPool", "attribute", "pads", "none", "[1, 1, 1, 1]"),  # and not auto_pad, which says the same
    ),
    "two attributes": (
        graph(node("MaxPool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1])),
        graph(node("MaxPool", "x", kernel_shape=[1, 1])),
        ("MaxPool", "attribute", "kernel_shape, pads", "[1, 1], none", "[3, 3], [1, 1, 1, 1]"),
    ),
    "axes": (
        graph(node("ReduceMean", "x", "axes"), arrays={"axes": np.array([2, 3])}),
        graph(node("ReduceMean", "x", "axes"), arrays={"axes": np.array([1])}),
        ("ReduceMean", "constant", "axes", "[1]", "[2, 3]"),
    ),
    "an exponent": (
        graph(node("Pow", "x", "p"), arrays={"p": np.float32(3)}),
        graph(node("Pow", "x", "p"), arrays={"p": np.float32(4)}),
        ("Pow", "constant", "p", "4", "3"),
    ),
    "a vector in another order": (
        graph(node("Add", "x", "b"), arrays={"b": BIAS[[0, 1, 2, 0, 1]]}),
        graph(node("Add", "x", "b"), arrays={"b": BIAS[[1, 0, 2, 1, 0]]}),
        ("Add", "constant", "b", "[-0.25, 0.5, 2, -0.25, 0.5]", "[0.5, -0.25, 2, 0.5, -0.25]"),
    ),
    "both bounds": (
        graph(node("Slice", "x", "from", "to", "axes"), arrays={**AXES, "from": np.array([1]), "to": np.array([3])}),
        graph(node("Slice", "x", "from", "to", "axes"), arrays={**AXES, "from": np.array([0]), "to": np.array([4])}),
        ("Slice", "constant", "starts, ends", "[[0], [4]]", "[[1], [3]]"),
    ),
    "the bounds of a row, where the first of all rows is the same": (
        graph(node("Slice", "x", "from", "to", "axes", output="row"), node("Gather", "row", "zero", axis=2),
              arrays={**AXES, "from": np.array([0]), "to": np.array([1]), "zero": np.array(0)}),
        graph(node("Slice", "x", "from", "to", "axes", output="row"), node("Gather", "row", "zero", axis=2),
              arrays={**AXES, "from": np.array([1]), "to": np.array([2]), "zero": np.array(0)}),
        ("Slice", "constant", "starts, ends", "[[1], [2]]", "[[0], [1]]"),
    ),
    "inputs in another order": (
        graph(node("Sub", "b", "x"), arrays={"b": np.float32(0.3)}),
        graph(node("Sub", "x", "b"), arrays={"b": np.float32(0.3)}),
        ("Sub", "input", "0, 1", "[x, b]", "[b, x]"),
    ),
    "a value from elsewhere": (
        graph(node("Tanh", "x", output="t"), node("Exp", "t", output="e"), node("Mul", "e", "t")),
        graph(node("Tanh", "x", output="t"), node("Exp", "t", output="e"), node("Mul", "e", "e")),
        ("Mul", "input", "0", "[e]", "[t]"),
    ),
    "an operator": (
        graph(node("Softplus", "x")),
        graph(node("Elu", "x", alpha=1.0)),
        ("Elu", "operator", "", "Elu", "Softplus"),
    ),
    "mirrored weights": (
        graph(node("Conv", "x", "w", kernel_shape=[1, 3]), arrays={"w": W}),
        graph(node("Conv", "x", "w", kernel_shape=[1, 3]), arrays={"w": W[..., ::-1].copy()}),
        ("Conv", "weights", "w", "[2, 3, 1, 3]", "mirrored along axis 3"),
    ),
    "a node behind": (
        graph(node("Conv", "x", "w", output="c"), node("Relu", "c"), arrays={"w": W}),
        graph(node("Conv", "x", "w"), arrays={"w": W}),
        ("Conv", "missing node", "", "", "Relu"),
    ),
    "a clip": (
        graph(node("Mul", "x", "k", output="c"), node("Clip", "c", "zero", "six"),
              arrays={"k": np.float32(7.7), "zero": np.float32(0), "six": np.float32(6)}),
        graph(node("Mul", "x", "k"), arrays={"k": np.float32(7.7)}),
        ("Mul", "missing node", "", "", "Clip to 0–6"),
    ),
    "a node before": (
        graph(node("Abs", "x", output="a"), node("Conv", "a", "w"), arrays={"w": W}),
        graph(node("Conv", "x", "w"), arrays={"w": W}),
        ("Conv", "missing node", "", "", "Abs of input 0"),
    ),
    "an eps": (
        graph(node("Mul", "x", "x", output="s"), node("Add", "s", "e", output="p"), node("Reciprocal", "p"),
              arrays={"e": np.float32(1e-3)}),
        graph(node("Mul", "x", "x", output="s"), node("Reciprocal", "s")),
        ("Reciprocal", "missing node", "", "", "an Add of 0.001 to input 0"),
    ),
    "a node too many": (
        graph(node("Conv", "x", "w"), arrays={"w": W}),
        graph(node("Conv", "x", "w", output="c"), node("Softmax", "c", axis=1), arrays={"w": W}),
        ("Softmax", "surplus node", "", "Softmax", "c"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_fault_of_one_node_is_named(name):
    right, wrong, named = CASES[name]
    assert not np.array_equal(outputs(wrong), outputs(right))
    found = repaired(wrong, right)
    assert (found.operator, found.part, found.name, found.found, found.expected) == named
    assert found.node in graphs.computed(wrong)
    assert found.to_json() == {
        key: getattr(found, key) for key in ("node", "operator", "part", "name", "found", "expected")
    }


def test_what_torch_has_is_tried_first():
    right = graph(node("Pow", "x", "p", output="y"), arrays={"p": np.float32(4.0)})
    wrong = graph(node("Pow", "x", "p", output="y"), arrays={"p": np.float32(2.0)})
    seen = []
    find_repair(wrong, Hints((), (7, [1, 2], 0.75), {}), lambda proto: bool(seen.append(graphs.constants(proto))))
    first = [float(one["y_1"]) for one in seen if "y_1" in one][:3]
    assert first == pytest.approx([7.0, 0.75, 1e-12])
    assert repaired(wrong, right, Hints((), (4.0,), {})).expected == "4"


def test_arguments_of_torch_are_lists_of_a_length_or_half_of_it():
    hints = Hints(weights=(), arguments=[[1, 2], [3, 4, 5], 0.5, [6], [7, 8, 9, 10], True], ranks={})
    assert hints.lists(2) == [[1, 2], [6, 6]]
    assert hints.lists(4) == [[7, 8, 9, 10], [1, 2, 1, 2]]
    assert hints.lists(5) == []
    assert hints.numbers() == [0.5, 1.0]


def test_the_weights_of_torch_are_in_another_form():
    flat = graph(node("Flatten", "x", output="f"), node("Gemm", "f", "w"), arrays={"w": WIDE})
    wrong = graph(node("Flatten", "x", output="f"), node("Gemm", "f", "w"), arrays={"w": np.zeros_like(WIDE)})
    found = repaired(wrong, flat, Hints((WIDE.T.copy(),), (), {}))
    assert (found.part, found.name, found.found) == ("weights", "w", "[60, 2]")
    assert found.expected == f"the network's, which is up to {np.abs(WIDE).max():.3g} away,"
    right = graph(node("Conv", "x", "w", output="c"), node("Add", "c", "b"), arrays={"w": W, "b": BIAS[:2, None, None]})
    found = repaired(graph(node("Conv", "x", "w"), arrays={"w": W}), right, Hints((BIAS[:2],), (), {}))
    assert found.expected == "Add of a vector of 2 weights"


WIDE = np.random.default_rng(1).standard_normal((60, 2)).astype(np.float32)


def test_forms_of_the_weights_in_a_graph_are_tried():
    value = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    conv = node("Conv", "x", "w", "w", "b")
    found = list(node_repairs.weights(conv, {"w": value, "b": np.zeros(1, np.float32)}, ()))
    assert [one.expected for one in found if "axis 1" in one.expected] == [
        "mirrored along axis 1", "moved by 1 along axis 1", "moved by -1 along axis 1",
    ]  # fmt: skip
    forms = {one.expected: one.constants["w"] for one in found}
    assert len(found) == len(forms) == 3 * 3 + 3 * 2 + 5
    assert np.array_equal(forms["mirrored along axis 1"], value[:, ::-1])
    assert np.array_equal(forms["moved by -1 along axis 2"], np.roll(value, -1, 2))
    assert np.array_equal(forms["mirrored along axes 0 and 2"], value[::-1, :, ::-1])
    assert np.array_equal(forms["axes 0 and 1 swapped"], value.transpose(1, 0, 2))
    assert {text for text in forms if "times" in text} == {f"times {n}" for n in ("-1", "2", "0.5", "255", "0.003922")}
    assert {one.dtype for one in forms.values()} == {np.dtype(np.float32)}
    assert np.array_equal(forms["times -1"], -value)
    assert np.array_equal(forms["times 255"], 255 * value)
    np.testing.assert_allclose(forms["times 0.003922"], value / 255)
    assert {one.found for one in found} == {"[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]"}
    assert all(one.nodes == (conv,) and one.part == "weights" and one.name == "w" for one in found)


def test_the_weights_of_torch_are_tried_where_they_are_others():
    conv = node("Conv", "x", "w")
    value = np.arange(4, dtype=np.float32).reshape(2, 2)

    def of_torch(*weights: np.ndarray) -> list[np.ndarray]:
        found = node_repairs.weights(conv, {"w": value}, weights)
        return [one.constants["w"] for one in found if one.expected.startswith("the network's")]

    (turned,) = of_torch(value)  # it is the graph's own
    assert np.array_equal(turned, value.T)
    (flat,) = of_torch(np.array([3.0, 1.0, 2.0, 0.0]), np.zeros((2, 2, 1)), np.zeros((3, 2)))
    assert (flat.tolist(), flat.dtype) == ([[3, 1], [2, 0]], np.float32)
    integers = {"w": value.astype(np.int64), "b": np.ones(1, np.float32)}
    assert not list(node_repairs.weights(node("Add", "w", "b"), integers, (value,)))


BEFORE = [*node_repairs.MISSING, *node_repairs.MISSING_MORE]


def test_nodes_may_be_missing_behind_a_node_and_before_its_first_inputs():
    vector = np.array([1, 2], np.float64)
    conv = helper.make_node("Conv", ["x", "", "b"], ["y"])
    found = list(node_repairs.missing(conv, [vector, np.ones(1), np.ones((2, 2))]))
    texts = [one.expected for one in found]
    assert texts == [
        *BEFORE,
        "Clip to 0–6",
        *(f"{one} of input 0" for one in BEFORE),
        *["Add of a vector of 2 weights"] * 3,
        *["Mul of a vector of 2 weights"] * 3,
    ]
    assert [one.constants["vector"].shape for one in found[-6:]] == [(2,), (2, 1), (2, 1, 1)] * 2
    assert found[-1].constants["vector"].dtype == np.float32
    for one in found[: len(BEFORE) + 1]:
        before, after = one.nodes
        assert (before.op_type, list(before.input)) == ("Conv", ["x", "", "b"])
        assert (list(after.input)[:1], list(after.output)) == (list(before.output), ["y"])
    for one in found[len(BEFORE) + 1 : -6]:
        before, after = one.nodes
        assert (list(before.input), after.op_type) == (["x"], "Conv")
        assert (list(after.input), list(after.output)) == ([before.output[0], "", "b"], ["y"])
    assert {(one.node, one.operator, one.part, one.name, one.found) for one in found} == {
        ("y", "Conv", "missing node", "", "")
    }
    assert found[0].describe() == "Conv 'y': Relu is missing"


def test_an_eps_may_be_missing_where_a_zero_would_be_odd():
    found = list(node_repairs.missing(node("Div", "a", "b"), ()))
    plus = [one for one in found if one.expected.startswith("an Add of ")]
    assert [one.expected for one in plus] == [
        f"an Add of {eps:g} to input {position}" for position in (0, 1) for eps in node_repairs.EPSILONS
    ]
    assert [float(one.constants["eps"]) for one in plus[:8]] == pytest.approx(list(node_repairs.EPSILONS))
    add, div = plus[-1].nodes
    assert (list(add.input), list(div.input)) == (["b", "eps"], ["a", add.output[0]])
    for operator in ("Sqrt", "Log", "Pow", "Reciprocal"):
        assert any("1e-05" in one.expected for one in node_repairs.missing(node(operator, "a"), ()))
    assert not any("1e-05" in one.expected for one in node_repairs.missing(node("Mul", "a", "b"), ()))


def test_an_operator_of_the_same_family_keeps_the_attributes_that_it_has():
    proto = graph(node("Softmax", "x", axis=1))
    found = list(node_repairs.operators(proto, proto.graph.node[0]))
    assert [one.expected for one in found] == ["LogSoftmax", "Hardmax"]
    assert {(one.part, one.found, one.name) for one in found} == {("operator", "Softmax", "")}
    assert [[a.name for a in one.nodes[0].attribute] for one in found] == [["axis"], ["axis"]]
    leaky = graph(node("LeakyRelu", "x", alpha=0.5))
    found = {one.expected: one.nodes[0] for one in node_repairs.operators(leaky, leaky.graph.node[0])}
    assert "LeakyRelu" not in found
    assert [a.name for a in found["Elu"].attribute] == ["alpha"]
    assert not found["Sigmoid"].attribute
    assert "Gelu" not in found  # of a newer opset
    assert not list(node_repairs.operators(proto, node("NoFamily", "x")))


def test_a_node_reads_other_values_in_other_orders():
    proto = graph(node("Tanh", "x", output="t"), node("Where", "t", "a", "b"), arrays={"a": 1.0, "b": 2.0})
    found = list(node_repairs.inputs(proto, proto.graph.node[1]))
    orders = [list(one.nodes[0].input) for one in found]
    assert orders == [
        *(["t", "b", "a"], ["a", "t", "b"], ["a", "b", "t"], ["b", "t", "a"], ["b", "a", "t"]),
        *(["t"], ["t", "a"]),
        *(["x", "a", "b"], ["t", "x", "b"], ["t", "t", "b"]),
    ]
    assert [one.name for one in found] == [
        *("1, 2", "0, 1", "0, 1, 2", "0, 1, 2", "0, 2"),
        *("1, 2", "2"),
        *("0", "1", "1"),
    ]
    assert (found[0].found, found[0].expected) == ("[a, b]", "[b, a]")
    assert (found[6].found, found[6].expected) == ("[b]", "[none]")


def test_what_is_missing_before_several_readers_is_before_the_first():
    proto = graph(node("Tanh", "x", output="t"), node("Mul", "x", "t"))
    first, second = proto.graph.node
    assert not list(node_repairs.missing_before_several(proto, second))
    found = list(node_repairs.missing_before_several(proto, first))
    assert [one.expected for one in found] == [f"{one} of 'x', which several nodes read," for one in BEFORE]
    changed = found[0].applied(proto)
    assert [(one.op_type, list(one.input)) for one in changed.graph.node] == [
        ("Relu", ["x"]), ("Tanh", ["x_active"]), ("Mul", ["x_active", "t"]),
    ]  # fmt: skip
    alone = graph(node("Tanh", "x"))
    assert not list(node_repairs.missing_before_several(alone, alone.graph.node[0]))


def test_bounds_of_a_slice_move_together():
    known = {"from": np.array([1]), "to": np.array([3])}
    found = list(node_repairs.bounds(node("Slice", "x", "from", "to"), known))
    steps = (-2, -1, 1, 2)
    assert [one.expected for one in found] == [f"[[{1 + a}], [{3 + b}]]" for a in steps for b in steps]
    assert {one.found for one in found} == {"[[1], [3]]"}
    assert not list(node_repairs.bounds(node("Slice", "x", "from", "other"), known))
    assert not list(node_repairs.bounds(node("Pad", "x", "from", "to"), known))


def test_a_surplus_node_gives_way_to_what_it_reads_or_to_an_input():
    proto = graph(node("Tanh", "x", output="t"), node("Mul", "t", "t"))
    found = list(node_repairs.surplus(proto, proto.graph.node[1]))
    assert [(one.found, one.expected) for one in found] == [("Mul", "t"), ("Mul", "x")]
    assert [(one.op_type, list(one.input), list(one.output)) for one in found[1].nodes] == [("Identity", ["x"], ["y"])]
    assert found[0].describe() == "Mul 'y' is surplus: 't' in its place agrees"


def test_small_constants_have_values_of_torch_or_near_ones():
    known = {
        "axes": np.array([1]),
        "pads": np.array([0, 0, 1, 1]),
        "p": np.array([2.0], np.float32),
        "v": np.array([1.0, 2.0, 3.0], np.float32),
        "many": np.zeros(9, np.float32),
        "flag": np.array([True]),
    }
    hints = Hints((), (7, [3], [5, 6], 2.0), {})

    def tried(*inputs: str, guessed: bool, operator: str = "Some") -> list[tuple[str, str]]:
        found = node_repairs.constants(node(operator, *inputs), known, hints, guessed=guessed)
        return [(one.name, one.expected) for one in found]

    assert tried("x", "axes", guessed=False) == [("axes", "[3]")]
    assert tried("x", "pads", guessed=False) == [("pads", "[5, 6, 5, 6]")]
    assert tried("x", "p", guessed=False) == [("p", "[7]")]  # 2 is there already
    assert tried("v", "many", "flag", guessed=False) == tried("many", "flag", guessed=True) == []
    assert tried("v", guessed=True) == [("v", "[3, 2, 1]"), ("v", "[3, 1, 2]"), ("v", "[2, 3, 1]")]
    near = [one for _, one in tried("axes", guessed=True)]
    assert near == ["[0]", "[2]", *(f"[{n}]" for n in range(8) if n != 1), "[-1]", f"[{2**31 - 1}]"]
    for operator in ("ReduceMean", "Squeeze", "Unsqueeze"):
        more = [one for _, one in tried("axes", guessed=True, operator=operator)][len(near) :]
        assert more[:6] == ["[0]", "[2]", "[3]", "[4]", "[]", "[0, 1]"]
        assert more[-1] == "[0, 1, 2, 3, 4]"
    (found,) = node_repairs.constants(node("Some", "x", "axes"), known, hints, guessed=False)
    ((name, value),) = found.constants.items()
    assert (list(found.nodes[0].input), value.tolist(), value.dtype) == (["x", name], [3], np.int64)
    assert (found.part, found.found) == ("constant", "[1]")


def test_what_no_single_change_repairs_has_no_repair():
    right = graph(node("Tanh", "x", output="t"), node("Exp", "t"))
    assert repaired(graph(node("Floor", "x", output="t"), node("Sign", "t")), right) is None


def test_an_attribute_without_which_a_runtime_is_right_is_found():
    proto = graph(node("Relu", "x", output="a"), node("AveragePool", "a", kernel_shape=[2, 2], ceil_mode=1))

    def agrees(changed: onnx.ModelProto) -> bool:
        values = {one.name: helper.get_attribute_value(one) for one in changed.graph.node[-1].attribute}
        if "kernel_shape" not in values:
            raise RuntimeError("no kernel")
        return values.get("ceil_mode") == 0

    found = find_change(proto, agrees)
    assert (found.part, found.name, found.found, found.expected) == ("attribute", "ceil_mode", "1", "0")
    assert find_change(proto, lambda _: False) is None


def trials(right: onnx.ModelProto, count: int = 1) -> list[Trial]:
    found = [X, *(X + np.random.default_rng(seed).standard_normal(X.shape).astype(np.float32) for seed in range(9))]
    return [Trial({"x": one}, outputs(right, one), 1e-5) for one in found[:count]]


def fitted(wrong: onnx.ModelProto, right: onnx.ModelProto) -> Repair:
    """The first fit whose graph is right."""
    expected = outputs(right)
    return next(
        one for one in fits(wrong, trials(right)) if np.allclose(outputs(one.applied(wrong)), expected, atol=1e-4)
    )


def test_a_number_that_nobody_would_guess_is_fitted():
    right, wrong = (graph(node("Elu", "x", alpha=alpha)) for alpha in (0.7345, 1.0))
    found = fitted(wrong, right)
    assert (found.part, found.name, found.found, found.expected) == ("attribute", "alpha", "1", "0.7345")
    assert (found.node, found.operator) == ("y", "Elu")
    right, wrong = (graph(node("Mul", "x", "k"), arrays={"k": np.float32(k)}) for k in (3.217, 2.0))
    found = fitted(wrong, right)
    assert (found.part, found.name, found.found, found.expected) == ("constant", "k", "2", "3.217")
    assert (found.node, found.operator, found.constants["k"].dtype) == ("y", "Mul", np.float32)


def test_a_bias_a_shift_and_a_scale_are_fitted():
    b, other = np.array([0.3, -0.7], np.float32), np.array([0.1, 0.2], np.float32)
    right, wrong = (graph(node("Conv", "x", "w", "b"), arrays={"w": W, "b": one}) for one in (b, other))
    found = fitted(wrong, right)
    assert (found.part, found.name, found.found, found.expected) == ("weights", "b[1]", "0.2", "-0.7")
    tanh = node("Tanh", "x", output="t")
    for text, end in (
        ("Mul by 1.625", [node("Mul", "t", "k")]),
        ("Add of 3 numbers along axis 1", [node("Add", "t", "b")]),
        (
            "Mul by 3 numbers and Add of 3 numbers along axis 1",
            [node("Mul", "t", "k", output="m"), node("Add", "m", "b")],
        ),
    ):
        arrays = {"k": np.float32(1.625), "b": BIAS[:, None, None]}
        found = fitted(graph(node("Tanh", "x")), graph(tanh, *end, arrays=arrays))
        assert (found.part, found.expected) == ("missing node", text)


def test_a_number_is_rounded_and_then_exact():
    right, wrong = (graph(node("Elu", "x", alpha=alpha)) for alpha in (0.7345678, 1.0))
    found = [one.expected for one in fits(wrong, trials(right)) if one.part == "attribute"]
    assert found == ["0.7346", "0.734568"]
    exact = [one for one in fits(wrong, trials(right)) if one.part == "attribute"][1]
    np.testing.assert_allclose(outputs(exact.applied(wrong)), outputs(right), atol=1e-6)
    # A number that changes nothing, or a node that cannot be run, has no fit.
    unread = graph(node("Mul", "x", "zero", output="z"), node("Elu", "z", alpha=1.0), arrays={"zero": np.float32(0)})
    assert not [one for one in fits(unread, trials(right)) if one.part == "attribute"]
    refused = graph(node("NoSuchOperator", "x", "k", alpha=0.5), arrays={"k": np.float32(2)})
    assert not list(fits(refused, trials(right)))
    narrow = graph(node("ReduceMean", "x", "k"), arrays={"k": np.array([1])})
    assert not list(fits(narrow, trials(right)))  # its output has another shape


def test_a_bias_of_many_channels_is_fitted_in_its_place():
    weight = np.random.default_rng(3).standard_normal((9, 3, 1, 1)).astype(np.float32)
    other = np.zeros(9, np.float32)
    other[7], other[2] = 0.75, -0.5
    right, wrong = (graph(node("Conv", "x", "w", "b"), arrays={"w": weight, "b": one}) for one in (other, 0 * other))
    found = fitted(wrong, right)
    assert (found.part, found.name, found.found, found.expected) == ("weights", "b[7]", "0", "0.75")
    np.testing.assert_allclose(found.constants["b"], other, atol=1e-6)
    without = graph(node("Conv", "x", "w"), arrays={"w": weight})
    assert fitted(without, right).expected == "Add of 9 numbers along axis 1"


def test_many_weights_are_fitted_in_small_graphs_alone():
    right, wrong = (graph(node("Conv", "x", "w"), arrays={"w": one}) for one in (W, W[:, ::-1].copy()))
    assert "weights" not in [one.part for one in fits(wrong, trials(right))]
    few = graph(node("Mul", "x", "k"), arrays={"k": BIAS[:, None, None]})
    (found,) = (one for one in fits(few, trials(TRIPLE)) if one.part == "weights")
    np.testing.assert_allclose(found.constants["k"], np.full((3, 1, 1), 3), rtol=1e-5)


def test_channels_without_any_spread_are_fitted_without_warnings():
    """A channel of zeros has no scale, and one of a single number no slope."""
    factors = np.array([0, 1, 1], np.float32)[:, None, None]
    right = graph(
        node("Mul", "x", "k", output="m"), node("Add", "m", "b"), arrays={"k": factors, "b": BIAS[:, None, None]}
    )
    wrong = graph(node("Mul", "x", "k"), arrays={"k": factors})
    found = [one for one in fits(wrong, trials(right)) if one.part == "missing node"]
    assert all(np.isfinite(value).all() for one in found for value in one.constants.values())
    (slope,) = (one for one in found if one.expected == "Mul by 3 numbers and Add of 3 numbers along axis 1")
    np.testing.assert_allclose(slope.constants["fitted_shift"].reshape(-1), BIAS, atol=1e-5)
    np.testing.assert_allclose(slope.constants["fitted_scale"].reshape(-1), factors.reshape(-1), atol=1e-5)
    texts = [one.expected for one in found]
    assert texts[1] == f"Mul by {found[1].constants['fitted_scale'].item():.6g}"
    assert [text.partition(" along ")[2] for text in texts[::3]] == ["", "axis 0", "axis 1", "axis 2", "axis 3"]
    nodes = [(one.op_type, list(one.output)) for one in slope.nodes]
    assert nodes == [("Mul", ["y_before"]), ("Mul", ["y_scaled"]), ("Add", ["y"])]


def test_small_weights_are_fitted_by_least_squares():
    right, wrong = (graph(node("Conv", "x", "w"), arrays={"w": one}) for one in (W, W * [1, 1, 0.5]))
    (found,) = weight_fits(graph_of_float32(wrong), trials(right, 3))
    np.testing.assert_allclose(found.constants["w"], W, atol=1e-5)
    assert (found.part, found.name, found.found, found.expected) == ("weights", "w[1, 2, 0, 2]", "0.9", "1.8")
    assert (found.node, found.operator) == ("y", "Conv")
    assert list(weight_fits(graph_of_float32(wrong), trials(right), most=17)) == []
    (alone,) = weight_fits(graph(node("Mul", "x", "w"), arrays={"w": np.float32([2])}), trials(TRIPLE))
    assert (alone.name, alone.found, alone.expected) == ("w[0]", "2", "3")
    assert not list(
        weight_fits(
            graph(node("Log", "x", output="l"), node("Mul", "l", "w"), arrays={"w": W[0, 0, 0]}), trials(TRIPLE)
        )
    )


TRIPLE = graph(node("Mul", "x", "k"), arrays={"k": np.float32(3)})


def graph_of_float32(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with weights in float32."""
    return graphs.with_constant_values(proto, "w", graphs.constants(proto)["w"].astype(np.float32))


def test_other_values_lie_near_the_one_that_there_is():
    assert list(alternatives.axes_of(2)) == [[], [0], [1], [0, 1]]
    near = list(alternatives.lists([1, 2]))
    assert near[:4] == [[1, 2], [2, 1], [2, 1], [2, 1]]
    assert near[4:8] == [[0, 2], [2, 2], [1, 1], [1, 3]]
    assert near[8:13] == [[2, 1], [0, 1], [0, 3], [2, 1], [2, 3]]
    assert near[13:] == [[number] * 2 for number in range(8)]
    numbers = list(alternatives.numbers(4.0))
    assert numbers[: len(alternatives.FLOATS)] == list(alternatives.FLOATS)
    assert numbers[len(alternatives.FLOATS) :] == pytest.approx([-4, 2, 8, 0.4, 40, 4 / 3, 12, 0.25, 0, 3, 5, -3])
    assert list(alternatives.numbers(0.0))[-4:] == [0.0, -1.0, 1.0, 1.0]
    hints = Hints((), (2, 0.5, 9.0, [3, 4], [5]), {})
    for name in ("axis", "split_axis", "batch_axis"):
        assert list(alternatives.alternatives(name, 1, 3, hints)) == [2, -1, 0, 1, 2]
    assert list(alternatives.alternatives("axes", [1], 1, hints)) == [[], [0]]
    assert list(alternatives.alternatives("perm", [0, 1], 2, hints)) == [[0, 1], [1, 0]]
    assert list(alternatives.alternatives("pads", [1, 2], 4, hints))[:2] == [[3, 4], [5, 5]]
    assert list(alternatives.alternatives("auto_pad", None, 4, hints))[:2] == [b"NOTSET", b"VALID"]
    assert list(alternatives.alternatives("alpha", 1.0, 4, hints))[:4] == [2.0, 0.5, 9.0, 1e-12]
    assert list(alternatives.alternatives("group", 3, 4, hints)) == [-2, 2, 4, 0, 1, -1, 8]
    assert list(alternatives.alternatives("strides", None, 4, hints))[:6] == [[n, n] for n in range(5)] + [[0] * 4]
    assert list(alternatives.alternatives("other", None, 4, hints)) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), (b"edge", "edge"), (0.1234567, "0.123457"), ([1, [2.5]], "[1, [2.5]]"), (3, "3")],
)
def test_values_are_shown_in_short(value, text):
    assert shown(value) == text


def test_a_difference_names_where_it_is_largest():
    found = compare(np.array([[1.0, 2.5]], np.float32), np.array([[1.0, 2.0]]))
    assert found == Difference(max_abs=0.5, largest=2.0, index=(0, 1), found=2.5, expected=2.0)
    assert found.relative == 0.25
    assert found.describe() == "0.5 at [0, 1]: 2.5 where 2 is expected"
    assert found.to_json() == {
        "max_abs": 0.5, "largest": 2.0, "index": [0, 1], "found": 2.5, "expected": 2.0, "non_finite": 0,
        "relative": 0.25,
    }  # fmt: skip
    odd = compare(np.array([np.nan, np.inf, 1.0, np.nan]), np.array([np.nan, 5.0, -np.inf, 3.0]))
    assert (odd.max_abs, odd.largest, odd.index, odd.non_finite) == (0.0, 5.0, (1,), 3)
    assert odd.relative == np.inf
    assert odd.describe() == "inf where 5 is expected at [1], 3 such places"
    shapes = compare(np.zeros(2), np.full(3, 4.0))
    assert (shapes.max_abs, shapes.largest, shapes.relative) == (None, 4.0, np.inf)
    assert shapes.describe() == "the shapes differ"
    assert compare(np.zeros((0, 2)), np.zeros((0, 2))).relative == 0.0
    assert compare(np.ones(1), np.zeros(1)).relative == np.inf


def test_perturbed_inputs_move_by_a_third_of_their_size():
    inputs = {"x": np.full((50, 40), 2.0, np.float32), "zero": np.zeros(2000, np.float32), "axes": np.array([1, 2])}
    one, again, other = (culprit.perturbed(inputs, seed) for seed in (0, 0, 1))
    assert np.array_equal(one["axes"], [1, 2])
    assert np.array_equal(one["x"], again["x"])
    assert not np.array_equal(one["x"], other["x"])
    assert (one["x"] - 2).std() == pytest.approx(0.6, rel=0.05)
    assert one["zero"].std() == pytest.approx(0.3, rel=0.05)
    assert one["x"].dtype == np.float32


CHAIN = graph(
    node("Mul", "x", "k", output="a"), node("Add", "a", "b", output="c"), node("Neg", "a", output="n"),
    node("Sub", "c", "n"),
    arrays={"k": np.float32(2), "b": np.float32(1)},
)  # fmt: skip


def names(values: object) -> list[str]:
    return [one.name for one in values]


def test_a_part_of_a_graph_reads_only_what_it_needs():
    assert graphs.computed(CHAIN) == ["a", "c", "n", "y"]
    part = graphs.cut(CHAIN, {"a": X, "x": X}, "c")
    assert [one.output[0] for one in part.graph.node] == ["c"]
    assert (names(part.graph.input), names(part.graph.initializer), names(part.graph.output)) == (["a"], ["b"], ["c"])
    assert np.array_equal(running.unoptimized(part, {"a": X})[0], X + 1)
    shape = part.graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, [one.dim_value for one in shape[1:]]) == ("batch", [3, 4, 5])
    several = graphs.cut(CHAIN, {"x": X}, ["n", "c"])
    assert names(several.graph.output) == ["n", "c"]
    assert [one.output[0] for one in several.graph.node] == ["a", "c", "n"]
    assert [one.output[0] for one in graphs.nodes_behind(CHAIN, {"a"}, "y")] == ["c", "n", "y"]
    sizes = graphs.cut(
        graph(node("Reshape", "x", "s"), arrays={"s": np.array([2, 60])}), {"x": X, "s": np.array([2, 60])}, "y"
    )
    assert [one.dim_value for one in sizes.graph.input[1].type.tensor_type.shape.dim] == [2]
    assert names(sizes.graph.initializer) == []


def test_a_value_that_becomes_constant_spares_what_was_before():
    value = np.full(X.shape, 3.0, np.float32)
    fixed = graphs.with_constant(CHAIN, "a", value)
    assert (graphs.computed(fixed), names(fixed.graph.input)) == (["c", "n", "y"], [])
    assert sorted(names(fixed.graph.initializer)) == ["a", "b"]
    assert np.array_equal(running.unoptimized(fixed, {})[0], value * 2 + 1)
    assert graphs.computed(CHAIN) == ["a", "c", "n", "y"]
    changed = graphs.with_constant_values(CHAIN, "b", np.array(5, np.float32))
    assert {name: float(one) for name, one in graphs.constants(changed).items()} == {"k": 2.0, "b": 5.0}
    assert {name: float(one) for name, one in graphs.constants(CHAIN).items()} == {"k": 2.0, "b": 1.0}
    replaced = graphs.with_node(CHAIN, "c", [node("Sub", "a", "b", output="d"), node("Abs", "d", output="c")])
    assert graphs.computed(replaced) == ["a", "d", "c", "n", "y"]


def test_constants_of_nodes_become_weights():
    values = {
        "value_int": 3, "value_ints": [5, 6], "value_float": 0.5, "value_floats": [1.0, 2.0], "value_string": "s",
    }  # fmt: skip
    nodes = [helper.make_node("Constant", [], [name], **{name: one}) for name, one in values.items()]
    tensor = numpy_helper.from_array(np.array([4.0], np.float32))
    proto = graph(*nodes, helper.make_node("Constant", [], ["t"], value=tensor), node("Add", "x", "t"))
    found = graphs.with_weights(proto)
    assert graphs.computed(found) == ["value_string", "y"]
    constants = graphs.constants(found)
    assert {name: one.tolist() for name, one in constants.items()} == {
        "value_int": 3, "value_ints": [5, 6], "value_float": 0.5, "value_floats": [1, 2], "t": [4],
    }  # fmt: skip
    assert {name for name, one in constants.items() if one.dtype == np.int64} == {"value_int", "value_ints"}
    assert all(one.dtype in (np.int64, np.float32) for one in constants.values())


def test_notes_of_an_exporter_are_gone_from_inner_graphs_too():
    inner = helper.make_graph([node("Neg", "x", output="z")], "inner", [], [helper.make_empty_tensor_value_info("z")])
    inner.node[0].doc_string = "secret"
    proto = graph(node("Greater", "x", "x", output="g"), node("If", "g", then_branch=inner, else_branch=inner))
    proto.doc_string = proto.graph.doc_string = proto.graph.node[0].doc_string = proto.graph.input[0].doc_string = (
        "secret"
    )
    proto.graph.node[0].metadata_props.add(key="secret", value="secret")
    assert b"secret" not in graphs.without_notes(proto).SerializeToString()
    assert b"secret" in proto.SerializeToString()
    assert graphs.reads(proto.graph.node[1]) == ["g", "x", "x"]
