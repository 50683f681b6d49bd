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
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # of `fuzz` and `support`

from fuzz import coverage  # noqa: E402

if {"--coverage", "--worker"} <= {*sys.argv}:
    coverage.instrument()  # before anything of poolzoo is imported

from fuzz import harness, targets  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.worker:
        return _work(given)
    if given.only is not None:
        return _repeat(given)
    rooms = [room for room in given.room or targets.ROOMS if not _is_left_out(room, given)]
    started, results = os.times(), []
    with tempfile.TemporaryDirectory(dir=_fast_place()) as scratch, ThreadPoolExecutor(given.jobs) as pool:
        for found in as_completed([pool.submit(_room, room, given, rooms, Path(scratch)) for room in rooms]):
            for one in found.result():
                rate = one.inputs / one.seconds if one.seconds else 0.0
                print(
                    f"{one.target:24} {one.inputs:8,} inputs {one.accepted:8,} accepted {rate:9,.0f} inputs/s",
                    flush=True,
                )
                results.append(one)
                for failure in one.failures:
                    print(f"FAILED {failure}", flush=True)
    ended = os.times()
    total, failures = sum(one.inputs for one in results), sum(len(one.failures) for one in results)
    seconds = ended.elapsed - started.elapsed
    processor = ended.children_user + ended.children_system - started.children_user - started.children_system
    print(f"{total:,} inputs, {len(results)} targets, {failures} failures")
    print(f"{seconds:.0f} s, {processor:.0f} CPU s, {total / max(seconds, 1e-9):,.0f} inputs/s")
    return 1 if failures or not total else 0


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
    for name, kind in (("worker", str), ("scratch", Path), ("start", json.loads), ("rooms", int)):
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
    """How many inputs each target of a room gets: so many as all rooms have together, by their shares."""
    if given.target:
        chosen = [one for one in found if one.name in given.target]
        return {one.name: -(-given.inputs // len(given.target)) for one in chosen}
    each, whole = given.inputs / given.rooms, sum(one.share for one in found)
    return {one.name: 1 + int(each * one.share / whole) for one in found}


def _room(room: str, given: argparse.Namespace, rooms: Sequence[str], scratch: Path) -> list[harness.Result]:
    """Runs a room in a process, and again behind an input that ended it."""
    results: dict[str, harness.Result] = {}
    start: dict[str, int] = {}
    while True:
        command = [sys.executable, "-m", "tests.fuzz", "--worker", room, "--scratch", str(scratch)]
        command += ["--inputs", str(given.inputs), "--seed", str(given.seed), "--start", json.dumps(start)]
        command += ["--rooms", str(len(rooms)), *(["--coverage"] if given.coverage else [])]
        command += [word for name in given.target or () for word in ("--target", name)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
        for line in ended.stdout.splitlines():
            if line.startswith("{"):
                _add(results, json.loads(line))
        if ended.returncode == 0:
            return list(results.values())
        place = scratch / f"{room}.at"
        if not place.is_file() or not place.read_text().strip():
            failure = harness.Failure(room, -1, "does not start", ended.stderr[-2000:])
            return [*results.values(), harness.Result(room, failures=[failure])]
        target, _, number = place.read_text().strip().partition(" ")
        found = results.setdefault(target, harness.Result(target))
        what = f"ends the process with {ended.returncode}"
        found.failures.append(harness.Failure(target, int(number), what, ended.stderr[-600:]))
        start = {**start, **dict.fromkeys(results, given.inputs), target: int(number) + 1}
        if len(found.failures) >= harness.MOST_FAILURES:
            start[target] = given.inputs


def _add(results: dict[str, harness.Result], found: dict[str, object]) -> None:
    failures = [harness.Failure(**one) for one in found.pop("failures")]  # type: ignore[attr-defined]
    one = harness.Result(**found, failures=failures)  # type: ignore[arg-type]
    before = results.setdefault(one.target, harness.Result(one.target))
    before.inputs += one.inputs
    before.accepted += one.accepted
    before.refused += one.refused
    before.seconds += one.seconds
    before.failures += one.failures


def _work(given: argparse.Namespace) -> int:
    """The process of a room: prints the result of each target as a line of JSON."""
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
    return 0


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
