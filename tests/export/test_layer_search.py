"""Layers that lower precision ruins are found by name and return to float32; the others stay in lower precision."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.convolution_chain import CHANNELS, COUNT, IMAGES, LAYERS, chain

from poolzoo.common import files
from poolzoo.export import graph
from poolzoo.export.export import ExportOptions, ParityFailed, export
from poolzoo.export.precision import bias_correction, candidates, layer_search, layer_times, switches
from poolzoo.export.precision.candidate import Candidate
from poolzoo.export.precision.convert import Converter
from poolzoo.export.precision.layer_harm import LayerHarm
from poolzoo.export.source import ExportSource, from_run
from poolzoo.parity.check import check_limits
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import Limits
from poolzoo.runtime import ort_session


def logits(model: onnx.ModelProto | Path) -> np.ndarray:
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model.read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": IMAGES})[0]


def error(file: Path, proto: onnx.ModelProto) -> float:
    """The root mean square difference of the logits, as a fraction of their standard deviation."""
    expected = logits(proto)
    return float(np.sqrt(np.mean((logits(file) - expected) ** 2)) / expected.std())


def converter(proto: onnx.ModelProto, folder: Path, name: str = "int8-static") -> Converter:
    onnx.save(proto, folder / "fp32.onnx")
    made = Converter(name, folder / "fp32.onnx", LAYERS, IMAGES)
    made.convert(folder / "all.onnx")
    return made


def stored_in_int8(file: Path) -> set[str]:
    """The layers whose weights a file holds in int8."""
    kinds = {one.name: one.data_type for one in onnx.load(file).graph.initializer}
    return {
        name.split(".weight")[0] for name, kind in kinds.items() if kind == TensorProto.INT8 and ".weight_q" in name
    }


# --- Ranking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depthwise", [(), (3,)])
def test_a_channel_of_another_scale_names_its_two_layers(tmp_path, depthwise):
    proto = chain(2, depthwise=depthwise)
    np.testing.assert_allclose(logits(proto), logits(chain(depthwise=depthwise)), rtol=1e-3, atol=1e-4)
    found = converter(proto, tmp_path)
    assert error(tmp_path / "all.onnx", proto) > 0.2
    ranked = found.rank_layers(tmp_path / "all.onnx")
    assert {one.layer for one in ranked} == {f"network.c{index}" for index in range(COUNT)}
    assert {one.layer for one in ranked[:2]} == {"network.c2", "network.c3"}
    assert ranked[1].harm > 5 * ranked[2].harm
    found.convert(tmp_path / "few.onnx", [name for one in ranked[:2] for name in one.nodes])
    assert error(tmp_path / "few.onnx", proto) < 0.1
    assert stored_in_int8(tmp_path / "few.onnx") == {f"network.c{index}" for index in (0, 1, 4, 5)}


def test_harm_is_what_a_graph_with_that_layer_alone_in_int8_does(tmp_path):
    """The switches against ONNX Runtime's own quantizer."""
    proto = chain(1, factor=30)
    found = converter(proto, tmp_path)
    names = [node.name for node in proto.graph.node if node.op_type == "Conv"]
    for one in found.rank_layers(tmp_path / "all.onnx"):
        found.convert(tmp_path / "one.onnx", [name for name in names if name not in one.nodes])
        assert one.harm == pytest.approx(error(tmp_path / "one.onnx", proto), rel=0.35)


def test_two_culprits_that_hide_each_other_are_both_found(tmp_path):
    proto = chain(0, 3)
    found = converter(proto, tmp_path)
    ranked = found.rank_layers(tmp_path / "all.onnx")
    culprits = {f"network.c{index}" for index in (0, 1, 3, 4)}
    assert {one.layer for one in ranked[:4]} == culprits
    nodes = {one.layer: one.nodes for one in ranked}
    for pair in ((0, 1), (3, 4)):  # either pair alone in float32 helps little
        found.convert(tmp_path / "pair.onnx", [name for index in pair for name in nodes[f"network.c{index}"]])
        assert error(tmp_path / "pair.onnx", proto) > 0.2
    found.convert(tmp_path / "both.onnx", [name for layer in culprits for name in nodes[layer]])
    assert error(tmp_path / "both.onnx", proto) < 0.1


