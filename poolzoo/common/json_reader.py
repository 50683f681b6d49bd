"""Values of parsed JSON by type, for files that another version or another program may have written.

A value that is missing, or has another type, is None or empty.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

MAX_INTEGER: Final = 1 << 63


def parse(text: str | bytes, *, unique: bool = False) -> object:
    """The value of a JSON document.

    Args:
        text: The document.
        unique: Whether an object that names a key twice is refused; else the last value counts.

    Raises:
        ValueError: It is none, is nested too deeply to be read, or names a key twice.
    """
    try:
        value: object = json.loads(text, object_pairs_hook=_distinct if unique else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def named_twice(pairs: Sequence[tuple[str, object]]) -> str | None:
    """The first name that the names and values of an object have more than once; None where each is there once."""
    counts = Counter(name for name, _ in pairs)
    return None if len(counts) == len(pairs) else next(name for name, count in counts.items() if count > 1)


def _distinct(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    if (name := named_twice(pairs)) is not None:
        raise ValueError(f"{name!r} is there twice")
    return dict(pairs)


def mapping(value: object) -> Mapping[str, object]:
    """An object of JSON; empty where the value is something else."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> Sequence[object]:
    """An array of JSON; empty where the value is something else."""
    return value if isinstance(value, (list, tuple)) else ()


def objects(value: object) -> list[Mapping[str, object]]:
    """The objects in an array of JSON."""
    return [mapping(one) for one in items(value)]


def text(value: object) -> str | None:
    """A string of JSON, or None."""
    return value if isinstance(value, str) else None


def texts(value: object) -> list[str]:
    """The strings in an array of JSON; anything else in it as it is printed."""
    return [str(one) for one in items(value)]


def flag(value: object) -> bool | None:
    """A boolean of JSON, or None."""
    return value if isinstance(value, bool) else None


def number(value: object) -> float | None:
    """A finite number of JSON, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer that is too large for a float
        return None


def integer(value: object) -> int | None:
    """An integer of JSON that an array can hold, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_INTEGER else None
