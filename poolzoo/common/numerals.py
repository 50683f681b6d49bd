"""Numbers as users type them: plain digits, without what Python reads besides, such as `1_0` for ten."""

from __future__ import annotations

import re
from typing import Final

_WHOLE: Final = re.compile(r"[+-]?[0-9]+")
_REAL: Final = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf)", re.IGNORECASE)


def whole(text: str) -> int:
    """The whole number that a text is.

    Raises:
        ValueError: It is none, or has more digits than Python reads.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def real(text: str) -> float:
    """The number that a text is, such as `4`, `0.5`, `1e-3` or `inf`, but no `nan`.

    Raises:
        ValueError: It is none.
    """
    if not _REAL.fullmatch(text):
        raise ValueError(f"{text!r} is no number")
    return float(text)
