"""Computes entries of the cache of features: one pass of the backbone for all of them, on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from functools import partial
from typing import Protocol, cast

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


class RowSink(Protocol):
    """Takes the features of images in their order."""

    def add(self, rows: np.ndarray) -> None:
        """Takes some rows, `[n, …]`."""
        ...


class Entry:
    """Where the features of an entry go while they are computed.

    Attributes:
        writer: Takes them.
        is_abandoned: Whether nothing of them is to be kept.
    """

    def __init__(self, writer: RowSink) -> None:
        self.writer = writer
        self.is_abandoned = False


class _OverflowError(Exception):
    """A feature is beyond the range of half precision."""


def build(shelf: disk.Shelf, configs: Sequence[FeatureConfig]) -> dict[str, FeatureStore] | None:
    """Computes entries of one part together, and keeps them on a disk.

    Args:
        shelf: Where they are kept.
        configs: The entries.

    Returns:
        Those within the range of half precision by input key; None if the disk cannot keep them.

    Raises:
        CheckFailed: The backbone gives NaN or infinity.
    """
    first = configs[0]
    others = f" and {len(configs) - 1} more" if len(configs) > 1 else ""
    try:
        maps = read(shelf, feature_config(first.prepared, FEATURE_MAP, first.dtype, first.part))
        if maps is not None:
            configs = [one for one in configs if one.input_key != FEATURE_MAP]
        wanted = sum(one.bytes for one in configs)
        size = f"{describe(configs[0])}{others}, {wanted / 1e6:,.0f} MB"
        if not shelf.room(wanted):
            output.say(
                f"no room for {size}: the cache limit is {shelf.limit_bytes / 1e9:g} GB (POOLZOO_CACHE_LIMIT=GB), "
                f"the disk has {shelf.free() / 1e9:.0f} GB free"
            )
            return None
        output.say(f"caching {size}, in {shelf.root} (limit {shelf.limit_bytes / 1e9:g} GB)")
        overflowed = compute(configs, partial(_on_disk, shelf), maps)
        stores = {one.input_key: read(shelf, one) for one in configs if one.digest not in overflowed}
    except OSError as error:
        output.warn(
            f"features cannot be written to {shelf.root}: {error.strerror or error}",
            "set POOLZOO_CACHE to another directory",
        )
        return None
    found = {key: store for key, store in stores.items() if store is not None}
    return found if len(found) == len(stores) else None  # another process needed the room meanwhile


def compute(
    configs: Sequence[FeatureConfig],
    keep: Callable[[FeatureConfig], AbstractContextManager[Entry]],
    maps: FeatureStore | None = None,
) -> set[str]:
    """Runs the backbone on the images of a part, or reads stored maps, and hands on what entries need.

    Args:
        configs: The entries.
        keep: Where the features of an entry go.
        maps: The feature maps, if they are stored.

    Returns:
        The digests of the entries that exceed half precision, of which nothing is kept.

    Raises:
        CheckFailed: The backbone gives NaN or infinity.
    """
    try:
        overflowed = _compute(configs, keep, maps)
    except _OverflowError:
        overflowed = {one.digest for one in configs}
    if overflowed:
        output.say("the features exceed the range of half precision; they are kept in single precision")
    return overflowed


def _compute(
    configs: Sequence[FeatureConfig],
    keep: Callable[[FeatureConfig], AbstractContextManager[Entry]],
    maps: FeatureStore | None,
) -> set[str]:
    """What `compute` does.

    Raises:
        _OverflowError: A feature map exceeds half precision.
    """
    first, overflowed = configs[0], set[str]()
    with ExitStack() as stack:
        pool = stack.enter_context(cores(first.prepared.policy.device, evaluation_threads()))
        bar = stack.enter_context(output.progress("running the backbone", first.rows))
        entries = {one.digest: stack.enter_context(keep(one)) for one in configs}
        networks = nn.ModuleList([one.prepared.inference_network for one in configs]).eval()
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


class _AbandonedError(Exception):
    """Nothing of an entry is to be kept."""


@contextmanager
def _on_disk(shelf: disk.Shelf, config: FeatureConfig) -> Iterator[Entry]:
    """A new entry, which is there when the block has ended well."""
    with suppress(_AbandonedError), shelf.building(config.digest) as temporary:
        with disk.row_writer(temporary / ROWS, config.rows) as writer:
            entry = Entry(writer)
            yield entry
            if entry.is_abandoned:
                raise _AbandonedError
        what = {"what": describe(config), "backbone": config.prepared.settings.backbone}
        (temporary / "what.json").write_text(json_writer.dumps(what))


def _features(
    configs: Sequence[FeatureConfig], replicas: Replicas[nn.ModuleList], x: Tensor, *, is_map: bool
) -> dict[str, np.ndarray | None]:
    """The features of images `uint8[n, H, W, 3]`, or of their maps, by digest; None for vectors that overflow."""
    first = configs[0]
    prepared, part = first.prepared, first.part
    found: dict[str, np.ndarray | None] = {}
    with torch.inference_mode(), replicas.taken() as networks:
        if not is_map:
            x = feature_maps(prepared, cast(Network, networks[0]), x)
        kept = as_kept(x, first)
        given = kept.float()  # the rounded map, so that cached maps do not change the result
        for config, network in zip(configs, networks, strict=True):
            if config.input_key == FEATURE_MAP:
                found[config.digest] = kept.permute(0, 2, 3, 1).contiguous().cpu().numpy()
                continue
            try:
                with nullcontext() if part == "train" else prepared.policy.context():
                    vectors = in_parts(cast(Network, network).pool, given, config.prepared.head_batch_size)
                found[config.digest] = round_as_kept(vectors, config).cpu().numpy()
            except _OverflowError:
                found[config.digest] = None
    return found


def feature_maps(prepared: PreparedRun, network: Network, images: Tensor) -> Tensor:
    """Feature maps `float[n, C, H, W]` of images `uint8[n, H, W, 3]`.

    Args:
        prepared: A run with the backbone.
        network: A network with the backbone as it computes features.
        images: On the device.
    """
    x = prepared.preprocess(images).contiguous(memory_format=prepared.policy.memory_format)
    return frozen_feature_map(network, x, prepared.policy)


def as_kept(x: Tensor, config: FeatureConfig) -> Tensor:
    """Feature maps in the precision and memory layout of an entry, whether the backbone gives them or the cache."""
    return round_as_kept(x, config).contiguous(memory_format=config.prepared.policy.memory_format)


def _images_of(config: FeatureConfig) -> Iterator[Tensor]:
    """The images of a part in batches for the backbone."""
    prepared = config.prepared
    data, size = prepared.data, prepared.backbone_batch_size
    if config.part == "train":
        yield from image_views(prepared, size)
        return
    images = data.images if config.part == "val" else data.test.images
    indices = data.val_indices if config.part == "val" else np.arange(len(images))
    for part in batches(images, indices, size):
        x = to_device(part, prepared.policy.device)
        yield x.flip(2) if config.part == "mirrored" else x


def _maps_of(config: FeatureConfig, maps: FeatureStore) -> Iterator[Tensor]:
    """Stored feature maps in the same batches."""
    size, device = config.prepared.backbone_batch_size, config.prepared.policy.device
    for view in range(maps.views):
        for part in parts_of(config.images, size):
            yield maps.take(np.full(len(part), view), part, device)


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


def round_as_kept(features: Tensor, config: FeatureConfig) -> Tensor:
    """Features in the precision of an entry. What heads are tested on may be NaN: they give no prediction then.

    Raises:
        CheckFailed: Of what heads train on, something is NaN or infinity.
    """
    rounded = features.to(getattr(torch, config.dtype))
    if config.part == "train" and not torch.isfinite(rounded).all():
        if torch.isfinite(features).all():
            raise _OverflowError
        raise CheckFailed("the frozen backbone gives NaN or infinity", "check that its weights are not damaged")
    return rounded
