"""Parsed JSON held against types: one check for every schema, which names the place of what is wrong.

A schema is a `TypedDict`, a dataclass, or any type made of these, `list`, `tuple`, `dict`, `Literal`, unions and plain
types. An integer is a float too; a boolean is neither. Numbers are finite, and texts are text that a file can hold.
"""

from __future__ import annotations

import inspect
import math
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, TypeVar

from poolzoo.common.errors import CheckFailed
from poolzoo.common.text import one_line

T = TypeVar("T")
SHOWN: Final = 40  # characters of an odd value that a message shows
MAX_INTEGER: Final = 1 << 63  # beyond it no array and no file holds an integer
NAMES: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "null",
}


def require(
    value: object, kind: type[T], source: Path | str, hint: str = "make the directory again", *, partial: bool = False
) -> T:
    """The value, if it has the type.

    Args:
        value: Parsed JSON, or a dataclass.
        kind: Its schema.
        source: The file, for messages.
        hint: What there is to do.
        partial: Whether any key may be missing.

    Raises:
        CheckFailed: It has another type somewhere; says where.
    """
    if found := problem(value, kind, partial=partial):
        raise CheckFailed(f"{source} is damaged: {found}", hint)
    return value  # type: ignore[return-value]


def problem(value: object, kind: Any, place: str = "", *, partial: bool = False) -> str:
    """What is wrong with a value, such as `poolzoo.data_size[1] is "x", not a whole number`; "" for nothing.

    Args:
        value: Parsed JSON, or a dataclass.
        kind: The type that it should have.
        place: Where it stands.
        partial: Whether any key may be missing.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object):
        return ""
    if origin in (typing.Union, UnionType):
        problems = [problem(value, one, place, partial=partial) for one in inner]
        deeper = (text for text in problems if text.startswith((f"{place}.", f"{place}[")))
        return "" if "" in problems else next(deeper, _wrong(value, kind, place))
    if origin is typing.Literal:
        return "" if value in inner and isinstance(value, tuple(map(type, inner))) else _wrong(value, kind, place)
    if origin in (typing.Required, typing.NotRequired, typing.Final):
        return problem(value, inner[0], place, partial=partial)
    if typing.is_typeddict(kind) or is_dataclass(kind):
        return _object(value, kind, place, partial)
    if origin in (list, tuple, Sequence, Iterable):
        return _array(value, origin, inner, place, partial)
    if origin in (dict, Mapping):
        return _table(value, inner, place, partial)
    return "" if _is_plain(value, kind) else _wrong(value, kind, place)


def _is_plain(value: object, kind: Any) -> bool:
    if kind is float:
        return _is_plain(value, int) or (isinstance(value, float) and math.isfinite(value))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and -MAX_INTEGER <= value < MAX_INTEGER
    if kind is str:
        return isinstance(value, str) and _is_text(value)
    return isinstance(value, kind)


def _is_text(value: str) -> bool:
    """Whether UTF-8 holds it: JSON may have half of a surrogate pair."""
    if value.isascii():
        return True
    try:
        return bool(value.encode())
    except UnicodeEncodeError:
        return False


def _object(value: object, kind: Any, place: str, partial: bool) -> str:
    if is_dataclass(kind):
        if not isinstance(value, typing.cast(type, kind)):
            return _wrong(value, kind, place)
        found: Mapping[str, object] = {one.name: getattr(value, one.name) for one in fields(kind)}
    elif isinstance(value, Mapping):
        found = value
    else:
        return _wrong(value, kind, place)
    for name, (part, required) in _hints(kind).items():
        if name not in found and required and not partial:
            return f"{_inside(place, name)} is missing"
        if name in found and (text := problem(found[name], part, _inside(place, name), partial=partial)):
            return text
    return ""


def _array(value: object, origin: Any, inner: tuple[Any, ...], place: str, partial: bool) -> str:
    if not isinstance(value, list | tuple):
        return f"{place or 'it'} is {shown(value)}, not a list"
    kinds = inner if origin is tuple and inner[-1] is not ... else (inner[0],) * len(value)
    if len(kinds) != len(value):
        return f"{place or 'it'} has {len(value)} items, not {len(kinds)}"
    pairs = enumerate(zip(value, kinds, strict=True))
    found = (problem(one, part, f"{place}[{at}]", partial=partial) for at, (one, part) in pairs)
    return next(filter(None, found), "")


def _table(value: object, inner: tuple[Any, ...], place: str, partial: bool) -> str:
    if not isinstance(value, Mapping):
        return f"{place or 'it'} is {shown(value)}, not an object"
    for name, one in value.items():
        if text := problem(one, inner[1], _inside(place, str(name)), partial=partial):
            return text
        if inner[0] is str and not _is_plain(name, str):
            return f"{place or 'it'} has a name that is no text"
    return ""


def _inside(place: str, name: str) -> str:
    name = one_line(name, SHOWN)
    return f"{place}.{name}" if place else name


def _wrong(value: object, kind: Any, place: str) -> str:
    return f"{place or 'it'} is {shown(value)}, not {_name(kind)}"


def _name(kind: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, UnionType):
        return " or ".join(_name(one) for one in inner)
    if origin is typing.Literal:
        return " or ".join(map(str, inner))
    if origin in (list, tuple, Sequence, Iterable):
        return "a list"
    return NAMES.get(kind, "an object")


def shown(value: object) -> str:
    """An odd value in a message: short, and whatever it is."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return "a number without end"
    return one_line(repr(value), SHOWN)


def field_problem(value: object, owner: Any, name: str) -> str:
    """What is wrong with the value of one field of a dataclass or `TypedDict`; "" for nothing."""
    return problem(value, _hints(owner)[name][0], name)


class _Names(dict[str, Any]):
    """Names that annotations may use; what is imported for type checkers alone stands for anything."""

    def __missing__(self, name: str) -> Any:
        if hasattr(typing, name):
            return getattr(typing, name)
        builtins = vars(sys.modules["builtins"])
        return builtins.get(name, object)


@cache
def _hints(kind: Any) -> dict[str, tuple[Any, bool]]:
    """The types of the keys or fields by name, and whether they must be there.

    `__required_keys__` of a `TypedDict` takes an annotation that is a text for required, whatever it says.
    """
    required = kind.__required_keys__ if typing.is_typeddict(kind) else frozenset[str]()
    found: dict[str, tuple[Any, bool]] = {}
    for base in reversed(typing.cast(type, kind).__mro__ if is_dataclass(kind) else [kind]):
        names = _Names(vars(sys.modules[base.__module__]))
        for name, annotation in inspect.get_annotations(base).items():
            text = annotation.__forward_arg__ if isinstance(annotation, typing.ForwardRef) else annotation
            part = eval(text, {}, names) if isinstance(text, str) else text  # our own annotations
            found[name] = part, name in required and typing.get_origin(part) is not typing.NotRequired
    return {one.name: found[one.name] for one in fields(kind)} if is_dataclass(kind) else found
