"""Every local strategy against an implementation that is not ours: loops in numpy, and torch, timm, kornia, scipy."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import scipy.special
import torch
from scipy.ndimage import correlate1d
from support.loops import (
    GEOMETRIES,
    SIZES,
    assert_equal,
    by_loops,
    by_planes,
    fill,
    layer,
    output_size,
    signed,
    windows,
)
from torch import nn
from torch.nn import functional as F

each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
each_size = pytest.mark.parametrize(
    "size", [pytest.param(size, marks=[pytest.mark.slow] if size == max(SIZES) else []) for size in SIZES], ids=str
)
KINDS = {
    "random": lambda x: x,
    "positive": torch.abs,
    "half zero": torch.relu,
    "zeros": torch.zeros_like,
    "large": lambda x: 1e3 * x,
    "ties": lambda x: x.round(),
}


def lower_median(window: np.ndarray) -> float:
    return np.sort(window, axis=None)[(window.size - 1) // 2]


def softly_weighted(window: np.ndarray) -> float:
    return (scipy.special.softmax(window) * window).sum()


def expectation(window: np.ndarray) -> float:
    active = window.clip(0)
    return (active**2).sum() / active.sum() if active.any() else 0.0


DEFINITIONS = {
    "max": np.max,
    "min": np.min,
    "avg:count_include_pad=false": np.mean,
    "avgmax": lambda w: (w.mean() + w.max()) / 2,
    "mixed": lambda w: (w.mean() + w.max()) / 2,  # as it starts
    "gated": lambda w: (w.mean() + w.max()) / 2,  # as it starts
    "gem": lambda w: (w.clip(1e-6) ** 3).mean() ** (1 / 3),
    "gem:p=2,learnable=false": lambda w: (w.clip(1e-6) ** 2).mean() ** 0.5,
    "gem:p=7": lambda w: (w.clip(1e-6) ** 7).mean() ** (1 / 7),
    "lp": lambda w: (w**2).sum() ** 0.5,
    "lp:p=3": lambda w: (np.abs(w) ** 3).sum() ** (1 / 3),
    "lp:p=1.5,learnable=true": lambda w: (np.abs(w) ** 1.5).sum() ** (1 / 1.5),
    "lp:p=7": lambda w: (np.abs(w) ** 7).sum() ** (1 / 7),
    "lse": lambda w: (scipy.special.logsumexp(10 * w) - np.log(w.size)) / 10,
    "lse:r=0.5,learnable=false": lambda w: (scipy.special.logsumexp(0.5 * w) - np.log(w.size)) / 0.5,
    "soft": softly_weighted,
    "stochastic": expectation,
    "topk": lambda w: np.sort(w, axis=None)[::-1][:4].mean(),
    "topk:k=2": lambda w: np.sort(w, axis=None)[::-1][:2].mean(),
    "median": lower_median,
}


@each_geometry
@each_size
@pytest.mark.parametrize("text", DEFINITIONS)
def test_windows_reduce_as_their_definition_says(text, geometry, size):
    x = torch.cat([change(signed(1, 2, *size, seed=seed)) for seed, change in enumerate(KINDS.values())])
    found = layer(text, "local", geometry, 2)(x).detach().numpy()
    expected = by_loops(x, geometry, DEFINITIONS[text])
    for kind, ours, theirs in zip(KINDS, found, expected, strict=True):
        scale = max(1.0, np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * scale, err_msg=kind)


@each_size
def test_avg_counts_the_padding_by_default_as_torch_does(size):
    x = signed(2, 3, *size)
    expected = by_loops(x, (3, 2, 1, False), lambda window: window.sum() / 9)
    assert_equal(layer("avg", "local", (3, 2, 1, False), 3)(x), expected)


@each_geometry
@pytest.mark.parametrize("share", ["layer", "channel"])
def test_mixed_and_gated_are_their_formulas(geometry, share):
    x = signed(2, 3, 7, 5)
    mean, top = by_loops(x, geometry, np.mean), by_loops(x, geometry, np.max)
    mixed = fill(layer(f"mixed:share={share}", "local", geometry, 3))
    assert mixed.weight.shape == ({"layer": 1, "channel": 3}[share], 1, 1)
    a = scipy.special.expit(mixed.weight.detach().numpy())
    assert_equal(mixed(x), a * top + (1 - a) * mean)
    gated = fill(layer(f"gated:share={share}", "local", geometry, 3))
    kernel_size, stride, padding, _ = geometry
    margin = padding + kernel_size  # zeros enough for windows that reach beyond the border
    framed = F.pad(x, (padding, margin, padding, margin)).numpy()
    weight = gated.weight.detach().expand(3, 1, kernel_size, kernel_size).numpy()
    gate = np.zeros_like(mean)
    for n, c, i, j in np.ndindex(*mean.shape):
        top_left = framed[n, c, i * stride : i * stride + kernel_size, j * stride : j * stride + kernel_size]
        gate[n, c, i, j] = scipy.special.expit((top_left * weight[c, 0]).sum())
    assert_equal(gated(x), gate * top + (1 - gate) * mean)


@each_geometry
@each_size
@pytest.mark.parametrize(("mode", "reduce"), [("max", np.max), ("avg", np.mean)])
@pytest.mark.parametrize(("border", "inside"), [(2, 3), (3, 2), (2, 5)])
def test_variable_is_a_loop_whose_windows_change(geometry, size, mode, reduce, border, inside):
    _, stride, padding, _ = geometry
    x = signed(2, 3, *size)
    rows, columns = output_size(size, geometry)

    def entries(plane):
        found = []
        for i in range(rows):
            for j in range(columns):
                side = border if i in (0, rows - 1) or j in (0, columns - 1) else inside
                top, left = i * stride - padding, j * stride - padding
                window = plane[max(top, 0) : top + side, max(left, 0) : left + side]
                found.append((i, j, reduce(window)))
        return found

    pool = layer(f"variable:mode={mode},border={border},inside={inside}", "local", geometry, 3)
    assert_equal(pool(x), by_planes(x, geometry, entries))


@each_geometry
@each_size
def test_lip_is_a_weighted_mean_by_its_own_logits(geometry, size):
    x = signed(2, 3, *size)
    pool = fill(layer("lip", "local", geometry, 3))
    norm = nn.InstanceNorm2d(3, affine=True).double()
    norm.weight.data.copy_(pool.scale)
    norm.bias.data.copy_(pool.shift)
    weight = (12 * norm(F.conv2d(x, pool.conv.weight, padding=1)).sigmoid()).exp().detach()
    expected = by_loops(weight * x, geometry, np.sum) / by_loops(weight, geometry, np.sum)
    assert_equal(pool(x), expected)


def test_lip_starts_as_the_mean_and_stands_a_single_position():
    x = signed(2, 3, 7, 5)
    assert_equal(layer("lip", "local", (3, 2, 1, False), 3)(x), by_loops(x, (3, 2, 1, False), np.mean))
    one = signed(2, 3, 1, 1)
    assert_equal(fill(layer("lip", "local", (3, 2, 1, False), 3))(one), one)
    with pytest.raises(ValueError, match="spatial"):  # torch's own norm refuses
        nn.InstanceNorm2d(3).double()(one)


@each_geometry
@each_size
def test_strip_is_the_mean_of_a_gated_map(geometry, size):
    x = signed(2, 3, *size)
    pool = fill(layer("strip", "local", geometry, 3))
    rows = F.pad(x.mean(3), (1, 1)).numpy()
    columns = F.pad(x.mean(2), (1, 1)).numpy()
    f, g = pool.rows.weight.detach().numpy()[:, 0, :, 0], pool.columns.weight.detach().numpy()[:, 0, 0, :]
    sums = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(*x.shape):
        sums[n, c, i, j] = f[c] @ rows[n, c, i : i + 3] + g[c] @ columns[n, c, j : j + 3]
    mix, bias = pool.mix.weight.detach().numpy()[:, :, 0, 0], pool.mix.bias.detach().numpy()
    gate = scipy.special.expit(np.einsum("dc,nchw->ndhw", mix, sums.clip(0)) + bias[:, None, None])
    assert_equal(pool(x), by_loops(x * torch.from_numpy(gate), geometry, np.mean))


@each_geometry
@each_size
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_adaptive_is_torchs(geometry, size, mode):
    x = signed(2, 3, *size)
    peer = F.adaptive_avg_pool2d if mode == "avg" else F.adaptive_max_pool2d
    assert_equal(layer(f"adaptive:mode={mode}", "local", geometry, 3)(x), peer(x, output_size(size, geometry)))


# --- Anti-aliased ----------------------------------------------------------------------------------------------------

BINOMIAL = np.array([1, 2, 1]) / 4


def smoothed(plane: np.ndarray) -> np.ndarray:
    return correlate1d(correlate1d(plane, BINOMIAL, axis=2, mode="mirror"), BINOMIAL, axis=3, mode="mirror")


@pytest.mark.parametrize("geometry", [(2, 2, 0, False), (3, 2, 1, False)])
def test_blur_is_timms_where_timm_has_the_geometry(geometry):
    from timm.layers import BlurPool2d

    x = signed(2, 6, 8, 12)
    assert_equal(layer("blur", "local", geometry)(x), BlurPool2d(6, filt_size=3, stride=2).double()(x))


def test_timms_blur_with_even_filters_gives_an_extra_row():
    from timm.layers import BlurPool2d

    assert BlurPool2d(6, filt_size=4, stride=2)(torch.zeros(1, 6, 8, 8)).shape[2:] == (5, 5)
    assert layer("blur", "local", (4, 2, 1, False))(torch.zeros(1, 6, 8, 8).double()).shape[2:] == (4, 4)


@each_geometry
@each_size
def test_blur_is_a_filtered_image_read_at_the_windows_centres(geometry, size):
    """The definition: filter the mirrored image at every position, then read it where each window is centered."""
    kernel_size, stride, padding, _ = geometry
    x = signed(2, 3, *size)
    rows, columns = (np.arange(n) * stride - padding + (kernel_size - 1) // 2 for n in output_size(size, geometry))
    assert_equal(layer("blur", "local", geometry, 3)(x), smoothed(x.numpy())[:, :, rows][:, :, :, columns])


@each_geometry
@each_size
def test_maxblur_is_a_dense_maximum_that_is_filtered_and_subsampled(geometry, size):
    """The definition by loops: the maximum at every position, mirrored at the border, filtered, thinned."""
    kernel_size, stride, padding, _ = geometry
    x = signed(2, 3, *size)
    ends = [
        max(0, (count - 1) * stride + kernel_size - 2 * padding - n)  # of windows that reach beyond the padding
        for n, count in zip(size, output_size(size, geometry), strict=True)
    ]
    framed = F.pad(x, (0, ends[1], 0, ends[0]), value=-np.inf)
    dense = by_loops(framed, (kernel_size, 1, padding, False), np.max)
    assert_equal(layer("maxblur", "local", geometry, 3)(x), smoothed(dense)[:, :, ::stride, ::stride])


def test_maxblur_is_kornias_up_to_its_border():
    """kornia pads with zeros and we mirror, so the outermost row and column differ and the rest does not."""
    kornia = pytest.importorskip("kornia.filters")
    x = signed(2, 6, 12, 12).abs()
    theirs = kornia.MaxBlurPool2D(kernel_size=3, stride=2, max_pool_size=2)(x)
    ours = layer("maxblur", "local")(x)
    assert ours.shape == theirs.shape
    assert_equal(ours[:, :, 1:-1, 1:-1], theirs[:, :, 1:-1, 1:-1])


def grids(image: np.ndarray, geometry) -> dict[tuple[int, int], np.ndarray]:
    """The shifted grids of an image `[C, H, W]`, wrapped around the border."""
    stride = geometry[1]
    rows, columns = output_size(image.shape, geometry)
    height, width = image.shape[1:]
    found = {}
    for i in range(stride):
        for j in range(stride):
            grid = np.zeros((len(image), rows, columns))
            for a in range(rows):
                for b in range(columns):
                    grid[:, a, b] = image[:, (i + stride * a) % height, (j + stride * b) % width]
            found[i, j] = grid
    return found


@each_geometry
@each_size
def test_aps_is_the_grid_with_the_largest_norm(geometry, size):
    x = signed(3, 4, *size)
    expected = [max(grids(image.numpy(), geometry).values(), key=np.linalg.norm) for image in x]
    assert_equal(layer("aps", "local", geometry, 4)(x), np.stack(expected))


@each_geometry
def test_lps_in_eval_is_the_grid_with_the_largest_score(geometry):
    x = signed(3, 4, 8, 8)
    pool = fill(layer("lps", "local", geometry, 4))

    def score(grid: np.ndarray) -> float:
        hidden = F.conv2d(F.pad(torch.from_numpy(grid)[None], (1, 1, 1, 1), mode="circular"), *pool.first.parameters())
        return F.conv2d(F.pad(hidden.relu(), (1, 1, 1, 1), mode="circular"), *pool.second.parameters()).mean().item()

    expected = [max(grids(image.numpy(), geometry).values(), key=score) for image in x]
    assert_equal(pool(x), np.stack(expected))


def test_lps_in_training_mixes_the_grids_and_trains_its_scores():
    x, pool = signed(3, 4, 8, 8), fill(layer("lps:temperature=0.01", "local", channels=4)).train()
    torch.manual_seed(0)
    mixed = pool(x).detach()
    every = torch.from_numpy(np.stack([np.stack(list(grids(i.numpy(), (2, 2, 0, False)).values())) for i in x]))
    nearest = (every - mixed[:, None]).abs().amax((2, 3, 4)).amin(1)
    assert (nearest < 0.05).all()  # at a low temperature nearly one grid
    pool.temperature = 1.0
    pool(x).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in (pool.first.weight, pool.second.weight))


@pytest.mark.parametrize("name", ["aps", "lps", "avg", "wavelet", "spectral"])
def test_the_shift_invariant_ones_are(name):
    """What a global mean sees behind the layer stays the same when the image is shifted circularly."""
    pool = fill(layer(name, "local", channels=4))
    x = signed(2, 4, 8, 8).relu()
    still = pool(x).mean((2, 3))
    for shift in ((0, 1), (1, 0), (3, 5)):
        moved = pool(x.roll(shift, (2, 3))).mean((2, 3))
        assert (moved - still).abs().max() < 1e-12
    assert (layer("max", "local", channels=4)(x.roll((0, 1), (2, 3))).mean((2, 3)) - layer(
        "max", "local", channels=4
    )(x).mean((2, 3))).abs().max() > 0.01  # fmt: skip


# --- Frequency -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g[1] > 1], ids=str)
@each_size
def test_spectral_is_a_cropped_spectrum_in_numpy(geometry, size):
    x = signed(2, 3, *size)
    rows, columns = output_size(size, geometry)
    spectrum = np.fft.fftshift(np.fft.fft2(x.numpy()), axes=(2, 3))
    top, left = size[0] // 2 - rows // 2, size[1] // 2 - columns // 2
    kept = np.fft.ifftshift(spectrum[:, :, top : top + rows, left : left + columns], axes=(2, 3))
    expected = np.fft.ifft2(kept).real * rows * columns / (size[0] * size[1])
    assert_equal(layer("spectral", "local", geometry, 3)(x), expected)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize("size", [(8, 8), (6, 12), (4, 4), (7, 5), (13, 9)])
def test_wavelet_is_pywavelets_low_band(wavelet, size):
    x = signed(2, 3, *size)
    expected = pywt.dwt2(x.numpy(), wavelet, mode="periodization", axes=(2, 3))[0]
    assert_equal(layer(f"wavelet:wavelet={wavelet}", "local", (2, 2, 0, True), 3)(x), expected)


def test_haar_is_twice_the_mean():
    x = signed(2, 6, 8, 8)
    assert_equal(layer("wavelet", "local")(x), 2 * F.avg_pool2d(x, 2))


# --- Random ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", [(2, 2, 0, False), (3, 2, 1, False), (3, 2, 0, True), (2, 3, 0, False)], ids=str)
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (13, 9), (32, 31), (15, 22)], ids=str)
def test_fractional_in_eval_is_torchs_with_samples_of_a_half(geometry, size):
    x = signed(2, 3, *size)
    counts = output_size(size, geometry)
    expected = F.fractional_max_pool2d(
        x, geometry[0], output_size=counts, _random_samples=torch.full((2, 3, 2), 0.5).double()
    )
    assert_equal(layer("fractional", "local", geometry, 3)(x), expected)


def test_a_region_of_fractional_shrinks_where_the_map_is_too_small(monkeypatch):
    x = signed(2, 3, 2, 3)  # one row and two columns of regions, for which three rows and columns are too many
    expected = np.stack([x[..., :2].amax((2, 3)), x[..., 1:].amax((2, 3))], 2)[:, :, None]
    pool = layer("fractional", "local", (3, 2, 1, False), 3)
    assert_equal(pool(x), expected)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert_equal(pool(x), expected)


def test_torchs_fractional_pool_is_random_in_eval_ours_is_not():
    x = signed(2, 3, 13, 13).float()
    theirs = nn.FractionalMaxPool2d(2, output_ratio=0.7).eval()
    assert not torch.equal(theirs(x), theirs(x))
    ours = layer("fractional", "local", (3, 2, 1, False), 3).float()
    assert torch.equal(ours(x), ours(x))
    assert not torch.equal(ours.train()(x), ours(x))


def test_stochastic_in_training_draws_from_each_window_in_proportion():
    values = torch.tensor([[1.0, 3.0, 0.0, 0.0], [-2.0, 4.0, 0.0, -1.0]]).double()
    x = values.view(1, 1, 2, 4).expand(20_000, 1, 2, 4)
    torch.manual_seed(0)
    drawn = layer("stochastic", "local", channels=1).train()(x)
    left, right = drawn[:, 0, 0, 0], drawn[:, 0, 0, 1]
    for value, share in ((1.0, 1 / 8), (3.0, 3 / 8), (4.0, 4 / 8)):
        assert abs((left == value).double().mean().item() - share) < 5 * (share * (1 - share) / 20_000) ** 0.5
    assert right.abs().max() == 0


def dense_maxima(plane: np.ndarray, geometry) -> np.ndarray:
    """The maximum of the window at every position at which one begins, up to stride of them for each output."""
    kernel_size, stride, padding, _ = geometry
    lengths = [
        min(n * stride, length + padding)
        for n, length in zip(output_size(plane.shape, geometry), plane.shape, strict=True)
    ]
    dense = np.zeros(lengths)
    for i in range(lengths[0]):
        for j in range(lengths[1]):
            top, left = i - padding, j - padding
            dense[i, j] = plane[max(top, 0) : top + kernel_size, max(left, 0) : left + kernel_size].max()
    return dense


@each_geometry
@each_size
def test_s3_in_eval_averages_blocks_of_dense_maxima(geometry, size):
    stride = geometry[1]
    x = signed(2, 3, *size)

    def entries(plane):
        dense = dense_maxima(plane, geometry)
        rows, columns = output_size(plane.shape, geometry)
        return [
            (i, j, dense[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride].mean())
            for i in range(rows)
            for j in range(columns)
        ]

    assert_equal(layer("s3", "local", geometry, 3)(x), by_planes(x, geometry, entries))


@each_geometry
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (13, 9)], ids=str)
@pytest.mark.parametrize("multiple", [1, 2])
def test_s3_in_training_keeps_whole_rows_and_columns(geometry, size, multiple):
    """With distinct maxima, every output tells its row and column; they must be the same for all images."""
    stride = geometry[1]
    grid = stride * multiple
    pool = layer(f"s3:grid={grid}", "local", geometry, 1).train()
    ramp = torch.arange(size[0])[:, None] * 100.0 + torch.arange(size[1])  # maxima are at a window's last position
    x = ramp.double().expand(2, 1, *size)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        y = pool(x)
        assert torch.equal(y[0], y[1])
        rows, columns = (y[0, 0] // 100)[:, 0], (y[0, 0] % 100)[0]
        assert_equal(y[0, 0], (rows[:, None] * 100 + columns).numpy())
        assert (rows.diff() >= 0).all()
        assert (columns.diff() >= 0).all()
        seen.add((*rows.tolist(), *columns.tolist()))
    assert len(seen) > 1 or stride == 1


# --- Channels --------------------------------------------------------------------------------------------------------


@each_geometry
@pytest.mark.parametrize("group", [1, 2, 3, 4])
def test_depth_is_a_loop_over_groups_of_channels_and_windows(geometry, group):
    for x in (signed(2, 6, 7, 5), -1 - signed(2, 6, 7, 5).abs()):  # a short last group of negative numbers too
        maxima = by_loops(x, geometry, np.max)
        expected = [maxima[:, start : start + group].max(1) for start in range(0, 6, group)]
        assert_equal(layer(f"depth:group={group}", "local", geometry)(x), np.stack(expected, 1))


def test_depth_with_window_one_is_torchs_pool_across_channels():
    x = signed(2, 6, 7, 5)
    expected = F.max_pool3d(x[:, None], (3, 1, 1))[:, 0]
    assert_equal(layer("depth:group=3", "local", (1, 1, 0, False))(x), expected)


def test_space_to_depth_is_torchs_pixel_unshuffle_where_windows_tile():
    x = signed(2, 6, 8, 12)
    assert_equal(layer("s2d", "local")(x), F.pixel_unshuffle(x, 2))


@each_geometry
def test_space_to_depth_is_a_loop_over_windows(geometry):
    x = signed(2, 3, 7, 5)
    kernel_size, stride, padding, _ = geometry
    rows, columns = output_size(x.shape, geometry)
    margin = padding + kernel_size
    framed = F.pad(x, (padding, margin, padding, margin)).numpy()
    expected = np.zeros((2, 3 * kernel_size**2, rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = framed[:, :, i * stride : i * stride + kernel_size, j * stride : j * stride + kernel_size]
            expected[:, :, i, j] = window.reshape(2, -1)
    assert_equal(layer("s2d", "local", geometry, 3)(x), expected)


def test_median_is_timms_where_nothing_is_padded():
    from timm.layers.median_pool import MedianPool2d

    x = signed(2, 6, 9, 11)
    assert_equal(layer("median", "local", (3, 2, 0, False))(x), MedianPool2d(3, 2)(x))


def test_every_window_that_the_loops_visit_holds_something():
    for geometry in GEOMETRIES:
        for size in SIZES:
            assert all(window.size for _, _, window in windows(np.zeros(size), geometry))
