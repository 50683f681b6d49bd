"""`poolzoo report --check`: the checks of what others submit, and the merge into a board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from poolzoo.common import output
from poolzoo.common.errors import CHECK_FAILED, OK, PoolzooError, UsageError, explain

if TYPE_CHECKING:
    from poolzoo.compare.board.checking import Again
    from poolzoo.compare.board.checks.context import Context


@dataclass(frozen=True)
class CheckOptions:
    """The options of `report` that are for `--check` alone; None or "none" where they were not given."""

    protocol: str | None
    data: str | None
    rerun: Again
    merge: Path | None
    author: str | None

    def require_unused(self) -> None:
        """Refuses them without `--check`.

        Raises:
            UsageError: One was given.
        """
        for name, value in vars(self).items():
            if value not in (None, "none"):
                raise UsageError(f"--{name} is for --check", "add --check")


def run(paths: Sequence[Path], options: CheckOptions, *, as_json: bool) -> int:
    """Checks a submission, prints what was found, and merges its rows where that was asked for and nothing failed.

    Returns:
        The exit code.
    """
    if (options.merge is None) != (options.author is None):
        raise UsageError("--merge and --author belong together", "such as --merge board.json --author 'Jane Doe'")
    from poolzoo.compare.board import board_file, checking, merging

    place, author, known = options.merge, options.author, None
    more: dict[str, Callable[[Context], str]] = {}
    if place is not None and author is not None:
        merging.require_author(author)
        known = board_file.load(place)  # a damaged board fails before an hour of training
        more = {"board": partial(merging.require_room, known)}
    with output.quiet():
        report = checking.check(paths, options.protocol, options.data, options.rerun, more)
    if not as_json:
        output.table(("check", "status", "reason"), [(one.name, one.status, one.reason) for one in report.checks])
    merged: list[str] = []
    problem: PoolzooError | None = None
    if report.passed and place is not None and known is not None and author is not None:
        try:
            found = merging.merge(known, report, author)
            board_file.save(found.board, place, known)
            merged = found.added
        except Exception as error:  # what was checked is printed all the same
            problem = explain(error)
    if as_json:
        output.emit_json({**report.to_json(), "merged": merged})
    for line in () if as_json else merged:
        output.data(f"{place}: {line}")
    if problem is not None:
        raise problem
    if not report.passed and not as_json:
        failed = [one.name for one in report.checks if one.status == "failed"]
        output.error(f"{len(failed)} of {len(report.checks)} checks failed: {', '.join(failed)}", "see the table")
    return OK if report.passed else CHECK_FAILED
