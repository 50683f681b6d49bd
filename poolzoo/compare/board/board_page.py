"""The pages of a board: Markdown and HTML, from its rows alone. Names and authors are foreign text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from poolzoo.common import markdown as md
from poolzoo.compare.board import protocol
from poolzoo.report import compare_page
from poolzoo.report.leaderboard import leaderboard
from poolzoo.report.pieces import element, table
from poolzoo.report.results import ComparisonResult, MeanSd, SeedResult, VariantResult
from poolzoo.report.variants import ordered

if TYPE_CHECKING:
    from poolzoo.compare.board.board import Board, BoardRow, BoardSection

TITLE: Final = "Submitted rows"
MARK: Final = "<!-- Below this line everything is generated when rows are merged. -->"
LEAD: Final = (
    "Every row followed a protocol, and its run directories passed the checks of [protocols.md](protocols.md). "
    "These say what was verified, and what cannot be."
)
RERAN: Final = {"evaluation": "all weights", "training": "one training"}
HEADERS: Final = (
    *("pooling", "rank", "accuracy, %", "over the baseline, points", "F1, %"),
    *("significance", "author", "date", "run again", "plugin file, sha256"),
)


def markdown(board: Board, before: str = "") -> str:
    """The page as Markdown.

    Args:
        board: The board.
        before: The page until now, of which the part above the mark is kept.
    """
    above = before.partition(MARK)[0].rstrip() if MARK in before else f"# {TITLE}\n\n{LEAD}"
    parts = [above, "", MARK, ""]
    for name, section in sorted(board.sections.items()):
        parts += [f"## {md.text(name)}", "", md.text(section.question), ""]
        parts += [f"Protocol {md.text(protocol.short(section.protocol))}; {section.images:,} test images.", ""]
        if section.conclusions:
            parts += [" ".join(map(md.text, section.conclusions)), ""]
        parts += [md.table(HEADERS, [_cells(section, row) for row in section.rows]), ""]
    return "\n".join(parts).rstrip() + "\n"


def _cells(section: BoardSection, row: BoardRow) -> Sequence[str]:
    accuracy, delta = row.accuracy, row.delta
    gain = ""
    if delta is not None and delta.mean is not None and delta.low is not None and delta.high is not None:
        gain = f"{100 * delta.mean:+.2f} ({100 * delta.low:+.2f} to {100 * delta.high:+.2f})"
    return (
        _name(section, row),
        "–" if row.rank is None else str(row.rank),
        "" if accuracy is None else _percent(MeanSd(accuracy.mean, accuracy.sd)),
        gain,
        _percent(_f1(row)),
        significance(row),
        *_origin(row),
    )


def significance(row: BoardRow) -> str:
    """What a row's test says, in a word."""
    if row.delta is None:
        return "baseline"
    return "better" if row.delta.better else "worse" if row.delta.worse else "≈"


def _name(section: BoardSection, row: BoardRow) -> str:
    """What differs from row to row."""
    return row.pool if section.free == "pool" else row.local_pool or "none"


def _f1(row: BoardRow) -> MeanSd:
    values = list(row.f1.values())
    return MeanSd(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def _percent(figures: MeanSd) -> str:
    if figures.mean is None:
        return ""
    return f"{100 * figures.mean:.2f}" + ("" if figures.sd is None else f" ± {100 * figures.sd:.2f}")


def html(board: Board) -> str:
    """The page of all sections: tables that sort and filter, without charts and what these would need."""
    articles = []
    for name, section in sorted(board.sections.items()):
        found = result(section)
        lines = [*section.conclusions, f"Protocol {protocol.short(section.protocol)}; {section.images:,} test images."]
        headers = ("row", "author", "date", "run again", "plugin file, sha256")
        rows = [(row.pool if row.local_pool is None else row.name, *_origin(row)) for row in section.rows]
        parts = [
            element("p", name, class_="kind"),
            element("h2", section.question, id=f"{name}_heading"),
            *(element("p", line) for line in lines),
            leaderboard(ordered(found), f"{name}_"),
            table("Who made the rows", headers, rows, "runs"),
        ]
        articles.append(element("article", *parts, id=name, aria_labelledby=f"{name}_heading"))
    return compare_page.page(TITLE, articles, {})


def _origin(row: BoardRow) -> tuple[str, str, str, str]:
    """Who made a row and when, what was run again, and the digest of its plugin."""
    plugin = "built in" if row.plugin_sha256 is None else row.plugin_sha256[:12]
    return row.author, row.date, " and ".join(RERAN.get(one, one) for one in row.reran) or "nothing", plugin


def result(section: BoardSection) -> ComparisonResult:
    """A section as the result of a comparison; authors stand behind the names of their poolings."""
    return ComparisonResult(
        baseline=section.baseline,
        alpha=section.alpha,
        conclusions=section.conclusions,
        results=[_variant(section, row) for row in section.rows],
        protocol=section.protocol,
    )


def _variant(section: BoardSection, row: BoardRow) -> VariantResult:
    pool, local = row.pool, row.local_pool
    if row.delta is not None:  # the baseline is found by its name
        pool = f"{pool} by {row.author}" if section.free == "pool" else pool
        local = f"{local} by {row.author}" if section.free == "local_pool" else local
    accuracies = {seed: float(one.mean()) for seed, one in row.right(section.images).items()}
    return VariantResult(
        pool=pool,
        local_pool=local,
        backbone=row.backbone,
        status="done",
        accuracy=row.accuracy,
        delta=row.delta,
        rank=row.rank,
        per_seed=[SeedResult(seed=seed, accuracy=accuracies.get(seed), f1=f1) for seed, f1 in row.f1.items()],
        f1=_f1(row),
    )
