"""A Python file of a user is imported as it is now."""

from __future__ import annotations

import os
import sys

import pytest

from poolzoo.common import python_file


def test_a_file_that_changes_within_a_second_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "mine.py"
    seen = []
    for name in ("old", "new"):  # of one size
        path.write_text(f"NAME = {name!r}\n")
        os.utime(path, (1e9, 1e9))
        seen.append(python_file.load("mine_of_the_test", str(path)).NAME)
    assert seen == ["old", "new"]
    assert [one.name for one in tmp_path.iterdir()] == ["mine.py"]
    del sys.modules["mine_of_the_test"]


def test_bytecode_beside_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "mine.py"
    path.write_text("NAME = 'it'\n")
    cached = tmp_path / "__pycache__" / f"mine.{sys.implementation.cache_tag}.pyc"
    cached.parent.mkdir()
    cached.write_bytes(b"no bytecode")
    assert python_file.load("mine_of_the_test", str(path)).NAME == "it"
    assert cached.read_bytes() == b"no bytecode"
    del sys.modules["mine_of_the_test"]


def test_what_does_not_import_leaves_no_module(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        python_file.load("mine_of_the_test", str(path))
    with pytest.raises(ImportError, match=r"mine\.txt is not a Python file"):
        python_file.load("mine_of_the_test", str(tmp_path / "mine.txt"))
    assert "mine_of_the_test" not in sys.modules
