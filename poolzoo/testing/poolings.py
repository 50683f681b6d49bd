"""What every pooling promises, as checks: one function a promise, all in one list, which makes this file long.

The checks try local poolings at the usual geometries. A pooling may refuse a geometry by raising ValueError in its
build.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from poolzoo.common.errors import reason
from poolzoo.common.temporary import temporary_folder
from poolzoo.model.geometry import Geometry
from poolzoo.plugin import loader
from poolzoo.plugin.imports import import_build
from poolzoo.plugin.problems import Source
from poolzoo.plugin.spec import Kind, Pooling
from poolzoo.testing import gradients
from poolzoo.testing.base import Checks, Failure
from poolzoo.testing.checked_pooling import CHANNELS, CheckedPooling, assert_close, assert_finite, signed
from poolzoo.testing.pooling_export import assert_exports
from poolzoo.testing.shared_process import assert_undisturbed, settings_kept
from poolzoo.testing.suite import Suite

MAP_SIZES: Final = ((1, 1), (2, 2), (7, 5), (8, 8))  # height and width of feature maps
GEOMETRY_NAMES: Final = ("kernel_size", "stride", "padding", "ceil_mode")
EXTREMES: Final = (0.0, 1.0, -1.0, 1e3, -1e3)  # values of constant feature maps
LARGE: Final = 1e3  # scale of the feature maps that are large and signed
WIDE: Final = 1000  # numbers in an output whose whole Jacobian would take seconds


checks = Checks[CheckedPooling]()


@checks.promise("return [N, D] (global), or the output size of nn.MaxPool2d (local), for every feature map")
def shapes(checked: CheckedPooling) -> None:
    """Global: `[N, D]` with one D for all sizes. Local: the shape of `nn.MaxPool2d`. For 1, 2 and 5 images."""
    for words, geometry, layer in checked.layers_with_geometry():
        widths = set()
        for size in MAP_SIZES:
            for count in (1, 2, 5):
                x = signed(count, CHANNELS, *size)
                expected = [count] if geometry is None else _size_of_max_pool(geometry, x)
                if expected is None:
                    continue
                try:
                    y = layer(x)
                except Exception as error:
                    raise AssertionError(f"{words}{list(x.shape)}: {reason(error)}") from error
                assert isinstance(y, Tensor), f"{words}gives a {type(y).__name__}, not a tensor"
                ours = [len(y)] if geometry is None else [len(y), *y.shape[2:]]
                rank = 2 if geometry is None else 4
                assert y.ndim == rank, f"{words}{list(x.shape)} becomes {list(y.shape)}, not {rank} dimensions"
                assert ours == expected, f"{words}{list(x.shape)} becomes {list(y.shape)}"
                widths.add(y.shape[1])
        assert len(widths) == 1, f"{words}the output width depends on the size of the feature map: {sorted(widths)}"


def _size_of_max_pool(geometry: Geometry, x: Tensor) -> list[int] | None:
    """N, h and w of the output of `nn.MaxPool2d`; None where a window is larger than the feature map."""
    peer = nn.MaxPool2d(geometry.kernel_size, geometry.stride, geometry.padding, ceil_mode=geometry.ceil_mode)
    try:
        return [len(x), *peer(x).shape[2:]]
    except RuntimeError:
        return None


@checks.promise("choose heads, groups and widths from `channels`, such as its largest divisor")
def channel_counts(checked: CheckedPooling) -> None:
    """The default options work with 16, 64 and 288 channels."""
    for channels in (16, 64, 288):
        layer = checked.build(channels=channels)
        assert_finite(layer(signed(2, channels, 4, 4)), f"{channels} channels")


@checks.promise(
    "write build(channels, *, option=default) for a global pooling, "
    "build(channels, kernel_size, stride, padding, ceil_mode, *, option=default) for a local one"
)
def options_have_defaults(checked: CheckedPooling) -> None:
    """Every option is a keyword-only argument with a default, so that the bare name builds."""
    given = ("channels",) if checked.pooling.kind == "global" else ("channels", *GEOMETRY_NAMES)
    for parameter in list(inspect.signature(checked.make).parameters.values())[len(given) :]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        assert parameter.default is not parameter.empty, f"option {parameter.name!r} has no default"
        assert parameter.kind is parameter.KEYWORD_ONLY, (
            f"option {parameter.name!r} is not keyword-only (put * before it)"
        )


@checks.promise("make constants with x.dtype, or parameters and buffers, which .double() converts")
def dtype_is_kept(checked: CheckedPooling) -> None:
    """The output has the dtype of the input: float32, and float64 after `.double()`."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 7, 7)
        assert layer(x).dtype == torch.float32, f"{words}float32 becomes {layer(x).dtype}"
        y = layer.double()(x.double())
        assert y.dtype == torch.float64, f"{words}float64 becomes {y.dtype}"


