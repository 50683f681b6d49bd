"""From a check of a graph that failed to a folder with the smallest graph and batch that show it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.planted_graph import WEIGHT, Network, images, planted_model

from poolzoo.export.precision import fp16
from poolzoo.parity import check
from poolzoo.parity.layers import Layers
from poolzoo.parity.reduction import from_parity
from poolzoo.parity.reduction.result import Reduction
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import ParityReport
from poolzoo.runtime import ort_session

LAYERS = Layers(outputs={"network": "logits"})


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.compute(Network().eval(), *images())


def graph_of(weight: np.ndarray, *more: onnx.NodeProto) -> onnx.ModelProto:
    """The planted network as a graph; `more` computes `logits` from `right`."""
    nodes = [
        helper.make_node("Gather", ["images", "zero"], ["row"], axis=1),
        helper.make_node("Gather", ["row", "zero"], ["pixel"], axis=1),
        helper.make_node("Cast", ["pixel"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "most"], ["values"]),
        helper.make_node("MatMul", ["values", "weight"], ["right" if more else "logits"]),
        *more,
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    arrays = {
        "zero": np.array(0),
        "most": np.float32(255),
        "weight": weight,
        "tenth": np.float32(0.1),
        "two": np.float32(2),
    }
    return planted_model(nodes, {**arrays, "rows": [0]})


def debugged(model: onnx.ModelProto, reference: Reference, place: Path) -> tuple[ParityReport, Reduction | None]:
    onnx.save(model, place / "model.onnx")
    graph = ort_session.open_model(place / "model.onnx", threads=1)
    report = check.check_outputs(reference, graph)
    found = from_parity.debug(report, reference, place / "model.onnx", LAYERS, graph, place / "debug", budget=30)
    return report, found


def test_a_wrong_weight_is_reduced_at_the_worst_image(reference, tmp_path, capsys):
    wrong = WEIGHT.numpy().copy()
    wrong[1, 2] += 0.5
    report, found = debugged(graph_of(wrong), reference, tmp_path)
    assert not report.passed
    assert (found.fault, found.complete) == ("graph", True)
    assert [node.op_type for node in found.graph.graph.node] == ["MatMul"]
    assert {one.name for one in (tmp_path / "debug").iterdir()} >= {"graph.onnx", "arrays.npz", "report.md"}
    first, second = capsys.readouterr().err.strip().splitlines()
    assert first.startswith(f"reducing the failure on {report.noise.worst_by_batch[1].input} in a batch of 1, for at")
    assert "at most 30 s" in first
    assert second.startswith(f"{tmp_path / 'debug'}: MatMul: ")


BATCHES = {
    2: [  # images that are mixed with one another
        helper.make_node("ReduceMean", ["right", "rows"], ["mean"]),
        helper.make_node("Sub", ["right", "mean"], ["apart"]),
        helper.make_node("Mul", ["apart", "tenth"], ["little"]),
        helper.make_node("Add", ["right", "little"], ["logits"]),
    ],
    4: [  # batches of more than two; that of seven is halved
        helper.make_node("Shape", ["right"], ["count"], start=0, end=1),
        helper.make_node("Cast", ["count"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["number", "two"], ["more"]),
        helper.make_node("Relu", ["more"], ["beyond"]),
        helper.make_node("Add", ["right", "beyond"], ["logits"]),
    ],
}


@pytest.mark.parametrize("size", BATCHES)
def test_a_fault_of_batches_is_reduced_at_the_fewest_images(reference, tmp_path, capsys, size):
    report, found = debugged(graph_of(WEIGHT.numpy(), *BATCHES[size]), reference, tmp_path)
    assert report.noise.worst_by_batch[1].ratio <= 1
    assert f"in a batch of {size}, for at most" in capsys.readouterr().err
    assert found.fault == "graph"
    assert found.difference.relative > found.threshold


def test_what_does_not_show_by_itself_is_said(reference, tmp_path, capsys):
    report, found = debugged(graph_of(WEIGHT.numpy()), reference, tmp_path)
    assert report.passed
    assert found is None
    assert not (tmp_path / "debug").exists()
    assert "nothing that failed shows the difference by itself" in capsys.readouterr().err


def test_what_half_precision_loses_is_reduced_at_the_image_that_shows_it(reference, tmp_path, capsys):
    """A value times 250,000, and back: in float32 nothing happens."""
    steps = (("right", "five_hundred", "large"), ("large", "five_hundred", "larger"), ("larger", "small", "logits"))
    more = [helper.make_node("Mul", [one, by], [out], name=out) for one, by, out in steps]
    exact = graph_of(WEIGHT.numpy(), *more)
    arrays = {"five_hundred": np.float32(500), "small": np.float32(1 / 250_000)}
    exact.graph.initializer.extend(numpy_helper.from_array(np.asarray(one), name) for name, one in arrays.items())
    for node in exact.graph.node:
        node.name = node.output[0]
    files = [tmp_path / "fp32.onnx", tmp_path / "fp16.onnx"]
    for file, proto in zip(files, (exact, fp16.with_float32_nodes(exact, ())), strict=True):
        onnx.save(proto, file)
    layers = Layers(inside={"network": frozenset(["larger"]), "network.pool": frozenset(["larger"])})
    graph = ort_session.open_model(files[1], threads=1)
    place = tmp_path / "debug"
    found = from_parity.debug_lowered("fp16", *files, reference, layers, graph, place, budget=30)
    assert (found.fault, found.kind) == ("precision", "non-finite")
    worst = found.lowering.nodes[0]
    assert (worst.operator, worst.node, worst.layer, worst.harm) == ("Mul", "larger", "network.pool", np.inf)
    assert [node.op_type for node in found.graph.graph.node] == ["Cast", "Mul"]
    first, second = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("looking for what fp16 loses on ")
    assert second.startswith(f"{place}: fp16 of Mul network.pool: inf where ")
    assert json.loads((place / "report.json").read_text())["lowering"]["precision"] == "fp16"


def test_a_graph_that_loses_nothing_is_said_to(reference, tmp_path, capsys):
    onnx.save(graph_of(WEIGHT.numpy()), tmp_path / "model.onnx")
    graph, place = ort_session.open_model(tmp_path / "model.onnx", threads=1), tmp_path / "debug"
    given = (tmp_path / "model.onnx", tmp_path / "model.onnx", reference, LAYERS, graph, place)
    assert from_parity.debug_lowered("int8-static", *given, budget=30) is None
    assert not place.exists()
    assert "no node moves the logits where it alone is in int8-static" in capsys.readouterr().err
