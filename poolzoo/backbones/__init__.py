"""The built-in backbones, a plugin like any other: small networks of our own, and timm's and torchvision's families."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from poolzoo.spec import Backbone, BackboneFamily, hookimpl


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
    )
    yield Backbone(
        name="nano/resnet",
        summary="a small residual network that trains in minutes on a CPU",
        build="poolzoo.backbones.nano:resnet",
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
