"""Files and directories that appear whole have the usual permissions, also where threads write at the same time."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from poolzoo.common import errors, files, opening


def refused(mask):
    raise AssertionError("the umask belongs to the whole process, and other threads write files")


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_what_appears_has_the_permissions_of_other_files(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", refused)
        files.write_atomically(tmp_path / "file", "text")
        with files.appearing(tmp_path / "folder") as temporary:
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    finally:
        monkeypatch.undo()
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"file": 0o640, "folder": 0o750}


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    files.write_atomically(tmp_path / "file", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(tmp_path / "file", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="pipe"):
        files.open_file(pipe)
    with files.open_file(pipe, pipe=True) as opened:
        assert opened.read() == b""


def test_a_device_without_end_is_not_read():
    with pytest.raises(OSError, match="device"):
        files.open_file("/dev/zero" if os.path.exists("/dev/zero") else os.devnull)


@pytest.mark.parametrize(
    ("name", "hint"), [("", "choose another path"), ("there", "choose another path, or remove it first")]
)
def test_nobody_is_told_to_remove_the_current_folder(tmp_path, monkeypatch, name, hint):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.UsageError) as raised:
        files.require_free(Path(name))
    assert raised.value.hint == hint


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_folder_that_cannot_be_written_to_is_named():
    with pytest.raises(OSError, match="'/proc'"):
        files.require_free(Path("/proc/poolzoo"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_pipe_is_not_replaced_by_a_file(tmp_path, through_a_link):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    if through_a_link:
        pipe = tmp_path / "link"
        pipe.symlink_to("pipe")
    with pytest.raises(OSError, match="Not a file but a pipe or a device"):
        files.write_together({tmp_path / "other": b"text", pipe: b"text"})
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert not (tmp_path / "other").exists()
    assert "name that one" in errors.explain(OSError(errno.EINVAL, opening.NOT_A_FILE, "pipe")).hint
