"""The cache of a frozen backbone's features, computed once for every image, on which heads then train and are tested.

The cache holds feature maps. For a pooling without parameters it holds the smaller pooled vectors instead. Heads train
on half precision. They are tested on single precision, so that they predict what the whole network predicts. The name
of a cache entry is a digest of all that its content depends on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.common import json_writer, output
from poolzoo.common.errors import CheckFailed
from poolzoo.data import blocks, disk, sizes
from poolzoo.data.augment.augmentation import NO_AUGMENTATION
from poolzoo.data.source import cache_dir
from poolzoo.data.streaming.images import batches
from poolzoo.data.transfer import to_device
from poolzoo.model.network import Network
from poolzoo.train.cores import Replicas, cores, evaluation_threads
from poolzoo.train.image_batches import batch_loader
from poolzoo.train.inference import in_parts
from poolzoo.train.loaders import FEATURE_MAP, frozen_feature_map
from poolzoo.train.prepare import PreparedRun

ROWS: Final = "rows.npy"
VERSION: Final = 2
PRECISIONS: Final = ("float16", "float32")  # in the order in which they are tried
# What happens without room for the features of the training images, and of others.
_INSTEAD: Final = {True: "in every epoch", False: "for every seed"}


class _OverflowError(Exception):
    """A feature is beyond the range of half precision."""


@dataclass(frozen=True)
class FeatureStore:
    """Features of N images in V views.

    Attributes:
        rows: `float16[V · N, …]`, or `float32`; of feature maps that networks are tested on `float32[N, H, W, C]`.
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


Part = Literal["train", "val", "test", "mirrored"]


