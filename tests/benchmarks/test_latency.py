"""How latencies of exports are measured and summarized; nothing sleeps in the networks that are compared."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from benchmarks.export import cases, latency, report, runtimes


def test_only_margins_above_the_noise_are_clear():
    ours = np.array([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    theirs = ours + np.array([[0.0], [1.1], [0.0]])  # twice 1.1 is more than the margin of 2
    assert latency.clear(ours, theirs).tolist() == [True, False, False]


def test_differing_labels_count_on_images_above_the_margin_alone():
    runtime = runtimes.Runtime(lambda jpegs: jpegs, lambda fed: fed, lambda out: (np.array([0, 1, 2, 3]), np.ones(4)))
    expected = latency.Expected(np.array([0, 0, 0, 3]), np.array([True, True, False, True]))
    assert expected.differ(runtime, []) == 1


def test_a_rest_is_not_counted(monkeypatch):
    now = [0.0]

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(latency.time, "sleep", pass_by)
    calls = {"long": lambda: pass_by(0.03), "short": lambda: pass_by(0.004)}
    found = latency.in_blocks(calls, rounds=2, read=lambda: now[0])
    assert found["long"] == pytest.approx([30.0] * 2)
    assert found["short"] == pytest.approx([4.0] * 2)  # of one call, not of a block


@pytest.mark.parametrize("woken", [False, True])
def test_every_parameter_of_a_woken_network_reaches_its_logits(woken):
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=10)  # its last gammas of residual branches are 0
    x = torch.randn(16, 3, 32, 32)
    if woken:
        cases.perturb(network, x, 10)
    logits = network.eval()(x)
    logits.square().sum().backward()
    asleep = [name for name, parameter in network.named_parameters() if not parameter.grad.any()]
    assert bool(asleep) is not woken, asleep
    if woken:
        assert logits.mean(0).abs().max() < 1e-4  # no label is favored
        assert len(logits.argmax(1).unique()) > 2


def test_goals_are_judged_against_the_fastest_export():
    label = {"ours": [1.0, 2.0], "timm": [2.0, 4.0], "optimum-onnx": [1.4, 2.8], "torch eager": [6.0, 12.0]}
    graph = {"ours": [1.0, 1.0], runtimes.PART: [0.8, 0.8], "timm": [0.9, 0.9], "torch eager": [0.1, 0.1]}
    case = {"network": "nano/resnet", "data_size": (32, 32), "convolutional": True}
    row = {"threads": 1, "batch": 1, "label": {**label, runtimes.DECODING: [0.1, 0.1]}, "graph": graph}
    reported = {
        (goal["what"], goal["peer"]): (goal["ratio"]["median"], goal["met"])
        for goal in report.goals(report.Found(case, times=[row]))
    }
    assert reported == {
        ("graph, with preprocessing", "timm"): (0.9, False),
        ("graph, the network's part", "timm"): (1.125, True),
        ("bytes to label", "optimum-onnx"): (1.4, False),
        ("bytes to label", "torch eager"): (6.0, True),
    }
