"""Which plugins the user has switched off: a list of names in a file of the user's configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path

from poolzoo.common import files, json_writer, output


def path() -> Path:
    """The file, in `POOLZOO_CONFIG` or the system's place for configuration."""
    if named := os.environ.get("POOLZOO_CONFIG"):
        return Path(named) / "disabled.json"
    try:
        import platformdirs
    except ImportError:  # where a bundle is used with little installed; this is what it would say on Linux
        home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(home, "poolzoo", "disabled.json")
    return Path(platformdirs.user_config_dir("poolzoo")) / "disabled.json"


def read() -> list[str]:
    """The names; none, with a warning, where the file is damaged."""
    try:
        names = json.loads(path().read_text(encoding="utf-8"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it is no list of names")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        output.warn(f"{path()} cannot be read: {error}", "delete it, or poolzoo plugin enable NAME")
        return []
    return names


def write(names: list[str]) -> None:
    """Keeps the names, sorted, each once.

    Raises:
        OSError: The file cannot be written.
    """
    path().parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path(), (json_writer.dumps(sorted(set(names)), indent=1) + "\n").encode())