def test_ranges_of_each_batch_are_ranked_too(tmp_path):
    proto = chain(2)
    found = converter(proto, tmp_path, "int8-dynamic")
    assert error(tmp_path / "all.onnx", proto) > 0.2
    ranked = found.rank_layers(tmp_path / "all.onnx")
    assert {one.layer for one in ranked[:2]} == {"network.c2", "network.c3"}  # weights and activations
    found.convert(tmp_path / "few.onnx", [name for one in ranked[:2] for name in one.nodes])
    assert error(tmp_path / "few.onnx", proto) < 0.1


def test_layers_are_ranked_by_their_rounding_in_half_precision(tmp_path):
    """One layer adds a thousand, and the next takes it away: what is in between loses its small bits."""
    proto = chain()
    for tensor in proto.graph.initializer:
        if tensor.name in ("network.c2.bias", "network.c3.bias"):
            array = numpy_helper.to_array(tensor) + np.float32(2000 if "c2" in tensor.name else 0)
            if "c3" in tensor.name:
                weight = next(one for one in proto.graph.initializer if one.name == "network.c3.weight")
                array = array - 2000 * numpy_helper.to_array(weight).sum((1, 2, 3))
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    (behind,) = [node for node in proto.graph.node if node.output[0] == "x3"]
    next(one for one in behind.attribute if one.name == "pads").ints[:] = [0, 0, 0, 0]  # which would see no thousands
    found = converter(proto, tmp_path, "fp16")
    ranked = found.rank_layers(tmp_path / "all.onnx")
    assert ranked[0].layer == "network.c2"
    assert "network.c3" not in {one.layer for one in ranked}  # its terms cancel, so that it is in float32 by itself
    assert ranked[0].harm > 5 * ranked[-1].harm


def test_with_no_switch_on_the_graph_is_the_exact_one(tmp_path):
    proto = chain(2)
    converter(proto, tmp_path)
    roundings = switches.of_static(proto, onnx.load(tmp_path / "all.onnx"))
    opened = switches.SwitchedGraph(proto, roundings)
    np.testing.assert_allclose(opened.logits([IMAGES[:20], IMAGES[20:]], ()), logits(proto), rtol=1e-4, atol=1e-5)
    everything = opened.logits([IMAGES], roundings)
    assert np.sqrt(np.mean((everything - logits(tmp_path / "all.onnx")) ** 2)) < 0.1 * logits(proto).std()


def test_a_depthwise_layer_in_float32_is_not_quantized_by_the_runtime(tmp_path):
    """ONNX Runtime would quantize its weights with one scale for all channels."""
    proto = chain(depthwise=(2,))
    (weight,) = [one for one in proto.graph.initializer if one.name == "network.c2.weight"]
    scales = np.geomspace(1, 300, CHANNELS).reshape(-1, 1, 1, 1).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * scales / scales.max(), weight.name))
    (behind,) = [one for one in proto.graph.initializer if one.name == "network.c3.weight"]
    factors = (scales.max() / scales).reshape(1, -1, 1, 1)
    behind.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(behind) * factors, behind.name))
    found = converter(proto, tmp_path)
    (node,) = [node for node in proto.graph.node if "network.c2.weight" in node.input]
    found.convert(tmp_path / "few.onnx", [node.name])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(tmp_path / "few.onnx", options, providers=["CPUExecutionProvider"])
    expected = plain.run(["logits"], {"images": IMAGES})[0]
    assert np.abs(logits(tmp_path / "few.onnx") - expected).max() < 0.02 * expected.std()


def test_layers_in_float32_read_one_another_without_rounding(tmp_path):
    """The third convolution, in int8, reads a rounded value, and the addition the same value as it is."""
    proto = chain()
    (fifth,) = [node for node in proto.graph.node if "network.c4.weight" in node.input]
    fifth.input[0] = "sum"
    proto.graph.node.insert(8, helper.make_node("Add", ["y1", "y3"], ["sum"], name="add"))
    found = converter(proto, tmp_path)
    (second,) = [node for node in proto.graph.node if "network.c1.weight" in node.input]
    found.convert(tmp_path / "few.onnx", [second.name, "add"])
    made = {output: node for node in onnx.load(tmp_path / "few.onnx").graph.node for output in node.output}
    (third,) = [node for node in made.values() if node.op_type == "Conv" and "network.c2.weight" in node.input[1]]
    assert made[third.input[0]].op_type == "DequantizeLinear"
    assert [made[name].op_type for name in made["sum"].input] == ["Relu", "DequantizeLinear"]


