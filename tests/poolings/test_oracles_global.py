"""Every global strategy against an implementation that is not ours: timm's, torch's, scipy's, or numpy's by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from support.loops import assert_equal, fill, layer, signed
from torch import nn
from torch.nn import functional as F

INPUTS = {
    "random": signed(3, 6, 7, 5),
    "square": signed(2, 6, 8, 8, seed=1),
    "positive": signed(3, 6, 4, 4, seed=2).abs(),
    "one position": signed(2, 6, 1, 1, seed=3),
    "zeros": torch.zeros(2, 6, 4, 4).double(),
    "large": 1e3 * signed(2, 6, 4, 4, seed=4),
}
each_input = pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)


def planes(x: torch.Tensor) -> np.ndarray:
    """`float64[N, C, HW]`."""
    return x.flatten(2).numpy()


# --- Means and maxima ------------------------------------------------------------------------------------------------


@each_input
@pytest.mark.parametrize("name", ["avg", "max", "avgmax", "catavgmax"])
def test_the_four_that_timm_has_are_timms(name, x):
    from timm.layers import SelectAdaptivePool2d

    assert_equal(layer(name)(x), SelectAdaptivePool2d(pool_type=name, flatten=True)(x))


def test_catavgmax_has_the_mean_first_and_fastai_has_it_last():
    x = signed(2, 6, 4, 4)
    assert_equal(layer("catavgmax")(x), np.concatenate((planes(x).mean(2), planes(x).max(2)), 1))


@each_input
def test_min_is_numpys(x):
    assert_equal(layer("min")(x), planes(x).min(2))


@each_input
@pytest.mark.parametrize("share", ["layer", "channel"])
def test_mixed_is_its_formula(x, share):
    pool = fill(layer(f"mixed:share={share}"))
    assert pool.weight.shape == {"layer": (1,), "channel": (6,)}[share]
    a = scipy.special.expit(pool.weight.detach().numpy())
    assert_equal(pool(x), a * planes(x).max(2) + (1 - a) * planes(x).mean(2))


@each_input
def test_mixed_and_gated_start_as_timms_avgmax(x):
    from timm.layers import SelectAdaptivePool2d

    for name in ("mixed", "gated"):
        assert_equal(layer(name)(x), SelectAdaptivePool2d(pool_type="avgmax", flatten=True)(x))


def test_gated_is_its_formula_at_other_sizes_too():
    x = signed(3, 6, 7, 5)
    pool = fill(layer("gated", map_size=(7, 5)))
    gate = scipy.special.expit((planes(x) * pool.weight.detach().flatten(2).numpy()).sum(2))
    assert_equal(pool(x), gate * planes(x).max(2) + (1 - gate) * planes(x).mean(2))
    pool.weight.data.fill_(0.01)
    constant = torch.full((1, 6, 14, 10), 2.0).double()
    constant[..., 0, 0] = 3  # a constant map has equal mean and maximum, so one position differs
    gate = scipy.special.expit(0.01 * 35 / 140 * constant.sum((2, 3)).numpy())
    expected = gate * 3 + (1 - gate) * planes(constant).mean(2)
    assert_equal(pool(constant), expected)


# --- Powers and exponentials -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 4.5, 7.0])
@pytest.mark.parametrize("learnable", ["true", "false"])
def test_gem_is_torchs_lp_pool_over_the_number_of_positions(p, learnable):
    x = signed(3, 6, 7, 5).abs() + 0.01
    expected = F.lp_pool2d(x, p, (7, 5)).flatten(1) / 35 ** (1 / p)
    assert_equal(layer(f"gem:p={p},learnable={learnable}")(x), expected)


@each_input
def test_gem_clamps_what_is_not_positive(x):
    assert_equal(layer("gem")(x), (planes(x).clip(1e-6) ** 3).mean(2) ** (1 / 3))


@each_input
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, 7.0])
@pytest.mark.parametrize("learnable", ["true", "false"])
def test_lp_is_a_norm_in_numpy(x, p, learnable):
    assert_equal(layer(f"lp:p={p},learnable={learnable}")(x), (np.abs(planes(x)) ** p).sum(2) ** (1 / p))


def test_lp_is_torchs_lp_pool_only_where_nothing_is_negative():
    """`nn.LPPool2d` sums x^p, not |x|^p: no number for odd p and signed input, and a wrong one for p = 1."""
    x = signed(2, 6, 4, 4)
    assert_equal(layer("lp:p=3")(x.abs()), F.lp_pool2d(x.abs(), 3.0, 4).flatten(1))
    assert F.lp_pool2d(x, 1.5, 4).isnan().any()
    assert (F.lp_pool2d(x, 1.0, 4).flatten(1) - x.abs().sum((2, 3))).abs().max() > 1
    assert_equal(layer("lp:p=1")(x), x.abs().sum((2, 3)))


@each_input
@pytest.mark.parametrize("r", [0.5, 10.0])
@pytest.mark.parametrize("learnable", ["true", "false"])
def test_lse_is_scipys_logsumexp_less_the_log_of_positions(x, r, learnable):
    expected = (scipy.special.logsumexp(r * planes(x), axis=2) - np.log(planes(x).shape[2])) / r
    assert_equal(layer(f"lse:r={r},learnable={learnable}")(x), expected)


def test_lse_is_timms():
    from timm.layers.other_pool import LsePlus2d

    x = signed(2, 6, 4, 4)
    assert_equal(layer("lse")(x), LsePlus2d(r=10.0).double()(x))


@pytest.mark.parametrize("text", ["gem:p=20", "gem:p=0.5", "lse:r=100", "lp:p=20", "lp:p=0.5"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_large_parameters_neither_overflow_nor_underflow(text, scale):
    import poolzoo

    pool, exact = poolzoo.create_pooling(text, 3), layer(text, channels=3)
    x = (scale * signed(2, 3, 4, 4)).float().requires_grad_()
    found = pool(x)
    found.sum().backward()
    assert all(torch.isfinite(grad).all() for grad in [x.grad, *(p.grad for p in pool.parameters())])
    torch.testing.assert_close(found, exact(x.double()).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gem:p=5", "lp:p=5,learnable=true"])
def test_a_learnt_exponent_at_its_limit_stands_zeros_and_thousands(name):
    import poolzoo

    for kind in ("global", "local"):
        pool = poolzoo.create_pooling(name, 3, kind)
        for parameter in pool.parameters():
            parameter.data.fill_(7.9)  # as if training had driven it there; 8 is the limit
        for scale in (0.0, 2e-6, 1e-3, 1e3):
            x = (scale * signed(2, 3, 4, 4)).float().requires_grad_()
            y = pool(x)
            y.sum().backward()
            assert y.isfinite().all()
            assert x.grad.isfinite().all()
            assert all(p.grad.isfinite().all() for p in pool.parameters())


@each_input
def test_soft_is_scipys_softmax_times_the_map(x):
    assert_equal(layer("soft")(x), (scipy.special.softmax(planes(x), axis=2) * planes(x)).sum(2))


# --- Attention -------------------------------------------------------------------------------------------------------


def _copy(ours: nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    ours.weight.data.copy_(weight)
    if bias is not None:
        ours.bias.data.copy_(bias)


@pytest.mark.parametrize(("channels", "heads"), [(24, 8), (24, 3), (16, 1)])
def test_attention_is_timms_clip_pool(channels, heads):
    from timm.layers import AttentionPool2d

    theirs = fill(AttentionPool2d(channels, feat_size=(7, 5), num_heads=heads, head_dim=None).double())
    ours = layer(f"attention:heads={heads}", channels=channels, map_size=(7, 5))
    weights, biases = theirs.qkv.weight.chunk(3), theirs.qkv.bias.chunk(3)
    for linear, weight, bias in zip((ours.query, ours.key, ours.value), weights, biases, strict=True):
        _copy(linear, weight, bias)
    _copy(ours.out, theirs.proj.weight, theirs.proj.bias)
    ours.mean_position.data.copy_(theirs.pos_embed[0])
    ours.position.data.copy_(theirs.pos_embed[1:].T.reshape(1, channels, 7, 5))
    x = signed(3, channels, 7, 5)
    assert_equal(ours(x), theirs(x))


@pytest.mark.parametrize(("channels", "heads"), [(24, 8), (24, 2)])
def test_map_is_timms_latent_pool(channels, heads):
    from timm.layers import AttentionPoolLatent

    theirs = fill(AttentionPoolLatent(channels, num_heads=heads, norm_layer=nn.LayerNorm).double())
    ours = layer(f"map:heads={heads}", channels=channels)
    ours.latent.data.copy_(theirs.latent)
    _copy(ours.query, theirs.q.weight, theirs.q.bias)
    for linear, weight, bias in zip(
        (ours.key, ours.value), theirs.kv.weight.chunk(2), theirs.kv.bias.chunk(2), strict=True
    ):
        _copy(linear, weight, bias)
    _copy(ours.out, theirs.proj.weight, theirs.proj.bias)
    _copy(ours.mlp[0], theirs.norm.weight, theirs.norm.bias)
    _copy(ours.mlp[1], theirs.mlp.fc1.weight, theirs.mlp.fc1.bias)
    _copy(ours.mlp[3], theirs.mlp.fc2.weight, theirs.mlp.fc2.bias)
    x = signed(3, channels, 7, 5)
    assert_equal(ours(x), theirs(x.flatten(2).transpose(1, 2)))


@pytest.mark.parametrize("heads", [1, 4])
def test_simpool_is_timms(heads):
    from functools import partial

    from timm.layers.other_pool import SimPool2d

    theirs = fill(SimPool2d(24, num_heads=heads, norm_layer=partial(nn.LayerNorm, eps=1e-6)).double())
    ours = layer(f"simpool:heads={heads}", channels=24)
    _copy(ours.query, theirs.q.weight, None)
    _copy(ours.key, theirs.k.weight, None)
    assert ours.query.bias is ours.key.bias is None
    ours.norm.load_state_dict(theirs.norm.state_dict())
    x = signed(3, 24, 7, 5)
    assert_equal(ours(x), theirs(x))


@pytest.mark.parametrize("heads", [1, 8])
def test_prr_is_timms(heads):
    from timm.layers.attention_pool import AttentionPoolPrr

    x = signed(3, 24, 7, 5)
    theirs = AttentionPoolPrr(24, num_heads=heads, pool_type="avg")(x.flatten(2).transpose(1, 2))
    assert_equal(layer(f"prr:heads={heads}", channels=24)(x), theirs)


@pytest.mark.parametrize("name", ["map", "prr", "simpool"])
def test_without_position_embedding_the_order_of_positions_does_not_matter(name):
    x = signed(2, 24, 4, 4)
    shuffled = x.flatten(2)[:, :, torch.randperm(16)].view_as(x)
    pool = layer(name, channels=24)
    assert_equal(pool(shuffled), pool(x))


@pytest.mark.parametrize(("channels", "heads"), [(24, 8), (7, 7), (6, 6), (288, 8), (11, 1)])
def test_heads_fit_any_number_of_channels(channels, heads):
    assert layer("map", channels=channels).heads == heads


# --- Second order ----------------------------------------------------------------------------------------------------


@each_input
def test_std_is_torchs_biased_variance(x):
    variance = torch.var(x, (2, 3), correction=0)
    assert_equal(layer("std")(x), torch.cat((x.mean((2, 3)), (variance + 1e-5).sqrt()), 1))


def _newton_schulz(matrix: np.ndarray, steps: int) -> np.ndarray:
    """The published iteration as it stands, y and z from the start."""
    trace = np.trace(matrix)
    y, z, three = matrix / trace, np.eye(len(matrix)), 3 * np.eye(len(matrix))
    for _ in range(steps):
        y, z = y @ (three - z @ y) / 2, (three - z @ y) @ z / 2
    return y * np.sqrt(trace)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_cov_is_the_published_iteration_in_numpy(steps):
    x = signed(3, 6, 7, 5)
    expected = [_newton_schulz(np.cov(image, bias=True), steps)[np.triu_indices(6)] for image in planes(x)]
    assert_equal(layer(f"cov:steps={steps}")(x), np.stack(expected))


def test_cov_with_many_steps_is_scipys_matrix_square_root():
    x = signed(3, 6, 8, 8)
    expected = [scipy.linalg.sqrtm(np.cov(image, bias=True)).real[np.triu_indices(6)] for image in planes(x)]
    assert_equal(layer("cov:steps=25")(x), np.stack(expected), 1e-8)


def test_cov_and_bilinear_reduce_wide_maps_with_a_convolution():
    x = signed(2, 96, 4, 4)
    for name, width in (("cov", 64 * 65 // 2), ("bilinear", 64 * 64)):
        pool = layer(name, channels=96)
        alone = layer(name, channels=64)
        assert pool(x).shape == (2, width)
        assert_equal(pool(x), alone(F.conv2d(x, pool.reduce.weight)))


def _rooted(y: np.ndarray) -> np.ndarray:
    s = np.sign(y) * np.sqrt(np.abs(y))
    return s / np.linalg.norm(s, axis=1, keepdims=True)


def test_bilinear_is_an_outer_product_in_numpy():
    for x in (INPUTS["random"], INPUTS["one position"], INPUTS["large"]):
        products = np.einsum("nip,njp->nij", planes(x), planes(x)) / planes(x).shape[2]
        assert_equal(layer("bilinear")(x), _rooted(products.reshape(len(x), -1)))


@pytest.mark.parametrize("width", [16, 17, 64])
def test_cbp_is_the_published_tensor_sketch_by_fourier_transforms(width):
    x = signed(3, 24, 7, 5)
    pool = layer(f"cbp:width={width}", channels=24)
    sketches = np.zeros((2, 24, width))
    for which in range(2):
        sketches[which, np.arange(24), pool.places[which].numpy()] = pool.signs[which].numpy()
    first, second = (np.fft.fft(planes(x).transpose(0, 2, 1) @ sketch) for sketch in sketches)
    expected = np.fft.ifft(first * second).real.mean(1)
    assert_equal(pool(x), _rooted(expected), 1e-7)


def test_places_and_signs_of_cbp_are_those_of_its_seed_alone():
    found = []
    for seed, unrelated in ((0, 1), (0, 2), (3, 1)):
        torch.manual_seed(unrelated)
        found.append(layer(f"cbp:seed={seed}", channels=64))
    assert torch.equal(found[0].places, found[1].places)
    assert torch.equal(found[0].signs, found[1].signs)
    assert not torch.equal(found[0].places, found[2].places)
    assert not torch.equal(found[0].signs, found[2].signs)


def test_cbp_estimates_the_kernel_of_bilinear():
    """The inner product of two sketches, before the root, is on average that of the outer products."""
    from poolzoo.poolings import second_order

    a, b = signed(1, 8, 3, 3, seed=5), signed(1, 8, 3, 3, seed=6)
    exact = ((a.flatten(2) @ a.flatten(2).mT) * (b.flatten(2) @ b.flatten(2).mT)).sum().item() / 81
    estimates = []
    for seed in range(300):
        pool = second_order.CompactBilinear(8, width=64, seed=seed).double()
        sketches = []
        for x in (a, b):
            y = pool(x).square() * pool(x).sign()  # undoes the root; the norm is put back below
            products = (x.flatten(2) @ x.flatten(2).mT / 9).flatten()
            sketches.append((y, products))
        bucket = (pool.places[0, :, None] + pool.places[1]).flatten() % 64
        sign = (pool.signs[0, :, None] * pool.signs[1]).flatten()
        first, second = (torch.zeros(64).double().index_add(0, bucket, sign * products) for _, products in sketches)
        for (rooted, _), sketch in zip(sketches, (first, second), strict=True):
            assert_equal(rooted[0] * sketch.abs().sum(), sketch)
        estimates.append((first @ second).item())
    assert abs(np.mean(estimates) - exact) < 4 * np.std(estimates) / np.sqrt(300)


def test_netvlad_is_the_papers_loops():
    x = signed(2, 6, 3, 4)
    pool = fill(layer("netvlad:clusters=5"))
    weight, centers = pool.assign.weight.detach().flatten(1).numpy(), pool.centers.detach().numpy()
    expected = []
    for image in planes(x):
        sums = np.zeros((5, 6))
        for position in image.T:
            unit = position / np.linalg.norm(position)
            for k, share in enumerate(scipy.special.softmax(weight @ unit)):
                sums[k] += share * (unit - centers[k])
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        expected.append((sums / np.linalg.norm(sums)).ravel())
    assert_equal(pool(x), np.stack(expected))


# --- Regions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (2, 2), (1, 1)])
def test_adaptive_is_a_loop_over_its_cells(size, mode, shape):
    x = signed(2, 3, *shape)
    reduce = np.mean if mode == "avg" else np.max
    expected = np.zeros((2, 3, size, size))
    for i in range(size):
        for j in range(size):
            rows = slice(int(np.floor(i * shape[0] / size)), int(np.ceil((i + 1) * shape[0] / size)))
            columns = slice(int(np.floor(j * shape[1] / size)), int(np.ceil((j + 1) * shape[1] / size)))
            expected[:, :, i, j] = reduce(x.numpy()[:, :, rows, columns], axis=(2, 3))
    found = layer(f"adaptive:size={size},mode={mode}", channels=3)(x)
    assert_equal(found, expected.reshape(2, -1))


@each_input
@pytest.mark.parametrize("levels", ["1-2-4", "1-2", "1-2-3-6"])
@pytest.mark.parametrize("mode", ["max", "avg"])
def test_spp_is_torchs_adaptive_pools_side_by_side(x, levels, mode):
    peer = F.adaptive_max_pool2d if mode == "max" else F.adaptive_avg_pool2d
    expected = torch.cat([peer(x, int(n)).flatten(1) for n in levels.split("-")], 1)
    assert_equal(layer(f"spp:levels={levels},mode={mode}")(x), expected)


def _rmac_by_loops(image: np.ndarray, levels: int) -> np.ndarray:
    """From the paper: squares of side 2 min(H, W) / (l + 1), consecutive ones overlapping by nearly 40 %."""
    _, height, width = image.shape
    short, extra_rows, extra_columns = min(height, width), 0, 0
    if height != width:
        overlaps = [(short**2 - short * (max(height, width) - short) / (m - 1)) / short**2 for m in range(2, 8)]
        extra = int(np.argmin(np.abs(np.array(overlaps) - 0.4))) + 1
        extra_rows, extra_columns = (extra, 0) if height > width else (0, extra)

    def direction(region: np.ndarray) -> np.ndarray:
        maxima = region.max((1, 2))
        return maxima / np.linalg.norm(maxima)

    total = direction(image)
    for level in range(1, levels + 1):
        side = int(np.floor(2 * short / (level + 1)))
        if side == 0:
            continue
        for i in range(level + extra_rows):
            for j in range(level + extra_columns):
                top = int(np.floor(i * (height - side) / max(level + extra_rows - 1, 1)))
                left = int(np.floor(j * (width - side) / max(level + extra_columns - 1, 1)))
                total = total + direction(image[:, top : top + side, left : left + side])
    return total


@pytest.mark.parametrize("levels", [1, 3, 5])
@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (5, 12), (2, 2), (1, 1)])
def test_rmac_is_the_papers_regions_in_loops(levels, shape):
    x = signed(2, 6, *shape)
    assert_equal(layer(f"rmac:levels={levels}")(x), np.stack([_rmac_by_loops(i.numpy(), levels) for i in x]))


@each_input
def test_strip_is_numpys_means_and_maxima(x):
    rows, columns = x.numpy().mean(3).max(2), x.numpy().mean(2).max(2)
    assert_equal(layer("strip")(x), np.concatenate((rows, columns), 1))


# --- Random, ranks, channels -----------------------------------------------------------------------------------------


@each_input
def test_stochastic_in_eval_is_the_expectation(x):
    active = planes(x).clip(0)
    total = active.sum(2)
    expected = np.divide((active**2).sum(2), total, out=np.zeros_like(total), where=total > 0)
    assert_equal(layer("stochastic")(x), expected)


def test_stochastic_in_training_draws_in_proportion():
    values = torch.tensor([0.0, 1.0, 2.0, -3.0, 5.0, 0.0])
    x = values.view(1, 1, 2, 3).expand(20_000, 1, 2, 3)
    torch.manual_seed(0)
    drawn = layer("stochastic", channels=1).train()(x).flatten()
    for value, share in ((1.0, 1 / 8), (2.0, 2 / 8), (5.0, 5 / 8)):
        assert abs((drawn == value).double().mean().item() - share) < 5 * (share * (1 - share) / 20_000) ** 0.5
    assert set(drawn.tolist()) == {1.0, 2.0, 5.0}
    assert layer("stochastic", channels=1).train()(-x.abs()).abs().max() == 0


@each_input
@pytest.mark.parametrize("k", [1, 4, 10])
def test_topk_is_a_mean_of_numpys_sorted_map(x, k):
    expected = np.sort(planes(x), axis=2)[:, :, ::-1][:, :, :k].mean(2)
    assert_equal(layer(f"topk:k={k}")(x), expected)


@each_input
def test_median_is_the_lower_middle_of_the_sorted_map(x):
    count = planes(x).shape[2]
    assert_equal(layer("median")(x), np.sort(planes(x), axis=2)[:, :, (count - 1) // 2])
    assert_equal(layer("median")(x), x.flatten(2).median(2).values)


@each_input
@pytest.mark.parametrize("q", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_quantile_is_numpys(x, q):
    assert_equal(layer(f"quantile:q={q}")(x), np.quantile(planes(x), q, axis=2))


@each_input
@pytest.mark.parametrize("group", [1, 2, 3, 4, 6, 9])
def test_depth_is_a_loop_over_groups_of_channels(x, group):
    groups = [planes(x)[:, start : start + group].max(1).mean(1) for start in range(0, 6, group)]
    assert_equal(layer(f"depth:group={group}")(x), np.stack(groups, 1))
