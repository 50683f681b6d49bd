"""Reads odd input with all targets, and prints how many inputs each had, how fast, and what failed.

    python -m tests.fuzz --inputs 200000 --seed 0
    python -m tests.fuzz --target run-config --only 1234
    python -m tests.fuzz --coverage --inputs 20000

An input follows from the seed, its target and its number, so that one number repeats it. Each room of targets runs in a
process of its own. What ends a process, such as a crash of a library, is a failure of the input that it had.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # of `fuzz` and `support`

from fuzz import coverage  # noqa: E402

if {"--coverage", "--worker"} <= {*sys.argv}:
    coverage.instrument()  # before anything of poolzoo is imported

from fuzz import harness, targets  # noqa: E402
from fuzz.progress import Progress  # noqa: E402

STOPPED = 130  # the exit code behind Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.worker:
        return _work(given)
    if given.only is not None:
        return _repeat(given)
    rooms = [room for room in given.room or targets.ROOMS if not _is_left_out(room, given)]
    started, progress = os.times(), Progress()
    with tempfile.TemporaryDirectory(dir=_fast_place()) as scratch, ThreadPoolExecutor(given.jobs) as pool:
        work = [pool.submit(_room, room, given, rooms, Path(scratch), progress) for room in rooms]
        try:
            for one in as_completed(work):
                one.result()
        except KeyboardInterrupt:
            progress.stop()
            pool.shutdown(cancel_futures=True)
    ended, (total, failures) = os.times(), progress.totals()
    seconds = ended.elapsed - started.elapsed
    processor = ended.children_user + ended.children_system - started.children_user - started.children_system
    rest = ", stopped" if progress.is_stopped else ""
    print(f"{total:,} inputs, {len(progress.results)} targets, {failures} failures{rest}")
    print(f"{seconds:.0f} s, {processor:.0f} CPU s, {total / max(seconds, 1e-9):,.0f} inputs/s")
    return STOPPED if progress.is_stopped else 1 if failures or not total else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=200_000, help="Number of inputs of all targets together.")
    parser.add_argument("--seed", type=int, default=0, help="Of all inputs.")
    parser.add_argument("--target", action="append", help="Only this one; several times for several.")
    parser.add_argument("--room", action="append", choices=list(targets.ROOMS), help="Only the targets of this room.")
    parser.add_argument("--only", type=int, help="The number of the one input to read, with its traceback.")
    parser.add_argument("--save", type=Path, help="With --only: where to write that input.")
    parser.add_argument(
        "--coverage", action="store_true", help="Let atheris choose inputs by the code that they reach."
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="Processes at a time.")
    for name, kind in (("worker", str), ("scratch", Path), ("start", json.loads)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    return parser


def _fast_place() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _is_left_out(room: str, given: argparse.Namespace) -> bool:
    if given.coverage and room in coverage.EXCLUDED:
        return True
    if names := targets.missing(room):
        print(f"{room} is left out: {', '.join(names)} is not installed", file=sys.stderr)
    return bool(names)


def _counts(given: argparse.Namespace, found: Sequence[harness.Target]) -> dict[str, int]:
    """How many inputs each target of a room gets, by their shares, or by name."""
    if given.target:
        chosen = [one for one in found if one.name in given.target]
        return {one.name: -(-given.inputs // len(given.target)) for one in chosen}
    whole = sum(one.share for one in found)
    return {one.name: 1 + int(given.inputs * one.share / whole) for one in found}


def _room(room: str, given: argparse.Namespace, rooms: Sequence[str], scratch: Path, progress: Progress) -> None:
    """Runs a room in a process, and again behind an input that ended it."""
    start: dict[str, int] = {}
    crashes: Counter[str] = Counter()
    inputs = given.inputs if given.target else targets.inputs_of(room, rooms, given.inputs)
    place, errors = scratch / f"{room}.at", scratch / f"{room}.err"
    while not progress.is_stopped:
        command = [sys.executable, "-m", "tests.fuzz", "--worker", room, "--scratch", str(scratch)]
        command += ["--inputs", str(inputs), "--seed", str(given.seed), "--start", json.dumps(start)]
        command += ["--coverage"] if given.coverage else []
        command += [word for name in given.target or () for word in ("--target", name)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        with progress.running(command, errors, env=environment, cwd=ROOT) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    found = harness.Result.from_json(json.loads(line))
                    progress.add(found)
                    start[found.target] = given.inputs
        if process.returncode in (0, STOPPED) or progress.is_stopped:
            return
        if not place.is_file() or not place.read_text().strip():
            progress.fail(harness.Failure(room, -1, "does not start", errors.read_text()[-2000:]))
            return
        target, _, number = place.read_text().strip().partition(" ")
        what = f"ends the process with {process.returncode}"
        progress.fail(harness.Failure(target, int(number), what, errors.read_text()[-600:]))
        crashes[target] += 1
        start[target] = given.inputs if crashes[target] >= harness.MOST_FAILURES else int(number) + 1


def _work(given: argparse.Namespace) -> int:
    """The process of a room: prints the result of each target as a line of JSON."""
    signal.signal(signal.SIGINT, _stop_once)
    os.environ["POOLZOO_CACHE"] = str(given.scratch / f"{given.worker}-cache")
    found = list(targets.open_room(given.worker, given.scratch))
    counts = _counts(given, found)
    at = os.open(given.scratch / f"{given.worker}.at", os.O_RDWR | os.O_CREAT)
    for target in found:
        count, start = counts.get(target.name, 0), given.start.get(target.name, 0)
        if start >= count:
            continue
        if given.coverage:
            coverage.run(target, count, given.seed, given.scratch)
            continue
        with harness.watched():
            result = harness.run(
                target,
                range(start, count),
                given.seed,
                lambda index, name=target.name: os.pwrite(at, f"{name} {index}".ljust(60).encode(), 0),
            )
        print(json.dumps(result.to_json()), flush=True)
        if result.is_stopped:
            return STOPPED
    return 0


def _stop_once(number: int, frame: object) -> None:
    """A terminal sends Ctrl-C to all processes, and the one that started this one sends it again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _repeat(given: argparse.Namespace) -> int:
    """Reads one input, without a limit, and shows what it is and what comes of it."""
    (name,) = given.target
    with tempfile.TemporaryDirectory(dir=_fast_place()) as scratch:
        os.environ["POOLZOO_CACHE"] = f"{scratch}/cache"
        target = next(
            one for one in targets.open_rooms(given.room or list(targets.ROOMS), Path(scratch)) if one.name == name
        )
        content = target.make(given.seed, given.only)
        if given.save:
            given.save.write_bytes(content)
        print(f"{len(content):,} bytes: {content[:2000]!r}")
        print(repr(target.read(content))[:2000])
    return 0


if __name__ == "__main__":
    sys.exit(main())
