"""Opens what `--data` names and checks what comes out of it: one place for every command."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from poolzoo.common import memory, output
from poolzoo.common.errors import EnvironmentProblem, PluginFailed, PoolzooError, UsageError, reason
from poolzoo.data import class_mismatch, image_facts, images, walk
from poolzoo.data import labels as label_checks
from poolzoo.data import reader as readers
from poolzoo.data.choice import choose
from poolzoo.data.sizes import Size
from poolzoo.plugin import loader, values
from poolzoo.plugin.image_index import ImageIndex
from poolzoo.plugin.imports import import_build
from poolzoo.plugin.modules import missing_of
from poolzoo.plugin.spec import Dataset, DatasetSource, Split


def cache_dir() -> Path:
    """Where downloads and decoded images are kept: the platform's cache directory, or `POOLZOO_CACHE`."""
    return Path(os.environ.get("POOLZOO_CACHE") or platformdirs.user_cache_path("poolzoo"))


def limited(images: np.ndarray, labels: np.ndarray, limit: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` images: the same for the same seed, the classes in their own proportions."""
    if limit is None or limit >= len(labels):
        return images, labels  # no copy: they may be larger than memory
    chosen = choose(labels, limit, seed)
    return images[chosen], labels[chosen]


def open_dataset(
    text: str,
    size: Size | None = None,
    splits: tuple[Split, ...] = ("train", "test"),
    limit: int | None = None,
    seed: int = 0,
    *,
    multilabel: bool = False,
    **how: Any,
) -> Dataset:
    """The data set that `cifar10`, `digits`, a plugin's name or a source such as `folder:PATH` stands for.

    One of encoded images reads no more than `limit` of them; of any other, `limited` takes them afterwards.

    Args:
        text: What `--data` names.
        size: (height, width) that the network sees, or of what is wanted exactly; None for the data's own.
        splits: Those that are needed.
        limit: How many images of each split to read at most, chosen by `seed`.
        seed: Of the choice.
        multilabel: Whether an image may have several labels.
        how: More of `reader.Reading`, of which data sets of decoded arrays take no notice.

    Raises:
        UsageError: The name is unknown, or the data is not as it should be.
        EnvironmentProblem: The source needs a package that is not installed.
        PluginFailed: A plugin's data set or source does not do what its contract says.
    """
    reading = readers.Reading(size=size, limit=limit, seed=seed, **how)
    entry = loader.catalog().source(text)
    if entry is None:
        item = loader.catalog().dataset(text).item
        assert isinstance(item, Dataset)
        place = Path(text)
    else:
        item = _opened(entry, text, _needed(splits, reading), multilabel)
        place = Path(text.partition(":")[2]).expanduser()
    if item.index is not None:
        return _with_reader(item, text, place, splits, reading)
    if reading.test_part is not None:
        raise UsageError(f"{text} has a test part, so that none is held out", "leave --test-fraction out")
    return item


def open_indices(text: str, *, multilabel: bool = False) -> tuple[Dataset, dict[str, ImageIndex]]:
    """The data set that `--data` names and, of encoded images, the whole index of each split; else no index.

    Raises:
        UsageError, EnvironmentProblem, PluginFailed: As `open_dataset`.
    """
    entry = loader.catalog().source(text)
    if entry is None:
        dataset = loader.catalog().dataset(text).item
        assert isinstance(dataset, Dataset)
    else:
        dataset = _opened(entry, text, walk.SPLITS, multilabel)
    if dataset.index is None:
        return dataset, {}
    indices = {split: _index(dataset, split) for split in dataset.splits}
    if dataset.remarks is not None:
        _say_remarks(dataset)
    return dataset, indices


def _say_remarks(dataset: Dataset) -> None:
    remarks = dataset.remarks
    assert remarks is not None
    for line in _protected(f"data set {dataset.name}", lambda: list(remarks())):
        output.say(str(line))


def _needed(parts: tuple[Split, ...], reading: readers.Reading) -> tuple[str, ...]:
    """The splits of a source that may be needed for parts, first the one that names the classes."""
    if "train" not in parts:
        return ("test", "val") if reading.test_part is None else ("train",)
    return ("train", "test", "val") if "test" in parts else ("train",)


def _opened(entry: loader.Entry, text: str, splits: tuple[str, ...], multilabel: bool) -> Dataset:
    """The data set that a source gives."""
    source, place = entry.item, text.partition(":")[2]
    assert isinstance(source, DatasetSource)
    if not place:
        raise UsageError(f"--data {text} names no data behind the colon", f"such as {source.example or source.name}")
    if missing := missing_of(source.modules):
        text = f"{source.prefix}: needs {', '.join(missing)}, which is not installed"
        raise EnvironmentProblem(text, source.install or "install it")
    open_source = import_build(source.open, source.name, entry.source, "open")
    found = _protected(f"source {source.prefix}:", lambda: open_source(place, splits=splits, multilabel=multilabel))
    if not isinstance(found, Dataset):
        raise PluginFailed(f"source {source.prefix}: gave {type(found).__name__}", "its contract is a poolzoo.Dataset")
    return found


def _with_reader(
    dataset: Dataset, text: str, place: Path, splits: tuple[Split, ...], reading: readers.Reading
) -> readers.ReadDataset:
    """A data set of encoded images with what reads it; the indices of all parts that are needed are made now."""
    parts = readers.assign(dataset.splits, splits, reading, text.removeprefix("folder:"))
    names = _required_names(dataset)
    reader = readers.Reader(place, names, reading, parts, lambda split: _index(dataset, split))
    for part in parts:
        reader.part(part)
    if dataset.remarks is not None:
        _say_remarks(dataset)
    for sentence in class_mismatch.look_alikes(names):
        output.warn(sentence, "give each class one name")
    return readers.ReadDataset(
        name=dataset.name,
        summary=dataset.summary,
        load=reader.load,
        splits=dataset.splits,
        classes=names,
        flip=dataset.flip,
        reader=reader,
    )


def _index(dataset: Dataset, split: str) -> ImageIndex:
    """The index of a split, checked.

    Raises:
        PluginFailed: The data set does not give what its contract says.
    """
    make = dataset.index
    assert make is not None
    index = _protected(f"data set {dataset.name}", lambda: make(split, cache_dir()))
    if not isinstance(index, ImageIndex):
        text = f"data set {dataset.name} gave {type(index).__name__} for {split}"
        raise PluginFailed(text, "its contract is a poolzoo.ImageIndex")
    if not len(index):
        raise UsageError(f"{split} of {dataset.summary or dataset.name} has no images", "add some")
    labels, count = index.labels, len(_required_names(dataset))
    is_multilabel = (
        labels.dtype == np.uint8 and labels.ndim == 2 and labels.shape[1] == count and labels.max(initial=0) < 2
    )
    is_plain = labels.ndim == 1 and labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() < count
    if not (is_plain or is_multilabel):
        found = f"{labels.dtype}{list(labels.shape)} labels from {labels.min()} to {labels.max()}"
        text = f"data set {dataset.name} gave {found} for {split}, and it has {count} classes"
        raise PluginFailed(text, "its contract is int32[N], places in its classes, or uint8[N, K] of 0 and 1")
    return index


def _required_names(dataset: Dataset) -> tuple[str, ...]:
    """The names of the classes of a data set of encoded images, which must be there."""
    _require_names(dataset)
    if not dataset.classes:
        raise PluginFailed(f"data set {dataset.name} names no classes", "its contract is a name for each class")
    return tuple(dataset.classes)


def _protected(what: str, function: Callable[[], Any]) -> Any:
    """What a plugin's function gives; whatever it throws becomes one line.

    Raises:
        PluginFailed: It threw something else than an error of poolzoo or of the system.
    """
    try:
        return function()
    except (PoolzooError, OSError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plugin may throw anything, SystemExit too
        raise PluginFailed(f"{what} failed: {reason(error)}", "fix its plugin") from error


def with_absolute_path(text: str) -> str:
    """What `--data` names, without dependence on the current directory: the path of a source is made absolute."""
    kind, colon, place = text.partition(":")
    entry = loader.catalog().source(text)
    if entry is None or not place or "://" in place:
        return text
    paths = [Path(one).expanduser() for one in place.split("::")]  # patterns of shards are joined so
    if not getattr(entry.item, "is_path", True) and not paths[0].exists():
        return text
    return f"{kind}{colon}{'::'.join(str(path.absolute()) for path in paths)}"


def reader(dataset: Dataset) -> readers.Reader | None:
    """What reads a data set of encoded images; None of any other."""
    return dataset.reader if isinstance(dataset, readers.ReadDataset) else None


def indexed(dataset: Dataset, split: Split) -> ImageIndex | None:
    """The encoded images of a split, as `load_split` decodes them: limited, and without what is held out.

    Behind the training images come the validation images, if the data has some: `reader(dataset).validation` of them,
    after `count_validation`. None of a data set of decoded arrays.
    """
    found = reader(dataset)
    return None if found is None else found.index(split)


def load_split(dataset: Dataset, split: Split, size: Size | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One split, checked: `(uint8[N, H, W, 3], int64[N])`, at (height, width) where `size` is given.

    Labels of a data set with several of them are `uint8[N, K]` of zeros and ones.

    Raises:
        PluginFailed: The data set does not give what its contract says.
    """
    load = dataset.load
    assert load is not None  # `open_dataset` gives one of encoded images with what reads it

    def loaded() -> tuple[Any, Any]:
        pixels, labels = map(values.array, load(split, cache_dir()))
        return pixels, labels

    pixels, labels = _protected(f"data set {dataset.name}", loaded)
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
    found = reader(dataset)
    known = found.facts.get(split) if found is not None else None
    return known if known is not None and len(known.digests) == len(pixels) else image_facts.Facts.of(pixels)


def class_names(dataset: Dataset, labels: np.ndarray) -> tuple[str, ...]:
    """The names of the labels, in their order, as text that any file can hold: a folder's name may be any bytes."""
    if not dataset.classes:
        count = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
        return tuple(map(str, range(count)))
    return tuple(
        name.encode("utf-8", "backslashreplace").decode() if isinstance(name, str) else name for name in dataset.classes
    )
