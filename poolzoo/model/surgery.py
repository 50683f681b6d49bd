"""Changes inside a backbone: another local pooling in place of its own, a stem that keeps small images large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poolzoo.common.errors import UsageError

Window = int | tuple[int, int]
Build = Callable[..., nn.Module]


@dataclass(frozen=True)
class Geometry:
    """Where a pooling layer puts its windows, square ones: sizes in positions."""

    kernel_size: int
    stride: int
    padding: int
    ceil_mode: bool


def pooling_modules(module: nn.Module) -> dict[str, nn.MaxPool2d | nn.AvgPool2d]:
    """The pooling modules that downsample, by name; token mixers, which keep the size, are not among them."""
    return {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and max(_pair(child.stride)) > 1
    }


def with_geometry(build: Build, options: dict[str, object], changes: dict[str, int]) -> Build:
    """A local pooling's build with its options filled in and its geometry changed.

    Args:
        build: The build of the local pooling.
        options: Its own options.
        changes: `window`, `stride` and `padding`, where they are to differ from the layer that is replaced.

    Returns:
        `make(channels, kernel_size, stride, padding, ceil_mode)`, a module.
    """

    def make(channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> nn.Module:
        new = _changed(Geometry(kernel_size, stride, padding, ceil_mode), changes)
        return build(channels, new.kernel_size, new.stride, new.padding, new.ceil_mode, **options)

    return make


def replace_local_pooling(module: nn.Module, make: Build, example: Tensor) -> list[str]:
    """Puts a local pooling in the place of every downsampling pooling module.

    Args:
        module: The backbone, changed in place.
        make: `make(channels, kernel_size, stride, padding, ceil_mode)`, a module.
        example: An input of the backbone, `float[N, 3, H, W]`, with which the channels are measured.

    Returns:
        The names of the modules that were replaced.

    Raises:
        UsageError: There is none to replace, or the strategy does not accept a module's geometry or changes the number
            of channels.
    """
    found = pooling_modules(module)
    channels = _input_channels(module, found, example)
    if not channels:
        raise UsageError(
            "this backbone has no pooling module with a stride above 1", "leave --local-pool out, or try nano/resnet"
        )
    for name, width in channels.items():
        geometry = _geometry(found[name])
        layer = make(width, geometry.kernel_size, geometry.stride, geometry.padding, geometry.ceil_mode)
        changed = output_channels(layer, width)
        if changed != width:
            raise UsageError(
                f"the local pooling turns {width} channels into {changed} at {name}, the layer behind takes {width}",
                "use it in nano/plain or nano/resnet, which measure the width",
            )
        module.set_submodule(name, layer)
    return list(channels)


def output_channels(layer: nn.Module, channels: int) -> int:
    """The channels that a local pooling gives for a map of `channels`."""
    return dry_run(layer, torch.zeros(1, channels, 8, 8)).shape[1]


def _input_channels(
    module: nn.Module, found: dict[str, nn.MaxPool2d | nn.AvgPool2d], example: Tensor
) -> dict[str, int]:
    """The channels that enter each module during a forward pass; modules that are never called are left out."""
    channels: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _module, inputs: channels.update({name: inputs[0].shape[1]})

    handles = [child.register_forward_pre_hook(note(name)) for name, child in found.items()]
    try:
        dry_run(module, example)
    finally:
        for handle in handles:
            handle.remove()
    return channels


def _geometry(layer: nn.MaxPool2d | nn.AvgPool2d) -> Geometry:
    kernel_size, stride, padding = (max(_pair(value)) for value in (layer.kernel_size, layer.stride, layer.padding))
    if type(layer) in (nn.MaxPool2d, nn.AvgPool2d):
        return Geometry(kernel_size, stride, padding, layer.ceil_mode)
    # timm's 'same' variants pad on the fly to ⌈H / stride⌉ positions; this geometry gives as many.
    return Geometry(kernel_size, stride, (kernel_size - 1) // 2, ceil_mode=kernel_size % 2 == 0)


def _changed(geometry: Geometry, changes: dict[str, int]) -> Geometry:
    kernel_size = changes.get("window", geometry.kernel_size)
    default_padding = (kernel_size - 1) // 2 if "window" in changes else geometry.padding
    padding = changes.get("padding", default_padding)
    if 2 * padding > kernel_size:
        raise UsageError(f"padding={padding} is more than half of window={kernel_size}", "use a smaller padding")
    return Geometry(kernel_size, changes.get("stride", geometry.stride), padding, geometry.ceil_mode)


def _pair(value: Window) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def shrink_stem(module: nn.Module, example: Tensor, layout: str, least: int) -> list[str]:
    """Lets the stem keep the image's size: stride 1 in the first strided convolution, and no pooling after it where the
    map would still be smaller than `least` positions.

    Args:
        module: The backbone, changed in place.
        example: An input of the backbone, `float[N, 3, H, W]`.
        layout: Of the backbone's features; only "NCHW" ones come from a convolutional stem.
        least: Positions a side that the map should have.

    Returns:
        What was changed, in words.

    Raises:
        UsageError: The backbone has no convolution with a stride that could be reduced.
    """
    convolutions = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d) and max(m.stride) > 1]
    if not convolutions:
        raise UsageError("this backbone has no strided stem", "leave --stem out, or use --image-size")
    name, stem = convolutions[0]
    if layout != "NCHW":
        raise UsageError(
            "the stem of this backbone cuts the image into patches", "use --image-size instead of --stem small"
        )
    before = stem.stride
    stem.stride = (1, 1)
    changed = [f"{name}: stride {before[0]} → 1"]
    pools = pooling_modules(module)
    order = [n for n, _ in module.named_modules()]
    first = next((p for p in pools if order.index(p) > order.index(name)), None)
    second = convolutions[1][0] if len(convolutions) > 1 else None
    in_stem = first is not None and (second is None or order.index(first) < order.index(second))
    if in_stem and first is not None and min(dry_run(module, example).shape[-2:]) < least:
        module.set_submodule(first, nn.Identity())
        changed.append(f"{first}: left out")
    return changed


def dry_run(module: nn.Module, example: Tensor) -> Tensor:
    """The output for `example` in eval mode, without gradients; the module's mode is put back."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return module(example)
    finally:
        module.train(was_training)
