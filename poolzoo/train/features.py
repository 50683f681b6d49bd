"""The cache of a frozen backbone's features, computed once for every image, on which heads then train.

The cache holds feature maps in half precision. For a pooling without parameters it holds the smaller pooled vectors
instead. The name of a cache entry is a digest of all that its content depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from torch import Tensor

from poolzoo.common import json_writer, output
from poolzoo.common.errors import CheckFailed
from poolzoo.data import blocks, disk, sizes
from poolzoo.data.augment.augmentation import NO_AUGMENTATION
from poolzoo.data.source import cache_dir
from poolzoo.data.transfer import to_device
from poolzoo.train.image_batches import batch_loader
from poolzoo.train.loaders import FEATURE_MAP, frozen_feature_map
from poolzoo.train.prepare import PreparedRun

ROWS: Final = "rows.npy"
VERSION: Final = 1
PRECISIONS: Final = ("float16", "float32")  # in the order in which they are tried


class _OverflowError(Exception):
    """A feature is beyond the range of half precision."""


@dataclass(frozen=True)
class FeatureStore:
    """Features of N images in V views.

    Attributes:
        rows: `float16[V · N, …]`, or `float32` if half precision has too small a range.
        views: Number V of views.
    """

    rows: np.ndarray
    views: int

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
            `float32[n, …]`.
        """
        rows = self._reader[view * (len(self.rows) // self.views) + indices]
        return to_device(rows, device).float()


@dataclass(frozen=True)
class FeatureConfig:
    """One cache entry: the feature maps of a backbone, or the vectors of one pooling.

    Attributes:
        input_key: `FEATURE_MAP`, or the spec of the pooling.
        prepared: The run that needs it.
        digest: Name of the entry.
        shape: Of the features of one image.
        dtype: "float16" or "float32".
    """

    input_key: str
    prepared: PreparedRun
    digest: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def rows(self) -> int:
        """Number of images times number of views."""
        return (1 + self.prepared.settings.views) * len(self.prepared.data.images)

    @property
    def bytes(self) -> int:
        """Size of the features."""
        return self.rows * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def input_key(prepared: PreparedRun) -> str:
    """What a head trains on: feature maps, or vectors of its own pooling if that is a fixed function of the map."""
    pool, module = prepared.assembly.pool, prepared.assembly.network.pool
    fixed = pool.item.parameter_free and not pool.item.stochastic and not any(True for _ in module.parameters())
    return prepared.settings.pool if fixed and not prepared.assembly.network.norm_first else FEATURE_MAP


def feature_config(prepared: PreparedRun, key: str, dtype: str = "float16") -> FeatureConfig:
    """The cache entry for the inputs `key` of a head."""
    layout = prepared.assembly.layout
    shape = (layout.channels, *layout.map_size) if key == FEATURE_MAP else (prepared.assembly.out_features,)
    digest = _digest(prepared, key, dtype)
    return FeatureConfig(input_key=key, prepared=prepared, digest=digest, shape=shape, dtype=dtype)


def _digest(prepared: PreparedRun, key: str, dtype: str) -> str:
    settings, assembly, augmentation = prepared.settings, prepared.assembly, prepared.augmentation
    weights = hashlib.sha256()
    for name, tensor in assembly.network.backbone.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    backbone_source = assembly.backbone.resolved.entry.source
    pool = [key, assembly.pool.entry.source.sha256(), dict(assembly.pool.options)]
    crops_from = prepared.data.keeping if augmentation.crop_scale is not None else None
    parts: dict[str, object] = {
        # The batch size of the backbone may change the last bits.
        "version": [VERSION, prepared.backbone_batch_size, dtype, torch.__version__],
        "what": key if key == FEATURE_MAP else pool,
        "backbone": [settings.backbone, settings.local_pool, settings.stem, backbone_source.sha256()],
        "weights": weights.hexdigest(),
        "input": [list(assembly.image_size), list(map(list, prepared.preprocess.statistics))],
        "images": prepared.data.digest,
        "views": [settings.views, settings.seed, repr(augmentation), crops_from] if settings.views else 0,
        "computed": [prepared.policy.device.type, settings.threads, settings.precision],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]  # noqa: TID251 - a digest


def open_features(heads: Sequence[PreparedRun]) -> dict[str, FeatureStore] | None:
    """The features that heads on one backbone train on; missing ones are computed. None if the disk has no room.

    Args:
        heads: Runs with the same backbone and data.

    Returns:
        The features by input key.

    Raises:
        CheckFailed: The backbone gives NaN or infinity.
    """
    shelf = disk.Shelf(cache_dir() / "features", disk.limit())  # shared, so that no entry evicts another of these
    by_key = {input_key(head): head for head in heads}
    missing = [key for key, head in by_key.items() if key != FEATURE_MAP and _find(shelf, head, key) is None]
    if FEATURE_MAP in by_key or len(missing) > 1:  # one pass of the backbone serves all
        by_key = {FEATURE_MAP: heads[0], **by_key}
    found = {}
    for key, head in by_key.items():
        store = _find(shelf, head, key) or _compute(shelf, head, key)
        if store is None:
            return None
        found[key] = store
    return found


def _find(shelf: disk.Shelf, head: PreparedRun, key: str) -> FeatureStore | None:
    candidates = (_read(shelf, feature_config(head, key, dtype)) for dtype in PRECISIONS)
    return next((store for store in candidates if store is not None), None)


def _compute(shelf: disk.Shelf, head: PreparedRun, key: str) -> FeatureStore | None:
    for dtype in PRECISIONS:
        try:
            return _build(shelf, feature_config(head, key, dtype))
        except _OverflowError:
            output.say("the features exceed the range of half precision; they are kept in single precision")
        except OSError as error:
            output.warn(
                f"features cannot be written to {shelf.root}: {error.strerror or error}",
                "set POOLZOO_CACHE to another directory",
            )
            break
    return None


def _read(shelf: disk.Shelf, config: FeatureConfig) -> FeatureStore | None:
    rows = disk.find_rows(shelf, config.digest, ROWS, (config.rows, *config.shape), config.dtype)
    return None if rows is None else FeatureStore(rows=rows, views=1 + config.prepared.settings.views)


def _build(shelf: disk.Shelf, config: FeatureConfig) -> FeatureStore | None:
    size = f"{describe(config)}, {config.bytes / 1e6:,.0f} MB"
    if not shelf.room(config.bytes):
        output.say(
            f"no room for {size}: the cache limit is {shelf.limit_bytes / 1e9:g} GB (POOLZOO_CACHE_LIMIT=GB), the disk "
            f"has {shelf.free() / 1e9:.0f} GB free; the backbone runs in every epoch instead"
        )
        return None
    output.say(f"caching {size}, in {shelf.root} (limit {shelf.limit_bytes / 1e9:g} GB)")
    maps = None
    if config.input_key != FEATURE_MAP:
        maps = _read(shelf, feature_config(config.prepared, FEATURE_MAP, config.dtype))
    with shelf.building(config.digest) as temporary, output.progress("running the backbone", config.rows) as bar:
        disk.write_rows(temporary / ROWS, config.rows, _rows(config, maps, bar))
        what = {"what": describe(config), "backbone": config.prepared.settings.backbone}
        (temporary / "what.json").write_text(json_writer.dumps(what))
    return _read(shelf, config)


def describe(config: FeatureConfig) -> str:
    """A cache entry in words, such as `feature maps (64×4×4) of 1,437 images`."""
    shape, views = sizes.show(config.shape), 1 + config.prepared.settings.views
    what = "feature maps" if config.input_key == FEATURE_MAP else f"{config.input_key} vectors"
    text = f"{what} ({shape}) of {len(config.prepared.data.images):,} images"
    return f"{text} in {views} views" if views > 1 else text


def _rows(config: FeatureConfig, maps: FeatureStore | None, bar: output.Progress) -> Iterator[np.ndarray]:
    """The features of every image, view by view."""
    prepared, done = config.prepared, 0
    pool = prepared.assembly.network.pool.eval()
    batches = _compute_maps(prepared, config.dtype) if maps is None else _stored_maps(maps, prepared)
    for features in batches:
        if config.input_key != FEATURE_MAP:
            with torch.inference_mode():  # of the rounded map, so that cached maps do not change the result
                features = _round(pool(features.float()), config.dtype)
        yield from features.cpu().numpy()
        done += len(features)
        bar.update(done)


def _compute_maps(prepared: PreparedRun, dtype: str) -> Iterator[Tensor]:
    for batch in image_views(prepared, prepared.backbone_batch_size):
        with torch.inference_mode():
            x = prepared.preprocess(batch).contiguous(memory_format=prepared.policy.memory_format)
            yield _round(frozen_feature_map(prepared.assembly.network, x, prepared.policy), dtype)


def image_views(prepared: PreparedRun, batch_size: int) -> Iterator[Tensor]:
    """All images of the training split, `uint8[n, H, W, 3]` on the device: as they are, then each augmented view.

    Args:
        prepared: The run.
        batch_size: Images at once.
    """
    count = len(prepared.data.images)
    for view in range(1 + prepared.settings.views):
        loader = batch_loader(prepared, batch_size, prepared.augmentation if view else NO_AUGMENTATION)
        parts = (np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size))
        with closing(loader.read(loader.in_order(view), parts)) as found:
            for batch in found:
                yield batch.images


def _stored_maps(maps: FeatureStore, prepared: PreparedRun) -> Iterator[Tensor]:
    count, rows = len(maps.rows) // maps.views, blocks.Rows(maps.rows)
    for first in range(0, len(maps.rows), count):
        for start in range(0, count, prepared.backbone_batch_size):
            part = rows[first + start : first + min(start + prepared.backbone_batch_size, count)]
            yield torch.from_numpy(part).to(prepared.policy.device)


def _round(features: Tensor, dtype: str) -> Tensor:
    rounded = features.to(getattr(torch, dtype))
    if not torch.isfinite(rounded).all():
        if torch.isfinite(features).all():
            raise _OverflowError
        raise CheckFailed("the frozen backbone gives NaN or infinity", "check that its weights are not damaged")
    return rounded


def cache_note(prepared: PreparedRun) -> str:
    """What the cache would hold, its size and its directory, for `--dry-run`."""
    config = feature_config(prepared, input_key(prepared))
    return f"{describe(config)}, {config.bytes / 1e6:,.0f} MB in {cache_dir() / 'features'}"
