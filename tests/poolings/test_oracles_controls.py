"""The two controls against loops in numpy and scipy's correlation, at every geometry that `nn.MaxPool2d` takes."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.signal import correlate2d
from support.loops import assert_equal, by_planes, fill, layer, output_size, signed
from torch import nn
from torch.nn import functional as F

import poolzoo
from poolzoo.model.surgery import output_channels

GEOMETRIES = [
    (kernel_size, stride, padding, ceil_mode)
    for kernel_size, stride in itertools.product((1, 2, 3, 4), (1, 2, 3))
    for padding in range(kernel_size // 2 + 1)
    for ceil_mode in (False, True)
]
SIZES = [(8, 8), (7, 5), (9, 10), (4, 6)]
BEYOND = [(2, 2, 1, False), (3, 2, 1, True), (3, 3, 0, True), (4, 3, 2, True)]  # where centers lie beyond the border
each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
each_beyond = pytest.mark.parametrize("geometry", BEYOND, ids=str)
CONVS = pytest.mark.parametrize("text", ["conv", "conv:depthwise=true"])


def middle(start: int, kernel_size: int, length: int) -> int:
    """The middle of a window, the earlier of two; where that is no position of the map, the nearest that it holds."""
    center = (2 * start + kernel_size - 1) // 2
    return min((i for i in range(start, start + kernel_size) if 0 <= i < length), key=lambda i: abs(i - center))


def middles(plane: np.ndarray, geometry) -> list[tuple[int, int, float]]:
    kernel_size, stride, padding, _ = geometry
    found = []
    for i, j in np.ndindex(*output_size(plane.shape, geometry)):
        row = middle(i * stride - padding, kernel_size, plane.shape[0])
        column = middle(j * stride - padding, kernel_size, plane.shape[1])
        found.append((i, j, plane[row, column]))
    return found


def framed(plane: np.ndarray, geometry) -> np.ndarray:
    """The plane in zeros, more of them than any window reaches."""
    kernel_size, _, padding, _ = geometry
    return np.pad(plane, (padding, padding + 2 * kernel_size))


def correlated(x: torch.Tensor, weight: np.ndarray, bias: np.ndarray, geometry) -> np.ndarray:
    """scipy's correlation of the framed planes at stride 1, summed over channels and thinned to the windows."""
    stride = geometry[1]
    rows, columns = output_size(x.shape, geometry)
    result = np.zeros((len(x), len(weight), rows, columns))
    for n, d in np.ndindex(*result.shape[:2]):
        depthwise = weight.shape[1] == 1 and x.shape[1] > 1
        dense = sum(
            correlate2d(framed(x[n, d if depthwise else c].numpy(), geometry), weight[d, c], mode="valid")
            for c in range(weight.shape[1])
        )
        result[n, d] = bias[d] + dense[: rows * stride : stride, : columns * stride : stride]
    return result


# --- subsample -------------------------------------------------------------------------------------------------------


@each_geometry
def test_subsample_reads_the_middle_of_each_window(geometry):
    for size in SIZES:
        x = signed(2, 3, *size)
        expected = by_planes(x, geometry, lambda plane: middles(plane, geometry))
        assert_equal(layer("subsample", "local", geometry, 3)(x), expected, 0.0)


@each_geometry
def test_subsample_never_reads_the_padding(geometry):
    """Maps without zeros whose values tell their places: each output names a place inside its own window."""
    kernel_size, stride, padding, _ = geometry
    for height, width in SIZES:
        places = 1 + torch.arange(height * width).view(1, 1, height, width).double()
        found = layer("subsample", "local", geometry, 1)(places)[0, 0].long() - 1
        assert found.shape == output_size((height, width), geometry)
        for i, j in np.ndindex(*found.shape):
            row, column = divmod(found[i, j].item(), width)
            assert i * stride - padding <= row < i * stride - padding + kernel_size, (height, width, i)
            assert j * stride - padding <= column < j * stride - padding + kernel_size, (height, width, j)


@pytest.mark.parametrize("geometry", [(2, 2, 0, False), (3, 2, 1, False)], ids=str)
def test_subsample_at_the_usual_geometries_is_every_second_position(geometry):
    x = signed(2, 3, 8, 8)
    assert_equal(layer("subsample", "local", geometry, 3)(x), x[:, :, ::2, ::2], 0.0)


@pytest.mark.parametrize("geometry", [(2, 2, 0, False), (3, 2, 1, False), (3, 2, 0, True)], ids=str)
def test_subsample_and_blur_differ_by_the_filter_alone(geometry):
    x = signed(2, 3, 8, 8)
    assert_equal(layer("subsample", "local", geometry, 3)(x), layer("blur:taps=1", "local", geometry, 3)(x), 0.0)
    ramp = torch.arange(8.0).double().expand(1, 3, 8, 8)  # a filter that is symmetric leaves its inside alone
    inside = layer("subsample", "local", geometry, 3)(ramp)[..., 1:-1]
    assert_equal(layer("blur", "local", geometry, 3)(ramp)[..., 1:-1], inside)


