"""The grammar `[DIST:]NAME[:KEY=VALUE{,KEY=VALUE}]`, and the options that a build's signature declares."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Sequence
from types import NoneType, UnionType
from typing import Any, NamedTuple

from poolzoo.common import numerals
from poolzoo.common.errors import UsageError


class Spec(NamedTuple):
    """A reference as the user typed it, taken apart but not looked up."""

    text: str
    name: str
    dist: str | None
    options: dict[str, str]


class Option(NamedTuple):
    """One keyword-only argument of a build: its name, its default and the types that it takes."""

    name: str
    default: Any
    types: tuple[Any, ...]

    @property
    def type_name(self) -> str:
        return " or ".join(_type_name(one) for one in self.types)


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(str(value) for value in typing.get_args(kind))
    if kind is bool or kind is NoneType:
        return "true|false" if kind is bool else "none"
    return str(getattr(kind, "__name__", None) or plain(kind))


def parse_spec(text: str) -> Spec:
    """Takes `gem:p=4,learnable=false` or `acme:gem:p=4` apart.

    Raises:
        UsageError: The text does not follow the grammar.
    """
    parts = text.split(":")
    options: dict[str, str] = {}
    if len(parts) > 1 and "=" in parts[-1]:
        for pair in parts.pop().split(","):
            key, equals, value = pair.partition("=")
            if not key or not equals:
                raise UsageError(
                    f"{pair!r} in {text!r} is not an option", "options are written NAME:KEY=VALUE,KEY=VALUE"
                )
            if key in options:
                raise UsageError(f"option {key!r} is given twice in {text!r}", "give each option once")
            options[key] = value
    if not all(parts) or len(parts) > 2 or not re.fullmatch(r"[\w./-]+", "".join(parts)):
        raise UsageError(f"cannot read {text!r}", "write NAME, NAME:KEY=VALUE, or DIST:NAME:KEY=VALUE")
    return Spec(text, parts[-1], parts[0] if len(parts) == 2 else None, options)


def suggest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`did you mean …?` for a misspelled word, else an empty string. `prefix` precedes each known word shown."""
    import difflib

    close = difflib.get_close_matches(word, sorted(set(known)), n=3, cutoff=0.65)
    return f"did you mean {' or '.join(prefix + one for one in close)}?" if close else ""


def options_of(
    build: Callable[..., Any], reserved: Sequence[str] = ("map_size", "image_size", "local_pool", "pretrained")
) -> list[Option]:
    """The options that `build` declares: its keyword-only arguments with a default that users may set."""
    try:
        hints = typing.get_type_hints(build.__init__ if inspect.isclass(build) else build)
    except Exception:  # a hint under TYPE_CHECKING cannot be evaluated; the default still tells the type
        hints = {}
    found = []
    for parameter in inspect.signature(build).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.name in reserved:
            continue
        if parameter.default is inspect.Parameter.empty:
            continue
        hint = hints.get(parameter.name, type(parameter.default))
        union = typing.get_origin(hint) in (typing.Union, UnionType)
        found.append(Option(parameter.name, parameter.default, typing.get_args(hint) if union else (hint,)))
    return found


def accepts(build: Callable[..., Any], name: str) -> bool:
    """Whether `build` names the parameter `name`."""
    parameter = inspect.signature(build).parameters.get(name)
    return parameter is not None and parameter.kind is not inspect.Parameter.VAR_POSITIONAL


def takes_anything(build: Callable[..., Any]) -> bool:
    """Whether `build` passes unnamed keyword arguments on (`**options`)."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(build).parameters.values())


def convert(option: Option, text: str) -> Any:
    """The value of `option` that `text` stands for.

    Raises:
        UsageError: The text is no value of the option's type.
    """
    for kind in option.types:
        try:
            return _convert(kind, text)
        except ValueError:
            continue
    raise UsageError(
        f"{option.name}={text} is not {option.type_name}", f"the default is {option.name}={plain(option.default)}"
    )


def _convert(kind: Any, text: str) -> Any:
    word = text.lower()
    if kind is bool:
        if word in ("true", "yes", "1", "false", "no", "0"):
            return word in ("true", "yes", "1")
        raise ValueError(text)
    if kind is NoneType:
        if word == "none":
            return None
        raise ValueError(text)
    if typing.get_origin(kind) is typing.Literal:
        for value in typing.get_args(kind):
            if str(value) == text:
                return value
        raise ValueError(text)
    if kind in (int, float):
        return numerals.whole(text) if kind is int else numerals.real(text)
    return text


def plain(value: Any) -> str:
    """A value as it would be typed in a spec; its type where it cannot be."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    try:
        return str(value)
    except Exception:  # a default of a class of the plugin's own
        return f"({type(value).__name__})"


def guess(text: str) -> Any:
    """The value of an option whose type nobody stated: true/false, none, a number, or the text itself."""
    for read in (numerals.whole, numerals.real):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def read_options(owner: str, build: Callable[..., Any], given: dict[str, str]) -> dict[str, Any]:
    """The keyword arguments for `build` that the typed options stand for.

    Raises:
        UsageError: An option is unknown or its value does not fit.
    """
    known = {option.name: option for option in options_of(build)}
    values: dict[str, Any] = {}
    for key, text in given.items():
        if key in known:
            values[key] = convert(known[key], text)
        elif takes_anything(build):
            values[key] = guess(text)
        else:
            listing = ", ".join(f"{o.name}={plain(o.default)}" for o in known.values()) or "none"
            near = suggest(key, known)
            raise UsageError(f"{owner} has no option {key!r} (its options: {listing})", near or "leave it out")
    return values
