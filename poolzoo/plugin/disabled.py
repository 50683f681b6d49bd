"""Which plugins the user has disabled: a list of names in a file of the user's configuration."""

from __future__ import annotations

import os
import sys

from poolzoo.common import output


def path() -> str:
    """The file, in `POOLZOO_CONFIG` or the system's place for configuration."""
    return os.path.join(os.environ.get("POOLZOO_CONFIG") or _config_dir(), "disabled.json")


def _config_dir() -> str:
    if sys.platform != "linux":
        import platformdirs

        return platformdirs.user_config_dir("poolzoo")
    # What platformdirs answers on Linux. Every command asks, and a bundle may be used where little is installed.
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(home if os.path.isabs(home) else os.path.expanduser("~/.config"), "poolzoo")


def read() -> list[str]:
    """The names; none, with a warning, where the file is damaged."""
    try:
        with open(path(), encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return _unreadable(error)
    from poolzoo.common import json_reader

    try:
        names = json_reader.parse(text)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it is not a list of names")
    except ValueError as error:
        return _unreadable(error)
    return names


def _unreadable(error: Exception) -> list[str]:
    output.warn(f"{path()} cannot be read: {error}", "delete it, or poolzoo plugin enable NAME")
    return []


def write(names: list[str]) -> None:
    """Keeps the names, sorted, each once.

    Raises:
        OSError: The file cannot be written.
    """
    from pathlib import Path

    from poolzoo.common import files, json_writer
    from poolzoo.common.text import json_escaped

    file = Path(path())
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(map(json_escaped, json_writer.dumps(sorted(set(names)), indent=1).split("\n")))
    files.write_atomically(file, text + "\n")
