"""The rows of a table of image files: CSV with any usual separator, TSV, JSON lines, or one JSON list."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from poolzoo.common import csv_writer, files, json_reader
from poolzoo.common.errors import UsageError
from poolzoo.datasets.labels import label_names, split_labels
from poolzoo.plugin.grammar import suggest

PATHS: Final = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img")
LABELS: Final = ("label", "labels", "class", "classes", "class_name", "category", "target", "fine_label")
SPLITS: Final = ("split", "set", "subset", "partition")
ENDINGS: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
SHOWN: Final = 10  # columns that a message names
COMPARED: Final = 200  # columns in which it looks for a name that is spelled alike
BOMS: Final = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
MAX_FIELD: Final = 1 << 20  # characters of a cell, where csv allows 131,072


class Row(NamedTuple):
    """One image of a table: the line it stands in, counted from 1, its path, labels and split."""

    line: int
    path: str
    labels: tuple[str, ...]
    split: str


class Columns(NamedTuple):
    """The names of the columns that are used; `split` is None where all images are training images."""

    path: str
    label: str
    split: str | None


def find_columns(names: Sequence[str], where: str, paths: Sequence[str] = PATHS, image: str | None = None) -> Columns:
    """The columns that hold the paths, the labels and the splits: by their usual names, in any case.

    Args:
        names: Of all columns.
        where: The table, for messages, such as "photos.csv, line 1".
        paths: Names for the column of the images.
        image: The column of the images, where its type tells it.

    Raises:
        UsageError: There is no such column, or one is there twice.
    """
    plain = {name.strip().lower(): name for name in reversed(names)}
    found = []
    for what, known in (("path", paths), ("label", LABELS), ("split", SPLITS)):
        name = next((plain[one] for one in known if one in plain), None)
        name = image if what == "path" and image is not None else name
        if name is None and what != "split":
            shown = ", ".join(f"{name[:40]!r}" for name in names[:SHOWN])
            near = next((hint for one in names[:COMPARED] if (hint := suggest(one.strip().lower(), known))), "")
            hint = f"name it in the first line: {' or '.join(known[:3])}"
            raise UsageError(f"{where}: no column {what} among {shown}", f"{near} {hint}".strip())
        if name is not None and names.count(name) > 1:
            raise UsageError(f"{where}: column {name!r} is there twice", "keep one of them")
        found.append(name)
    path, label, split = found
    assert path is not None
    assert label is not None
    return Columns(path, label, split)


def rows(path: Path, *, multilabel: bool) -> Iterator[Row]:
    """The rows of a table.

    Args:
        path: The file; its ending tells its form.
        multilabel: Whether a row may have several labels, or none.

    Raises:
        UsageError: A line is not as it should be; it names the line.
    """
    with files.open_file(path) as file:
        start = file.read(3)
    encoding = next((found for mark, found in BOMS.items() if start.startswith(mark)), "utf-8")
    read = _csv if path.suffix.lower() in (".csv", ".tsv") else _json
    line = 0
    try:
        for row in read(path, encoding, multilabel):
            line = row.line
            yield row
    except UnicodeDecodeError:
        raise UsageError(f"{path}, line {_bad_line(path, line)}: not {encoding}", "save the file as UTF-8") from None


def _bad_line(path: Path, line: int) -> str:
    """The first line that is not UTF-8; the decoder reads ahead, so that it does not know."""
    with path.open("rb") as file:
        for number, content in enumerate(file, 1):
            try:
                content.decode("utf-8-sig")
            except UnicodeDecodeError:
                return f"{number:,}"
    return f"{line + 1:,} or later"


def _csv(path: Path, encoding: str, multilabel: bool) -> Iterator[Row]:
    csv.field_size_limit(MAX_FIELD)
    with path.open(encoding=encoding, newline="") as file:
        first = file.readline(MAX_FIELD)
        file.seek(0)
        separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
        reader = csv.reader(file, delimiter=separator, strict=True, skipinitialspace=True)
        try:
            header = next(reader, [])
            if not header:
                raise UsageError(f"{path} is empty", "the first line names the columns: path,label")
            columns = find_columns(header, f"{path}, line 1")
            at = [header.index(name) if name is not None else None for name in columns]
            path_at, label_at, split_at = at
            assert path_at is not None
            assert label_at is not None
            many = columns.label.strip().lower() in ("labels", "classes") or multilabel
            before = reader.line_num
            for cells in reader:
                line, before = before + 1, reader.line_num
                if not any(cells):
                    continue
                if len(cells) != len(header) and (len(cells) < len(header) or any(cells[len(header) :])):
                    text = f"{path}, line {line:,}: {len(cells)} cells, and the first line has {len(header)}"
                    raise UsageError(text, "put cells that hold the separator into quotes")
                label = csv_writer.plain(cells[label_at])
                labels = split_labels(label) if many else label_names(label)
                split = "train" if split_at is None else cells[split_at].strip()
                yield _row(path, line, csv_writer.plain(cells[path_at]), labels, split, multilabel)
        except csv.Error as error:
            hint = "a quote that is not closed, or a file that is no CSV; double the quotes within a cell"
            raise UsageError(f"{path}, line {reader.line_num:,}: {error}", hint) from None


def _json(path: Path, encoding: str, multilabel: bool) -> Iterator[Row]:
    with path.open(encoding=encoding) as file:
        first = file.read(1)
        file.seek(0)
        records: Iterable[tuple[int, Any]]
        if first == "[":
            records = enumerate(_parsed(path, 1, file.read()), 1)
        else:
            records = ((line, _parsed(path, line, text)) for line, text in enumerate(file, 1) if text.strip())
        for line, record in records:
            where = f"{path}, line {line:,}" if first != "[" else f"{path}, record {line:,}"
            if not isinstance(record, Mapping):
                raise UsageError(f"{where}: no object but {record!r:.60}", 'such as {"path": "a.jpg", "label": "cat"}')
            columns = find_columns(list(record), where)
            try:
                labels = label_names(record[columns.label])
            except TypeError as error:
                raise UsageError(f"{where}: {error}", "a label is a text or a whole number") from None
            if multilabel and isinstance(record[columns.label], str):
                labels = split_labels(record[columns.label])
            image, split = record[columns.path], "train" if columns.split is None else record[columns.split]
            if not isinstance(image, str) or not isinstance(split, str):
                odd = image if not isinstance(image, str) else split
                raise UsageError(f"{where}: {odd!r:.60} is no text", "paths and splits are texts")
            yield _row(path, line, image, labels, split, multilabel)


def _parsed(path: Path, line: int, text: str) -> Any:
    try:
        return json_reader.parse(text, unique=True)
    except ValueError as error:
        about = f"{path}, line {line:,}: not usable as JSON: {error}"
        raise UsageError(about, "each line is one object, with each name once") from None


def _row(path: Path, line: int, image: str, labels: Sequence[str], split: str, multilabel: bool) -> Row:
    """A row, checked for what a row alone can tell."""
    if not image or not _is_storable(image) or not all(map(_is_storable, labels)):
        odd = "the path is empty" if not image else f"{image!r:.80} or its label is no text that a file can have"
        raise UsageError(f"{path}, line {line:,}: {odd}", "correct or remove the line")
    if not multilabel and len(labels) != 1:
        if not labels:
            raise UsageError(f"{path}, line {line:,}: {image} has no label", "give it one, or remove the line")
        text = f"{path}, line {line:,}: {image} has {len(labels)} labels ({', '.join(labels[:3])})"
        raise UsageError(text, "add --task multilabel, or give it one")
    return Row(line, image, tuple(labels), split)


def _is_storable(text: str) -> bool:
    """Whether a text can be written: it has no NUL, and no half of a surrogate pair, as JSON may."""
    return (text.isascii() and "\0" not in text) or _encodes(text)


def _encodes(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
