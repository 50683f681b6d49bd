"""Tables of image files, lists of files to predict, folders, and lists of names that the user keeps."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from unittest import mock

from fuzz import odd, trees
from fuzz.harness import Disagreement, Target
from fuzz.targets.runs import mutated_json
from poolzoo.data import walk
from poolzoo.datasets import folder as folders
from poolzoo.datasets import table, table_rows
from poolzoo.datasets.labels import split_labels
from poolzoo.plugin import disabled
from poolzoo.plugin.spec import Dataset
from poolzoo.runtime.prediction import file_lists
from poolzoo.runtime.prediction.attempts import Attempt

NAMES = ("a.jpg", "b.jpg", "ant/c d.jpg", "é.jpg")


def mutated_table(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A table with other cells, separators, quotes, line ends or encodings."""
    content = rng.choice(seeds)
    kind = rng.random()
    if kind < 0.2:
        return odd.damaged(rng, content, seeds)
    text = content.decode()
    if kind < 0.5:
        separator = rng.choice((",", ",", ";", "\t", "|"))
        cells = list(csv.reader(io.StringIO(text)))
        for _ in range(rng.choice((1, 2, 3))):
            row = rng.choice(cells)
            place = rng.randrange(len(row) + 1)
            row[place : place + rng.randrange(2)] = [
                rng.choice((*odd.TEXTS, "1", "-0", "01", "train", "TEST", "label"))
            ]
        buffer = io.StringIO()
        writer = csv.writer(buffer, delimiter=separator, lineterminator=rng.choice(("\n", "\r\n", "\r")))
        for row in cells:
            writer.writerow([cell.replace("\0", "") for cell in row])
        text = buffer.getvalue()
    else:
        text = odd.text(rng, text)
    encoding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"))
    return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")


