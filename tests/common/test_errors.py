"""What the machine lacks is said as such, whichever library raises it, and the hint names the limit to raise."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from poolzoo.common import errors


def of_system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "ulimit -v"),
        (ImportError("libx.so: cannot map zero-fill pages: Cannot allocate memory"), "ulimit -v"),
        (ImportError("select.so: cannot open shared object file: Too many open files"), "ulimit -n"),
        (of_system(errno.ENOMEM), "--batch-size"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (of_system(errno.EAGAIN), "ulimit -u"),  # a process that cannot be started
        (of_system(errno.EFBIG), "ulimit -f"),
        (of_system(errno.EMFILE), "ulimit -n"),
        (of_system(errno.ENOSPC), "free some space"),
    ],
)
def test_a_limit_of_the_machine_is_named(error, hint):
    shown = errors.explain(error)
    assert shown.exit_code == errors.ENVIRONMENT
    assert hint in shown.hint


@pytest.mark.parametrize(
    "error", [ImportError("cannot import name 'x'"), RuntimeError("shape"), BlockingIOError(errno.EAGAIN, "of a lock")]
)
def test_other_errors_are_no_limit(error):
    assert errors.scarcity(error) is None


GRAPH = Path(__file__).parents[1] / "data" / "digits_bundle" / "model.onnx"


@pytest.mark.parametrize("raised", [ValueError, SystemExit, GeneratorExit])
def test_an_exception_without_a_text_is_named_by_its_type(raised):
    class Silent(Exception):
        def __str__(self):
            raise raised

    assert errors.reason(Silent()) == "Silent"


LIMITED = """
import resource, sys
import onnxruntime
from poolzoo.common import errors
from poolzoo.runtime import ort_session
room = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (4 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
try:
    ort_session.open_session(open(sys.argv[1], "rb").read(), "CPUExecutionProvider", threads=16)
except errors.PoolzooError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="there is no /proc")
def test_a_graph_is_not_blamed_for_a_limit_of_the_machine():
    done = subprocess.run([sys.executable, "-c", LIMITED, GRAPH], capture_output=True, text=True, check=False)
    assert done.stdout == "EnvironmentProblem\n", done.stderr
