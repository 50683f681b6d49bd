"""The state of this process that a test must leave as it was: environment, torch, random generators, the catalog."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from poolzoo.common import output
from poolzoo.plugin import loader
from poolzoo.plugin.discovery import FILE_MODULE
from poolzoo.plugin.isolation import GlobalState

DRAWN: Final = ("Python's random generator", "torch's random generator")  # tests may draw random numbers
OF_PYTEST: Final = ("PYTEST_CURRENT_TEST",)  # which pytest changes itself


@contextmanager
def kept() -> Iterator[None]:
    """A block after which the process is as before it: what poolzoo does to its own process, a test does not see.

    Within it, plugins are found anew, and warnings are ignored as on the command line.
    """
    environment, state = dict(os.environ), _State()
    loader.forget()
    output.set_verbosity(output.NORMAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        state.restore()
        _restore_environment(environment)
        loader.forget()
        output.set_verbosity(output.NORMAL)


class LeakCheck:
    """Notes the state of the process when it is made, and says later what has changed."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._state = _State()

    def restore(self) -> list[str]:
        """Undoes all changes; returns in words those that a test should not make."""
        changed = [name for name in self._state.restore() if name not in DRAWN]
        return changed + [f"${name}" for name in _restore_environment(self._environment)]


class _State:
    """What `GlobalState` restores, but for folders that libraries add to `sys.path` below one that is there."""

    def __init__(self) -> None:
        self._state = GlobalState()
        self._path = list(sys.path)

    def restore(self) -> list[str]:
        places = [Path(entry) for entry in self._path if entry]
        added = [entry for entry in sys.path if entry not in self._path]
        added = [entry for entry in added if any(place in Path(entry).parents for place in places)]
        sys.path[:] = [entry for entry in sys.path if entry not in added]
        changed = self._state.restore()
        sys.path.extend(added)
        return changed


def forget_plugins(folder: Path) -> None:
    """Drops the catalog, and the modules of plugin files in a folder."""
    loader.forget()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith(FILE_MODULE) and file and Path(file).is_relative_to(folder):
            del sys.modules[name]


def _restore_environment(before: dict[str, str]) -> list[str]:
    """Restores variables that were there, and those of poolzoo; libraries add others when they are imported.

    Returns:
        The names of those that had changed.
    """
    ours = [name for name in os.environ if name.startswith("POOLZOO_") and name not in before]
    changed = [name for name, value in before.items() if os.environ.get(name) != value and name not in OF_PYTEST]
    for name in ours:
        del os.environ[name]
    os.environ.update({name: before[name] for name in changed})
    return [*changed, *ours]
