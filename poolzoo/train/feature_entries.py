"""One entry of the cache of features: what it holds, under which name, and how it is read.

An entry holds feature maps. For a pooling without parameters it holds the smaller pooled vectors instead. Heads train
on half precision. They are tested on single precision, so that they predict what the whole network predicts. The name
of an entry is a digest of all that its content depends on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.data import blocks, disk, sizes
from poolzoo.data.transfer import to_device
from poolzoo.train.loaders import FEATURE_MAP
from poolzoo.train.prepare import PreparedRun

Part = Literal["train", "val", "test", "mirrored"]

ROWS: Final = "rows.npy"
VERSIONS: Final[dict[Part, int]] = {"train": 4, "val": 5, "test": 4, "mirrored": 4}  # of the content
PRECISIONS: Final = ("float16", "float32")  # in the order in which they are tried


@dataclass(frozen=True)
class FeatureStore:
    """Features of N images in V views.

    Attributes:
        rows: `float16[V · N, …]`, or `float32`; of feature maps `[V · N, H, W, C]`.
        views: Number V of views.
        channels_last: Whether rows are feature maps with the channels last.
    """

    rows: np.ndarray
    views: int
    channels_last: bool = False

    @cached_property
    def _reader(self) -> blocks.Rows:
        return blocks.Rows(self.rows)

    def take(self, view: np.ndarray, indices: np.ndarray, device: torch.device) -> Tensor:
        """Features of some images.

        Args:
            view: The view of each image, `int64[n]`.
            indices: The images, `int64[n]`.
            device: Where the features are needed.

        Returns:
            `float32[n, …]`; maps are `[n, C, H, W]`, in the memory layout in which they are stored.
        """
        rows = self._reader[view * (len(self.rows) // self.views) + indices]
        features = to_device(rows, device).float()
        return features.permute(0, 3, 1, 2) if self.channels_last else features


@dataclass(frozen=True)
class FeatureConfig:
    """One cache entry: the feature maps of a backbone, or the vectors of one pooling.

    Attributes:
        input_key: `FEATURE_MAP`, or the spec of the pooling.
        prepared: The run that needs it.
        part: Which images: those to train on, in all views, those to validate or test on, or the mirrored test images.
        digest: Name of the entry.
        shape: Of the features of one image; H, W and C of a feature map.
        dtype: "float16" or "float32".
    """

    input_key: str
    prepared: PreparedRun
    part: Part
    digest: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def views(self) -> int:
        """Number of views of each image."""
        return 1 + self.prepared.settings.views if self.part == "train" else 1

    @property
    def images(self) -> int:
        """Number of images."""
        data = self.prepared.data
        if self.part == "val":
            return len(data.val_indices)
        return len(data.images if self.part == "train" else data.test.images)

    @property
    def rows(self) -> int:
        """Number of images times number of views."""
        return self.views * self.images

    @property
    def bytes(self) -> int:
        """Size of the features."""
        return self.rows * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def channels_last(self) -> bool:
        """Whether its rows are maps as the backbone lays them out in memory, for the same last bits of sums."""
        return self.input_key == FEATURE_MAP


def input_key(prepared: PreparedRun) -> str:
    """What a head trains on: feature maps, or vectors of its own pooling if that is a fixed function of the map."""
    pool, module = prepared.assembly.pool, prepared.assembly.network.pool
    fixed = pool.item.parameter_free and not pool.item.stochastic and not any(True for _ in module.parameters())
    return prepared.settings.pool if fixed and not prepared.assembly.network.norm_first else FEATURE_MAP


def part_key(prepared: PreparedRun, part: Part) -> str:
    """What a head reads of a part: its `input_key`; to be tested, the map where that is smaller than the vectors."""
    layout = prepared.assembly.layout
    is_smaller = layout.channels * math.prod(layout.map_size) < prepared.assembly.out_features
    return FEATURE_MAP if part != "train" and is_smaller else input_key(prepared)


def behind(prepared: PreparedRun, key: str) -> nn.Module:
    """What of a network follows the features `key`: the same modules, not copies."""
    network = prepared.assembly.network
    return network.head if key == FEATURE_MAP else network.behind_pool


def feature_config(prepared: PreparedRun, key: str, dtype: str = "float16", part: Part = "train") -> FeatureConfig:
    """The cache entry for the inputs `key` of a head."""
    layout = prepared.assembly.layout
    is_map = key == FEATURE_MAP
    shape = (*layout.map_size, layout.channels) if is_map else (prepared.assembly.out_features,)
    digest = _digest(prepared, key, dtype, part)
    return FeatureConfig(input_key=key, prepared=prepared, part=part, digest=digest, shape=shape, dtype=dtype)


def _digest(prepared: PreparedRun, key: str, dtype: str, part: Part) -> str:
    settings, assembly = prepared.settings, prepared.assembly
    backbone_source = assembly.backbone.resolved.entry.source
    pool = [key, assembly.pool.entry.source.sha256(), dict(assembly.pool.options), prepared.head_batch_size]
    parts: dict[str, object] = {
        # The batch size of the backbone may change the last bits.
        "version": [VERSIONS[part], prepared.backbone_batch_size, dtype, torch.__version__],
        "what": key if key == FEATURE_MAP else pool,
        "backbone": [settings.backbone, settings.local_pool, settings.stem, backbone_source.sha256()],
        "weights": prepared.facts.digest,
        "input": [list(assembly.image_size), list(map(list, prepared.preprocess.statistics))],
        "images": _images(prepared, part),
        "computed": [prepared.policy.device.type, settings.precision],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]  # noqa: TID251 - a digest


def _images(prepared: PreparedRun, part: Part) -> list[object]:
    """What decides which images a part has, and how they are changed."""
    settings, data, augmentation = prepared.settings, prepared.data, prepared.augmentation
    if part == "train":
        crops_from = data.keeping if augmentation.crop_scale is not None else None
        views = [settings.views, settings.seed, repr(augmentation), crops_from] if settings.views else 0
        return [data.digest, views]
    if part == "val":
        return [data.digest, hashlib.sha256(data.val_indices.tobytes()).hexdigest()]
    return [data.test_digest, part]


def dtypes(part: Part) -> Sequence[str]:
    """The types in which the features of a part may be kept, in the order in which they are tried."""
    return PRECISIONS if part == "train" else PRECISIONS[1:]


def read(shelf: disk.Shelf, config: FeatureConfig) -> FeatureStore | None:
    rows = disk.find_rows(shelf, config.digest, ROWS, (config.rows, *config.shape), config.dtype)
    return None if rows is None else FeatureStore(rows=rows, views=config.views, channels_last=config.channels_last)


def describe(config: FeatureConfig) -> str:
    """A cache entry in words, such as `feature maps (64×4×4) of 1,437 images`."""
    what = "feature maps" if config.channels_last else f"{config.input_key} vectors"
    channels_first = (config.shape[-1], *config.shape[:-1])
    text = f"{what} ({sizes.show(channels_first)}) of {config.images:,} {_IMAGES[config.part]}"
    return f"{text} in {config.views} views" if config.views > 1 else text


_IMAGES: Final[dict[Part, str]] = {
    "train": "images",
    "val": "validation images",
    "test": "test images",
    "mirrored": "mirrored test images",
}
