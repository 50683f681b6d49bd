"""The cache of a frozen backbone's features, computed once for every image, on which heads train and are tested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from poolzoo.data import disk
from poolzoo.data.source import cache_dir
from poolzoo.train import feature_writer
from poolzoo.train.feature_entries import (
    PRECISIONS,
    FeatureStore,
    Part,
    describe,
    dtypes,
    feature_config,
    input_key,
    part_key,
    read,
)
from poolzoo.train.loaders import FEATURE_MAP
from poolzoo.train.prepare import PreparedRun


def open_features(heads: Sequence[PreparedRun], part: Part = "train") -> dict[str, FeatureStore] | None:
    """The features of some images for heads on one backbone; missing ones are computed in one pass of the backbone.

    Args:
        heads: Runs with the same backbone and data.
        part: Which images.

    Returns:
        The features by input key; None if the disk has no room, or cannot be written to.

    Raises:
        CheckFailed: The backbone gives NaN or infinity.
    """
    shelf = disk.Shelf(cache_dir() / "features", disk.limit())  # shared, so that no entry evicts another of these
    by_key = {part_key(head, part): head for head in heads}
    for kept in get_args(Part):  # what is found is not evicted: no part gives way to another one
        for key, head in {part_key(head, kept): head for head in heads}.items():
            for dtype in dtypes(kept):
                shelf.find(feature_config(head, key, dtype, kept).digest)
    tried = dtypes(part)
    found: dict[str, FeatureStore] = {}
    for key, head in by_key.items():
        store = next(filter(None, (read(shelf, feature_config(head, key, dtype, part)) for dtype in tried)), None)
        if store is not None:
            found[key] = store
    for dtype in tried:
        missing = {key: head for key, head in by_key.items() if key not in found}
        if len(missing) > 1 and part == "train":  # further poolings will need the maps
            missing = {FEATURE_MAP: heads[0], **missing}
        if missing:
            configs = [feature_config(head, key, dtype, part) for key, head in missing.items()]
            if part == "train":  # the images to validate on are among them
                validated = {part_key(head, "val"): head for head in heads}.items()
                tested = [feature_config(head, key, PRECISIONS[1], "val") for key, head in validated]
                configs += [config for config in tested if read(shelf, config) is None]
            built = feature_writer.build(shelf, configs)
            if built is None:
                return None
            found = {**built, **found}
    if not by_key.keys() <= found.keys():  # another process needed the room meanwhile
        return None
    return {key: found[key] for key in by_key}


def cache_note(prepared: PreparedRun) -> str:
    """What the cache would hold, its size and its directory, for `--dry-run`."""
    config = feature_config(prepared, input_key(prepared))
    return f"{describe(config)}, {config.bytes / 1e6:,.0f} MB in {cache_dir() / 'features'}"