def test_subsample_is_as_sensitive_to_shifts_as_can_be():
    """A chequered map becomes all ones, and all zeros when it is shifted by one; its mean stays a half."""
    x = (torch.arange(8) % 2 == 0).double().expand(1, 3, 8, 8)
    pool, mean = layer("subsample", "local", channels=3), layer("avg", "local", channels=3)
    assert pool(x).min() == 1
    assert pool(x.roll(1, 3)).max() == 0
    assert torch.equal(mean(x), mean(x.roll(1, 3)))


def test_in_place_layers_behind_subsample_leave_the_map_alone():
    for geometry in GEOMETRIES:
        x = -signed(1, 3, 6, 6).abs()
        before = x.clone()
        layer("subsample", "local", geometry, 3)(x).relu_()
        assert torch.equal(x, before), geometry


# --- conv ------------------------------------------------------------------------------------------------------------


@each_geometry
@CONVS
def test_conv_is_scipys_correlation_thinned_to_the_windows(text, geometry):
    for size in SIZES:
        x = signed(2, 3, *size)
        pool = fill(layer(text, "local", geometry, 3))
        weight, bias = pool.weight.detach().numpy(), pool.bias.detach().numpy()
        assert weight.shape == (3, 1 if "depthwise" in text else 3, geometry[0], geometry[0])
        assert_equal(pool(x), correlated(x, weight, bias, geometry))


@pytest.mark.parametrize("geometry", [(2, 2, 0, False), (3, 2, 1, False), (3, 1, 1, False), (5, 3, 2, False)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@CONVS
def test_conv_is_torchs_layer_with_the_same_weights(text, geometry, size):
    kernel_size, stride, padding, _ = geometry
    pool = fill(layer(text, "local", geometry, 6))
    groups = 6 if "depthwise" in text else 1
    peer = nn.Conv2d(6, 6, kernel_size, stride, padding, groups=groups).double()
    peer.load_state_dict(pool.state_dict())
    x = signed(2, 6, *size)
    assert_equal(pool(x), peer(x), 1e-14)


@each_geometry
@CONVS
def test_conv_starts_as_the_mean_with_zeros_beyond_the_border(text, geometry):
    kernel_size, stride = geometry[:2]
    x = signed(2, 3, 7, 5)
    expected = np.zeros((2, 3, *output_size(x.shape, geometry)))
    for n, c, i, j in np.ndindex(*expected.shape):
        plane = framed(x[n, c].numpy(), geometry)
        window = plane[i * stride : i * stride + kernel_size, j * stride : j * stride + kernel_size]
        expected[n, c, i, j] = window.sum() / kernel_size**2
    assert_equal(layer(text, "local", geometry, 3)(x), expected, 1e-7)  # 1/9 is rounded to float32


def test_conv_draws_no_random_numbers_when_built():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    layer("conv", "local")
    assert torch.equal(torch.get_rng_state(), state)


@CONVS
def test_conv_learns_a_pooling_that_it_does_not_start_as(text):
    """Subsampling is within its reach: least squares find the kernel with a single one, at its first position."""
    x = signed(64, 4, 8, 8)
    pool = layer(text, "local", channels=4).train()
    optimizer = torch.optim.LBFGS(pool.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        error = F.mse_loss(pool(x), x[:, :, ::2, ::2])
        error.backward()
        return error

    started = loss().item()
    optimizer.step(loss)
    assert started > 0.1
    assert loss().item() < 1e-8
    own = pool.weight.detach()[range(4), 0 if "depthwise" in text else range(4)]
    assert_equal(own, torch.tensor([[1.0, 0], [0, 0]]).double().expand(4, 2, 2), 1e-3)


# --- Both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["subsample", "conv", "conv:depthwise=true"])
def test_they_keep_the_channels_and_replace_pools_in_backbones(text):
    assert output_channels(poolzoo.create_pooling(text, 24, "local"), 24) == 24
    x = signed(2, 3, 32, 32).float()
    model = poolzoo.create_model("nano/plain", pool="avg", local_pool=text, num_classes=3, image_size=32)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@each_beyond
@pytest.mark.parametrize("text", ["subsample", "conv", pytest.param("conv:depthwise=true", marks=pytest.mark.slow)])
def test_they_export_where_windows_reach_beyond_the_border(tmp_path, text, geometry):
    pool = fill(layer(text, "local", geometry, 3)).float()
    path = tmp_path / "layer.onnx"
    x = signed(5, 3, 7, 8).float()
    torch.onnx.export(pool, (x[:2],), path, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    expected = (
        by_planes(x, geometry, lambda plane: middles(plane, geometry))
        if text == "subsample"
        else correlated(x.double(), pool.weight.double().detach().numpy(), pool.bias.detach().numpy(), geometry)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@each_beyond
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_they_take_half_precision_where_windows_reach_beyond_the_border(geometry, dtype):
    x = signed(2, 3, 7, 8).to(dtype)
    expected = by_planes(x.float(), geometry, lambda plane: middles(plane, geometry))
    found = layer("subsample", "local", geometry, 3).to(dtype)(x)
    assert found.dtype == dtype
    assert_equal(found.float(), expected, 0.0)
    pool = fill(layer("conv", "local", geometry, 3)).to(dtype)
    weight, bias = pool.weight.detach().double().numpy(), pool.bias.detach().double().numpy()
    assert_equal(pool(x).double(), correlated(x.double(), weight, bias, geometry), 0.02)
