"""A graph computes its last layers for the one row that it uses, and keeps its values."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from poolzoo.export.narrowing import narrow_rows

WEIGHTS = {
    "w": np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32),
    "b": np.arange(8, dtype=np.float32),
    "position": np.random.default_rng(1).normal(size=(1, 5, 8)).astype(np.float32),
    "row": np.array(2),
    "pair": np.array([0, 2]),
    "axis": np.array([1]),
    "heads": np.array([0, 5, 2, 4]),
    "joined": np.array([0, 5, 8]),
    "mixed": np.array([0, 8, 5]),
}


Y = "float[n, 8] y"


def graph(body: str, out: str = Y) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]>\ng (float[n, 5, 8] x) => ({out}) {{ {body} }}'
    )
    used = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(numpy_helper.from_array(WEIGHTS[name], name) for name in WEIGHTS if name in used)
    return onnx.shape_inference.infer_shapes(proto)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]


def rows_of_products(proto: onnx.ModelProto) -> list[int]:
    """How many rows each matrix product has, after a check that a narrowed graph gives what the graph gives."""
    after = onnx.ModelProto()
    after.CopyFrom(proto)
    narrow_rows(after)
    for batch in (1, 3):
        x = np.random.default_rng(batch).normal(size=(batch, 5, 8)).astype(np.float32)
        np.testing.assert_allclose(run(after, x), run(proto, x), rtol=1e-5, atol=1e-5)
    inferred = onnx.shape_inference.infer_shapes(after).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*inferred.value_info, *inferred.output)}
    return [shapes[node.output[0]][-2].dim_value for node in after.graph.node if node.op_type == "MatMul"]


ATTENTION = """
    q = MatMul(x, w)\n k = MatMul(x, w)
    qs = Reshape(q, heads)\n qh = Transpose<perm = [0, 2, 1, 3]>(qs)
    ks = Reshape(k, heads)\n kh = Transpose<perm = [0, 2, 3, 1]>(ks)\n vh = Transpose<perm = [0, 2, 1, 3]>(ks)
    scores = MatMul(qh, kh)\n weights = Softmax<axis = -1>(scores)\n values = MatMul(weights, vh)
    back = Transpose<perm = [0, 2, 1, 3]>(values)\n all = Reshape(back, joined)\n sum = Add(x, all)
    y = Gather<axis = 1>(sum, row)
"""


def test_attention_of_one_token_has_one_query():
    assert rows_of_products(graph(ATTENTION)) == [1, 5, 1, 1]


def test_a_position_embedding_is_cut_with_its_tokens():
    assert rows_of_products(
        graph("p = Add(x, position)\n a = MatMul(p, w)\n c = Add(a, b)\n y = Gather<axis = 1>(c, row)")
    ) == [1]


@pytest.mark.parametrize(
    ("body", "out"),
    [
        ("a = MatMul(x, w)\n y = Gather<axis = 1>(a, pair)", "float[n, 2, 8] y"),
        ("a = MatMul(x, w)\n y = Gather<axis = 1>(a, row)", "float[n, 8] y, float[n, 5, 8] a"),
        ("a = MatMul(x, w)\n c = ReduceMax<keepdims = 0>(a, axis)\n d = Gather<axis = 1>(a, row)\n y = Add(c, d)", Y),
        ("a = MatMul(x, w)\n c = Softmax<axis = 1>(a)\n y = Gather<axis = 1>(c, row)", Y),
        ("a = MatMul(x, w)\n c = Reshape(a, mixed)\n y = Gather<axis = 1>(c, row)", "float[n, 5] y"),
    ],
    ids=["two rows", "an output", "a maximum beside it", "a softmax over rows", "a reshape of rows"],
)
def test_rows_that_something_else_needs_stay(body, out):
    assert rows_of_products(graph(body, out)) == [5]
