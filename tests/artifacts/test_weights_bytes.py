"""Weights as bytes: what a state dict holds comes back, however it lies in memory."""

import pytest
import torch
from safetensors.torch import load

from poolzoo.artifacts.run import weights_bytes

KERNEL = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)


@pytest.mark.parametrize(
    "value",
    [KERNEL.to(memory_format=torch.channels_last), KERNEL.permute(3, 2, 0, 1), KERNEL[:, 1:], KERNEL[..., ::2]],
    ids=["channels last", "transposed", "a part", "with a stride"],
)
def test_weights_come_back_from_any_layout_of_memory(value):
    assert torch.equal(load(weights_bytes({"weight": value}))["weight"], value)


def test_tied_weights_come_back_under_both_names():
    found = load(weights_bytes({"first": KERNEL, "second": KERNEL}))
    assert torch.equal(found["first"], KERNEL)
    assert torch.equal(found["second"], KERNEL)
