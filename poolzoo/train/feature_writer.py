"""Computes entries of the cache of features: one pass of the backbone for all of them, on all cores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.common import json_writer, output
from poolzoo.common.errors import CheckFailed
from poolzoo.data import disk
from poolzoo.data.augment.augmentation import NO_AUGMENTATION
from poolzoo.data.streaming.images import batches
from poolzoo.data.transfer import to_device
from poolzoo.model.network import Network
from poolzoo.train.cores import Replicas, cores, evaluation_threads
from poolzoo.train.feature_entries import ROWS, FeatureConfig, FeatureStore, describe, feature_config, read
from poolzoo.train.image_batches import batch_loader
from poolzoo.train.inference import in_parts
from poolzoo.train.loaders import FEATURE_MAP, frozen_feature_map
from poolzoo.train.prepare import PreparedRun

# What happens without room for the features of the training images, and of others.
_INSTEAD: Final = {True: "in every epoch", False: "for every seed"}


class _OverflowError(Exception):
    """A feature is beyond the range of half precision."""


def build(shelf: disk.Shelf, configs: Sequence[FeatureConfig]) -> dict[str, FeatureStore] | None:
    """Computes entries together.

    Args:
        shelf: Where they are kept.
        configs: The entries of a part. With those of the images to train on there may be some to validate on.

    Returns:
        Those of the part by input key, without those beyond the range of half precision; None if they cannot be kept.
    """
    first = configs[0]
    maps = read(shelf, feature_config(first.prepared, FEATURE_MAP, first.dtype, first.part))
    if maps is not None:
        configs = [one for one in configs if one.part == first.part and one.input_key != FEATURE_MAP]
    wanted = sum(one.bytes for one in configs)
    others = f" and {len(configs) - 1} more" if len(configs) > 1 else ""
    size = f"{describe(configs[0])}{others}, {wanted / 1e6:,.0f} MB"
    try:
        if not shelf.room(wanted):
            own = [one for one in configs if one.part == first.part]
            if len(own) < len(configs):
                return build(shelf, own)
            output.say(
                f"no room for {size}: the cache limit is {shelf.limit_bytes / 1e9:g} GB (POOLZOO_CACHE_LIMIT=GB), "
                f"the disk has {shelf.free() / 1e9:.0f} GB free; "
                f"the backbone runs {_INSTEAD[first.part == 'train']} instead"
            )
            return None
        output.say(f"caching {size}, in {shelf.root} (limit {shelf.limit_bytes / 1e9:g} GB)")
        overflowed = _write(shelf, configs, maps)
    except _OverflowError:
        overflowed = {one.digest for one in configs}
    except OSError as error:
        output.warn(
            f"features cannot be written to {shelf.root}: {error.strerror or error}",
            "set POOLZOO_CACHE to another directory",
        )
        return None
    if overflowed:
        output.say("the features exceed the range of half precision; they are kept in single precision")
    whole = [one for one in configs if one.part == first.part and one.digest not in overflowed]
    stores = {one.input_key: read(shelf, one) for one in whole}
    return {key: store for key, store in stores.items() if store is not None}


def _write(shelf: disk.Shelf, configs: Sequence[FeatureConfig], maps: FeatureStore | None) -> set[str]:
    """Runs the backbone, or reads stored maps, and writes entries.

    Returns:
        The digests of vectors that exceed half precision, of which nothing is kept.

    Raises:
        _OverflowError: A feature map exceeds it.
    """
    first, overflowed = configs[0], set[str]()
    with ExitStack() as stack:
        pool = stack.enter_context(cores(first.prepared.policy.device, evaluation_threads()))
        bar = stack.enter_context(output.progress("running the backbone", first.rows))
        entries = {one.digest: stack.enter_context(_entry(shelf, one)) for one in configs}
        networks = nn.ModuleList([one.prepared.assembly.network for one in configs]).eval()
        replicas = Replicas(networks, pool.count)
        source = _images_of(first) if maps is None else _maps_of(first, maps)
        done = 0
        for found in pool.stream(partial(_features, configs, replicas, is_map=maps is not None), source):
            for digest, rows in found.items():
                if rows is None:
                    overflowed.add(digest)
                elif digest not in overflowed:
                    entries[digest].writer.add(rows)
            done += first.prepared.backbone_batch_size
            bar.update(min(done, first.rows))
        for digest in overflowed:
            entries[digest].is_abandoned = True
    return overflowed


class _Entry:
    """An entry that is being written."""

    def __init__(self, writer: disk.RowWriter) -> None:
        self.writer = writer
        self.is_abandoned = False


class _AbandonedError(Exception):
    """Nothing of an entry is to be kept."""


@contextmanager
def _entry(shelf: disk.Shelf, config: FeatureConfig) -> Iterator[_Entry]:
    """A new entry, which is there when the block has ended well."""
    with suppress(_AbandonedError), shelf.building(config.digest) as temporary:
        with disk.row_writer(temporary / ROWS, config.rows) as writer:
            entry = _Entry(writer)
            yield entry
            if entry.is_abandoned:
                raise _AbandonedError
        what = {"what": describe(config), "backbone": config.prepared.settings.backbone}
        (temporary / "what.json").write_text(json_writer.dumps(what))


@dataclass(frozen=True)
class _Batch:
    """Images `uint8[n, H, W, 3]`, or their feature maps, on the device; `first` is the row of the first."""

    first: int
    x: Tensor


def _features(
    configs: Sequence[FeatureConfig], replicas: Replicas[nn.ModuleList], batch: _Batch, *, is_map: bool
) -> dict[str, np.ndarray | None]:
    """The features of some images, or of their maps, by digest; None for vectors that exceed half precision."""
    prepared, part = configs[0].prepared, configs[0].part
    found: dict[str, np.ndarray | None] = {}
    with torch.inference_mode(), replicas.taken() as networks:
        x = batch.x
        if not is_map:
            x = prepared.preprocess(x).contiguous(memory_format=prepared.policy.memory_format)
            x = frozen_feature_map(cast(Network, networks[0]), x, prepared.policy)
        maps = {part: _as_kept(x, configs[0])}
        for config, network in zip(configs, networks, strict=True):
            if config.part not in maps:  # the images to validate on, among those to train on
                rows = prepared.data.val_indices - batch.first
                rows = rows[(rows >= 0) & (rows < len(x))]
                maps[config.part] = _as_kept(x[torch.from_numpy(rows).to(x.device)], config)
            kept = maps[config.part]
            if config.input_key == FEATURE_MAP:
                kept = kept.permute(0, 2, 3, 1) if config.channels_last else kept
                found[config.digest] = kept.contiguous().cpu().numpy()
                continue
            if not len(kept):
                continue
            try:  # of the rounded map, so that cached maps do not change the result
                with nullcontext() if config.part == "train" else prepared.policy.context():
                    vectors = in_parts(cast(Network, network).pool, kept.float(), config.prepared.head_batch_size)
                found[config.digest] = _round(vectors, config).cpu().numpy()
            except _OverflowError:
                found[config.digest] = None
    return found


def _as_kept(x: Tensor, config: FeatureConfig) -> Tensor:
    """Feature maps in the precision and memory layout of an entry, whether the backbone gives them or the cache."""
    layout = torch.contiguous_format if config.part == "train" else config.prepared.policy.memory_format
    return _round(x, config).contiguous(memory_format=layout)


def _images_of(config: FeatureConfig) -> Iterator[_Batch]:
    """The images of a part in batches for the backbone."""
    prepared = config.prepared
    data, size = prepared.data, prepared.backbone_batch_size
    found: Iterator[Tensor]
    if config.part == "train":
        found = image_views(prepared, size)
    else:
        images = data.images if config.part == "val" else data.test.images
        indices = data.val_indices if config.part == "val" else np.arange(len(images))
        found = (to_device(part, prepared.policy.device) for part in batches(images, indices, size))
    first = 0
    for x in found:
        yield _Batch(first, x.flip(2) if config.part == "mirrored" else x)
        first += len(x)


def _maps_of(config: FeatureConfig, maps: FeatureStore) -> Iterator[_Batch]:
    """Stored feature maps in the same batches."""
    size, device = config.prepared.backbone_batch_size, config.prepared.policy.device
    for view in range(maps.views):
        for part in parts_of(config.images, size):
            yield _Batch(view * config.images + int(part[0]), maps.take(np.full(len(part), view), part, device))


def parts_of(count: int, size: int) -> Iterator[np.ndarray]:
    """The numbers below `count` in order, `int64[n]` with at most `size` of them."""
    return (np.arange(start, min(start + size, count)) for start in range(0, count, size))


def image_views(prepared: PreparedRun, batch_size: int) -> Iterator[Tensor]:
    """All images of the training split, `uint8[n, H, W, 3]` on the device: as they are, then each augmented view.

    Args:
        prepared: The run.
        batch_size: Images at once.
    """
    for view in range(1 + prepared.settings.views):
        loader = batch_loader(prepared, batch_size, prepared.augmentation if view else NO_AUGMENTATION)
        with closing(loader.read(loader.in_order(view), parts_of(len(prepared.data.images), batch_size))) as found:
            for batch in found:
                yield batch.images


def _round(features: Tensor, config: FeatureConfig) -> Tensor:
    """Features in the precision of an entry. What heads are tested on may be NaN: they give no prediction then."""
    rounded = features.to(getattr(torch, config.dtype))
    if config.part == "train" and not torch.isfinite(rounded).all():
        if torch.isfinite(features).all():
            raise _OverflowError
        raise CheckFailed("the frozen backbone gives NaN or infinity", "check that its weights are not damaged")
    return rounded
