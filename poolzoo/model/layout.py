"""Reads a backbone's features, NCHW, NHWC or NLC by their shape, as a feature map `float[N, C, H, W]`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn

from poolzoo.common.errors import PluginFailed
from poolzoo.data.sizes import Size
from poolzoo.plugin.catalog import Resolved


@dataclass(frozen=True)
class Layout:
    """How to read a backbone's features as a feature map.

    Attributes:
        kind: "NCHW", "NHWC" or "NLC".
        prefix_tokens: Leading tokens of NLC features that are no spatial locations.
        channels: Channels C of the feature map.
        map_size: Its (H, W).
    """

    kind: str
    prefix_tokens: int
    channels: int
    map_size: Size


def read_layout(backbone: Resolved, module: nn.Module, features: Tensor, image_size: Size) -> Layout:
    """How to read the features that a module gave for a batch of images of one size.

    Raises:
        PluginFailed: The features have no known layout, or are tokens of which the grid is unknown.
    """
    name = backbone.spec.name
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise PluginFailed(
            f"backbone {name} gives {shape}, not NCHW, NHWC or NLC features",
            "choose another backbone, or fix its plugin",
        )
    kind = backbone.item.layout
    if kind != "auto" and (kind == "NLC") != (features.ndim == 3):
        raise PluginFailed(f"backbone {name} says {kind} and gives {list(features.shape)}", "fix layout= in its plugin")
    if features.ndim == 3:
        prefix = backbone.item.prefix_tokens or int(getattr(module, "num_prefix_tokens", 0) or 0)
        grid = _grid(name, features.shape[1], prefix, image_size, _patches(module))
        return Layout("NLC", prefix, features.shape[2], grid)
    a, b, c = features.shape[1:]
    if kind == "auto":
        kind = "NHWC" if _is_map(a, b, image_size) and not _is_map(b, c, image_size) else "NCHW"
    return Layout(kind, 0, c, (a, b)) if kind == "NHWC" else Layout(kind, 0, a, (b, c))


def _is_map(height: int, width: int, image_size: Size) -> bool:
    """Whether the two can be the sides of a feature map: the image's aspect ratio, up to rounding in five halvings."""
    return abs(height * image_size[1] - width * image_size[0]) <= max(image_size) and height <= image_size[0]


def _patches(module: nn.Module) -> Size | None:
    """The patch grid that a network declares, as timm's transformers do: rows and columns."""
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    return (int(grid[0]), int(grid[1])) if isinstance(grid, tuple | list) and len(grid) == 2 else None


def _grid(name: str, tokens: int, prefix: int, image_size: Size, patches: Size | None) -> Size:
    """Rows and columns of the tokens behind the prefix.

    Raises:
        PluginFailed: There is no such grid, or more than one.
    """
    locations = tokens - prefix
    height, width = image_size
    if height == width and locations > 0:
        side = isqrt(locations)
        if side * side == locations:
            return side, side
        extra = f", {locations - side * side} more than {side}×{side}"
        raise _refused(name, f"{locations} tokens of {height}×{width} images are no square{extra}", prefix)
    if patches is not None and patches[0] * patches[1] == locations:
        return patches
    grids = _grids(locations, image_size)
    if len(grids) != 1:
        found = "no grid" if not grids else f"as well {' as '.join(f'{h}×{w}' for h, w in sorted(grids)[:3])}"
        raise _refused(name, f"{locations} tokens of {height}×{width} images are {found}", prefix)
    return grids.pop()


def _grids(locations: int, image_size: Size) -> set[Size]:
    """The grids with so many cells that square patches of a whole number of pixels can form.

    Partial patches at the border are dropped, or padded, in rows and columns alike.
    """
    height, width = image_size
    cut = {(height // patch, width // patch) for patch in range(1, min(image_size) + 1)}
    filled = {(-(-height // patch), -(-width // patch)) for patch in range(1, min(image_size) + 1)}
    return {(rows, columns) for rows, columns in cut | filled if rows * columns == locations}


def _refused(name: str, what: str, prefix: int) -> PluginFailed:
    said = f"after {prefix} prefix tokens " if prefix else ""
    hint = "set prefix_tokens= in its plugin to the number of leading tokens that are no patches (class, registers)"
    return PluginFailed(f"backbone {name}: {said}{what}, so prefix_tokens is wrong or missing", hint)


def as_feature_map(features: Tensor, layout: Layout) -> Tensor:
    """Features in any layout as a feature map, `float[N, C, H, W]`."""
    if layout.kind == "NLC":
        return torch.unflatten(features[:, layout.prefix_tokens :].transpose(1, 2), 2, layout.map_size)
    return features.permute(0, 3, 1, 2) if layout.kind == "NHWC" else features
