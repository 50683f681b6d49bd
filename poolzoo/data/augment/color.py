"""Changes of color and sharpness for a batch, each image with its own magnitude: torchvision's formulas for `uint8`.

torchvision applies one magnitude to a whole batch. These operators take `uint8[n, H, W, 3]` and give the same; a
magnitude is `float32[n]` or `uint8[n]` on the device of the images. None of them waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor, Tensor], Tensor]


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies every value by a factor."""
    return _bytes(images.float().mul_(_per_image(factor)))


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with the gray image; a factor of 0 gives that, 1 the original."""
    return _blend(images.float(), _gray(images).floor_()[..., None], factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with the mean of the gray image, which is the gray of the mean color."""
    count, height, width, channels = images.shape
    values = images.float()
    color = values.view(count, height, width * channels).sum(1).view(count, width, channels).sum(1) / (height * width)
    return _blend(values, _gray(color)[:, None, None, None], factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with a 3×3 smoothing, whose center weighs 5 of 13; the border stays."""
    count, height, width, channels = images.shape
    if min(height, width) < 3:
        return images
    # Neighbors in a row are `channels` apart, so that rows need no axis for the channels. Sums stay below 2¹⁵.
    rows = images.reshape(count, height, width * channels).short()
    center = rows[:, 1:-1, channels:-channels]
    columns = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    total = columns[..., : -2 * channels] + columns[..., channels:-channels] + columns[..., 2 * channels :]
    smooth = total.add_(center, alpha=4).float().div_(13).round_()
    sharpened = rows.float()
    view = sharpened[:, 1:-1, channels:-channels]
    view.add_(smooth.sub_(view).mul_(1 - factor[:, None, None]))
    return _bytes(sharpened).view_as(images)


def posterize(images: Tensor, mask: Tensor) -> Tensor:
    """Keeps the bits of a mask `uint8[n]`."""
    return images & _per_image(mask)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts values that are at least a threshold `uint8[n]`."""
    return images ^ (images >= _per_image(threshold)).to(torch.uint8).mul_(255)


def autocontrast(images: Tensor, _: Tensor | None = None) -> Tensor:
    """Stretches each channel to 0–255; a channel of one value stays."""
    count, height, width, channels = images.shape
    rows = images.reshape(count, height, width * channels)
    low, high = (
        extreme(extreme(rows, 1).view(count, width, channels), 1).float() for extreme in (torch.amin, torch.amax)
    )
    is_flat = low == high
    scale = torch.where(is_flat, 1.0, (high - low) * (1 / 255))
    low, scale = (
        value[:, None].expand(count, width, channels).reshape(count, 1, width * channels)
        for value in (torch.where(is_flat, 0.0, low), scale)
    )
    return _bytes(rows.float().sub_(low).div_(scale)).view_as(images)


def equalize(images: Tensor, _: Tensor | None = None) -> Tensor:
    """Gives each channel a flat histogram."""
    from torchvision.transforms.v2 import functional  # brings 90 MB that no other operator needs

    planes = images.permute(0, 3, 1, 2).contiguous()  # three times as fast
    equalized: Tensor = functional.equalize(planes)
    return equalized.permute(0, 2, 3, 1)


def _gray(images: Tensor) -> Tensor:
    """Luma, `float32[…]` of `[…, 3]`."""
    red, green, blue = images.unbind(-1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _blend(values: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Of `float32` values, whose content changes."""
    factor = _per_image(factor)
    return _bytes(values.mul_(factor).add_(other.mul_(1 - factor)))


def _per_image(magnitude: Tensor) -> Tensor:
    return magnitude[:, None, None, None]


def _bytes(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)
