"""`poolzoo doctor`."""

from __future__ import annotations

from typing import Final

import click

from poolzoo.cli.groups import GroupedCommand
from poolzoo.cli.options import json_option
from poolzoo.common import output

MAX_ERRORS: Final = 10  # findings that stderr names; stdout has all


EXAMPLES: Final = (
    ("Show what is installed and what is wrong", "poolzoo doctor"),
    ("Show it as JSON, for a bug report", "poolzoo doctor --json"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@json_option
def command(as_json: bool) -> int:
    """Show versions, devices, working ONNX Runtime providers, caches and plugins.

    The exit code is 1 if something is wrong.
    """
    from poolzoo.cli.environment import examine
    from poolzoo.common.errors import CHECK_FAILED, OK

    findings = examine()
    wrong = [one for one in findings if one.state == "wrong"]
    if as_json:
        output.emit_json({"passed": not wrong, "findings": [one.to_json() for one in findings]})
    else:
        output.table(("what", "state", "detail"), [(one.what, one.state, one.detail) for one in findings])
    for one in wrong[:MAX_ERRORS]:
        output.error(f"{one.what}: {one.detail}", one.hint)
    if len(wrong) > MAX_ERRORS:
        output.error(f"and {len(wrong) - MAX_ERRORS} more", "stdout has all of them")
    return CHECK_FAILED if wrong else OK
