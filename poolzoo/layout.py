"""Reads a backbone's features as a map: NCHW, NHWC or NLC, told from their shape, as `float[N, C, H, W]`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from torch import Tensor, nn

from poolzoo.catalog import Resolved
from poolzoo.errors import PluginFailed

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
        PluginFailed: The features are no map in any known layout.
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
        return Layout("NLC", prefix, features.shape[2], _grid(name, features.shape[1] - prefix, image_size))
    a, b, c = features.shape[1:]
    if kind == "auto":
        kind = "NHWC" if _is_map(a, b, image_size) and not _is_map(b, c, image_size) else "NCHW"
    return Layout(kind, 0, c, (a, b)) if kind == "NHWC" else Layout(kind, 0, a, (b, c))


def _is_map(height: int, width: int, image_size: Size) -> bool:
    """Whether two numbers can be a map of the image: its proportions, up to the rounding of five halvings."""
    return abs(height * image_size[1] - width * image_size[0]) <= max(image_size) and height <= image_size[0]


def _grid(name: str, positions: int, image_size: Size) -> Size:
    if image_size[0] == image_size[1]:
        side = isqrt(positions)
        if side * side == positions:
            return side, side
    rows = [h for h in range(1, positions + 1) if positions % h == 0]
    ratio = image_size[0] / image_size[1]
    rows = [h for h in rows if abs(h / (positions // h) / ratio - 1) < 0.5]
    if not rows:
        raise PluginFailed(
            f"backbone {name} gives {positions} tokens, which form no map", "set prefix_tokens in its plugin"
        )
    best = min(rows, key=lambda h: abs(h / (positions // h) / ratio - 1))
    return best, positions // best


def as_map(features: Tensor, layout: Layout) -> Tensor:
    """Features in any layout as `float[N, C, H, W]`."""
    if layout.kind == "NLC":
        return features[:, layout.prefix_tokens :].transpose(1, 2).unflatten(2, layout.map_size)
    return features.permute(0, 3, 1, 2) if layout.kind == "NHWC" else features
