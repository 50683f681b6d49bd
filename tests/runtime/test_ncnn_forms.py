"""Rewrites for ncnn keep the values of a graph, and leave no operator that it lacks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from poolzoo.runtime.builtin import ncnn_forms

CONSTANTS = {
    "both": np.array([2, 3]),
    "last": np.array([-1]),
    "channels": np.array([1]),
    "zero": np.array([0]),
    "one": np.array([1]),
    "end": np.array([99]),
    "two": np.array([2]),
    "three": np.array([3]),
    "flat": np.array([1, 3, 30]),
    "range": np.array([1, 2, 3]),
    "four": np.array([4]),
    "scrambled": np.array([4, 2, 3, 0]),
    "all": np.array([1, 2, 3]),
    "ends": np.array([1, 3]),
    "border": np.array([0, 0, 1, 1, 0, 0, 0, 0]),
    "least": np.array(-np.inf, np.float32),
    "half": np.array(0.5, np.float32),
    "cube": np.array(3.0, np.float32),
    "root": np.array(1.5, np.float32),
}


def graph(body: str, out: str) -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["": 18]>\ng (float[1, 3, 5, 6] x) => (float{out} y) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    used = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(numpy_helper.from_array(CONSTANTS[name], name) for name in CONSTANTS if name in used)
    return proto


def rewritten(proto: onnx.ModelProto) -> list[str]:
    """The operators of a rewritten graph, after a check that it gives what the graph gives."""
    x = np.random.default_rng(0).normal(size=(1, 3, 5, 6)).astype(np.float32)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    after = ncnn_forms.rewrite(proto)
    onnx.checker.check_model(after, full_check=True)
    with np.errstate(over="ignore"):
        found = ReferenceEvaluator(after).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    return [node.op_type for node in after.graph.node]


REDUCED = {"ends": "[1, 1, 5, 1]", "all": "[1, 1, 1, 1]", "channels": "[1, 1, 5, 6]", "last": "[1, 3, 5, 1]"}


@pytest.mark.parametrize("kind", ["Max", "Min", "Sum", "Mean"])
def test_a_reduction_over_space_is_a_global_pooling(kind):
    pool = "GlobalMaxPool" if kind in ("Max", "Min") else "GlobalAveragePool"
    flat = rewritten(graph(f"y = Reduce{kind}<keepdims = 0>(x, both)", "[1, 3]"))
    kept = rewritten(graph(f"y = Reduce{kind}(x, both)", "[1, 3, 1, 1]"))
    of_rows = rewritten(graph(f"r = Reshape(x, flat)\n y = Reduce{kind}(r, last)", "[1, 3, 1]"))
    for found in (flat, kept, of_rows):
        assert pool in found
        assert f"Reduce{kind}" not in found


@pytest.mark.parametrize("axes", REDUCED)
@pytest.mark.parametrize("kind", ["Max", "Min", "Sum", "Mean", "L1", "L2", "SumSquare"])
def test_a_reduction_over_other_axes_is_a_global_pooling_too(kind, axes):
    assert f"Reduce{kind}" not in rewritten(graph(f"y = Reduce{kind}(x, {axes})", REDUCED[axes]))


def test_a_step_of_a_slice_is_a_pooling_of_single_values():
    assert rewritten(graph("y = Slice(x, zero, end, two, two)", "[1, 3, 3, 6]")) == ["MaxPool"]
    assert rewritten(graph("y = Slice(x, one, end, three, two)", "[1, 3, 5, 3]")) == ["Slice", "MaxPool"]


def test_a_slice_with_a_step_keeps_its_end():
    assert rewritten(graph("y = Slice(x, zero, four, two, two)", "[1, 3, 2, 6]")) == ["Slice", "MaxPool"]
    assert rewritten(graph("y = Slice(x, zero, last, three, two)", "[1, 3, 5, 3]")) == ["Slice", "MaxPool"]


def test_a_choice_of_rows_is_a_slice_for_each_run():
    assert rewritten(graph("y = Gather<axis = 2>(x, range)", "[1, 3, 3, 6]")) == ["Slice"]
    runs = ["Slice", "Slice", "Slice", "Concat"]
    assert rewritten(graph("y = Gather<axis = -2>(x, scrambled)", "[1, 3, 4, 6]")) == runs


def test_a_border_is_finite():
    body = "p = Pad(x, border, least)\n y = MaxPool<kernel_shape = [2, 2]>(p)"
    assert rewritten(graph(body, "[1, 3, 5, 6]")) == ["Pad", "MaxPool"]
    proto = ncnn_forms.rewrite(graph("y = Pad(x, border, least)", "[1, 3, 6, 7]"))
    assert all(np.isfinite(numpy_helper.to_array(one)).all() for one in proto.graph.initializer if "y" in one.name)


@pytest.mark.parametrize("operator", ["Greater", "Less"])
def test_a_choice_is_a_sum_of_products(operator):
    found = rewritten(graph(f"m = {operator}(x, half)\n n = Neg(x)\n y = Where(m, x, n)", "[1, 3, 5, 6]"))
    assert "Where" not in found
    assert not {"Greater", "Less"} & set(found)


def test_a_power_takes_no_negative_number():
    assert rewritten(graph("y = Pow(x, cube)", "[1, 3, 5, 6]")) == ["Mul", "Mul"]
    assert rewritten(graph("a = Relu(x)\n y = Pow(a, root)", "[1, 3, 5, 6]")) == ["Relu", "Clip", "Pow"]


@pytest.mark.parametrize("largest", [0, 1])
def test_a_few_values_are_sorted_by_maxima_and_minima(largest):
    body = f"y, i = TopK<axis = 2, largest = {largest}>(x, two)"
    assert set(rewritten(graph(body, "[1, 3, 2, 6]"))) == {"Slice", "Max", "Min", "Concat"}


@pytest.mark.parametrize(
    ("body", "out"),
    [
        ("y = ReduceMax(x, zero)", "[1, 3, 5, 6]"),
        ("y = Gather<axis = 2>(x, last)", "[1, 3, 1, 6]"),
        ("y = Slice(x, zero, end, one, two)", "[1, 2, 5, 6]"),
    ],
    ids=["the batch", "rows from the end", "a step of channels"],
)
def test_what_no_pooling_computes_stays(body, out):
    proto = graph(body, out)
    before = [node.op_type for node in proto.graph.node]
    assert rewritten(proto) == before
