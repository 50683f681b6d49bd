"""Parquet files: lists of files to predict, and results of `predict --out` that a resumed command reads."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from fuzz import odd, trees
from fuzz.harness import Target
from poolzoo.data import walk
from poolzoo.runtime.prediction import file_lists, parts
from poolzoo.runtime.prediction.counts import Counts
from poolzoo.runtime.prediction.plan import Plan


def targets(folder: Path) -> Iterator[Target]:
    import pyarrow
    from pyarrow import parquet

    def packed(columns: dict[str, object], **metadata: str | bytes) -> bytes:
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
    counts = Counts(images=1).to_json()
    results = [packed({"file": ["a"]}, poolzoo=json.dumps(counts))]
    plan = Plan(
        version="1",
        bundle="bundle",
        bundle_sha256="",
        arguments=(),
        names_sha256=(),
        root="/",
        relative=False,
        folders=(),
        top=1,
        provider="cpu",
        runtime="onnxruntime",
        images=1,
        part_size=64,
    )
    (folder / parts.PARTS).mkdir()

    def listed(content: bytes) -> object:
        (folder / "l.parquet").write_bytes(content)
        return list(file_lists.images_in(str(folder / "l.parquet"), walk.Tally()))

    def part(content: bytes) -> object:
        parts.path_of(folder, 0).write_bytes(content)
        return list(parts.done(folder, plan))

    def mutated_part(rng: Random, seeds: Sequence[bytes]) -> bytes:
        if rng.random() < 0.5:
            return odd.damaged(rng, rng.choice(seeds), seeds)
        return packed({"file": ["a"]}, poolzoo=trees.json_text(rng, counts)[:100_000])

    def mutate(rng: Random, seeds: Sequence[bytes]) -> bytes:
        content = rng.choice(seeds)
        return content if rng.random() < 0.1 else odd.damaged(rng, content, seeds)

    yield Target("list-parquet", lists, mutate, listed, 0.3)
    yield Target("part-parquet", results, mutated_part, part, 0.3)
