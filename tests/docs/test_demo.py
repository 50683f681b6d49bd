"""`make demo` is one script: its commands parse, and the Python in it runs."""

from __future__ import annotations

import re
import shlex
import sys

from PIL import Image
from support.command_lines import ROOT, parse

SCRIPT = (ROOT / "demo.sh").read_text(encoding="utf-8")


def test_its_commands_parse():
    lines = [line.removeprefix("run ") for line in SCRIPT.splitlines() if line.startswith("run ")]
    assert len(lines) == 4
    for line in lines:
        parse(shlex.split(line.replace("$place", "demo")))


def test_its_python_writes_an_image(tmp_path, monkeypatch):
    code = re.search(r"<<'PYTHON'\n(.*?)^PYTHON$", SCRIPT, re.MULTILINE | re.DOTALL)
    assert code is not None
    monkeypatch.setattr(sys, "argv", ["-", str(tmp_path / "seven.png")])
    exec(compile(code[1], "demo.sh", "exec"), {})
    with Image.open(tmp_path / "seven.png") as image:
        assert image.size == (8, 8)
