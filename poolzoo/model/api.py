"""The Python API: poolings and networks by name. Importing this imports no torch; calling it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.plugin import loader, spec

if TYPE_CHECKING:
    from torch import nn


def create_pooling(
    pool: str,
    channels: int,
    kind: spec.Kind = "global",
    *,
    kernel_size: int = 2,
    stride: int | None = None,
    padding: int = 0,
    ceil_mode: bool = False,
    map_size: tuple[int, int] | None = None,
) -> nn.Module:
    """A pooling layer by name.

    Args:
        pool: Its spec, such as `gem:p=4`.
        channels: Channels C of the feature map.
        kind: "global" for `float[N, C, H, W] → float[N, D]`; "local" for the output shape of `nn.MaxPool2d`.
        kernel_size, stride, padding, ceil_mode: Geometry of a local one; the stride defaults to the kernel size.
        map_size: (H, W) of the feature map, for a global one whose parameters depend on it.

    Raises:
        UsageError: The name or an option is unknown or does not fit.
    """
    from poolzoo.model.geometry import Geometry
    from poolzoo.model.pooling import build_pooling

    if kind not in ("global", "local"):
        raise UsageError(f"kind {kind!r} is neither 'global' nor 'local'", "choose one of them")
    resolved = loader.catalog().pooling(pool, kind)
    if kind == "global":
        return build_pooling(resolved, channels, map_size)
    geometry = Geometry(kernel_size, stride or kernel_size, padding, ceil_mode)
    return geometry.build(resolved.build, channels, resolved.options)


def create_model(
    backbone: str,
    *,
    pool: str = "avg",
    local_pool: str | None = None,
    num_classes: int = 10,
    image_size: int | str | tuple[int, int] | None = None,
    stem: str = "stock",
    head: str = "linear",
    pretrained: bool = False,
) -> nn.Module:
    """A network: any backbone with any pooling, normalized `float[N, 3, H, W] → float[N, num_classes]`.

    Args:
        backbone: Its spec, such as `timm/resnet18`.
        pool: The global pooling's spec.
        local_pool: A local pooling for the backbone's own pooling modules.
        num_classes: Number of logits.
        image_size: A side, `"HxW"` or (height, width) in pixels; None for the backbone's own, or 32.
        stem: "stock" or "small".
        head: "linear" or "mlp:WIDTH".
        pretrained: Whether to start from published weights.

    Raises:
        UsageError: A name is unknown, parts do not fit, or the feature map would be 1 × 1.
    """
    from poolzoo.data.sizes import parse
    from poolzoo.model.assemble import assemble, unseen_border
    from poolzoo.model.config import ModelConfig

    if image_size is None:
        image_size = loader.catalog().backbone(backbone).item.input_size or 32
    try:
        size = parse(image_size)
    except ValueError as error:
        raise UsageError(f"image_size: {error}", "such as 64, or (64, 208) for height and width") from None
    config = ModelConfig(
        backbone=backbone,
        pool=pool,
        num_classes=num_classes,
        data_size=size,
        image_size=size,
        local_pool=local_pool,
        stem=stem,
        head=head,
        pretrained=pretrained,
    )
    assembly = assemble(config)
    if (border := unseen_border(assembly.backbone)) is not None:
        output.warn(border.line(backbone))
    return assembly.network
