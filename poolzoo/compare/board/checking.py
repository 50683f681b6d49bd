"""All checks of a submission, one after the other, as a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from poolzoo.common.errors import UsageError
from poolzoo.compare.board import checks, protocol
from poolzoo.compare.board.checks import Check, Context
from poolzoo.compare.board.protocol import Protocol
from poolzoo.compare.board.submission import Submission

RERUNS: Final = ("none", "evaluate", "train")
Again = Literal["none", "evaluate", "train"]


@dataclass(frozen=True)
class CheckReport:
    """What the checks of a submission found.

    Attributes:
        paths: What was checked.
        protocol: The checker's own; None where the files could not be read.
        checks: In their order.
        context: What was looked at; None where the files could not be read.
    """

    paths: tuple[Path, ...]
    protocol: Protocol | None
    checks: tuple[Check, ...]
    context: Context | None = None

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.status != checks.FAILED for check in self.checks) and self.context is not None

    @property
    def reran(self) -> tuple[str, ...]:
        """What was run again and agreed: `evaluation`, `training`."""
        return tuple(
            check.name for check in self.checks if check.name in ("evaluation", "training") and check.status == "ok"
        )

    def to_json(self) -> dict[str, object]:
        reference = None if self.protocol is None else self.protocol.reference
        return {
            "paths": [str(path) for path in self.paths],
            "protocol": reference,
            "passed": self.passed,
            "checks": [check.to_json() for check in self.checks],
        }


def check(
    paths: Sequence[Path], named: str | None = None, data: str | None = None, again: Again = "none"
) -> CheckReport:
    """Checks the directory of a comparison, or run directories, against the protocol that they name.

    Args:
        paths: What a third party sent.
        named: The checker's protocol, a name or a path; None for the built-in one of the name that the runs have.
        data: The checker's copy of the data, as for `--data`; None for that of a built-in data set.
        again: Whether weights are evaluated again, and whether one training is repeated.

    Raises:
        UsageError: There is nothing to check, no such protocol, or data or a plugin is missing for a rerun.
    """
    submission = Submission.of(paths)
    first = checks.attempt("files", lambda: checks.files_check(submission))
    if first.status == checks.FAILED:
        rest = checks.skipped(("manifests", "protocol", *checks.CHECKS), "its files are not safe to read")
        return CheckReport(tuple(paths), None, (first, *rest))
    found = [first, checks.attempt("manifests", lambda: checks.manifests_check(submission))]
    own = protocol.find(named) if named is not None else _built_in(submission)
    context = Context(submission, own)
    found.append(checks.attempt("protocol", lambda: checks.protocol_check(context)))
    for name, function in checks.CHECKS.items():
        if submission.comparison is None and name in checks.OF_COMPARISON:
            found += checks.skipped([name], "runs have none")
        else:
            found.append(checks.attempt(name, lambda function=function: function(context)))  # type: ignore[misc]
    found += _reruns(context, data, again, sound=all(one.status != checks.FAILED for one in found))
    return CheckReport(tuple(paths), own, tuple(found), context)


def _built_in(submission: Submission) -> Protocol:
    reference = checks.require_one_reference(submission)
    name = reference.partition("@")[0]
    if name not in protocol.names():
        text = f"the protocol {name!r} of the runs is not built in"
        raise UsageError(text, "name your own copy of it: --protocol FILE")
    return protocol.find(name)


def _reruns(context: Context, data: str | None, again: Again, *, sound: bool) -> list[Check]:
    """The checks that need the data, and perhaps the plugin."""
    source = context.protocol.data.source
    wanted = {"none": [], "evaluate": ["evaluation"], "train": ["evaluation", "training"]}[again]
    left = [name for name in ("evaluation", "training") if name not in wanted]
    place = data or (None if source.endswith(":") else source)
    if wanted and place is None:
        raise UsageError(f"--rerun needs the data of protocol {context.protocol.name}", f"add --data {source}PATH")
    if not wanted and data is None:
        return checks.skipped(left, "--rerun does it")
    if not sound:
        return checks.skipped(("data here", "evaluation", "training"), "another check failed")
    from poolzoo.compare.board.rerun import Rerun, require_plugins

    rerun = Rerun(context, str(place))
    functions = {"evaluation": rerun.evaluation_check, "training": rerun.training_check}
    if wanted:
        require_plugins(context)
    found = [checks.attempt("data here", rerun.data_check)]
    if found[0].status == checks.FAILED:
        return [*found, *checks.skipped(("evaluation", "training"), "the data here is another one")]
    found += [checks.attempt(name, functions[name]) for name in wanted]
    return [*found, *checks.skipped(left, "--rerun does it")]
