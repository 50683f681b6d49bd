"""What only a wheel and a real process show. Slow: builds and installs."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import zipfile
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from support import processes

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


def interrupted_in(moment: str, events: Connection) -> None:
    from poolzoo.artifacts import manifest
    from poolzoo.parity import check

    owner, name = {
        "torch's exporter": (torch.export, "export"),
        "the check of parity": (check, "check_parity"),
        "the last file": (manifest, "write_manifest"),
    }[moment]
    processes.signal_at(signal.SIGINT, owner, name)


@pytest.mark.slow  # in a process of its own; tests/export/test_deploy.py has the same within one
@pytest.mark.parametrize("moment", ["torch's exporter", "the check of parity", "the last file"])
def test_an_interrupt_at_any_moment_ends_an_export(trained, tmp_path, moment):
    out = tmp_path / "out" / "b"
    before = functools.partial(interrupted_in, moment)
    ended = processes.start(tmp_path, "export", trained, "--no-bench", "--out", out, before=before).wait()
    assert ended.code == 130, ended
    assert "error: interrupted" in ended.err
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_a_closed_pipe_and_closed_streams_are_no_errors(trained):
    poolzoo = f"{sys.executable} -m poolzoo"
    for line in (f"{poolzoo} list | true", f"{poolzoo} list >&-", f"{poolzoo} --version >&- 2>&-"):
        result = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
        assert result.returncode == 0, (line, result.stderr)
        assert result.stderr == ""
