"""What a commit checks is what CI checks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_hooks_of_a_commit_are_the_commands_of_make_lint():
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlint: ")[1].split("\n\n")[0]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    commands = re.findall(r"^\t\$\(BIN\)/(.+)$", recipe, re.MULTILINE)
    assert commands
    assert re.findall(r"^ +entry: (.+)$", hooks, re.MULTILINE) == commands


def test_ci_runs_the_tests_and_the_linters():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert {"make test", "make lint"} <= {*lines}
