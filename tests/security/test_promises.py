"""SECURITY.md promises what tests hold: each test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_every_promise_names_a_test_that_is_there():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 15
    for row in rows:
        (named,) = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        file, test = named
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, row
        assert "(slow)" in row or not is_slow(tree, test), row


def is_slow(tree: ast.Module, test: str) -> bool:
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == test)
    return any("slow" in ast.unparse(one) for one in found.decorator_list)


def test_the_command_that_it_names_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)`", PAGE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
