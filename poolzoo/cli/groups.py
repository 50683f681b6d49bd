"""Help that shows options by group and ends with examples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import click

from poolzoo.common.errors import UsageError

DATA: Final = "Data"
MODEL: Final = "Model"
OPTIMIZATION: Final = "Optimization"
AUGMENTATION: Final = "Augmentation"
FREEZING: Final = "Freezing"
LOSS: Final = "Loss"
LENGTH: Final = "Length"
TEACHER: Final = "Teacher"
COMPARISON: Final = "Comparison"
GRAPH: Final = "Graph"
HARDWARE: Final = "Hardware"
OUTPUT: Final = "Output"
GENERAL: Final = "General"
ORDER: Final = (
    DATA,
    MODEL,
    COMPARISON,
    LENGTH,
    OPTIMIZATION,
    LOSS,
    TEACHER,
    AUGMENTATION,
    FREEZING,
    GRAPH,
    HARDWARE,
    OUTPUT,
    GENERAL,
)


class GroupedOption(click.Option):
    """An option that knows the group in which the help of its command shows it."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


Decorator = Callable[[Any], Any]


def option(*names: str, group: str, **attributes: Any) -> Decorator:
    """`click.option` with a group."""
    return click.option(*names, cls=GroupedOption, group=group, **attributes)


class GroupedCommand(click.Command):
    """A command whose help shows a section for each group of options, then its examples.

    Args:
        examples: Pairs of a description and a command line.
    """

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one section for each group, in the order of `ORDER`."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        for group in ORDER:
            records = [one.get_help_record(ctx) for one in options if group_of(one) == group]
            rows = [record for record in records if record is not None]
            if rows:
                with formatter.section(f"{group} options"):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples, each command line whole, so that it can be copied."""
        if self.examples:
            with formatter.section("Examples"):
                for description, line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}# {description}\n")
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        super().format_epilog(ctx, formatter)


def require_command(typed: str, known: Collection[str], program: str) -> None:
    """Makes sure that a command exists.

    Args:
        typed: The name that was typed.
        known: The names of the commands.
        program: What they are commands of, such as `poolzoo plugin`.

    Raises:
        UsageError: None is called so.
    """
    if typed in known:
        return
    from poolzoo.plugin.grammar import suggest

    near = suggest(typed, known, prefix=f"{program} ")
    listing = f"there are: {', '.join(known)}" if known else f"{program} --help"
    raise UsageError(f"{program} has no command {typed!r}", near or listing)


def group_of(option: click.Parameter) -> str:
    """The group of an option; `GENERAL` for options that every command has."""
    return option.group if isinstance(option, GroupedOption) else GENERAL
