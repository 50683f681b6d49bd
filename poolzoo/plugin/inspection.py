"""What can be told of a plugin from its source, without running a line of it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from poolzoo.plugin import grammar, spec
from poolzoo.plugin.catalog import EVENTS
from poolzoo.plugin.discovery import Candidate, source_file
from poolzoo.plugin.loader import HOOKS


@dataclass(frozen=True)
class Look:
    """The hooks that a plugin's source defines, and the first thing that is plainly wrong with it, or ""."""

    hooks: tuple[str, ...]
    problem: str


def look(candidate: Candidate) -> Look:
    """Reads a plugin's source."""
    source = source_file(candidate)
    if source is None:
        return Look((), f"its module {candidate.module!r} is not there")
    try:
        with open(source, "rb") as file:
            tree = ast.parse(file.read(), source)
    except OSError as error:
        return Look((), f"cannot be read: {error.strerror}")
    except (SyntaxError, ValueError) as error:
        return Look((), f"is no Python: {error}")
    hooks = tuple(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and any(_is_hookimpl(decorator) for decorator in node.decorator_list)
    )
    return Look(hooks, _wrong_version(tree) or _misspelt(hooks))


def _is_hookimpl(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")) == "hookimpl"


def _wrong_version(tree: ast.Module) -> str:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "POOLZOO_API" for t in node.targets):
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if isinstance(value, int) and value > spec.API_VERSION:
                return f"is made for version {value} of the plugin API, this poolzoo speaks {spec.API_VERSION}"
    return ""


def _misspelt(hooks: tuple[str, ...]) -> str:
    known = (*HOOKS, *EVENTS)
    wrong = next((name for name in hooks if name not in known), None)
    return f"there is no hook {wrong!r}; {grammar.suggest(wrong, known)}".rstrip("; ") if wrong else ""
