"""`poolzoo plugin`: for those who write plugins, and for the day when one of them is broken."""

from __future__ import annotations

from typing import Final

import click

from poolzoo.cli import values
from poolzoo.cli.options import CommandGroup, json_option
from poolzoo.cli.plugin_check import command as check
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.plugin import disabled, loader

LIST_EXAMPLES: Final = (
    ("List plugins without importing any", "poolzoo plugin list"),
    ("Import them too, to see all of their problems", "poolzoo plugin list --load"),
)
DISABLE_EXAMPLES: Final = (("Stop loading a plugin that is broken", "poolzoo plugin disable my-pool"),)
ENABLE_EXAMPLES: Final = (("Load it again", "poolzoo plugin enable my-pool"),)
NEW_EXAMPLES: Final = (
    ("Write the folder my-pool, to edit and install", "poolzoo plugin new my-pool"),
    ("Write one file, my_pool.py", "poolzoo plugin new my-pool --single-file"),
    ("Write a plugin with a runtime", "poolzoo plugin new my-runtime --kind runtime"),
)


@click.group(cls=CommandGroup)
def command() -> None:
    """Write, check, list, disable and enable plugins.

    list, disable and enable never import an installed plugin. They work even if a plugin is broken.
    """


@command.command("list", examples=LIST_EXAMPLES)
@click.option("--load", "loaded", is_flag=True, help="Also load every enabled plugin, and show all of its problems.")
@json_option
def list_(loaded: bool, as_json: bool) -> None:
    """List every plugin with its origin, hooks, status and problems.

    The list comes from the source code of the plugins, which is not run. Files named with --plugin are loaded; --load
    loads the others too.
    """
    from poolzoo.plugin.status import plugin_statuses

    found, off = loader.candidates(), disabled.read()
    statuses = plugin_statuses(found, off, load=loaded)
    for name in off:
        if not any(candidate.answers_to(name) for candidate in found):
            output.warn(f"{name!r} is disabled and not installed", f"poolzoo plugin enable {name}")
    if as_json:
        output.emit_json({"plugins": [status.to_json() for status in statuses]})
        return
    cells = [
        (
            status.name,
            f"{status.source.dist} {status.source.version or ''}".strip(),
            status.source.path or status.source.tier,
            " ".join(hook.removeprefix("poolzoo_") for hook in status.hooks),
            status.status,
            status.trouble,
        )
        for status in statuses
    ]
    output.table(("plugin", "from", "where", "hooks", "status", "problem"), cells)


@command.command("disable", examples=DISABLE_EXAMPLES)
@click.argument("name", shell_complete=values.plugin)
def disable(name: str) -> None:
    """Disable a plugin until it is enabled again. A file named with --plugin is still loaded."""
    found = [candidate for candidate in loader.candidates() if candidate.answers_to(name)]
    if not found:
        raise UsageError(f"no plugin is called {name!r}", _names())
    if all(candidate.source.tier == "built-in" for candidate in found):
        raise UsageError(f"{name!r} is built in and cannot be disabled", "poolzoo plugin list shows what can")
    disabled.write([*disabled.read(), name])
    output.say(f"{name} is disabled; poolzoo plugin enable {name} undoes it")


@command.command("enable", examples=ENABLE_EXAMPLES)
@click.argument("name", shell_complete=values.disabled_plugin)
def enable(name: str) -> None:
    """Enable a disabled plugin."""
    off = disabled.read()
    if name not in off:
        listing = f"disabled: {', '.join(off)}" if off else "no plugin is disabled"
        raise UsageError(f"{name!r} is not disabled", listing)
    disabled.write([one for one in off if one != name])
    output.say(f"{name} is enabled")


def _names() -> str:
    names = sorted({c.source.dist for c in loader.candidates() if c.source.tier != "built-in"})
    return f"there are: {', '.join(names)}" if names else "there are no plugins but the built-in ones"


@command.command("new", examples=NEW_EXAMPLES, short_help="Write a package or a file to start a plugin from.")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(["pooling", "backbone", "dataset", "runtime"]), default="pooling", show_default=True,
    help="Kind of item that the plugin provides.",
)  # fmt: skip
@click.option("--single-file", is_flag=True, help="Write one file instead of a package.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(),
    default=".",
    show_default=True,
    metavar="DIR",
    help="Directory to write the plugin to.",
    shell_complete=values.folder,
)
def new(name: str, kind: str, single_file: bool, folder: str) -> None:
    """Write a working plugin to start from: a package with tests, or one file. Prints its path."""
    import shlex
    from pathlib import Path

    from poolzoo.plugin.scaffold import write

    written = write(name, kind, single_file=single_file, folder=Path(folder))
    if single_file:
        output.say(f"try it: poolzoo plugin check {shlex.quote(str(written))}")
    else:
        package, tests = shlex.quote(f"{written}[test]"), shlex.quote(f"{written}/tests")
        output.say(f"try it: pip install -e {package} && pytest {tests} && poolzoo plugin check {name}")
    output.data(str(written))


command.add_command(check)
