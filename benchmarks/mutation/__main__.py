"""How many faults of `poolings`, `plugin`, `artifacts` and `parity` the tests notice: mutants, drawn at random.

    python -m benchmarks.mutation [--packages NAME …] [--files GLOB] [--tests PATH …] [--sample 150] [--seed 0]
        [-k EXPRESSION] [--seconds 20] [--jobs 2] [--out mutants]

Prints each survivor, and for each package the share of mutants killed with Wilson's 95 % interval. A mutant is killed
if a test fails or takes five times as long as usual, and passes where nothing is changed. Its tests are those of
`TESTS` that execute the line, the cheapest first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from poolzoo.common import json_writer
from poolzoo.metrics.intervals import wilson_interval

if TYPE_CHECKING:
    from benchmarks.mutation.mutants import Mutant
    from benchmarks.mutation.session import Result

TESTS: Final = {
    "poolings": (
        "tests/poolings",
        "tests/testing/test_conformance.py::test_every_pooling_keeps_its_promises",
        "tests/testing/test_gradients.py",
        "tests/report/test_gallery.py",
        "tests/model/test_assemble.py",
        "tests/model/test_accounting.py",
    ),
    "plugin": (
        "tests/plugin",
        "tests/testing/test_project.py",
        "tests/testing/test_indexed_datasets.py",
        "tests/testing/test_multilabel_datasets.py",
        "tests/testing/test_selection.py",
        "tests/cli/test_cli.py",
        "tests/data/test_plugin_storages.py",
        "tests/messages/test_messages.py",
        "tests/security/test_hostile_names.py",
    ),
    "artifacts": (
        "tests/artifacts",
        "tests/export/test_deploy.py",
        "tests/fuzz/test_properties.py",
        "tests/messages/test_messages.py",
        "tests/metrics/test_metrics.py",
        "tests/report/test_results.py",
        "tests/security/test_bundle_is_data.py",
        "tests/train/test_train.py",
    ),
    "parity": (
        "tests/parity",
        "tests/export/test_faults.py",
        "tests/export/test_deploy.py",
        "tests/export/test_photo.py",
    ),
}
QUIET: Final = ("-q", "-n", "0", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not slow and not gpu")


def main() -> int:
    arguments = _parser().parse_args()
    screen = os.fdopen(os.dup(1), "w")  # pytest keeps what is printed
    rows = [_package(name, arguments, screen) for name in arguments.packages]
    print("\n| package | mutants | tried | killed | 95 % interval | no test reaches | a second |", file=screen)
    print("|---|---|---|---|---|---|---|", *rows, sep="\n", file=screen, flush=True)
    return 0


def _package(name: str, arguments: argparse.Namespace, screen: TextIO) -> str:
    import pytest

    from benchmarks.mutation.mutants import mutants_of
    from benchmarks.mutation.session import MutationSession

    folder = Path("poolzoo", name)
    every: list[Mutant] = []
    left_out = 0
    for path in sorted(folder.rglob(arguments.files)):
        if "templates" not in path.parts:
            found, others = mutants_of(path)
            every += found
            left_out += others
    chosen = sample(every, arguments.sample, arguments.seed)
    print(f"\n{name}: {len(every)} mutants, {len(chosen)} drawn; {left_out} left out", file=screen, flush=True)
    file = Path(arguments.out) / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")

    def report(result: Result) -> None:  # in the process that tried it
        with file.open("a", encoding="utf-8") as out:
            out.write(json_writer.dumps(result.to_json()) + "\n")
        if result.verdict in ("survived", "uncovered"):
            print(f"{result.verdict} {result.mutant}", file=screen, flush=True)

    session = MutationSession(chosen, [folder], arguments.seconds, arguments.jobs, report)
    options = [*QUIET, "-o", "tmp_path_retention_policy=none", f"--basetemp={file.with_suffix('.tmp').absolute()}"]
    if arguments.keyword:
        options += ["-k", arguments.keyword]
    pytest.main([*options, *(arguments.tests or TESTS[name])], plugins=[session])
    for test in session.unfit:
        print(f"{test} fails without any mutant, and is left out", file=screen)
    verdicts = Counter(json.loads(line)["verdict"] for line in file.read_text(encoding="utf-8").splitlines())
    tried = verdicts.total()
    killed = verdicts["killed"] + verdicts["timeout"]
    if not tried:
        return f"| {name} | {len(every)} | 0 | | | | |"
    low, high = wilson_interval(killed, tried)
    print(f"{name}: {killed} of {tried} killed", file=screen, flush=True)
    return (
        f"| {name} | {len(every)} | {tried} | {killed / tried:.1%} | {low:.1%}–{high:.1%} | {verdicts['uncovered']} "
        f"| {tried / session.trying:.2f} |"
    )


def sample(mutants: list[Mutant], size: int, seed: int) -> list[Mutant]:
    """Mutants drawn without replacement, in the order drawn: what an interrupted run has tried is a sample too."""
    return random.Random(seed).sample(mutants, min(size, len(mutants)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", nargs="+", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--sample", type=int, default=150, help="mutants of each package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", default="*.py", help="pattern of the files to change")
    parser.add_argument("--tests", nargs="+", help="test files in place of those of `TESTS`")
    parser.add_argument("-k", dest="keyword", help="pytest's expression of the tests to run, such as 'not export'")
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU seconds of tests for each mutant")
    parser.add_argument("--jobs", type=int, default=2, help="processes that try mutants")
    parser.add_argument("--out", default="mutants", help="folder that gets a file of results for each package")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