@checks.promise("reduce over channels and spatial locations only, never over dimension 0")
def images_are_independent(checked: CheckedPooling) -> None:
    """The output for an image does not depend on the other images of the batch."""
    for words, layer in checked.layers():
        x = signed(5, CHANNELS, 7, 5) * torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0]).view(-1, 1, 1, 1)
        together = layer(x)
        for index in range(5):
            assert_close(layer(x[index : index + 1])[0], together[index], f"{words}image {index} alone")


@checks.promise("draw random numbers only where self.training is true")
def eval_is_deterministic(checked: CheckedPooling) -> None:
    """In eval mode, the output does not depend on the state of the random generator."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 7, 7)
        torch.manual_seed(1)
        first = layer(x)
        torch.manual_seed(2)
        assert torch.equal(first, layer(x)), f"{words}two calls in eval mode differ"


@checks.promise("set stochastic=True in Pooling(...), or compute the same in training")
def training_is_declared(checked: CheckedPooling) -> None:
    """Training mode and eval mode give the same output, unless `stochastic` is true."""
    if checked.pooling.stochastic:
        return
    for words, layer in checked.layers():
        x = signed(4, CHANNELS, 7, 7)
        expected = layer(x)
        assert_close(layer.train()(x), expected, f"{words}training mode, with stochastic=False,")
        assert_close(layer.eval()(x), expected, f"{words}eval mode after a call in training mode")


@checks.promise("leave parameter_free=True out of Pooling(...)")
def parameters_are_declared(checked: CheckedPooling) -> None:
    """A layer with `parameter_free` has no parameters."""
    count = sum(p.numel() for p in checked.build().parameters())
    assert not (checked.pooling.parameter_free and count), f"parameter_free=True, but there are {count} parameters"


@checks.promise("use relu, clamp, mul … instead of relu_, clamp_, mul_ on x")
def input_is_left_alone(checked: CheckedPooling) -> None:
    """The layer does not modify its input."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 7, 7)
        before = x.clone()
        layer(x)
        assert torch.equal(x, before), f"{words}the input was changed in place"


@checks.promise("look at detach(), .data, .item() and custom backward functions")
def gradients_are_right(checked: CheckedPooling) -> None:
    """The gradient of the input matches finite differences, in float64.

    The Jacobian of a wide output takes a backward pass for each value; a random combination is compared there.
    """
    layer = checked.build(channels=4).double()
    x = signed(2, 4, 4, 4, seed=3).double().requires_grad_()
    wide = layer(x).numel() > WIDE
    torch.autograd.gradcheck(layer, (x,), eps=1e-6, atol=1e-5, fast_mode=wide)


