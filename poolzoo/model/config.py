"""ModelConfig: what a network is made of, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from poolzoo.data.sizes import Size


@dataclass(frozen=True)
class ModelConfig:
    """What a network is made of, as plain values: the same configuration gives the same network.

    Attributes:
        backbone: A backbone's spec, such as `timm/resnet18`.
        pool: A global pooling's spec, such as `gem:p=4`.
        num_classes: Number of logits.
        data_size: Height and width of the images in pixels.
        image_size: Height and width of the backbone's input; None to choose one whose feature map is at least 4 × 4.
        local_pool: A local pooling's spec. `window=`, `stride=` and `padding=` change the geometry that it takes over.
        stem: "stock", or "small" to reduce the stem's stride.
        head: "linear", or "mlp:WIDTH" for one hidden layer.
        pretrained: Whether the backbone starts from its published weights.
        final_norm: "head" to apply a norm that the published network has behind its pooling behind ours; "backbone" to
            leave it in the backbone, at every spatial location, as in runs of earlier versions.
    """

    backbone: str
    pool: str
    num_classes: int
    data_size: Size
    image_size: Size | None = None
    local_pool: str | None = None
    stem: str = "stock"
    head: str = "linear"
    pretrained: bool = False
    final_norm: Literal["head", "backbone"] = "head"
