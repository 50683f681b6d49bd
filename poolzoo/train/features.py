"""What a frozen backbone gives for every image, computed once and kept: heads then train on it instead of on images.

Maps are kept in half precision. Of a pooling without parameters its vectors are kept instead, which are smaller by the
map's area and leave nothing of it to compute. A cache's name is a digest of all that its content depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from poolzoo.common import json_writer, output
from poolzoo.common.errors import CheckFailed
from poolzoo.data import blocks, disk, sizes
from poolzoo.data.batches import PLAIN, Draws, Pixels, sent
from poolzoo.data.source import cache_dir
from poolzoo.train.loaders import MAP, frozen_map
from poolzoo.train.prepare import Prepared

ROWS: Final = "rows.npy"
VERSION: Final = 1


class _OverflowError(Exception):
    """A feature lies beyond the range of half precision."""


@dataclass(frozen=True)
class Stored:
    """Features of N images in V views: `float16[V · N, …]`, or float32 where half precision has too small a range."""

    rows: np.ndarray
    views: int

    @cached_property
    def _taken(self) -> blocks.Rows:
        return blocks.Rows(self.rows)

    def take(self, view: np.ndarray, chosen: np.ndarray, device: torch.device) -> Tensor:
        """The features of some images, each in a view of its own, `float32[n, …]`."""
        picked = self._taken[view * (len(self.rows) // self.views) + chosen]
        return sent(picked, device).float()


@dataclass(frozen=True)
class FeatureConfig:
    """One cache that is wanted: of maps, or of the vectors of one pooling."""

    name: str
    prepared: Prepared
    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def rows(self) -> int:
        """Images times views."""
        return (1 + self.prepared.settings.views) * len(self.prepared.data.images)

    @property
    def bytes(self) -> int:
        return self.rows * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def reads(prepared: Prepared) -> str:
    """What a head reads: maps, or the vectors of its own pooling where that neither learns nor draws."""
    pool, module = prepared.assembly.pool, prepared.assembly.network.pool
    fixed = pool.item.parameter_free and not pool.item.stochastic and not any(True for _ in module.parameters())
    return prepared.settings.pool if fixed and not prepared.assembly.network.norm_first else MAP


def planned(prepared: Prepared, name: str, dtype: str = "float16") -> FeatureConfig:
    """The cache that a head which reads `name` needs."""
    layout = prepared.assembly.layout
    shape = (layout.channels, *layout.map_size) if name == MAP else (prepared.assembly.out_features,)
    return FeatureConfig(name, prepared, _key(prepared, name, dtype), shape, dtype)


def _key(prepared: Prepared, name: str, dtype: str) -> str:
    settings, assembly, augmentation = prepared.settings, prepared.assembly, prepared.augmentation
    weights = hashlib.sha256()
    for key, tensor in assembly.network.backbone.state_dict().items():
        weights.update(key.encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    parts: dict[str, Any] = {
        # How many images pass the backbone at a time may change the last bits.
        "version": [VERSION, prepared.mapped_at_once, dtype, torch.__version__],
        "what": name if name == MAP else [name, assembly.pool.entry.source.sha256(), dict(assembly.pool.options)],
        "backbone": [
            settings.backbone,
            settings.local_pool,
            settings.stem,
            assembly.backbone.resolved.entry.source.sha256(),
        ],
        "weights": weights.hexdigest(),
        "input": [list(assembly.image_size), list(map(list, prepared.preprocess.statistics))],
        "images": prepared.data.digest,
        "views": [settings.views, settings.seed, repr(augmentation)] if settings.views else 0,
        "computed": [prepared.policy.device.type, settings.threads, settings.precision],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]  # noqa: TID251 - a digest


def opened(heads: Sequence[Prepared]) -> dict[str, Stored] | None:
    """The features that heads on one backbone read, built where they are missing; None where there is no room for them.

    Raises:
        CheckFailed: The backbone gives values that are no numbers.
    """
    shelf = disk.Shelf(cache_dir() / "features", disk.limit())  # one, so that none of these gives way to another
    readers = {reads(head): head for head in heads}
    missing = [name for name, head in readers.items() if name != MAP and _found(shelf, head, name) is None]
    if MAP in readers or len(missing) > 1:  # one pass of the backbone serves all
        readers = {MAP: heads[0], **readers}
    found = {}
    for name, head in readers.items():
        stored = _found(shelf, head, name) or _made(shelf, head, name)
        if stored is None:
            return None
        found[name] = stored
    return found


def _found(shelf: disk.Shelf, head: Prepared, name: str) -> Stored | None:
    candidates = (_read(shelf, planned(head, name, dtype)) for dtype in ("float16", "float32"))
    return next((stored for stored in candidates if stored is not None), None)


def _made(shelf: disk.Shelf, head: Prepared, name: str) -> Stored | None:
    for dtype in ("float16", "float32"):
        try:
            return _build(shelf, planned(head, name, dtype))
        except _OverflowError:
            output.say("the features lie beyond the range of half precision; they are kept in single precision")
        except OSError as error:
            output.warn(f"features cannot be kept in {shelf.root}: {error.strerror or error}", "POOLZOO_CACHE moves it")
            break
    return None


def _read(shelf: disk.Shelf, plan: FeatureConfig) -> Stored | None:
    place = shelf.find(plan.key)
    if place is None:
        return None
    try:
        rows = np.load(place / ROWS, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        rows = None
    if rows is None or rows.shape != (plan.rows, *plan.shape) or rows.dtype != plan.dtype:
        shelf.drop(plan.key)
        return None
    return Stored(rows, 1 + plan.prepared.settings.views)


def _build(shelf: disk.Shelf, plan: FeatureConfig) -> Stored | None:
    size = f"{describe(plan)}, {plan.bytes / 1e6:,.0f} MB"
    if not shelf.room(plan.bytes):
        output.say(
            f"no room for {size}: the limit is {shelf.limit_bytes / 1e9:g} GB, {shelf.free() / 1e9:.0f} GB are free on "
            "the disk; the backbone runs in every epoch instead (POOLZOO_CACHE_LIMIT=GB)"
        )
        return None
    output.say(f"keeping {size}, in {shelf.root} (limit {shelf.limit_bytes / 1e9:g} GB)")
    maps = _read(shelf, planned(plan.prepared, MAP, plan.dtype)) if plan.name != MAP else None
    with shelf.building(plan.key) as temporary, output.progress("running the backbone", plan.rows) as bar:
        disk.write_rows(temporary / ROWS, plan.rows, _rows(plan, maps, bar))
        what = {"what": describe(plan), "backbone": plan.prepared.settings.backbone}
        (temporary / "what.json").write_text(json_writer.dumps(what))
    return _read(shelf, plan)


def describe(plan: FeatureConfig) -> str:
    """A cache in words: what of how many images."""
    shape, views = sizes.show(plan.shape), 1 + plan.prepared.settings.views
    what = "maps" if plan.name == MAP else f"{plan.name} vectors"
    text = f"{what} ({shape}) of {len(plan.prepared.data.images):,} images"
    return f"{text} in {views} views" if views > 1 else text


def _rows(plan: FeatureConfig, maps: Stored | None, bar: output.Progress) -> Iterator[np.ndarray]:
    """Every row of a cache, view by view."""
    prepared, done = plan.prepared, 0
    pool = prepared.assembly.network.pool.eval()
    for features in _maps(prepared, plan.dtype) if maps is None else _stored_maps(maps, prepared):
        if plan.name != MAP:
            with torch.inference_mode():  # of the rounded map, so that it is the same with and without stored maps
                features = _rounded(pool(features.float()), plan.dtype)
        yield from features.cpu().numpy()
        done += len(features)
        bar.update(done)


def _maps(prepared: Prepared, dtype: str) -> Iterator[Tensor]:
    images, policy, views = prepared.data.images, prepared.policy, prepared.settings.views
    pixels = Pixels(images, policy.device)
    for view in range(1 + views):
        augmentation = prepared.augmentation if view else PLAIN
        draws = Draws.of(len(images), prepared.data.size, augmentation, prepared.settings.seed, view)
        for start in range(0, len(images), prepared.mapped_at_once):
            chosen = np.arange(start, min(start + prepared.mapped_at_once, len(images)))
            centers = draws.centers[chosen] if augmentation.cutout else None
            batch = pixels.take(chosen, draws.shifts[chosen], draws.mirrored[chosen], centers, augmentation.cutout)
            with torch.inference_mode():
                x = prepared.preprocess(batch).contiguous(memory_format=policy.memory_format)
                yield _rounded(frozen_map(prepared.assembly.network, x, policy), dtype)


def _stored_maps(maps: Stored, prepared: Prepared) -> Iterator[Tensor]:
    count, rows = len(maps.rows) // maps.views, blocks.Rows(maps.rows)
    for first in range(0, len(maps.rows), count):
        for start in range(0, count, prepared.mapped_at_once):
            part = rows[first + start : first + min(start + prepared.mapped_at_once, count)]
            yield torch.from_numpy(part).to(prepared.policy.device)


def _rounded(features: Tensor, dtype: str) -> Tensor:
    rounded = features.to(getattr(torch, dtype))
    if not torch.isfinite(rounded).all():
        if torch.isfinite(features).all():
            raise _OverflowError
        raise CheckFailed("the frozen backbone gives values that are no numbers", "are its weights damaged?")
    return rounded


def size_line(prepared: Prepared) -> str:
    """What would be kept, how large it is, and where, for `--dry-run`."""
    plan = planned(prepared, reads(prepared))
    return f"{describe(plan)}, {plan.bytes / 1e6:,.0f} MB in {Path(cache_dir() / 'features')}"
