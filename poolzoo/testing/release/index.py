"""The newest poolzoo that the package index has."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poolzoo.testing import child
from poolzoo.testing.release.surroundings import clean_environment

SECONDS: Final = 180.0  # that the index may take
UNREACHABLE: Final = ("Retrying (", "Max retries exceeded", "connection error", "ConnectionError", "timed out")


@dataclass(frozen=True)
class Newest:
    """What the index answered.

    Attributes:
        wheel: The wheel of the newest poolzoo; None where there is none.
        why: Why there is none; "" where there is.
        is_reachable: Whether the index answered.
    """

    wheel: Path | None
    why: str
    is_reachable: bool

    @property
    def version(self) -> str:
        """The version of the wheel; "" without one."""
        return self.wheel.name.split("-")[1] if self.wheel is not None else ""


def find_newest(folder: Path, temporary: Path) -> Newest:
    """Downloads the wheel of the newest poolzoo with pip, from the index that pip is configured for.

    Args:
        folder: An empty folder.
        temporary: The folder of temporary files.
    """
    ended = child.run(
        [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input",
         "--disable-pip-version-check", "--retries", "1", "--timeout", "15", "--dest", str(folder), "poolzoo"],
        cwd=folder,
        environment=clean_environment(temporary),
        timeout=SECONDS,
    )  # fmt: skip
    wheels = list(folder.glob("poolzoo-*.whl"))
    if ended.exit_code == 0 and wheels:
        return Newest(wheels[0], "", is_reachable=True)
    text = ended.stdout + ended.stderr
    if ended.exit_code == child.KILLED or any(sign in text for sign in UNREACHABLE):
        return Newest(None, "the package index cannot be reached", is_reachable=False)
    if "No matching distribution" in text:
        return Newest(None, "the package index has no poolzoo", is_reachable=True)
    return Newest(None, f"pip says: {ended.last_line.removeprefix('ERROR: ')}", is_reachable=True)
