"""Whether a module can be imported is found without importing it, or what it lies in."""

from __future__ import annotations

import sys

import pytest

from poolzoo.plugin import modules


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("whole/inner/deep.py", "whole/inner/__init__.py", "whole/__init__.py", "bare/inside.py", "lone.py"):
        path = tmp_path / "modules" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise RuntimeError('imported')")
    (tmp_path / "modules" / "empty").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "modules")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", ["lone", "whole", "whole.inner", "whole.inner.deep", "bare.inside", "json.decoder"])
def test_a_module_is_found_and_not_imported(name):
    assert modules.is_module(name)
    assert {"lone", "whole", "bare"}.isdisjoint(sys.modules)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "name",
    ["absent", "absent.inner", "whole.absent", "whole.absent.deep", "lone.inner", "lone.inner.deep", "empty", ""],
)
def test_what_is_no_module_is_none(name):
    assert not modules.is_module(name)


def test_missing_modules_are_listed_in_order():
    assert modules.missing_of(["json", "no_such_b", "sys", "no_such_a"]) == ("no_such_b", "no_such_a")
    assert modules.missing_of([]) == ()
