"""What every pooling promises, as checks.

Local poolings are tried at the usual geometries; one that refuses a geometry with a ValueError, when it is built, is
taken at its word.
"""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from poolzoo.common.errors import reason
from poolzoo.plugin import loader
from poolzoo.plugin.catalog import import_build
from poolzoo.plugin.grammar import accepts
from poolzoo.plugin.problems import Source
from poolzoo.plugin.spec import Kind, Pooling
from poolzoo.testing import gradients
from poolzoo.testing.base import Checks, Failure, suite
from poolzoo.testing.graph import answer, exported

CHANNELS: Final = 24  # divisible by few numbers, so that defaults that fit only powers of two are found out
MAPS: Final = ((1, 1), (2, 2), (7, 5), (8, 8))  # of global poolings: height and width in positions
GEOMETRIES: Final = ((2, 2, 0, False), (3, 2, 1, False), (3, 2, 0, True), (2, 2, 0, True), (3, 1, 1, False))
GEOMETRY_NAMES: Final = ("kernel_size", "stride", "padding", "ceil_mode")
EXTREMES: Final = (0.0, 1.0, -1.0, 1e3, -1e3)  # values of constant maps
LARGE: Final = 1e3  # scale of the maps that are large and signed


checks = Checks()


@dataclass(frozen=True)
class CheckedPooling:
    """A pooling under test: its build, imported, and the options that it is built with."""

    pooling: Pooling
    make: Callable[..., Any]
    options: dict[str, Any]

    def build(
        self, geometry: tuple[int, int, int, bool] | None = None, channels: int = CHANNELS, seed: int = 0
    ) -> nn.Module:
        """A layer in eval mode whose parameters are no longer zero or one, lest a branch be dead."""
        torch.manual_seed(seed)
        if self.pooling.kind == "global":
            extra = {"map_size": (7, 7)} if accepts(self.make, "map_size") else {}
            module = self.make(channels, **extra, **self.options)
        else:
            module = self.make(channels, *(geometry or self.geometries()[0]), **self.options)
        assert isinstance(module, nn.Module), f"build gives a {type(module).__name__}, not an nn.Module"
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        return module.eval()

    def geometries(self) -> list[tuple[int, int, int, bool]]:
        """Those of the usual geometries that the pooling does not refuse."""
        accepted, reasons = [], []
        for geometry in GEOMETRIES:
            try:
                self.make(CHANNELS, *geometry, **self.options)
                accepted.append(geometry)
            except ValueError as error:
                reasons.append(str(error))
        assert accepted, f"no usual geometry is accepted: {reasons[0]}"
        return accepted

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """A layer for each geometry, with words that say which; one for a global pooling."""
        if self.pooling.kind == "global":
            yield "", self.build()
            return
        for geometry in self.geometries():
            yield "kernel {} stride {} padding {} ceil_mode {}: ".format(*geometry), self.build(geometry)


