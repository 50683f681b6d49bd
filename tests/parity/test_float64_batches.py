"""The reference in float64 is computed in smaller batches than that in float32, so that memory is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from poolzoo.parity.reference import Reference


class Recorder(nn.Module):
    """Logits and probabilities of two classes, and the largest batch that it saw in each precision."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, -0.25]]))
        self.largest = {}

    def forward(self, images):
        dtype = self.weight.dtype
        self.largest[dtype] = max(len(images), self.largest.get(dtype, 0))
        logits = images.to(dtype).mean((1, 2, 3))[:, None] / 255 @ self.weight
        return logits, logits.softmax(1)


@pytest.mark.parametrize(("side", "in_float32", "in_float64"), [(16, 37, 37), (128, 16, 4), (256, 4, 2)])
def test_large_images_are_few_at_once_in_float64(side, in_float32, in_float64, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # each has an image of its own
    model = Recorder().eval()
    edges = len(Reference.compute(model, np.zeros((1, side, side, 3), np.uint8), None).names) - 1
    model.largest.clear()
    Reference.compute(model, np.random.default_rng(0).integers(0, 256, (37 - edges, side, side, 3), np.uint8), None)
    assert model.largest == {torch.float32: in_float32, torch.float64: in_float64}
