"""The `predict.py` that a bundle carries: the stand-alone script, with the transform of training written into it."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Final

from poolzoo.data import images
from poolzoo.deploy import standalone

Statement = tuple[ast.stmt, str]  # one at the top level of a module, and its text with the comments before it
IMPORTS: Final = (ast.Import, ast.ImportFrom)


def source() -> str:
    """One file that needs onnxruntime, numpy and Pillow, and nothing of poolzoo."""
    docstring, *template = _statements(standalone)
    shared = list(_statements(images))
    wanted = {name for statement, _ in template for name in _used(statement)}
    kept: list[Statement] = []
    for statement, text in reversed(shared):  # a definition comes before what uses it
        if not isinstance(statement, IMPORTS) and _defined(statement) & wanted:
            kept.insert(0, (statement, text))
            wanted |= _used(statement)
    imports = {
        ast.unparse(statement)
        for statement, _ in (*template, *shared)
        if isinstance(statement, IMPORTS)
        and _module(statement) != images.__name__
        and _defined(statement) & (wanted | {"annotations"})
    }
    rest = [text for statement, text in template if not isinstance(statement, IMPORTS)]
    return "\n".join([docstring[1], *_sorted(imports), *(text for _, text in kept), "", *rest]) + "\n"


def _statements(module: ModuleType) -> Iterator[Statement]:
    text, end = inspect.getsource(module).splitlines(), 0
    for statement in ast.parse("\n".join(text)).body:
        assert statement.end_lineno is not None
        yield statement, "\n".join(text[end : statement.end_lineno])
        end = statement.end_lineno


def _defined(statement: ast.stmt) -> set[str]:
    """The names that a statement binds."""
    if isinstance(statement, IMPORTS):
        return {alias.asname or alias.name for alias in statement.names}
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _used(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _module(statement: ast.Import | ast.ImportFrom) -> str:
    return (statement.module or "") if isinstance(statement, ast.ImportFrom) else statement.names[0].name


def _sorted(imports: set[str]) -> list[str]:
    """The future's first, then the standard library's, then the others'; modules before names from modules."""
    ordered = sorted(imports, key=lambda line: (line.startswith("from"), line.lower()))
    groups: tuple[list[str], ...] = ([""], [""], [""])
    for line in ordered:
        top = line.split()[1].partition(".")[0]
        groups[0 if top == "__future__" else 1 if top in sys.stdlib_module_names else 2].append(line)
    return [line for group in groups for line in group]
