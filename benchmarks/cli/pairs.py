"""Another checkout of poolzoo beside this one: cases that both run in turns, and the ratios of what they take."""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from scipy import stats

from benchmarks.cli.resources import Usage

FIGURES: Final = {"wall, s": "wall", "CPU, s": "cpu", "peak, GB": "peak"}
UNITS: Final = {"peak": 1e9}
ROW: Final = "{case:10}{figure:10}{before:8.2f} {after:8.2f}   {ratio:.3f} ({low:.3f} to {high:.3f})"

Row = dict[str, object]
Measure = Callable[[Sequence[str], Path, int], tuple[list[Row], list[str]]]


def compare(description: str | None, cases: Collection[str], measure: Measure, *, rounds: int) -> list[str]:
    """Parses the command line of a benchmark, measures, and says what differs.

    Args:
        description: The module's docstring.
        cases: The names of its cases.
        measure: Runs the cases of these names beside a checkout, in so many pairs of processes. Gives the rows and what
            differs.
        rounds: Pairs of processes where the command line does not say.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, metavar="PATH", help="the other checkout of poolzoo")
    parser.add_argument("--rounds", type=int, default=rounds, help="pairs of processes")
    parser.add_argument("--only", nargs="*", default=["*"], metavar="GLOB", help="cases to run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    names = [name for name in cases if any(fnmatch.fnmatch(name, glob) for glob in options.only)]
    if not names or options.rounds < 1 or not (options.base / "poolzoo").is_dir():
        parser.error(f"--only matches none of {', '.join(cases)}, --rounds is below 1, or --base is no checkout")
    print(f"{'case':10}{'figure':10}{'before':>8} {'after':>8}   ratio")
    rows, wrong = measure(names, options.base.resolve(), options.rounds)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    for one in wrong:
        print(f"the two differ in {one}", file=sys.stderr)
    return wrong


def show(case: str, taken: Sequence[Sequence[Usage]]) -> list[Row]:
    """Prints the figures of a case from those of its pairs, first of the other checkout; also returns them."""
    rows: list[Row] = []
    for shown, figure in FIGURES.items():
        before, after = ([getattr(one, figure) / UNITS.get(figure, 1) for one in side] for side in taken)
        mean, low, high = ratio(before, after)
        row: Row = {"case": case, "figure": shown, "before": statistics.median(before)}
        rows.append(row | {"after": statistics.median(after), "ratio": mean, "low": low, "high": high})
        print(ROW.format(**rows[-1]), flush=True)
    return rows


def ratio(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean of after ÷ before over pairs, and its interval; of one pair, it has no width."""
    logs = np.log(np.divide(after, before))
    width = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else 0.0
    low, mean, high = np.exp(logs.mean() + np.array([-width, 0.0, width])).tolist()
    return mean, low, high
