"""The built-in backbones, a plugin like any other: small networks of our own, and timm's and torchvision's families."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from poolzoo.plugin.spec import Backbone, BackboneFamily, hookimpl

# Of the weights that come with the package: the statistics of the images that they were learnt from.
_NANO: Final[dict[str, Any]] = {
    "mean": (0.4913, 0.4821, 0.4465),
    "std": (0.2452, 0.2428, 0.2606),
    "license": "Apache-2.0",
    "trained_on": "cifar10",
}


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
    yield Backbone(
        name="nano/plain",
        summary="the textbook's conv–pool–conv–pool–conv, 32-64-64 channels",
        build="poolzoo.backbones.nano:plain",
        **_NANO,
    )
    yield Backbone(
        name="nano/resnet",
        summary="a small residual network that trains in minutes on a CPU",
        build="poolzoo.backbones.nano:resnet",
        **_NANO,
    )
    yield BackboneFamily(
        prefix="timm", names=_timm_names, get=_timm_get, summary="every model of timm; the prefix may be left out"
    )
    yield BackboneFamily(
        prefix="torchvision",
        names=_torchvision_names,
        get=_torchvision_get,
        summary="every classification model of torchvision",
    )
