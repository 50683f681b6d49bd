"""What can go wrong: errors of one line and a hint, and the exit code of each kind."""

from __future__ import annotations

import errno
import os
from typing import Final

from poolzoo.common.opening import NOT_A_FILE
from poolzoo.common.text import MAX_LINE, one_line, visible

OK: Final = 0
CHECK_FAILED: Final = 1
USAGE: Final = 2
PLUGIN: Final = 3
ENVIRONMENT: Final = 4
INTERRUPTED: Final = 130
HUNG_UP: Final = 129
TERMINATED: Final = 143
EXIT_CODES: Final = {
    OK: "it worked",
    CHECK_FAILED: "it failed: a check says no, or something is damaged",
    USAGE: "the command line or a setting is wrong",
    PLUGIN: "a plugin has a problem, and --strict was given",
    ENVIRONMENT: "the machine lacks something: a device, a package, memory, disk space, the network",
    HUNG_UP: "SIGHUP, when a terminal is closed",
    INTERRUPTED: "Ctrl-C",
    TERMINATED: "SIGTERM",
}
DEBUG: Final = "POOLZOO_DEBUG"  # the variable that asks for tracebacks

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk without room, or beyond what a user may write
SCARCE: Final = 512 << 20  # bytes below which an operation that fails without a reason lacked memory
# What libraries say where a process may have no more threads, and what a loader says where a library finds no memory.
NO_THREAD: Final = ("can't start new thread", "pthread_create", "Thread creation failed")
NOT_MAPPED: Final = ("failed to map segment", "annot allocate memory")
FILES_HINT: Final = "ulimit -n raises the limit of open files"
BATCH_HINT: Final = "use a smaller --batch-size or --image-size"  # where memory runs out in training


class PoolzooError(Exception):
    """An error that a user can act on.

    Args:
        message: One line that names the offending value and what would have been allowed.
        hint: The next thing to type or to look at.
    """

    exit_code: int = CHECK_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckFailed(PoolzooError):
    """A check did its work and the answer is no: parity, a damaged run or bundle, an unreadable image."""

    exit_code = CHECK_FAILED


class UsageError(PoolzooError):
    """What was asked for cannot be: an unknown name, a missing path, an option that does not fit."""

    exit_code = USAGE


class PluginError(PoolzooError):
    """A plugin failed and `--strict` was given."""

    exit_code = PLUGIN


class PluginFailed(PoolzooError):
    """An item of a plugin was used and does not do what its contract says."""

    exit_code = CHECK_FAILED


class EnvironmentProblem(PoolzooError):
    """The machine lacks something: a device, a provider, the network, disk space, a permission."""

    exit_code = ENVIRONMENT


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where it arrived, so that it is handled like Ctrl-C but exits with its own code."""

    exit_code: int = TERMINATED


class HungUp(Terminated):
    """SIGHUP, when a terminal is closed."""

    exit_code = HUNG_UP


def disk_full(error: BaseException | None) -> OSError | None:
    """The error of a disk without room in an exception or in what caused it; None where there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__
    return None


