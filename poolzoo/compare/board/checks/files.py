"""Checks of the files themselves: safe to read, with the right checksums."""

from __future__ import annotations

from poolzoo.common.errors import CheckFailed
from poolzoo.compare.board.submission import Submission, listed


def files_check(submission: Submission) -> str:
    """Known plain files only."""
    if found := submission.file_problems():
        raise CheckFailed(listed(found))
    if not submission.runs:
        raise CheckFailed("there is no run in it")
    return f"{len(submission.runs)} runs, no link, no executable or unknown file"


def manifests_check(submission: Submission) -> str:
    """Every run's checksums."""
    if found := submission.manifest_problems():
        raise CheckFailed(listed(found))
    return "all checksums are right"
