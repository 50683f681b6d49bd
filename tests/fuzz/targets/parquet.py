"""Parquet files: lists of files to predict, and results of `predict --out` that a resumed command reads."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from fuzz import odd
from fuzz.harness import Target
from poolzoo.data import walk
from poolzoo.runtime.prediction import file_lists, parts


def targets(folder: Path) -> Iterator[Target]:
    import pyarrow
    from pyarrow import parquet

    def packed(columns: dict[str, object], **metadata: str) -> bytes:
        buffer = io.BytesIO()
        table = pyarrow.table(columns)
        parquet.write_table(table.replace_schema_metadata(metadata or None), buffer)
        return buffer.getvalue()

    lists = [
        packed({"file": ["a.jpg", "b.jpg"]}),
        packed({"path": ["a.jpg", None], "n": [1, 2]}),
        packed({"image": [1, 2]}),
        packed({"x": [[1], [2]]}),
    ]
    counts = '{"images": 2, "failed": 0, "rejected": 0}'
    results = [
        packed({"file": ["a"]}, poolzoo=counts),
        *(packed({"file": ["a"]}, poolzoo=text) for text in ("", "[]", "{", "{}")),
    ]

    def listed(content: bytes) -> object:
        (folder / "l.parquet").write_bytes(content)
        return list(file_lists.images_in(str(folder / "l.parquet"), walk.Tally()))

    def part(content: bytes) -> object:
        (folder / "p.parquet").write_bytes(content)
        return parts.read_counts(folder / "p.parquet")

    def mutate(rng: Random, seeds: Sequence[bytes]) -> bytes:
        content = rng.choice(seeds)
        return content if rng.random() < 0.1 else odd.damaged(rng, content, seeds)

    yield Target("list-parquet", lists, mutate, listed, 0.3)
    yield Target("part-parquet", results, mutate, part, 0.3)
