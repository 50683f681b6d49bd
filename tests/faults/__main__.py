"""`python -m tests.faults`: injects faults into real commands, and counts what is wrong afterwards."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]


def main() -> int:
    """Parses the arguments, injects the faults, and prints a line for each that fails and a summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=300, metavar="N", help="how many to draw (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw; the same seed gives the same faults")
    parser.add_argument("--kind", action="append", help="only this kind, such as kill, term%%, full, twin")
    parser.add_argument("--scenario", action="append", help="only this scenario, such as finetune or export")
    parser.add_argument("--fault", action="append", help="this very fault, such as finetune/kill@37, and no others")
    parser.add_argument("--every", action="store_true", help="each operation of the scenarios, instead of a draw")
    parser.add_argument(
        "--base", type=Path, help="a directory to work in, which stays; what faults start from is made there once"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for every fault")
    arguments = parser.parse_args()
    from faults.fault import Fault, draw
    from faults.scenarios import available

    try:  # before anything is built
        chosen = [*(arguments.scenario or ()), *(Fault.parse(text).scenario for text in arguments.fault or ())]
        if unknown := [name for name in chosen if name not in available()]:
            raise ValueError(f"no scenario is called {unknown[0]!r}; there are {', '.join(available())}")
        draw(
            {name: available()[name] for name in arguments.scenario or available()}, 0, arguments.kind, random.Random()
        )
    except ValueError as error:
        parser.error(str(error))
    base = arguments.base or Path(tempfile.mkdtemp(prefix="faults-"))
    base.mkdir(parents=True, exist_ok=True)
    try:
        return run(arguments, base.resolve())
    finally:
        if arguments.base is None:
            shutil.rmtree(base, ignore_errors=True)


def run(arguments: argparse.Namespace, base: Path) -> int:
    """Injects the faults; 1 where something is wrong after one of them."""
    from faults import interposer
    from faults.bench import Bench
    from faults.fault import Fault, draw
    from faults.materials import make
    from faults.scenarios import available

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, commands would ignore it
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    os.environ["LD_PRELOAD"] = str(interposer.build(base))
    os.environ["OMP_NUM_THREADS"] = "1"
    scenarios = {name: one for name, one in available().items() if name in (arguments.scenario or available())}
    bench = Bench(base, Path(os.environ["LD_PRELOAD"]), available(), base / "materials")
    make(bench)
    names = list(scenarios)
    if arguments.fault:
        faults = iter([Fault.parse(text) for text in arguments.fault])
    elif arguments.every:
        kinds = arguments.kind or ["kill"]
        every = ((bench.reference(name), name, kind) for name in names for kind in kinds)
        faults = (Fault(name, kind, at) for _, name, kind in every for at in range(1, bench.counts[name] + 1))
    else:
        drawn = draw(scenarios, arguments.faults, arguments.kind, random.Random(arguments.seed))
        faults = ((bench.reference(one.scenario), one.fault(bench.counts[one.scenario]))[1] for one in drawn)
    kinds, failed, cpu, started = Counter[str](), list[str](), 0.0, time.monotonic()
    is_stopped = False
    try:
        for fault in faults:
            before = bench.cpu_seconds()
            wrong = bench.inject(fault)
            kinds[fault.kind] += 1
            cpu += bench.cpu_seconds() - before
            if wrong:
                failed.append(str(fault))
                print(f"{fault} FAILED", *wrong, sep="\n    ", flush=True)
            elif arguments.verbose:
                print(f"{fault}  {bench.cpu_seconds() - before:.2f} s", flush=True)
    except KeyboardInterrupt:  # what was counted so far is shown
        is_stopped = True
    minutes = (time.monotonic() - started) / 60
    total = kinds.total()
    print(", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    by_clock, by_cpu = total / max(minutes, 1e-9), 60 * total / max(cpu, 1e-9)
    print(f"{total} faults, {len(failed)} failed, {by_clock:.0f} a minute, {by_cpu:.0f} in a minute of CPU time")
    if failed:
        print(f"again: python -m tests.faults {' '.join(f'--fault {one}' for one in failed)}")
    return 130 if is_stopped else 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
