"""Automatic augmentation: operators at random magnitudes, drawn for each image and applied to a whole batch at once.

TrivialAugment (Müller and Hutter, 2021, arXiv 2103.10158; its wide space) applies one operator at any magnitude.
RandAugment (Cubuk et al., 2019, arXiv 1909.13719) applies N of them at magnitude M. The spaces are torchvision's. The
images that drew the same operator are changed together. On a CPU, TrivialAugment on a batch of 256 takes a seventh of
Pillow's time for images of 32 × 32. It takes as long as Pillow for 224 × 224 (`python -m benchmarks.data.augment`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from poolzoo.data.augment import color, draws, warp
from poolzoo.data.augment.options import MAGNITUDES, Policy
from poolzoo.data.sizes import Size
from poolzoo.data.transfer import put_rows, to_device

MAX_TRANSLATION: Final = 150 / 331  # RandAugment's, as a part of the side
Apply = Callable[[Tensor, np.ndarray], Tensor]


@dataclass(frozen=True)
class _Magnitudes:
    """Magnitudes of an operator from the weakest to the strongest, `float64[31]`, and whether half are negated."""

    values: np.ndarray
    signed: bool = False


def distort(images: Tensor, policy: Policy, seed: int, epoch: int, positions: np.ndarray) -> Tensor:
    """Applies to each image the operators that it drew.

    Args:
        images: `uint8[n, H, W, 3]`; their content may change.
        policy: Which operators.
        seed: Of the run.
        epoch: Its number.
        positions: Of the images in their split, `int64[n]`.

    Returns:
        `uint8[n, H, W, 3]`.
    """
    size: Size = (images.shape[1], images.shape[2])
    space = _space(policy.kind, size)
    drawn = draws.uniform(seed, epoch, draws.Purpose.POLICY, positions, 3 * policy.operators)
    for turn in range(policy.operators):
        which, level, sign = drawn[:, 3 * turn : 3 * turn + 3].T
        operators = (which * len(OPERATORS)).astype(np.int64)
        levels = (level * MAGNITUDES).astype(np.int64)
        if policy.magnitude is not None:
            levels[:] = policy.magnitude
        for number, name in enumerate(OPERATORS):
            rows = np.flatnonzero(operators == number)
            if name != "identity" and len(rows):
                values = space[name].values[levels[rows]]
                if space[name].signed:
                    values = np.where(sign[rows] <= 0.5, -values, values)
                images = change_rows(images, rows, OPERATORS[name], values)
    return images


def change_rows(images: Tensor, rows: np.ndarray, apply: Apply, magnitudes: np.ndarray) -> Tensor:
    """Applies an operator to some images of a batch, in place.

    Args:
        images: `uint8[n, H, W, 3]`.
        rows: Which images, `int64[m]`.
        apply: The operator.
        magnitudes: One for each of them, `float64[m]`.
    """
    part = images.index_select(0, to_device(rows, images.device))
    return put_rows(images, rows, apply(part, magnitudes))


def with_factor(operator: color.Operator) -> Apply:
    """An operator whose factor is one more than the magnitude."""

    def apply(images: Tensor, magnitudes: np.ndarray) -> Tensor:
        return operator(images, to_device((1 + magnitudes).astype(np.float32), images.device))

    return apply


def _warped(maps: Callable[[np.ndarray, Size], np.ndarray]) -> Apply:
    def apply(images: Tensor, magnitudes: np.ndarray) -> Tensor:
        size = (images.shape[1], images.shape[2])
        return warp.warp(images, to_device(maps(magnitudes, size).astype(np.float32), images.device))

    return apply


def _posterize(images: Tensor, bits: np.ndarray) -> Tensor:
    masks = (0xFF00 >> bits.astype(np.int64)) & 0xFF
    return color.posterize(images, to_device(masks.astype(np.uint8), images.device))


def _solarize(images: Tensor, parts: np.ndarray) -> Tensor:
    thresholds = np.ceil((255 * parts).astype(np.float32)).astype(np.uint8)  # torchvision compares float32
    return color.solarize(images, to_device(thresholds, images.device))


def _plain(operator: Callable[[Tensor], Tensor]) -> Apply:
    return lambda images, _: operator(images)


# The order is part of what a seed means.
OPERATORS: Final[Mapping[str, Apply]] = {
    "identity": _plain(lambda images: images),
    "shear_x": _warped(warp.shear_x),
    "shear_y": _warped(warp.shear_y),
    "translate_x": _warped(warp.translate_x),
    "translate_y": _warped(warp.translate_y),
    "rotate": _warped(warp.rotate),
    "brightness": with_factor(color.brightness),
    "color": with_factor(color.saturation),
    "contrast": with_factor(color.contrast),
    "sharpness": with_factor(color.sharpness),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _plain(color.autocontrast),
    "equalize": _plain(color.equalize),
}


def _space(kind: str, size: Size) -> Mapping[str, _Magnitudes]:
    """The magnitudes of every operator in the space of a policy, for images of some size."""
    wide = kind == "trivial"
    geometric, pixels = (0.99, (32.0, 32.0)) if wide else (0.3, tuple(MAX_TRANSLATION * side for side in size))
    blend = 0.99 if wide else 0.9
    bits = 6 if wide else 4  # that posterizing takes away at most
    nothing = _Magnitudes(np.zeros(MAGNITUDES))
    return {
        "shear_x": _up_to(geometric),
        "shear_y": _up_to(geometric),
        "translate_x": _up_to(pixels[1]),
        "translate_y": _up_to(pixels[0]),
        "rotate": _up_to(135.0 if wide else 30.0),
        **{name: _up_to(blend) for name in ("brightness", "color", "contrast", "sharpness")},
        "posterize": _Magnitudes(np.rint(8 - np.arange(MAGNITUDES) / ((MAGNITUDES - 1) / bits))),
        "solarize": _Magnitudes(_line(1.0, 0.0)),
        "autocontrast": nothing,
        "equalize": nothing,
    }


def _up_to(strongest: float) -> _Magnitudes:
    return _Magnitudes(_line(0.0, strongest), signed=True)


def _line(first: float, last: float) -> np.ndarray:
    """`float32` as torchvision has them, so that whole pixels and thresholds are the same."""
    line: np.ndarray = torch.linspace(first, last, MAGNITUDES).double().numpy()
    return line