def signed(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _close(found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Equal but for `tolerance` of the largest number expected."""
    assert found.shape == expected.shape, f"{what}: shape {list(found.shape)} instead of {list(expected.shape)}"
    error = (found.double() - expected.double()).abs().max().item()
    scale = max(1.0, expected.double().abs().max().item())
    assert error <= tolerance * scale, f"{what}: differs by {error:.3g} where numbers go up to {scale:.3g}"


def _finite(values: Tensor | None, what: str) -> None:
    assert values is not None, f"{what}: there is none"
    bad = (~values.isfinite()).sum().item()
    assert not bad, f"{what}: {bad} of {values.numel()} numbers are not finite"


# --- The checks: each takes a checked and asserts one promise --------------------------------------------------------


@checks.promise("return x pooled to [N, D] (global), or the size that nn.MaxPool2d gives (local), for every map")
def shapes(checked: CheckedPooling) -> None:
    """Global: `[N, D]`, the same D for every map. Local: the shape of `nn.MaxPool2d`. For 1, 2 and 5 images."""
    for words, layer in checked.layers():
        widths = set()
        for size in MAPS:
            for count in (1, 2, 5):
                x = signed(count, CHANNELS, *size)
                expected = [count] if checked.pooling.kind == "global" else _size_of_max_pool(layer, words, x)
                if expected is None:
                    continue
                try:
                    y = layer(x)
                except Exception as error:
                    raise AssertionError(f"{words}{list(x.shape)}: {reason(error)}") from error
                assert isinstance(y, Tensor), f"{words}gives a {type(y).__name__}, not a tensor"
                ours = [len(y)] if checked.pooling.kind == "global" else [len(y), *y.shape[2:]]
                rank = 2 if checked.pooling.kind == "global" else 4
                assert y.ndim == rank, f"{words}{list(x.shape)} becomes {list(y.shape)}, not {rank} dimensions"
                assert ours == expected, f"{words}{list(x.shape)} becomes {list(y.shape)}"
                widths.add(y.shape[1])
        assert len(widths) == 1, f"{words}the width depends on the map: {sorted(widths)}"


def _size_of_max_pool(layer: nn.Module, words: str, x: Tensor) -> list[int] | None:
    kernel_size, stride, padding = (int(words.split()[i]) for i in (1, 3, 5))
    peer = nn.MaxPool2d(kernel_size, stride, padding, ceil_mode="True" in words)
    try:
        return [len(x), *peer(x).shape[2:]]
    except RuntimeError:  # a window larger than the map
        return None


@checks.promise("choose heads, groups and widths from `channels`, such as its largest divisor")
def channel_counts(checked: CheckedPooling) -> None:
    """The defaults fit networks of other widths: 16, 64 and 288 channels."""
    for channels in (16, 64, 288):
        layer = checked.build(channels=channels)
        _finite(layer(signed(2, channels, 4, 4)), f"{channels} channels")


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
    """float32 gives float32, and after `.double()` float64 gives float64."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 7, 7)
        assert layer(x).dtype == torch.float32, f"{words}float32 becomes {layer(x).dtype}"
        y = layer.double()(x.double())
        assert y.dtype == torch.float64, f"{words}float64 becomes {y.dtype}"


@checks.promise("reduce over channels and positions only, never over dimension 0")
def images_are_independent(checked: CheckedPooling) -> None:
    """An image alone gives what it gives among others."""
    for words, layer in checked.layers():
        x = signed(5, CHANNELS, 7, 5) * torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0]).view(-1, 1, 1, 1)
        together = layer(x)
        for index in range(5):
            _close(layer(x[index : index + 1])[0], together[index], f"{words}image {index} alone")


@checks.promise("draw random numbers only where self.training is true")
def eval_is_deterministic(checked: CheckedPooling) -> None:
    """Twice the same in eval mode, whatever the random generator's state."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 7, 7)
        torch.manual_seed(1)
        first = layer(x)
        torch.manual_seed(2)
        assert torch.equal(first, layer(x)), f"{words}two calls in eval mode differ"


@checks.promise("say stochastic=True in Pooling(...), or compute the same in training")
def training_is_declared(checked: CheckedPooling) -> None:
    """What is computed in training is what is computed in eval, unless `stochastic` says otherwise."""
    if checked.pooling.stochastic:
        return
    for words, layer in checked.layers():
        x = signed(4, CHANNELS, 7, 7)
        expected = layer(x)
        _close(layer.train()(x), expected, f"{words}training mode, which stochastic=False says is like eval mode,")
        _close(layer.eval()(x), expected, f"{words}eval mode after a call in training mode")


@checks.promise("leave parameter_free=True out of Pooling(...)")
def parameters_are_declared(checked: CheckedPooling) -> None:
    """`parameter_free` is true: no parameters."""
    count = sum(p.numel() for p in checked.build().parameters())
    assert not (checked.pooling.parameter_free and count), f"parameter_free=True, but there are {count} parameters"


@checks.promise("use relu, clamp, mul … instead of relu_, clamp_, mul_ on x")
def input_is_left_alone(checked: CheckedPooling) -> None:
    """The map that comes in is not written to."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 7, 7)
        before = x.clone()
        layer(x)
        assert torch.equal(x, before), f"{words}the input was changed in place"


