"""A graph that agrees on all images, but for an input that no image leads to: found by probes, and reduced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.planted_graph import WEIGHT, images, planted_model
from torch import nn

from poolzoo.parity import check, probes
from poolzoo.parity.layers import Layers
from poolzoo.parity.reduction import from_parity
from poolzoo.parity.reduction.result import Reduction
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import ParityReport
from poolzoo.runtime import ort_session

EPS = 1e-12
RIGHT = WEIGHT.numpy()
LAYERS = Layers(outputs={"network": "logits", "network.gone": "fused"}, inputs={"network": "x"})


class Shares(nn.Module):
    """Logits of the share that each channel has of all; the eps shows where an image is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())

    def forward(self, x):
        means = x.mean((2, 3))
        return means / (means.abs().sum(1, keepdim=True) + EPS) @ self.weight


class Network(nn.Module):
    """Behind its preprocessing no image is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Shares()

    def forward(self, images):
        x = images.permute(0, 3, 1, 2).to(self.network.weight.dtype) / 255 + 1
        logits = self.network(x)
        return logits, logits.softmax(1)


def graph_of(eps: float = EPS, weight: np.ndarray = RIGHT) -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("Transpose", ["images"], ["planes"], perm=[0, 3, 1, 2]),
        node("Cast", ["planes"], ["levels"], to=TensorProto.FLOAT),
        node("Div", ["levels", "most"], ["values"]),
        node("Add", ["values", "one"], ["x"]),
        node("ReduceMean", ["x", "sides"], ["means"], keepdims=0),
        node("Abs", ["means"], ["sizes"]),
        node("ReduceSum", ["sizes", "channels"], ["total"], keepdims=1),
        node("Add", ["total", "eps"], ["more"]),
        node("Div", ["means", "more"], ["shares"]),
        node("MatMul", ["shares", "weight"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    arrays = {
        "most": np.float32(255),
        "one": np.float32(1),
        "sides": np.array([2, 3]),
        "channels": np.array([1]),
        "eps": np.float32(eps),
        "weight": weight.astype(np.float32),
    }
    return planted_model(nodes, arrays)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.compute(Network().eval(), *images())


def checked(model: onnx.ModelProto, reference: Reference, place: Path) -> tuple[ParityReport, ort_session.OnnxModel]:
    onnx.save(model, place / "model.onnx")
    graph = ort_session.open_model(place / "model.onnx", threads=1)
    return check.check_parity(reference, place / "model.onnx", LAYERS, graph, 1), graph


def test_a_graph_that_computes_the_same_passes_on_images_and_extremes(reference, tmp_path):
    report, _ = checked(graph_of(), reference, tmp_path)
    assert report.passed
    assert [one.probe for one in report.probes] == list(probes.core_probes((3, 4, 4)))
    assert {one.part for one in report.probes} == {"core"}
    assert (report.located, report.first_difference) == (False, None)


def test_a_lost_eps_fails_on_extremes_alone(reference, tmp_path):
    report, _ = checked(graph_of(0.0), reference, tmp_path)
    assert not report.passed
    assert report.noise.worst.ratio <= 1
    assert {one.probe for one in report.probes if not one.passed} == {"zeros", "denormals"}
    assert (report.located, report.first_difference) == (True, None)  # on no image does a layer differ


def test_a_graph_that_is_wrong_on_images_says_from_which_layer_on(reference, tmp_path):
    wrong = RIGHT.copy()
    wrong[1, 2] += 0.5
    report, _ = checked(graph_of(weight=wrong), reference, tmp_path)
    assert not report.passed
    found = report.first_difference
    assert (report.located, found.layer) == (True, "network")
    row = reference.names.index(report.noise.worst.input)
    assert found.largest == pytest.approx(np.abs(reference.expected[0][row]).max(), rel=1e-5)
    assert found.max_abs == pytest.approx(report.noise.worst.max_abs, rel=1e-4)


def debugged(report: ParityReport, reference: Reference, graph: ort_session.OnnxModel, place: Path) -> Reduction | None:
    return from_parity.debug(report, reference, place / "model.onnx", LAYERS, graph, place / "debug", budget=20)


def test_what_a_probe_shows_is_reduced_with_the_probe(reference, tmp_path, capsys):
    report, graph = checked(graph_of(0.0), reference, tmp_path)
    found = debugged(report, reference, graph, tmp_path)
    assert (found.kind, found.fault, found.complete) == ("non-finite", "graph", True)
    assert [node.op_type for node in found.graph.graph.node] == ["Div"]
    assert found.repair.expected == "an Add of 1e-12 to input 1"
    assert np.isfinite(found.expected).all()
    first, second = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("reducing the failure on core with zeros, for at most 20 s")
    assert second.startswith(f"{tmp_path / 'debug'}: Div: ")
    assert found.nodes_before == 6  # of the part; its preprocessing is no part of it


def test_what_cannot_be_recorded_hides_no_failure(reference, tmp_path, capsys):
    class Broken(Network):
        def forward(self, images):
            raise ValueError("no network today")

    wrong = RIGHT + 0.5 * np.eye(3)
    report, graph = checked(graph_of(weight=wrong), reference, tmp_path)
    report = replace(report, probes=None)
    assert debugged(report, replace(reference, model=Broken()), graph, tmp_path) is None
    warnings = [line for line in capsys.readouterr().err.splitlines() if "is not reduced" in line]
    assert len(warnings) == 4  # of each batch size
    assert all("no network today" in line for line in warnings)
    assert not (tmp_path / "debug").exists()
