"""Jobs in worker processes, each with a time limit and a line in a journal; and the page of their results."""

from __future__ import annotations

import argparse
import fnmatch
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from poolzoo.common.errors import INTERRUPTED, PoolzooError
from poolzoo.compare.journal import Journal

PAGE: Final = Path(__file__).parents[2] / "docs" / "results" / "matrix.md"
TITLE: Final = """# What works with what

`python -m benchmarks.coverage.matrix --write` and `python -m benchmarks.coverage.timm_sweep --write` write this page.
"""
PACKAGES: Final = ("poolzoo", "torch", "torchvision", "timm", "onnxscript", "onnx", "onnxruntime-gpu", "onnxruntime")
JOBS_PER_PROCESS: Final = 40  # then a new one: torch's exporter does not give all of its memory back
GRACE: Final = 5.0  # seconds for a process to end by itself
KEPT: Final = 300  # characters of a reason

Record = dict[str, Any]
Job = Callable[[str], Record]


@dataclass(frozen=True)
class Kind:
    """A kind of jobs: how one runs, and how the results of all are shown.

    Attributes:
        name: Of the journal in `runs/`.
        title: Of the section on the page.
        job: A function of a module, from a key to `{"status", …}`.
        render, summary: The section, and a line, of the journal's records.
        limit: Seconds for one job.
        example: Of a glob.
    """

    name: str
    title: str
    job: Job
    render: Callable[[Sequence[Record]], str]
    summary: Callable[[Sequence[Record]], str]
    limit: float
    example: str


def parser_of(kind: Kind, description: str | None) -> argparse.ArgumentParser:
    """The options that all kinds have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="GLOB", help=f"such as {kind.example!r}")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="of one thread each; default 2")
    default = Path(f"runs/{kind.name}.jsonl")
    parser.add_argument("--journal", type=Path, default=default, metavar="FILE", help=f"default {default}")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} from the journal, and run nothing")
    return parser


def _journal(parser: argparse.ArgumentParser, path: Path) -> Journal:
    try:
        return Journal(path)
    except (OSError, PoolzooError) as error:
        parser.error(str(error))


def command(kind: Kind, parser: argparse.ArgumentParser, given: argparse.Namespace, keys: Sequence[str]) -> None:
    """Runs the selected jobs, or writes the page from the finished ones."""
    if given.processes < 1:
        parser.error(f"--processes {given.processes} must be 1 or more")
    if given.write:
        known = _journal(parser, given.journal).records
        records = [known[key] for key in keys if key in known]
        if not records:
            parser.error(f"{given.journal} holds none of these: run it without --write first")
        write_section(kind.title, kind.render(records))
        return
    wanted = [key for key in keys if any(fnmatch.fnmatchcase(key, glob) for glob in given.only)]
    if not wanted:
        parser.error(f"nothing is called {' or '.join(given.only)}; such as {kind.example!r}")
    journal = _journal(parser, given.journal)
    try:
        given.journal.parent.mkdir(parents=True, exist_ok=True)
        work(kind.job, wanted, journal, given.processes, kind.limit)
    except KeyboardInterrupt:
        parser.exit(INTERRUPTED, f"{parser.prog}: stopped; the same command continues from {given.journal}\n")
    except OSError as error:  # no room, or no file; a job that fails is a line
        parser.error(f"{given.journal} cannot be written: {error.strerror}")
    records = [journal.records[key] for key in wanted]
    print(kind.summary(records))
    if any(record["status"] == "failed" for record in records):
        parser.exit(1)


def work(job: Job, keys: Iterable[str], journal: Journal, processes: int, limit: float) -> None:
    """Does what the journal does not hold yet, in processes of one thread each; failures are tried again.

    A job that takes longer than `limit` seconds, or with which its process dies, is a failed one like any other.

    Args:
        job: A function of a module, from a key to `{"status", …}`.
        keys: What there is to do.
        journal: Where each line is kept.
        processes: How many work at the same time.
        limit: Seconds for one job, including the start of a process.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # the workers inherit it
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # of what a worker that is killed leaves open
    waiting = deque(key for key in keys if journal.records.get(key, {}).get("status") in (None, "failed"))
    total, done = len(waiting), 0
    workers = [_Worker(job) for _ in range(min(processes, total))]
    while waiting or any(worker.key for worker in workers):
        for worker in workers:
            if worker.key is None and waiting:
                worker.give(waiting.popleft())
        busy = [worker for worker in workers if worker.key]
        ready = connection.wait([worker.pipe for worker in busy], timeout=1.0)
        for worker in busy:
            record = worker.take(limit, worker.pipe in ready)
            if record is not None:
                journal.add(record)
                done += 1
                words = f"{record['trial']}: {record['status']} {record.get('reason', '')}"
                print(f"{done}/{total} {words.strip()} ({record['seconds']:.0f} s)", file=sys.stderr, flush=True)
    for worker in workers:
        worker.stop()


