"""The types of options that are numbers: those of click, without what Python reads besides, such as `1_0` for ten."""

from __future__ import annotations

from typing import Any, Final

import click

from poolzoo.common import numerals


MAX_THREADS: Final = 1024  # each takes memory, and a million end the process


class _Plain(click.ParamType):
    """Takes plain numbers alone; the type of click behind it looks at their range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str):
            read = numerals.whole if isinstance(self, click.types.IntParamType) else numerals.real
            try:
                value = read(value)
            except ValueError:
                self.fail(f"{value!r} is not a {'whole number' if read is numerals.whole else 'number'}", param, ctx)
        return super().convert(value, param, ctx)


class Int(_Plain, click.types.IntParamType):
    """Any whole number."""


class Float(_Plain, click.types.FloatParamType):
    """Any number."""


class IntRange(_Plain, click.IntRange):
    """A whole number in a range."""


class FloatRange(_Plain, click.FloatRange):
    """A number in a range."""
