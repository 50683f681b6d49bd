"""What a plugin's source says of it, without running a line of it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from poolzoo.plugin import grammar, spec
from poolzoo.plugin.discovery import Candidate, source_file
from poolzoo.plugin.events import EVENTS
from poolzoo.plugin.registration import HOOKS


@dataclass(frozen=True)
class Inspection:
    """The hooks that a plugin's source defines, and the first thing that is plainly wrong with it, or ""."""

    hooks: tuple[str, ...]
    problem: str


def inspect(candidate: Candidate) -> Inspection:
    """Reads a plugin's source."""
    source = source_file(candidate)
    if source is None:
        return Inspection((), f"its module {candidate.module!r} is not there")
    try:
        with open(source, "rb") as file:
            tree = ast.parse(file.read(), source)
    except OSError as error:
        return Inspection((), f"cannot be read: {error.strerror}")
    except (SyntaxError, ValueError) as error:
        return Inspection((), f"is not Python: {error}")
    hooks = tuple(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and any(_is_hookimpl(decorator) for decorator in node.decorator_list)
    )
    return Inspection(hooks, _wrong_version(tree) or _misspelled(hooks))


def _is_hookimpl(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")) == "hookimpl"


def _wrong_version(tree: ast.Module) -> str:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "POOLZOO_API" for t in node.targets):
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if isinstance(value, int) and value > spec.API_VERSION:
                return f"is made for version {value} of the plugin API, this poolzoo has {spec.API_VERSION}"
    return ""


def _misspelled(hooks: tuple[str, ...]) -> str:
    known = (*HOOKS, *EVENTS)
    wrong = next((name for name in hooks if name not in known), None)
    return f"there is no hook {wrong!r}; {grammar.suggest(wrong, known)}".rstrip("; ") if wrong else ""
