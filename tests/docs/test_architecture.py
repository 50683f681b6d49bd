"""docs/architecture.md says what the tree is: its rooms, their order, and where things go."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "poolzoo"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())


def table() -> list[list[str]]:
    """The rooms of the first table, a list a row, from the top."""
    first = PAGE.split("| room |")[1].split("\n\n")[0]
    return [re.findall(r"`(\w+)`", line.split("|")[1]) for line in first.splitlines()[2:]]


def imported(tree: ast.AST) -> Iterator[str]:
    """The rooms that a module imports, but for those that only type checkers import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("poolzoo."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "poolzoo":
            parts = str(node.module).split(".")
            yield from parts[1:2] or [name.name for name in node.names if name.name in ROOMS]
        yield from imported(node)


def test_the_table_lists_every_room_once():
    assert sorted(room for row in table() for room in row) == ROOMS
    assert len(ROOMS) <= 18


def test_few_modules_lie_outside_the_rooms():
    loose = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py", "_version.py"}
    assert len(loose) <= 4


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below(room):
    rows = table()
    level = next(number for number, row in enumerate(rows) if room in row)
    allowed = {room, *(name for row in rows[level + 1 :] for name in row)}
    for path in (PACKAGE / room).rglob("*.py"):
        found = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
        assert found - {"_version"} <= allowed, path


def test_the_import_contract_has_the_same_order():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    assert [sorted(re.findall(r"\w+", layer)) for layer in contract["layers"]] == [sorted(row) for row in table()]


def test_every_file_that_the_page_names_exists():
    for name in set(re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", PAGE)):
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), name


def test_every_module_that_the_page_names_exists():
    for name in set(re.findall(r"(?<![\w/])((?:plugin|model|data|train|export|common)\.[a-z_]+)", PAGE)):
        assert (PACKAGE / f"{name.replace('.', '/')}.py").is_file(), name


def test_every_room_has_tests_of_its_own():
    assert {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} >= set(ROOMS)
