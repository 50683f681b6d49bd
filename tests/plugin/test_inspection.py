"""What a plugin's source says without being run: its hooks, and why it would not load."""

from __future__ import annotations

import pytest

from poolzoo.plugin import inspection
from poolzoo.plugin.discovery import Candidate
from poolzoo.plugin.problems import Source

HOOKS = """
import poolzoo
from poolzoo import hookimpl

@hookimpl
def poolzoo_poolings(): ...

class Listener:
    @poolzoo.hookimpl(trylast=True)
    def poolzoo_exported(self, bundle): ...

@other
def helper(): ...
"""


def inspected(path: object) -> tuple[tuple[str, ...], str]:
    source = Source("mine", None, "file", None if path is None else str(path))
    found = inspection.inspect(Candidate("mine", source, load=lambda: None, module="no_such_module"))
    return found.hooks, found.problem


@pytest.mark.parametrize(
    ("text", "hooks", "problem"),
    [
        (HOOKS, ("poolzoo_poolings", "poolzoo_exported"), ""),
        ("POOLZOO_API = 1", (), ""),
        ("POOLZOO_API = 99", (), "is made for version 99 of the plugin API, this poolzoo has 1"),
        ("A = POOLZOO_API = 2", (), "is made for version 2 of the plugin API, this poolzoo has 1"),
        ("POOLZOO_API = compute()", (), ""),
        ("OTHER = 99", (), ""),
        ("a.b = c[0] = 1\nPOOLZOO_API = 99", (), "is made for version 99 of the plugin API"),
        ("@decorators[0]\n@make().it\ndef f(): ...", (), ""),
        ("def f(:", (), "is not Python: "),
        ("a = '\0'", (), "is not Python: "),
    ],
)
def test_hooks_and_faults_are_read_from_the_source(tmp_path, text, hooks, problem):
    (tmp_path / "mine.py").write_text(text)
    found, said = inspected(tmp_path / "mine.py")
    assert found == hooks
    assert said.startswith(problem)
    assert bool(said) == bool(problem)
    assert ("mine.py" in said) == ("invalid" in said)


def test_a_misspelled_hook_gets_a_suggestion(tmp_path):
    for name, says in (
        ("poolzoo_pooling", "there is no hook 'poolzoo_pooling'; did you mean poolzoo_poolings?"),
        ("zzz", "there is no hook 'zzz'"),
    ):
        (tmp_path / "mine.py").write_text(f"@hookimpl\ndef {name}(): ...")
        assert inspected(tmp_path / "mine.py") == ((name,), says)


def test_a_source_that_is_not_there_is_said(tmp_path):
    assert inspected(None) == ((), "its module 'no_such_module' is not there")
    assert inspected(tmp_path / "absent.py") == ((), "cannot be read: No such file or directory")
