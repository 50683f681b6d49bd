"""What the graph can be: its input, its opset, its precision, fused layers; each checked with plain ONNX Runtime."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import poolzoo as package
from poolzoo.export import graph
from poolzoo.export.precision import candidates, convert
from poolzoo.export.precision.candidates import Candidate
from poolzoo.model import inference
from poolzoo.parity import layers
from poolzoo.parity.check import check_limits, check_outputs
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import Accuracies, Limits, LimitsCheck, OutputStatistics, ParityReport


def session(path: Path):
    return onnxruntime.InferenceSession(path / "model.onnx", providers=["CPUExecutionProvider"])


def facts(path: Path, key: str):
    return json.loads(session(path).get_modelmeta().custom_metadata_map[key])


def in_torch(trained: Path, images: np.ndarray) -> np.ndarray:
    network = package.load(trained)
    with torch.inference_mode():
        return network(network.preprocess(torch.from_numpy(images))).numpy()


def digits(count: int) -> np.ndarray:
    from poolzoo.datasets import digits

    return digits.load("test")[0][:count]


@pytest.fixture(scope="module")
def lowered(trained, tmp_path_factory):
    """The bundle of `trained` at a precision, made once each."""
    from poolzoo import cli

    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "bundle"
            arguments = ["export", str(trained), "--precision", name, "--out", str(made[name]), "--no-bench", "-q"]
            assert cli.run(arguments) == 0
        return made[name]

    return of


# --- Input and opset -----------------------------------------------------------------------------------------------


def test_a_graph_can_take_images_that_are_scaled_already(poolzoo, trained, tmp_path):
    report = poolzoo(
        "export", trained, "--input", "float", "--opset", 20, "--no-bench", "--json", "--out", tmp_path / "b"
    )
    assert (report.json["input"], report.json["opset"]) == ("float", 20)
    graph_of_it = session(tmp_path / "b")
    assert graph_of_it.get_inputs()[0].type == "tensor(float)"
    assert graph_of_it.get_inputs()[0].shape[1:] == [3, 8, 8]
    given = facts(tmp_path / "b", "input")
    assert (given["kind"], given["layout"], given["range"]) == ("float", "NCHW", [0, 1])
    for count in (1, 5):
        images = digits(count)
        scaled = (images / np.float32(255)).transpose(0, 3, 1, 2).copy()
        logits = graph_of_it.run(["logits"], {"images": scaled})[0]
        np.testing.assert_allclose(logits, in_torch(trained, images), atol=1e-4)
    assert poolzoo("verify", tmp_path / "b", "--no-bench").code == 0
    assert onnx.load(tmp_path / "b" / "model.onnx").opset_import[0].version == 20


def test_the_file_holds_nothing_of_the_machine(exported):
    raw = (exported / "model.onnx").read_bytes()
    for told in (str(Path(package.__file__).parent), str(Path(torch.__file__).parent), "stack_trace", ".py"):
        assert told.encode() not in raw


# --- Lower precision ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kept_graphs")
def test_fp16_halves_the_file_and_keeps_pooling_in_float32(lowered, exported, trained):
    path = lowered("fp16")
    assert (path / "model.onnx").stat().st_size < 0.6 * (exported / "model.onnx").stat().st_size
    proto = onnx.load(path / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    kinds = {one.name: one.type.tensor_type.elem_type for one in inferred.graph.value_info}
    inside = {node.op_type: kinds.get(node.output[0]) for node in proto.graph.node}
    assert inside["Conv"] == onnx.TensorProto.FLOAT16
    assert {inside[name] for name in ("Pow", "ReduceMean", "Sub", "Div")} == {onnx.TensorProto.FLOAT}
    images = digits(50)
    logits = session(path).run(["logits"], {"images": images})[0]
    assert logits.dtype == np.float32
    expected = in_torch(trained, images)
    assert 1e-6 < np.abs(logits - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.usefixtures("kept_graphs")
def test_int8_is_quantized_where_the_work_is_and_nowhere_else(lowered, exported, trained):
    path = lowered("int8")
    report = json.loads((path / "parity.json").read_text())
    assert report["gate"] == "limits"
    assert report["limits"] == {"agreement": 0.99, "accuracy_drop": 0.005}
    assert report["fp32"]["passed"]
    assert (path / "model.onnx").stat().st_size < 0.45 * (exported / "model.onnx").stat().st_size
    names = {one["precision"] for one in report["candidates"]}
    assert names == {"fp32", "int8-static", "int8-dynamic"}
    chosen = next(one for one in report["candidates"] if one["chosen"])["precision"]
    assert json.loads((path / "config.json").read_text())["export"]["precision"] == chosen
    assert facts(path, "precision") == chosen
    images = digits(200)
    got = session(path).run(["logits"], {"images": images})[0]
    assert (got.argmax(1) == in_torch(trained, images).argmax(1)).mean() >= 0.99


@pytest.mark.usefixtures("kept_graphs")
def test_static_int8_has_unsigned_activations_and_signed_weights_a_channel(tmp_path, trained):
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.source import from_run

    source = from_run(load_run(trained))
    written = graph.export_graph(source, tmp_path / "a.onnx")
    convert.convert("int8-static", tmp_path / "a.onnx", tmp_path / "b.onnx", written.layers, source.calibration)
    proto = onnx.load(tmp_path / "b.onnx")
    count = Counter(node.op_type for node in proto.graph.node)
    assert count["QuantizeLinear"] >= 3
    kinds = {one.name: one.data_type for one in proto.graph.initializer}
    scales = {one.name: one.dims for one in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear":
            assert kinds[node.input[2]] == onnx.TensorProto.UINT8
        if node.op_type == "DequantizeLinear" and kinds.get(node.input[0]) == onnx.TensorProto.INT8:
            assert list(scales[node.input[1]]) == [proto_dims(proto, node.input[0])[0]]
    pooled = layers.nodes_between(proto, None, "probabilities")
    (classifier,) = [node for node in pooled if node.op_type == "Gemm"]
    assert kinds[classifier.input[1]] == onnx.TensorProto.FLOAT


@pytest.mark.usefixtures("kept_graphs")
def test_dynamic_int8_leaves_the_classifier_in_float(tmp_path, trained):
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.source import from_run

    source = from_run(load_run(trained))
    written = graph.export_graph(source, tmp_path / "a.onnx")
    convert.convert("int8-dynamic", tmp_path / "a.onnx", tmp_path / "b.onnx", written.layers, source.calibration)
    proto = onnx.load(tmp_path / "b.onnx")
    kinds = {node.op_type for node in proto.graph.node}
    assert "ConvInteger" in kinds
    assert "MatMulInteger" not in kinds
    classifier = package.load(trained).classifier
    weights = [onnx.numpy_helper.to_array(one) for one in proto.graph.initializer if tuple(one.dims)[:1] != ()]
    expected = next(classifier.parameters()).detach().numpy()
    assert any(one.shape in (expected.shape, expected.T.shape) and one.dtype == np.float32 for one in weights)


def proto_dims(proto, name):
    return next(one.dims for one in proto.graph.initializer if one.name == name)


def test_calibration_uses_five_hundred_or_more_shuffled_training_images(trained):
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.source import from_run

    run = load_run(trained)
    source, samples = from_run(run), run.samples()
    assert len(source.calibration) == len(samples["train_images"]) >= 500
    known = {image.tobytes() for image in samples["train_images"]}
    assert {image.tobytes() for image in source.calibration} == known
    assert any((a != b).any() for a, b in zip(source.calibration, samples["train_images"], strict=True))
    pairs = {
        (image.tobytes(), int(label))
        for image, label in zip(samples["test_images"], samples["test_labels"], strict=True)
    }
    assert {(i.tobytes(), int(label)) for i, label in zip(source.images, source.image_labels, strict=True)} == pairs


# --- The choice ---------------------------------------------------------------------------------------------------


class Timed:
    """Stands for an opened graph; how long it takes is said, not measured."""

    def __init__(self, milliseconds):
        self.milliseconds = milliseconds

    def run(self, images):
        return self.milliseconds * len(images)


def candidate(tmp_path, name, milliseconds, passed=True):
    file = tmp_path / f"{name}.onnx"
    file.write_bytes(b"x" * 10)
    outputs = OutputStatistics(
        max_abs=0.1,
        relative=0.1,
        cosine=0.99,
        noise_floor=0.0,
        reference="float64",
        largest_logit=1.0,
        top1_agreement=0.995 if passed else 0.9,
        flips=(),
        max_abs_by_batch={},
        max_abs_by_edge={},
        finite=True,
        images="test",
        n=1,
        provider="CPUExecutionProvider",
        accuracy=Accuracies(torch=0.8, onnxruntime=0.79),
    )
    limits = LimitsCheck(limits=Limits(), violations=() if passed else ("agreement 0.9000 is below 0.99",))
    report = ParityReport(passed=passed, tolerance=0.1, outputs=outputs, limits=limits, golden={}, logits=np.empty(0))
    return Candidate(name, file, Timed(milliseconds), report)


@pytest.mark.parametrize(
    ("choice", "given", "best", "words"),
    [
        ("fp32", {"fp32": 2}, "fp32", {}),
        (
            "auto",
            {"fp32": 2, "fp16": 3, "int8-static": 1},
            "int8-static",
            {"fp16": "factor of 3.00", "fp32": "factor of 2.00"},
        ),
        (
            "auto",
            {"fp32": 2, "fp16": 1.98, "int8-static": 4},
            "fp32",
            {"fp16": "too little", "int8-static": "factor of 2.00"},
        ),
        ("auto", {"fp32": 2, "int8-static!": 1, "fp16": 1.5}, "fp16", {"int8-static": "below 0.99"}),
        ("auto", {"fp32": 2, "int8-static!": 1}, "fp32", {"int8-static": "below 0.99"}),
        ("int8", {"fp32": 1, "int8-static": 3, "int8-dynamic": 2}, "int8-dynamic", {"fp32": "not requested"}),
        ("int8", {"fp32": 1, "int8-static": 3, "int8-dynamic!": 2}, "int8-static", {"int8-dynamic": "below"}),
        ("int8", {"fp32": 1, "int8-static!": 3, "int8-dynamic!": 2}, "int8-dynamic", {"int8-static": "below"}),
    ],
)
def test_the_fastest_candidate_within_the_limits_is_kept(tmp_path, choice, given, best, words):
    found = [candidate(tmp_path, name.rstrip("!"), ms, passed="!" not in name) for name, ms in given.items()]

    times = {size: {one.precision: [one.model.milliseconds * size] * 3 for one in found} for size in (1, 32)}
    selected, results = candidates.select(choice, found, times)
    assert selected.precision == best
    by_name = {result.precision: result.to_json() for result in results}
    assert [name for name, row in by_name.items() if row["chosen"]] == [best]
    assert by_name[best]["lost"] is None
    for name, text in words.items():
        assert text in by_name[name]["lost"]
    assert by_name["fp32"]["speedup"] == {"1": 1.0, "32": 1.0}
    assert by_name[best]["accuracy_drop"] == pytest.approx(0.01)


def test_limits_are_about_agreement_accuracy_and_numbers(trained):
    """The gate against counts made by hand, with a graph that is told what to answer."""
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.source import from_run

    source = from_run(load_run(trained))
    reference = Reference.compute(source.model, source.images, source.image_labels)
    logits, chances = reference.float32
    index = {image.tobytes(): row for row, image in enumerate(reference.images)}
    right = reference.regular.start + np.flatnonzero(logits[reference.regular].argmax(1) == source.image_labels)

    class Told:
        provider = "CPUExecutionProvider"
        changed = np.empty(0, int)
        value = 0.0

        def run(self, images, *, last=False):
            rows = np.array([index[image.tobytes()] for image in images])
            out = logits[rows].copy()
            for position in np.flatnonzero(np.isin(rows, self.changed)):
                out[position] = np.roll(out[position], 1) if self.value == 0 else self.value
            return out, chances[rows]

    told = Told()
    assert check_limits(reference, told, Limits(1, 0)).passed
    told.changed = right[:3]
    found = check_limits(reference, told, Limits(0.99, 0.01)).to_json()
    assert found["passed"]
    assert found["top1_agreement"] == pytest.approx(1 - 3 / len(source.images))
    assert len(found["flips"]) == 3
    assert found["accuracy"]["torch"] - found["accuracy"]["onnxruntime"] == pytest.approx(3 / len(source.images))
    assert "accuracy falls" in check_limits(reference, told, Limits(0.9, 0.005)).violations
    assert "agreement" in check_limits(reference, told, Limits(0.995, 1)).violations
    told.value = np.nan
    assert "NaN" in check_limits(reference, told, Limits(0, 1)).violations


# --- Fused layers -------------------------------------------------------------------------------------------------


def test_fusable_layers_are_fused_and_the_network_stays_unchanged(tmp_path):
    """timm's own fusion is the oracle of the count; the unfused network in torch that of the numbers."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model("mobileone_s0", num_classes=7).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    from poolzoo.model.network import Preprocess

    model = inference.InferenceModel(Preprocess((0.5,) * 3, (0.25,) * 3, (64, 64), (64, 64)), network).eval()
    before = Counter(type(module).__name__ for module in network.modules())
    fused = inference.reparameterized(model)
    assert Counter(type(module).__name__ for module in network.modules()) == before
    graph.run_exporter(fused, (64, 64), tmp_path / "m.onnx")
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(tmp_path / "m.onnx").graph.node)
    oracle = timm.utils.reparameterize_model(network)
    assert convolutions == sum(isinstance(module, torch.nn.Conv2d) for module in oracle.modules())
    assert convolutions < sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) / 2
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    given = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network(torch.from_numpy((images.transpose(0, 3, 1, 2) / np.float32(255) - 0.5) / 0.25).float())
    np.testing.assert_allclose(given.run(["logits"], {"images": images})[0], expected, rtol=1e-3, atol=1e-4)


