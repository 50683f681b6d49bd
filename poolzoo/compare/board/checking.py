"""All checks of a submission, one after the other, as a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from poolzoo.common.errors import UsageError
from poolzoo.compare.board import protocol, protocol_names
from poolzoo.compare.board.checks import conditions, figures, files, network, plugins, weights
from poolzoo.compare.board.checks.context import Context
from poolzoo.compare.board.checks.outcome import FAILED, OK, Check, attempt, skipped
from poolzoo.compare.board.protocol import Protocol
from poolzoo.compare.board.submission import Submission

Again = Literal["none", "evaluate", "train"]
# Checks of a submission whose files are safe to read, in the order in which they are shown.
CHECKS: Final[Mapping[str, Callable[[Context], str]]] = {
    "protocol": conditions.protocol_check,
    "plan": conditions.plan_check,
    "trials": conditions.trials_check,
    "settings": conditions.settings_check,
    "network": network.network_check,
    "length": conditions.length_check,
    "data": conditions.data_check,
    "labels": conditions.labels_check,
    "metrics": figures.metrics_check,
    "weights": weights.weights_check,
    "plugins": plugins.plugins_check,
    "versions": conditions.versions_check,
    "statistics": figures.statistics_check,
}
OTHER: Final = "another check failed"
RERUNS: Final[Mapping[Again, tuple[str, ...]]] = {
    "none": (),
    "evaluate": ("evaluation",),
    "train": ("evaluation", "training"),
}
OF_COMPARISON: Final = ("plan", "statistics")  # runs alone have none


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
        return all(check.status != FAILED for check in self.checks) and self.context is not None

    @property
    def reran(self) -> tuple[str, ...]:
        """What was run again and agreed: `evaluation`, `training`."""
        return tuple(check.name for check in self.checks if check.name in RERUNS["train"] and check.status == OK)

    def to_json(self) -> dict[str, object]:
        reference = None if self.protocol is None else self.protocol.reference
        return {
            "paths": [str(path) for path in self.paths],
            "protocol": reference,
            "passed": self.passed,
            "checks": [check.to_json() for check in self.checks],
        }


def check(
    paths: Sequence[Path],
    named: str | None = None,
    data: str | None = None,
    again: Again = "none",
    more: Mapping[str, Callable[[Context], str]] | None = None,
) -> CheckReport:
    """Checks the directory of a comparison, or run directories, against the protocol that they name.

    Args:
        paths: What a third party sent.
        named: The checker's protocol, a name or a path; None for the built-in one of the name that the runs have.
        data: The checker's copy of the data, as for `--data`; None for that of a built-in data set.
        again: Whether weights are evaluated again, and whether one training is repeated.
        more: Further checks by their names, which come before anything is run again.

    Raises:
        UsageError: There is nothing to check, no such protocol, or data or a plugin is missing for a rerun.
    """
    submission = Submission.of(paths)
    first = attempt("files", lambda: files.files_check(submission))
    if first.status == FAILED:
        rest = skipped(("manifests", *CHECKS), "its files are not read")
        return CheckReport(tuple(paths), None, (first, *rest))
    found = [first, attempt("manifests", lambda: files.manifests_check(submission))]
    own = protocol.find(named) if named is not None else _built_in(submission)
    place = _place(own, data, again)
    context = Context(submission, own)
    for name, function in CHECKS.items():
        if submission.comparison is None and name in OF_COMPARISON:
            found += skipped([name], "runs have none")
        else:
            found.append(attempt(name, lambda function=function: function(context)))  # type: ignore[misc]
    sound = all(one.status != FAILED for one in found)
    for name, function in (more or {}).items():
        found += [attempt(name, lambda function=function: function(context))] if sound else skipped([name], OTHER)  # type: ignore[misc]
    if again == "none" and data is None:
        found += skipped(RERUNS["train"], "--rerun does it")
    else:
        found += _reruns(context, str(place), again, sound=all(one.status != FAILED for one in found))
    return CheckReport(tuple(paths), own, tuple(found), context)


def _built_in(submission: Submission) -> Protocol:
    reference = require_one_reference(submission)
    name = reference.partition("@")[0]
    if name not in protocol_names():
        text = f"the protocol {name!r} of the runs is not built in"
        raise UsageError(text, "name your own copy of it: --protocol FILE")
    return protocol.find(name)


def require_one_reference(submission: Submission) -> str:
    """The protocol that all runs of a submission name.

    Raises:
        UsageError: They name none, or several.
    """
    if len(submission.references) != 1 or not submission.references[0]:
        named = ", ".join(one or "none" for one in submission.references) or "none"
        text = f"the runs follow no protocol: they name {named}"
        raise UsageError(text, "poolzoo compare --protocol NAME makes runs that can be checked")
    return submission.references[0]


def _place(own: Protocol, data: str | None, again: Again) -> str | None:
    """The checker's copy of the data, as for `--data`; None where none is named.

    Raises:
        UsageError: A rerun needs one.
    """
    source = own.data.source
    place = data or (None if source.endswith(":") else source)
    if place is None and again != "none":
        raise UsageError(f"--rerun needs the data of protocol {own.name}", f"add --data {source}PATH")
    return place


def _reruns(context: Context, place: str, again: Again, *, sound: bool) -> list[Check]:
    """The checks that need the data, and perhaps the plugin."""
    wanted = RERUNS[again]
    left = [name for name in RERUNS["train"] if name not in wanted]
    if not sound:
        return skipped(("data here", *RERUNS["train"]), OTHER)
    from poolzoo.compare.board.rerun import Rerun, require_plugins

    rerun = Rerun(context, place)
    functions = {"evaluation": rerun.evaluation_check, "training": rerun.training_check}
    if wanted:
        require_plugins(context)
    found = [attempt("data here", rerun.data_check)]
    if found[0].status == FAILED:
        return [*found, *skipped(RERUNS["train"], "the data here is another one")]
    found += [attempt(name, functions[name]) for name in wanted]
    return [*found, *skipped(left, "--rerun does it")]
