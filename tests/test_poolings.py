"""Every pooling against an implementation that is not ours, and what all of them promise."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor, nn
from torch.nn import functional as F

import poolzoo
from poolzoo import host, spec

CATALOG = [entry.item for entry in host.load_plugins(installed=False).select(spec.Pooling)]
GLOBAL = sorted(item.name for item in CATALOG if item.kind == "global")
LOCAL = sorted(item.name for item in CATALOG if item.kind == "local")
GEOMETRIES = [(2, 2, 0, False), (3, 2, 1, False), (3, 2, 0, True), (3, 1, 1, False), (2, 2, 0, True)]
SIZES = [(8, 8), (7, 5), (13, 9), (4, 4), (3, 3)]


def layer(name: str, kind: str, geometry=(2, 2, 0, False), channels: int = 6) -> nn.Module:
    kernel_size, stride, padding, ceil_mode = geometry
    return poolzoo.create_pooling(
        name, channels, kind, kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode
    ).eval()


def signed(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def windows(image: np.ndarray, kernel_size: int, stride: int, padding: int, ceil_mode: bool):
    """The textbook's loop: for each output position, the rows and columns of the input that its window covers."""
    height, width = image.shape
    out = nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode)(torch.zeros(1, 1, height, width)).shape[2:]
    for i in range(out[0]):
        for j in range(out[1]):
            top, left = i * stride - padding, j * stride - padding
            yield i, j, out, image[max(top, 0) : top + kernel_size, max(left, 0) : left + kernel_size]


def by_loops(x: Tensor, geometry, reduce) -> np.ndarray:
    planes = []
    for plane in x.numpy().reshape(-1, *x.shape[2:]):
        result = None
        for i, j, out, window in windows(plane, *geometry):
            result = np.zeros(out) if result is None else result
            result[i, j] = reduce(window)
        planes.append(result)
    return np.stack(planes).reshape(*x.shape[:2], *planes[0].shape)


# --- Oracles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "timm_name"), [("avg", "avg"), ("max", "max"), ("avgmax", "avgmax"), ("catavgmax", "catavgmax")]
)
def test_global_pools_are_timms(name, timm_name):
    from timm.layers import SelectAdaptivePool2d

    x = signed(3, 6, 7, 5)
    torch.testing.assert_close(layer(name, "global")(x), SelectAdaptivePool2d(pool_type=timm_name, flatten=True)(x))


def test_catavgmax_has_the_mean_first():
    x = signed(2, 6, 4, 4)
    pooled = layer("catavgmax", "global")(x).numpy()
    np.testing.assert_allclose(pooled[:, :6], x.numpy().mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(pooled[:, 6:], x.numpy().max((2, 3)), atol=1e-6)


def test_global_min_is_numpys():
    x = signed(3, 6, 7, 5)
    np.testing.assert_array_equal(layer("min", "global")(x).numpy(), x.numpy().min((2, 3)))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 4.5])
def test_gem_is_torchs_lp_pool_over_the_number_of_positions(p):
    x = signed(3, 6, 7, 5).abs() + 0.01
    expected = F.lp_pool2d(x.double(), p, (7, 5)).flatten(1) / 35 ** (1 / p)
    found = poolzoo.create_pooling(f"gem:p={p}", 6).double()(x.double())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_gem_clamps_what_is_not_positive():
    x = signed(2, 3, 4, 4)
    expected = (x.numpy().astype(np.float64).clip(1e-6) ** 3).mean((2, 3)) ** (1 / 3)
    np.testing.assert_allclose(layer("gem", "global", channels=3)(x).detach().numpy(), expected, rtol=1e-5)
    assert torch.isfinite(layer("gem", "global", channels=3)(torch.zeros(1, 3, 4, 4))).all()


@pytest.mark.parametrize("r", [0.5, 10.0])
def test_lse_is_scipys_logsumexp_less_the_log_of_the_number_of_positions(r):
    x = signed(3, 6, 7, 5).double()
    expected = (logsumexp(r * x.numpy(), axis=(2, 3)) - np.log(35)) / r
    found = poolzoo.create_pooling(f"lse:r={r}", 6).double()(x).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("text", ["gem:p=20", "gem:p=0.5", "lse:r=100"])
def test_large_parameters_neither_overflow_nor_underflow(text):
    for scale in (1e-4, 1.0, 1e3):
        pool = poolzoo.create_pooling(text, 3)
        x = (scale * signed(2, 3, 4, 4)).requires_grad_()
        pool(x).sum().backward()
        grads = [x.grad, *(p.grad for p in pool.parameters())]
        assert all(torch.isfinite(grad).all() for grad in grads)