@checks.promise("use every parameter in forward, and do not detach x")
def gradients_reach_everything(checked: CheckedPooling) -> None:
    """In training, the input and every trainable parameter get a finite gradient."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 7, 7).requires_grad_()
        y = layer.train()(x)
        assert y.requires_grad, f"{words}the output has no gradient"
        (y * signed(*y.shape, seed=1)).sum().backward()
        assert_finite(x.grad, f"{words}gradient for the feature map")
        assert x.grad is not None
        assert x.grad.abs().max() > 0, f"{words}the gradient for the feature map is zero"
        for name, parameter in layer.named_parameters():
            if parameter.requires_grad:
                assert_finite(parameter.grad, f"{words}gradient for {name}")


@checks.promise(
    "divide by clamp(min=eps), take roots and logarithms of clamp(min=eps), shift exponentials by the maximum"
)
def extremes_are_finite(checked: CheckedPooling) -> None:
    """Zero, constant, large and tiny inputs give finite outputs and gradients, in training and in eval."""
    for words, layer in checked.layers():
        maps = {f"all {value:g}": torch.full((2, CHANNELS, 4, 4), value) for value in EXTREMES}
        maps["signed, up to thousands"] = LARGE * signed(2, CHANNELS, 4, 4)
        maps["signed, about 1e-20"] = 1e-20 * signed(2, CHANNELS, 4, 4)
        maps["half zero"] = signed(2, CHANNELS, 4, 4).relu()
        for name, x in maps.items():
            for training in (False, True):
                _try_extreme(layer.train(training), x, words + name + (", training" if training else ""))


def _try_extreme(layer: nn.Module, x: Tensor, what: str) -> None:
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    assert_finite(y, what)
    y.sum().backward()
    assert_finite(x.grad, f"{what}: gradient for the feature map")
    for name, parameter in layer.named_parameters():
        if parameter.grad is not None:
            assert_finite(parameter.grad, f"{what}: gradient for {name}")


@checks.promise(
    "divide by a norm of at least clamp(min=1e-3), take roots of clamp(min=1e-6); where no gradient is wanted, detach"
)
def gradients_are_bounded(checked: CheckedPooling) -> None:
    """In training, gradients at zeros, ties, constants, spikes and large values are bounded by 10,000 ordinary ones.

    For the feature map and for every parameter, with the options as given and with each one changed.
    """
    for words, layer in checked.layers():
        for wrong in gradients.unbounded(layer.train(), CHANNELS):
            raise AssertionError(f"{words}{wrong}")
    for options in gradients.option_values(checked.make, checked.options):
        try:
            layer = CheckedPooling(checked.pooling, checked.make, options).build()
        except (ValueError, AssertionError):  # it refuses that value
            continue
        changed = ", ".join(f"{key}={value}" for key, value in options.items() if key not in checked.options)
        for wrong in gradients.unbounded(layer.train(), CHANNELS):
            raise AssertionError(f"with {changed}, {wrong}")


@checks.promise("compute sums, squares and exponentials in x.float(), and return .to(x.dtype)")
def low_precision_is_close(checked: CheckedPooling) -> None:
    """bfloat16, float16 and autocast stay within 5 % of float32. float16 stays finite on values in the hundreds."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 4, 4).bfloat16().float()
        exact = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            automatic = layer(x)
        brain = copy.deepcopy(layer).bfloat16()(x.bfloat16())
        half = copy.deepcopy(layer).half()
        assert_close(automatic, exact, f"{words}bfloat16 autocast", 0.05)
        assert_close(brain, exact, f"{words}bfloat16", 0.05)
        assert_close(half(x.half()), exact, f"{words}float16", 0.05)
        assert brain.dtype == torch.bfloat16, f"{words}bfloat16 becomes {brain.dtype}"
        assert_finite(half((300 * x).clamp(-500, 500).half()), f"{words}float16, hundreds")
        assert_finite(half(torch.zeros_like(x).half()), f"{words}float16, zeros")


