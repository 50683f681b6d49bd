"""What only a wheel and a real process show. Slow: builds and installs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_works_from_outside_the_checkout(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("poolzoo-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import poolzoo; from poolzoo.cli import run; print(poolzoo.__file__);"
        "run(['finetune', '--data', 'digits', '--limit', '100', '--epochs', '1', '--pretrained', '--out', 'run'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert str(tmp_path / "site") in result.stdout
    assert (tmp_path / "run" / "manifest.json").is_file()


@pytest.mark.parametrize("delay", [0.3, 2.0, 3.5, 5.0])
def test_an_interrupt_at_any_moment_of_an_export_is_an_interrupt(trained, tmp_path, delay):
    command = [sys.executable, "-m", "poolzoo", "export", str(trained), "--out", str(tmp_path / "b")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (130, 0, -signal.SIGINT)  # done already, or before Python could listen
    if process.returncode == 130:
        assert "error: interrupted" in err
        assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_and_closed_streams_are_no_errors(trained):
    poolzoo = f"{sys.executable} -m poolzoo"
    for line in (f"{poolzoo} list | true", f"{poolzoo} list >&-", f"{poolzoo} --version >&- 2>&-"):
        result = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
        assert result.returncode == 0, (line, result.stderr)
        assert result.stderr == ""