def test_a_foreign_layer_called_fuse_is_left_alone():
    class Mine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fuse = torch.nn.Conv2d(3, 3, 1)

    network = torch.nn.Sequential(Mine())
    assert inference.reparameterized(network) is network


# --- Through ONNX Runtime on a whole data set ----------------------------------------------------------------------


@pytest.mark.usefixtures("kept_graphs")
def test_evaluation_of_the_graph_is_that_of_the_network(poolzoo, trained, exported):
    expected = poolzoo("evaluate", trained, "--json").json
    for path in (trained, exported):
        found = poolzoo("evaluate", path, "--onnx", "--json").json
        assert found["provider"] == "CPUExecutionProvider"
        assert found["confusion"] == expected["confusion"]
        assert found["accuracy"] == expected["accuracy"]
    assert poolzoo("evaluate", exported).code == 2
    assert poolzoo("evaluate", exported / "nowhere", "--onnx").code == 2


def test_attention_is_exported_unfused_and_left_unchanged(tmp_path):
    import timm

    from poolzoo.model.network import Preprocess

    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=5).eval()
    model = inference.InferenceModel(Preprocess((0.5,) * 3, (0.25,) * 3, (32, 32), (32, 32)), network).eval()
    before = [block.attn.fused_attn for block in network.blocks]
    assert all(before)
    graph.run_exporter(model, (32, 32), tmp_path / "m.onnx")
    assert [block.attn.fused_attn for block in network.blocks] == before
    proto = onnx.load(tmp_path / "m.onnx")
    in_attention = [node.op_type for node in proto.graph.node if ".attn" in str(node.metadata_props)]
    assert "Softmax" in in_attention
    assert "Shape" not in in_attention  # which fused attention asks for in every layer


