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

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from benchmarks.cli import pairs
from benchmarks.cli.resources import ROOT, Photographs, Side, Usage

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


def measure(names: Sequence[str], base: Path, rounds: int) -> tuple[list[pairs.Row], list[str]]:
    """Exports in turns, and prints each case as it is done; also returns in what bundles differ."""
    rows: list[pairs.Row] = []
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
            rows += pairs.show(name, taken)
    return rows, sorted(set(wrong))


def main() -> None:
    sys.exit(any(one.endswith(GRAPH) for one in pairs.compare(__doc__, CASES, measure, rounds=5)))


if __name__ == "__main__":
    main()
