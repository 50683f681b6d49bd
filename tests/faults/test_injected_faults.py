"""Real commands under faults lose nothing; one that writes in place, or does not wait for the disk, is found out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="faults are injected by a library for Linux"),
]


def inject(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.faults", "--base", str(tmp_path / "faults"), *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_three_hundred_faults_lose_nothing(tmp_path):
    done = inject(tmp_path, "--faults", "300", "--seed", "0")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^300 faults, 0 failed, \d+ a minute", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(("kind", "broken"), [("kill", "in place"), ("power", "unsynced")])
def test_a_careless_program_is_found_out(tmp_path, kind, broken):
    around_the_first_checkpoint = [f"--fault=finetune/{kind}@{at}" for at in range(14, 24)]
    done = inject(tmp_path, *around_the_first_checkpoint, FAULTS_BROKEN=broken)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "is damaged" in done.stdout
