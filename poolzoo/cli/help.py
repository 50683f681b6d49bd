"""`poolzoo help`."""

from __future__ import annotations

import click

from poolzoo.cli.groups import GroupedCommand, require_command
from poolzoo.common import output

EXAMPLES = (
    ("Show the commands", "poolzoo help"),
    ("Show the options of a command", "poolzoo help finetune"),
    ("Show those of a command of a command", "poolzoo help plugin check"),
)


def _commands(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    found = context.parent.command if context.parent is not None else None
    for name in context.params.get("names") or ():
        found = found.get_command(context, name) if isinstance(found, click.Group) else None
    names = found.list_commands(context) if isinstance(found, click.Group) else []
    return [name for name in names if name.startswith(incomplete)]


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("names", metavar="[COMMAND]...", nargs=-1, shell_complete=_commands)
@click.pass_context
def command(context: click.Context, /, names: tuple[str, ...]) -> None:
    """Show the help of poolzoo or of one command, as its --help does."""
    shown = context.parent
    assert shown is not None
    for name in names:
        group = shown.command
        known = group.list_commands(shown) if isinstance(group, click.Group) else []
        require_command(name, known, shown.command_path)
        assert isinstance(group, click.Group)
        found = group.get_command(shown, name)
        assert found is not None
        shown = click.Context(found, info_name=name, parent=shown)
    output.page(shown.command.get_help(shown))
