"""ONNX Runtime keeps events of what one runs, and a device ID, in the home of its user; no command lets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BUNDLE = Path(__file__).parents[2] / "exports" / "digits"


def test_a_command_leaves_nothing_in_the_home_of_its_user(tmp_path):
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    unset = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    environment = {**kept, "HOME": str(home), "TMPDIR": str(temporary)}
    command = [sys.executable, "-P", "-m", "poolzoo", "verify", "--no-bench", str(BUNDLE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [*home.rglob("*"), *temporary.rglob("*")] == []
