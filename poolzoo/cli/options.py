"""Options that every command takes, before or after its name, and small parts that several commands share."""

from __future__ import annotations

from typing import TypedDict

import click

from poolzoo.common import output
from poolzoo.plugin.settings import settings


def _plugin(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    if value:
        from pathlib import Path

        settings.files += map(Path, value)


def _directory(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    if value:
        from pathlib import Path

        settings.directories += map(Path, value)


def _no_plugins(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        settings.third_party = False


def _prefer(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    settings.prefer += value


def _strict(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        settings.strict = True


def _quiet(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        output.set_verbosity(output.QUIET)


def _verbose(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        output.set_verbosity(output.VERBOSE)


def _help(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        output.page(context.get_help())
        context.exit()


class _Common(TypedDict):
    expose_value: bool
    is_eager: bool


def _options() -> list[click.Option]:
    common: _Common = {"expose_value": False, "is_eager": True}
    return [
        click.Option(
            ["--plugin"], multiple=True, metavar="FILE", callback=_plugin, help="Load a plugin file.", **common
        ),
        click.Option(
            ["--plugins-dir"],
            multiple=True,
            metavar="DIR",
            callback=_directory,
            help="Load every plugin in a directory.",
            **common,
        ),
        click.Option(
            ["--no-plugins"], is_flag=True, callback=_no_plugins, help="Load no plugin but the built-in ones.", **common
        ),
        click.Option(
            ["--prefer"],
            multiple=True,
            metavar="DIST",
            callback=_prefer,
            help="Let bare names mean this plugin's items where others have them too.",
            **common,
        ),
        click.Option(
            ["--strict"],
            is_flag=True,
            callback=_strict,
            help="Make a plugin's problem an error (exit code 3).",
            **common,
        ),
        click.Option(
            ["-q", "--quiet"], is_flag=True, callback=_quiet, help="Say nothing but results and errors.", **common
        ),
        click.Option(["-v", "--verbose"], is_flag=True, callback=_verbose, help="Say more.", **common),
        click.Option(["-h", "--help"], is_flag=True, callback=_help, help="Show this message and exit.", **common),
    ]


def add_global_options(command: click.Command) -> click.Command:
    """Adds the global options to a command, once."""
    if not any(parameter.name == "plugins_dir" for parameter in command.params):
        command.params += _options()
    return command


skip_broken_option = click.option(
    "--skip-broken",
    "skip",
    metavar="N|all",
    help="Leave out at most N images that cannot be read, or all of them; each is told of. By default none.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
provider_option = click.option(
    "--provider",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="ONNX Runtime's: auto, cpu, cuda or tensorrt; never falls back.",
)
threads_option = click.option("--threads", type=click.IntRange(1), help="Threads to compute with.")
