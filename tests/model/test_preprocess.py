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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_values_in_place_are_those_of_the_formula(dtype):
    preprocess = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (96, 96), (96, 96))
    images = torch.randint(0, 256, (16, 96, 96, 3), generator=torch.Generator().manual_seed(0)).to(dtype)
    before = images.clone()
    expected = (images.permute(0, 3, 1, 2).float() / 255 - preprocess.mean) / preprocess.std
    found, again = preprocess(images), preprocess(images.flip(0))
    for result, wanted in ((found, expected), (again, expected.flip(0))):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)
