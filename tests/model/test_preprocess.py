"""What a graph computes before the network is what the network sees in torch."""

from __future__ import annotations

import pytest
import torch

from poolzoo.model.network import Preprocess

SIZES = [
    ((32, 32), (128, 128)),
    ((28, 20), (64, 61)),
    ((40, 40), (33, 33)),
    ((7, 9), (7, 9)),
    ((1, 3), (5, 2)),
    ((64, 48), (96, 100)),
]


@pytest.mark.parametrize(("data", "image"), SIZES)
def test_the_graph_resizes_and_normalizes_as_torch_does(data, image, monkeypatch):
    preprocess = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), data, image).double()
    images = torch.randint(0, 256, (3, *data, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scaled = images.permute(0, 3, 1, 2).double() / 255
    expected = torch.nn.functional.interpolate((scaled - preprocess.mean) / preprocess.std, image, mode="bilinear")
    torch.testing.assert_close(preprocess(images), expected, rtol=0, atol=1e-12)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(preprocess(images), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(preprocess.normalize(scaled), expected, rtol=0, atol=1e-12)
