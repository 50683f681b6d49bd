"""Changes inside a backbone: another local pooling in place of its own, a stem that downsamples less."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from poolzoo.common import memory
from poolzoo.common.errors import BATCH_HINT, UsageError
from poolzoo.data.sizes import show
from poolzoo.model.geometry import Geometry, LocalBuild

MODEST = 4 << 20  # pixels whose feature maps any machine holds
MAP_BYTES = 64  # of a pixel, in a network's first feature map: 64 channels of float32 at half the size


def pooling_modules(module: nn.Module) -> dict[str, nn.MaxPool2d | nn.AvgPool2d]:
    """The pooling modules that downsample, by name; token mixers, which keep the size, are not among them."""
    return {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and max(_pair(child.stride)) > 1
    }


def replace_local_pooling(module: nn.Module, make: LocalBuild, example: Tensor) -> list[str]:
    """Replaces every downsampling pooling module by a local pooling of the same geometry.

    Args:
        module: The backbone, changed in place.
        make: The build of the local pooling.
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
    for name, in_channels in channels.items():
        layer = geometry_of(found[name]).build(make, in_channels)
        out_channels = output_channels(layer, in_channels)
        if out_channels != in_channels:
            raise UsageError(
                f"the local pooling turns {in_channels} channels into {out_channels} at {name}, "
                f"the layer behind takes {in_channels}",
                "use it in nano/plain or nano/resnet, which measure the channels",
            )
        module.set_submodule(name, layer)
    return list(channels)


def output_channels(layer: nn.Module, channels: int) -> int:
    """The output channels of a local pooling for a feature map with `channels`."""
    return dry_run(layer, torch.zeros(1, channels, 8, 8)).shape[1]


def _input_channels(module: nn.Module, found: Mapping[str, nn.Module], example: Tensor) -> dict[str, int]:
    """The channels that enter each module during a forward pass; modules that are never called are left out."""
    channels: dict[str, int] = {}

    def record(name: str) -> Callable[..., None]:
        return lambda _module, inputs: channels.update({name: inputs[0].shape[1]})

    handles = [child.register_forward_pre_hook(record(name)) for name, child in found.items()]
    try:
        dry_run(module, example)
    finally:
        for handle in handles:
            handle.remove()
    return channels


def geometry_of(layer: nn.MaxPool2d | nn.AvgPool2d) -> Geometry:
    """The geometry of one of torch's pooling layers, with the larger side of a window that is not square."""
    kernel_size, stride, padding = (max(_pair(value)) for value in (layer.kernel_size, layer.stride, layer.padding))
    if type(layer) in (nn.MaxPool2d, nn.AvgPool2d):
        return Geometry(kernel_size, stride, padding, layer.ceil_mode)
    # timm's 'same' variants pad on the fly to an output of ⌈H / stride⌉; this geometry gives the same output size.
    return Geometry(kernel_size, stride, (kernel_size - 1) // 2, ceil_mode=kernel_size % 2 == 0)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def shrink_stem(module: nn.Module, example: Tensor, layout: str, min_feature_map: int) -> list[str]:
    """Reduces the stem's stride: 1 in the first strided convolution.

    The pooling behind that convolution goes as well where the feature map would still be too small.

    Args:
        module: The backbone, changed in place.
        example: An input of the backbone, `float[N, 3, H, W]`.
        layout: Of the backbone's features; only "NCHW" ones come from a convolutional stem.
        min_feature_map: Spatial locations a side that the feature map should have.

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
    if in_stem and first is not None and min(dry_run(module, example).shape[-2:]) < min_feature_map:
        module.set_submodule(first, nn.Identity())
        changed.append(f"{first}: left out")
    return changed


def example(count: int, size: Sequence[int]) -> Tensor:
    """Noise in the shape of images, `float[count, 3, height, width]`.

    Raises:
        EnvironmentProblem: A feature map of images of that size does not fit into memory.
    """
    height, width = size
    pixels = count * height * width
    if pixels > MODEST:
        memory.require(f"feature maps of {show(size)} images", MAP_BYTES * pixels, BATCH_HINT)
    return torch.randn(count, 3, height, width)


def dry_run(module: nn.Module, example: Tensor) -> Tensor:
    """The output for `example` in eval mode, without gradients; restores the module's mode."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            output: Tensor = module(example)
            return output
    finally:
        module.train(was_training)
