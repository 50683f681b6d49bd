"""fp16 in its own arithmetic: what overflows or vanishes there stays in float32, by name, or the graph fails."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from poolzoo.export.precision import fp16, half_range, ranges
from poolzoo.runtime import half_arithmetic

FEED = np.random.default_rng(0).uniform(0.5, 1.5, (6, 3, 16, 16)).astype(np.float32)


def model(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:
    """A graph from `images`, `float[N, 3, 16, 16]`, to `logits`."""
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 16, 16])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    for index, node in enumerate(nodes):
        node.name = node.name or f"n{index}"
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def node(kind: str, inputs: str, output: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def f(value: float) -> np.ndarray:
    return np.float32(value)


AXES = {"axes": np.array([2, 3])}
# Functions whose float32 is harmless, and which a plain conversion breaks in half arithmetic.
BROKEN = {
    "a large activation": model(
        [node("Mul", "images big", "x"), node("Mul", "x small", "logits")], big=f(1e6), small=f(1e-6)
    ),
    "a sum": model(
        [node("Mul", "images a", "x"), node("ReduceSum", "x axes", "y"), node("Mul", "y b", "logits")],
        a=f(1000),
        b=f(1e-4),
        **AXES,
    ),
    "the sum inside a mean": model(
        [node("Mul", "images a", "x"), node("ReduceMean", "x axes", "logits")], a=f(1000), **AXES
    ),
    "squares": model([node("Mul", "images a", "x"), node("ReduceL2", "x axes", "logits")], a=f(400), **AXES),
    "a power": model(
        [
            node("Add", "images a", "x"),
            node("Pow", "x p", "y"),
            node("ReduceMean", "y axes", "z"),
            node("Pow", "z q", "logits"),
        ],
        a=f(8),
        p=f(8),
        q=f(1 / 8),
        **AXES,
    ),
    "an exponential": model(
        [
            node("Mul", "images a", "x"),
            node("Exp", "x", "y"),
            node("ReduceMean", "y axes", "z"),
            node("Log", "z", "logits"),
        ],
        a=f(20),
        **AXES,
    ),
    "a large weight": model([node("Mul", "images a", "x"), node("Mul", "x b", "logits")], a=f(1e-3), b=f(1e5)),
    "a small weight": model([node("Mul", "images a", "x"), node("Mul", "x b", "logits")], a=f(1e-9), b=f(1e9)),
    "small activations": model(
        [node("Mul", "images a", "x"), node("Mul", "x b", "y"), node("Mul", "y c", "logits")],
        a=f(1e-4),
        b=f(1e-4),
        c=f(1e8),
    ),
    "an eps": model(
        [
            node("Sub", "images images", "x"),
            node("ReduceSumSquare", "x axes", "s"),
            node("Add", "s eps", "y"),
            node("Div", "s y", "logits"),
        ],
        eps=f(1e-12),
        **AXES,
    ),
    "the sum of a whole map": model(
        [node("Mul", "images a", "x"), node("GlobalAveragePool", "x", "logits")], a=f(1000)
    ),
    "the sum of a window": model(
        [node("Mul", "images a", "x"), node("AveragePool", "x", "logits", kernel_shape=[16, 16])], a=f(1000)
    ),
    "powers in a window": model(
        [node("Mul", "images a", "x"), node("LpPool", "x", "logits", kernel_shape=[8, 8], strides=[8, 8], p=6)], a=f(5)
    ),
    "the variance of a layer norm": model(
        [
            node("Mul", "images a", "x"),
            node("LayerNormalization", "x one", "y", axis=-1),
            node("Add", "y ten", "logits"),
        ],
        a=f(100),
        ten=f(10),
        one=np.ones(16, np.float32),
    ),
    "a batch norm": model(
        [node("BatchNormalization", "images s zero zero one", "x"), node("Mul", "x b", "logits")],
        s=np.full(3, 3e4, np.float32),
        zero=np.zeros(3, np.float32),
        one=np.ones(3, np.float32),
        b=f(1e-4),
    ),
    "terms of a convolution that cancel": model(
        [node("Concat", "images images", "x", axis=1), node("Conv", "x w", "logits")],
        w=np.array([4e4, 1, 1, -4e4, 0, 0], np.float32).reshape(1, 6, 1, 1),
    ),
    "terms of a product that cancel": model(
        [
            node("ReduceMean", "images axes", "m", keepdims=0),
            node("Concat", "m m", "x", axis=1),
            node("MatMul", "x w", "logits"),
        ],
        w=np.array([4e4, 1, 1, -4e4, 0, 0], np.float32).reshape(6, 1),
        **AXES,
    ),
    "logits beyond half": model([node("Mul", "images a", "logits")], a=f(1e6)),
}


def plain(proto: onnx.ModelProto) -> onnx.ModelProto:
    return fp16.with_float32_nodes(proto, set())


@pytest.mark.parametrize("name", BROKEN)
def test_what_half_precision_does_not_hold_stays_in_float32(name):
    """The oracles are ONNX Runtime in float32 and onnx's reference evaluator on the converted graph."""
    proto = BROKEN[name]
    expected = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = expected.run(["logits"], {"images": FEED})[0]
    made, fit = fp16.convert(proto, [], FEED)
    assert fit.reasons, name
    onnx.checker.check_model(made, full_check=True)
    with np.errstate(all="ignore"):
        got = ReferenceEvaluator(made).run(["logits"], {"images": FEED})[0]
    np.testing.assert_allclose(got, wanted, rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("name", ["a large activation", "a sum", "a power", "an exponential", "small activations"])
def test_half_arithmetic_shows_what_a_plain_conversion_breaks(name):
    proto = BROKEN[name]
    wanted = half_arithmetic.HalfGraph(proto).run(FEED)["logits"]
    got = half_arithmetic.HalfGraph(plain(proto)).run(FEED)["logits"]
    assert not np.allclose(got, wanted, rtol=0.1)
    found = got.reshape(len(FEED), -1), wanted.reshape(len(FEED), -1)
    report = half_arithmetic.check_logits(*found, np.ones(len(FEED), bool), 0.99)
    assert not report.passed, report


HIDDEN = ("the sum inside a mean", "the sum of a whole map", "the sum of a window", "powers in a window")


@pytest.mark.parametrize("name", HIDDEN)
def test_half_arithmetic_shows_sums_that_float32_hides(name):
    """ONNX Runtime computes the same graph without an overflow: that is what a CPU hides."""
    made = plain(BROKEN[name])
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.isfinite(session.run(["logits"], {"images": FEED})[0]).all()
    assert not np.isfinite(half_arithmetic.HalfGraph(made).run(FEED)["logits"]).any()


HEALTHY = {
    "means": [node("ReduceMean", "images axes", "logits")],
    "a whole map": [node("GlobalAveragePool", "images", "logits")],
    "windows": [node("AveragePool", "images", "logits", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
    "powers": [node("LpPool", "images", "logits", kernel_shape=[4, 4], strides=[4, 4], p=3)],
    "all powers": [node("GlobalLpPool", "images", "logits", p=3)],
    "an instance norm": [node("InstanceNormalization", "images one zero", "logits")],
    "a group norm": [node("GroupNormalization", "images one zero", "logits", num_groups=1)],
    "a convolution": [node("Conv", "images w", "logits")],
    "a product": [node("ReduceMean", "images axes", "x", keepdims=0), node("MatMul", "x square", "logits")],
    "attention": [node("MatMul", "images images", "x"), node("Softmax", "x", "logits", axis=-1)],
}


def test_room_is_left_for_images_beyond_the_measured_ones():
    """The values of these images fit, and those of images four times as bright would not."""
    proto = model([node("Mul", "images a", "x"), node("Mul", "x b", "logits")], a=f(3e4), b=f(1e-4))
    plainly = half_arithmetic.HalfGraph(plain(proto))
    assert np.isfinite(plainly.run(FEED)["logits"]).all()
    assert not np.isfinite(plainly.run(4 * FEED)["logits"]).all()
    made, fit = fp16.convert(proto, [], FEED)
    assert list(fit.reasons) == ["n0", "n1"]
    assert np.isfinite(half_arithmetic.HalfGraph(made).run(4 * FEED)["logits"]).all()


OPSET_21 = ("a group norm",)


@pytest.mark.parametrize("name", HEALTHY)
def test_what_fits_into_half_precision_is_computed_there(name):
    """The oracle is ONNX Runtime in float32."""
    random = np.random.default_rng(4)
    proto = model(
        HEALTHY[name],
        w=random.normal(size=(4, 3, 1, 1)).astype(np.float32),
        square=random.normal(size=(3, 3)).astype(np.float32),
        one=np.ones(3, np.float32),
        zero=np.zeros(3, np.float32),
        **AXES,
    )
    if name in OPSET_21:
        proto.opset_import[0].version = 21
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert half_range.analyze(proto, FEED).reasons == {}
    got = half_arithmetic.HalfGraph(plain(proto)).run(FEED)["logits"]
    np.testing.assert_allclose(got, session.run(["logits"], {"images": FEED})[0], rtol=1e-2, atol=1e-2)


LONG = {  # of 4,096 positions, over an axis that is not the last
    "Softmax": (np.float32(1 / 4096), {"axis": 1}),
    "ReduceSum": (np.float32(4096), {}),
    "ReduceL2": (np.float32(64), {}),
    "CumSum": (np.arange(1, 4097, dtype=np.float32)[None, :, None], {}),
}


@pytest.mark.parametrize("name", LONG)
def test_long_sums_grow_beyond_what_float16_counts(name):
    wanted, attributes = LONG[name]
    inputs = {"Softmax": "images", "CumSum": "images place"}.get(name, "images place_of_axis")
    made = plain(model([node(name, inputs, "logits", **attributes)], place=np.array(1), place_of_axis=np.array([1])))
    got = half_arithmetic.HalfGraph(made).run(np.ones((2, 4096, 2), np.float32))["logits"]
    np.testing.assert_allclose(got, np.broadcast_to(wanted, got.shape), rtol=2e-3)


def test_half_arithmetic_is_that_of_the_reference_evaluator():
    random = np.random.default_rng(1)
    weights = random.normal(size=(8, 3, 3, 3)).astype(np.float32)
    proto = plain(
        model(
            [
                node("Conv", "images w", "x", pads=[1, 1, 1, 1]),
                node("HardSwish", "x", "y"),
                node("MaxPool", "y", "z", kernel_shape=[2, 2], strides=[2, 2]),
                node("ReduceMean", "z axes", "m", keepdims=0),
                node("Softmax", "m", "logits", axis=1),
            ],
            w=weights,
            **AXES,
        )
    )
    got, wanted = (
        half_arithmetic.HalfGraph(proto).run(FEED)["logits"],
        ReferenceEvaluator(proto).run(None, {"images": FEED})[0],
    )
    np.testing.assert_allclose(got, wanted, rtol=4e-3, atol=1e-4)


def test_a_network_that_fits_is_converted_whole():
    random = np.random.default_rng(2)
    weights = random.normal(size=(4, 3, 1, 1)).astype(np.float32)
    proto = model(
        [node("Conv", "images w", "x"), node("ReduceMean", "x axes", "logits", keepdims=0)], w=weights, **AXES
    )
    fit = half_range.analyze(proto, FEED)
    assert fit.reasons == {}
    x = np.einsum("oi,nihw->nohw", weights[..., 0, 0].astype(np.float64), FEED.astype(np.float64))
    assert fit.largest == pytest.approx(max(np.abs(x).max(), np.abs(x).sum((2, 3)).max()), rel=1e-5)
    assert fit.images == len(FEED)


def test_sums_of_integers_are_no_values_to_look_at():
    nodes = [node("Shape", "images", "s"), node("ReduceSum", "s", "t", keepdims=0), node("Cast", "t", "u", to=1)]
    proto = model([*nodes, node("Div", "images u", "logits")])
    assert set(half_range.analyze(proto, FEED).reasons) == set()


def test_a_constant_node_is_kept_with_its_reader():
    tiny = numpy_helper.from_array(np.float32(1e-12), "value")
    constant = helper.make_node("Constant", [], ["eps"], name="c", value=tiny)
    proto = model([constant, node("Add", "images eps", "x"), node("Relu", "x", "logits")])
    assert list(half_range.analyze(proto, FEED).reasons) == ["c", "n1"]


@pytest.mark.parametrize("turned", [0, 1])
def test_a_bias_is_added_behind_its_product(turned):
    random = np.random.default_rng(5)
    weight = random.normal(size=(4, 3) if turned else (3, 4)).astype(np.float32)
    proto = model(
        [node("ReduceMean", "images axes", "x", keepdims=0), node("Gemm", "x w b", "logits", transB=turned)],
        w=weight,
        b=random.normal(size=4).astype(np.float32),
        **AXES,
    )
    made = fp16.with_float32_nodes(proto, set())
    assert [one.op_type for one in made.graph.node if one.op_type != "Cast"] == ["ReduceMean", "MatMul", "Add"]
    onnx.checker.check_model(made, full_check=True)
    before, after = (ReferenceEvaluator(one).run(["logits"], {"images": FEED})[0] for one in (proto, made))
    np.testing.assert_allclose(after, before, rtol=4e-3, atol=4e-3)
    kept = fp16.with_float32_nodes(proto, {"n1"})
    assert "Gemm" in [one.op_type for one in kept.graph.node]


def test_a_constant_of_both_precisions_is_rounded_for_one_alone():
    proto = model([node("Mul", "images third", "x"), node("Mul", "x third", "logits")], third=f(1 / 3))
    made = fp16.with_float32_nodes(proto, {"n1"})
    kept = {one.name: numpy_helper.to_array(one) for one in made.graph.initializer}
    assert sorted(str(one.dtype) for one in kept.values()) == ["float16", "float32"]
    assert next(one for one in kept.values() if one.dtype == np.float32) == f(1 / 3)


def test_ranges_are_those_of_onnx_runtimes_calibration_at_any_batch(tmp_path, monkeypatch):
    from onnxruntime.quantization.calibrate import create_calibrator

    weights = np.random.default_rng(3).normal(size=(8, 3, 3, 3)).astype(np.float32)
    nodes = [node("Conv", "images w", "x"), node("Relu", "x", "y"), node("ReduceMean", "y axes", "logits", keepdims=0)]
    proto = model(nodes, w=weights, **AXES)
    onnx.save(proto, tmp_path / "m.onnx")
    calibrator = create_calibrator(tmp_path / "m.onnx", [], augmented_model_path=str(tmp_path / "a.onnx"))
    batches = iter([{"images": FEED}, None])
    calibrator.collect_data(type("Reader", (), {"get_next": lambda self: next(batches)})())
    theirs = {name: tuple(float(v.item()) for v in of.range_value) for name, of in calibrator.compute_data().items()}
    for batch in (1, 4, 32):
        monkeypatch.setattr(ranges, "BATCH", batch)
        ours = {name: (float(of.low), float(of.high)) for name, of in ranges.measure(proto, FEED).items()}
        assert ours == theirs


def test_a_smaller_batch_is_tried_where_memory_does_not_suffice(monkeypatch):
    """A session that refuses more than two images at once, in ONNX Runtime's own words."""
    proto, real, sizes = model([node("Relu", "images", "logits")]), onnxruntime.InferenceSession, []
    wanted = ranges.measure(proto, FEED)

    class Small:
        most = 2

        def __init__(self, *arguments, **options):
            self.session = real(*arguments, **options)

        def run(self, outputs, inputs):
            sizes.append(len(inputs["images"]))
            if sizes[-1] > self.most:
                raise RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9")
            return self.session.run(outputs, inputs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Small)
    assert ranges.measure(proto, FEED) == wanted
    assert sizes[-3:] == [2, 2, 2]
    Small.most = 0
    with pytest.raises(MemoryError, match="single image"):
        ranges.measure(proto, FEED)


def test_rounding_to_bfloat16_is_that_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    random = np.random.default_rng(5)
    some = random.normal(size=4096).astype(np.float32) * 10.0 ** random.integers(-40, 38, 4096)
    values = np.concatenate([some, [np.inf, -np.inf, np.nan, 0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8]]).astype(np.float32)
    with np.errstate(over="ignore"):
        wanted = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(half_arithmetic.to_bfloat16(values), wanted)


@pytest.mark.parametrize("name", ["a large activation", "a power", "a large weight", "the sum of a window"])
def test_what_overflows_in_float16_does_not_in_bfloat16(name):
    proto = BROKEN[name]
    every = np.ones(len(FEED), bool)
    logits = half_arithmetic.logits(proto, FEED).reshape(len(FEED), -1)
    found = {
        kind: half_arithmetic.check_logits(
            half_arithmetic.logits(proto, FEED, half_arithmetic.ARITHMETICS[kind]).reshape(len(FEED), -1),
            expected=logits,
            regular=every,
            agreement=0.0,
        )
        for kind in ("fp16", "bf16")
    }
    assert (found["fp16"].passed, found["bf16"].passed) == (False, True), found