def test_lse_is_timms():
    from timm.layers.other_pool import LsePlus2d

    x = signed(2, 6, 4, 4)
    torch.testing.assert_close(layer("lse", "global")(x), LsePlus2d(r=10.0)(x), rtol=1e-5, atol=1e-6)


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
    found = poolzoo.create_pooling(f"adaptive:size={size},mode={mode}", 3)(x)
    np.testing.assert_allclose(found.numpy(), expected.reshape(2, -1), atol=1e-6)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "reduce"), [("max", np.max), ("min", np.min)])
def test_local_extrema_are_a_loop_over_windows(geometry, size, name, reduce):
    x = signed(2, 3, *size)
    np.testing.assert_array_equal(layer(name, "local", geometry, 3)(x).numpy(), by_loops(x, geometry, reduce))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", SIZES)
def test_local_avg_is_a_loop_over_windows(geometry, size):
    x = signed(2, 3, *size)
    kernel_size, stride, padding, ceil_mode = geometry
    pool = poolzoo.create_pooling(
        "avg:count_include_pad=false",
        3,
        "local",
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
    )
    np.testing.assert_allclose(pool(x).numpy(), by_loops(x, geometry, np.mean), atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_local_avg_counts_the_padding_by_default(size):
    x = signed(2, 3, *size)
    expected = by_loops(x, (3, 2, 1, False), lambda window: window.sum() / 9)
    np.testing.assert_allclose(layer("avg", "local", (3, 2, 1, False), 3)(x).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("geometry", [(2, 2, 0, False), (3, 2, 1, False)])
def test_blur_is_timms_where_timm_has_the_geometry(geometry):
    from timm.layers import BlurPool2d

    x = signed(2, 6, 8, 12)
    torch.testing.assert_close(layer("blur", "local", geometry)(x), BlurPool2d(6, filt_size=3, stride=2)(x))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", SIZES)
def test_blur_is_a_filtered_image_read_at_the_windows_centres(geometry, size):
    """The definition: filter the mirrored image at every position, then read it where each window is centred."""
    from scipy.ndimage import correlate1d

    kernel_size, stride, padding, ceil_mode = geometry
    x = signed(2, 3, *size)
    taps = np.array([1, 2, 1]) / 4
    smooth = correlate1d(
        correlate1d(x.numpy().astype(np.float64), taps, axis=2, mode="mirror"), taps, axis=3, mode="mirror"
    )
    out = nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode)(x).shape[2:]
    rows, columns = (np.arange(n) * stride - padding + (kernel_size - 1) // 2 for n in out)
    expected = smooth[:, :, rows][:, :, :, columns]
    np.testing.assert_allclose(layer("blur", "local", geometry, 3)(x).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("geometry", [(2, 2, 0, False), (3, 2, 1, False), (3, 1, 1, False)])
@pytest.mark.parametrize("size", SIZES)
def test_maxblur_is_a_dense_maximum_that_is_filtered_and_subsampled(geometry, size):
    """The definition by loops: the maximum at every position, mirrored at the border, filtered, thinned."""
    from scipy.ndimage import correlate1d

    kernel_size, stride, padding, _ = geometry
    x = signed(2, 3, *size)
    dense = by_loops(x, (kernel_size, 1, padding, False), np.max)
    taps = np.array([1, 2, 1]) / 4
    smooth = correlate1d(correlate1d(dense, taps, axis=2, mode="mirror"), taps, axis=3, mode="mirror")
    np.testing.assert_allclose(
        layer("maxblur", "local", geometry, 3)(x).numpy(), smooth[:, :, ::stride, ::stride], atol=1e-6
    )


def test_maxblur_is_kornias_up_to_its_border():
    """kornia pads with zeros and we mirror, so the outermost row and column differ and the rest does not."""
    kornia = pytest.importorskip("kornia.filters")
    x = signed(2, 6, 12, 12).abs()
    theirs = kornia.MaxBlurPool2D(kernel_size=3, stride=2, max_pool_size=2)(x)
    ours = layer("maxblur", "local")(x)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours[:, :, 1:-1, 1:-1], theirs[:, :, 1:-1, 1:-1])


# --- What all of them promise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GLOBAL)
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (7, 5), (8, 8)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_global_pools_give_a_row_an_image(name, shape, count):
    x = signed(count, 24, *shape)
    pooled = layer(name, "global", channels=24)(x)
    assert pooled.ndim == 2
    assert len(pooled) == count
    assert pooled.shape[1] == layer(name, "global", channels=24)(signed(1, 24, 4, 4)).shape[1]
    for index in range(count):
        torch.testing.assert_close(layer(name, "global", channels=24)(x[index : index + 1])[0], pooled[index])


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (7, 5), (5, 8), (3, 3), (2, 3), (1, 1)])
def test_local_pools_have_the_shape_of_max_pool(name, geometry, size):
    kernel_size, stride, padding, ceil_mode = geometry
    x = signed(2, 6, *size)
    try:
        expected = nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode)(x)
    except RuntimeError:
        pytest.skip("torch's own layer has no output here either")
    assert layer(name, "local", geometry)(x).shape == expected.shape


