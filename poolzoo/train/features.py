"""The cache of a frozen backbone's features, computed once for every image, on which heads train and are tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import get_args

from poolzoo.data import disk
from poolzoo.data.source import cache_dir
from poolzoo.train import feature_live, feature_writer
from poolzoo.train.feature_entries import (
    Part,
    describe,
    dtypes,
    feature_config,
    input_key,
    part_key,
    read,
)
from poolzoo.train.loaders import FEATURE_MAP, Features
from poolzoo.train.prepare import PreparedRun


def open_features(heads: Sequence[PreparedRun], part: Part = "train") -> dict[str, Features] | None:
    """The features of some images for heads on one backbone; missing ones are computed in one pass of the backbone.

    Those of the images to train on are always there. What the disk cannot keep is bitwise the same.

    Args:
        heads: Runs with the same backbone and data.
        part: Which images.

    Returns:
        The features by input key; of images to test on, None if the disk has no room, or cannot be written to.

    Raises:
        CheckFailed: The backbone gives NaN or infinity.
        EnvironmentProblem: There is room for the features of training images neither on the disk nor in memory, and the
            backbone cannot compute them again with the same bits.
    """
    shelf = disk.Shelf(cache_dir() / "features", disk.limit())  # shared, so that no entry evicts another of these
    by_key = {part_key(head, part): head for head in heads}
    tried = dtypes(part)
    found: dict[str, Features] = {}
    with suppress(OSError):  # of the disk, which then keeps nothing
        for kept in get_args(Part):  # what is found is not evicted: no part gives way to another one
            for key, head in {part_key(head, kept): head for head in heads}.items():
                for dtype in dtypes(kept):
                    shelf.find(feature_config(head, key, dtype, kept).digest)
        for key, head in by_key.items():
            store = next(filter(None, (read(shelf, feature_config(head, key, dtype, part)) for dtype in tried)), None)
            if store is not None:
                found[key] = store
    for dtype in tried:
        configs = [feature_config(head, key, dtype, part) for key, head in by_key.items() if key not in found]
        if not configs:
            break
        wanted = configs
        if len(configs) > 1 and part == "train" and FEATURE_MAP not in by_key:  # further poolings will need the maps
            wanted = [feature_config(heads[0], FEATURE_MAP, dtype, part), *configs]
        built: Mapping[str, Features] | None = feature_writer.build(shelf, wanted)
        if built is None and part == "train":
            built = feature_live.build(shelf, configs)
        if built is None:
            return None
        found = {**built, **found}
    return {key: found[key] for key in by_key}


def cache_note(prepared: PreparedRun) -> str:
    """What the cache would hold, its size and its directory, for `--dry-run`."""
    config = feature_config(prepared, input_key(prepared))
    return f"{describe(config)}, {config.bytes / 1e6:,.0f} MB in {cache_dir() / 'features'}"
