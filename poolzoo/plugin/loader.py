"""The process's catalog of plugins: found, loaded in isolation on first use, and kept.

What goes wrong with one plugin becomes a `Problem` and stops nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import pluggy

from poolzoo.common import output
from poolzoo.common.errors import PluginError, UsageError
from poolzoo.plugin import spec
from poolzoo.plugin.catalog import Catalog, Entry, Failure, Resolved
from poolzoo.plugin.discovery import Candidate, admitted, duplicates, find
from poolzoo.plugin.problems import Source, summary
from poolzoo.plugin.registration import register
from poolzoo.plugin.settings import settings

_catalog: Catalog | None = None


def catalog() -> Catalog:
    """The catalog of this process, loaded on first use; problems are reported once, on stderr.

    Raises:
        PluginError: A plugin failed and `--strict` was given.
    """
    global _catalog
    if _catalog is None:
        found = candidates()
        if unknown := [name for name in settings.prefer if not any(one.answers_to(name) for one in found)]:
            raise UsageError(f"--prefer {unknown[0]!r}: no such plugin", "poolzoo plugin list shows their names")
        _catalog = load(admitted(found), settings.prefer)
        lines = summary(_catalog.problems)
        for text, hint in lines[1:] if settings.strict else lines:  # a strict error says the first itself
            output.warn(text, hint)
    if settings.strict and _catalog.problems:
        raise PluginError(*summary(_catalog.problems)[0])
    return _catalog


def candidates() -> list[Candidate]:
    """Every plugin that the command line and the environment let in, imported or not, disabled or not.

    Raises:
        UsageError: A file or directory that was named does not exist.
    """
    if not settings.third_party:
        return find(installed=False)
    directories = list(settings.directories)
    if named := os.environ.get("POOLZOO_PLUGINS_DIR"):
        if not os.path.isdir(named):
            raise UsageError(f"POOLZOO_PLUGINS_DIR names no directory: {named!r}", "unset it, or make the directory")
        from pathlib import Path

        directories.append(Path(named))
    return find(settings.files, directories, settings.installed)


def load(candidates: Iterable[Candidate], prefer: Sequence[str] = ()) -> Catalog:
    """Imports and registers each candidate alone, and collects what they provide.

    Args:
        candidates: What was found, in order of precedence.
        prefer: Distributions whose entries a bare name means where others have it too.
    """
    manager = pluggy.PluginManager(spec.PROJECT)
    manager.add_hookspecs(spec)
    catalog = Catalog(manager, prefer)
    everything = list(candidates)
    same = duplicates(everything)
    for candidate, original in same.items():
        catalog.add_duplicate(candidate.name, candidate.source, original.source)
    for candidate in everything:
        if candidate not in same:
            register(catalog, candidate)
    return catalog


def load_plugins(*files: str | os.PathLike[str], installed: bool = True) -> Catalog:
    """Loads plugins from Python: the files given and, unless `installed` is False, the installed ones.

    Returns:
        The catalog, which `create_pooling`, `create_model` and the rest use from then on. Its `problems` say what
        could not be loaded.
    """
    from pathlib import Path

    global _catalog
    settings.files = [Path(file) for file in files]
    settings.installed = installed
    _catalog = None
    return catalog()


def add_files(files: Iterable[str], named_by: str | os.PathLike[str]) -> None:
    """Adds the plugin files that a run or a comparison names, and says so: they are programs, and not its data.

    Args:
        files: Their paths.
        named_by: The directory whose files name them.
    """
    from pathlib import Path

    for path in dict.fromkeys(map(Path, files)):
        if path not in settings.files:
            if settings.third_party:
                output.say(f"loading the plugin {path}, which {os.fspath(named_by)} names")
            settings.files.append(path)


def report_failures() -> None:
    """Warns, at the end of a command, of each plugin that failed at an event more than once."""
    if _catalog is not None:
        _catalog.report_failures()


def use(catalog: Catalog) -> None:
    """Makes a catalog the process's own."""
    global _catalog
    _catalog = catalog


def forget() -> None:
    """Drops the loaded catalog and the settings, so that the next call starts anew."""
    global _catalog
    _catalog = None
    settings.reset()


__all__ = [
    "Catalog",
    "Entry",
    "Failure",
    "Resolved",
    "Source",
    "add_files",
    "candidates",
    "catalog",
    "forget",
    "load",
    "load_plugins",
    "report_failures",
    "settings",
    "use",
]
