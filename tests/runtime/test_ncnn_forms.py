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
    "apart": np.array([0, 2]),
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
    np.testing.assert_allclose(ReferenceEvaluator(after).run(None, {"x": x})[0], expected, rtol=1e-5, atol=1e-5)
    return [node.op_type for node in after.graph.node]


@pytest.mark.parametrize("kind", ["Max", "Min", "Sum", "Mean"])
def test_a_reduction_over_space_is_a_global_pooling(kind):
    pool = "GlobalMaxPool" if kind in ("Max", "Min") else "GlobalAveragePool"
    flat = rewritten(graph(f"y = Reduce{kind}<keepdims = 0>(x, both)", "[1, 3]"))
    kept = rewritten(graph(f"y = Reduce{kind}(x, both)", "[1, 3, 1, 1]"))
    of_rows = rewritten(graph(f"r = Reshape(x, flat)\n y = Reduce{kind}(r, last)", "[1, 3, 1]"))
    for found in (flat, kept, of_rows):
        assert pool in found
        assert f"Reduce{kind}" not in found


def test_a_step_of_a_slice_is_a_pooling_of_single_values():
    assert rewritten(graph("y = Slice(x, zero, end, two, two)", "[1, 3, 3, 6]")) == ["MaxPool"]
    assert rewritten(graph("y = Slice(x, one, end, three, two)", "[1, 3, 5, 3]")) == ["Slice", "MaxPool"]


def test_consecutive_rows_are_a_slice():
    assert rewritten(graph("y = Gather<axis = 2>(x, range)", "[1, 3, 3, 6]")) == ["Slice"]


@pytest.mark.parametrize(
    ("body", "out"),
    [
        ("y = ReduceMax(x, channels)", "[1, 1, 5, 6]"),
        ("y = ReduceMax(x, last)", "[1, 3, 5, 1]"),
        ("y = Gather<axis = 2>(x, apart)", "[1, 3, 2, 6]"),
        ("y = Slice(x, zero, end, one, two)", "[1, 2, 5, 6]"),
    ],
    ids=["channels", "one side", "rows apart", "a step of channels"],
)
def test_what_no_pooling_computes_stays(body, out):
    proto = graph(body, out)
    before = [node.op_type for node in proto.graph.node]
    assert rewritten(proto) == before
