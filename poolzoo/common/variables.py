"""Environment variables that hold a whole number, such as those that torchrun sets for each of its processes."""

from __future__ import annotations

import os
from typing import Final

from poolzoo.common.errors import UsageError

MOST: Final = 1 << 20


def whole_number(name: str, default: int) -> int:
    """The value of a variable, or the default where it is not set.

    Raises:
        UsageError: It is no whole number, is negative, or is too large for what is counted.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(MOST)) or int(text) > MOST:
        raise UsageError(f"{name} {text[:40]!r} is no whole number up to {MOST:,}", "torchrun sets it; unset it")
    return int(text)
