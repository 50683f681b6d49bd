"""What the catalog says of the poolings, their options and refusals, and that both forms of a layer are equal."""

from __future__ import annotations

import pytest
import torch
from support.loops import GEOMETRIES, layer, signed
from torch.autograd import forward_ad

import poolzoo
from poolzoo.common.errors import UsageError
from poolzoo.plugin import loader, spec

ITEMS = [entry.item for entry in loader.load_plugins(installed=False).select(spec.Pooling)]
BOTH = [(item.name, item.kind) for item in ITEMS]

# The strategies that the project promises, and the slots that each must fill.
PROMISED = {
    "global": "avg max min avgmax catavgmax gem lp lse soft mixed gated stochastic attention map simpool topk std spp "
    "cov netvlad median depth adaptive strip rmac bilinear cbp quantile prr",
    "local": "avg max min avgmax gem lp lse soft mixed gated stochastic fractional blur maxblur topk aps lip spectral "
    "wavelet median depth adaptive strip variable lps s2d s3 subsample conv",
}
WITHOUT_PAPER = {"min", "catavgmax", "median", "quantile", "adaptive", "variable", "subsample"}


def test_the_promised_strategies_are_there():
    promised = {(name, kind) for kind, names in PROMISED.items() for name in names.split()}
    assert set(BOTH) == promised
    assert len({name for name, _ in BOTH}) >= 33


@pytest.mark.parametrize(("name", "kind"), BOTH)
def test_each_says_what_it_computes_and_who_published_it(name, kind):
    found = loader.catalog().pooling(name, kind)
    item = found.item
    assert item.summary
    assert item.equation
    assert item.tex
    assert bool(item.paper) == (name not in WITHOUT_PAPER)
    assert found.build.__doc__, "the layer has no docstring"


@pytest.mark.parametrize(("name", "kind"), BOTH)
def test_each_says_whether_it_learns_and_draws(name, kind):
    item = loader.catalog().pooling(name, kind).item
    channels = 66 if name in ("cov", "bilinear") else 6  # so many are reduced by a convolution
    pool = layer(name, kind, channels=channels).train()
    assert item.parameter_free == (not list(pool.parameters()))
    x = signed(2, channels, 9, 9)
    torch.manual_seed(0)
    assert item.stochastic == (len({pool(x).sum().item() for _ in range(4)}) > 1)


def test_python_and_the_command_line_list_the_same(poolzoo):
    rows = poolzoo("list", "poolings", "--json").json["poolings"]
    assert {(row["name"], kind) for row in rows for kind in row["kinds"]} == set(BOTH)
    import poolzoo as package  # the fixture has the name

    assert package.list_poolings() == sorted({name for name, _ in BOTH})
    for kind in ("global", "local"):
        assert package.list_poolings(kind=kind) == sorted(name for name, of in BOTH if of == kind)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *((t, "global") for t in ("gem:p=0", "gem:eps=0", "gem:p=nan", "lse:r=0", "lp:p=-1", "adaptive:size=0")),
        *((t, "global") for t in ("spp:levels=0-2", "topk:k=0", "quantile:q=2", "depth:group=0", "map:heads=5")),
        *((t, "global") for t in ("cov:steps=0", "cov:width=-1", "cbp:width=1", "netvlad:clusters=0", "rmac:levels=0")),
        *((t, "global") for t in ("map:ratio=0", "mixed:share=nobody")),
        *((t, "local") for t in ("blur:taps=2", "topk:k=0", "gem:p=0", "s3:grid=3", "lps:temperature=0")),
        ("wavelet:wavelet=db9", "local"),
    ],
)
def test_options_out_of_range_are_refused_with_their_name(text, kind):
    name = text.split(":")[1].split("=")[0]
    with pytest.raises((ValueError, poolzoo.common.errors.UsageError), match=name):
        poolzoo.create_pooling(text, 24, kind)


@pytest.mark.parametrize(
    ("name", "geometry", "word"),
    [
        ("fractional", (3, 1, 1, False), "stride=1"),
        ("spectral", (3, 1, 1, False), "stride=1"),
        ("wavelet", (3, 2, 1, False), "kernel_size=3"),
        ("wavelet", (2, 2, 1, False), "padding=1"),
    ],
)
def test_an_impossible_geometry_is_refused_when_building_the_layer(name, geometry, word):
    with pytest.raises(ValueError, match=word):
        layer(name, "local", geometry)