@checks.promise("use flatten or reshape instead of view")
def memory_format_does_not_matter(checked: CheckedPooling) -> None:
    """Channels-last inputs and views give the output of contiguous inputs."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 7, 5)
        expected = layer(x)
        assert_close(layer(x.contiguous(memory_format=torch.channels_last)), expected, f"{words}channels-last")
        wide = torch.zeros(2, CHANNELS, 14, 5)
        wide[:, :, ::2] = x
        assert_close(layer(wide[:, :, ::2]), expected, f"{words}a strided view")


@checks.promise("register what is random as a parameter or a buffer")
def weights_survive_a_file(checked: CheckedPooling) -> None:
    """Weights saved to safetensors and loaded into a new layer give the same output."""
    from safetensors.torch import load_file, save_file

    first, second = checked.build(seed=0), checked.build(seed=1)
    with temporary_folder() as folder:
        path = folder / "layer.safetensors"
        save_file({key: value.contiguous() for key, value in first.state_dict().items()}, path)
        second.load_state_dict(load_file(path))
    x = signed(2, CHANNELS, 7, 7)
    assert torch.equal(first(x), second(x)), "a layer with the same weights gives other numbers"


@checks.promise("keep state in parameters and buffers alone")
def copies_are_equal(checked: CheckedPooling) -> None:
    """A deep copy gives the same output."""
    layer, x = checked.build(), signed(2, CHANNELS, 7, 7)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x)), "a deep copy gives other numbers"


@checks.promise("keep no tensor of a call in a module, a class or a closure that several layers share")
def calls_do_not_meet(checked: CheckedPooling) -> None:
    """Two layers that compute at the same time, on two threads, give what each gives alone."""
    layer = checked.build()
    for training in (False,) if checked.pooling.stochastic else (False, True):
        words = "in training, " if training else "in eval mode, "
        assert_undisturbed(layer.train(training), signed(2, CHANNELS, 7, 5), signed(2, CHANNELS, 7, 5, seed=1), words)


@checks.promise("leave threads, seeds, dtypes and modes of torch to its user")
def torch_is_left_alone(checked: CheckedPooling) -> None:
    """A call neither changes a setting of torch nor seeds its random generator."""
    layer, x, states = checked.build(), signed(2, CHANNELS, 7, 7), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        for training in (False, True):
            with settings_kept():
                layer.train(training)(x)
        states.append(torch.get_rng_state())
    assert not torch.equal(*states), "a call seeds the random generator of torch"


@checks.promise("make tensors with device=x.device, or register them as buffers")
def nothing_stays_on_the_cpu(checked: CheckedPooling) -> None:
    """In a forward pass with fake CUDA tensors, every tensor is on the device of the input. Needs no GPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    for words, layer in checked.layers():
        named = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
        for training in (False, True):
            layer.train(training)
            with FakeTensorMode():
                fake = {name: torch.empty(t.shape, dtype=t.dtype, device="cuda") for name, t in named.items()}
                y = torch.func.functional_call(layer, fake, torch.empty(2, CHANNELS, 8, 8, device="cuda"))
            assert y.device.type == "cuda", f"{words}the output is on the {y.device}"


@checks.promise(
    "a small eps is deleted (use clamp), divisor_override is ignored, median and adaptive max have no form: "
    "docs/how-to/plugins.md has the rewrites"
)
def exports_as_it_is(checked: CheckedPooling) -> None:
    """A plain `torch.onnx.export` at 7 × 7 and 8 × 8 gives the same output for any number of images.

    Compared under ONNX Runtime on zeros, ties, negative, large and random feature maps; the tolerance is ten times the
    noise between float32 and float64. The graph draws no random numbers.
    """
    assert_exports(checked)


def run_check(check: str, pooling: Pooling | str, kind: Kind = "global", **options: Any) -> None:
    """Runs one of `CHECKS` on a pooling: a `Pooling`, or the name of one with its kind.

    Raises:
        AssertionError: The promise is not kept; the message has the numbers.
        Exception: Whatever the layer itself raises.
    """
    checks.run(check, _checked(pooling, kind, options))


def check_pooling(
    pooling: Pooling | str,
    kind: Kind = "global",
    *,
    expected_failures: Mapping[str, str] | None = None,
    **options: Any,
) -> list[Failure]:
    """Runs all of `CHECKS` on a pooling.

    Args:
        pooling: A `Pooling` as a plugin yields it, or the name of a loaded one.
        kind: Which kind a name means.
        expected_failures: Checks that it is expected to fail, each with the reason; one that passes is a failure.
        options: Values for the options of its build.

    Returns:
        The failures, in the order of `CHECKS`; an empty list if there are none.
    """
    return checks.failures(_checked(pooling, kind, options), expected_failures)


def _checked(pooling: Pooling | str, kind: Kind, options: Mapping[str, object]) -> CheckedPooling:
    if isinstance(pooling, str):
        found = loader.catalog().pooling(pooling, kind)
        return CheckedPooling(found.item, found.build, {**found.options, **options})
    make = import_build(pooling.build, pooling.name, Source("under test", None, "file"))
    return CheckedPooling(pooling, make, options)


CHECKS: Final = checks.ids


class PoolingTests(Suite, checks=checks, attribute="pooling", run=run_check):
    """Every promise of a pooling, as tests for pytest.

    Attributes:
        pooling: The item under test, or the name of one that is loaded.
    """

    pooling: ClassVar[Pooling | str | None] = None
