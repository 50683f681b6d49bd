"""The rules on what runtimes get wrong find each pattern, and leave its portable form alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from poolzoo.plugin import loader
from poolzoo.runtime import runtimes
from poolzoo.runtime.builtin import ncnn_forms
from poolzoo.runtime.builtin.ncnn_forms import MAX_SORTED
from poolzoo.runtime.portability import RULES, known_causes, portability

DIGITS = Path(__file__).parents[1] / "data" / "digits_bundle"

node = helper.make_node


def graph(nodes, constants=None, shapes=None):
    """A graph from x to y; constants and the shapes of values in between by name."""
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "graph",
        [value("x", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
        value_info=[value(name, TensorProto.FLOAT, shape) for name, shape in (shapes or {}).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])


def found(*arguments):
    return {(issue.runtime, issue.outcome, issue.operator) for issue in portability(graph(*arguments))}


def conv(output="g"):
    return node("Conv", ["x", "w"], [output])


WEIGHT = {"w": np.ones((4, 4, 1, 1), np.float32)}
AXES = {"axes": np.array([2, 3])}
QUANTIZED = [node("QuantizeLinear", ["x", "k"], ["q"]), node("DequantizeLinear", ["q", "k"], ["y"])]
THROUGH_TORCH = ("onnx2torch", "executorch", "coreml")
ROWS = {"s": np.array([0, 4, 64]), "k": np.array([2])}
HALF = {"r": np.float32(1.4), "one": np.float32(1), "half": np.float32(0.5)}


def remainder(kind, fmod):
    """Of x by 3, in a type."""
    return [
        node("Cast", ["x"], ["a"], to=kind),
        node("Cast", ["n"], ["b"], to=kind),
        node("Mod", ["a", "b"], ["m"], fmod=fmod),
        node("Cast", ["m"], ["y"], to=1),
    ]


FLOORED = [
    node("Div", ["x", "n"], ["a"]),
    node("Floor", ["a"], ["b"]),
    node("Mul", ["b", "n"], ["c"]),
    node("Sub", ["x", "c"], ["y"]),
]


def gelu(scale):
    return [
        node(scale, ["x", "r"], ["a"]),
        node("Erf", ["a"], ["b"]),
        node("Add", ["b", "one"], ["c"]),
        node("Mul", ["half", "c"], ["d"]),
        node("Mul", ["x", "d"], ["y"]),
    ]


def softmin(scale):
    nodes = [node("Mul", ["x", "scale"], ["z"]), node("Softmax", ["z"], ["y"], axis=1)]
    return nodes, {"scale": np.array([scale], np.float32)}


def hard_swish(gate, alpha=1 / 6):
    return [conv(), node("HardSigmoid", [gate], ["s"], alpha=alpha), node("Mul", ["x", "s"], ["y"])], WEIGHT


def mish(gate):
    return [conv(), node("Softplus", [gate], ["s"]), node("Tanh", ["s"], ["t"]), node("Mul", ["t", "x"], ["y"])], WEIGHT


def sum_of_convolutions(shape):
    return [conv("a"), conv("b"), node("Add", ["a", "b"], ["y"])], WEIGHT, {"a": ["batch", 4, 8, 8], "b": shape}


def pool(rank, **attributes):
    return ([node("MaxPool", ["x"], ["y"], kernel_shape=[2] * rank, **attributes)],)


def product(left, right, shape):
    return [node("MatMul", [left, right], ["y"])], {"k": np.ones(shape, np.float32)}


def choice(shape):
    nodes = [node("Greater", ["x", "zero"], ["c"]), node("Where", ["c", "x", "k"], ["y"])]
    return nodes, {"zero": np.float32(0), "k": np.ones(shape, np.float32)}


def resize(**attributes):
    return [node("Resize", ["x", "", "scales"], ["y"], **attributes)], {"scales": np.float32([1, 1, 0.5, 0.5])}


def constant_of_shape(inputs, **attributes):
    nodes = [node("Shape", ["x"], ["n"]), node("ConstantOfShape", inputs, ["y"], **attributes)]
    return nodes, {"s": np.array([8, 8])}


ROOTED = [node("Max", ["x", "e"], ["a"]), node("Sqrt", ["a"], ["b"]), node("Reciprocal", ["b"], ["y"])]

# What is found in a pattern, the pattern, and its nearest form in which nothing is.
THIRDS = {"kernel_shape": [3, 3], "strides": [3, 3]}
CASES = {
    "hard sigmoid gate": ({("opencv", "wrong", "Mul")}, hard_swish("g"), hard_swish("x")),
    "hard sigmoid of another slope": ({("opencv", "wrong", "Mul")}, hard_swish("g"), hard_swish("g", alpha=0.2)),
    "mish gate": ({("opencv", "wrong", "Mul")}, mish("g"), mish("x")),
    "negative scale of a softmax": ({("opencv", "wrong", "Softmax")}, softmin(-0.7), softmin(0.7)),
    "gelu by division": ({("opencv", "crash", "Mul")}, (gelu("Div"), HALF), (gelu("Mul"), HALF)),
    "a constant of three dimensions": (
        {("opencv", "crash", "MatMul")},
        product("x", "k", (1, 8, 8)),
        product("x", "k", (8, 8)),
    ),
    "a sum of strips": (
        {("opencv", "refused", "Add")},
        sum_of_convolutions(["batch", 4, 8, 1]),
        sum_of_convolutions(["batch", 4, 8, 8]),
    ),
    "a fill without a value": (
        {("opencv", "refused", "ConstantOfShape"), ("tract", "refused", "ConstantOfShape")},
        constant_of_shape(["s"]),
        constant_of_shape(["s"], value=numpy_helper.from_array(np.ones(1, np.float32))),
    ),
    "a fill of a computed shape": (
        {(name, "refused", "ConstantOfShape") for name in ("opencv", "tract")} | {("mnn", "wrong", "ConstantOfShape")},
        constant_of_shape(["n"]),
        constant_of_shape(["n"], value=numpy_helper.from_array(np.ones(1, np.float32))),
    ),
    "antialiasing": (
        {(name, "wrong", "Resize") for name in ("opencv", "openvino", "mnn")} | {("iree", "refused", "Resize")},
        resize(antialias=1, mode="linear"),
        resize(mode="linear"),
    ),
    "computed sizes": (
        {("tract", "refused", "Resize")},
        ([node("Shape", ["x"], ["n"]), node("Resize", ["x", "", "", "n"], ["y"])],),
        ([node("Resize", ["x", "", "", "n"], ["y"])], {"n": np.array([1, 4, 4, 4])}),
    ),
    "padding that wraps": (
        {(name, "refused", "Pad") for name in ("openvino", "tract", "mnn", "iree", "litert")}
        | {("ncnn", "wrong", "Pad")},
        ([node("Pad", ["x", "p"], ["y"], mode="wrap")], {"p": np.ones(8, np.int64)}),
        ([node("Pad", ["x", "p"], ["y"], mode="edge")], {"p": np.ones(8, np.int64)}),
    ),
    "a norm": (
        {("mnn", "wrong", "ReduceL2")},
        ([conv(), node("ReduceL2", ["g", "axes"], ["y"])], WEIGHT | AXES),
        ([conv(), node("ReduceSum", ["g", "axes"], ["y"])], WEIGHT | AXES),
    ),
    "pooling in three dimensions": ({("mnn", "crash", "MaxPool")}, pool(3), pool(2)),
    "pooling in three dimensions with ceil_mode": (
        {("mnn", "crash", "MaxPool"), ("iree", "refused", "MaxPool")},
        pool(3, ceil_mode=1),
        pool(2, ceil_mode=1),
    ),
    "means with ceil_mode": (
        {("iree", "wrong", "AveragePool")},
        ([node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)],),
        ([node("AveragePool", ["x"], ["y"], **THIRDS, ceil_mode=1)],),
    ),
    "means of partial windows with the padding": (
        {("iree", "wrong", "AveragePool"), ("opencv", "wrong", "AveragePool")},
        ([node("AveragePool", ["x"], ["y"], **THIRDS, ceil_mode=1, count_include_pad=1)],),
        ([node("AveragePool", ["x"], ["y"], **THIRDS, ceil_mode=1)],),
    ),
    "padding that reflects": (
        {("iree", "refused", "Pad")},
        ([node("Pad", ["x", "p"], ["y"], mode="reflect")], {"p": np.ones(8, np.int64)}),
        ([node("Pad", ["x", "p"], ["y"], mode="edge")], {"p": np.ones(8, np.int64)}),
    ),
    "a product with a constant of batch 1": (
        {("mnn", "wrong", "MatMul")},
        product("k", "x", (1, 4, 8, 8)),
        product("k", "x", (8, 8)),
    ),
    "a norm by computed statistics": (
        {("mnn", "wrong", "BatchNormalization")},
        ([node("Sqrt", ["k"], ["s"]), node("BatchNormalization", ["x", "k", "k", "k", "s"], ["y"])], {"k": np.ones(4)}),
        ([node("BatchNormalization", ["x", "k", "k", "k", "k"], ["y"])], {"k": np.ones(4)}),
    ),
    "a constant to choose from": ({("mnn", "wrong", "Where")}, choice((8, 8)), choice(())),
    "a bias in half precision": (
        {("tract", "refused", "Gemm")},
        ([node("Gemm", ["x", "k", "b"], ["y"])], {"k": np.ones((8, 4), np.float16), "b": np.ones(4, np.float16)}),
        ([node("Gemm", ["x", "k"], ["y"])], {"k": np.ones((8, 4), np.float16)}),
    ),
    "a small floor": (
        {("litert", "wrong", "Div")},
        ([node("Clip", ["x", "e"], ["a"]), node("Div", ["x", "a"], ["y"])], {"e": np.float32(1e-12)}),
        ([node("Clip", ["x", "e"], ["a"]), node("Div", ["x", "a"], ["y"])], {"e": np.float32(2e-6)}),
    ),
    "a root of a small floor": (
        {("litert", "wrong", "Reciprocal")},
        (ROOTED, {"e": np.float32(1e-12)}),
        (ROOTED, {"e": np.float32(2e-6)}),
    ),
    "a remainder of integers": (
        {("executorch", "wrong", "Mod")},
        (remainder(TensorProto.INT64, 0), {"n": np.float32(3)}),
        (remainder(TensorProto.INT64, 1), {"n": np.float32(3)}),
    ),
    "a remainder of floats": (
        {("mnn", "wrong", "Mod")},
        (remainder(TensorProto.FLOAT, 1), {"n": np.float32(3)}),
        (FLOORED, {"n": np.float32(3)}),
    ),
    "an exponential unit of another slope": (
        {("litert", "wrong", "Elu")},
        ([node("Elu", ["x"], ["y"], alpha=0.5)],),
        ([node("Elu", ["x"], ["y"], alpha=1.0)],),
        ([node("Elu", ["x"], ["y"])],),
        ([node("Celu", ["x"], ["y"], alpha=0.5)],),
    ),
    "a reduction of nothing": (
        {("litert", "wrong", "ReduceMean")},
        ([node("ReduceMean", ["x"], ["y"], noop_with_empty_axes=1)],),
        ([node("ReduceMean", ["x"], ["y"])],),
        ([node("ReduceMean", ["x", "axes"], ["y"], noop_with_empty_axes=1)], {"axes": np.array([2, 3])}),
    ),
    "axes from the end that vanish": (
        {(name, "wrong", "ReduceMax") for name in THROUGH_TORCH},
        ([node("ReduceMax", ["x", "axes"], ["y"], keepdims=0)], {"axes": np.array([-2, -1])}),
        ([node("ReduceMax", ["x", "axes"], ["y"], keepdims=0)], {"axes": np.array([2, 3])}),
        ([node("ReduceMax", ["x", "axes"], ["y"], keepdims=0)], {"axes": np.array([-1])}),
        ([node("ReduceMax", ["x", "axes"], ["y"])], {"axes": np.array([-2, -1])}),
        ([node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)], {"axes": np.array([-2, -1])}),
    ),
    "axes from the end in an attribute": (
        {(name, "wrong", "ReduceMin") for name in THROUGH_TORCH},
        ([node("ReduceMin", ["x"], ["y"], axes=[1, -1], keepdims=0)],),
        ([node("ReduceMin", ["x"], ["y"], axes=[1, 3], keepdims=0)],),
    ),
    "a sum along an axis": (
        {(name, "wrong", "CumSum") for name in THROUGH_TORCH},
        ([node("CumSum", ["x", "axis"], ["y"])], {"axis": np.array(1)}),
        ([node("CumSum", ["x", "axis"], ["y"], reverse=0)], {"axis": np.array(1)}),
    ),
    "sorting of many values": (
        {("ncnn", "crash", "TopK")},
        ([node("Reshape", ["x", "s"], ["r"]), node("TopK", ["r", "k"], ["y", "i"])], ROWS, {"r": ["batch", 4, 64]}),
        ([node("TopK", ["x", "k"], ["y", "i"])], {"k": np.array([2])}),
    ),
    "values by computed indices": (
        {("ncnn", "refused", "GatherElements")},
        ([node("GatherElements", ["x", "i"], ["y"])], {"i": np.zeros((1, 4, 8, 8), np.int64)}),
        ([node("Gather", ["x", "i"], ["y"])], {"i": np.zeros(1, np.int64)}),
    ),
    "a comparison with infinity": (
        {("ncnn", "refused", "Greater")},
        ([node("Greater", ["x", "k"], ["m"]), node("Cast", ["m"], ["y"], to=1)], {"k": np.float32(-np.inf)}),
        ([node("Greater", ["x", "k"], ["m"]), node("Cast", ["m"], ["y"], to=1)], {"k": np.float32(0)}),
    ),
    "maps one behind the other in the batch": (
        {("ncnn", "refused", "Concat")},
        ([node("Concat", ["x", "x"], ["g"], axis=0), node("Relu", ["g"], ["y"])], {}, {"g": [2, 4, 8, 8]}),
        ([node("Concat", ["x", "x"], ["g"], axis=1), node("Relu", ["g"], ["y"])], {}, {"g": [1, 8, 8, 8]}),
    ),
    "a quantized value": (
        {("ncnn", "refused", "DequantizeLinear")},
        (QUANTIZED, {"k": np.float32(1)}),
        ([node("Mul", ["x", "k"], ["y"])], {"k": np.float32(1)}),
    ),
    "a cast to half precision": (
        {("ncnn", "refused", "Cast")},
        ([node("Cast", ["x"], ["y"], to=10)],),
        ([node("Cast", ["x"], ["y"], to=1)],),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_pattern_is_found_and_its_portable_form_is_not(case):
    expected, pattern, *portable = CASES[case]
    assert found(*pattern) == expected
    assert [found(*form) for form in portable] == [set() for _ in portable]


@pytest.mark.parametrize(("count", "refused"), [(MAX_SORTED, False), (MAX_SORTED + 1, True)])
def test_as_many_values_are_refused_as_the_rewrite_for_ncnn_leaves(count, refused):
    nodes = [node("Pad", ["x", "pads"], ["p"]), node("TopK", ["p", "k"], ["y", "i"])]
    made = graph(nodes, {"pads": np.array([0] * 7 + [count - 8]), "k": np.array([2])}, {"p": ["batch", 4, 8, count]})
    assert (("ncnn", "TopK") in {(one.runtime, one.operator) for one in portability(made)}) == refused
    left = {one.op_type for one in ncnn_forms.rewrite(made).graph.node}
    assert ("TopK" in left) == refused


def test_a_remainder_of_sizes_is_one_of_integers():
    nodes = [node("Shape", ["x"], ["s"]), node("Mod", ["s", "n"], ["m"]), node("Cast", ["m"], ["y"], to=1)]
    assert found(nodes, {"n": np.int64(3)}) == {("executorch", "wrong", "Mod")}


def test_every_rule_has_a_case():
    issues = [issue for _, pattern, *_ in CASES.values() for issue in portability(graph(*pattern))]
    assert {issue.cause for issue in issues} == {rule.cause for rule in RULES}


def test_an_issue_names_node_and_cause():
    (issue,) = portability(graph(*pool(3)))
    assert str(issue).startswith("mnn (crash): MaxPool → y: has no pooling in three dimensions")
    assert issue.to_json()["node"] == "y"
    assert onnx.defs.has(issue.operator)


def test_a_bundle_has_the_causes_of_one_runtime():
    tract, reference = (runtimes.runtime_of(loader.catalog().runtime(name)) for name in ("tract", "onnxruntime"))
    (cause,) = known_causes(DIGITS / "model.onnx", tract.name, tract.form)
    assert "cannot derive the batch from sizes" in cause
    assert known_causes(DIGITS / "model.onnx", reference.name, reference.form) == ()
