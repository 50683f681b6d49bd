"""Opens what `poolzoo data check` names, as splits of images that nobody has decoded yet where that can be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poolzoo.data import choice, source
from poolzoo.data.check.splits import ArrayImages, Images, IndexedImages


@dataclass(frozen=True)
class Opened:
    """A data set: its name, its splits, and the names of its labels."""

    name: str
    splits: dict[str, Images]
    classes: tuple[str, ...]


def open_splits(text: str, limit: int | None = None, *, multilabel: bool = False) -> Opened:
    """The splits of a data set.

    Args:
        text: What `--data` names.
        limit: How many images of each split count at most, classes in their own proportions; None for all.
        multilabel: Whether an image may have several labels.

    Raises:
        UsageError, EnvironmentProblem, PluginFailed: As `source.open_dataset`.
    """
    dataset, indices = source.open_indices(text, multilabel=multilabel)
    if not indices:
        return _of_arrays(text, limit)
    places = [index.storage.place for index in indices.values()]
    root = os.path.commonpath([os.path.abspath(place) for place in places])
    root = root if Path(root).is_dir() else os.path.dirname(root)
    splits: dict[str, Images] = {}
    for name, index in indices.items():
        chosen = index if limit is None else index.take(choice.choose(index.labels, limit, 0))
        splits[name] = IndexedImages(chosen, root)
    names = source.class_names(dataset, next(iter(indices.values())).labels)
    return Opened(_absolute(text), splits, names)


def _absolute(text: str) -> str:
    """The same source by a name that means the same in any folder, where it is a path."""
    kind, colon, place = text.partition(":")
    path = Path(place).expanduser()
    return f"{kind}:{os.path.abspath(path)}" if colon and path.exists() else text


def _of_arrays(text: str, limit: int | None) -> Opened:
    """A data set of decoded images."""
    dataset = source.open_dataset(text)
    splits = {}
    for split in ("train", "test"):
        pixels, labels = source.limited(*source.load_split(dataset, split), limit, 0)
        splits[split] = ArrayImages(split, pixels, labels)
    names = source.class_names(dataset, np.concatenate([images.labels for images in splits.values()]))
    return Opened(text, dict(splits), names)