class _Worker:
    """A process that does one job after another; there is a new one where it has died, hangs, or has done many."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.key: str | None = None
        self.process: BaseProcess | None = None

    def _start(self) -> BaseProcess:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.job), daemon=True)
        process.start()
        theirs.close()  # so that the end of the process ends the pipe
        self.done = 0
        return process

    def give(self, key: str) -> None:
        self.process = self.process or self._start()
        self.key = key
        self.began = time.monotonic()
        self.pipe.send(key)

    def take(self, limit: float, ready: bool) -> Record | None:
        """The record of the job, where it has ended or is to end."""
        seconds = time.monotonic() - self.began
        if not ready and seconds <= limit:
            return None
        try:
            found = self.pipe.recv() if ready else {"reason": f"took longer than {limit:g} s"}
        except (EOFError, ConnectionError):
            assert self.process is not None
            self.process.join()
            found = {"reason": f"the process died with exit code {self.process.exitcode}"}
        record = {
            "trial": self.key,
            "status": "failed",
            **found,
            "seconds": round(seconds, 2),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        self.key = None
        self.done += 1
        if "status" not in found or self.done == JOBS_PER_PROCESS:
            self.stop()
        return record

    def stop(self) -> None:
        if self.process is not None:
            self.pipe.close()  # which ends one that waits
            self.process.join(GRACE)
            self.process.kill()
            self.process.join()
            self.process = None


def _serve(pipe: connection.Connection, job: Job) -> None:
    """A worker's life: a key comes in, its record goes out, until whoever sends the keys is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for whoever sends the keys
    with suppress(EOFError, ConnectionError):
        while True:
            pipe.send(job(pipe.recv()))


def reason(error: BaseException) -> str:
    """What an exception says, in one short line."""
    cause = error.__cause__ or error
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text}"[:KEPT]


def versions() -> str:
    """The packages that a result depends on."""
    found = []
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # there is one of the two ONNX Runtimes
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


# --- The page ------------------------------------------------------------------------------------------------------


def circumstances(records: Sequence[Record]) -> str:
    """Where, when, with what and for how long, in words."""
    from poolzoo.runtime.environment import current_environment

    days = sorted({record["ended"][:10] for record in records})
    hours = sum(record["seconds"] for record in records) / 3600
    machine = current_environment(1)
    return (
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, one thread of an {machine.processor} each, "
        f"{hours:.1f} hours of one core; {'; '.join(sorted({record['versions'] for record in records}))}."
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def write_section(title: str, text: str, page: Path = PAGE) -> None:
    """Puts a section on the page, in the place of the one with that title or after the others."""
    sections = (page.read_text(encoding="utf-8") if page.is_file() else TITLE).split("\n## ")
    new = f"{title}\n\n{text.strip()}\n"
    places = [index for index, section in enumerate(sections) if section.startswith(f"{title}\n")]
    if places:
        sections[places[0]] = new
    else:
        sections.append(new)
    page.write_text("\n## ".join(sections), encoding="utf-8")