@checks.promise("look at detach(), .data, .item() and custom backward functions")
def gradients_are_right(checked: CheckedPooling) -> None:
    """The gradient for the map is that of finite differences, in float64."""
    layer = checked.build(channels=4).double()
    x = signed(2, 4, 4, 4, seed=3).double().requires_grad_()
    torch.autograd.gradcheck(layer, (x,), eps=1e-6, atol=1e-5)


@checks.promise("use every parameter in forward, and do not detach x")
def gradients_reach_everything(checked: CheckedPooling) -> None:
    """In training, the map and every parameter that asks for one get a finite gradient."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 7, 7).requires_grad_()
        y = layer.train()(x)
        assert y.requires_grad, f"{words}the output has no gradient"
        (y * signed(*y.shape, seed=1)).sum().backward()
        _finite(x.grad, f"{words}gradient for the map")
        assert x.grad is not None
        assert x.grad.abs().max() > 0, f"{words}the gradient for the map is zero"
        for name, parameter in layer.named_parameters():
            if parameter.requires_grad:
                _finite(parameter.grad, f"{words}gradient for {name}")


@checks.promise(
    "divide by clamp(min=eps), take roots and logarithms of clamp(min=eps), shift exponentials by the maximum"
)
def extremes_are_finite(checked: CheckedPooling) -> None:
    """Zero, constant, large and tiny maps give finite numbers and gradients, in training and in eval."""
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
    _finite(y, what)
    y.sum().backward()
    _finite(x.grad, f"{what}: gradient for the map")
    for name, parameter in layer.named_parameters():
        if parameter.grad is not None:
            _finite(parameter.grad, f"{what}: gradient for {name}")


@checks.promise(
    "divide by a norm of at least clamp(min=1e-3), take roots of clamp(min=1e-6); where no gradient is meant, detach"
)
def gradients_are_bounded(checked: CheckedPooling) -> None:
    """In training, no gradient at zeros, ties, constants, one spike or thousands is 10,000 times an ordinary one.

    For the map and for every parameter, with the options as given and with each one changed.
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
    """bfloat16 and float16 layers, and autocast, stay within a twentieth; float16 survives maps in the hundreds."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 4, 4).bfloat16().float()
        exact = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            automatic = layer(x)
        brain = copy.deepcopy(layer).bfloat16()(x.bfloat16())
        half = copy.deepcopy(layer).half()
        _close(automatic, exact, f"{words}bfloat16 autocast", 0.05)
        _close(brain, exact, f"{words}bfloat16", 0.05)
        _close(half(x.half()), exact, f"{words}float16", 0.05)
        assert brain.dtype == torch.bfloat16, f"{words}bfloat16 becomes {brain.dtype}"
        _finite(half((300 * x).clamp(-500, 500).half()), f"{words}float16, hundreds")
        _finite(half(torch.zeros_like(x).half()), f"{words}float16, zeros")


@checks.promise("use flatten or reshape instead of view")
def memory_format_does_not_matter(checked: CheckedPooling) -> None:
    """Channels-last gives what contiguous gives, and so does a map that is a view."""
    for words, layer in checked.layers():
        x = signed(2, CHANNELS, 7, 5)
        expected = layer(x)
        _close(layer(x.contiguous(memory_format=torch.channels_last)), expected, f"{words}channels-last")
        wide = torch.zeros(2, CHANNELS, 14, 5)
        wide[:, :, ::2] = x
        _close(layer(wide[:, :, ::2]), expected, f"{words}a strided view")


@checks.promise("register what is random as a parameter or a buffer")
def weights_survive_a_file(checked: CheckedPooling) -> None:
    """Saved to safetensors and loaded into a new layer, the weights give the same numbers."""
    from safetensors.torch import load_file, save_file

    first, second = checked.build(seed=0), checked.build(seed=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.safetensors"
        save_file({key: value.contiguous() for key, value in first.state_dict().items()}, path)
        second.load_state_dict(load_file(path))
    x = signed(2, CHANNELS, 7, 7)
    assert torch.equal(first(x), second(x)), "a layer with the same weights gives other numbers"


@checks.promise("keep state in parameters and buffers alone")
def copies_are_equal(checked: CheckedPooling) -> None:
    """A deep copy gives the same numbers."""
    layer, x = checked.build(), signed(2, CHANNELS, 7, 7)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x)), "a deep copy gives other numbers"


@checks.promise("make tensors with device=x.device, or register them as buffers")
def nothing_stays_on_the_cpu(checked: CheckedPooling) -> None:
    """A forward pass with fake CUDA tensors, in training and in eval: every tensor follows the map. Needs no GPU."""
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
    "docs/plugins.md has the rewrites"
)
def exports_as_it_is(checked: CheckedPooling) -> None:
    """`torch.onnx.export` with nothing around it, at 7 × 7 and 8 × 8, is right for any number of images.

    Compared under ONNX Runtime on zeros, ties, negative, large and random maps; the tolerance is ten times the noise
    between float32 and float64. The graph draws no random numbers.
    """
    geometry = None
    if checked.pooling.kind == "local":
        accepted = checked.geometries()
        geometry = accepted[1] if len(accepted) > 1 else accepted[0]  # with padding, where it is taken
    layer = checked.build(geometry)
    exact = copy.deepcopy(layer).double()
    for side in (7, 8):
        session = exported(layer, signed(2, CHANNELS, side, side), f"{side} × {side}")
        for name, x in _probes(side):
            _agree(session, layer, exact, x, f"{side} × {side}, {name}")


def _probes(side: int) -> Iterator[tuple[str, Tensor]]:
    for count in (1, 2, 7, 64):  # with many images, ONNX Runtime's threads run side by side
        yield f"{count} images", signed(count, CHANNELS, side, side)
    x = signed(2, CHANNELS, side, side)
    yield "zeros", torch.zeros_like(x)
    yield "ties", (2 * x).round() / 2
    yield "negative", -x.abs()
    yield "large", LARGE * x
    yield "dead channels", x.relu() * (torch.arange(CHANNELS) % 2).view(-1, 1, 1)


def _agree(session: Any, layer: nn.Module, exact: nn.Module, x: Tensor, what: str) -> None:
    with torch.inference_mode():
        expected = layer(x)
        noise = (expected.double() - exact(x.double())).abs().max().item()
    found = answer(session, x)
    _finite(found, f"ONNX Runtime, {what}")
    assert found.shape == expected.shape, f"ONNX Runtime, {what}: shape {list(found.shape)}"
    error, scale = (found - expected).abs().max().item(), expected.abs().max().item()
    allowed = 10 * noise + 2e-6 * max(scale, 1e-3)
    assert error <= allowed, f"ONNX Runtime, {what}: differs by {error:.3g}, allowed {allowed:.3g}"


def run_check(check: str, pooling: Pooling | str, kind: Kind = "global", **options: Any) -> None:
    """Runs one of `CHECKS` on a pooling: a `Pooling`, or the name of one with its kind.

    Raises:
        AssertionError: The promise is not kept; the message holds the numbers.
        Exception: Whatever the layer itself raises.
    """
    checks.run(check, _checked(pooling, kind, options))


def check_pooling(pooling: Pooling | str, kind: Kind = "global", **options: Any) -> list[Failure]:
    """Runs all of `CHECKS` on a pooling and says which promises are not kept.

    Args:
        pooling: A `Pooling` as a plugin yields it, or the name of one that is loaded.
        kind: Which one a name means, where it comes in both kinds.
        options: Values for the options of its build.

    Returns:
        What failed, in the order of `CHECKS`; an empty list where all is well.
    """
    return checks.failures(_checked(pooling, kind, options))


def _checked(pooling: Pooling | str, kind: Kind, options: dict[str, Any]) -> CheckedPooling:
    if isinstance(pooling, str):
        found = loader.catalog().pooling(pooling, kind)
        return CheckedPooling(found.item, found.build, {**found.options, **options})
    make = import_build(pooling.build, pooling.name, Source("under test", None, "file"))
    return CheckedPooling(pooling, make, options)


CHECKS: Final = checks.ids
PoolingTests = suite(checks, run_check, "pooling", "PoolingTests: every promise of a pooling, as tests for pytest.")
