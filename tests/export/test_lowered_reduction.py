"""What lower precision loses is reduced to one node: a collapsed range in int8, an overflow in fp16."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.convolution_chain import IMAGES, LAYERS, chain

from poolzoo.common.errors import CheckFailed
from poolzoo.export.precision import fp16
from poolzoo.export.precision.convert import Converter
from poolzoo.parity.reduction import folder, lowered
from poolzoo.parity.reduction.reduce import NothingToReduce


def converted(proto: onnx.ModelProto, place: Path, precision: str) -> onnx.ModelProto:
    onnx.save(proto, place / "fp32.onnx")
    Converter(precision, place / "fp32.onnx", LAYERS, IMAGES).convert(place / "low.onnx")
    return onnx.load(place / "low.onnx")


@pytest.mark.parametrize("precision", ["int8-static", pytest.param("int8-dynamic", marks=pytest.mark.slow)])
def test_a_collapsed_range_is_reduced_to_one_convolution(tmp_path, precision):
    """Behind the third convolution a channel is 10,000 times as large; the fourth reads it, and loses the others."""
    proto = chain(2)
    found = lowered.reduce_lowered(proto, converted(proto, tmp_path, precision), {"images": IMAGES[:4]}, precision)
    first, second, third, *_ = found.lowering.nodes
    assert {(one.operator, one.node) for one in (first, second)} == {("Conv", "n4"), ("Conv", "n6")}
    assert second.harm > 5 * third.harm
    assert (found.fault, found.kind, found.complete) == ("precision", "precision", True)
    assert sum(node.op_type in ("Conv", "ConvInteger") for node in found.graph.graph.node) == 1
    assert found.bytes < IMAGES[:4].nbytes / 10
    assert found.difference.relative > found.threshold > 0
    exact = found.by_runtime["onnxruntime, ORT_DISABLE_ALL"]
    assert exact is not None
    assert exact.relative > found.threshold


def squares() -> onnx.ModelProto:
    """Features of up to 100 are squared, summed over 36 pixels, and rooted, as a pooling with p = 2 does."""
    weight = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["images", "hundred"], ["x"], "scale"),
        helper.make_node("Mul", ["x", "x"], ["square"], "square"),
        helper.make_node("ReduceSum", ["square", "axes"], ["sum"], "sum", keepdims=0),
        helper.make_node("Sqrt", ["sum"], ["root"], "root"),
        helper.make_node("MatMul", ["root", "weight"], ["logits"], "fc"),
    ]
    arrays = {"hundred": np.float32(100), "axes": np.array([2, 3]), "weight": weight}
    tensors = [numpy_helper.from_array(np.asarray(one), name) for name, one in arrays.items()]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *IMAGES.shape[1:]])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])]
    made = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_sum_that_overflows_in_half_precision_is_reduced_to_its_node(tmp_path):
    proto = squares()
    half = fp16.with_float32_nodes(proto, ())
    found = lowered.reduce_lowered(proto, half, {"images": IMAGES[:4]}, "fp16", paths={"sum": "network.pool"})
    worst = found.lowering.nodes[0]
    assert (worst.operator, worst.node, worst.layer) == ("ReduceSum", "sum", "network.pool")
    assert worst.harm == np.inf
    assert [node.op_type for node in found.graph.graph.node] == ["Cast", "ReduceSum"]
    assert (found.fault, found.kind) == ("precision", "non-finite")
    assert found.by_runtime[lowered.IN_HALF].non_finite > 0
    folder.write(found, tmp_path / "debug")
    report = json.loads((tmp_path / "debug" / "report.json").read_text())
    assert report["lowering"]["nodes"][0] | {"difference": None} == {
        "node": "sum",
        "operator": "ReduceSum",
        "layer": "network.pool",
        "harm": None,
        "difference": None,
    }
    text = (tmp_path / "debug" / "report.md").read_text()
    assert text.startswith("# fp16 of ReduceSum network.pool: inf where")
    assert "| ReduceSum sum | network.pool | inf |" in text


def test_a_product_of_two_values_that_overflows_is_reduced_to_its_node():
    nodes = [
        helper.make_node("Mul", ["images", "factor"], ["x"], "x"),
        helper.make_node("Abs", ["x"], ["size"], "size"),
        helper.make_node("Mul", ["x", "size"], ["product"], "product"),
        helper.make_node("Add", ["product", "factor"], ["logits"], "add"),
    ]
    sides = ["N", *IMAGES.shape[1:]]
    inputs, outputs = ([helper.make_tensor_value_info(one, TensorProto.FLOAT, sides)] for one in ("images", "logits"))
    factor = numpy_helper.from_array(np.float32(1000 / np.abs(IMAGES).max()), "factor")
    made = helper.make_graph(nodes, "g", inputs, outputs, [factor])
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found = lowered.reduce_lowered(proto, fp16.with_float32_nodes(proto, ()), {"images": IMAGES[:4]}, "fp16")
    assert found.lowering.nodes[0].node == "product"
    assert [node.op_type for node in found.graph.graph.node if node.op_type != "Cast"] == ["Mul"]


@pytest.mark.slow
def test_the_script_shows_an_overflow_with_public_packages_alone(tmp_path):
    proto = squares()
    half = fp16.with_float32_nodes(proto, ())
    folder.write(lowered.reduce_lowered(proto, half, {"images": IMAGES[:4]}, "fp16"), tmp_path / "debug")
    script = subprocess.run(
        [sys.executable, tmp_path / "debug" / "reproduce.py"], capture_output=True, text=True, check=False
    )
    assert script.returncode == 1
    assert "onnx.reference: [inf]" in script.stdout


def test_a_graph_that_stays_in_float32_has_nothing_to_reduce():
    proto = squares()
    with pytest.raises(NothingToReduce, match="no node that is lowered alone"):
        lowered.reduce_lowered(proto, proto, {"images": IMAGES[:4]}, "fp16")


def test_an_output_that_the_graph_lacks_is_named():
    with pytest.raises(CheckFailed, match="computes no scores"):
        lowered.reduce_lowered(squares(), squares(), {"images": IMAGES[:4]}, "fp16", result="scores")
