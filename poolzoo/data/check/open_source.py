"""Opens what `poolzoo data check` names, as splits of images that nobody has decoded yet where that can be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poolzoo.data import folder, source
from poolzoo.data.check.splits import ArrayImages, Images, IndexedImages
from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names


@dataclass(frozen=True)
class Opened:
    """A data set: its name, its splits, and the names of its labels."""

    name: str
    splits: dict[str, Images]
    classes: tuple[str, ...]


def open_splits(text: str, limit: int | None = None) -> Opened:
    """The splits of a data set.

    Args:
        text: What `--data` names.
        limit: How many images of each split count at most, classes in their own proportions; None for all.

    Raises:
        UsageError: It is unknown, or not as it should be.
    """
    if text.startswith("folder:"):
        path = Path(text.removeprefix("folder:")).expanduser()
        reading = folder.Reading(validation=True, limit=limit)
        there = ("train", "test") if (path / "test").is_dir() or (path / "val").is_dir() else ("train",)
        reader = folder.dataset(path, reading, there).reader
        splits: dict[str, Images] = {}
        for name in reader.folders:
            files, labels = reader.files(name)
            names = Names.of(str(file.relative_to(path)) for file in files)
            index = ImageIndex(FileStorage(str(path)), names, labels.astype(np.int32))
            splits[reader.folders[name].name] = IndexedImages(index, f"{path}/")
        return Opened(f"folder:{path.resolve()}", splits, reader.classes)
    found = source.open_dataset(text)
    arrays: dict[str, Images] = {}
    for split in ("train", "test"):
        pixels, labels = source.limited(*source.load_split(found, split), limit, 0)
        arrays[split] = ArrayImages(split, pixels, labels)
    names_ = source.class_names(found, np.concatenate([images.labels for images in arrays.values()]))
    return Opened(text, arrays, names_)
