"""A board as a file: the rows that passed their checks, by protocol, with what each test image got; and its pages.

Statistics follow from the rows, so that they are computed again for a whole section whenever a row joins it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common import files, json_reader
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.common.text import one_line
from poolzoo.compare import conclusions, statistics
from poolzoo.compare.board import protocol as protocols
from poolzoo.compare.board.checking import CheckReport
from poolzoo.compare.board.checks import Context
from poolzoo.compare.statistics import Statistics, VariantStatistics
from poolzoo.report.results import Accuracy, Delta

SCHEMA: Final = 1
LONGEST_AUTHOR: Final = 100
SUBMITTED: Final = "the submission's baseline"


@dataclass(frozen=True)
class BoardRow:
    """One row of a section.

    Attributes:
        backbone, pool, local_pool: The variant.
        author: Who made it, in their own words.
        date: When it was merged, ISO 8601.
        plugin_sha256: Of the file with the pooling; None of a built-in one.
        versions: By package.
        reran: What was run again before it was merged: `evaluation`, `training`.
        f1: For each seed.
        correct: Which test images each seed has right, packed bits in base64; empty where nobody kept it.
        accuracy, delta, rank: What the statistics of the section say; None of the baseline's difference.
    """

    backbone: str
    pool: str
    local_pool: str | None
    author: str
    date: str
    plugin_sha256: str | None
    versions: Mapping[str, str]
    reran: tuple[str, ...]
    f1: Mapping[int, float]
    correct: Mapping[int, str]
    accuracy: Accuracy | None = None
    delta: Delta | None = None
    rank: int | None = None

    @property
    def name(self) -> str:
        """Its name among the variants of a backbone."""
        return f"{self.pool} + {self.local_pool}" if self.local_pool else self.pool

    @property
    def key(self) -> tuple[str, str | None]:
        """What makes it the same row as another: its name and its plugin's file."""
        return self.name, self.plugin_sha256

    def right(self, images: int) -> dict[int, np.ndarray]:
        """Which test images each seed has right, `bool[N]`.

        Raises:
            CheckFailed: They are not those of so many images.
        """
        found = {}
        for seed, text in self.correct.items():
            try:
                packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
            except (binascii.Error, ValueError) as error:
                raise CheckFailed(f"the board's row {self.name} is damaged: {error}", "restore the file") from error
            if len(packed) != (images + 7) // 8:
                raise CheckFailed(f"the board's row {self.name} is not of {images} images", "restore the file")
            found[seed] = np.unpackbits(packed, count=images).astype(bool)
        return found


@dataclass(frozen=True)
class BoardSection:
    """The rows of one protocol, the best first.

    Attributes:
        protocol: Its reference, `NAME@VERSION:SHA256`.
        question: What it asks.
        free: The setting that differs from row to row, `pool` or `local_pool`.
        baseline: The name of the row that the others are compared with.
        alpha: The significance level.
        images: Number of test images.
        rows: The baseline among them.
        conclusions: What the statistics say, in sentences.
    """

    protocol: str
    question: str
    free: str
    baseline: str
    alpha: float
    images: int
    rows: tuple[BoardRow, ...] = ()
    conclusions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Board:
    """All sections, by the names of their protocols.

    Attributes:
        sections: By name.
        text: The file that it was read from; "" for a new one.
    """

    sections: Mapping[str, BoardSection] = field(default_factory=dict)
    text: str = ""

    def to_json(self) -> dict[str, object]:
        return {"schema": SCHEMA, "sections": {name: asdict(self.sections[name]) for name in sorted(self.sections)}}


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
        raise UsageError(f"--author {one_line(text, 40)!r} must have 1 to {LONGEST_AUTHOR} printable characters")


