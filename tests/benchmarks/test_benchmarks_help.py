"""Every benchmark says how it is run: its docstring holds the command, and `--help` answers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A script for an environment of its own, without poolzoo.
ELSEWHERE = {"benchmarks.export.optimum_onnx"}
NAMES = sorted(
    name
    for file in (ROOT / "benchmarks").rglob("*.py")
    if "\ndef main()" in file.read_text(encoding="utf-8")
    and (name := ".".join(file.relative_to(ROOT).with_suffix("").parts)) not in ELSEWHERE
)


def test_there_are_benchmarks():
    assert len(NAMES) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_how_it_is_run(name, monkeypatch, capsys):
    module = importlib.import_module(name)
    assert f"python -m {name.removesuffix('.__main__')}" in module.__doc__
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")
