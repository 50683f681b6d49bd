"""`poolzoo report --check`: the checks of what others submit, and the merge into a board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poolzoo.common import output
from poolzoo.common.errors import CHECK_FAILED, OK, UsageError

if TYPE_CHECKING:
    from poolzoo.compare.board.checking import Again


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
    from poolzoo.compare.board import board, checking

    known = None
    if options.merge is not None and options.author is not None:
        board.require_author(options.author)
        known = board.load(options.merge)  # a damaged board fails before an hour of training
    with output.quiet():
        report = checking.check(paths, options.protocol, options.data, options.rerun)
    merged: list[str] = []
    if report.passed and options.merge is not None and known is not None and options.author is not None:
        found = board.merge(known, report, options.author)
        board.save(found.board, options.merge, known)
        merged = found.added
    if as_json:
        output.emit_json({**report.to_json(), "merged": merged})
        return OK if report.passed else CHECK_FAILED
    output.table(("check", "status", "reason"), [(one.name, one.status, one.reason) for one in report.checks])
    for line in merged:
        output.data(f"{options.merge}: {line}")
    if not report.passed:
        failed = [one.name for one in report.checks if one.status == "failed"]
        output.error(f"{len(failed)} of {len(report.checks)} checks failed: {', '.join(failed)}", "see the table")
    return OK if report.passed else CHECK_FAILED
