"""How long short commands take, beside another checkout of poolzoo: whole processes, in turns.

python -m benchmarks.cli.commands --base PATH_OF_OTHER_TREE [--rounds 7] [--only GLOB …] [--json FILE]

The cases:

    list           `list` with 50 plugins: 25 files, and 25 installed packages; each has an item of every kind
    list-json      the same as JSON
    resume         `compare --resume` of a finished comparison: 3 poolings, 3 seeds, robustness and exports
    verify         `verify BUNDLE` of nano/resnet on digits
    verify-128     the same of timm/resnet18 at 128 pixels
    check          `verify BUNDLE --no-bench` of the first
    check-128      `verify BUNDLE --no-bench` of the second


The older side trains and exports. Both read the same directories; of the comparison each has a copy. A ratio is this
tree ÷ the other, within a pair of processes. Shown is the geometric mean with its 95 % interval, from Student's t of
the logarithms. Memory is the largest resident set. The first pair, which writes bytecode, is not counted.

Each pair also compares stdout, without paths, times and versions, and the table of the comparison. Where they differ,
the exit code is 1, and the first line that differs is shown. Messages on stderr may differ from build to build.
"""

from __future__ import annotations

import itertools
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.cli import pairs
from benchmarks.cli.resources import ROOT, Photographs, Side, Usage

PLUGINS: Final = 25  # of each kind
TABLE: Final = "compare.csv"
PLUGIN: Final = '''"""A plugin with an item of every kind."""
from poolzoo import Backbone, Dataset, Pooling, Runtime, hookimpl


def build(channels, p: float = 3.0):
    from torch import nn

    return nn.AdaptiveAvgPool2d(1)


@hookimpl
def poolzoo_poolings():
    yield Pooling(name="{name}", kind="global", build=build, summary="a pooling")
    yield Pooling(name="{name}", kind="local", build=build, summary="a pooling of windows")


@hookimpl
def poolzoo_backbones():
    yield Backbone(name="{name}/small", build=build, summary="a backbone")


@hookimpl
def poolzoo_datasets():
    yield Dataset(name="{name}", load=build, summary="a data set")


@hookimpl
def poolzoo_runtimes():
    yield Runtime(name="{name}", open=build, modules=("{name}_runtime",), summary="a runtime")
'''


def write_plugins(folder: Path) -> tuple[Path, Path]:
    """A folder of plugins that are files, and one of installed packages."""
    files, site = folder / "files", folder / "site"
    files.mkdir(parents=True)
    for number in range(PLUGINS):
        (files / f"file{number}.py").write_text(PLUGIN.format(name=f"file{number}"))
        name = f"package{number}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[poolzoo]\n{name} = {name}\n")
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(PLUGIN.format(name=name))
    return files, site


class Inputs:
    """What the commands read, made by the older side when it is first asked for."""

    def __init__(self, older: Side, work: Path) -> None:
        self._older = older
        self._work = work

    def comparison(self, side: Side) -> Path:
        """The side's own copy of one finished comparison."""
        grid = ("--data", "digits", "--backbone", "nano/plain", "--pool", "avg,max,gem:p=4", "--epochs", "1")
        few = ("--seeds", "3", "--limit", "200", "--robustness-samples", "20", "--export-top", "1")
        finished = self._older.once("comparison", partial(self._older.run, "compare", *grid, *few, "--out"))
        return side.once("resumed", lambda path: shutil.copytree(finished, path))

    def digits(self, side: Side) -> Path:
        return self._bundle("digits", "--data", "digits", "--backbone", "nano/resnet", "--limit", "200")

    def at_128(self, side: Side) -> Path:
        folder = Photographs(self._work / "photographs").folder("few", 32, 32, (96, 96))
        backbone = ("--backbone", "timm/resnet18", "--freeze", "backbone", "--image-size", "128")
        return self._bundle("large", "--data", f"folder:{folder}", *backbone)

    def _bundle(self, name: str, *settings: str) -> Path:
        train = partial(self._older.run, "finetune", *settings, "--epochs", "1", "--out")
        run = self._older.once(f"{name}-run", train)
        return self._older.once(name, partial(self._older.run, "export", run, "--no-bench", "--out"))


Arguments = Callable[[Inputs, Side], tuple[str | Path, ...]]
CASES: Final[dict[str, Arguments]] = {
    "list": lambda inputs, side: ("list",),
    "list-json": lambda inputs, side: ("list", "--json"),
    "resume": lambda inputs, side: ("compare", "--resume", inputs.comparison(side)),
    "verify": lambda inputs, side: ("verify", inputs.digits(side)),
    "verify-128": lambda inputs, side: ("verify", inputs.at_128(side)),
    "check": lambda inputs, side: ("verify", inputs.digits(side), "--no-bench"),
    "check-128": lambda inputs, side: ("verify", inputs.at_128(side), "--no-bench"),
}


def printed(side: Side) -> list[str]:
    """The lines of the side's last command on stdout, without times, its own paths and poolzoo's version."""
    lines = (side.work / "out").read_text().splitlines()
    version = runpy.run_path(str(side.source / "poolzoo" / "_version.py"))["__version__"]
    kept = (line for line in lines if not line.startswith("batch "))
    return [line.replace(_name(side), "").replace(version, "VERSION") for line in kept]


def _name(side: Side) -> str:
    """The folder that the side works in, whose last parts have random names."""
    return str(side.made.get("resumed", side.work))


def differences(name: str, sides: Sequence[Side]) -> Iterator[str]:
    """In what the last commands of both sides differ, where they should not."""
    pairs = itertools.zip_longest(*(printed(side) for side in sides), fillvalue="nothing")
    yield from (f"{name}: {first!r} became {second!r}" for first, second in pairs if first != second)
    tables = [(side.made["resumed"] / TABLE).read_bytes() for side in sides if "resumed" in side.made]
    if len(set(tables)) > 1:
        yield f"{name}: {TABLE}"


def measure(names: Sequence[str], base: Path, rounds: int) -> tuple[list[pairs.Row], list[str]]:
    """Runs both sides in turns, and prints each case as it is done; also returns what differs."""
    rows: list[pairs.Row] = []
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="commands-") as text:
        work = Path(text)
        files, site = write_plugins(work / "plugins")
        plain = {"PYTHONDONTWRITEBYTECODE": "", "POOLZOO_CONFIG": str(work / "config")}
        plain["PYTHONPYCACHEPREFIX"] = str(work / "bytecode")
        sides = [Side("before", base, work / "before"), Side("after", ROOT, work / "after")]
        for side in sides:
            side.work.mkdir()
            side.environment = plain
        inputs = Inputs(sides[0], work)
        for name in names:
            arguments = [CASES[name](inputs, side) for side in sides]  # made before plugins are there
            taken: list[list[Usage]] = [[], []]
            for side in sides:
                with_plugins = name.startswith("list")
                side.path = (site,) if with_plugins else ()
                side.environment = {**plain, **({"POOLZOO_PLUGINS_DIR": str(files)} if with_plugins else {})}
            for turn in range(rounds + 1):
                for index in (0, 1) if turn % 2 == 0 else (1, 0):
                    used = sides[index].run(*arguments[index])
                    if turn:
                        taken[index].append(used)
                wrong += differences(name, sides)
            for side in sides:
                side.path, side.environment = (), plain
            rows += pairs.show(name, taken)
    return rows, sorted(set(wrong))


def main() -> None:
    sys.exit(bool(pairs.compare(__doc__, CASES, measure, rounds=7)))


if __name__ == "__main__":
    main()
