"""Options that every command takes, before or after its name, and small parts that several commands share."""

from __future__ import annotations

from typing import Any, Final, TypedDict, overload

import click

from poolzoo.cli import numbers, values
from poolzoo.cli.groups import DATA, HARDWARE, OUTPUT, Context, Decorator, GroupedCommand, option, require_command
from poolzoo.common import output
from poolzoo.plugin.settings import settings

# Options of earlier versions and their names of today.
RENAMED: Final = {
    "--accumulate": "--grad-accum",
    "--clip": "--clip-grad",
    "--compiled": "--torch-compile",
    "--dry-export": "--check-export",
    "--explain": "--saliency",
    "--explain-to": "--saliency-dir",
    "--finalists": "--export-top",
    "--head-lr": "--head-lr-mult",
    "--no-dry-export": "--no-check-export",
    "--no-speed": "--no-bench",
    "--on": "--executor",
    "--robust": "--robustness-samples",
    "--schedule": "--lr-schedule",
}


def hint_for(unknown: click.NoSuchOption) -> str:
    """The name of today for a former option, else options with a similar name, else the command's help."""
    from poolzoo.plugin.grammar import suggest

    if unknown.ctx is None:
        return "poolzoo --help"
    names = [name for one in unknown.ctx.command.params for name in (*one.opts, *one.secondary_opts)]
    typed = unknown.option_name
    if (today := RENAMED.get(typed)) in names:
        return f"{typed} is now called {today}"
    near = suggest(typed.lstrip("-"), {name.lstrip("-") for name in names if name.startswith("--")}, prefix="--")
    return near or f"{unknown.ctx.command_path} --help"


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
    if value and not context.resilient_parsing:
        output.page(context.get_help())
        context.exit()


@overload
def budget_seconds(text: str) -> float: ...
@overload
def budget_seconds(text: None) -> None: ...
def budget_seconds(text: str | None) -> float | None:
    """The seconds of a `--time-budget`, such as `25m`; None without one.

    Raises:
        UsageError: It is no duration.
    """
    from poolzoo.common.errors import UsageError
    from poolzoo.train.step_plan import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except ValueError:
        raise UsageError(f"--time-budget {text!r} is no duration above zero", "such as 25m, 1h30m or 90s") from None


def split_names(option: str, text: str) -> list[str]:
    """`onnxruntime,openvino` as names, each once.

    Raises:
        UsageError: One is empty.
    """
    from poolzoo.common.errors import UsageError

    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    if not all(names):
        raise UsageError(f"{option} {text!r} is not a list of names", "poolzoo list runtimes shows them")
    return names


class _Common(TypedDict):
    expose_value: bool
    is_eager: bool


def _options() -> list[click.Option]:
    common: _Common = {"expose_value": False, "is_eager": True}
    return [
        click.Option(
            ["--plugin"],
            multiple=True,
            metavar="FILE",
            shell_complete=values.python_file,
            callback=_plugin,
            help="Load a plugin file. May be repeated.",
            **common,
        ),
        click.Option(
            ["--plugins-dir"],
            multiple=True,
            metavar="DIR",
            shell_complete=values.folder,
            callback=_directory,
            help="Load every plugin file in a directory. May be repeated.",
            **common,
        ),
        click.Option(
            ["--no-plugins"],
            is_flag=True,
            callback=_no_plugins,
            help="Load only the built-in plugins.",
            **common,
        ),
        click.Option(
            ["--prefer"],
            multiple=True,
            metavar="DIST",
            shell_complete=values.distribution,
            callback=_prefer,
            help="Distribution that wins where several plugins provide the same name. May be repeated.",
            **common,
        ),
        click.Option(
            ["--strict"],
            is_flag=True,
            callback=_strict,
            help="Exit with code 3 if a plugin has a problem.",
            **common,
        ),
        click.Option(["-q", "--quiet"], is_flag=True, callback=_quiet, help="Print only results and errors.", **common),
        click.Option(["-v", "--verbose"], is_flag=True, callback=_verbose, help="Print more details.", **common),
        click.Option(["-h", "--help"], is_flag=True, callback=_help, help="Show this message and exit.", **common),
    ]


def add_global_options(command: click.Command) -> click.Command:
    """Adds the global options to a command, once."""
    if not any(parameter.name == "plugins_dir" for parameter in command.params):
        command.params += _options()
    return command


class CommandGroup(click.Group):
    """A command with commands of its own, each with the global options."""

    context_class = Context
    command_class = GroupedCommand

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        super().add_command(add_global_options(cmd), name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Finds the command that was typed, or says which there are."""
        if args and not (ctx.resilient_parsing or args[0].startswith("-")):
            require_command(args[0], self.commands, ctx.command_path)
        return super().resolve_command(ctx, args)


skip_broken_option = option(
    "--skip-broken",
    "skip",
    group=DATA,
    metavar="N|all",
    help="Skip up to N unreadable images, or all of them, and report each one. The default is to stop at any.",
)


def out_option(what: str, default: str) -> Decorator:
    """`--out DIR`: the new directory that a command writes.

    Args:
        what: The directory, as the help says it.
        default: Where it lies without the option, in words.
    """
    from pathlib import Path  # short commands do without it

    return option(
        "--out",
        group=OUTPUT,
        type=click.Path(path_type=Path),
        metavar="DIR",
        show_default=default,
        help=f"{what}; it must not exist.",
    )


def resume_option(marker: str, text: str) -> Decorator:
    """`--resume DIR`, for an interrupted directory of some kind.

    Args:
        marker: The file that only such directories have, for completion.
        text: The help.
    """
    from pathlib import Path

    return option(
        "--resume",
        "resumed",
        shell_complete=values.directory(marker),
        group=OUTPUT,
        type=click.Path(path_type=Path),
        metavar="DIR",
        help=text,
    )


json_option = option("--json", "as_json", group=OUTPUT, is_flag=True, help="Print the result as JSON on stdout.")
provider_option = option(
    "--provider",
    group=HARDWARE,
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    show_default=True,
    help="Execution provider of ONNX Runtime. A named provider is used or refused, never replaced.",
)
runtime_timeout_option = option(
    "--runtime-timeout",
    group=HARDWARE,
    type=numbers.FloatRange(0, min_open=True),
    metavar="SECONDS",
    show_default="300",
    help="Seconds that a runtime may take to open or convert a graph, and for each batch.",
)
threads_option = option(
    "--threads",
    group=HARDWARE,
    type=numbers.IntRange(1, numbers.MAX_THREADS),
    show_default="the CPUs that this process may use",
    help="Number of CPU threads.",
)
