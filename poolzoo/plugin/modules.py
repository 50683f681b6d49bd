"""Whether a module can be imported, found without importing it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder


def is_module(name: str) -> bool:
    """Whether a module can be found. A directory without Python files, which any name may match, is none."""
    top, *rest = name.split(".")
    try:
        found: ModuleSpec | None = importlib.util.find_spec(top)
        path = top
        for part in rest:
            if found is None or found.submodule_search_locations is None:
                return False
            path = f"{path}.{part}"
            found = PathFinder.find_spec(path, list(found.submodule_search_locations))
    except (ImportError, ValueError, AttributeError):
        return False
    return found is not None and found.origin is not None


def missing_of(names: Iterable[str]) -> tuple[str, ...]:
    """Those of some modules that cannot be found."""
    return tuple(name for name in names if not is_module(name))
