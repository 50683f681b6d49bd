"""The wavelet poolings against PyWavelets' own transform, and against everything that poolzoo asks of a pooling."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import poolzoo
import pytest
import pywt
import torch
from poolzoo import Pooling, testing
from torch import Tensor, nn

import poolzoo_wavelet

MODULE = Path(poolzoo_wavelet.__file__)
ITEMS = list(poolzoo_wavelet.poolzoo_poolings())
BUILD = {(item.name.removeprefix("wavelet-"), item.kind): item.build for item in ITEMS}
SIZES = [(8, 8), (16, 10), (7, 5), (5, 12), (1, 1), (1, 2), (2, 2), (3, 3), (2, 7), (4, 1), (33, 3)]
every_wavelet = pytest.mark.parametrize("wavelet", poolzoo_wavelet.WAVELETS)
every_item = pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item.name}-{item.kind}")


@pytest.fixture
def catalog() -> Iterator[Any]:
    """What there is with this plugin and no other, until the test ends."""
    yield poolzoo.load_plugins(MODULE, installed=False)
    poolzoo.load_plugins()


def signed(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def peer(x: Tensor, wavelet: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """PyWavelets' bands LL, LH, HL, HH (first letter: along the height), `float[N, C, ⌈H/2⌉, ⌈W/2⌉]` each."""
    low, (horizontal, vertical, diagonal) = pywt.dwt2(x.numpy(), wavelet, mode="periodization", axes=(2, 3))
    return low, vertical, horizontal, diagonal


def equal(found: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)


# --- Against PyWavelets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "{}x{}".format(*size))
@every_wavelet
def test_local_layer_with_ceil_mode_matches_the_pywavelets_band(wavelet, size):
    x = signed(2, 3, *size)
    equal(BUILD[wavelet, "local"](3, 2, 2, 0, True).double()(x), peer(x, wavelet)[0])


@pytest.mark.parametrize("size", [size for size in SIZES if min(size) > 1], ids=lambda size: "{}x{}".format(*size))
@every_wavelet
def test_local_layer_without_ceil_mode_drops_the_last_odd_row(wavelet, size):
    x = signed(2, 3, *size)
    even = x[:, :, : size[0] // 2 * 2, : size[1] // 2 * 2]
    equal(BUILD[wavelet, "local"](3, 2, 2, 0, False).double()(x), peer(even, wavelet)[0])


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "{}x{}".format(*size))
@every_wavelet
def test_global_layer_is_the_mean_magnitude_of_pywavelets_bands(wavelet, size):
    x = signed(2, 3, *size)
    low, *details = peer(x, wavelet)
    expected = np.concatenate([low.mean((2, 3)), *(np.abs(band).mean((2, 3)) for band in details)], axis=1)
    equal(BUILD[wavelet, "global"](3).double()(x), expected)


def test_edge_direction_separates_the_bands():
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)  # vertical: they change along the width
    for wavelet in poolzoo_wavelet.WAVELETS:
        for x, strong in ((stripes, 1), (stripes.transpose(2, 3), 2), (stripes * stripes.transpose(2, 3), 3)):
            y = BUILD[wavelet, "global"](1)(x)[0]
            assert y.argmax() == strong, (wavelet, strong, y)
            assert y[torch.arange(4) != strong].abs().max() < 1e-5, (wavelet, y)


@every_wavelet
def test_a_step_doubles_the_mean_of_an_even_map(wavelet):
    x = signed(2, 3, 6, 4)
    twice = 2 * x.mean((2, 3))
    torch.testing.assert_close(BUILD[wavelet, "local"](3, 2, 2, 0, False)(x).mean((2, 3)), twice, rtol=0, atol=1e-10)
    torch.testing.assert_close(BUILD[wavelet, "global"](3)(x)[:, :3], twice, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (5, 12)], ids=lambda size: "{}x{}".format(*size))
def test_db2_is_the_db2_of_the_built_in_wavelet(catalog, size, ceil_mode):
    geometry = {"kind": "local", "kernel_size": 2, "stride": 2, "padding": 0, "ceil_mode": ceil_mode}
    ours = poolzoo.create_pooling("wavelet-db2", channels=3, **geometry).double()
    built_in = poolzoo.create_pooling("wavelet:wavelet=db2", channels=3, **geometry).double()
    x = signed(2, 3, *size)
    torch.testing.assert_close(ours(x), built_in(x), rtol=0, atol=1e-10)


# --- What poolzoo asks of a pooling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("check", testing.CHECKS)
@every_item
def test_every_pooling_keeps_its_promises(item: Pooling, check: str):
    testing.run_check(check, item)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_local_maps_have_the_size_that_max_pooling_gives(ceil_mode):
    ours, max_pool = BUILD["db4", "local"](2, 2, 2, 0, ceil_mode), nn.MaxPool2d(2, 2, ceil_mode=ceil_mode)
    for height in range(2 - ceil_mode, 12):
        for width in range(2 - ceil_mode, 12):
            x = torch.zeros(1, 2, height, width)
            assert ours(x).shape == max_pool(x).shape, (height, width)


def test_a_map_without_a_window_is_refused_in_words():
    with pytest.raises(ValueError, match="1 × 5 holds no window"):
        BUILD["db2", "local"](2, 2, 2, 0, False)(torch.zeros(1, 2, 1, 5))


@every_wavelet
def test_another_geometry_is_refused_with_the_way_out(wavelet):
    for geometry in ((3, 2, 1, False), (3, 2, 0, True), (2, 1, 0, False), (4, 4, 0, False), (2, 2, 1, False)):
        with pytest.raises(ValueError, match="is no wavelet step") as caught:
            BUILD[wavelet, "local"](8, *geometry)
        assert "kernel_size={}, stride={}, padding={}".format(*geometry) in str(caught.value)
        assert f"--local-pool wavelet-{wavelet}:window=2,stride=2,padding=0" in str(caught.value)


def test_the_way_out_is_one(catalog):
    network = poolzoo.create_model(
        "timm/resnet18", local_pool="wavelet-db2:window=2,stride=2,padding=0", num_classes=3, image_size=64
    )
    assert "LowPass(db2" in str(network)
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def test_a_layer_trains_after_use_in_inference_mode():
    layer, x = BUILD["coif1", "global"](2), torch.ones(1, 2, 9, 11)
    with torch.inference_mode():
        layer(x)
    x.requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None


# --- The plugin ------------------------------------------------------------------------------------------------------


def test_every_wavelet_loads_in_both_kinds_without_options(catalog):
    assert catalog.problems == []
    for wavelet in poolzoo_wavelet.WAVELETS:
        for kind, arguments in (("global", 1), ("local", 5)):
            found = catalog.pooling(f"wavelet-{wavelet}", kind)
            assert found.entry.source.dist == MODULE.stem
            assert len(inspect.signature(found.build).parameters) == arguments
        with pytest.raises(poolzoo.common.errors.UsageError, match="has no option 'wavelet'"):
            catalog.pooling(f"wavelet-{wavelet}:wavelet=db3", "global")


def test_the_bare_name_wavelet_stays_the_built_in_one(catalog):
    assert catalog.pooling("wavelet", "local").entry.source.dist == "poolzoo"


def test_listing_the_poolings_imports_neither_torch_nor_pywt():
    code = (
        "import sys, poolzoo_wavelet; list(poolzoo_wavelet.poolzoo_poolings());"
        "print([name for name in ('torch', 'pywt', 'numpy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(MODULE.parents[1])!r}); {code}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