def load(path: Path) -> Board:
    """Reads a board; a new one where there is no file.

    Raises:
        CheckFailed: It is damaged, or of a later version.
    """
    if not path.exists():
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{path.parent} does not exist", "make the directory first")
        return Board()
    content = json_reader.mapping(files.read_json(path))
    if content.get("schema") != SCHEMA:
        raise CheckFailed(f"{path} is no board of this version of poolzoo", "restore it, or update poolzoo")
    sections = json_reader.mapping(content.get("sections"))
    try:
        found = {name: _section(json_reader.mapping(value)) for name, value in sections.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckFailed(f"{path} is damaged: {error}", "restore it") from error
    return Board(found, path.read_text(encoding="utf-8"))


def _section(found: Mapping[str, object]) -> BoardSection:
    values = dict(found)
    rows = [_row(row) for row in json_reader.objects(values.pop("rows"))]
    texts = tuple(json_reader.texts(values.pop("conclusions")))
    return BoardSection(**values, rows=tuple(rows), conclusions=texts)  # type: ignore[arg-type]


def _row(found: Mapping[str, object]) -> BoardRow:
    values = dict(found)
    accuracy, delta = values.pop("accuracy"), values.pop("delta")
    by_seed = {key: {int(seed): v for seed, v in json_reader.mapping(values.pop(key)).items()} for key in _BY_SEED}
    values["reran"] = tuple(json_reader.texts(values["reran"]))
    return BoardRow(
        **values,  # type: ignore[arg-type]
        **by_seed,  # type: ignore[arg-type]
        accuracy=None if accuracy is None else Accuracy(**json_reader.mapping(accuracy)),  # type: ignore[arg-type]
        delta=None if delta is None else Delta(**json_reader.mapping(delta)),  # type: ignore[arg-type]
    )


_BY_SEED: Final = ("f1", "correct")


def merge(board: Board, report: CheckReport, author: str) -> Merged:
    """A board with the rows of a submission that passed its checks.

    Args:
        board: As it was read.
        report: Of the submission.
        author: Who made it.

    Raises:
        UsageError: A row is there already, or the section is of another protocol.
        CheckFailed: The submission's baseline differs from the board's beyond chance.
    """
    if not report.passed or report.context is None:
        raise CheckFailed("a submission that failed a check is not merged", "see the table of checks")
    context, own = report.context, report.context.protocol
    section = board.sections.get(own.name) or BoardSection(
        protocol=own.reference,
        question=own.question,
        free=own.free,
        baseline=context.variant(own.baseline).name,
        alpha=own.alpha,
        images=own.data.test.images,
    )
    if section.protocol != own.reference:
        text = f"the board's section is of protocol {protocols.short(section.protocol)}, not {own.title}"
        raise UsageError(text, "rows of two protocols cannot be compared")
    rows = [_submitted(context, name, report.reran, author) for name in context.chosen]
    theirs, fresh = rows[0], rows[1:]
    known = {row.key for row in section.rows}
    if twice := [row.name for row in fresh if row.key in known]:
        raise UsageError(f"{', '.join(twice)} is on the board already", "a changed plugin has another digest")
    added = [f"{row.name} by {author} joins {own.name}" for row in fresh]
    baseline = next((row for row in section.rows if row.key == theirs.key), None)
    if baseline is None:
        section = replace(section, rows=(*section.rows, theirs))
    else:
        added.append(_same_baseline(section, baseline, theirs))
    section = _with_statistics(replace(section, rows=(*section.rows, *fresh)), [theirs, *fresh])
    return Merged(Board({**board.sections, own.name: section}, board.text), added)


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
        return "its baseline has the very predictions of the board's"
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


def save(board: Board, path: Path, before: Board) -> None:
    """Writes a board and its pages beside it, the pages first: the file of the board is what counts.

    Args:
        board: What to write.
        path: Its JSON file; its pages have its name with `.md` and `.html`.
        before: As it was read.

    Raises:
        CheckFailed: Somebody changed the file since.
    """
    from poolzoo.compare.board import board_page

    text = files.json_text(board.to_json())
    if (path.read_text(encoding="utf-8") if path.exists() else "") != before.text:
        raise CheckFailed(f"{path} changed while the submission was checked", "run the same command again")
    markdown, html = path.with_suffix(".md"), path.with_suffix(".html")
    above = markdown.read_text(encoding="utf-8") if markdown.is_file() else ""
    pages = {markdown: board_page.markdown(board, above), html: board_page.html(board)}
    for place, content in pages.items():
        files.write_atomically(place, content)
    files.write_atomically(path, text)