@pytest.mark.parametrize(
    "name", [n for n, kind in BOTH if kind == "local" and n not in ("fractional", "spectral", "wavelet")]
)
def test_all_others_take_every_usual_geometry(name):
    for geometry in GEOMETRIES:
        layer(name, "local", geometry)


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (13, 9)], ids=str)
@pytest.mark.parametrize(("name", "kind"), [*BOTH, ("lp:p=1", "global")])
def test_the_form_for_export_is_the_form_for_training(monkeypatch, name, kind, size):
    """Layers with two forms choose by `is_exporting`; both must give the same numbers, to 1e-6."""
    exporting = False
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    for geometry in GEOMETRIES if kind == "local" else GEOMETRIES[:1]:
        try:
            pool = layer(name, kind, geometry).float()
        except ValueError:  # a geometry that it refuses
            continue
        x = signed(2, 6, *size).float()
        exporting = False
        usual = pool(x)
        exporting = True
        torch.testing.assert_close(pool(x), usual, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("exporting", [False, True])
@pytest.mark.parametrize(("name", "kind"), BOTH)
def test_half_precision_gives_half_precision(monkeypatch, name, kind, exporting):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    pool = layer(name, kind).bfloat16()
    assert pool(signed(2, 6, 8, 8).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["soft", "lse", "lp", "gem"])
def test_the_form_for_export_takes_large_values(monkeypatch, name):
    pool, x = layer(name, "local").float(), 1e4 * signed(2, 6, 8, 8).float()
    usual = pool(x)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(pool(x), usual, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["topk", "median", "quantile"])
@pytest.mark.parametrize("gradients", [True, False])
def test_forward_derivatives_need_no_gradients(name, gradients):
    x, tangent = signed(2, 6, 4, 4).float(), signed(2, 6, 4, 4, seed=1).float()
    pool = layer(name).float()
    with torch.set_grad_enabled(gradients), forward_ad.dual_level():
        found = forward_ad.unpack_dual(pool(forward_ad.make_dual(x, tangent))).tangent
    step = 1e-3
    expected = (pool(x.double() + step * tangent) - pool(x.double() - step * tangent)) / (2 * step)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 1.0])
def test_short_residuals_of_netvlad_are_normalized_alike_in_both_forms(monkeypatch, scale):
    pool = poolzoo.create_pooling("netvlad:normalize_input=false", 6)
    pool.centers.data *= scale
    x = scale * signed(2, 6, 4, 4).float()
    usual = pool(x)
    assert 0 < float(usual.detach().norm(dim=1).max()) < 1.001
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(pool(x), usual, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("size", [(4, 4), (13, 9), (1, 1)], ids=str)
@pytest.mark.parametrize(
    "name", ["rmac", "rmac:levels=5", "spp", "spp:levels=1-3", "topk", "topk:k=1", "median", "quantile", "quantile:q=1"]
)
def test_evaluation_gives_the_bits_of_training_in_any_memory_layout(name, size):
    pool = poolzoo.create_pooling(name, 24).eval()
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = signed(3, 24, *size).float().contiguous(memory_format=memory_format)
        x[0, 0, 0, 0], x[1, 1, 0, 0], x[2, 2, -1, -1] = torch.nan, torch.inf, -torch.inf
        with_gradients = pool(x)
        with torch.inference_mode():
            torch.testing.assert_close(pool(x), with_gradients, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("size", [(4, 4), (5, 3)], ids=str)
@pytest.mark.parametrize("name", [name for name, kind in BOTH if kind == "global"])
def test_memory_layout_changes_neither_values_nor_gradients(name, size):
    pool = layer(name, "global", GEOMETRIES[0]).float().eval()
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = signed(3, 6, *size).float().contiguous(memory_format=memory_format).requires_grad_()
        pool.zero_grad()
        y = pool(x)
        y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape))
        found.append([y, x.grad, *(parameter.grad for parameter in pool.parameters())])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gem", "gem:p=9", "lse", "lp:learnable=true", "netvlad", "gated", "bilinear:width=3"])
def test_parameters_learn_the_same_from_a_map_without_gradients(name):
    torch.manual_seed(0)
    pool = poolzoo.create_pooling(name, 6, map_size=(4, 4))
    x = signed(3, 6, 4, 4).float().contiguous(memory_format=torch.channels_last)
    found = []
    for has_gradients in (False, True):
        pool.zero_grad()
        y = pool(x.detach().requires_grad_(has_gradients))
        y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape))
        found.append([y.detach(), *(parameter.grad for parameter in pool.parameters())])
    assert all(float(gradient.abs().max()) > 1e-4 for gradient in found[0][1:])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_constants_are_made_once_and_serve_training_after_inference():
    pool = poolzoo.create_pooling("spectral", 3, "local")
    with torch.inference_mode():
        pool(signed(1, 3, 12, 12).float())
    x = signed(1, 3, 12, 12).float().requires_grad_()
    pool(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("name", ["gem", "lse", "lp"])
def test_a_fixed_exponent_is_no_parameter(name):
    assert not list(poolzoo.create_pooling(f"{name}:learnable=false", 6).parameters())
    assert len(list(poolzoo.create_pooling(f"{name}:learnable=true", 6).parameters())) == 1


def test_more_levels_than_a_map_has_regions_add_none():
    x = torch.rand(2, 3, 4, 6)
    most, many = (poolzoo.create_pooling(f"rmac:levels={levels}", 3) for levels in (7, 10**9))
    assert torch.equal(most(x), many(x))


@pytest.mark.parametrize("pool", ["spp:levels=1-999999999", "spp:levels=" + "9" * 5000])
def test_grids_larger_than_any_map_are_refused(pool):
    with pytest.raises(UsageError, match="levels"):
        poolzoo.create_pooling(pool, 3)
