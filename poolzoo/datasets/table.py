"""`csv:FILE`: a table that names image files with their labels: CSV, TSV, or JSON lines, by the file's ending.

Paths are relative to the folder of the file. A column `split` tells training, test and validation images apart; without
one all are training images.
"""

from __future__ import annotations

import os
import posixpath
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from poolzoo.common.errors import UsageError
from poolzoo.datasets import places, table_rows
from poolzoo.datasets.labels import SplitLabels
from poolzoo.datasets.split_names import SPLITS, split_of
from poolzoo.datasets.table_rows import Row
from poolzoo.plugin.grammar import suggest
from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names
from poolzoo.plugin.spec import Dataset

HINT: Final = "the table has columns path and label, and perhaps split (train, val, test); see docs/how-to/data.md"


def open_table(place: str, *, splits: Sequence[str] = ("train", "test", "val"), multilabel: bool = False) -> Dataset:
    """The data set that a table of image files describes. Reads the whole table, and no image.

    Args:
        place: The file, ending in .csv, .tsv, .jsonl, .ndjson or .json.
        splits: Those that are needed; the first that there is gives the names of the classes.
        multilabel: Whether a row has several labels, or several rows have one image.

    Raises:
        UsageError: The file is missing, or a line is not as it should be; it names the line.
    """
    path = Path(place).expanduser()
    places.require_file(path, HINT, table_rows.ENDINGS)
    table = _Table(path, multilabel=multilabel)
    table.read(table_rows.rows(path, multilabel=multilabel))
    return table.dataset(splits)


class _Table:
    """The images that a table names, each once."""

    def __init__(self, path: Path, *, multilabel: bool) -> None:
        self.path = path
        self.multilabel = multilabel
        self.labels = SplitLabels(str(path), multilabel=multilabel)
        self.names: dict[str, Names] = {}
        self.repeated = 0
        self._places: dict[str, int] = {}  # of the images, by their names
        self._splits: list[str] = []
        self._labels: list[tuple[str, ...]] = []
        self._lines = array("q")

    def read(self, rows: Iterable[Row]) -> None:
        """Takes all rows over.

        Raises:
            UsageError: One is not as it should be.
        """
        once: dict[tuple[str, ...], tuple[str, ...]] = {}  # equal labels are kept as one
        for row in rows:
            split = split_of(row.split)
            if split is None:
                text = f"split {row.split!r} is none of train, val and test"
                self._fail(row.line, text, suggest(row.split, SPLITS) or HINT)
            labels = once.setdefault(row.labels, row.labels)
            place = self._places.setdefault(_normal(row.path), len(self._places))
            if place < len(self._splits):
                self._add_again(place, row, split)
                continue
            self._splits.append(split)
            self._labels.append(labels)
            self._lines.append(row.line)
        if not self._places:
            raise UsageError(f"{self.path} names no image", HINT)
        self._require_files()
        by_split: dict[str, list[str]] = {}
        for name, split, labels in zip(self._places, self._splits, self._labels, strict=True):
            by_split.setdefault(split, []).append(name)
            self.labels.add(split, labels)
        self.names = {split: Names.of(names) for split, names in by_split.items()}
        self._places.clear()
        self._splits.clear()
        self._labels.clear()

    def _add_again(self, place: int, row: Row, split: str) -> None:
        """A second row of an image: with the same label it counts once; of several labels it has all."""
        labels, line = self._labels[place], self._lines[place]
        if split != self._splits[place]:
            text = f"{row.path} is in split {split}, and in {self._splits[place]} in line {line:,}"
            self._fail(row.line, text, "an image belongs to one split; remove one of the lines")
        if self.multilabel:
            self._labels[place] = tuple(dict.fromkeys((*labels, *row.labels)))
        elif row.labels == labels:
            self.repeated += 1
        else:
            text = f"{row.path} has label {row.labels[0]!r}, and {labels[0]!r} in line {line:,}"
            hint = "remove one of the lines; for several labels of an image add --task multilabel"
            self._fail(row.line, text, hint)

    def _require_files(self) -> None:
        """Makes sure that every file is there."""
        missing = places.missing_files(self.path.parent, self._places)
        if missing:
            name, count = min(missing, key=self._places.__getitem__), len(missing) - 1
            more = f", and {count:,} more of {len(self._places):,} are missing" if count else ""
            hint = f"paths are relative to {self.path.parent.absolute()}; correct or remove the lines"
            self._fail(self._lines[self._places[name]], f"there is no file {name!r:.200}{more}", hint)

    def _fail(self, line: int, text: str, hint: str) -> NoReturn:
        raise UsageError(f"{self.path}, line {line:,}: {text}", hint)

    def dataset(self, splits: Sequence[str]) -> Dataset:
        """The data set, whose classes are those of the first of the splits that there is."""
        known, storage = self.labels.splits, FileStorage(str(self.path.parent))
        classes = self.labels.classes(next((split for split in splits if split in known), known[0]))

        def index(split: str, cache_dir: Path) -> ImageIndex:
            return ImageIndex(storage, self.names[split], self.labels.places(split, classes))

        said = [f"{self.repeated:,} lines of {self.path} repeat an image and count once"] if self.repeated else []
        return Dataset(
            name="csv",
            summary=str(self.path),
            index=index,
            splits=known,
            classes=classes,
            remarks=lambda: said,
        )


def _normal(path: str) -> str:
    """A path as the system has it, such as `a/b.jpg` for `./a//b.jpg`; on a system with `/` also for `a\\b.jpg`."""
    if "\\" in path and os.sep == "/":
        path = path.replace("\\", "/")
    return posixpath.normpath(path) if os.sep == "/" else os.path.normpath(path)
