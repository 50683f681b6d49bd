"""`poolzoo plugin check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from poolzoo.cli import values
from poolzoo.cli.groups import OUTPUT, GroupedCommand, option
from poolzoo.cli.options import json_option
from poolzoo.common import output
from poolzoo.common.errors import CHECK_FAILED, OK, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from poolzoo.testing.expected import ExpectedFailures
    from poolzoo.testing.selection import Selection

EXAMPLES: Final = (
    ("Check a plugin file", "poolzoo plugin check my_pool.py"),
    ("Check an installed plugin", "poolzoo plugin check my-pool"),
    ("Make some of its checks", "poolzoo plugin check my-pool -k 'gradients and not reach'"),
    ("Check a plugin's folder before its release", "poolzoo plugin check --release my-pool"),
)


@click.command("check", cls=GroupedCommand, examples=EXAMPLES)
@click.argument("target", metavar="[FILE|DIST|DIR]", required=False, shell_complete=values.file_or_plugin)
@click.option(
    "-k",
    "expression",
    default="",
    metavar="EXPRESSION",
    help="Run the checks of which the id, the item or its kind contains a word. As in pytest, with and, or, not and "
    "parentheses.",
)
@click.option(
    "--expect-failure",
    "expected",
    multiple=True,
    metavar="[ITEM:]CHECK=REASON",
    help="Expect a check to fail. It is an error if it passes. May be repeated; the plugin's pyproject.toml can state "
    "the same in [tool.poolzoo.expected-failures].",
)
@click.option("--list", "listed", is_flag=True, help="List the ids of all checks, and run none.")
@click.option(
    "--release",
    is_flag=True,
    help="Check whether the project in DIR is ready to be published: its metadata, its wheel and sdist, and its tests "
    "with the wheel installed, against this poolzoo and the newest one.",
)
@click.option("--offline", is_flag=True, help="With --release, download nothing.")
@click.option(
    "--clean",
    is_flag=True,
    help="With --release, install all packages anew, torch among them. The default is to link those of this "
    "environment.",
)
@option(
    "--out",
    group=OUTPUT,
    type=click.Path(),
    metavar="DIR",
    help="With --release, directory for the wheel, the sdist and what the tests print; it must not exist.",
)
@json_option
def command(
    target: str | None,
    expression: str,
    expected: tuple[str, ...],
    listed: bool,
    release: bool,
    offline: bool,
    clean: bool,
    out: str | None,
    as_json: bool,
) -> int:
    """Run the conformance checks on everything that a plugin provides. The exit code is 1 if a check fails.

    The plugin is a file, an installed distribution, or with --release the folder of a project.
    """
    from poolzoo.testing.selection import parse

    select, stated = parse(expression), _expected(expected)
    if listed:
        _list(select, as_json)
        return OK
    if target is None:
        raise UsageError(
            "there is no plugin to check", "give its file, its distribution or its folder; --list needs none"
        )
    if release:
        from pathlib import Path  # `plugin list` needs none

        place = None if out is None else Path(out)
        return _release(Path(target), select, stated, offline=offline, clean=clean, out=place, as_json=as_json)
    if offline or clean or out is not None:
        flag = "--offline" if offline else "--clean" if clean else "--out"
        raise UsageError(f"{flag} is for --release", "add --release")
    return _check(target, select, stated, as_json)


def _expected(given: tuple[str, ...]) -> ExpectedFailures:
    from poolzoo.testing.expected import ExpectedFailures

    for text in given:
        if "=" not in text:
            raise UsageError(
                f"--expect-failure {text!r} has no reason", f"such as --expect-failure '{text}=why it fails'"
            )
    parts = (text.partition("=") for text in given)
    return ExpectedFailures({check.strip(): why.strip() for check, _, why in parts}, "--expect-failure")


def _list(select: Selection, as_json: bool) -> None:
    from poolzoo.testing import kinds
    from poolzoo.testing.release import checks

    found = [(kind, one) for kind, one in (*kinds.all_checks(), *checks.all_checks()) if select(kind, one.id)]
    select.require_some(len(found), [*kinds.all_ids(), *checks.all_ids()])
    if as_json:
        rows = [{"kind": kind, "check": one.id, "promise": one.expected, "hint": one.hint} for kind, one in found]
        output.emit_json({"checks": rows})
    else:
        output.table(("kind", "check", "promise"), [(kind, one.id, one.expected) for kind, one in found])


def _check(target: str, select: Selection, expected: ExpectedFailures, as_json: bool) -> int:
    from poolzoo.plugin.problems import summary
    from poolzoo.testing.plugin_check import check_plugin

    report = check_plugin(target, output.detail, select=select, expected=expected)
    code = OK if report.passed else CHECK_FAILED
    if as_json:
        output.emit_json(report.to_json())
        return code
    found = [(item, outcome) for item in report.items for outcome in item.outcomes]
    rows = [(item.name, item.kind, one.check, one.result, one.expected or "") for item, one in found]
    if not (report.items or report.problems):
        output.say("the plugin loads; it provides no item with promises to check")
    output.table(("item", "kind", "check", "result", "reason"), rows)
    for text, hint in summary(report.problems):
        output.error(text, hint)
    for item, one in found:
        if one.error is not None:
            text, hint = one.error
            output.error(f"{item.name} ({item.kind}), {one.check}: {text}", hint)
    return code


def _release(
    project: Path,
    select: Selection,
    expected: ExpectedFailures,
    *,
    offline: bool,
    clean: bool,
    out: Path | None,
    as_json: bool,
) -> int:
    from poolzoo.testing.release.run import ReleaseOptions, check_release

    options = ReleaseOptions(offline=offline, clean=clean, out=out, select=select, expected=expected)
    report = check_release(project, options, output.say)
    code = OK if report.passed else CHECK_FAILED
    if as_json:
        output.emit_json(report.to_json())
        return code
    rows = [(one.outcome.check, one.against, one.result, one.skipped or one.outcome.expected or one.found)
            for one in report.outcomes]  # fmt: skip
    output.table(("check", "against", "result", "found"), rows)
    for one in report.outcomes:
        if one.outcome.error is not None and not one.skipped:
            text, hint = one.outcome.error
            output.error(f"{one.outcome.check}{f' ({one.against})' if one.against else ''}: {text}", hint)
    return code
