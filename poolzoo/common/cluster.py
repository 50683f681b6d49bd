"""A connection to a Ray cluster, without a word of Ray's on our streams. Ray is imported where it is asked for."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Final

from poolzoo.common import streams
from poolzoo.common.errors import EnvironmentProblem, UsageError
from poolzoo.common.text import one_line

CONNECT_TIMEOUT: Final = 5.0  # seconds; Ray itself retries for minutes


def require(address: str | None) -> None:
    """Makes sure, before anything is written, that Ray is there and that something listens at the address.

    Args:
        address: Of the cluster. None for `RAY_ADDRESS`, else a node on this machine, else a new local cluster.

    Raises:
        UsageError: The address is malformed.
        EnvironmentProblem: Ray is not installed, or nothing answers at the address.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise EnvironmentProblem("Ray is not installed", "pip install 'poolzoo[ray]'") from None
    _reach(address or os.environ.get("RAY_ADDRESS") or "local")


def _reach(address: str) -> None:
    """Raises where nothing listens at an address."""
    name, _, port = address.rpartition("://")[2].rpartition(":")
    if address in ("auto", "local"):
        return
    if not name or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{address!r} is no address of a Ray cluster", "such as 192.168.0.1:6379, or auto")
    try:
        socket.create_connection((name.strip("[]"), int(port)), CONNECT_TIMEOUT).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str | None, error: Exception) -> EnvironmentProblem:
    why = one_line(getattr(error, "strerror", None) or str(error), 300)
    text = f"no Ray cluster at {address}: {why}" if address and address != "local" else f"Ray cannot be started: {why}"
    return EnvironmentProblem(text, "ray start --head starts one and prints its address")


@contextmanager
def _in_package_folder() -> Iterator[None]:
    """Within it, the current folder is the one that poolzoo is imported from.

    Ray lets its workers import modules from the driver's current folder, before all others, such as a `numpy.py` there.
    """
    try:
        before = os.getcwd()
    except OSError:  # it is gone
        before = ""
    os.chdir(Path(__file__).parents[2])
    try:
        yield
    finally:
        if before:
            with suppress(OSError):
                os.chdir(before)


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Connects Ray for the block and gives the module. An existing connection is used, and stays open.

    What Ray prints of workers that die goes nowhere: the caller says it.

    Raises:
        EnvironmentProblem: Nothing answers at the address, or Ray cannot be started.
    """
    import ray

    if ray.is_initialized():
        yield ray
        return
    terminate = signal.getsignal(signal.SIGTERM)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), streams.stderr_for_python():
        try:
            with _in_package_folder():
                ray.init(address, log_to_driver=False, include_dashboard=False, logging_level=logging.CRITICAL)
        except Exception as error:  # such as a bare one, where its processes take more than 30 s to start
            raise _unreachable(address, error) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, terminate)  # Ray replaces the handler
        try:
            yield ray
        finally:
            ray.shutdown()
