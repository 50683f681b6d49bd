"""Features of training images that the disk cannot keep: in memory where they fit, else computed for each batch.

Heads train on the same bits in all three cases. The result of an image may depend on how many images are computed at
once, but not on which ones. So each image is computed among as many as in the pass that fills the cache. A check makes
sure that the other images do not matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Final

import numpy as np
import torch
from torch import Tensor

from poolzoo.common import output, resources
from poolzoo.common.errors import EnvironmentProblem
from poolzoo.data import disk
from poolzoo.data.augment.augmentation import NO_AUGMENTATION
from poolzoo.data.transfer import to_device
from poolzoo.train.cores import Replicas, cores, evaluation_threads
from poolzoo.train.feature_entries import FeatureConfig, FeatureStore, feature_config, read
from poolzoo.train.feature_writer import Entry, as_kept, compute, feature_maps, round_as_kept
from poolzoo.train.image_batches import batch_loader
from poolzoo.train.inference import in_parts
from poolzoo.train.loaders import FEATURE_MAP, Features
from poolzoo.train.prepare import PreparedRun

MEMORY_SHARE: Final = 4  # features may take one part in so many of the memory that is available
IN_FLIGHT: Final = 2  # batches that are read at the same time, see `poolzoo.train.stepper`


def build(shelf: disk.Shelf, configs: Sequence[FeatureConfig]) -> dict[str, Features]:
    """The features of training images, for as long as this process needs them.

    Args:
        shelf: Where the feature maps may be.
        configs: Entries of the images to train on.

    Returns:
        Those within the range of half precision by input key.

    Raises:
        CheckFailed: The backbone gives NaN or infinity.
        EnvironmentProblem: They do not fit into memory, and cannot be computed for each batch with the same bits.
    """
    first = configs[0]
    maps = _stored_maps(shelf, first)
    wanted = sum(one.bytes for one in configs)
    available = resources.available_memory()
    kept: dict[str, _Rows] = {}
    fits = available is not None and wanted <= available // (MEMORY_SHARE * first.prepared.rank.world_size)
    if fits:
        output.say(f"the features are kept in memory instead, {resources.size(wanted)}")
    else:
        output.say(f"the backbone runs in every epoch instead, since {resources.size(wanted)} do not fit into memory")

    @contextmanager
    def keep(config: FeatureConfig) -> Iterator[Entry]:
        kept[config.digest] = _Rows(config) if fits else _NoRows(config)
        yield Entry(kept[config.digest])

    overflowed = compute(configs, keep, maps)  # without room it only finds out which precision they need
    source = None if fits else maps or _Backbone(first.prepared)

    def features(one: FeatureConfig) -> Features:
        if source is not None:
            return _Computed(one, source)
        return FeatureStore(kept[one.digest].rows, one.views, one.channels_last)

    return {one.input_key: features(one) for one in configs if one.digest not in overflowed}


def _stored_maps(shelf: disk.Shelf, config: FeatureConfig) -> FeatureStore | None:
    try:
        return read(shelf, feature_config(config.prepared, FEATURE_MAP, config.dtype))
    except OSError:
        return None


class _Rows:
    """The features of an entry in memory."""

    def __init__(self, config: FeatureConfig) -> None:
        self.rows = np.empty((config.rows, *config.shape), config.dtype)
        self._count = 0

    def add(self, rows: np.ndarray) -> None:
        self.rows[self._count : self._count + len(rows)] = rows
        self._count += len(rows)


class _NoRows(_Rows):
    """Keeps nothing."""

    def __init__(self, config: FeatureConfig) -> None:
        self.rows = np.empty((0, *config.shape), config.dtype)

    def add(self, rows: np.ndarray) -> None:
        pass


class _Computed:
    """Features that are computed when a batch needs them.

    Args:
        config: The entry of the cache that they would be in.
        maps: Gives the feature maps.

    Raises:
        EnvironmentProblem: The result of an image depends on the others that it is computed with.
    """

    def __init__(self, config: FeatureConfig, maps: Features) -> None:
        self.views = config.views
        self._config = config
        self._maps = maps
        self._lock = Lock()
        self._require_equal_bits()

    def take(self, view: np.ndarray, indices: np.ndarray, device: torch.device) -> Tensor:
        config, prepared = self._config, self._config.prepared
        with self._lock, cores(device, 1), torch.no_grad():
            kept = as_kept(self._maps.take(view, indices, device), config)
            if config.input_key == FEATURE_MAP:
                return kept.float()
            batch_sizes = _batch_sizes(indices, config.images, prepared.backbone_batch_size)
            size = prepared.head_batch_size
            found = torch.empty(len(indices), *config.shape, device=device)
            for piece in _pieces(_batch_sizes(indices % prepared.backbone_batch_size, batch_sizes, size)):
                padded = kept[to_device(piece.padded, device)].float()
                vectors = round_as_kept(in_parts(prepared.assembly.network.pool, padded, size), config)
                found[to_device(piece.positions, device)] = vectors[: len(piece.positions)].float()
            return found

    def _require_equal_bits(self) -> None:
        """Computes some images in two orders."""
        prepared = self._config.prepared
        first = np.arange(min(prepared.backbone_batch_size, self._config.images))
        view, device = np.zeros_like(first), prepared.policy.device
        if torch.equal(self.take(view, first, device), self.take(view, first[::-1], device).flip(0)):
            return
        raise EnvironmentProblem(
            f"there is no room for features, and {prepared.settings.backbone} gives other bits in another batch",
            "set POOLZOO_CACHE_LIMIT to more GB; --no-feature-cache trains without them, with other results",
        )


class _Backbone:
    """Feature maps of training images in all views, which a frozen backbone computes when they are needed.

    Args:
        prepared: A run with the backbone.
    """

    def __init__(self, prepared: PreparedRun) -> None:
        self.views = 1 + prepared.settings.views
        self._prepared = prepared
        self._threads = evaluation_threads()
        self._replicas = Replicas(prepared.inference_network, self._threads)
        plain = batch_loader(prepared, prepared.backbone_batch_size, NO_AUGMENTATION)
        changed = plain if self.views == 1 else batch_loader(prepared, plain.batch_size, prepared.augmentation)
        self._loaders = [plain, *[changed] * prepared.settings.views]
        self._epochs = [loader.in_order(view) for view, loader in enumerate(self._loaders)]
        self._last: deque[tuple[bytes, Tensor]] = deque(maxlen=IN_FLIGHT)
        self._lock = Lock()

    def take(self, view: np.ndarray, indices: np.ndarray, device: torch.device) -> Tensor:
        """Feature maps `float[n, C, H, W]`; heads that ask for the same images share them."""
        key = view.tobytes() + indices.tobytes()
        with self._lock:
            for known, maps in self._last:
                if known == key:
                    return maps
            maps = self._compute(view, indices, device)
            self._last.append((key, maps))
            return maps

    def _compute(self, view: np.ndarray, indices: np.ndarray, device: torch.device) -> Tensor:
        prepared = self._prepared
        sizes = _batch_sizes(indices, len(prepared.data.images), prepared.backbone_batch_size)
        pieces = list(_pieces(sizes))
        images = (self._images(view[one.padded], indices[one.padded]) for one in pieces)

        def maps_of(images: Tensor) -> Tensor:
            with self._replicas.taken() as network:
                return feature_maps(prepared, network, images)

        with cores(device, self._threads) as pool:
            found = [maps[: len(one.positions)] for one, maps in zip(pieces, pool.stream(maps_of, images), strict=True)]
        return torch.cat(found)[_places([one.positions for one in pieces], device)]

    def _images(self, view: np.ndarray, indices: np.ndarray) -> Tensor:
        """Images `uint8[n, H, W, 3]`, each in its view."""
        parts, positions = list[Tensor](), list[np.ndarray]()
        for number in np.unique(view):
            positions.append(np.flatnonzero(view == number))
            with closing(self._loaders[number].read(self._epochs[number], [indices[positions[-1]]])) as read:
                parts.append(next(read).images)
        return torch.cat(parts)[_places(positions, parts[0].device)]


def _places(positions: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Where rows `0 … n−1` are among parts one behind the other, of which each has the rows `int64[m]`."""
    return to_device(np.argsort(np.concatenate(positions)), device)


@dataclass(frozen=True)
class _Piece:
    """Some of several images, which are computed at once.

    Attributes:
        positions: Which ones, `int64[n]`.
        padded: As many as are computed at once: the same ones, and some of them again.
    """

    positions: np.ndarray
    padded: np.ndarray


def _batch_sizes(places: np.ndarray, count: np.ndarray | int, size: int) -> np.ndarray:
    """How many images the batch has that an image is in, `int64[n]`, where `count` images are divided into batches.

    Args:
        places: Of the images among them, `int64[n]`.
        count: How many there are, for each of them or for all.
        size: Of the batches, of which the last one may be smaller.
    """
    rest = count % size
    return np.where(places < count - rest, size, rest)


def _pieces(sizes: np.ndarray) -> Iterator[_Piece]:
    """Divides images, each of which is computed among so many, `int64[n]`."""
    for size in np.unique(sizes):
        positions = np.flatnonzero(sizes == size)
        for start in range(0, len(positions), size):
            own = positions[start : start + size]
            yield _Piece(own, np.resize(own, size))