BOTH = [(name, "global") for name in GLOBAL] + [(name, "local") for name in LOCAL]


@pytest.mark.parametrize(("name", "kind"), BOTH)
def test_gradients_are_those_of_finite_differences(name, kind):
    pool = layer(name, kind, channels=2).double()
    x = signed(2, 2, 4, 4, seed=3).double().requires_grad_()
    assert torch.autograd.gradcheck(pool, (x,), eps=1e-6, atol=1e-5)
    pool(x).sum().backward()
    assert all(p.grad is not None for p in pool.parameters())


@pytest.mark.parametrize(("name", "kind"), BOTH)
@pytest.mark.parametrize("fill", [0.0, 1.0, -1.0, 1e3, -1e3])
def test_constant_maps_stay_finite(name, kind, fill):
    x = torch.full((2, 6, 4, 4), fill).requires_grad_()
    pooled = layer(name, kind)(x)
    pooled.sum().backward()
    assert torch.isfinite(pooled).all()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("name", "kind"), BOTH)
def test_half_precision_and_autocast_stay_close(name, kind):
    x = signed(2, 6, 4, 4)
    exact = layer(name, kind)(x)
    with torch.autocast("cpu", torch.bfloat16):
        automatic = layer(name, kind)(x)
    brain = layer(name, kind).bfloat16()(x.bfloat16())
    assert brain.dtype == torch.bfloat16
    for other in (automatic, brain):
        torch.testing.assert_close(other.float(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("name", "kind"), BOTH)
def test_channels_last_equals_contiguous(name, kind):
    x = signed(2, 6, 7, 5)
    torch.testing.assert_close(layer(name, kind)(x.contiguous(memory_format=torch.channels_last)), layer(name, kind)(x))


@pytest.mark.parametrize(("name", "kind"), BOTH)
def test_no_tensor_is_left_on_the_cpu(name, kind):
    """A forward pass with fake CUDA tensors, which needs no GPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    pool = layer(name, kind)
    named = {**dict(pool.named_parameters()), **dict(pool.named_buffers())}
    with FakeTensorMode():
        fake = {key: torch.empty(value.shape, dtype=value.dtype, device="cuda") for key, value in named.items()}
        out = torch.func.functional_call(pool, fake, torch.empty(2, 6, 8, 8, device="cuda"))
    assert out.device.type == "cuda"


@pytest.mark.parametrize(("name", "kind"), BOTH)
@pytest.mark.parametrize("size", [7, 8])
def test_a_plain_export_computes_the_same(tmp_path, name, kind, size):
    text = "adaptive:size=3,mode=max" if name == "adaptive" else name
    pool = layer(text, kind, (3, 2, 1, False))
    path = tmp_path / "pool.onnx"
    batch = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        pool,
        (signed(2, 6, size, size),),
        path,
        input_names=["x"],
        dynamic_shapes=batch,
        opset_version=18,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        for x in (signed(count, 6, size, size), torch.zeros(count, 6, size, size), 1e3 * signed(count, 6, size, size)):
            with torch.inference_mode():
                expected = pool(x).numpy()
            scale = max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], expected, rtol=2e-5, atol=2e-6 * scale)


def test_a_summary_names_every_strategy_and_options_are_checked():
    assert all(item.summary and item.equation for item in CATALOG)
    for text in ("gem:p=0", "gem:eps=0", "lse:r=0", "adaptive:size=0"):
        with pytest.raises(poolzoo.errors.UsageError, match=text.split(":")[1]):
            poolzoo.create_pooling(text, 6)
    with pytest.raises((ValueError, poolzoo.errors.UsageError), match="taps=2"):
        poolzoo.create_pooling("blur:taps=2", 6, "local")
