"""`poolzoo report`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from poolzoo.cli import numbers, values
from poolzoo.cli.groups import OUTPUT, GroupedCommand, option
from poolzoo.cli.options import json_option
from poolzoo.common import files, output
from poolzoo.common.errors import UsageError

EXAMPLES: Final = (
    ("Compare runs that are finished", "poolzoo report runs/a runs/b"),
    ("Say which pooling wins over several comparisons", "poolzoo report comparisons/digits comparisons/photos"),
    (
        "Check what somebody else made under a protocol",
        "poolzoo report comparison --check --data folder:photos",
    ),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument(
    "paths",
    shell_complete=values.directory(values.RUN, values.COMPARISON),
    metavar="RUN|COMPARISON...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@click.option(
    "--baseline",
    shell_complete=values.poolings("global"),
    metavar="NAME",
    show_default="the first pooling",
    help="Pooling that all others are compared with.",
)
@click.option(
    "--alpha",
    type=numbers.FloatRange(0.0001, 0.5),
    default=0.05,
    show_default=True,
    help="Significance level of the tests.",
)
@option(
    "--out",
    group=OUTPUT,
    type=click.Path(path_type=Path),
    metavar="DIR",
    show_default="a new one in comparisons/",
    help="Directory of the report; it must not exist.",
)
@click.option(
    "--check",
    "is_check",
    is_flag=True,
    help="Check a comparison or runs that somebody else made under a protocol. Nothing of theirs is executed.",
)
@click.option(
    "--protocol",
    shell_complete=values.protocol,
    metavar="NAME|FILE",
    show_default="that of the runs",
    help="With --check: your protocol.",
)
@click.option(
    "--data",
    shell_complete=values.data,
    metavar="NAME",
    help="With --check: your copy of the data, such as folder:PATH.",
)
@click.option(
    "--rerun",
    type=click.Choice(["none", "evaluate", "train"]),
    default="none",
    show_default=True,
    help="With --check: test all weights again, or also train one random trial again. Needs --plugin of the pooling.",
)
@click.option(
    "--merge",
    shell_complete=values.files(".json"),
    type=click.Path(path_type=Path),
    metavar="BOARD",
    help="With --check: add the rows to this board, a JSON file, and write its pages, if no check fails.",
)
@click.option("--author", metavar="TEXT", help="With --merge: who made the rows.")
@json_option
def command(
    paths: tuple[Path, ...],
    baseline: str | None,
    alpha: float,
    out: Path | None,
    is_check: bool,
    as_json: bool,
    **given: Any,
) -> int | None:
    """Compare finished runs, or say which pooling wins over several comparisons.

    Runs become the table and the page of `poolzoo compare`. Comparisons are directories that it wrote. Their page has
    aggregated gains, average ranks, and what they say about other data.

    With --check, verify what somebody else made with compare --protocol: checksums, settings, data, predictions and
    statistics. The exit code is 1 if a check fails.
    """
    from poolzoo.cli.report_check import CheckOptions, run

    options = CheckOptions(**given)
    if is_check:
        if baseline is not None or out is not None:
            raise UsageError("--check takes neither --baseline nor --out", "leave them out")
        return run(paths, options, as_json=as_json)
    options.require_unused()
    from poolzoo.compare import writing
    from poolzoo.compare.across import several

    place = out or writing.new_path()
    files.require_free(place)
    comparisons = [path for path in paths if several.is_comparison(path)]
    runs = [path for path in paths if path not in comparisons]
    if comparisons and runs:
        text = f"{comparisons[0]} is a comparison and {runs[0]} is not"
        raise UsageError(text, "give runs alone, or comparisons alone")
    if comparisons:
        from poolzoo.cli import report_across

        report_across.run(comparisons, baseline, alpha, place, as_json=as_json)
    else:
        _report_runs(runs, baseline, alpha, place, as_json)
    return None


def _report_runs(runs: Sequence[Path], baseline: str | None, alpha: float, place: Path, as_json: bool) -> None:
    from dataclasses import replace

    from poolzoo.cli.compare import show
    from poolzoo.compare import gather, writing

    result = replace(gather.compare_runs(runs, baseline, alpha), command=shlex.join(["poolzoo", *sys.argv[1:]]))
    with files.appearing(place) as folder:
        writing.write(result, folder)
    for note in result.notes:
        output.warn(note)
    show(writing.Summary(result, place), as_json)
