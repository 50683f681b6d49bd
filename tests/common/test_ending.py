"""What a process does before it ends: threads, exit handlers, files that a plugin left open."""

from __future__ import annotations

import os
import subprocess
import sys

PLUGIN = """
import atexit, os, threading
from pathlib import Path

folder = Path(os.environ["FOLDER"])
text = open(folder / "text", "w")
text.write("text")
data = open(folder / "data", "wb")
data.write(b"data")
atexit.register((folder / "handler").write_text, "handler")


def wait():
    threading.main_thread().join()
    (folder / "thread").write_text("thread")


threading.Thread(target=wait).start()
"""


def test_nothing_that_a_plugin_began_is_lost(tmp_path):
    (tmp_path / "open_files.py").write_text(PLUGIN)
    command = [sys.executable, "-m", "poolzoo", "list", "--plugin", tmp_path / "open_files.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "FOLDER": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    names = ("text", "data", "handler", "thread")
    assert {name: (tmp_path / name).read_text() for name in names} == {name: name for name in names}


ENDLESS = """
import threading
from poolzoo.common import ending

ending.PATIENCE = 0.0
threading.Thread(target=threading.Event().wait, name="endless\x1b").start()
ending.exit_with(0, alone=True)
"""


def test_a_thread_without_end_is_named():
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        process.kill()
    assert "threads that still run: endless\\x1b (hint: Ctrl-C ends them)" in said
