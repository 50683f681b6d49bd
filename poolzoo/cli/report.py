"""`poolzoo report`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from poolzoo.cli.options import json_option
from poolzoo.common import files, output


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
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
def command(runs: tuple[Path, ...], baseline: str | None, alpha: float, out: Path | None, as_json: bool) -> None:
    """Compare finished runs: write the table and the page of `poolzoo compare` for them."""
    from dataclasses import replace

    from poolzoo.cli.compare import show
    from poolzoo.compare import gather, writing

    place = out or writing.new_path()
    files.require_free(place)
    result = replace(gather.compare_runs(runs, baseline, alpha), command=shlex.join(["poolzoo", *sys.argv[1:]]))
    with files.appearing(place) as folder:
        writing.write(result, folder)
    for note in result.notes:
        output.warn(note)
    show(writing.Summary(result, place), as_json)
