"""Images that cannot be read: how many may be, and where all of them are listed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.common.text import visible

MAX_DIGITS: Final = 18  # of a number that is typed
SHOWN: Final = 20  # of them that are listed where one types; the rest is in a file
Broken = tuple[Path, str]  # an image file, and why it cannot be read
Skip = int | str | None


class BrokenImages(CheckFailed):
    """Some images cannot be read; raised when all were tried."""

    def __init__(self, broken: Sequence[Broken], total: int, listed: Path | None = None) -> None:
        self.broken = sorted(broken)
        self.total = total
        path, reason = self.broken[0]
        text = f"{len(self.broken)} of {total} images cannot be read, first {path}: {reason}"
        text = f"{text}; all are listed in {listed}" if listed else text
        super().__init__(text, "fix or remove them, or go on without: --skip-broken all, or their number")


def most(skip: Skip) -> float:
    """How many broken images `--skip-broken` allows: none without it.

    Raises:
        UsageError: It is neither a number nor `all`.
    """
    if skip is None:
        return 0
    if str(skip) == "all":
        return math.inf
    if not str(skip).isdecimal() or len(str(skip)) > MAX_DIGITS:
        raise UsageError(f"--skip-broken {skip!r} is neither a number nor all", "such as --skip-broken 10")
    return int(skip)


def plain(skip: Skip) -> Skip:
    """The same as settings keep it: a number, "all", or None; raises like `most`."""
    allowed = most(skip)
    return "all" if allowed == math.inf else None if skip is None else int(allowed)


def to_json(broken: Sequence[Broken]) -> list[dict[str, str]]:
    """Broken images for a file or for `--json`, in which a name of any bytes is text."""
    named = ((str(path).encode("utf-8", "backslashreplace").decode(), reason) for path, reason in broken)
    return [{"file": name, "error": reason} for name, reason in named]


def tell(fresh: Sequence[Broken], broken: Sequence[Broken], data: Path, cache_dir: Path) -> Path | None:
    """Lists broken images: some where one types, all in a file.

    Args:
        fresh: Those that were not listed yet.
        broken: All of them.
        data: The data set's folder, after which the file is called.
        cache_dir: Where the file goes.

    Returns:
        The file; None where one line tells of it all, or none can be written.
    """
    for path, reason in sorted(fresh)[:SHOWN] if len(fresh) > 1 else ():
        output.say(f"cannot be read: {path}: {reason}")
    if len(fresh) > SHOWN:
        output.say(f"and {len(fresh) - SHOWN:,} more")
    if len(broken) < 2:
        return None
    name = f"{files.slug(data.name)}-{hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:8]}.txt"
    text = "".join(f"{visible(str(path))}\t{reason}\n" for path, reason in sorted(broken))
    try:
        files.make_private(cache_dir / "broken")
        files.write_atomically(cache_dir / "broken" / name, text.encode())
    except OSError as error:
        output.warn(f"the list cannot be written to {cache_dir}: {error.strerror or error}")
        return None
    return cache_dir / "broken" / name
