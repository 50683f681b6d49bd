"""Graphs with a calibration: plain logits and calibrated probabilities, without anything else that changes."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import scipy.special
import torch
from torch import nn

from poolzoo.artifacts.run import load_run
from poolzoo.common import files
from poolzoo.export import graph, standalone
from poolzoo.export.source import from_run
from poolzoo.metrics.calibration import Calibration
from poolzoo.model.inference import InferenceModel
from poolzoo.model.network import Preprocess

UNSMOOTHED = Calibration(0.7, smoothing=0.2)
VECTOR = Calibration(0.5, scale=(1.0, 2.0, 0.5), bias=(0.0, -1.0, 1.5))


def exported(path, calibration, *, multilabel=False):
    """A graph of a linear classifier, opened; and its operators."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    preprocess = Preprocess((0.5,) * 3, (0.25,) * 3, (4, 4), (4, 4))
    model = InferenceModel(preprocess, network, multilabel=multilabel, calibration=calibration).eval()
    graph.run_exporter(model, (4, 4), path)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), operators


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("calibration", [None, Calibration(0.07), VECTOR])
def test_probabilities_are_calibrated_and_logits_plain(tmp_path, calibration, multilabel):
    session, operators = exported(tmp_path / "model.onnx", calibration, multilabel=multilabel)
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)
    logits, probabilities = session.run(["logits", "probabilities"], {"images": images})
    z = logits.astype(float)
    if calibration is not None:
        z = z * np.asarray(calibration.scale or (1, 1, 1)) / calibration.temperature + (calibration.bias or (0, 0, 0))
    expected = scipy.special.expit(z) if multilabel else scipy.special.softmax(z, axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=2e-6)
    plain, before = exported(tmp_path / "plain.onnx", None, multilabel=multilabel)
    np.testing.assert_array_equal(logits, plain.run(["logits"], {"images": images})[0])
    added = {None: [], VECTOR: ["Mul", "Add"]}.get(calibration, ["Mul"])
    assert operators == [*before[:-1], *added, before[-1]]


@pytest.mark.parametrize("smoothing", [1e-4, 0.2, 0.5])
def test_a_graph_takes_label_smoothing_back(tmp_path, smoothing):
    calibration = Calibration(0.7, smoothing=smoothing)
    session, operators = exported(tmp_path / "model.onnx", calibration)
    images = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)
    logits, probabilities = session.run(["logits", "probabilities"], {"images": images})
    less = scipy.special.softmax(logits.astype(float) / 0.7, axis=1) - smoothing / 3
    heights = less + np.hypot(less, smoothing / 15)
    np.testing.assert_allclose(probabilities, heights / heights.sum(1, keepdims=True), atol=3e-6)
    assert (probabilities.argmax(1) == logits.argmax(1)).all()
    constants = map(onnx.numpy_helper.to_array, onnx.load(tmp_path / "model.onnx").graph.initializer)
    assert {*calibration.hyperbola(3)} <= {one.item() for one in constants if one.size == 1}
    _, before = exported(tmp_path / "plain.onnx", None)
    assert operators == [*before[:-1], "Mul", "Softmax", "Mul", "Sub", "Mul", "Add", "Sqrt", "Add", "Log", before[-1]]
    assert standalone.check_probabilities(scripted(calibration), logits, probabilities)[1]
    assert not standalone.check_probabilities(scripted(Calibration(0.7)), logits, probabilities)[1]


def scripted(calibration):
    """What the stand-alone script knows of a graph with one label."""
    return SimpleNamespace(calibration=calibration.to_json(), thresholds=None, half=False)


def test_logits_that_are_not_finite_stay_visible_without_smoothing(tmp_path):
    exported(tmp_path / "model.onnx", UNSMOOTHED)
    proto = onnx.load(tmp_path / "model.onnx")
    stored = next(one for one in proto.graph.initializer if one.name == "network.1.bias")
    for bias in ([0, np.nan, 1], [np.nan] * 3, [0, 1, np.inf]):
        stored.CopyFrom(onnx.numpy_helper.from_array(np.array(bias, np.float32), stored.name))
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        assert np.isnan(session.run(["probabilities"], {"images": np.zeros((2, 4, 4, 3), np.uint8)})[0]).all()


def test_a_bundle_records_the_calibration_of_its_run(trained, exported):
    recorded = files.read_json(trained / "config.json")["calibration"]
    assert 0.05 < recorded["temperature"] < 1  # four epochs with label smoothing leave it uncertain
    assert files.read_json(exported / "config.json")["calibration"] == recorded
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["calibration"]) == recorded


def test_without_calibration_a_source_has_plain_probabilities(trained):
    source = from_run(load_run(trained), calibrated=False)
    assert (source.model.factors, source.decision.calibration) == (None, None)
    assert "calibration" not in graph.task_facts(source.decision)
    assert from_run(load_run(trained)).model.factors.shape == (1,)


def test_a_run_keeps_the_logits_that_chose_its_temperature(trained):
    metrics, recorded = (files.read_json(trained / name) for name in ("metrics.json", "config.json"))
    with np.load(trained / "validation.npz") as kept:
        logits, labels = kept["logits"], kept["labels"]
    assert logits.dtype == np.float32
    assert (logits.argmax(1) == labels).mean() == metrics["val"]["accuracy"]
    assert metrics["calibration"]["chosen"] == recorded["calibration"]
    assert metrics["calibration"]["images"] == len(labels)

    def nll(temperature):
        p = scipy.special.log_softmax(logits.astype(float) / temperature, axis=1)
        return -p[np.arange(len(labels)), labels].mean()

    chosen = recorded["calibration"]["temperature"]
    assert nll(chosen) == pytest.approx(metrics["calibration"]["nll_after"])
    assert nll(chosen) < min(nll(2 * chosen), nll(1.0))
    scores = metrics["test"]["reliability"]
    assert scores["after"]["ece"]["value"] == pytest.approx(metrics["test"]["ece"])
    assert scores["change"]["nll"]["interval"][1] < 0
