"""What depends on constants alone is computed when a graph is exported, and the graph keeps its values."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from poolzoo.export.folding import fold_constants


def graph(text: str, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]>\n{text}')
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return proto


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x})[0]


def test_a_standardized_weight_is_stored_as_it_is_used():
    proto = graph(
        """g (float[n, 4, 5, 5] x) => (float[n, 8, 5, 5] y) {
            axes = Constant<value = int64[3] {1, 2, 3}>()
            mean = ReduceMean(w, axes)
            centered = Sub(w, mean)
            used = Mul(centered, gain)
            y = Conv<kernel_shape = [1, 1]>(x, used)
        }""",
        {
            "w": np.random.default_rng(0).normal(size=(8, 4, 1, 1)).astype(np.float32),
            "gain": np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1),
        },
    )
    x = np.random.default_rng(1).normal(size=(2, 4, 5, 5)).astype(np.float32)
    expected = run(proto, x)
    fold_constants(proto)
    assert [node.op_type for node in proto.graph.node] == ["Constant", "Conv"]
    assert {tensor.name for tensor in proto.graph.initializer} == {"used"}
    np.testing.assert_allclose(run(proto, x), expected, rtol=1e-6)


def test_a_constant_that_would_fill_the_file_stays_an_expansion():
    proto = graph(
        "g (float[n, 512] x) => (float[512, 512] y) { all = Expand(row, shape)\n last = MatMul(x, all)\n"
        " zero = Mul(last, none)\n total = ReduceSum<keepdims = 0>(zero)\n y = Add(all, total) }",
        {
            "row": np.ones((1, 512), np.float32),
            "shape": np.array([512, 512]),
            "none": np.float32(0),
        },
    )
    fold_constants(proto)
    assert "Expand" in [node.op_type for node in proto.graph.node]


def test_random_numbers_are_not_constants():
    proto = graph(
        "g (float[n, 4] x) => (float[n, 4] y) { r = RandomNormalLike(w)\n y = Add(x, r) }",
        {"w": np.ones(4, np.float32)},
    )
    fold_constants(proto)
    assert [node.op_type for node in proto.graph.node] == ["RandomNormalLike", "Add"]
