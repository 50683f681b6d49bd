"""EfficientNet-Lite0 as a backbone of poolzoo. Its ImageNet weights come as a package, not from a model hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from poolzoo import Backbone, hookimpl

POOLZOO_API = 1


def labels() -> Sequence[str]:
    """The names of ImageNet's 1,000 classes in the order of the logits, as timm has them from WordNet."""
    from timm.data import ImageNetInfo

    return ImageNetInfo("imagenet-1k").label_descriptions()


@hookimpl
def poolzoo_backbones() -> Iterator[Backbone]:
    yield Backbone(
        name="lite0",
        summary="EfficientNet-Lite0 with ImageNet weights from a package",
        build="poolzoo_lite0.network:features",
        network="poolzoo_lite0.network:classifier",
        labels=labels,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        input_size=224,
        layout="NCHW",
        license="Apache-2.0",
        classifier=("classifier", "_fc"),
        crop_pct=0.875,  # these two are timm's for the network
        interpolation="bicubic",
    )
