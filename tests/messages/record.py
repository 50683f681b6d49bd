"""Which place in the source is provoked by what: `sites.txt`, and the command that writes it.

A line has the key of a place, a tab, and one of: `command lines`, `calls`, a test of the suite, `nothing: why`, or
`needs` and what the machine or the Python must have, or lack, for it. `messages.suite` finds tests of the suite.
Run it in `tests/`, with the root of the repository in PYTHONPATH: `python -m messages.record`.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import sys
import tempfile
from collections import Counter
from itertools import chain
from pathlib import Path

from support import error_sites

from messages import absent, calls, command_lines
from poolzoo import cli
from poolzoo.common.errors import PoolzooError
from poolzoo.plugin import loader

FILE = Path(__file__).with_name("sites.txt")
LINES, CALLS, NOTHING, NEEDS = "command lines", "calls", "nothing", "needs"
BY_CATALOG = (LINES, CALLS)
OPEN = (NOTHING, NEEDS)  # where a test of the suite may take over
MOST_UNPROVOKED = 0
MOST_ELSEWHERE = 0  # places that need another machine, or another Python; `absent` hides what this one has
# Files whose errors are reasons that somebody else collects and shows with a hint.
REASONS = frozenset(
    {
        "common/errors.py",
        "compare/board/checks/conditions.py",
        "compare/board/checks/context.py",
        "compare/board/checks/figures.py",
        "compare/board/checks/files.py",
        "compare/board/checks/network.py",
        "compare/board/checks/plugins.py",
        "compare/board/checks/weights.py",
        "compare/board/rerun.py",
        "compare/board/submission.py",
        "data/streaming/skipped.py",
        "explain/head.py",
        "plugin/loader.py",
        "runtime/bench.py",
        "runtime/builtin/chromium.py",
        "runtime/builtin/litert.py",
        "runtime/builtin/web.py",
        "runtime/forms.py",
        "runtime/opsets.py",
        "runtime/worker.py",
    }
)


def keys() -> dict[str, error_sites.Site]:
    """Every place by its key: the file, the function, and its number there, which a change of its text leaves."""
    counts: Counter[str] = Counter()
    found = {}
    for site in sorted(error_sites.sites().values(), key=lambda one: (one.file, one.line, one.column)):
        name = f"{site.file} {site.function}"
        counts[name] += 1
        found[f"{name} {counts[name]}"] = site
    return found


def lacks_hint(site: error_sites.Site) -> bool:
    """Whether a place gives its error no hint."""
    call = ast.parse(site.text, mode="eval").body
    assert isinstance(call, ast.Call)
    needed = 3 if ast.unparse(call.func) in ("RuntimeFailed", "WrongAnswer", "CannotRunHere", "NothingToReduce") else 2
    return needed == 2 and len(call.args) + len(call.keywords) < needed


def provoked(folder: Path) -> dict[str, str]:
    """The keys of the places that the catalog provokes, run in a folder that has its files."""
    names = {site: key for key, site in keys().items()}
    found: dict[str, str] = {}
    with error_sites.recorded() as made:
        for _, words in command_lines.WRONG:
            loader.forget()
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                cli.run([*words])
            loader.settings.reset()
        found |= {names[one.site]: LINES for one in made}
        made.clear()
        for call in chain(calls.calls(folder), calls.reasons(folder)):
            try:
                call()
            except PoolzooError:
                pass
            except Exception as error:  # the test of the calls fails on it
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return {**{names[one.site]: CALLS for one in made}, **found}


def read() -> dict[str, str]:
    """What provokes each place, as it is listed."""
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    return {key: by for key, _, by in (line.partition("\t") for line in lines)}


def write(found: dict[str, str]) -> None:
    """Writes what provokes each place, and `nothing` for those that have no line yet."""
    lines = [f"{key}\t{found.get(key, f'{NOTHING}: not yet')}\n" for key in keys()]
    FILE.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Writes the list anew: what the catalog provokes, then what was listed, then `nothing` for what is new."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        os.environ.setdefault("POOLZOO_CACHE", name)
        command_lines.files(Path(name))
        with absent.unused():
            found = provoked(Path(name))
    write({**{key: by for key, by in read().items() if by not in BY_CATALOG}, **found})


if __name__ == "__main__":
    main()
