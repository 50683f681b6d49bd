"""`folder:PATH`: images in class folders, `PATH/train/<class>/*`, perhaps `PATH/test` and `PATH/val` like it.

Without any of these three, the class folders lie in `PATH` itself and are training images. A class folder that holds no
image but folders with images is a group: its folders are classes named by their paths, such as `dogs/poodle`.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poolzoo.common.errors import UsageError
from poolzoo.data import class_mismatch, walk
from poolzoo.datasets import places
from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names
from poolzoo.plugin.spec import Dataset


def open_folder(place: str, *, splits: Sequence[str] = walk.SPLITS, multilabel: bool = False) -> Dataset:
    """The data set in a folder.

    Args:
        place: The folder.
        splits: Those that are needed; the first that there is gives the names of the classes.
        multilabel: Must be False: a file lies in one class folder.

    Raises:
        UsageError: The folder is missing, holds no class folder, or an image has one label alone.
    """
    path = Path(place).expanduser()
    if multilabel:
        raise UsageError(f"in folder {place} each image has one label", "give a table: --data csv:FILE")
    places.require_folder(path, "give a folder that holds train/ and test/")
    return _Folder(path, splits).dataset()


@dataclass(frozen=True)
class _Split:
    """What lies in the folder of a split: its classes, how many images each has, and their names."""

    classes: tuple[str, ...]
    counts: list[int]
    names: Names


class _Folder:
    """A folder of images; each split is walked once, when it is first asked for."""

    def __init__(self, path: Path, splits: Sequence[str]) -> None:
        self.path = path
        self.tally = walk.Tally()
        self.folders = {split: path / split for split in walk.SPLITS if (path / split).is_dir()}
        self._is_whole = bool(self.folders) and {"train", "test"} <= set(splits)
        if "train" in splits and "train" not in self.folders and self.folders:
            raise UsageError(f"{path} holds no train/", f"put the training images into {path / 'train'}/<class>/")
        self.folders = self.folders or {"train": path}
        self._walked: dict[str, _Split] = {}
        self.first = next((split for split in splits if split in self.folders), next(iter(self.folders)))
        self.classes = self._walk(self.first).classes

    def dataset(self) -> Dataset:
        return Dataset(
            name="folder",
            summary=str(self.path),
            index=lambda split, cache_dir: self.index(split),
            splits=tuple(self.folders),
            classes=self.classes,
            remarks=self.remarks,
        )

    def index(self, split: str) -> ImageIndex:
        """The images of a split.

        Raises:
            UsageError: It has other classes, or one without an image.
        """
        folder, found = self.folders[split], self._walk(split)
        names = {self.folders[self.first].name: self.classes, folder.name: found.classes}
        class_mismatch.require_equal(str(self.path), names)
        if empty := [name for name, count in zip(found.classes, found.counts, strict=True) if not count]:
            more = f" (and {len(empty) - 1} more: {', '.join(empty[1:6])})" if len(empty) > 1 else ""
            ignored = (line := self.tally.line()) and f"; {line}"
            raise UsageError(
                f"class folder {folder / empty[0]}{more} holds no image{ignored or ''}",
                "add some, or remove the folder",
            )
        labels = np.repeat(np.arange(len(found.classes), dtype=np.int32), found.counts)
        return ImageIndex(FileStorage(str(folder)), found.names, labels)

    def remarks(self) -> list[str]:
        """What lies in the folder and is no part of the data, and how nested class folders are called."""
        if self._is_whole:
            for name in walk.class_folders(self.path, self.tally):
                if name not in {self.folders[split].name for split in self._walked}:
                    walk.count_files(self.path / name, self.tally, f"in {name}/")
        found = [line] if (line := self.tally.line()) is not None else []
        if nested := [name for name in self.classes if "/" in name]:
            found.append(f"{len(nested):,} classes are folders of folders, named by their paths, such as {nested[0]}")
        return found

    def _walk(self, split: str) -> _Split:
        if split not in self._walked:
            classes, counts, encoded, lengths = [], [], bytearray(), array("q")
            for name, images in walk.classes_in(self.folders[split], self.tally):
                prefix = os.fsencode(name) + b"/"
                classes.append(name)
                counts.append(len(images))
                paths = [prefix + os.fsencode(image) for image in images]
                encoded += b"".join(paths)
                lengths.extend(map(len, paths))
            if not classes:
                folder = self.folders[split]
                raise UsageError(f"{folder} holds no class folder", f"put images into {folder}/<class>/")
            ends = np.cumsum(np.frombuffer(lengths, np.int64), dtype=np.int64)
            self._walked[split] = _Split(tuple(classes), counts, Names(bytes(encoded), ends))
        return self._walked[split]
