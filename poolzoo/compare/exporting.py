"""Exports networks, several at the same time: one in this process, the others in processes of their own.

torch exports one network at a time in a process. A process that dies is replaced, and its network is tried once more.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from poolzoo.common import json_reader, resources
from poolzoo.common.errors import EnvironmentProblem, disk_full, explain
from poolzoo.plugin import loader

if TYPE_CHECKING:
    from poolzoo.compare.measures import Exporter

PROCESS_BYTES: Final = 2 << 30  # that a process may need to export a network
PROVIDER: Final = "auto"  # of ONNX Runtime


@dataclass(frozen=True)
class Job:
    """A run directory, and the file that its graph becomes."""

    run: Path
    file: Path


@dataclass(frozen=True)
class Exported:
    """What became of a job.

    Attributes:
        job: The job.
        parity: Whether the graph passed its parity check.
        error: Why there is no graph.
        disk_full: Whether the reason is a disk without room, which says nothing of the network.
    """

    job: Job
    parity: bool = False
    error: str | None = None
    disk_full: bool = False


def processes(jobs: int, threads: int | None) -> int:
    """How many networks are exported at the same time: one for two cores, as far as memory suffices.

    A process needs nearly as much memory as everything before it. On two cores it would save little time.

    Args:
        jobs: Number of networks.
        threads: Cores that may be used; None for all.
    """
    available = resources.available_memory()
    most = jobs if available is None else 1 + available // PROCESS_BYTES
    return max(1, min(jobs, (threads or resources.cpus()) // 2, most))


def export_all(jobs: Sequence[Job], threads: int | None, *, shared: bool) -> Iterator[Exported]:
    """Exports networks, and yields what became of each as it ends.

    Args:
        jobs: What to export.
        threads: Cores that may be used; None for all.
        shared: Whether runs may have the same backbone.
    """
    count = processes(len(jobs), threads)
    each = (threads or resources.cpus()) // count
    exporter = _exporter(each, shared)
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    ended: queue.SimpleQueue[Exported] = queue.SimpleQueue()
    for one in jobs:
        waiting.put(one)
    stop = threading.Event()
    settings = [str(each), str(int(shared))]
    others = [threading.Thread(target=_work, args=(waiting, ended, stop, settings)) for _ in range(1, count)]
    for thread in others:
        thread.start()
    left = len(jobs)
    try:
        while left:
            own = _next(waiting)
            if own is not None:
                ended.put(_export_here(own, exporter))
            while left and (own is None or not ended.empty()):
                yield ended.get()
                left -= 1
    finally:
        stop.set()
        for thread in others:
            thread.join()


def _next(waiting: queue.SimpleQueue[Job]) -> Job | None:
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return None


def _exporter(threads: int, shared: bool) -> Exporter:
    from poolzoo.compare import measures

    return measures.Exporter(PROVIDER, threads, shared=shared)


def _export_here(job: Job, exporter: Exporter) -> Exported:
    try:
        return Exported(job, parity=exporter.export(job.run, job.file))
    except Exception as error:
        return Exported(job, error=explain(error).message, disk_full=disk_full(error) is not None)


def _work(
    waiting: queue.SimpleQueue[Job], ended: queue.SimpleQueue[Exported], stop: threading.Event, settings: Sequence[str]
) -> None:
    """Exports what waits in a process with some settings, one network after the other."""
    process: subprocess.Popen[bytes] | None = None
    try:
        while (job := _next(waiting)) is not None and not stop.is_set():
            answer = None
            for _ in range(2):
                with suppress(Exception):  # it died, its answer is no JSON, or there is no memory for it: no answer
                    process = process or _start(settings)
                    answer = _ask(process, job, stop)
                if answer is not None or stop.is_set():
                    break
                if process is not None:
                    _end(process)
                process = None
            reason = EnvironmentProblem("the process that exports it died twice", "is there enough memory?")
            ended.put(answer or Exported(job, error=reason.message))
    finally:
        if process is not None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leaves nothing of a process."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what was not sent is of no use
            if pipe is not None:
                pipe.close()


def _start(settings: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process that reads jobs; its settings are the number of threads, and whether runs may share a backbone."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    environment = {**os.environ, **dict.fromkeys(names, settings[0]), "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "poolzoo.compare.exporting", *settings],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # so that Ctrl-C reaches the parent alone
    )
    assert process.stdin is not None
    try:
        pickle.dump(loader.settings, process.stdin)
        process.stdin.flush()
    except OSError:
        _end(process)
        raise
    return process


def _ask(process: subprocess.Popen[bytes], job: Job, stop: threading.Event) -> Exported | None:
    """What a process answers; None where it died.

    Raises:
        OSError: It died before it was asked.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with _killed_on(stop, process):
        process.stdin.write(json.dumps([str(job.run), str(job.file)]).encode() + b"\n")  # noqa: TID251 - a protocol
        process.stdin.flush()
        line = process.stdout.readline()
    if not line.endswith(b"\n"):
        return None
    found = json_reader.mapping(json.loads(line))
    return Exported(
        job,
        parity=bool(found.get("parity")),
        error=json_reader.text(found.get("error")),
        disk_full=bool(found.get("disk_full")),
    )


@contextmanager
def _killed_on(stop: threading.Event, process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Within it, a process does not outlive the wish to stop."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            if stop.is_set():
                process.kill()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def main() -> None:
    """The process of a worker: exports what its parent names, until the pipe is closed."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    loader.settings.update(pickle.load(requests))
    exporter = _exporter(int(sys.argv[1]), sys.argv[2] == "1")
    for line in requests:
        run, file = json.loads(line)
        found = _export_here(Job(Path(run), Path(file)), exporter)
        answer = {"parity": found.parity, "error": found.error, "disk_full": found.disk_full}
        answers.write(json.dumps(answer).encode() + b"\n")  # noqa: TID251 - a protocol
        answers.flush()


if __name__ == "__main__":
    main()
