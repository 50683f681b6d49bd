"""Rows of `datasets.Dataset` as encoded images with labels: which columns hold them, and how an image is had alone."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final

from poolzoo.common import files
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.common.text import one_line
from poolzoo.datasets import table_rows
from poolzoo.datasets.labels import SplitLabels, label_names, split_labels
from poolzoo.plugin.image_index import ImageIndex, Names
from poolzoo.plugin.spec import Dataset

IMAGES: Final = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "bytes", *table_rows.PATHS)
UNLABELED: Final = -1  # what `datasets` gives for a label that is kept secret


@dataclass(frozen=True)
class ArrowStorage:
    """Images in a column of bytes, of paths, or of both.

    Attributes:
        place: What was typed, for messages.
        rows: The `datasets.Dataset` with that column alone; its files are mapped into memory.
        column: The column's name.
        root: The folder that paths are relative to.
        time: When the files of the rows were written, in nanoseconds.
    """

    place: str
    rows: Any
    column: str
    root: str
    time: int

    def open(self, row: int, name: str) -> BinaryIO:
        """The bytes of a row, or the file that it names."""
        value = self.rows[row][self.column]
        if isinstance(value, Mapping):
            value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
        if isinstance(value, bytes):
            return io.BytesIO(value)
        if not isinstance(value, str):
            raise OSError(f"the row holds no image but {type(value).__name__}")
        return files.open_file(os.path.join(self.root, value))

    def stamp(self, row: int, name: str) -> tuple[int, int]:
        """The bytes of an image, and the time of its file, or of the file of its row."""
        with self.open(row, name) as file:
            is_file = not isinstance(file, io.BytesIO)
            return file.seek(0, os.SEEK_END), os.fstat(file.fileno()).st_mtime_ns if is_file else self.time


def _require_sound(rows: Any, where: str) -> None:
    """Makes sure that Arrow's offsets stay within its buffers: reading a row ends the process where they do not.

    Raises:
        CheckFailed: They do not, or a text is not UTF-8.
    """
    import pyarrow

    try:
        rows.data.validate(full=True)
    except (pyarrow.ArrowException, ValueError) as error:
        text = f"{where}: the Arrow file is damaged: {one_line(str(error), 200)}"
        raise CheckFailed(text, "write it again") from error


class ArrowSplits:
    """Splits of a data set with the columns that are used.

    Args:
        what: The data, for messages.
        root: The folder that paths are relative to, and the place of the images in messages.
        splits: A `datasets.Dataset` of each split.
        multilabel: Whether a row may have several labels.
        files: Those that each split was read from. Without them the Arrow files tell when its rows were written.
    """

    def __init__(
        self,
        what: str,
        root: str,
        splits: Mapping[str, Any],
        *,
        multilabel: bool,
        files: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        self.what = what
        self.files = files
        self.root = root
        self.labels = SplitLabels(what, multilabel=multilabel)
        self.storages: dict[str, ArrowStorage] = {}
        self.empty = set[str]()
        for split, rows in splits.items():
            self._add(split, rows)

    def _add(self, split: str, rows: Any) -> None:
        columns = self._columns(split, rows.features)
        if not len(rows):
            self.empty.add(split)
            return
        _require_sound(rows.select_columns([columns.label, columns.path]), f"{self.what}, {split}")
        labels = rows.select_columns([columns.label]).with_format("arrow")[:][columns.label].to_pylist()
        feature = rows.features[columns.label]
        names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        for row, value in enumerate(labels):
            self.labels.add(split, self._named(f"{self.what}, {split}, row {row:,}", value, names))
        images = rows.select_columns([columns.path])
        if type(images.features[columns.path]).__name__ == "Image":
            from datasets import Image

            images = images.cast_column(columns.path, Image(decode=False))
        # The library may make Arrow files anew: for other splits, or after its cache was emptied.
        files = self.files.get(split) or [file["filename"] for file in rows.cache_files]
        written = [os.stat(file).st_mtime_ns for file in files]
        self.storages[split] = ArrowStorage(self.root, images, columns.path, self.root, max(written, default=0))

    def _columns(self, split: str, features: Mapping[str, Any]) -> table_rows.Columns:
        images = [name for name, kind in features.items() if type(kind).__name__ == "Image"]
        where = f"{self.what}, {split}"
        names = list(features)
        return table_rows.find_columns(names, where, paths=IMAGES, image=images[0] if len(images) == 1 else None)

    def _named(self, where: str, value: object, names: Sequence[str] | None) -> Sequence[str]:
        """The names of the labels of a row."""
        values: Iterable[object] = value if isinstance(value, list | tuple) else [value]
        if names is not None:
            if UNLABELED in values:
                hint = "test on another split: name the folder with the splits that have labels"
                raise UsageError(f"{where} has label -1, which means that its label is kept secret", hint)
            value = [names[one] if isinstance(one, int) and 0 <= one < len(names) else one for one in values]
        try:
            is_text = isinstance(value, str) and self.labels.multilabel
            found = split_labels(str(value)) if is_text else label_names(value)
        except TypeError as error:
            raise UsageError(f"{where}: {error}", "a label is a text or a whole number") from None
        if len(found) != 1 and not self.labels.multilabel:
            text = f"{where} has {len(found)} labels" if found else f"{where} has no label"
            raise UsageError(text, "add --task multilabel" if found else "give it one, or remove the row")
        return found

    def dataset(self, kind: str, splits: Sequence[str], known: Sequence[str]) -> Dataset:
        """The data set, whose classes are those of the first of the splits that there is.

        Args:
            kind: The prefix of the source.
            splits: Those that are needed.
            known: Those that the data has.
        """
        read = self.labels.splits
        if not read:
            raise UsageError(f"{self.what} has no rows", "take other data")
        classes = self.labels.classes(next((split for split in splits if split in read), read[0]))

        def index(split: str, cache_dir: Path) -> ImageIndex:
            storage = self.storages[split]
            names = Names.of(f"{split}/{row:07d}" for row in range(len(storage.rows)))
            return ImageIndex(storage, names, self.labels.places(split, classes))

        splits_with_rows = tuple(split for split in known if split not in self.empty)
        return Dataset(name=kind, summary=self.what, index=index, splits=splits_with_rows, classes=classes)
