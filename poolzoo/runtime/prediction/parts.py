"""The parts of a directory of predictions: a Parquet file each, with its counts in the footer. Needs pyarrow.

A part appears whole, under a name that says which images it holds. So a part that two workers make is there once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from poolzoo.common import files, json_reader, json_writer, locks
from poolzoo.common.errors import EnvironmentProblem
from poolzoo.metrics.output_rules import NO_RULES, OutputRules
from poolzoo.runtime.ort_session import ClassScore
from poolzoo.runtime.prediction import file_lists
from poolzoo.runtime.prediction.counts import Counts
from poolzoo.runtime.prediction.plan import Plan
from poolzoo.runtime.prediction.predict import Prediction

PARTS: Final = "parts"
KEY: Final = b"poolzoo"  # of the counts in the footer


def require_parquet() -> None:
    """Makes sure that Parquet can be written.

    Raises:
        EnvironmentProblem: pyarrow is not installed.
    """
    try:
        from pyarrow import parquet  # noqa: F401
    except ImportError:
        raise EnvironmentProblem("--out needs pyarrow, which is not installed", file_lists.INSTALL) from None


def path_of(out: Path, part: int) -> Path:
    """The file of a part; their names sort in the order of the images."""
    return out / PARTS / f"part-{part:06}.parquet"


def write(
    out: Path,
    part: int,
    rows: Sequence[Prediction],
    counts: Counts,
    *,
    multilabel: bool = False,
    rules: OutputRules = NO_RULES,
) -> None:
    """Writes a part: `file`, `label`, `score`, `top_labels`, `top_scores`, `error`, a row an image, in their order.

    With several labels, the lists `labels` and `scores` stand in place of `label` and `score`. Rules of the bundle give
    `accepted` and the list `set` after these.

    Args:
        out: The directory of the predictions.
        part: The number of the part.
        rows: The predictions.
        counts: Of the rows.
        multilabel: Whether an image may have several labels.
        rules: Those of the bundle.

    Raises:
        OSError: It cannot be written.
    """
    import pyarrow
    from pyarrow import parquet

    def labels(lists: Iterable[Sequence[ClassScore] | None]) -> Any:
        kind = pyarrow.list_(pyarrow.string())
        return pyarrow.array([None if each is None else [one.label for one in each] for each in lists], kind)

    def scores(lists: Iterable[Sequence[ClassScore] | None]) -> Any:
        kind = pyarrow.list_(pyarrow.float32())
        return pyarrow.array([None if each is None else [one.score for one in each] for each in lists], kind)

    tops = [row.top or None for row in rows]
    if multilabel:
        named = {"labels": labels(row.labels for row in rows), "scores": scores(row.labels for row in rows)}
    else:
        named = {
            "label": pyarrow.array([top and top[0].label for top in tops], pyarrow.string()),
            "score": pyarrow.array([top and top[0].score for top in tops], pyarrow.float32()),
        }
    if rules.abstention is not None:
        named["accepted"] = pyarrow.array([row.accepted for row in rows], pyarrow.bool_())
    if rules.sets is not None:
        named["set"] = labels(row.set for row in rows)
    table = pyarrow.table(
        {
            "file": pyarrow.array([row.file for row in rows], pyarrow.string()),
            **named,
            "top_labels": labels(tops),
            "top_scores": scores(tops),
            "error": pyarrow.array([row.error for row in rows], pyarrow.string()),
        }
    ).replace_schema_metadata({KEY: json_writer.dumps(counts.to_json()).encode()})
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    files.write_atomically(path_of(out, part), sink.getvalue().to_pybytes())


def counts_of(out: Path, plan: Plan, part: int) -> Counts | None:
    """The counts of a part; None where it is missing, or is not whole."""
    import pyarrow
    from pyarrow import parquet

    try:
        metadata: Any = parquet.read_metadata(path_of(out, part))
        counts = Counts.from_json(json_reader.parse(metadata.metadata[KEY]))
    except (OSError, pyarrow.ArrowException, KeyError, TypeError, ValueError):
        return None
    return counts if metadata.num_rows == counts.images == plan.size_of(part) else None


def done(out: Path, plan: Plan) -> Iterator[tuple[int, Counts]]:
    """The parts that are whole, with their counts."""
    (out / PARTS).mkdir(exist_ok=True)
    found = {path.name for path in (out / PARTS).iterdir()}
    for part in range(plan.parts):
        if path_of(out, part).name in found and (counts := counts_of(out, plan, part)) is not None:
            yield part, counts


def remove_unfinished(out: Path) -> None:
    """Removes what processes that died have left half-written, those of earlier versions too."""
    locks.sweep(out)
    locks.sweep(out / PARTS)
    for path in (out / PARTS).glob(".part-*"):
        if not locks.is_unfinished(path):
            path.unlink(missing_ok=True)
