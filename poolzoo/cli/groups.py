"""Help that shows options by group and ends with examples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from shutil import get_terminal_size
from typing import Any, Final

import click

from poolzoo.common import streams
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
OWN: Final = ""  # options of a command that needs no groups
GENERAL: Final = "General"
NARROW: Final = 40  # columns below which options and their texts stand below one another
ORDER: Final = (
    OWN,
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


class ListOption(click.Option):
    """An option whose metavar may be a list, such as `NAME,…`: given several times, it is one list of all values."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        if not (self.metavar or "").endswith(",…"):
            super().add_to_parser(parser, ctx)
            return
        parser.add_option(obj=self, opts=self.opts, dest=self.name, action="append", nargs=1)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        return super().type_cast_value(ctx, ",".join(value) if isinstance(value, list) else value)


class GroupedOption(ListOption):
    """An option that knows the group in which the help of its command shows it."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


Decorator = Callable[[Any], Any]


def option(*names: str, group: str, **attributes: Any) -> Decorator:
    """`click.option` with a group."""
    return click.option(*names, cls=GroupedOption, group=group, **attributes)


class Formatter(click.HelpFormatter):
    """Writes help for any width: where a terminal is narrow, a text stands below its option."""

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Writes a list of terms and texts; a term that is too long breaks before its value."""
        room = self.width - self.current_indent
        broken = [(term if len(term) <= room else term.replace(" ", "\n" + " " * 6), text) for term, text in rows]
        super().write_dl(broken, 4 if self.width < NARROW else min(col_max, self.width // 3 + 4), col_spacing)


class Context(click.Context):
    """A context whose help has our form."""

    formatter_class = Formatter


def help_width() -> int:
    """The columns that help may take: those of the terminal or of COLUMNS, at most 78."""
    return max(min(streams.data_columns() or get_terminal_size((80, 24)).columns, 80) - 2, 10)


class GroupedCommand(click.Command):
    """A command whose help shows a section for each group of options, then its examples.

    Args:
        examples: Pairs of a description and a command line.
    """

    context_class = Context

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
                title = f"{group} options".strip().capitalize()
                with formatter.section(title if len(title) < formatter.width else group):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples, each command line whole, so that it can be copied."""
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[tuple[str, str]]) -> None:
    """Writes pairs of a description and a command line, which stays whole."""
    if not examples:
        return
    with formatter.section("Examples"):
        indent = " " * formatter.current_indent
        for description, line in examples:
            text = click.wrap_text(description, formatter.width, f"{indent}# ", f"{indent}# ")
            formatter.write(f"{text}\n{indent}{line}\n")


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
    """The group of an option; `GENERAL` for options that every command has, which no command gets as a value."""
    if isinstance(option, GroupedOption):
        return option.group
    return OWN if option.expose_value else GENERAL
