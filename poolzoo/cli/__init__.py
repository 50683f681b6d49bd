"""The command line. Each command is a file, imported only when that command runs."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import Any, Final, NoReturn

import click
from click.shell_completion import CompletionItem

from poolzoo.cli.groups import Context, help_width, require_command, write_examples
from poolzoo.cli.options import add_global_options, hint_for
from poolzoo.common import ending, errors, output, stopping, streams

COMPLETE: Final = "_POOLZOO_COMPLETE"  # the variable with which a shell asks for completions
# Name → (module:command, what `--help` says of it); stated here so that `--help` imports none of them.
COMMANDS: Final = {
    "list": ("poolzoo.cli.list:command", "List poolings, backbones, data sets, runtimes and protocols."),
    "show": ("poolzoo.cli.show:command", "Show the options, equation, paper and origin of one item."),
    "gallery": ("poolzoo.cli.gallery:command", "Write a page that shows what every pooling does to a photograph."),
    "finetune": ("poolzoo.cli.finetune:command", "Fine-tune a backbone with a pooling on a data set."),
    "compare": (
        "poolzoo.cli.compare:command",
        "Train poolings with several seeds, and test which differ significantly.",
    ),
    "choose": ("poolzoo.cli.choose:command", "Recommend a pooling for a data set, from a few minutes of training."),
    "report": ("poolzoo.cli.report:command", "Compare finished runs, or check those of others."),
    "evaluate": ("poolzoo.cli.evaluate:command", "Evaluate a trained network on test images."),
    "export": ("poolzoo.cli.export:command", "Export a trained network to a verified ONNX bundle."),
    "verify": (
        "poolzoo.cli.verify:command",
        "Check a bundle, or any ONNX file against its torch module.",
    ),
    "bench": (
        "poolzoo.cli.bench:command",
        "Measure a bundle or any ONNX file in several runtimes, without torch.",
    ),
    "predict": ("poolzoo.cli.predict:command", "Label images with a bundle, without torch."),
    "data": ("poolzoo.cli.data:command", "Check data sets before a network is trained on them."),
    "plugin": ("poolzoo.cli.plugin:command", "Write, check, list, disable and enable plugins."),
    "doctor": (
        "poolzoo.cli.doctor:command",
        "Show versions, devices, caches and plugins, and their problems.",
    ),
    "completion": ("poolzoo.cli.completion:command", "Print the script for completion in bash, zsh or fish."),
    "help": ("poolzoo.cli.help:command", "Show the help of a command."),
}
VARIABLES: Final = {
    errors.DEBUG: "1 shows the traceback of an error, of a plugin's too.",
    "POOLZOO_CACHE": "Directory for downloads and caches.",
    "POOLZOO_CACHE_LIMIT": "Size of each cache in gigabytes.",
    "POOLZOO_PLUGINS_DIR": "Directory whose Python files are loaded as plugins.",
    "POOLZOO_CONFIG": "Directory that keeps which plugins are disabled.",
    "NO_COLOR": "Any value turns colors off; FORCE_COLOR colors messages in a pipe too.",
}


EXAMPLES: Final = (
    ("List poolings, backbones, data sets and runtimes", "poolzoo list"),
    ("Train a network; the last line is its run directory", "poolzoo finetune --data digits --pool gem --out run"),
    ("Export it to ONNX and check that the graph agrees", "poolzoo export run --out bundle"),
    ("Label an image without torch", "poolzoo predict bundle photo.jpg"),
)


class Commands(click.Group):
    """A group whose commands are imported when they are needed."""

    context_class = Context

    def list_commands(self, context: click.Context) -> list[str]:
        return [*COMMANDS]  # `list` is the module of that command here, once it was imported

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        from importlib import import_module

        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return add_global_options(command)

    def invoke(self, context: click.Context) -> Any:
        """Runs the command while stdout is ours: what plugins and libraries print goes to stderr.

        Raises:
            EnvironmentProblem: The current folder was removed. Libraries of torch end such a process without a word.
        """
        try:
            os.getcwd()
        except OSError as error:
            raise errors.EnvironmentProblem("the current folder was removed", "cd to one that is there") from error
        with streams.owned():
            try:
                return super().invoke(context)
            finally:
                if (loader := sys.modules.get("poolzoo.plugin.loader")) is not None:  # else no plugin was loaded
                    loader.report_failures()
                    gc.collect(1)  # what plugins have left in circles: its finalizers may raise
                if (uncaught := sys.modules.get("poolzoo.common.uncaught")) is not None:
                    uncaught.report()

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, EXAMPLES)
        with formatter.section("Environment"):
            formatter.write_dl(VARIABLES.items())
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in errors.EXIT_CODES.items()])

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """The commands, of which none is imported for that, and the options."""
        found = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, context, incomplete)]

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        if args and not (context.resilient_parsing or args[0].startswith("-")):
            require_command(args[0], COMMANDS, "poolzoo")
        return super().resolve_command(context, args)


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from poolzoo._version import __version__

        output.data(f"poolzoo {__version__}")
        context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
def cli() -> None:
    """Try any pooling strategy in any vision backbone, fine-tune it, and ship a verified ONNX file."""


add_global_options(cli)


def main() -> NoReturn:
    """Runs the command line and exits with the code that `poolzoo.common.errors` gives the outcome."""
    if COMPLETE in os.environ:
        from poolzoo.cli.completion import answer

        sys.exit(answer(cli, os.environ[COMPLETE]))
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries warn their authors, not our users; python -W shows them
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
    streams.take()  # until the process ends: threads and exit handlers of a plugin print too
    # Sleeping at a barrier costs 5 % alone and gains a factor of 1.7 where another process wants the core
    # (benchmarks/train/barriers.py); it must be said before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Each thread of numpy's OpenBLAS spins for 2^26 cycles, a fifth of `verify`, before it sleeps: 2^4 are the least.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # no Python that is started here finds modules in the current folder
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it when it is imported
    from poolzoo.common import resources

    if (limit := resources.thread_limit()) is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(limit))
    if os.environ.get("RANK", "0") != "0":  # one of several that torchrun started with the same arguments
        output.set_rank(-1)
    if not errors.is_debugging():
        from poolzoo.common import uncaught

        uncaught.install()
    stopping.handle(_interrupt)
    stopping.never_lose_one(_stopped.clear)
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt as stop:  # a second one, while the first was being handled
        code = _say_stopped(type(stop))
    stopping.handle(stopping.end_at_once)  # all is said and written, and exit handlers may take seconds
    foreign = {"poolzoo.plugin.loader", "torch"}  # plugins, and modules of users that `verify --against` calls
    ending.exit_with(code, alone=not foreign & sys.modules.keys())


_stopped: list[type[KeyboardInterrupt]] = []  # a signal that came, for where a library swallows the exception


def _interrupt(number: int, frame: object) -> None:
    if stopping.repeats(number, _stopped):
        return
    if _stopped:  # whoever asks twice does not want to wait for what the first one began
        stopping.end_at_once(number, frame)
    kind = stopping.EXCEPTIONS[number]
    _stopped.append(kind)
    raise kind


def run(arguments: list[str]) -> int:
    """Runs one command; every error becomes one line, a hint and an exit code."""
    try:
        with cli.make_context("poolzoo", arguments, terminal_width=help_width()) as context:
            result = cli.invoke(context)
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        output.help_on_stderr(error.format_message())
        return errors.USAGE
    except click.NoSuchOption as error:
        output.error(f"there is no option {error.option_name}", hint_for(error))
        return errors.USAGE
    except click.UsageError as error:
        output.error(error.format_message().removesuffix("."), f"{_command_of(error, arguments)} --help")
        return errors.USAGE
    except streams.ReaderGone:
        return errors.OK
    except KeyboardInterrupt as stop:
        return _say_stopped(type(stop), *stop.args)
    except BaseException as error:  # a plugin may throw anything
        if _stopped:
            return _say_stopped(_stopped[-1])
        shown = errors.explain(error)
        output.error(shown.message, shown.hint)
        return shown.exit_code
    return result if isinstance(result, int) else errors.OK


def _command_of(error: click.UsageError, arguments: list[str]) -> str:
    """The command whose help shows what was meant; click's parser does not say it."""
    if error.ctx:
        return error.ctx.command_path
    return " ".join(["poolzoo", *(word for word in arguments[:1] if word in COMMANDS)])


def _say_stopped(kind: type[BaseException], hint: str = "") -> int:
    output.error(stopping.word(kind), hint)
    return stopping.exit_code(kind)