@dataclass(frozen=True)
class FeatureConfig:
    """One cache entry: the feature maps of a backbone, or the vectors of one pooling.

    Attributes:
        input_key: `FEATURE_MAP`, or the spec of the pooling.
        prepared: The run that needs it.
        part: Which images: those to train on, in all views, those to validate or test on, or the mirrored test images.
        digest: Name of the entry.
        shape: Of the features of one image.
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
        return self.part != "train" and self.input_key == FEATURE_MAP


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
    shape: tuple[int, ...] = (prepared.assembly.out_features,)
    if key == FEATURE_MAP:
        shape = (layout.channels, *layout.map_size) if part == "train" else (*layout.map_size, layout.channels)
    digest = _digest(prepared, key, dtype, part)
    return FeatureConfig(input_key=key, prepared=prepared, part=part, digest=digest, shape=shape, dtype=dtype)


def _digest(prepared: PreparedRun, key: str, dtype: str, part: Part) -> str:
    settings, assembly = prepared.settings, prepared.assembly
    backbone_source = assembly.backbone.resolved.entry.source
    pool = [key, assembly.pool.entry.source.sha256(), dict(assembly.pool.options), prepared.head_batch_size]
    parts: dict[str, object] = {
        # The batch size of the backbone may change the last bits.
        "version": [VERSION, prepared.backbone_batch_size, dtype, torch.__version__],
        "what": key if key == FEATURE_MAP else pool,
        "backbone": [settings.backbone, settings.local_pool, settings.stem, backbone_source.sha256()],
        "weights": prepared.backbone_digest,
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


def open_features(heads: Sequence[PreparedRun], part: Part = "train") -> dict[str, FeatureStore] | None:
    """The features of some images for heads on one backbone; missing ones are computed in one pass of the backbone.

    Args:
        heads: Runs with the same backbone and data.
        part: Which images.

    Returns:
        The features by input key; None if the disk has no room.

    Raises:
        CheckFailed: The backbone gives NaN or infinity.
    """
    shelf = disk.Shelf(cache_dir() / "features", disk.limit())  # shared, so that no entry evicts another of these
    by_key = {part_key(head, part): head for head in heads}
    for kept in get_args(Part):  # what is found is not evicted: no part gives way to another one
        for key, head in {part_key(head, kept): head for head in heads}.items():
            for dtype in _dtypes(kept):
                shelf.find(feature_config(head, key, dtype, kept).digest)
    dtypes = _dtypes(part)
    found: dict[str, FeatureStore] = {}
    for key, head in by_key.items():
        store = next(filter(None, (_read(shelf, feature_config(head, key, dtype, part)) for dtype in dtypes)), None)
        if store is not None:
            found[key] = store
    for dtype in dtypes:
        missing = {key: head for key, head in by_key.items() if key not in found}
        if len(missing) > 1 and part == "train":  # further poolings will need the maps
            missing = {FEATURE_MAP: heads[0], **missing}
        if missing:
            configs = [feature_config(head, key, dtype, part) for key, head in missing.items()]
            if part == "train":  # the images to validate on are among them
                validated = {part_key(head, "val"): head for head in heads}.items()
                tested = [feature_config(head, key, PRECISIONS[1], "val") for key, head in validated]
                configs += [config for config in tested if _read(shelf, config) is None]
            built = _build(shelf, configs)
            if built is None:
                return None
            found = {**built, **found}
    return {key: found[key] for key in by_key}


def _dtypes(part: Part) -> Sequence[str]:
    """The types in which the features of a part may be kept, in the order in which they are tried."""
    return PRECISIONS if part == "train" else PRECISIONS[1:]


def _read(shelf: disk.Shelf, config: FeatureConfig) -> FeatureStore | None:
    rows = disk.find_rows(shelf, config.digest, ROWS, (config.rows, *config.shape), config.dtype)
    return None if rows is None else FeatureStore(rows=rows, views=config.views, channels_last=config.channels_last)


def _build(shelf: disk.Shelf, configs: Sequence[FeatureConfig]) -> dict[str, FeatureStore] | None:
    """Computes entries together.

    Args:
        shelf: Where they are kept.
        configs: The entries of a part. With those of the images to train on there may be some to validate on.

    Returns:
        Those of the part by input key, without those beyond the range of half precision; None if they cannot be kept.
    """
    first = configs[0]
    maps = _read(shelf, feature_config(first.prepared, FEATURE_MAP, first.dtype, first.part))
    if maps is not None:
        configs = [one for one in configs if one.part == first.part and one.input_key != FEATURE_MAP]
    wanted = sum(one.bytes for one in configs)
    others = f" and {len(configs) - 1} more" if len(configs) > 1 else ""
    size = f"{describe(configs[0])}{others}, {wanted / 1e6:,.0f} MB"
    if not shelf.room(wanted):
        output.say(
            f"no room for {size}: the cache limit is {shelf.limit_bytes / 1e9:g} GB (POOLZOO_CACHE_LIMIT=GB), the disk "
            f"has {shelf.free() / 1e9:.0f} GB free; the backbone runs {_INSTEAD[first.part == 'train']} instead"
        )
        return None
    output.say(f"caching {size}, in {shelf.root} (limit {shelf.limit_bytes / 1e9:g} GB)")
    try:
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
    stores = {one.input_key: _read(shelf, one) for one in whole}
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
                found[config.digest] = _round(vectors, config.dtype).cpu().numpy()
            except _OverflowError:
                found[config.digest] = None
    return found


def _as_kept(x: Tensor, config: FeatureConfig) -> Tensor:
    """Feature maps in the precision and memory layout of an entry, whether the backbone gives them or the cache."""
    layout = torch.contiguous_format if config.part == "train" else config.prepared.policy.memory_format
    return _round(x, config.dtype).contiguous(memory_format=layout)


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


def _round(features: Tensor, dtype: str) -> Tensor:
    rounded = features.to(getattr(torch, dtype))
    if not torch.isfinite(rounded).all():
        if torch.isfinite(features).all():
            raise _OverflowError
        raise CheckFailed("the frozen backbone gives NaN or infinity", "check that its weights are not damaged")
    return rounded


def describe(config: FeatureConfig) -> str:
    """A cache entry in words, such as `feature maps (64×4×4) of 1,437 images`."""
    what = "feature maps" if config.input_key == FEATURE_MAP else f"{config.input_key} vectors"
    text = f"{what} ({sizes.show(config.shape)}) of {config.images:,} {_IMAGES[config.part]}"
    return f"{text} in {config.views} views" if config.views > 1 else text


_IMAGES: Final[dict[Part, str]] = {
    "train": "images",
    "val": "validation images",
    "test": "test images",
    "mirrored": "mirrored test images",
}


def cache_note(prepared: PreparedRun) -> str:
    """What the cache would hold, its size and its directory, for `--dry-run`."""
    config = feature_config(prepared, input_key(prepared))
    return f"{describe(config)}, {config.bytes / 1e6:,.0f} MB in {cache_dir() / 'features'}"
