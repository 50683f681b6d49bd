"""The options of a build that a plugin names by a string, read from its source: nothing of it is imported.

A layer's module imports torch, which takes seconds. Whoever completes a word in a shell has no such time.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from poolzoo.plugin import grammar

RESERVED: Final = ("map_size", "image_size", "local_pool", "pretrained")


class Written(NamedTuple):
    """An option as a signature writes it: its name, its default as users type it, and the values of a closed set."""

    name: str
    default: str
    choices: tuple[str, ...] = ()


def written_options(build: Callable[..., Any] | str) -> list[Written]:
    """The options of a build, as far as its source says them; none where it cannot be read."""
    if not isinstance(build, str):
        return [
            Written(one.name, grammar.plain(one.default), _choices(one.type_name)) for one in grammar.options_of(build)
        ]
    module, _, attribute = build.partition(":")
    try:
        place = importlib.util.find_spec(module)
        if place is None or place.origin is None:
            return []
        with open(place.origin, encoding="utf-8") as file:  # pathlib would be imported by every `--help`
            tree = ast.parse(file.read())
    except (ImportError, OSError, SyntaxError, ValueError):
        return []
    found = _function(tree, attribute)
    if found is None:
        return []
    return [
        Written(argument.arg, _default(default), _choices(_annotation(tree, argument)))
        for argument, default in zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True)
        if default is not None and argument.arg not in RESERVED
    ]


def _function(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    """A function of a module, or the `__init__` of a class there or of the base that it inherits it from."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.ClassDef) and node.name == name:
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                    return inner
            bases = (base.id for base in node.bases if isinstance(base, ast.Name))
            return next((found for base in bases if (found := _function(tree, base)) is not None), None)
    made = _assigned(tree, name)  # such as `local_lse = local_build(LocalLSE)`
    wrapped = made.args[0] if isinstance(made, ast.Call) and len(made.args) == 1 else None
    return _function(tree, wrapped.id) if isinstance(wrapped, ast.Name) and wrapped.id != name else None


def _assigned(tree: ast.Module, name: str) -> ast.expr | None:
    """What a module assigns to a name."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            return node.value
    return None


def _annotation(tree: ast.Module, argument: ast.arg) -> str:
    """The type of an argument, as source; a name that the module gives to a type is followed."""
    kind = argument.annotation
    if isinstance(kind, ast.Name):
        kind = _assigned(tree, kind.id) or kind
    return "" if kind is None else ast.unparse(kind)


def _default(node: ast.expr) -> str:
    try:
        return grammar.plain(ast.literal_eval(node))
    except ValueError:  # a name, such as that of a constant
        return ""


def _choices(kind: str) -> tuple[str, ...]:
    """The values of a type that has few of them, from its annotation or its name."""
    if kind in ("bool", "true|false"):
        return ("true", "false")
    if kind.startswith("Literal["):
        return tuple(str(ast.literal_eval(part)) for part in kind[len("Literal[") : -1].split(", "))
    return tuple(kind.split("|")) if "|" in kind and " " not in kind else ()
