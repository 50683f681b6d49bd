"""`poolzoo report` of several comparisons: which pooling wins over them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from poolzoo.cli.compare import difference
from poolzoo.common import files, output
from poolzoo.compare import across, writing
from poolzoo.compare.writing import AcrossSummary
from poolzoo.report.across_results import AcrossGroup, AcrossVariant, Interval

HEADERS: Final = (
    "pooling",
    "average rank",
    "mean gain over the baseline, points",
    "probability of improvement",
    "better in",
    "worse in",
    "over all",
)


def run(paths: Sequence[Path], baseline: str | None, alpha: float, place: Path, *, as_json: bool) -> None:
    """Writes the report of several comparisons and prints it.

    Args:
        paths: Directories of comparisons, or files of some.
        baseline: Their common baseline; None for the one that they used.
        alpha: The significance level of the tests.
        place: The directory of the report.
        as_json: Whether the result is printed as JSON.
    """
    result = replace(across.report(paths, baseline, alpha), command=shlex.join(["poolzoo", *sys.argv[1:]]))
    with files.appearing(place) as folder:
        writing.write_across(result, folder)
    for note in result.notes:
        output.warn(note)
    _show(AcrossSummary(result, place), as_json)


def _show(summary: AcrossSummary, as_json: bool) -> None:
    """Prints the tables, the conclusions, and where the page is."""
    if as_json:
        output.emit_json(summary.to_json())
        return
    for group in summary.result.groups:
        output.data(f"{group.title}, over {group.baseline}")
        output.table(HEADERS, [_cells(row, group) for row in group.variants], right=(1, 2, 3, 4, 5))
        for sentence in group.conclusions:
            output.data(sentence)
    output.data(str(summary.page))


def _cells(row: AcrossVariant, group: AcrossGroup) -> tuple[str, ...]:
    if row.gain is None:
        return (row.name, f"{row.average_rank:.1f}", "", "", "", "", row.verdict)
    of = len(group.aggregated)
    return (
        row.name,
        f"{row.average_rank:.1f}",
        difference(row.gain),
        _interval(row.improvement),
        f"{row.better_in} of {of}",
        f"{row.worse_in} of {of}",
        row.verdict,
    )


def _interval(found: Interval | None) -> str:
    return "" if found is None else f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"
