"""What killed processes leave unfinished is removed, what living ones write is not, and commands take turns."""

from __future__ import annotations

import errno
import json
import os
import sys

import pytest

from poolzoo.artifacts import manifest
from poolzoo.common import files, locks
from poolzoo.common.errors import UsageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no advisory locks")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("is_folder", [False, True])
def test_only_what_nobody_writes_is_swept(tmp_path, is_folder):
    with locks.unfinished(tmp_path / "a", is_folder=is_folder) as living:
        dead = locks.unfinished_name(tmp_path / "a")
        dead.mkdir() if is_folder else dead.touch()
        (tmp_path / ".own-1234").touch()
        locks.sweep(tmp_path)
        assert names(tmp_path) == sorted([".own-1234", living.name])
    assert names(tmp_path) == [".own-1234"]


def test_a_directory_that_appears_removes_what_was_left(tmp_path):
    left = locks.unfinished_name(tmp_path / "bundle")
    left.mkdir()
    (left / "half").touch()
    with files.appearing(tmp_path / "bundle") as folder:
        (folder / "model").touch()
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["model"]


def test_a_second_command_is_refused_in_one_line(poolzoo, run_copy):
    (run_copy / "manifest.json").unlink()
    with locks.alone_in(run_copy, "run"):
        outcome = poolzoo("finetune", "--resume", run_copy)
    assert outcome.code == 2
    assert outcome.err == f"error: another command is at work in the run {run_copy}\nhint: wait until it has ended\n"
    with locks.alone_in(run_copy, "run"), pytest.raises(UsageError), locks.alone_in(run_copy, "run"):
        pass


@pytest.mark.parametrize("at", range(5))
def test_files_of_a_whole_directory_are_replaced_all_or_none(tmp_path, monkeypatch, at):
    """At each rename the process may end; whoever reads the directory next finds the old or the new files."""
    for name in manifest.REQUIRED["run"]:
        (tmp_path / name).write_text("old")
    manifest.write_manifest(tmp_path, "run")
    real, calls = os.replace, []

    def replace(*arguments):
        calls.append(arguments)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(os, "replace", replace)
    if at < 4:
        with pytest.raises(KeyboardInterrupt):
            manifest.replace_files(tmp_path, {"config.json": b"new", "metrics.json": b"new"})
    else:
        manifest.replace_files(tmp_path, {"config.json": b"new", "metrics.json": b"new"})
    monkeypatch.undo()
    manifest.check(tmp_path, "run")
    texts = {(tmp_path / name).read_text() for name in ("config.json", "metrics.json")}
    assert texts == ({"old"} if at == 0 else {"new"})
    listed = json.loads((tmp_path / "manifest.json").read_text())["files"]
    assert names(tmp_path) == sorted([*listed, "manifest.json"])


def test_an_error_names_what_the_user_knows(tmp_path):
    with pytest.raises(OSError, match="No space") as caught, files.appearing(tmp_path / "bundle"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as writing to a full disk does
    assert caught.value.filename == str(tmp_path / "bundle")
    with pytest.raises(FileNotFoundError) as absent, files.appearing(tmp_path / "bundle") as folder:
        (folder / "nowhere" / "model.onnx").write_text("")
    assert absent.value.filename == str(tmp_path / "bundle" / "nowhere" / "model.onnx")
    with pytest.raises(OSError, match="odd") as other, files.appearing(tmp_path / "bundle"):
        raise OSError(errno.EIO, "odd")
    assert other.value.filename is None
    assert names(tmp_path) == []
