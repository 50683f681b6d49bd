"""The built-in backbones, a plugin like any other: small networks of our own, and timm's and torchvision's families."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from poolzoo.plugin.spec import Backbone, BackboneFamily, hookimpl

if TYPE_CHECKING:
    import numpy as np


def _nano(name: str, summary: str) -> Backbone:
    """One of our own; mean and std are those of the images that the package's weights were trained on."""
    return Backbone(
        name=f"nano/{name}",
        summary=summary,
        build=f"poolzoo.backbones.nano:{name}",
        mean=(0.4913, 0.4821, 0.4465),
        std=(0.2452, 0.2428, 0.2606),
        license="Apache-2.0",
        trained_on="cifar10",
        trained_digests=_nano_digests,
    )


def _nano_digests() -> np.ndarray:
    from poolzoo.backbones import nano

    return nano.trained_digests()


def _timm_names() -> Sequence[str]:
    from poolzoo.backbones import timm_family

    return timm_family.names()


def _timm_get(name: str) -> Backbone:
    from poolzoo.backbones import timm_family

    return timm_family.get(name)


def _torchvision_names() -> Sequence[str]:
    from poolzoo.backbones import torchvision_family

    return torchvision_family.names()


def _torchvision_get(name: str) -> Backbone:
    from poolzoo.backbones import torchvision_family

    return torchvision_family.get(name)


@hookimpl
def poolzoo_backbones() -> Iterator[Backbone | BackboneFamily]:
    yield _nano("plain", "conv–pool–conv–pool–conv, 32-64-64 channels")
    yield _nano("resnet", "a small residual network that trains in minutes on a CPU")
    yield BackboneFamily(
        prefix="timm", names=_timm_names, get=_timm_get, summary="every model of timm; the prefix may be left out"
    )
    yield BackboneFamily(
        prefix="torchvision",
        names=_torchvision_names,
        get=_torchvision_get,
        summary="every classification model of torchvision",
    )
