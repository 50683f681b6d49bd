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


class Infinite(nn.Module):
    """Gives infinity everywhere for images, and zeros for none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 4, 2, 2), float("inf")) + x.mean()


class Diverging(nn.Module):
    """Gives finite numbers until it is trained."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = x.mean((2, 3))
        return means * float("nan") if torch.is_grad_enabled() and means.requires_grad else means


class Unreadable:
    """A function whose arguments cannot be read."""

    def __call__(self, channels: int) -> nn.Module:
        return nn.Identity()

    @property
    def __signature__(self) -> object:
        raise ArithmeticError("it has none")


def other_sizes(split: str, cache_dir: object) -> tuple[np.ndarray, np.ndarray]:
    side = 8 if split == "train" else 9
    return np.zeros((20, side, side, 3), np.uint8), np.arange(20) % 2


def other_labels(split: str, cache_dir: object) -> tuple[np.ndarray, np.ndarray]:
    count = 2 if split == "train" else 3
    return np.zeros((20, 8, 8, 3), np.uint8), np.eye(count, dtype=np.uint8)[np.arange(20) % count]


def backbone(name: str, module: nn.Module, **facts: object) -> poolzoo.Backbone:
    return poolzoo.Backbone(name=name, summary="", build=lambda *, pretrained=False: module, **facts)


def empty(split: str, cache_dir: object) -> poolzoo.ImageIndex:
    return poolzoo.ImageIndex(poolzoo.FileStorage("/"), poolzoo.Names.of([]), np.zeros(0, np.int32))


@poolzoo.hookimpl
def poolzoo_poolings():
    yield poolzoo.Pooling(name="odd-number", summary="", kind="global", build=lambda channels: 3)
    yield poolzoo.Pooling(name="odd-diverging", summary="", kind="global", build=lambda channels: Diverging())
    yield poolzoo.Pooling(name="odd-arguments", summary="", kind="global", build=Unreadable())


@poolzoo.hookimpl
def poolzoo_backbones():
    yield backbone("odd-layout", Constant(4, 2, 2), layout="NLC")
    yield backbone("odd-tokens", Constant(7, 4))
    yield backbone("odd-failing", Failing())
    yield backbone("odd-infinite", Infinite())
    yield backbone("odd-scores", Failing(), input_size=8, network=lambda *, pretrained=False: Failing())
    yield poolzoo.BackboneFamily(prefix="odd", names=lambda: ["one"], get=lambda name: 3)


@poolzoo.hookimpl
def poolzoo_datasets():
    yield poolzoo.DatasetSource(prefix="odd", summary="", open=lambda place, **_: 3)
    yield poolzoo.Dataset(name="odd-index", summary="", index=lambda split, cache_dir: 3, classes=("a", "b"))
    yield poolzoo.Dataset(name="odd-empty", summary="", index=empty, classes=("a", "b"))
    yield poolzoo.Dataset(name="odd-classes", summary="", index=empty)
    yield poolzoo.Dataset(name="odd-sizes", summary="", load=other_sizes)
    yield poolzoo.Dataset(name="odd-labels", summary="", load=other_labels)
