"""Modules in float64: depthwise convolutions are the sums that torch computes, and weights return exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from poolzoo.parity.float64 import in_float64


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((3, 3), {"padding": 1}),
        ((5, 3), {"padding": (2, 0), "stride": (1, 2)}),
        ((3, 3), {"stride": 2}),
        ((2, 3), {"dilation": (3, 2), "stride": (2, 1)}),
        ((3, 3), {"padding": [1], "stride": [2], "dilation": [2]}),
        ((9, 11), {}),
        ((3, 3), {"padding": "same", "dilation": 2}),
        ((3, 3), {"padding": np.int64(1), "stride": (np.int64(2), torch.tensor(1))}),
    ],
    ids=str,
)
@pytest.mark.parametrize("with_bias", [False, True], ids=["without bias", "with bias"])
def test_a_depthwise_convolution_is_that_of_torch(kernel, options, with_bias):
    x, weight, bias = noise(2, 6, 9, 11), noise(6, 1, *kernel), noise(6) if with_bias else None
    expected = F.conv2d(x, weight, bias, groups=6, **options)
    with in_float64(nn.Identity()):
        found = F.conv2d(x, weight, bias, groups=6, **options)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_torch_is_asked_for_no_depthwise_convolution(monkeypatch):
    layer, x = nn.Conv2d(4, 4, 3, groups=4), noise(1, 4, 5, 5)
    with in_float64(layer):
        expected = layer(x)
        monkeypatch.setattr(torch.Tensor, "addcmul_", lambda *_: pytest.fail("taps"))
        with pytest.raises(pytest.fail.Exception, match="taps"):
            layer(x)
    assert expected.dtype == torch.float64


@pytest.mark.parametrize(
    ("x", "weight", "groups"),
    [
        (noise(1, 4, 5, 5), noise(8, 1, 3, 3), 4),
        (noise(1, 4, 5, 5), noise(4, 2, 3, 3), 2),
        (noise(1, 1, 5, 5), noise(1, 1, 3, 3), 1),
        (noise(4, 4, 5), noise(4, 1, 3, 3), 4),
        (noise(1, 4, 5, 5).float(), noise(4, 1, 3, 3).float(), 4),
    ],
    ids=["several outputs a channel", "groups of channels", "one channel", "no batch", "float32"],
)
def test_other_convolutions_are_left_to_torch(x, weight, groups):
    with in_float64(nn.Identity()):
        found = F.conv2d(x, weight, None, groups=groups)
    assert torch.equal(found, F.conv2d(x, weight, None, groups=groups))


class Tripled(torch.Tensor):
    """A tensor whose convolution is its own."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = super().__torch_function__(func, types, args, kwargs)
        return 3 * found if func is F.conv2d else found


def test_tensors_with_a_convolution_of_their_own_keep_it():
    x, weight = noise(1, 4, 5, 5), noise(4, 1, 3, 3)
    with in_float64(nn.Identity()):
        found = F.conv2d(x, weight.as_subclass(Tripled), groups=4)
    assert torch.allclose(found.as_subclass(torch.Tensor), 3 * F.conv2d(x, weight, groups=4))


@pytest.mark.parametrize(
    ("weight", "bias"),
    [(noise(4, 1, 3, 3).float(), None), (noise(4, 1, 3, 3), noise(4).float()), (noise(4, 2, 3, 3), None)],
    ids=["a weight in float32", "a bias in float32", "two inputs a channel"],
)
def test_what_torch_refuses_is_refused(weight, bias):
    with in_float64(nn.Identity()), pytest.raises(RuntimeError):
        F.conv2d(noise(1, 4, 5, 5), weight, bias, groups=4)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_kernels_can_be_mapped_over():
    x, weights = noise(2, 4, 5, 5), noise(3, 4, 1, 3, 3)
    with in_float64(nn.Identity()):
        found = torch.func.vmap(lambda weight: F.conv2d(x, weight, groups=4))(weights)
    assert torch.allclose(found, torch.stack([F.conv2d(x, weight, groups=4) for weight in weights]))


def test_channels_stay_last():
    x = noise(2, 4, 5, 6).to(memory_format=torch.channels_last)
    with in_float64(nn.Identity()):
        found = F.conv2d(x, noise(4, 1, 3, 3), groups=4, padding=1)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kernel", [(5, 1), (1, 5)])
def test_a_kernel_that_does_not_fit_fails_as_in_torch(kernel):
    with in_float64(nn.Identity()), pytest.raises(RuntimeError, match="greater than actual input size"):
        F.conv2d(noise(1, 4, 3, 3), noise(4, 1, *kernel), groups=4)


def test_weights_return_exactly_also_after_an_error():
    layer = nn.Conv2d(4, 4, 3, groups=4)
    before = layer.weight.detach().clone()
    with pytest.raises(RuntimeError, match="channels"), in_float64(layer):
        layer(noise(1, 3, 5, 5))
    assert layer.weight.dtype == torch.float32
    assert torch.equal(layer.weight, before)


def test_nothing_of_it_stays_behind():
    with in_float64(nn.Identity()):
        inside = torch.overrides._len_torch_function_stack()
    assert torch.overrides._len_torch_function_stack() == inside - 1