def is_debugging() -> bool:
    """Whether POOLZOO_DEBUG asks for tracebacks; 0 and nothing do not."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def show_traceback(error: BaseException) -> None:
    """Prints the traceback of an exception that is about to become a message, where POOLZOO_DEBUG asks for it.

    What it quotes is foreign text, and shown as such: nothing in it is obeyed, and no line is endless.
    """
    if is_debugging():
        import traceback

        from poolzoo.common import streams

        for line in "".join(traceback.format_exception(error)).rstrip("\n").split("\n"):
            streams.log(visible(line[:MAX_LINE]))


def message_of(error: BaseException) -> str:
    """The text of an exception, "" where asking for it raises: a plugin's own class may do that."""
    try:
        return str.__str__(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return ""


def reason(error: BaseException, most: int = 500) -> str:
    """The type of an exception and its text, on one line of at most so many characters."""
    text = one_line(message_of(error), most)
    name = one_line(type(error).__name__, 100)
    return f"{name}: {text}" if text else name


def explain(error: BaseException) -> PoolzooError:
    """Turns any exception into one that can be shown: the one table from exception type to message and code.

    POOLZOO_DEBUG prints its traceback first, also where work goes on without what failed.
    """
    show_traceback(error)
    if isinstance(error, PoolzooError):
        return error
    if (lacking := scarcity(error)) is not None:
        return lacking
    if isinstance(error, OSError):
        text = one_line(message_of(error))
        where = f": {error.filename}" if error.filename else ""
        return EnvironmentProblem(f"{error.strerror or text or type(error).__name__}{where}", _hint_for(error))
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("poolzoo"):
        package = error.name.partition(".")[0]
        hint = "install poolzoo with what it depends on: pip install poolzoo"
        return EnvironmentProblem(f"this needs {package}, which is not installed", hint)
    return CheckFailed(
        f"unexpected {reason(error)}",
        "this is a bug in poolzoo or in a plugin; POOLZOO_DEBUG=1 shows the traceback",
    )


def scarcity(error: BaseException) -> EnvironmentProblem | None:
    """The error of a machine without memory or threads, whichever library says so; None for all other exceptions."""
    text = one_line(message_of(error))
    if any(words in text for words in NO_THREAD) or _is_refused_process(error):
        return EnvironmentProblem("no further thread or process may be started", "ulimit -u raises their limit")
    if isinstance(error, ImportError) and os.strerror(errno.EMFILE) in text:
        return EnvironmentProblem(os.strerror(errno.EMFILE), FILES_HINT)
    if isinstance(error, ImportError) and any(words in text for words in NOT_MAPPED):
        hint = "free some memory, or raise its limit with ulimit -v"
        return EnvironmentProblem(f"out of memory, a library cannot be loaded: {text}", hint)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _lacks_memory(error, text):
        return _out_of_memory(text)
    return None


def _hint_for(error: OSError) -> str:
    """What to do about an error of the system."""
    if error.errno == errno.EFBIG:
        return "raise the limit of the size of files with ulimit -f, or choose a disk that takes larger ones"
    if error.errno in FULL:
        return "free some space and try again"
    if error.errno == errno.EINVAL and error.strerror == NOT_A_FILE:
        return "write its content into a file, and name that one"
    hints = {
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "check the path: a part of it is a file",
        errno.EISDIR: "a file belongs there: move the directory away, or name a file",
        errno.EACCES: "check its permissions, or choose another path",
        errno.EPERM: "check its permissions, or choose another path",
        errno.EROFS: "choose a path that can be written to",
        errno.ENAMETOOLONG: "choose a shorter path",
        errno.EMFILE: FILES_HINT,
    }
    return hints.get(error.errno or 0, "check the path, or choose another one")


def _is_refused_process(error: BaseException) -> bool:
    """Whether the system starts no process; a pipe that refuses to wait has the same number and other words."""
    if not isinstance(error, OSError) or error.errno != errno.EAGAIN:
        return False
    return error.strerror == os.strerror(errno.EAGAIN)


def _lacks_memory(error: BaseException, text: str) -> bool:
    """Whether memory ran out on the CPU; oneDNN then says no more than that it could not create something."""
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if not isinstance(error, RuntimeError):
        return False
    if "bad_alloc" in text or ("allocate" in text and "memory" in text):
        return True
    from poolzoo.common import resources

    available = resources.available_memory()
    return text.startswith("could not create") and available is not None and available < SCARCE


def _out_of_memory(text: str) -> EnvironmentProblem:
    """The error for memory that ran out: how much was asked for, and what takes most."""
    import re

    from poolzoo.common import resources

    asked = re.search(r"allocate (\d[\d.]* ?\w+)", text)
    size = asked[1] if asked else ""
    if size.endswith("bytes"):
        size = resources.size(int(float(size.removesuffix("bytes"))))
    message = f"out of memory, {size} could not be allocated" if size else "out of memory"
    held = resources.largest()
    if held is None:
        return EnvironmentProblem(message, BATCH_HINT)
    return EnvironmentProblem(f"{message}; most is taken by {held.what}, {resources.size(held.bytes)}", held.hint)