def test_a_softmax_in_float32_is_not_quantized_by_the_runtime(tmp_path):
    """ONNX Runtime's own one for int8 is wrong where its output has another range than 0 to 1."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["images", "network.a.weight", "network.a.bias"], ["x"]),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
        helper.make_node("Softmax", ["y"], ["z"]),
        helper.make_node("MatMul", ["z", "network.b.weight"], ["w"]),
        helper.make_node("ReduceMean", ["w", "axes"], ["pooled"], keepdims=0),
        helper.make_node("Gemm", ["pooled", "network.fc.weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    for index, node in enumerate(nodes):
        node.name = f"n{index}"
    arrays = {"network.a.weight": random.normal(size=(64, CHANNELS, 1, 1)) / 10, "network.a.bias": np.zeros(64)}
    arrays |= {"network.b.weight": random.normal(size=(36, 8)), "network.fc.weight": random.normal(size=(8, 5))}
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    constants += [
        numpy_helper.from_array(np.array([0, 64, 36]), "shape"),
        numpy_helper.from_array(np.array([1]), "axes"),
    ]
    proto = chain()
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(constants)
    found = converter(proto, tmp_path)
    found.convert(tmp_path / "few.onnx", ["n2"])
    assert error(tmp_path / "few.onnx", proto) < 0.1


# --- Biases -------------------------------------------------------------------------------------------------------


def test_biases_are_corrected_by_what_rounded_weights_shift(tmp_path):
    proto = chain()
    converter(proto, tmp_path)
    roundings = switches.of_static(proto, onnx.load(tmp_path / "all.onnx"))
    found = bias_correction.measure(proto, roundings, [IMAGES[:7], IMAGES[7:]])
    (first,) = [node for node in proto.graph.node if "network.c0.weight" in node.input]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(IMAGES, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    rounded = numpy_helper.to_array(roundings["network.c0.weight"].constants[0])
    exact = numpy_helper.to_array(next(one for one in proto.graph.initializer if one.name == "network.c0.weight"))
    expected = np.einsum("nihwab,oiab->o", windows, exact - rounded) / (len(IMAGES) * 36)
    np.testing.assert_allclose(found[first.name], expected, rtol=1e-3, atol=1e-7)
    assert len(found) == COUNT  # the classifier's weights are not rounded


def test_corrected_biases_take_back_a_shift_but_not_in_float32_layers(tmp_path):
    """Small weights beside a large one are all rounded to zero, and what they add is missing in every image."""
    proto = chain()
    (weight,) = [one for one in proto.graph.initializer if one.name == "network.c0.weight"]
    array = np.full((CHANNELS, CHANNELS, 3, 3), 0.0038, np.float32)  # of steps of 1 / 127
    array[np.arange(CHANNELS), np.arange(CHANNELS), 1, 1] = 1
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    found = converter(proto, tmp_path)
    before = error(tmp_path / "all.onnx", proto)
    assert found.correct_biases(tmp_path / "all.onnx")
    found.convert(tmp_path / "corrected.onnx")
    assert error(tmp_path / "corrected.onnx", proto) < before / 2
    convolutions = [node.name for node in proto.graph.node if node.op_type == "Conv"]
    found.convert(tmp_path / "exact.onnx", convolutions)
    assert error(tmp_path / "exact.onnx", proto) < 1e-4
    found.keep_biases()
    found.convert(tmp_path / "again.onnx")
    assert error(tmp_path / "again.onnx", proto) == before


# --- Search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [0, 1, 2, 7, 100])
def test_the_least_count_that_passes_is_found_in_few_tries(total):
    for limit in range(1, total + 2):
        tried: list[int] = []
        found = layer_search.least(0, total, lambda count, limit=limit: count >= limit, tried)
        assert found == (limit if limit < total else None)
        assert len(tried) == len(set(tried)) <= 2 * max(total, 1).bit_length() + 1
        assert total not in tried  # with all in float32 nothing would be left in lower precision


def planted(proto: onnx.ModelProto, layer: str, behind: str, factor: float) -> None:
    """Multiplies a channel between two layers, and divides by it in the second one."""
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name.startswith(f"{layer}."):
            array[0] *= factor
        elif tensor.name == f"{behind}.weight":
            array[:, 0] /= factor
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


@pytest.fixture
def conversion(trained, tmp_path, kept_graphs):
    """A trained network whose second convolution has an output of another scale."""
    from poolzoo.artifacts.run import load_run

    source = from_run(load_run(trained))
    file = tmp_path / "fp32.onnx"
    written = graph.export_graph(source, file)
    proto = onnx.load(file)
    planted(proto, "network.backbone.conv1.conv", "network.backbone.conv2.conv", 3e3)
    onnx.save(proto, file)
    reference = Reference.compute(source.model, source.images[:150], source.image_labels[:150])
    model = ort_session.open_model(file, "cpu", 1)
    return candidates.Conversion(
        fp32=Candidate("fp32", file, model, check_limits(reference, model, Limits())),
        layers=written.layers,
        source=source,
        input_kind="uint8",
        reference=reference,
        limits=Limits(),
        open_model=lambda path: ort_session.open_model(path, "cpu", 1),
    )


def test_the_layers_around_a_collapse_return_and_the_rest_stays_int8(conversion, tmp_path):
    found = layer_search.return_layers("int8", conversion, candidates.convert_candidates("int8", conversion), 8)
    before = {one.precision: one for one in found if one.search is None}
    (after,) = [one for one in found if one.search is not None]
    assert after.parity.passed
    assert after.search.before.parity.violations is not None
    names = {one.layer for one in after.search.layers}
    assert names == {"network.backbone.conv1.conv", "network.backbone.conv2.conv"}
    assert after.search.total == 3
    kept = {name.split(".conv.weight")[0] for name in names_of_int8(after.file)}
    assert kept == {"network.backbone.conv3"}
    assert all(one.remark for one in before.values() if not one.parity.passed)
    row = after.search.to_json({1: 2.0})
    assert [layer["layer"] for layer in row["layers"]] == [one.layer for one in after.search.layers]
    assert row["before"]["agreement"] < 0.99
    assert row["kernels"]["batch"] == 8
    assert all(
        0 < layer["kernels"][key] < row["kernels"][key] for layer in row["layers"] for key in ("before", "after")
    )


KERNELS = {
    ("node_a", "QLinearConv"): 1.0,
    ("node_a_token_7", "Concat"): 2.0,
    ("InsertedPrecisionFreeCast_x", "Cast"): 4.0,
    ("relu_1_nchwc", "Conv"): 8.0,  # the convolution `node_b`, with the activation behind it
    ("relu_DequantizeLinear", "DequantizeLinear"): 16.0,  # for `node_b`, which reads it
    ("relu_1_QuantizeLinear", "QuantizeLinear"): 32.0,  # of the activation, which is no layer here
    ("ReorderOutput_token_3", "ReorderOutput"): 64.0,
}


def test_kernels_count_to_the_layer_that_their_names_extend():
    nodes = [
        helper.make_node("Conv", ["images", "a.weight"], ["x"], "node_a"),
        helper.make_node("Relu", ["x"], ["relu"], "node_r"),
        helper.make_node("Conv", ["relu", "b.weight"], ["y"], "node_b"),
        helper.make_node("Relu", ["y"], ["relu_1"], "node_r_1"),
    ]
    proto = helper.make_model(helper.make_graph(nodes, "g", [], []))
    layers = [LayerHarm(name, (f"node_{name}",), 1.0, weighted=True) for name in ("a", "b")]
    assert layer_times.by_layer(KERNELS, proto, layers) == {"a": 7.0, "b": 24.0}
    times = layer_times.LayerTimes(batch=1, before=9.0, after=9.0, layers={"a": (3.0, 1.0)})
    assert layer_search.describe(layers, times=times) == "a (1, -2.00 ms), b (1)"


def names_of_int8(file: Path) -> set[str]:
    initializers = onnx.load(file).graph.initializer
    return {one.name for one in initializers if one.data_type == TensorProto.INT8 and ".weight_q" in one.name}


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["gem", "lp", "soft", "attention", "cov", "bilinear"])
def test_int8_keeps_its_limits_with_any_pooling_in_float32(poolzoo, tmp_path, pool):
    settings = ("--data", "digits", "--backbone", "nano/plain", "--epochs", "2", "--threads", "1", "-q")
    made = poolzoo("finetune", *settings, "--pool", pool, "--out", tmp_path / "run")
    assert made.code == 0
    given = ("export", tmp_path / "run", "--precision", "int8", "--no-bench", "--json", "--out", tmp_path / "b")
    report = poolzoo(*given).json
    assert report["parity"]["passed"]
    assert report["parity"]["top1_agreement"] >= 0.99
    named = [layer["layer"] for row in report["candidates"] for layer in row.get("search", {"layers": []})["layers"]]
    assert not any(name.startswith("network.pool") for name in named)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["timm/mobilenetv3_small_050", "timm/test_vit", "timm/test_efficientnet"])
def test_int8_of_depthwise_networks_and_transformers_keeps_its_limits(poolzoo, tmp_path, backbone):
    settings = ("--data", "digits", "--pool", "avg", "--epochs", "1", "--threads", "1", "--no-check-export", "-q")
    made = poolzoo("finetune", *settings, "--backbone", backbone, "--out", tmp_path / "run")
    assert made.code == 0
    given = ("export", tmp_path / "run", "--precision", "int8", "--no-bench", "--json", "--out", tmp_path / "b")
    report = poolzoo(*given).json
    assert report["parity"]["passed"]
    assert report["parity"]["top1_agreement"] >= 0.99
    assert report["precision"] == "int8"


def with_collapse(conversion: candidates.Conversion) -> ExportSource:
    """The network with the planted collapse in its weights, and 150 images."""
    source = replace(conversion.source, weights_sha256="planted", images=conversion.source.images[:150])
    source = replace(source, image_labels=conversion.source.image_labels[:150])
    with torch.no_grad():
        first, second = (getattr(source.model.network.backbone, name).conv for name in ("conv1", "conv2"))
        norm = source.model.network.backbone.conv1.norm
        norm.weight[0] *= 3e3
        norm.bias[0] *= 3e3
        second.weight[:, 0] /= 3e3
        assert first.out_channels == second.in_channels
    return source


@pytest.mark.slow
@pytest.mark.usefixtures("kept_graphs")
def test_the_layer_that_loses_most_is_reduced_where_no_limit_can_be_kept(conversion, tmp_path):
    impossible = ExportOptions(precision="int8", limits=Limits(agreement=1.5))
    given = {"options": impossible, "measure_speed": False, "debug": tmp_path / "debug"}
    with pytest.raises(ParityFailed) as failed:
        export(with_collapse(conversion), tmp_path / "b", **given)
    assert "report.md names the node" in failed.value.hint
    found = files.read_json(tmp_path / "debug" / "report.json")
    nodes = found["lowering"]["nodes"]
    readers = {f"network.backbone.{name}" for name in ("conv1.conv", "pool1", "conv2.conv")}  # of the collapsed value
    assert {one["layer"] for one in nodes[:3]} == readers
    assert nodes[2]["harm"] > 50 * nodes[3]["harm"]
    assert (found["fault"], found["kind"]) == ("precision", "precision")
    operators = [one["operator"] for one in found["nodes"]]
    assert sum(one in ("Conv", "ConvInteger") for one in operators) == 1
    assert found["input_bytes"] < 4000
    script = subprocess.run([sys.executable, tmp_path / "debug" / "reproduce.py"], capture_output=True, check=False)
    assert script.returncode == 1


@pytest.mark.slow
@pytest.mark.usefixtures("kept_graphs")
def test_the_report_and_the_card_name_the_layers(conversion, tmp_path):
    """The whole export of a network with a planted collapse."""
    source = with_collapse(conversion)
    report = export(source, tmp_path / "b", options=ExportOptions(precision="int8"), measure_speed=False)
    (row,) = [one for one in report.to_json()["candidates"] if "search" in one]
    names = {layer["layer"] for layer in row["search"]["layers"]}
    assert names == {"network.backbone.conv1.conv", "network.backbone.conv2.conv"}
    assert files.read_json(tmp_path / "b" / "parity.json")["candidates"] == report.to_json()["candidates"]
    for name in ("README.md", "report.html"):
        text = (tmp_path / "b" / name).read_text()
        assert all(layer in text for layer in names)
        assert "2 of 3 layers in float32" in text
        assert "All kernels take" in text
    assert "Layers of int8-static in float32" in (tmp_path / "b" / "report.html").read_text()


def test_a_graph_too_slow_to_win_is_not_searched(conversion, monkeypatch):
    converted = candidates.convert_candidates("auto", conversion)

    class Slow:
        def __init__(self, model):
            self.model = model

        def run(self, images):
            return [self.model.run(images) for _ in range(20)]

    converted = [
        (one, by) if one.parity.passed else (Candidate(one.precision, one.file, Slow(one.model), one.parity), by)
        for one, by in converted
    ]
    found = layer_search.return_layers("auto", conversion, converted, 8)
    missed = [one for one in found if not one.parity.passed]
    assert missed
    assert all(one.search is None and "too slow" in one.remark for one in missed)
