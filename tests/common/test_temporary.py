"""What a killed process leaves among temporary files goes with the next command; what is not ours stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from poolzoo.common import locks
from poolzoo.common.errors import EnvironmentProblem
from poolzoo.common.temporary import temporary_folder

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal
from poolzoo.common.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "model.onnx").write_text("half")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no advisory locks")
def test_the_next_command_removes_what_a_killed_one_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = Path(done.stdout.strip())
    assert left.parent == tmp_path
    assert names(left) == ["model.onnx"]
    with locks.unfinished(tmp_path / "poolzoo", is_folder=True) as living, temporary_folder() as folder:
        assert names(tmp_path) == sorted([living.name, folder.name])
        assert folder.stat().st_mode & 0o777 == 0o700
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_what_somebody_put_among_temporary_files_is_left_alone(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "kept").touch()
    pipe, link = (locks.unfinished_name(tmp_path / "poolzoo") for _ in range(2))
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "victim")
    other = tmp_path / "poolzoo-checkout.poolzoo"
    other.mkdir()
    locks.sweep(tmp_path)
    assert names(tmp_path) == sorted([pipe.name, link.name, other.name, "victim"])
    assert names(tmp_path / "victim") == ["kept"]
    asked = threading.Thread(target=locks.is_held, args=(pipe,), kwargs={"unknown": True}, daemon=True)
    asked.start()  # a cache may hold a pipe too
    asked.join(20)
    assert not asked.is_alive()


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives files away")
def test_what_another_user_left_is_not_removed(tmp_path):
    folder = locks.unfinished_name(tmp_path / "poolzoo")
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    locks.sweep(tmp_path)
    assert names(tmp_path) == [folder.name]


def test_no_place_for_temporary_files_is_said(monkeypatch):
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(EnvironmentProblem, match="no directory for temporary files") as caught, temporary_folder():
        pass
    assert "TMPDIR" in caught.value.hint


def test_every_temporary_directory_is_one_that_is_swept():
    """Others stay where a process is killed; those in a directory that is itself swept go with it."""
    inside = {"runtime/builtin/chromium.py", "export/export.py", "export/precision/layer_times.py"}
    for path in (ROOT / "poolzoo").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "TemporaryDirectory(" in text or "mkdtemp(" in text:
            assert path.relative_to(ROOT / "poolzoo").as_posix() in inside, path
