"""The types of options that are numbers: those of click, without what Python reads besides, such as `1_0` for ten."""

from __future__ import annotations

from typing import Any, Final

import click
from click.types import FloatParamType, IntParamType

from poolzoo.common import numerals

MAX_THREADS: Final = 1024  # each takes memory, and a million end the process

Parameter = click.Parameter | None
Context = click.Context | None


class Int(IntParamType):
    """Any whole number."""

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        return super().convert(_whole(self, value, param, ctx), param, ctx)


class IntRange(click.IntRange):
    """A whole number in a range."""

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        return super().convert(_whole(self, value, param, ctx), param, ctx)


class Float(FloatParamType):
    """Any number."""

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        return super().convert(_real(self, value, param, ctx), param, ctx)


class FloatRange(click.FloatRange):
    """A number in a range."""

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        return super().convert(_real(self, value, param, ctx), param, ctx)


def _whole(kind: IntParamType, value: Any, param: Parameter, ctx: Context) -> Any:
    try:
        return numerals.whole(value) if isinstance(value, str) else value
    except ValueError:
        kind.fail(f"{value!r} is not a whole number", param, ctx)


def _real(kind: FloatParamType, value: Any, param: Parameter, ctx: Context) -> Any:
    try:
        return numerals.real(value) if isinstance(value, str) else value
    except ValueError:
        kind.fail(f"{value!r} is not a number", param, ctx)
