"""Ray for tests: the environment of workers, a node in a process of its own, and waiting."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def until(true: Callable[[], object], process: subprocess.Popen[Any] | None = None, seconds: float = 600) -> None:
    """Waits until something is true that a process does. On a busy machine it may take minutes to import torch."""
    deadline = time.monotonic() + seconds
    while True:
        ended = process and process.poll()
        if true():
            return
        assert ended is None, f"it ended with {ended}"
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.05)


@contextmanager
def worker_environment(base: Path) -> Iterator[None]:
    """What workers inherit: no cache or configuration of the user's, and a token of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POOLZOO_CACHE", str(base / "cache"))
        patch.setenv("POOLZOO_CONFIG", str(base / "no-config"))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.delenv("RAY_ADDRESS", raising=False)
        pytest.importorskip("ray.data")  # it reads how to authenticate once, when it is imported
        yield


@contextmanager
def node() -> Iterator[str]:
    """The address of a node with two CPUs in a process of its own."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path: sockets are made in it
    ray = Path(sys.executable).parent / "ray"
    options = ("--num-cpus=2", "--include-dashboard=false", f"--port={port}", f"--temp-dir={folder}", "--block")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [ray, "start", "--head", "--disable-usage-stats", "--object-store-memory=200000000", *options]
    with subprocess.Popen(command, **quiet) as process:
        until(lambda: (Path(folder) / "ray_current_cluster").is_file(), process)  # Ray itself gives up after 30 s
        yield f"127.0.0.1:{port}"
        process.terminate()
    shutil.rmtree(folder, ignore_errors=True)
