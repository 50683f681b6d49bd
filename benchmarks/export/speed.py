"""How long `poolzoo export` takes, beside another checkout of poolzoo: whole processes, from start to bundle.

python -m benchmarks.export.speed --base PATH_OF_OTHER_TREE [--rounds 5] [--only GLOB …] [--json FILE]

The cases:

    digits    nano/resnet on the digits, `export RUN`
    resnet18  timm/resnet18 at 128 on photographs, frozen and from random weights, `export RUN`
    auto      nano/resnet on the digits, `export RUN --precision auto`
    search    the same with `--min-agreement 0.999`, which int8 misses, so that layers return to float32
    depthwise timm/mobilenetv3_small_050 on the digits, `export RUN --precision auto`

The older side trains the runs of the first two, one epoch each, and this tree the others, which it calibrates; it also
chooses prediction sets for them (`--prediction-sets 0.9`), where the older side may know neither. It prints how many
layers returned. Both export the same run in turns. A ratio is this tree ÷ the other, within a pair of processes. Shown
is the geometric mean with its 95 % interval, from Student's t of the logarithms. Memory is the largest resident set. Of
each case the first pair, in which files come from the disk, is not counted.

Each pair also compares the bundles: the graph byte for byte, without the metadata that names poolzoo's version, and the
figures of the parity check. Where graphs differ, the exit code is 1. Figures of a single edge case may differ in their
rounding, even between two checkouts of one commit: sums in float32 depend on where memory lies.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from scipy import stats

from benchmarks.cli.resources import Photographs, Side, Usage

ROOT: Final = Path(__file__).parents[2]
FIGURES: Final = {"wall, s": "wall", "CPU, s": "cpu", "peak, GB": "peak"}
UNITS: Final = {"peak": 1e9}
ROW: Final = "{case:10}{figure:10}{before:8.2f} {after:8.2f}   {ratio:.3f} ({low:.3f} to {high:.3f})"
GRAPH: Final = "model.onnx"
TIMED: Final = ("candidates",)  # of parity.json: holds times, which differ from run to run
VERSION: Final = "versions"  # of the metadata: names the version of poolzoo


@dataclass(frozen=True)
class Case:
    """One export.

    Attributes:
        run: The name of the run.
        train: Arguments of `finetune` for it, from the folder of photographs.
        export: Further arguments of `export`.
        newer: Arguments of `export` for this tree alone, which then trains the run.
        chooses: Whether times decide which graph the bundle holds, so that two bundles may differ.
    """

    run: str
    train: Callable[[Path], tuple[str, ...]]
    export: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()
    chooses: bool = False


def on_digits(photographs: Path) -> tuple[str, ...]:
    return ("--data", "digits", "--backbone", "nano/resnet", "--epochs", "1")


def at_128(photographs: Path) -> tuple[str, ...]:
    frozen = ("--backbone", "timm/resnet18", "--freeze", "backbone", "--image-size", "128")
    return ("--data", f"folder:{photographs}", *frozen, "--epochs", "1")


def depthwise(photographs: Path) -> tuple[str, ...]:
    return ("--data", "digits", "--backbone", "timm/mobilenetv3_small_050", "--pool", "avg", "--epochs", "1")


SETS: Final = ("--prediction-sets", "0.9")
AUTO: Final = ("--precision", "auto")
CASES: Final = {
    "digits": Case("digits", on_digits),
    "resnet18": Case("photographs", at_128),
    "auto": Case("calibrated", on_digits, AUTO, SETS, chooses=True),
    "search": Case("calibrated", on_digits, (*AUTO, "--min-agreement", "0.999"), SETS, chooses=True),
    "depthwise": Case("depthwise", depthwise, AUTO, SETS, chooses=True),
}


def differences(first: Path, second: Path) -> Iterator[str]:
    """In what two bundles of one run differ, where they should not."""
    graphs = [_graph(bundle / GRAPH) for bundle in (first, second)]
    if graphs[0] != graphs[1]:
        yield GRAPH
    reports = [json.loads((bundle / "parity.json").read_text()) for bundle in (first, second)]
    for key in sorted((reports[0].keys() | reports[1].keys()) - set(TIMED)):
        if reports[0].get(key) != reports[1].get(key):
            yield f"{key} in parity.json"
    with np.load(first / "golden.npz") as ours, np.load(second / "golden.npz") as theirs:
        names = sorted({*ours.files, *theirs.files})
        yield from (
            f"{name} in golden.npz"
            for name in names
            if name not in ours or name not in theirs or not np.array_equal(ours[name], theirs[name])
        )


def returned(bundle: Path) -> str:
    """How many layers returned to float32 in each precision that was searched."""
    found = json.loads((bundle / "parity.json").read_text())["candidates"]
    searched = [one for one in found if "search" in one]
    return ", ".join(f"{one['precision']}: {len(one['search']['layers'])} layers returned" for one in searched)


def _graph(file: Path) -> bytes:
    """A graph's bytes, without the versions in its metadata."""
    proto = onnx.load(file)
    kept = [entry for entry in proto.metadata_props if entry.key != VERSION]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return bytes(proto.SerializeToString(deterministic=True))


