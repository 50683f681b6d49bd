"""Chooses the input size of a backbone, and suggests sizes near one that it refuses."""

from __future__ import annotations

import torch

from poolzoo.common.errors import PoolzooError
from poolzoo.data.sizes import Size, show
from poolzoo.model.backbone import MIN_FEATURE_MAP, BackboneParts
from poolzoo.model.plugin_calls import InputRefusedError

LARGEST_PROBE = 512  # pixels a side up to which a larger input is tried
STEPS = (4, 8, 12, 14, 16, 28, 32, 64)  # patch sizes and strides in pixels; most backbones need multiples of one


def choose_image_size(parts: BackboneParts, data_size: Size) -> Size:
    """The first size whose feature map is at least 4 × 4: the data's own, its doublings, or the backbone's native one.

    Where none is, the one with the largest feature map.

    Raises:
        UsageError, PluginFailed: The backbone accepts none of them.
    """
    sizes = _candidates(parts, data_size)
    best: tuple[int, Size] | None = None
    refused: InputRefusedError | None = None
    for size in sizes:
        try:
            side = min(_map_size(parts, size))
        except InputRefusedError as error:  # a larger one may do
            refused = error
            continue
        if side >= MIN_FEATURE_MAP:
            return size
        if best is None or side > best[0]:
            best = side, size
    if best is not None:
        return best[1]
    assert refused is not None  # every size was refused
    raise refused.explained(f"image of {show(sizes[0])} to {show(sizes[-1])}", _hint(parts, sizes)) from refused.error


def _candidates(parts: BackboneParts, data_size: Size) -> list[Size]:
    height, width = data_size
    sizes = [(height, width)]
    while max(sizes[-1]) * 2 <= LARGEST_PROBE:
        sizes.append((sizes[-1][0] * 2, sizes[-1][1] * 2))
    native = parts.resolved.item.input_size if height == width else None  # a square would stretch other images
    if native is not None and (native, native) not in sizes and native > max(height, width):
        sizes.append((native, native))
    return sizes


def _hint(parts: BackboneParts, sizes: list[Size]) -> str:
    if parts.stem == "small":
        return "leave --stem small out"
    height, width = sizes[0]
    if height == width:
        return "choose another backbone"
    side = parts.resolved.item.input_size or sizes[-1][0]
    return f"--image-size {side} crops to squares; or choose another backbone"


def _map_size(parts: BackboneParts, size: Size) -> Size:
    return parts.build(torch.randn(1, 3, *size)).layout.map_size


def sizes_near(parts: BackboneParts, size: Size) -> str:
    """A hint with the nearest sizes below and above a refused one that the backbone accepts."""

    def works(other: Size) -> bool:
        try:
            return _map_size(parts, other) != (1, 1)
        except (InputRefusedError, PoolzooError):
            return False

    def multiple(step: int, up: int) -> Size:
        height, width = (step * (side // step + up * (side % step > 0)) for side in size)
        return height, width

    below = sorted({multiple(step, 0) for step in STEPS} - {size}, reverse=True)
    above = sorted({multiple(step, 1) for step in STEPS} - {size})
    tries = ([smaller for smaller in below if min(smaller) > 0], above)
    found = [one for one in (next(filter(works, sizes), None) for sizes in tries) if one is not None]
    typed = [str(one[0]) if one[0] == one[1] else f"{one[0]}x{one[1]}" for one in found]
    return f"use --image-size {' or '.join(typed)}" if typed else "use a larger --image-size"
