"""The command line. Each command is a file, imported only when that command runs."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Final, NoReturn

import click

from poolzoo import errors, output
from poolzoo.cli.options import add_global_options

# Name → (module:command, what `--help` says of it); stated here so that `--help` imports none of them.
COMMANDS: Final = {
    "list": ("poolzoo.cli.list:command", "Show the poolings, backbones and data sets that there are."),
    "show": ("poolzoo.cli.show:command", "Show one pooling or backbone: options, equation, paper, origin."),
    "finetune": ("poolzoo.cli.finetune:command", "Train a backbone with a pooling on a data set."),
    "evaluate": ("poolzoo.cli.evaluate:command", "Measure a trained network on images."),
    "export": ("poolzoo.cli.export:command", "Turn a trained network into a verified ONNX bundle."),
    "verify": ("poolzoo.cli.verify:command", "Check a bundle here and now, without torch."),
    "predict": ("poolzoo.cli.predict:command", "Label image files with a bundle, without torch."),
    "doctor": (
        "poolzoo.cli.doctor:command",
        "Show versions, devices, caches and plugins, and what is wrong with them.",
    ),
}


class Commands(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        from importlib import import_module

        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return add_global_options(command)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        from poolzoo.options import suggest

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = suggest(args[0], COMMANDS) or f"there are: {', '.join(COMMANDS)}"
            raise errors.UsageError(f"no command is called {args[0]!r}", near)
        return super().resolve_command(context, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(package_name="poolzoo", message="%(prog)s %(version)s")
def cli() -> None:
    """Try any pooling strategy in any vision backbone, fine-tune it, and ship a verified ONNX file.

    \b
      poolzoo list                                        what there is
      poolzoo finetune --backbone resnet18 --pool gem     train; prints the run directory
      poolzoo export RUN                                  ONNX, checked against the network
      poolzoo predict BUNDLE photo.jpg                    use it; needs no torch
    """


add_global_options(cli)


def main() -> NoReturn:
    """Runs the command line and exits with the code that `poolzoo.errors` gives the outcome."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command; every error becomes one line, a hint and an exit code."""
    # Threads that spin at a barrier cost a factor of ten where another process wants the core; set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threading_main():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        result = cli.main(args=arguments, prog_name="poolzoo", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return errors.OK if error.ctx is None or error.ctx.parent is None else errors.USAGE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "poolzoo"
        output.error(error.format_message(), f"{command} --help")
        return errors.USAGE
    except (KeyboardInterrupt, click.Abort) as stop:  # click turns the first into the second
        cause = stop.__cause__ if isinstance(stop, click.Abort) and stop.__cause__ else stop
        terminated = isinstance(cause, errors.Terminated)
        output.error("terminated" if terminated else "interrupted", *cause.args)
        return errors.TERMINATED if terminated else errors.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.OK
    except Exception as error:
        if os.environ.get("POOLZOO_DEBUG"):
            raise
        shown = errors.explain(error)
        output.error(shown.message, shown.hint)
        return shown.exit_code
    return result if isinstance(result, int) else errors.OK


def threading_main() -> bool:
    """Whether this is the main thread, the only one that may handle signals."""
    import threading

    return threading.current_thread() is threading.main_thread()


def _terminate(signal_number: int, frame: object) -> NoReturn:
    raise errors.Terminated
