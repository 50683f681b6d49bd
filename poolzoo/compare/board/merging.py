"""The merge of a submission into a board: its rows join, and the statistics of the section are computed again.

Statistics follow from the rows, so that the correction for multiple comparisons grows with them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import numpy as np

from poolzoo.common import json_reader
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.common.text import one_line
from poolzoo.compare import conclusions, grid, statistics
from poolzoo.compare.board import protocol as protocols
from poolzoo.compare.board.board import Board, BoardRow, BoardSection
from poolzoo.compare.board.checking import CheckReport
from poolzoo.compare.board.checks.context import Context
from poolzoo.compare.statistics import Statistics, VariantStatistics
from poolzoo.plugin.grammar import parse_spec

LONGEST_AUTHOR: Final = 100
SUBMITTED: Final = "the submission's baseline"


@dataclass(frozen=True)
class Merged:
    """A board with new rows, and a line about each of them."""

    board: Board
    added: list[str]


def require_author(text: str) -> None:
    """Refuses what is no name of an author.

    Raises:
        UsageError: It is empty, too long, or has control characters.
    """
    if not text.strip() or len(text) > LONGEST_AUTHOR or not text.isprintable():
        text = f"--author {one_line(text, 40)!r} must have 1 to {LONGEST_AUTHOR} printable characters"
        raise UsageError(text, "such as --author 'Jane Doe'")


def require_room(board: Board, context: Context) -> str:
    """Makes sure that the rows of a submission can join a board, before an hour of reruns; a line about them.

    Raises:
        CheckFailed: A row is there already, the section is of another protocol, or the submission's baseline differs
            from the board's beyond chance.
    """
    section = _section_of(board, context)
    theirs, *fresh = _rows(context, (), "")
    _require_new(section, fresh)
    baseline = _baseline_of(section, theirs)
    about = "" if baseline is None else f"; {_same_baseline(section, baseline, theirs)}"
    return f"{', '.join(row.name for row in fresh)} can join {context.protocol.name}{about}"


def merge(board: Board, report: CheckReport, author: str) -> Merged:
    """A board with the rows of a submission that passed its checks.

    Args:
        board: As it was read.
        report: Of the submission.
        author: Who made it.

    Raises:
        CheckFailed: As `require_room`, or a check failed.
    """
    if not report.passed or report.context is None:
        raise CheckFailed("a submission that failed a check is not merged", "see the table of checks")
    context, own = report.context, report.context.protocol
    section = _section_of(board, context)
    theirs, *fresh = _rows(context, report.reran, author)
    _require_new(section, fresh)
    added = [f"{row.name} by {author} joins {own.name}" for row in fresh]
    baseline = _baseline_of(section, theirs)
    if baseline is None:
        section = replace(section, rows=(*section.rows, theirs))
    else:
        added.append(_same_baseline(section, baseline, theirs))
    section = _with_statistics(replace(section, rows=(*section.rows, *fresh)), [theirs, *fresh])
    return Merged(Board({**board.sections, own.name: section}, board.text), added)


def _section_of(board: Board, context: Context) -> BoardSection:
    """The section of the submission's protocol; a new one where there is none.

    Raises:
        CheckFailed: It is of another protocol of the same name.
    """
    own = context.protocol
    found = board.sections.get(own.name) or BoardSection(
        protocol=own.reference,
        question=own.question,
        free=own.free,
        baseline=context.variant(own.baseline).name,
        alpha=own.alpha,
        images=own.data.test.images,
    )
    if found.protocol != own.reference:
        text = f"the board's section is of protocol {protocols.short(found.protocol)}, not {own.title}"
        raise CheckFailed(text, "rows of two protocols cannot be compared")
    return found


def _rows(context: Context, reran: tuple[str, ...], author: str) -> list[BoardRow]:
    """The rows of a submission, its baseline first."""
    return [_submitted(context, name, reran, author) for name in context.chosen]


def _baseline_of(section: BoardSection, theirs: BoardRow) -> BoardRow | None:
    return next((row for row in section.rows if row.key == theirs.key), None)


def _require_new(section: BoardSection, fresh: Sequence[BoardRow]) -> None:
    """Makes sure that no row is there already, under its own name or with other words for the same options.

    Raises:
        CheckFailed: One is.
    """
    for row in fresh:
        for known in section.rows:
            hint = "a changed plugin has another digest"
            if row.key == known.key:
                raise CheckFailed(f"{row.name} is on the board already, by {known.author}", hint)
            names = [
                parse_spec(one.pool if section.free == "pool" else one.local_pool or "none") for one in (row, known)
            ]
            alike = names[0].name == names[1].name and row.plugin_sha256 == known.plugin_sha256
            if alike and row.correct and row.correct == known.correct:
                raise CheckFailed(f"{row.name} has exactly the predictions of {known.name} by {known.author}", hint)


def _pooling(section: BoardSection, row: BoardRow) -> str:
    """The pooling on the free side, without its options."""
    return parse_spec(row.pool if section.free == "pool" else row.local_pool or grid.NONE).name


def _submitted(context: Context, name: str, reran: tuple[str, ...], author: str) -> BoardRow:
    """A row of a submission, without statistics."""
    runs = [context.by_trial[name, seed] for seed in context.protocol.seed_range]
    first, variant = runs[0], context.variant(name)
    built_in = name == "none" or first.plugin(context.protocol.free).get("tier") == "built-in"
    digest = None if built_in else json_reader.text(first.plugin(context.protocol.free).get("sha256"))
    versions = json_reader.mapping(first.environment.get("versions"))
    f1 = [json_reader.number(json_reader.mapping(run.metrics.get("test")).get("f1")) or 0.0 for run in runs]
    return BoardRow(
        backbone=variant.backbone,
        pool=variant.pool,
        local_pool=variant.local_pool,
        author=author,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        plugin_sha256=digest,
        versions={package: str(versions.get(package)) for package in context.protocol.versions},
        reran=reran,
        f1={run.settings.seed: one for run, one in zip(runs, f1, strict=True)},
        correct={run.settings.seed: _packed(run.correct) for run in runs},
    )


def _packed(correct: np.ndarray) -> str:
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def _same_baseline(section: BoardSection, known: BoardRow, theirs: BoardRow) -> str:
    """Compares the baseline of a submission with the board's; a line about the outcome.

    Trained elsewhere, its rounding differs, so that it is another draw of the same seed variance. All rows of the
    section tell that variance.

    Raises:
        CheckFailed: They differ beyond chance.
    """
    if not known.correct:
        return "its baseline cannot be compared with the board's, which kept no predictions"
    if known.correct == theirs.correct:
        return "its baseline has exactly the predictions of the board's"
    labels = _labels(section.rows, section.baseline)
    rows = {label: row for label, row in zip(labels, section.rows, strict=True) if row.correct}
    right = {label: row.right(section.images) for label, row in rows.items()}
    right[SUBMITTED] = theirs.right(section.images)
    delta = statistics.compare(right, section.baseline, section.alpha).variants[SUBMITTED].delta
    if delta is None or delta.p is None or delta.mean is None:
        raise CheckFailed("its baseline has no two seeds in common with the board's", "use the seeds of the protocol")
    points = f"{100 * delta.mean:+.2f} points (p = {delta.p:.2g})"
    if delta.p < section.alpha:
        raise CheckFailed(f"its baseline differs from the board's by {points}, beyond chance", "ask how it was made")
    return f"its baseline differs from the board's by {points}, within chance"


def _with_statistics(section: BoardSection, submitted: Sequence[BoardRow]) -> BoardSection:
    """A section with its statistics computed again.

    Where a row kept no predictions, the others keep their figures, and new rows are tested against the baseline that
    was submitted with them.
    """
    complete = all(row.correct for row in section.rows)
    tested = section.rows if complete else submitted
    labels = _labels(tested, section.baseline)
    right = {label: row.right(section.images) for label, row in zip(labels, tested, strict=True)}
    found = statistics.compare(right, section.baseline, section.alpha)
    figures = {row.key: found.variants[label] for label, row in zip(labels, tested, strict=True)}
    rows = [_with_figures(row, figures.get(row.key), complete=complete) for row in section.rows]
    rows.sort(key=lambda row: -(row.accuracy.mean or 0.0) if row.accuracy else 0.0)
    return replace(section, rows=tuple(rows), conclusions=tuple(_sentences(found)) if complete else ())


def _labels(rows: Sequence[BoardRow], baseline: str) -> list[str]:
    """A name for each row, with the author and a number where others have the same."""
    made: list[str] = []
    for row in rows:
        is_baseline = row.name == baseline and row.plugin_sha256 is None
        label = row.name if is_baseline else f"{row.name} by {row.author}"
        count = sum(one.split(" #")[0] == label for one in made)
        made.append(f"{label} #{count + 1}" if count else label)
    return made


def _with_figures(row: BoardRow, found: VariantStatistics | None, *, complete: bool) -> BoardRow:
    if found is None or (not complete and row.accuracy is not None):
        return row
    return replace(row, accuracy=found.accuracy, delta=found.delta, rank=found.rank if complete else None)


def _sentences(found: Statistics) -> list[str]:
    return list(conclusions.conclusions(found))
