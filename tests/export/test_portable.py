"""Graph rewrites for other runtimes: each keeps the values in ONNX Runtime, and leaves no such operator."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from poolzoo.export import portable


def graph(text: str, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A model of opset 18 from ONNX's text form of its graph, with constants."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]>\n{text}')
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return onnx.shape_inference.infer_shapes(proto)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def rewritten(proto: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    portable.rewrite(other)
    return other


def same(proto: onnx.ModelProto, *, atol: float = 1e-5) -> list[str]:
    """Checks that a rewritten graph gives what the graph gives; returns its operators."""
    after = rewritten(proto)
    size = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim[1:]]
    for batch in (1, 3):
        x = np.random.default_rng(batch).normal(size=(batch, *size)).astype(np.float32) * 4
        np.testing.assert_allclose(run(after, x), run(proto, x), rtol=1e-5, atol=atol)
    return kinds(after)


HARD = "HardSigmoid<alpha = 0.16666667, beta = 0.5>"


def test_a_hard_sigmoid_behind_a_convolution_becomes_a_clip():
    weight = np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32)
    proto = graph(
        f"g (float[n, 4, 5, 5] x) => (float[n, 4, 5, 5] y) {{ c = Conv(x, w, b)\n s = {HARD}(c)\n y = Mul(x, s) }}",
        {"w": weight, "b": np.arange(4, dtype=np.float32)},
    )
    assert same(proto) == ["Conv", "Clip", "Mul"]
    assert {tensor.name for tensor in rewritten(proto).graph.initializer}.isdisjoint({"w", "b"})


def test_a_convolution_without_bias_gets_one():
    proto = graph(
        f"g (float[n, 4, 5, 5] x) => (float[n, 4, 5, 5] y) {{ c = Conv(x, w)\n y = {HARD}(c) }}",
        {"w": np.eye(4, dtype=np.float32)[:, :, None, None]},
    )
    assert same(proto) == ["Conv", "Clip"]


@pytest.mark.parametrize("other", ["y = Mul(c, s)", "y = Add(s, c)"])
def test_a_convolution_with_another_use_keeps_its_weights(other):
    proto = graph(
        f"g (float[n, 4, 5, 5] x) => (float[n, 4, 5, 5] y) {{ c = Conv(x, w)\n s = {HARD}(c)\n {other} }}",
        {"w": np.eye(4, dtype=np.float32)[:, :, None, None]},
    )
    assert same(proto)[:4] == ["Conv", "Add", "Clip", "Mul"]


def test_other_slopes_of_a_hard_sigmoid_stay():
    proto = graph("g (float[n, 4] x) => (float[n, 4] y) { y = HardSigmoid<alpha = 0.2, beta = 0.5>(x) }", {})
    assert same(proto) == ["HardSigmoid"]


GELUS = {
    "torch": "h = Mul(a, c)\n y = Mul(x, h)",
    "halved last": "h = Mul(x, a)\n y = Mul(h, c)",
    "halved first": "h = Mul(x, c)\n y = Mul(h, a)",
}


@pytest.mark.parametrize("order", GELUS)
@pytest.mark.parametrize("added", ["Add(e, o)", "Add(o, e)"])
def test_a_gelu_has_the_order_that_onnxruntime_merges(order, added, tmp_path):
    proto = graph(
        f"g (float[n, 8] x) => (float[n, 8] y) {{ d = Div(x, r)\n e = Erf(d)\n a = {added}\n {GELUS[order]} }}",
        {name: np.array(value, np.float32) for name, value in (("r", 2**0.5), ("o", 1), ("c", 0.5))},
    )
    assert same(proto) == ["Div", "Erf", "Add", "Mul", "Mul"]
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "merged.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(rewritten(proto).SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert kinds(onnx.load(tmp_path / "merged.onnx")) == ["Gelu"]


def test_a_product_that_is_no_gelu_stays():
    proto = graph(
        "g (float[n, 8] x) => (float[n, 8] y) "
        "{ d = Div(x, r)\n e = Erf(d)\n a = Add(e, o)\n h = Mul(a, c)\n y = Mul(x, h) }",
        {name: np.array(value, np.float32) for name, value in (("r", 2**0.5), ("o", 1), ("c", 0.7))},
    )
    names = [list(node.input) for node in rewritten(proto).graph.node]
    assert names == [list(node.input) for node in proto.graph.node]


def test_a_division_elsewhere_stays():
    proto = graph(
        "g (float[n, 8] x) => (float[n, 8] y) { y = Div(x, r) }",
        {"r": np.array(2**0.5, np.float32)},
    )
    assert same(proto) == ["Div"]


@pytest.mark.parametrize("op", ["ReduceL1", "ReduceL2", "ReduceSumSquare"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_norms_become_sums(op, keepdims):
    shape = "[n, 1, 6]" if keepdims else "[n, 6]"
    proto = graph(
        f"g (float[n, 5, 6] x) => (float{shape} y) {{ y = {op}<keepdims = {keepdims}>(x, axes) }}",
        {"axes": np.array([1], np.int64)},
    )
    assert op not in same(proto)


@pytest.mark.parametrize("after", [13, 24, 30, 100])
def test_a_resize_by_sizes_becomes_one_by_scales(after):
    text = f"""g (float[n, 3, 10, 30] x) => (float[n, 3, {after}, {after}] y) {{
        b = Shape<start = 0, end = 1>(x)
        s = Concat<axis = 0>(b, rest)
        y = Resize<mode = "linear", coordinate_transformation_mode = "half_pixel">(x, , , s) }}"""
    proto = graph(text, {"rest": np.array([3, after, after], np.int64)})
    assert same(proto, atol=1e-4) == ["Resize"]  # a coordinate is rounded otherwise


def test_scales_give_every_size_when_rounded_down():
    sizes = [(before, after) for before in range(1, 300, 7) for after in range(1, 600, 11)]
    found = [int(np.floor(np.float32(before) * np.float32(portable.scale(before, after)))) for before, after in sizes]
    assert found == [after for _, after in sizes]


def test_what_an_output_names_stays_an_output():
    proto = graph(
        f"g (float[n, 4, 5, 5] x) => (float[n, 4, 5, 5] y, float[n, 4, 5, 5] c) {{ c = Conv(x, w)\n y = {HARD}(c) }}",
        {"w": np.eye(4, dtype=np.float32)[:, :, None, None]},
    )
    assert same(proto) == ["Conv", "Add", "Clip", "Mul"]
    assert [value.type.tensor_type.elem_type for value in rewritten(proto).graph.output] == [TensorProto.FLOAT] * 2


def test_float64_graphs_stay_as_they_are():
    node = helper.make_node("HardSigmoid", ["x"], ["y"], alpha=1 / 6, beta=0.5)
    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", 4]) for name in "xy"]
    proto = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    assert kinds(rewritten(proto)) == ["HardSigmoid"]


@pytest.mark.parametrize("counts", [0, 1])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"), [(7, 2, 2, 0), (8, 3, 2, 1), (9, 3, 2, 1), (10, 3, 3, 1)]
)
def test_averages_have_no_partial_windows(size, kernel, stride, pads, counts):
    torch = pytest.importorskip("torch")
    side = -(-(size + 2 * pads - kernel) // stride) + 1
    side -= (side - 1) * stride >= size + pads  # no window starts behind the map
    sizes = (
        f"kernel_shape = [{kernel}, {kernel}], strides = [{stride}, {stride}], pads = [{pads}, {pads}, {pads}, {pads}]"
    )
    proto = graph(
        f"g (float[n, 2, {size}, {size}] x) => (float[n, 2, {side}, {side}] y) "
        f"{{ y = AveragePool<{sizes}, ceil_mode = 1, count_include_pad = {counts}>(x) }}",
        {},
    )
    after = rewritten(proto)
    assert not any(one.name == "ceil_mode" for node in after.graph.node for one in node.attribute)
    x = np.random.default_rng(0).normal(size=(3, 2, size, size)).astype(np.float32)
    layer = torch.nn.AvgPool2d(kernel, stride, pads, ceil_mode=True, count_include_pad=bool(counts))
    np.testing.assert_allclose(run(after, x), layer(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-6)


def test_ceil_mode_stays_where_a_maximum_has_partial_windows():
    text = (
        "g (float[n, 2, {0}, {0}] x) => (float[n, 2, 4, 4] y) "
        "{{ y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x) }}"
    )
    modes = {}
    for size in (7, 8):
        proto = graph(text.format(size), {})
        same(proto)
        modes[size] = [
            one.i for node in rewritten(proto).graph.node for one in node.attribute if one.name == "ceil_mode"
        ]
    assert modes == {7: [1], 8: []}
