"""Faults planted in exports, to see that each is found, that nothing is left behind, and that the layer is named."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from poolzoo.export import graph

pytestmark = pytest.mark.usefixtures("kept_graphs")

# --- In the file, after the export ---------------------------------------------------------------------------------


def spoil(path, change):
    """Changes one initializer of a graph."""
    model = onnx.load(path)
    tensors = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    name, value = change({t.name: numpy_helper.to_array(t).copy() for t in tensors})
    for tensor in tensors:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
    onnx.save(model, path)


def swapped_classes(tensors):
    name = next(n for n, v in tensors.items() if v.shape in ((10, 64), (64, 10)))
    return name, np.roll(tensors[name], 1, tensors[name].shape.index(10))


def first_kernel(tensors):
    name = next(n for n, v in tensors.items() if v.ndim == 4 and v.shape[1] == 3)
    return name, tensors[name]


def swapped_channels(tensors):
    """Blue for red. Scans of digits are gray, so that images alone do not show it."""
    name, kernel = first_kernel(tensors)
    return name, kernel[:, ::-1]


def nudged_weight(tensors):
    name = next(n for n, v in tensors.items() if v.ndim == 4 and v.shape[1] == 32)
    tensors[name][3, 2, 1, 1] += 0.05
    return name, tensors[name]


def flipped_layer(tensors):
    name = next(n for n, v in tensors.items() if v.ndim == 4 and v.shape[1] == 64)
    return name, tensors[name][..., ::-1]


def stale_weights(tensors):
    """As before the last step of training: each weight of a layer differs by a thousandth."""
    name = next(n for n, v in tensors.items() if v.ndim == 4 and v.shape[1] == 32)
    noise = np.random.default_rng(0).standard_normal(tensors[name].shape).astype(np.float32)
    return name, tensors[name] * (1 + 1e-3 * noise)


def wrong_mean(tensors):
    name = next(n for n, v in tensors.items() if v.size == 3)
    return name, tensors[name] * 1.02


def not_a_number(tensors):
    name = next(n for n, v in tensors.items() if v.ndim == 4 and v.shape[1] == 32)
    tensors[name][0] = np.nan
    return name, tensors[name]


IN_THE_FILE = {
    swapped_classes: "network.classifier",
    swapped_channels: "network.backbone.conv1",
    nudged_weight: "network.backbone.conv2",
    flipped_layer: "network.backbone.conv3",
    stale_weights: "network.backbone.conv2",
    wrong_mean: "preprocess",
    not_a_number: "network.backbone.conv2",
}


def after_the_export(monkeypatch, change):
    """Lets a fault be planted in the file that `export` is about to check."""
    real = graph.export_graph

    def faulty(source, path, **options):
        written = real(source, path, **options)
        change(path)
        return written

    monkeypatch.setattr(graph, "export_graph", faulty)


@pytest.mark.parametrize("change", IN_THE_FILE, ids=lambda change: change.__name__)
def test_a_wrong_graph_fails_and_leaves_nothing_behind(poolzoo, trained, tmp_path, monkeypatch, change):
    after_the_export(monkeypatch, lambda path: spoil(path, change))
    outcome = poolzoo("export", trained, "--json", "--out", tmp_path / "b", "-q")
    assert outcome.code == 1
    assert outcome.json["bundle"] is None
    parity = outcome.json["parity"]
    assert not parity["passed"]
    assert parity["diverges"]["layer"].startswith(IN_THE_FILE[change])
    assert parity["diverges"]["layer"] in outcome.err
    assert len(outcome.err.splitlines()) == 2
    assert list(tmp_path.iterdir()) == []


def softmax_over_the_batch(path):
    model = onnx.load(path)
    (node,) = [node for node in model.graph.node if node.op_type == "Softmax"]
    node.attribute[0].i = 0
    onnx.save(model, path)


def with_the_batchs_spread(path):
    """Adds what each image's last features differ by from the batch's mean: nothing for one image, much for several."""
    model = onnx.load(path)
    nodes = list(model.graph.node)
    last = next(node for node in nodes if "logits" in node.output)
    features = last.input[0]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "batch_axis"))
    added = [
        onnx.helper.make_node("ReduceMean", [features, "batch_axis"], ["batch_mean"]),
        onnx.helper.make_node("Sub", [features, "batch_mean"], ["spread"]),
        onnx.helper.make_node("Add", [features, "spread"], ["wrong"]),
    ]
    last.input[0] = "wrong"
    index = nodes.index(last)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:index], *added, last, *nodes[index + 1 :]])
    onnx.save(model, path)


@pytest.mark.parametrize("change", [softmax_over_the_batch, with_the_batchs_spread])
def test_faults_that_only_some_outputs_or_batches_show_are_found(poolzoo, trained, tmp_path, monkeypatch, change):
    after_the_export(monkeypatch, change)
    outcome = poolzoo("export", trained, "--json", "--out", tmp_path / "b", "-q")
    assert outcome.code == 1
    assert not outcome.json["parity"]["passed"]


def test_debug_leaves_the_smallest_graph_that_shows_it(poolzoo, trained, tmp_path, monkeypatch):
    after_the_export(monkeypatch, softmax_over_the_batch)
    debug = tmp_path / "debug"
    outcome = poolzoo("export", trained, "--out", tmp_path / "b", "--debug", debug)
    assert outcome.code == 1
    assert "report.md" in outcome.err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["debug"]
    names = {"arrays.npz", "graph.onnx", "report.json", "report.md", "reproduce.py"}
    assert {path.name for path in debug.iterdir()} == names
    (node,) = onnx.load(debug / "graph.onnx").graph.node
    assert node.op_type == "Softmax"
    assert json.loads((debug / "report.json").read_text())["culprit"]["name"] == "axis"
    again = poolzoo("export", trained, "--out", tmp_path / "b", "--debug", debug)
    assert (again.code, len(again.err.splitlines())) == (2, 2)


# --- In layers: what torch's exporter gets wrong, and a layer that exports something else -------------------------

PLUGIN = """
from poolzoo import Pooling, hookimpl


