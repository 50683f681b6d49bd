"""What goes wrong a thousand times is said once, with a count: bytes of stderr, of whole processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

THOUSAND = """
import logging, threading, warnings
from poolzoo import Pooling, hookimpl

class Raises:
    def __init__(self, number):
        self.number = number

    def __del__(self):
        raise ValueError(f"\\x1b[31mfinalizer {self.number} " + "x" * 10_000)

    def __repr__(self):
        raise RuntimeError("y" * 10_000)

def fail(number):
    raise ValueError(f"thread {number}\\x1b[31m " + "x" * 10_000)

for number in range(1000):
    warnings.warn(f"warning {number}")
    warnings.warn_explicit("z" * 10_000, DeprecationWarning, f"file {number}", number)
for number in range(100):
    thread = threading.Thread(target=fail, args=(number,))
    thread.start()
    thread.join()

@hookimpl
def poolzoo_poolings():
    for number in range(500):
        yield Raises(number)
    raise OSError("\\x1b[31m" + "w" * 1_000_000)
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "poolzoo", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if key not in ("POOLZOO_DEBUG", "PYTHONWARNINGS")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_thousand_failures_of_each_kind_are_a_few_lines(tmp_path: Path):
    (tmp_path / "thousand.py").write_text(THOUSAND)
    done = run("list", "--json", "--plugin", tmp_path / "thousand.py")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["problems"]) == 501
    lines = done.stderr.splitlines()
    assert len(lines) == 5, done.stderr[:5000]
    assert len(done.stderr.encode()) < 4000
    assert done.stderr.replace("\n", "").isprintable()
    for words in (
        "a thread raised ValueError: thread 0",
        "a thread raised 99 more",
        "a finalizer (__del__) raised 499 more",
    ):
        assert sum(words in line for line in lines) == 1, words
    assert sum("and 497 more" in line for line in lines) == 1


def test_fifty_six_broken_files_are_six_lines(tmp_path: Path):
    for number in range(56):
        (tmp_path / f"broken_{number:02}.py").write_text(f"raise ValueError('{number} ' + 'x' * 8000)")
    done = run("list", "--plugins-dir", tmp_path)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 6
    assert len(done.stderr.encode()) < 6000
    assert "51 more: poolzoo plugin list --load" in done.stderr