def mutated_lines(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Lines of JSON of which one is changed; or a JSON list of them."""
    rows = [json.loads(line) for line in rng.choice(seeds).splitlines()]
    if rng.random() < 0.3:
        return trees.json_text(rng, rows)
    lines = [json.dumps(row).encode() for row in rows]
    place = rng.randrange(len(lines))
    lines[place] = trees.json_text(rng, rows[place])
    return b"\n".join(lines) + b"\n"


def targets(folder: Path) -> Iterator[Target]:
    place = folder / "photos"
    for name in NAMES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"")
    text = "path,label,split\n" + "".join(f"{name},{kind},{split}\n" for name, kind, split in _rows())
    several = "path,labels\na.jpg,ant;bee\nb.jpg,\n\"ant/c d.jpg\",\"['bee', 'cat']\"\n"
    lines = "".join(json.dumps({"path": n, "label": k, "split": s}) + "\n" for n, k, s in _rows())
    numbers = "".join(json.dumps({"file_name": n, "labels": [1, 2]}) + "\n" for n, *_ in _rows())

    def opened(ending: str, *, multilabel: bool = False) -> Callable[[bytes], object]:
        def read(content: bytes) -> object:
            (place / f"t{ending}").write_bytes(content)
            found = table.open_table(str(place / f"t{ending}"), multilabel=multilabel)
            if ending == ".csv" and not multilabel:
                _compare(content, list(table_rows.rows(place / "t.csv", multilabel=False)))
            return _indices(found)

        return read

    def listed(name: str) -> Callable[[bytes], object]:
        def read(content: bytes) -> object:
            (folder / name).write_bytes(content)
            argument = str(folder / name) if name.endswith(".csv") else f"@{folder / name}"
            return [name.encode("utf-8", "surrogateescape") for name in file_lists.images_in(argument, walk.Tally())]

        return read

    def off(content: bytes) -> object:
        (folder / "disabled.json").write_bytes(content)
        with mock.patch.dict("os.environ", POOLZOO_CONFIG=str(folder)):
            found = disabled.read()
            disabled.write(found)
            if disabled.read() != sorted(set(found)):
                raise Disagreement("what is written is read as other names")
        return found

    def attempted(content: bytes) -> object:
        (folder / "attempts").mkdir(exist_ok=True)
        (folder / "attempts/000001.json").write_bytes(content)
        return list(Attempt(folder, 1).steps(100, 10))

    def cell(content: bytes) -> object:
        found = split_labels(content.decode("utf-8", "replace"))
        if not all(isinstance(name, str) and name.strip() == name and name for name in found):
            raise Disagreement(f"labels {found}")
        return found

    made = folder / "made"

    def walked(content: bytes) -> object:
        """Files and folders with the names in a text."""
        shutil.rmtree(made, ignore_errors=True)
        for name in content.split(b"\n")[:20]:
            parts = [part for part in name.split(b"/") if part not in (b"", b".", b"..") and b"\0" not in part]
            if not parts:
                continue
            path = bytes(made) + b"".join(b"/" + part[:200] for part in parts[:5])
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb"):
                    pass
            except OSError:
                continue
        return _indices(folders.open_folder(str(made)))

    tree = b"train/ant/a.jpg\ntrain/bee/b.png\ntest/ant/c.jpg\ntest/bee/d.jpg\ntrain/ant/notes.txt\n"
    yield Target("csv", [text.encode()], mutated_table, opened(".csv"))
    yield Target("csv-several", [several.encode()], mutated_table, opened(".csv", multilabel=True), 0.5)
    yield Target("tsv", [text.replace(",", "\t").encode()], mutated_table, opened(".tsv"), 0.5)
    yield Target("jsonl", [lines.encode()], mutated_lines, opened(".jsonl"))
    yield Target(
        "jsonl-several", [numbers.encode(), lines.encode()], mutated_lines, opened(".json", multilabel=True), 0.5
    )
    yield Target("labels-cell", [b"ant;bee", b"['ant', 'bee']", b'["ant", 1]', b"a|b"], _damaged_text, cell)
    yield Target("list-csv", [b"file,score\na.jpg,1\nb.jpg,2\n", b"any\na.jpg\n"], mutated_table, listed("l.csv"))
    yield Target("list-lines", [b"a.jpg\nb.jpg\r\nc d.jpg\n", b"a.jpg\0b.jpg\0"], _damaged_text, listed("l.txt"), 0.5)
    yield Target("disabled", [b'["a", "b"]'], mutated_json, off)
    yield Target("attempts", [b'{"deaths": [[0, 10, 2], [30, 1, 3]], "now": [40, 10]}'], mutated_json, attempted)
    yield Target("folder", [tree], _damaged_text, walked, 0.2)


def _rows() -> list[tuple[str, str, str]]:
    kinds, splits = ("ant", "bee", "ant", "bee"), ("train", "train", "test", "test")
    return list(zip(NAMES, kinds, splits, strict=True))


def _damaged_text(rng: Random, seeds: Sequence[bytes]) -> bytes:
    content = rng.choice(seeds)
    if rng.random() < 0.4:
        return odd.damaged(rng, content, seeds)
    return odd.text(rng, content.decode()).encode("utf-8", "surrogatepass")


def _indices(found: Dataset) -> object:
    assert found.index is not None
    sizes = {}
    for split in found.splits:
        index = found.index(split, Path("."))
        assert len(index.labels) == len(index.names)
        sizes[split] = len(index)
    if found.remarks is not None:
        list(found.remarks())
    return sizes, found.classes


def _compare(content: bytes, rows: Sequence[table_rows.Row]) -> None:
    """Holds the rows of an accepted table against the csv module, where the text is plain."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return
    if (
        text.startswith("\ufeff")
        or not text.startswith("path,label,split\n")
        or '"' in text
        or "\r" in text
        or ";" in text
    ):
        return
    other = [cells for cells in csv.reader(io.StringIO(text), skipinitialspace=True) if any(cells)][1:]
    if [cells[0] for cells in other] != [row.path for row in rows]:
        raise Disagreement("the csv module reads other paths")
