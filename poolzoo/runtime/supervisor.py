"""The process between the host and the process of a session: on Linux it ends whatever the session leaves behind.

It adopts orphans (`PR_SET_CHILD_SUBREAPER`), so processes stay its descendants that leave the session's group or lose
their parents. They end when the session's process ends, when the host asks with SIGTERM, and when the host is gone.
Its exit code is that of the session's process. It runs no code of plugins, and holds no pipe of the host.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from poolzoo.runtime import process_tree

SUPPORTED: Final = sys.platform == "linux"
HOST_CHECK: Final = 1.0  # seconds between two looks at whether the host is still there
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Starts the process of a session and waits for its end. Where it cannot, this process is that of the session."""
    if not SUPPORTED:
        _work()
        return
    host, signals = os.getppid(), {signal.SIGCHLD, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    session = os.fork()
    if session == 0:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _in_child(_work)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    code = None
    while code is None and os.getppid() == host:
        found = signal.sigtimedwait(signals, HOST_CHECK)
        code = process_tree.reap().get(session)
        if found is not None and found.si_signo == signal.SIGTERM:
            break
    process_tree.end_descendants(os.getpid())
    _end(1 if code is None else code)


def _work() -> None:
    from poolzoo.runtime import worker  # here, so that this process stays small

    worker.main()


def _in_child(work: Callable[[], None]) -> NoReturn:
    try:
        work()
    except BaseException as error:
        import traceback

        traceback.print_exception(error)
    finally:
        os._exit(1)


def _end(code: int) -> NoReturn:
    """Ends this process with an exit code, or by a signal where it is negative."""
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the session's process has left one, if any
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 1)


def _prctl(option: int, value: int) -> None:
    """Asks Linux for something; where it refuses, the process group is all that ends."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
