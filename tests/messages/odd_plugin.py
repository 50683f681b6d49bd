"""A plugin whose items break their contracts, each in another way."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import poolzoo


class Constant(nn.Module):
    """Gives zeros of one shape behind the batch."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), *self.shape)


class Failing(nn.Module):
    """Gives nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("it cannot")


def backbone(name: str, module: nn.Module, **facts: object) -> poolzoo.Backbone:
    return poolzoo.Backbone(name=name, summary="", build=lambda *, pretrained=False: module, **facts)


def empty(split: str, cache_dir: object) -> poolzoo.ImageIndex:
    return poolzoo.ImageIndex(poolzoo.FileStorage("/"), poolzoo.Names.of([]), np.zeros(0, np.int32))


@poolzoo.hookimpl
def poolzoo_poolings():
    yield poolzoo.Pooling(name="odd-number", summary="", kind="global", build=lambda channels: 3)


@poolzoo.hookimpl
def poolzoo_backbones():
    yield backbone("odd-layout", Constant(4, 2, 2), layout="NLC")
    yield backbone("odd-tokens", Constant(7, 4))
    yield backbone("odd-failing", Failing())
    yield backbone("odd-scores", Failing(), input_size=8, network=lambda *, pretrained=False: Failing())
    yield poolzoo.BackboneFamily(prefix="odd", names=lambda: ["one"], get=lambda name: 3)


@poolzoo.hookimpl
def poolzoo_datasets():
    yield poolzoo.DatasetSource(prefix="odd", summary="", open=lambda place, **_: 3)
    yield poolzoo.Dataset(name="odd-index", summary="", index=lambda split, cache_dir: 3, classes=("a", "b"))
    yield poolzoo.Dataset(name="odd-empty", summary="", index=empty, classes=("a", "b"))
    yield poolzoo.Dataset(name="odd-classes", summary="", index=empty)
