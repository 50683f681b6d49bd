"""`pyproject.toml` of a plugin: where it is, and the checks that it expects to fail."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from poolzoo.common.errors import UsageError
from poolzoo.testing.expected import ExpectedFailures

NAME: Final = "pyproject.toml"
SECTION: Final = "tool.poolzoo.expected-failures"


def of_file(path: Path) -> Path | None:
    """The nearest project file beside or above a plugin's file."""
    return next((folder / NAME for folder in path.absolute().parents if (folder / NAME).is_file()), None)


def of_distribution(name: str) -> Path | None:
    """The project file of a distribution that was installed from a folder, in place or not; else None."""
    import json

    try:
        text = metadata.distribution(name).read_text("direct_url.json")
        url = urlsplit(json.loads(text or "{}").get("url", ""))
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return None
    path = Path(url2pathname(url.path)) / NAME
    return path if url.scheme == "file" and path.is_file() else None


def read(path: Path) -> dict[str, Any]:
    """The content of a project file.

    Raises:
        UsageError: It cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "it must be a TOML file in UTF-8") from error


def expected_failures(path: Path | None) -> ExpectedFailures:
    """The table `[tool.poolzoo.expected-failures]` of a project file; empty without either.

    Raises:
        UsageError: The file cannot be read, or the table is not one of texts.
    """
    if path is None:
        return ExpectedFailures()
    found: Any = read(path)
    for part in SECTION.split("."):
        found = found.get(part, {}) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not all(isinstance(why, str) for why in found.values()):
        raise UsageError(f"{path}: [{SECTION}] must map checks to reasons", 'such as shapes = "why it fails"')
    return ExpectedFailures(found, str(path))
