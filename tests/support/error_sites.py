"""Where poolzoo makes its errors, read from its source, and which of these places some work has reached."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

import pytest

from poolzoo.common.errors import PoolzooError

PACKAGE = Path(sys.modules["poolzoo"].__path__[0])
ROOT_CLASSES = frozenset({"PoolzooError", "ClickException", "UsageError", "BadParameter", "NoSuchOption"})


@dataclass(frozen=True)
class Site:
    """A call in the source that makes an error.

    Attributes:
        file: The file, relative to the package.
        function: The function that the call stands in; "" at module level.
        line: The line of the call, from 1.
        column: The column of the call, from 0.
        text: The call, as source.
    """

    file: str
    function: str
    line: int
    column: int
    text: str

    @property
    def key(self) -> str:
        """A name that survives changes of other lines."""
        return f"{self.file} {self.function}: {self.text}"

    def __str__(self) -> str:
        return f"poolzoo/{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Made:
    """An error that was made while somebody looked: where, and what it says."""

    site: Site
    error: PoolzooError


def _base_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


@cache
def _trees() -> dict[str, ast.Module]:
    files = sorted(path for path in PACKAGE.rglob("*.py") if "templates" not in path.parts)
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in files}


@cache
def error_classes() -> frozenset[str]:
    """The names of the error class of the program and of all that derive from it, and of those of click."""
    classes = [node for tree in _trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found = set(ROOT_CLASSES)
    while more := {one.name for one in classes if {_base_name(base) for base in one.bases} & found} - found:
        found |= more
    return frozenset(found - {"GroupedOption"})


@cache
def sites() -> dict[tuple[str, int, int], Site]:
    """Every place that makes an error, by file, line and column."""
    found = {}
    for file, tree in _trees().items():
        for site in _sites_in(file, tree, ""):
            found[file, site.line, site.column] = site
    return found


def _sites_in(file: str, node: ast.AST, function: str) -> Iterator[Site]:
    for child in ast.iter_child_nodes(node):
        inner = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
        if isinstance(child, ast.Call) and _base_name(child.func) in error_classes():
            yield Site(file, function, child.lineno, child.col_offset, ast.unparse(child))
        yield from _sites_in(file, child, inner)


@contextmanager
def recorded() -> Iterator[list[Made]]:
    """Within it, every error that this process makes at one of the places is kept, raised or not."""
    made: list[Made] = []
    plain = PoolzooError.__init__

    def record(self: PoolzooError, message: str, hint: str = "") -> None:
        plain(self, message, hint)
        if (site := _site_of(sys._getframe(1), self)) is not None:
            made.append(Made(site, self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PoolzooError, "__init__", record)
        yield made


def _site_of(frame: FrameType | None, error: PoolzooError) -> Site | None:
    """The place of the call that made an error: the first frame outside of its own constructors."""
    while frame is not None and frame.f_code.co_name == "__init__" and frame.f_locals.get("self") is error:
        frame = frame.f_back
    if frame is None or not frame.f_code.co_filename.startswith(str(PACKAGE)):
        return None
    line, _, column, _ = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    file = Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix()
    return sites().get((file, line or 0, column or 0))
