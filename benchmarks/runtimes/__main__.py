"""All built-in pooling layers and whole bundles in every runtime that is installed, into docs/results/runtimes.md.

    python -m benchmarks.runtimes [--runtimes NAME …] [--only GLOB …] [--folder runs/runtimes] [--no-speed]
                                  [--timeout SECONDS]
    python -m benchmarks.runtimes --write [--folder runs/runtimes]

A cell is a graph in a runtime, in a process of its own with limits of time and memory. Each is a line of JSON in
FOLDER/cells.jsonl. A cell is run again where the graph, what torch gives, the runtime's version or its file changed;
one of docs/results/runtimes.json for which all that is the same is taken over. With --write the lines become
docs/results/runtimes.md and runtimes.json beside it, and nothing runs. Runtimes of another Python join the same folder
from there.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from benchmarks.runtimes import bundles, cells, layers, page
from poolzoo.common.errors import INTERRUPTED, PoolzooError, explain, reason
from poolzoo.compare.journal import Journal
from poolzoo.plugin import loader
from poolzoo.plugin.spec import Runtime
from poolzoo.runtime import availability, runtimes

ROOMS: Final = ("metrics", "poolings", "backbones", "model", "export", "plugin")
FOLDER: Final = Path("runs/runtimes")
PAGE: Final = "web"  # the page for browsers: it takes photographs, and its runtime is onnxruntime-web


def installed() -> list[str]:
    """The names of the runtimes that are here, in the catalog's order."""
    found = [runtimes.runtime_of(entry) for entry in loader.catalog().select(Runtime)]
    return [runtime.name for runtime in found if runtime.name != PAGE and availability.find(runtime).installed]


def graphs() -> list[str]:
    """The names of all layers and bundles."""
    return layers.graphs() + [one.name for one in bundles.BUNDLES]


class Graphs:
    """Makes the graphs of this version of poolzoo, each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / f"graphs-{sources()}"
        self._folder.mkdir(parents=True, exist_ok=True)

    def make(self, name: str, whole: bool) -> tuple[Path, Path]:
        """The directory of a graph, and the file of its cases."""
        directory = self._folder / str(graphs().index(name))
        cases = directory.with_suffix(".npz")
        if not cases.exists():  # which is written last
            shutil.rmtree(directory, ignore_errors=True)
            (bundles if whole else layers).write(name, directory)
        return directory, cases


def sources() -> str:
    """A digest of the code that graphs come from."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    files = [file for room in ROOMS for file in (root / "poolzoo" / room).rglob("*.py")]
    for file in sorted([*files, Path(layers.__file__), Path(bundles.__file__)]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def work(
    names: Sequence[str], chosen: Sequence[str], journal: Journal, folder: Path, measure_speed: bool, seconds: float
) -> None:
    """Runs the cells that the journal does not hold yet."""
    made = Graphs(folder)
    published = page.published()
    whole = {one.name for one in bundles.BUNDLES}
    places = {name: _try(lambda name=name: made.make(name, name in whole), name) for name in names}
    for runtime in chosen:
        with cells.Warm(runtime, seconds) as warm:
            for name, place in places.items():
                if place is None:
                    continue
                trial, key = f"{name} | {runtime}", cells.key(*place, warm.entry)
                timed = measure_speed and name in whole
                if _holds(journal.records.get(trial, {}), key, timed):
                    continue
                if _holds(published.get(trial, {}), key, timed):
                    journal.add(published[trial])
                    continue
                found = cells.run(name, *place, warm, whole=name in whole, measure_speed=measure_speed)
                journal.add(found.to_json())
                print(f"{runtime}: {name}: {found.status} {found.detail}".rstrip(), file=sys.stderr, flush=True)


def _holds(record: Mapping[str, object], key: str, timed: bool) -> bool:
    """Whether a line of the journal is the result of a cell, with its speed where that is wanted and can be had."""
    return record.get("key") == key and not (timed and record["status"] == "agrees" and record["speed"] is None)


def _try(make: Callable[[], tuple[Path, Path]], name: str) -> tuple[Path, Path] | None:
    """A graph's files; None where it cannot be made, which is said."""
    try:
        return make()
    except Exception as error:
        print(f"{name} cannot be made: {reason(error)}", file=sys.stderr, flush=True)
        return None


def main() -> None:
    """Runs the cells that are asked for, or writes the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runtimes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runtimes", nargs="+", default=installed(), metavar="NAME", help="default: all installed")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="GLOB", help="of layers and bundles")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"of the journal and the graphs; default {FOLDER}")
    parser.add_argument("--no-speed", action="store_true", help="do not time bundles")
    parser.add_argument(
        "--timeout",
        type=float,
        default=cells.SECONDS,
        metavar="SECONDS",
        help=f"for opening, converting or a batch, above which a cell is too slow; default {cells.SECONDS:g}",
    )
    parser.add_argument("--write", action="store_true", help="write the page from the journal, and run nothing")
    given = parser.parse_args()
    names = [name for name in graphs() if any(fnmatch.fnmatchcase(name, glob) for glob in given.only)]
    if not names:
        parser.error(f"nothing is called {' or '.join(given.only)}; such as 'global *'")
    torch.set_num_threads(1)
    try:
        journal = Journal(given.folder / "cells.jsonl")
        if given.write and not journal.records:
            parser.error(f"{journal.path} holds no cells; run some first")
        if given.write:
            page.write([cells.CellResult.from_json(record) for record in journal.records.values()])
            return
        chosen = [runtimes.identity_of(entry) for entry in runtimes.select(given.runtimes)]
        given.folder.mkdir(parents=True, exist_ok=True)
        work(names, chosen, journal, given.folder, not given.no_speed, given.timeout)
    except (PoolzooError, OSError) as error:
        problem = explain(error)
        parser.error(f"{problem.message}; {problem.hint}" if problem.hint else problem.message)
    except KeyboardInterrupt:
        parser.exit(INTERRUPTED, f"{parser.prog}: stopped; the same command continues\n")


if __name__ == "__main__":
    main()