def ratio(channels: int):
    '''An average weighted by the map itself; where the map is zero, so is it, by an eps that the exporter deletes.'''
    from torch import nn
    class Ratio(nn.Module):
        def forward(self, x):
            w = x.relu()
            return (w * w).sum((2, 3)) / (w.sum((2, 3)) + 1e-12)
    return Ratio()


def local_ratio(channels: int, kernel_size, stride, padding, ceil_mode):
    from torch import nn
    class LocalRatio(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.AvgPool2d(kernel_size, stride, padding, ceil_mode)
        def forward(self, x):
            w = x.relu()
            return self.mean(w * w) / (self.mean(w) + 1e-12)
    return LocalRatio()


def divided(channels: int, kernel_size, stride, padding, ceil_mode):
    from torch import nn
    return nn.AvgPool2d(kernel_size, stride, padding, ceil_mode, divisor_override=2)


def two_faced(channels: int):
    import torch
    from torch import nn
    class TwoFaced(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) * (1.01 if torch.compiler.is_exporting() else 1.0)
    return TwoFaced()


def at_zero(channels: int):
    '''Exports something else for maps without anything positive in them alone, which images never lead to.'''
    import torch
    from torch import nn
    class AtZero(nn.Module):
        def forward(self, x):
            y = x.mean((2, 3))
            return y + (x.amax((1, 2, 3)) <= 0).float()[:, None] if torch.compiler.is_exporting() else y
    return AtZero()


@hookimpl
def poolzoo_poolings():
    for name, build in (("ratio", ratio), ("two-faced", two_faced), ("at-zero", at_zero)):
        yield Pooling(name=name, summary="", kind="global", build=build)
    for name, build in (("ratio", local_ratio), ("divided", divided)):
        yield Pooling(name=name, summary="", kind="local", build=build)
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "faulty.py"
    path.write_text(PLUGIN)
    return path


@pytest.mark.parametrize(
    ("pools", "where"),
    [
        pytest.param(("--pool", "ratio"), "network.pool", marks=pytest.mark.slow),
        (("--local-pool", "ratio"), "network.backbone.pool1"),
        pytest.param(("--pool", "two-faced"), "network.pool", marks=pytest.mark.slow),
        (("--pool", "at-zero"), "network.pool"),
    ],
)
def test_a_layer_that_exports_wrongly_is_found_and_named(poolzoo, plugin, tmp_path, pools, where):
    common = ("--plugin", plugin, "-q")
    arguments = ("--data", "digits", "--backbone", "nano/plain", "--epochs", 1, "--limit", 200, *pools, *common)
    assert poolzoo("finetune", *arguments, "--out", tmp_path / "run").code == 0
    debug = tmp_path / "debug"
    outcome = poolzoo("export", tmp_path / "run", "--out", tmp_path / "b", "--debug", debug, "--json", *common)
    assert outcome.code == 1
    assert not outcome.json["parity"]["passed"]
    reduced = json.loads((debug / "report.json").read_text())
    assert reduced["fault"] == "graph"
    assert len(reduced["nodes"]) <= 5
    assert reduced["source"]["line"].startswith("faulty.py:")
    failed = {probe["part"] for probe in outcome.json["parity"]["probes"] if not probe["passed"]}
    assert where in failed
    assert where in outcome.err
    assert not (tmp_path / "b").exists()


def test_an_average_with_another_divisor_is_refused_before_parity(poolzoo, plugin, tmp_path):
    common = ("--plugin", plugin, "-q")
    arguments = ("--data", "digits", "--backbone", "nano/plain", "--epochs", 1, "--limit", 200)
    local = ("--local-pool", "divided")
    assert poolzoo("finetune", *arguments, *local, *common, "--out", tmp_path / "run").code == 0
    outcome = poolzoo("export", tmp_path / "run", "--out", tmp_path / "b", *common)
    assert outcome.code == 1
    assert "divisor_override" in outcome.err
    assert "network.backbone.pool1" in outcome.err
    dry = poolzoo("finetune", *arguments, *local, *common, "--out", tmp_path / "again", "--check-export")
    assert dry.code == 1
    assert "divisor_override" in dry.err


# --- The same in lower precision ----------------------------------------------------------------------------------


STRICT = ("--min-agreement", 1, "--max-accuracy-drop", 0)  # nothing that flips a single image passes


@pytest.fixture
def noisy(monkeypatch):
    """Lets whatever is lowered be a graph in noise, which flips many images."""
    from poolzoo.export.precision import convert

    class Noisy(convert.Converter):
        def __init__(self, precision, source, names, calibration):
            spoiled = source.with_name("spoiled.onnx")
            spoiled.write_bytes(source.read_bytes())
            spoil(spoiled, flipped_layer)
            super().__init__(precision, spoiled, names, calibration)

    monkeypatch.setattr(convert, "Converter", Noisy)
    after_the_export(monkeypatch, lambda path: None)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precision_outside_the_limits_is_refused(poolzoo, trained, noisy, tmp_path, precision):
    outcome = poolzoo("export", trained, "--precision", precision, *STRICT, "--json", "--out", tmp_path / "b")
    assert outcome.code == 1
    assert outcome.json["bundle"] is None
    assert outcome.json["parity"]["gate"] == "limits"
    assert outcome.json["parity"]["top1_agreement"] < 1
    assert "agreement" in outcome.err
    assert "no layer is left to return to float32" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_fp32_ships_where_no_lower_precision_is_within_the_limits(poolzoo, trained, noisy, tmp_path):
    arguments = ("--precision", "auto", *STRICT, "--json", "--no-bench", "--out", tmp_path / "c")
    kept = poolzoo("export", trained, *arguments)
    assert kept.code == 0
    assert kept.json["precision"] == "fp32"
    lost = {row["precision"]: row["lost"] for row in kept.json["candidates"]}
    assert lost["fp32"] is None
    assert all("agreement" in lost[name] for name in ("fp16", "int8-static", "int8-dynamic"))
