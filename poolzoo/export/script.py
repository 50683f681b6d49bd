"""The `predict.py` of a bundle: the standalone script with the code that it uses of poolzoo.data written into it."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Final

from poolzoo.common import opening
from poolzoo.data import images, jpeg, modes, resize, sizes
from poolzoo.export import standalone

Statement = tuple[ast.stmt, str]  # a top-level statement, and its text with the comments before it
IMPORTS: Final = (ast.Import, ast.ImportFrom)
DEFINITIONS: Final = (ast.FunctionDef, ast.ClassDef)
MODULES: Final = (
    opening,
    sizes,
    resize,
    modes,
    jpeg,
    images,
)  # whose code the script uses, in the order of their imports


def render() -> str:
    """The text of the script, which needs onnxruntime, numpy and Pillow, and not poolzoo."""
    docstring, *template = _statements(standalone)
    shared = [statement for module in MODULES for statement in _statements(module)]
    wanted = {name for statement, _ in template for name in _used(statement)}
    kept: list[Statement] = []
    while True:  # a statement that is kept may use others
        more = [one for one in shared if not isinstance(one[0], IMPORTS) and _defined(one[0]) & wanted]
        if len(more) == len(kept):
            break
        kept = more
        wanted.update(*(_used(statement) for statement, _ in kept))
    rest = [one for one in template if not isinstance(one[0], IMPORTS)]
    imports = _imports([statement for statement, _ in (*template, *shared)], wanted | {"annotations"})
    return "\n".join([docstring[1], *imports, *_spaced([*kept, *rest])]) + "\n"


def _spaced(statements: Sequence[Statement]) -> Iterator[str]:
    """Texts of statements with two blank lines around functions and classes, and at most one elsewhere."""
    previous: ast.stmt | None = None
    for statement, text in statements:
        apart = any(isinstance(one, DEFINITIONS) for one in (statement, previous))
        yield ("\n\n" if apart else "\n" if text[:1] in ("", "\n") or previous is None else "") + text.lstrip("\n")
        previous = statement


def _imports(statements: Iterable[ast.stmt], wanted: set[str]) -> list[str]:
    """The import lines of the wanted names from outside of poolzoo, one for each module."""
    whole: set[str] = set()
    names: dict[str, set[str]] = {}
    for statement in statements:
        if not isinstance(statement, IMPORTS) or _module(statement).startswith("poolzoo."):
            continue
        used = [ast.unparse(alias) for alias in statement.names if (alias.asname or alias.name) in wanted]
        if isinstance(statement, ast.Import):
            whole |= {f"import {name}" for name in used}
        elif used:
            names.setdefault(_module(statement), set()).update(used)
    return _sorted(whole | {f"from {module} import {', '.join(_by_kind(taken))}" for module, taken in names.items()})


def _by_kind(names: set[str]) -> list[str]:
    """Names in the order of an import sorter: constants, classes, functions."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


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
    """Import lines in the order of an import sorter: `__future__`, standard library, others."""
    ordered = sorted(imports, key=lambda line: (line.startswith("from"), line.lower()))
    groups: tuple[list[str], ...] = ([""], [""], [""])
    for line in ordered:
        top = line.split()[1].partition(".")[0]
        groups[0 if top == "__future__" else 1 if top in sys.stdlib_module_names else 2].append(line)
    return [line for group in groups for line in group]
