"""The one writer of JSON: what it gives, every reader of JSON takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, *, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    """A value as JSON. NaN and infinities, for which JSON has no word, become null; text stays as it is.

    Args:
        value: Of dicts, lists, tuples, strings, numbers, booleans and None.
        indent: Spaces a level; None for one line.
        separators: Between items, and between key and value.

    Raises:
        TypeError: There is something else in it.
    """
    try:
        return _strict(value, indent, separators)
    except ValueError:
        return _strict(_finite(value), indent, separators)


def _strict(value: Any, indent: int | None, separators: tuple[str, str] | None) -> str:
    return json.dumps(value, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value
