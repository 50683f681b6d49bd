"""`poolzoo report`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from poolzoo.cli.options import json_option
from poolzoo.common import files, output

if TYPE_CHECKING:
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


@click.command()
@click.argument("paths", metavar="RUN|COMPARISON...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--baseline", metavar="NAME", show_default="the first pooling", help="Pooling that all others are compared with."
)
@click.option(
    "--alpha",
    type=click.FloatRange(0.0001, 0.5),
    default=0.05,
    show_default=True,
    help="Significance level of the tests.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    show_default="a new one in comparisons/",
    help="Directory of the report; it must not exist.",
)
@json_option
def command(paths: tuple[Path, ...], baseline: str | None, alpha: float, out: Path | None, as_json: bool) -> None:
    """Compare finished runs, or say which pooling wins over several comparisons.

    Runs become the table and the page of `poolzoo compare`. Comparisons are directories that it wrote. Their page has
    aggregated gains, average ranks, and what they say about other data.
    """
    from poolzoo.common.errors import UsageError
    from poolzoo.compare import several, writing

    place = out or writing.new_path()
    files.require_free(place)
    comparisons = [path for path in paths if several.is_comparison(path)]
    runs = [path for path in paths if path not in comparisons]
    if comparisons and runs:
        text = f"{comparisons[0]} is a comparison and {runs[0]} is not"
        raise UsageError(text, "give runs alone, or comparisons alone")
    if comparisons:
        _report_comparisons(comparisons, baseline, alpha, place, as_json)
    else:
        _report_runs(runs, baseline, alpha, place, as_json)


def _report_runs(runs: list[Path], baseline: str | None, alpha: float, place: Path, as_json: bool) -> None:
    from dataclasses import replace

    from poolzoo.cli.compare import show
    from poolzoo.compare import gather, writing

    result = replace(gather.compare_runs(runs, baseline, alpha), command=shlex.join(["poolzoo", *sys.argv[1:]]))
    with files.appearing(place) as folder:
        writing.write(result, folder)
    for note in result.notes:
        output.warn(note)
    show(writing.Summary(result, place), as_json)


def _report_comparisons(paths: list[Path], baseline: str | None, alpha: float, place: Path, as_json: bool) -> None:
    from dataclasses import replace

    from poolzoo.compare import across, writing

    result = replace(across.report(paths, baseline, alpha), command=shlex.join(["poolzoo", *sys.argv[1:]]))
    with files.appearing(place) as folder:
        writing.write_across(result, folder)
    for note in result.notes:
        output.warn(note)
    _show(writing.AcrossSummary(result, place), as_json)


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
    from poolzoo.cli.compare import difference

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
