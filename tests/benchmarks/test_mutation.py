"""Mutants change one place of one function, and the function does what its mutant says."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mutmut")
SOURCE = '''
"""A module."""
import functools

LIMIT = 3


class Kept:
    @property
    def double(self) -> int:
        return self.count * 2


@functools.cache
def least(a: int, b: int = 1) -> int:
    if a < b:
        return a
    return min(b, LIMIT)


def refuse(name):
    raise ValueError("no such thing", name)


def say(output, name):
    output.warn(f"there is no {name.strip()} here", "look elsewhere")
    output.record["file name"] = Failed(name) or f"{name}:{name}"
'''


@pytest.fixture
def module(tmp_path: Path):
    path = tmp_path / "planted.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("planted", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_mutants_of_a_file_are_small_changes_inside_functions(module):
    from benchmarks.mutation.mutants import mutants_of

    found, _ = mutants_of(Path(module.__file__))
    changes = {(one.function, one.before, one.after) for one in found}
    assert ("Kept.double", "self.count * 2", "self.count / 2") in changes
    assert ("least", "a < b", "a <= b") in changes or ("least", "< b", "<= b") in changes
    assert {one.function for one in found} == {"Kept.double", "least", "say"}
    assert not [one for one in found if one.line in (5, 9, 14, 15)]  # constants, decorators, defaults


def test_text_for_people_is_no_mutant_but_counted(module):
    from benchmarks.mutation.mutants import mutants_of

    found, texts = mutants_of(Path(module.__file__))
    changes = {one.after for one in found if one.function == "say"}
    assert 'output.record["file name"] = None' in changes
    assert any(one in ("and", 'Failed(name) and f"{name}:{name}"') for one in changes)
    assert not [one for one in changes if "warn" in one or "strip" in one or "Failed(None)" in one]
    assert texts > 6  # in the message of each function


def test_a_function_gets_the_code_of_its_mutant(module):
    from benchmarks.mutation.mutants import mutants_of

    found, _ = mutants_of(Path(module.__file__))
    times = next(one for one in found if one.after == "self.count / 2")
    kept = module.Kept()
    kept.count = 3
    assert kept.double == 6
    module.Kept.double.fget.__code__ = times.code()
    assert kept.double == 1.5
    (strict,) = (one for one in found if one.function == "least" and one.after.startswith(("a <=", "<=")))
    module.least.__wrapped__.__code__ = strict.code()
    assert module.least(1, 1) == 1
    assert strict.line in strict.lines


COUNTING = """
def counted(n):
    i = 0
    while i < n:
        i += 1
    return i


def said(n):
    return "many" if n > 2 else "few"


def unused(n):
    return n + 1
"""
TESTS = {  # two files in one folder and one in another: each folder is entered several times
    "one/test_counting.py": """
import counting

def test_it_counts():
    assert counting.counted(3) == 3
""",
    "one/test_nothing.py": """
def test_nothing(): ...
""",
    "two/test_saying.py": """
import counting

def test_it_says_how_many():
    assert counting.said(9) == "many"
""",
}
DRIVER = """
import json, sys
from pathlib import Path

import pytest
from benchmarks.mutation.mutants import mutants_of
from benchmarks.mutation.session import MutationSession

found, _ = mutants_of(Path("counting.py"))
results = open("results", "a", buffering=1)
report = lambda one: results.write(json.dumps(one.to_json()) + chr(10))
session = MutationSession(found, [Path()], seconds=5, jobs=2, report=report)
pytest.main(["-q", "-p", "no:cacheprovider", "one", "two"], plugins=[session])
assert not session.unfit
"""


@pytest.mark.slow
def test_mutants_are_tried_in_forks_and_loops_without_end_are_ended(tmp_path: Path):
    """Each has a verdict: what a test notices, what never ends, what no test looks at, what no test executes."""
    (tmp_path / "counting.py").write_text(COUNTING)
    for name, text in TESTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path[:0] = [{str(root)!r}, {str(tmp_path)!r}]\n{DRIVER}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "results").read_text().splitlines()]
    verdicts = {(row["before"], row["after"]): row["verdict"] for row in rows}
    assert verdicts["i += 1", "i -= 1"] == "timeout"
    assert verdicts["i = 0", "i = None"] == "killed"
    assert verdicts["< n", "<= n"] == "killed"
    assert verdicts['"many"', '"MANY"'] == "killed"
    assert verdicts['"few"', '"FEW"'] == "survived"
    assert verdicts["n + 1", "n - 1"] == "uncovered"
    assert {row["verdict"] for row in rows if row["function"] == "unused"} == {"uncovered"}
    assert {row["test"] for row in rows if row["verdict"] == "killed"} == {
        "one/test_counting.py::test_it_counts",
        "two/test_saying.py::test_it_says_how_many",
    }
