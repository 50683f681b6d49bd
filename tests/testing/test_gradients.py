"""Gradients of the built-in poolings where maps are degenerate, at the ends of what their options can be."""

from __future__ import annotations

import pytest
import torch

import poolzoo
from poolzoo.common.errors import UsageError
from poolzoo.testing import gradients

EXTREMES = [
    *(f"gem:p={p}" for p in (0.1, 1, 5, 8, 100, 1e4)),
    *("gem:eps=1e-12", "gem:eps=1", "gem:p=0.5,learnable=false", "gem:p=100,learnable=false"),
    *(f"lp:p={p}" for p in (0.5, 1, 3, 10, 1e4)),
    *(f"lse:r={r}" for r in (1e-3, 1, 100, 1e4)),
    *("lps:temperature=1e-6", "lps:temperature=1e3", "topk:k=1", "topk:k=1000", "quantile:q=0", "quantile:q=1"),
    *("netvlad:clusters=1", "netvlad:clusters=64", "netvlad:normalize_input=false", "rmac:levels=1", "rmac:levels=10"),
    *("cov:steps=1", "cov:steps=25", "cov:width=0", "bilinear:width=0", "bilinear:width=1", "cbp:width=2"),
]
LOCAL = ("gem", "lp", "lse", "lps", "topk")  # of the names above
ONLY_LOCAL = ("lps",)


def kinds(spec: str) -> list[str]:
    name = spec.partition(":")[0]
    return (["local"] if name in LOCAL else []) + ([] if name in ONLY_LOCAL else ["global"])


@pytest.mark.parametrize(("spec", "kind"), [(spec, kind) for spec in EXTREMES for kind in kinds(spec)])
def test_gradients_are_bounded_at_the_ends_of_options(spec, kind):
    torch.manual_seed(0)
    geometry = {"kernel_size": 2, "stride": 2} if kind == "local" else {}
    layer = poolzoo.create_pooling(spec, channels=24, kind=kind, **geometry)
    assert list(gradients.unbounded(layer.train(), 24)) == []


@pytest.mark.parametrize("name", ["rmac", "netvlad", "bilinear", "cbp"])
def test_a_map_of_zeros_leaves_the_stem_finite(name):
    """What a dead network gives, and one step of training on it."""
    torch.manual_seed(0)
    stem = torch.nn.Conv2d(3, 24, 3, padding=1)
    torch.nn.init.zeros_(stem.weight)
    torch.nn.init.zeros_(stem.bias)
    pooled = poolzoo.create_pooling(name, channels=24)(stem(torch.rand(2, 3, 8, 8)))
    (pooled * torch.randn(pooled.shape)).sum().backward()
    assert float(stem.bias.grad.abs().max()) < 1e5  # with a floor of 1e-12 it is 1e13


@pytest.mark.parametrize("name", ["rmac", "netvlad"])
def test_what_is_normalized_still_has_length_one(name):
    """The floor under the norm is far below ordinary maps: each image's last normalization gives a unit vector."""
    x = torch.rand(3, 24, 7, 7, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    y = poolzoo.create_pooling(f"{name}:levels=1" if name == "rmac" else name, channels=24)(0.05 * x)
    lengths = y.norm(dim=1)
    if name == "netvlad":
        torch.testing.assert_close(lengths, torch.ones(3))
    else:  # the whole map, and one square that is all of it
        torch.testing.assert_close(lengths, torch.full((3,), 2.0))


def test_the_steepest_root_changes_no_value():
    """Bilinear pooling computes the same with and without gradients, dead channels or not."""
    x = torch.randn(2, 24, 4, 4, generator=torch.Generator().manual_seed(0)).relu()
    x[:, :3] = 0
    layer = poolzoo.create_pooling("bilinear", channels=24)
    with torch.no_grad():
        expected = layer(x)
    assert torch.equal(layer(x.requires_grad_()), expected)


def test_cov_refuses_steps_that_lose_every_digit():
    with pytest.raises(UsageError, match="steps=30 must be from 1 to 25"):
        poolzoo.create_pooling("cov:steps=30", channels=24)
