"""Rounding errors that are drawn: their size, what they leave alone, and the choice that they show to be none."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from poolzoo.export import graph
from poolzoo.parity import probes
from poolzoo.parity.rounding import UNIT, RandomRounding


def test_results_move_by_at_most_one_unit_and_views_stay():
    x = torch.randn(1000)
    with RandomRounding(0):
        doubled, looked_at, order = x + x, x.view(10, 100).t()[3], x.argsort()
        kept = x.clone().mul_(4)
        double = x.double() + 1
    moved = ((doubled - 2 * x) / (2 * x)).abs()
    assert UNIT / 2 < moved.max() <= UNIT + 2**-23
    assert ((kept - 4 * x) / (4 * x)).abs().max() <= 2 * UNIT + 2**-22  # the copy, then the product
    assert not torch.equal(kept, 4 * x)
    assert torch.equal(looked_at, x.view(10, 100)[:, 3])
    assert torch.equal(order, x.argsort())
    assert ((double - x.double() - 1).abs() <= UNIT * (x.double().abs() + 1)).all()


def test_a_seed_is_a_draw():
    x = torch.randn(50)

    def draw(seed):
        with RandomRounding(seed):
            return x * 3

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


class Choosing(nn.Module):
    """Of two halves of the channels the one with the larger sum, beside which the values vanish."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x):
        halves = x.unflatten(1, (2, -1))
        scores = (halves + self.offset).mean((2, 3, 4))
        return torch.where((scores[:, 0] >= scores[:, 1])[:, None, None, None], halves[:, 0], halves[:, 1])


@pytest.mark.parametrize(("offset", "passed"), [(1e3, True), (0.0, False)])
def test_rounding_changes_choices_among_near_equals_alone(offset, passed):
    module = Choosing(offset).eval()
    other = Choosing(offset).eval()
    other.forward = lambda x: -Choosing.forward(module, -x)  # always the other half

    class Session:
        def get_inputs(self):
            return [type("Input", (), {"name": "x"})]

        def run(self, outputs, inputs):
            return [other(torch.from_numpy(inputs["x"])).numpy()]

    shape = (4, 8, 8)
    part = probes.Part("pool", module, Session(), shape, None, False)
    row = probes.check_part(part, "tiny values", probes.layer_probes(shape)["tiny values"])
    assert row.passed is passed, row
    assert row.max_abs > 1e-6


@pytest.mark.parametrize(
    ("pool", "pads"),
    [
        (nn.MaxPool2d(2, 1, ceil_mode=True), (0, 1, 0, 1)),
        (nn.MaxPool2d(3, 2, padding=1), (1, 1, 1, 1)),
        (nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), (0, 1, 0, 1)),
    ],
)
def test_zeros_padded_before_a_pooling_stay_zeros_under_onnx_runtime(tmp_path, pool, pads):
    """Below zero everywhere, so that a zero is the maximum; merged into the pooling they would be no part of it."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = pool

        def forward(self, images):
            y = self.pool(nn.functional.pad(images.float().permute(0, 3, 1, 2) - 300, pads))
            return y, y

    model = Padded().eval()
    graph.run_exporter(model, (8, 8), tmp_path / "model.onnx")
    proto = graph.onnx.load(tmp_path / "model.onnx")
    graph.keep_pads_apart(proto)
    graph.onnx.checker.check_model(proto, full_check=True)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    found, _ = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"images": images})
    np.testing.assert_allclose(found, model(torch.from_numpy(images))[0].numpy(), rtol=1e-5, atol=1e-4)
