"""Opens what `--data` names and checks what comes out of it: one place for every command."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from poolzoo.common import memory
from poolzoo.common.errors import PluginFailed, PoolzooError, reason
from poolzoo.data import folder, image_facts, images, stratification
from poolzoo.data import labels as label_checks
from poolzoo.data.sizes import Size
from poolzoo.plugin import loader, values
from poolzoo.plugin.spec import Dataset, Split


def cache_dir() -> Path:
    """Where downloads and decoded images are kept: the platform's cache directory, or `POOLZOO_CACHE`."""
    return Path(os.environ.get("POOLZOO_CACHE") or platformdirs.user_cache_path("poolzoo"))


def limited(images: np.ndarray, labels: np.ndarray, limit: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` images: the same for the same seed, the classes in their own proportions."""
    if limit is None or limit >= len(labels):
        return images, labels  # no copy: they may be larger than memory
    choose = stratification.choose if labels.ndim == 2 else folder.choose
    chosen = choose(labels, limit, seed)
    return images[chosen], labels[chosen]


def open_dataset(
    text: str,
    size: Size | None = None,
    splits: tuple[Split, ...] = ("train", "test"),
    limit: int | None = None,
    seed: int = 0,
    **how: Any,
) -> Dataset:
    """The data set that `cifar10`, `digits`, a plugin's name or `folder:PATH` stands for.

    A folder reads no more than `limit` images; of any other, `limited` takes them afterwards.

    Args:
        text: What `--data` names.
        size: (height, width) that the network sees, or of what is wanted exactly; None for the data's own.
        splits: Those that are needed.
        limit: How many images of each split to read at most, chosen by `seed`.
        seed: Of the choice.
        how: More of `folder.Reading`, of which other data sets take no notice.

    Raises:
        UsageError: The name is unknown, or the folder is not as it should be.
    """
    kind, _, path = text.partition(":")
    if kind == "folder":
        reading = folder.Reading(size=size, limit=limit, seed=seed, **how)
        return folder.dataset(Path(path).expanduser(), reading, splits)
    entry = loader.catalog().dataset(text)
    assert isinstance(entry.item, Dataset)
    return entry.item


def reader(dataset: Dataset) -> folder.Reader | None:
    """What reads a data set that is a folder; None of any other."""
    return dataset.reader if isinstance(dataset, folder.FolderDataset) else None


def load_split(dataset: Dataset, split: Split, size: Size | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One split, checked: `(uint8[N, H, W, 3], int64[N])`, at (height, width) where `size` is given.

    Labels of a data set with several of them are `uint8[N, K]` of zeros and ones.

    Raises:
        PluginFailed: The data set does not give what its contract says.
    """
    try:
        assert dataset.load is not None  # an indexed data set has a reader
        pixels, labels = map(values.array, dataset.load(split, cache_dir()))
    except (PoolzooError, OSError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plugin may throw anything, SystemExit too
        raise PluginFailed(f"data set {dataset.name} failed: {reason(error)}", "fix its plugin") from error
    if getattr(pixels, "ndim", 0) != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or not len(pixels):
        found = f"{getattr(pixels, 'dtype', type(pixels).__name__)}{list(getattr(pixels, 'shape', []))}"
        raise PluginFailed(f"data set {dataset.name} gave {found} for {split}", "its contract is uint8[N, H, W, 3]")
    labels = np.asarray(labels)
    labels = label_checks.checked(dataset.name, labels, len(pixels), dataset.classes)
    _require_names(dataset)
    if size is not None and pixels.shape[1:3] != size:
        memory.require(f"the {len(pixels):,} resized {split} images", len(pixels) * size[0] * size[1] * 3)
        pixels = images.fit_array(pixels, size)
    return pixels, labels


def _require_names(dataset: Dataset) -> None:
    """Makes sure that the names of the classes tell them apart.

    Raises:
        PluginFailed: One is no text, or empty, or there twice.
    """
    names = dataset.classes or ()
    if odd := [name for name in names if not isinstance(name, str) or not name]:
        text = f"data set {dataset.name} has a class called {odd[0]!r:.80}"
        raise PluginFailed(text, "its contract is a name for each class, such as 'ant'")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise PluginFailed(f"data set {dataset.name} has two classes called {twice[0]!r:.80}", "fix its plugin")


def facts_about(dataset: Dataset, split: Split, pixels: np.ndarray) -> image_facts.Facts:
    """What is known of the images of a split that was loaded: from its decoding, or computed from `uint8[N, H, W, 3]`.

    The pixels are the split's, or part of it: what was computed for others says nothing of them.
    """
    folder_reader = reader(dataset)
    known = folder_reader.facts.get(split) if folder_reader is not None else None
    return known if known is not None and len(known.digests) == len(pixels) else image_facts.Facts.of(pixels)


def class_names(dataset: Dataset, labels: np.ndarray) -> tuple[str, ...]:
    """The names of the labels, in their order, as text that any file can hold: a folder's name may be any bytes."""
    if not dataset.classes:
        count = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
        return tuple(map(str, range(count)))
    return tuple(
        name.encode("utf-8", "backslashreplace").decode() if isinstance(name, str) else name for name in dataset.classes
    )