def ratio(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean of after ÷ before over pairs, and its interval; of one pair, it has no width."""
    logs = np.log(np.divide(after, before))
    width = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else 0.0
    low, mean, high = np.exp(logs.mean() + np.array([-width, 0.0, width])).tolist()
    return mean, low, high


def measure(names: Sequence[str], base: Path, rounds: int) -> tuple[list[dict[str, object]], list[str]]:
    """Exports in turns, and prints each case as it is done; also returns in what bundles differ."""
    rows: list[dict[str, object]] = []
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="speed-") as text:
        work = Path(text)
        sides = [Side("before", base, work / "before"), Side("after", ROOT, work / "after")]
        for side in sides:
            side.work.mkdir()
        folder = Photographs(work / "photographs").folder("small", 240, 128, (96, 96))
        for name in names:
            case = CASES[name]
            trainer = sides[1] if case.newer else sides[0]
            run = trainer.once(case.run, partial(trainer.run, "finetune", *case.train(folder), "--out"))
            more: list[tuple[str, ...]] = [(), case.newer]
            taken: list[list[Usage]] = [[], []]
            for turn in range(rounds + 1):
                bundles = [side.fresh(name) for side in sides]
                for index in (0, 1) if turn % 2 == 0 else (1, 0):
                    used = sides[index].run("export", run, *case.export, *more[index], "--out", bundles[index])
                    if turn:
                        taken[index].append(used)
                if case.chooses:
                    print(f"{name}: {returned(bundles[1]) or 'no layers returned'}", flush=True)
                else:
                    wrong += [f"{name}: {found}" for found in differences(*bundles)]
            for shown, figure in FIGURES.items():
                before, after = ([getattr(one, figure) / UNITS.get(figure, 1) for one in side] for side in taken)
                mean, low, high = ratio(before, after)
                row = {"case": name, "figure": shown, "before": statistics.median(before)}
                row |= {"after": statistics.median(after), "ratio": mean, "low": low, "high": high}
                rows.append(row)
                print(ROW.format(**row), flush=True)
    return rows, sorted(set(wrong))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, metavar="PATH", help="the other checkout of poolzoo")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of processes")
    parser.add_argument("--only", nargs="*", default=["*"], metavar="GLOB", help="cases to run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    names = [name for name in CASES if any(fnmatch.fnmatch(name, glob) for glob in options.only)]
    if not names or options.rounds < 1 or not (options.base / "poolzoo").is_dir():
        parser.error(f"--only matches none of {', '.join(CASES)}, --rounds is below 1, or --base is no checkout")
    print(f"{'case':10}{'figure':10}{'before':>8} {'after':>8}   ratio")
    rows, wrong = measure(names, options.base.resolve(), options.rounds)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    for one in wrong:
        print(f"the bundles differ: {one}", file=sys.stderr)
    sys.exit(any(one.endswith(GRAPH) for one in wrong))


if __name__ == "__main__":
    main()
