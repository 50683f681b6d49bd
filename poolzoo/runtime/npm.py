"""Finds packages of npm that are installed: poolzoo never installs one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from poolzoo.common.errors import EnvironmentProblem
from poolzoo.common.programs import find_program


def find_package(name: str) -> Path:
    """The folder of an npm package.

    It is looked for in the folders of `NODE_PATH`, and where `npm install --global` puts packages.

    Raises:
        EnvironmentProblem: It is not installed.
    """
    if (found := look_up(name)) is not None:
        return found
    hint = f"npm install --global {name}, or set NODE_PATH to the node_modules folder that has it"
    raise EnvironmentProblem(f"the npm package {name} is not installed", hint)


def look_up(name: str) -> Path | None:
    """The same, or None where it is not installed."""
    folders = (folder / name for folder in _module_folders())
    return next((folder.resolve() for folder in folders if (folder / "package.json").is_file()), None)


def package_version(package: Path) -> str:
    """The version of a package's folder, "" where it states none."""
    try:
        facts = json.loads((package / "package.json").read_text(encoding="utf-8"))
        return str(facts.get("version", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _module_folders() -> Iterator[Path]:
    yield from (Path(entry) for entry in os.environ.get("NODE_PATH", "").split(os.pathsep) if entry)
    if sys.platform == "win32":
        yield Path(os.environ.get("APPDATA", "")) / "npm" / "node_modules"
        return
    if (node := find_program("node")) is not None:
        yield Path(node).resolve().parent.parent / "lib" / "node_modules"
    yield Path("/usr/local/lib/node_modules")