def test_attention_is_probed_in_the_graph_and_exported_alone(tmp_path):
    """The size of the batch, which its layers read too, is nothing that they take; so they can be cut out."""
    import timm

    from poolzoo.model.network import Preprocess
    from poolzoo.parity import probes

    torch.manual_seed(0)
    network = timm.create_model("vit_relpos_small_patch16_224", img_size=32, depth=1, num_classes=5).eval()
    model = inference.InferenceModel(Preprocess((0.5,) * 3, (0.25,) * 3, (32, 32), (32, 32)), network).eval()
    program = graph.run_exporter(model, (32, 32), tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    names = layers.read_layers(program, proto)
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        expected = network(x).numpy()
    cut = layers.subgraph(proto, names.inputs["network"], "logits", (3, 32, 32))
    for part in (cut, probes.exported_alone(network, (3, 32, 32))):
        opened = onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
        inputs = {one.name: np.zeros((3, 32, 32, 3), np.uint8) for one in opened.get_inputs() if one.name == "images"}
        inputs[next(one.name for one in opened.get_inputs() if one.name != "images")] = x.numpy()
        assert np.abs(opened.run(None, inputs)[0] - expected).max() < 1e-5


def test_a_noisier_photograph_is_compared_by_its_own_noise(trained, monkeypatch):
    """One far away is looked at again: with noise of its own it may be; without it, or further away, it may not."""
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.source import from_run
    from poolzoo.parity import reference as module

    source = from_run(load_run(trained))
    reference = Reference.compute(source.model, source.images, source.image_labels)
    row, (logits, chances) = len(reference.names) - 1, reference.float32
    index = {image.tobytes(): row for row, image in enumerate(reference.images)}
    assert len(index) == len(reference.images)

    class Told:
        provider = "CPUExecutionProvider"
        times = 0.9

        def run(self, images, *, last=False):
            rows = np.array([index[image.tobytes()] for image in images])
            off = np.where(rows == row, self.times * reference.allowed[row], 0)[:, None]
            return (logits[rows] + off).astype(np.float32), chances[rows]

    def noisy(run, images):
        yield run(images) + reference.allowed[row] / 2

    told = Told()
    assert check_outputs(reference, told).noise.rechecked == ()
    told.times = 3.5
    calm = check_outputs(reference, told)
    assert (calm.passed, calm.noise.rechecked) == (False, (reference.names[row],))
    monkeypatch.setattr(module, "reordered_sums", noisy)
    report = check_outputs(reference, told)
    assert report.passed, report.noise.worst
    assert report.noise.allowed_on_images == calm.noise.allowed_on_images
    told.times = 20
    assert not check_outputs(reference, told).passed


def test_an_ill_conditioned_edge_image_must_only_stay_finite(trained, monkeypatch):
    """Other draws of float32 that are far away make a floor that no photograph has; theirs stays as it is."""
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.source import from_run
    from poolzoo.parity import reference as module

    source = from_run(load_run(trained))
    given = source.model, source.images[:20], source.image_labels[:20]
    calm = Reference.compute(*given)

    def wild(run, images):
        found = run(images)
        found[2] += 0.01 * calm.scale[2]  # the gray one
        yield found

    monkeypatch.setattr(module, "reordered_sums", wild)
    found = Reference.compute(*given)
    assert found.names[2] == "gray"
    assert found.allowed[2] > 2 * found.scale[2]
    others = np.arange(len(found.names)) != 2
    assert (found.allowed[others] <= calm.allowed[others]).all()
    assert calm.allowed.max() < 1e-3 * calm.scale.min()


def test_an_edge_image_with_enormous_logits_allows_photographs_nothing():
    """A graph that is off by a thousandth on photographs has failed, whatever white ones do to the network."""

    class Steep(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 1.0], [-1.0, 0.25]]))

        def forward(self, images):
            mean = images.to(self.weight.dtype).mean((1, 2)) / 255
            logits = mean @ self.weight * torch.where((images == 255).flatten(1).all(1), 1e6, 1.0)[:, None]
            return logits, logits.softmax(1)

    class Graph:
        provider = "CPUExecutionProvider"
        off = 0.0

        def run(self, images, *, last=False):
            with torch.inference_mode():
                logits, chances = (out.numpy() for out in Steep()(torch.from_numpy(images)))
            return logits + np.where(np.abs(logits) < 10, np.float32(self.off), 0), chances

    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    reference = Reference.compute(Steep(), images, None)
    assert reference.names[1] == "white"
    assert reference.scale[1] > 1e5
    assert reference.allowed[1] > 0.1
    assert reference.allowed[2:].max() < 1e-4
    told = Graph()
    assert check_outputs(reference, told).passed
    told.off = 1e-3
    report = check_outputs(reference, told)
    assert not report.passed
    assert report.outputs.relative > 1e-4
