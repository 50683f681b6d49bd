"""Reads a backbone's features as a map: NCHW, NHWC or NLC, told from their shape, as `float[N, C, H, W]`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from torch import Tensor, nn

from poolzoo.common.errors import PluginFailed
from poolzoo.plugin.catalog import Resolved

Size = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """How to read a backbone's output as a map: its layout, leading tokens to drop, and the map's (C, H, W)."""

    kind: str
    prefix_tokens: int
    channels: int
    map_size: Size


def read_layout(backbone: Resolved, module: nn.Module, features: Tensor, image_size: Size) -> Layout:
    """How to read the features that a module gave for a batch of images of one size.

    Raises:
        PluginFailed: The features are no map in any known layout, or tokens whose rows cannot be told.
    """
    name = backbone.spec.name
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise PluginFailed(
            f"backbone {name} gives {shape}, not NCHW, NHWC or NLC features",
            "choose another backbone, or mend its plugin",
        )
    kind = backbone.item.layout
    if kind != "auto" and (kind == "NLC") != (features.ndim == 3):
        raise PluginFailed(f"backbone {name} says {kind} and gives {list(features.shape)}", "mend its plugin's layout=")
    if features.ndim == 3:
        prefix = backbone.item.prefix_tokens or int(getattr(module, "num_prefix_tokens", 0) or 0)
        grid = _grid(name, features.shape[1], prefix, image_size, _patches(module))
        return Layout("NLC", prefix, features.shape[2], grid)
    a, b, c = features.shape[1:]
    if kind == "auto":
        kind = "NHWC" if _is_map(a, b, image_size) and not _is_map(b, c, image_size) else "NCHW"
    return Layout(kind, 0, c, (a, b)) if kind == "NHWC" else Layout(kind, 0, a, (b, c))


def _is_map(height: int, width: int, image_size: Size) -> bool:
    """Whether two numbers can be a map of the image: its proportions, up to the rounding of five halvings."""
    return abs(height * image_size[1] - width * image_size[0]) <= max(image_size) and height <= image_size[0]


def _patches(module: nn.Module) -> Size | None:
    """Rows and columns of the patches that a network says to cut an image into, as timm's transformers do."""
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    return (int(grid[0]), int(grid[1])) if isinstance(grid, tuple | list) and len(grid) == 2 else None


def _grid(name: str, tokens: int, prefix: int, image_size: Size, patches: Size | None) -> Size:
    """Rows and columns of the tokens behind the prefix.

    Raises:
        PluginFailed: There is no such grid, or more than one.
    """
    positions, (height, width) = tokens - prefix, image_size
    if height == width and positions > 0:
        side = isqrt(positions)
        if side * side == positions:
            return side, side
        extra = f", {positions - side * side} more than {side}×{side}"
        raise _refused(name, f"{positions} tokens of {height}×{width} images are no square{extra}", prefix)
    if patches is not None and patches[0] * patches[1] == positions:
        return patches
    grids = _grids(positions, image_size)
    if len(grids) != 1:
        found = "no grid" if not grids else f"as well {' as '.join(f'{h}×{w}' for h, w in sorted(grids)[:3])}"
        raise _refused(name, f"{positions} tokens of {height}×{width} images are {found}", prefix)
    return grids.pop()


def _grids(positions: int, image_size: Size) -> set[Size]:
    """The grids of so many positions that square patches of a whole number of pixels can be in.

    Patches at the border are left out, or filled up, in rows and columns alike.
    """
    height, width = image_size
    cut = {(height // patch, width // patch) for patch in range(1, min(image_size) + 1)}
    filled = {(-(-height // patch), -(-width // patch)) for patch in range(1, min(image_size) + 1)}
    return {(rows, columns) for rows, columns in cut | filled if rows * columns == positions}


def _refused(name: str, what: str, prefix: int) -> PluginFailed:
    said = f"after {prefix} prefix tokens " if prefix else ""
    hint = "set prefix_tokens= in its plugin to the number of leading tokens that are no positions (class, registers)"
    return PluginFailed(f"backbone {name}: {said}{what}, so prefix_tokens is wrong or missing", hint)


def as_map(features: Tensor, layout: Layout) -> Tensor:
    """Features in any layout as `float[N, C, H, W]`."""
    if layout.kind == "NLC":
        return features[:, layout.prefix_tokens :].transpose(1, 2).unflatten(2, layout.map_size)
    return features.permute(0, 3, 1, 2) if layout.kind == "NHWC" else features
