"""What goes wrong with plugins: who provides what, one problem, and the summary of many in a few lines."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from poolzoo.common.errors import reason, show_traceback
from poolzoo.common.text import one_line

MAX_ERROR: Final = 1200  # characters of an error
MAX_PLUGINS: Final = 10  # plugins with problems up to which a summary names all
FEW_PLUGINS: Final = 5  # plugins that it names where there are more
MAX_EXAMPLES: Final = 3  # errors of one stage of one plugin that it shows
MAX_EXAMPLE: Final = 400  # characters of all of these together
MAX_LINE: Final = 800  # characters of the line on one plugin, and of its hint


@dataclass(frozen=True)
class Source:
    """Who provides an item: a distribution, its version, how it was found, and the file of its module."""

    dist: str
    version: str | None
    tier: str
    path: str | None = None  # of a plugin that was found as a file
    module_file: str | None = field(default=None, compare=False)  # of one that was found as an installed module

    def to_json(self) -> dict[str, str | None]:
        where = {} if self.path is None else {"path": self.path}
        return {"dist": self.dist, "version": self.version, "tier": self.tier, **where}

    def sha256(self) -> str | None:
        """The hash of the plugin's file; of a package, that of the module with its hooks."""
        file = self.path or self.module_file
        if not file:
            return None
        import hashlib

        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    def how_to_disable(self, plugin: str) -> str:
        """What to type so that a plugin is not loaded; "" of a built-in one."""
        if self.tier == "built-in":
            return ""
        import shlex

        if self.tier == "file":
            return f"leave --plugin {shlex.quote(self.path or plugin)} out"
        command = f"poolzoo plugin disable {shlex.quote(plugin)}"
        folder = os.path.dirname(self.path or "")
        known = os.environ.get("POOLZOO_PLUGINS_DIR")
        named = folder and not (known and os.path.abspath(known) == folder)  # on the command line
        return f"{command} --plugins-dir {shlex.quote(folder)}" if named else command


@dataclass(frozen=True)
class Problem:
    """What went wrong with one plugin, at which stage, and what to do about it.

    Attributes:
        plugin: The plugin's name.
        dist: The name of its distribution, or of its file.
        version: The distribution's version.
        stage: What poolzoo was doing, such as "import".
        error: What went wrong, on one line.
        hint: What to do about it.
        source: Where the plugin comes from.
        clash: Whether the only problem is that another plugin provides the same name.
    """

    plugin: str
    dist: str
    version: str | None
    stage: str
    error: str
    hint: str
    source: Source | None = field(default=None, compare=False, repr=False)
    clash: bool = field(default=False, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.label} failed at {self.stage}: {self.error}"

    @property
    def label(self) -> str:
        release = f"{self.dist} {self.version}" if self.version else self.dist
        return f"plugin {one_line(self.plugin, 100)} ({one_line(release, 100)})"

    def to_json(self) -> dict[str, str | None]:
        return {key: getattr(self, key) for key in ("plugin", "dist", "version", "stage", "error", "hint")}


def problem_of(
    plugin: str, source: Source, stage: str, error: BaseException | str, hint: str, *, clash: bool = False
) -> Problem:
    """The problem of a plugin; its hint ends with how to disable it. POOLZOO_DEBUG prints the traceback on stderr."""
    if isinstance(error, BaseException):
        show_traceback(error)
    text = one_line(error, MAX_ERROR) if isinstance(error, str) else reason(error, MAX_ERROR)
    hint = "; or ".join(part for part in (hint, source.how_to_disable(plugin)) if part)
    return Problem(plugin, source.dist, source.version, stage, text or "no reason given", hint, source, clash)


def short_repr(value: object) -> str:
    """A value in a few characters, whatever its `__repr__` does."""
    try:
        return f"{value!r:.80}"
    except Exception as error:
        return f"(its repr raises {type(error).__name__})"


def summary(problems: Iterable[Problem]) -> list[tuple[str, str]]:
    """A line and a hint for each plugin, with a few errors of each stage; of many plugins, some and how many more."""
    by_plugin: dict[tuple[str, Source | None], list[Problem]] = {}
    for problem in problems:
        by_plugin.setdefault((problem.plugin, problem.source), []).append(problem)
    named = list(by_plugin.values())[: FEW_PLUGINS if len(by_plugin) > MAX_PLUGINS else MAX_PLUGINS]
    lines = []
    for own in named:
        text = f"{own[0].label} failed at {by_stage(own)}"
        lines.append((one_line(text, MAX_LINE), one_line(own[0].hint, MAX_LINE)))
    if more := len(by_plugin) - len(named):
        lines.append((f"and {more} more: poolzoo plugin list --load", ""))
    return lines


def by_stage(problems: Iterable[Problem]) -> str:
    """What is wrong with one plugin: each stage with a few errors and the number of the others."""
    errors: dict[str, list[str]] = {}
    for problem in problems:
        errors.setdefault(problem.stage, []).append(problem.error)
    parts = []
    for stage, found in errors.items():
        few = found[:MAX_EXAMPLES]
        more = f" and {len(found) - len(few)} more" if len(found) > len(few) else ""
        parts.append(f"{stage}: {'; '.join(one_line(error, MAX_EXAMPLE // len(few)) for error in few)}{more}")
    return "; at ".join(parts)
