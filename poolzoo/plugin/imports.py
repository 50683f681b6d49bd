"""Callables that plugins name by strings such as "package.module:attribute": imported when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

from poolzoo.common.errors import PluginFailed, reason
from poolzoo.plugin.problems import Source


def import_build(build: Callable[..., Any] | str, name: str, source: Source, part: str = "build") -> Callable[..., Any]:
    """The callable that `build` is or names.

    Args:
        build: A callable, or a string "package.module:attribute".
        name: The item's name.
        source: Who provides it.
        part: The item's field that `build` is.

    Raises:
        PoolzooError: The string points nowhere.
    """
    if callable(build):
        return build
    module, _, attribute = build.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise PluginFailed(
            f"{part} of {name!r} ({source.dist}) points to {build!r}: {reason(error)}",
            f"fix the plugin {source.dist}, or use another one",
        ) from error
    if not callable(found):
        raise PluginFailed(f"{part} of {name!r} ({source.dist}): {build!r} is not callable", "fix the plugin")
    return found  # type: ignore[no-any-return]


def points_nowhere(build: str) -> str:
    """Why a `"package.module:attribute"` string cannot be imported, as far as that shows without importing it."""
    module, _, attribute = build.partition(":")
    if module in sys.modules:
        return "" if hasattr(sys.modules[module], attribute) else f"{module} has no attribute {attribute!r}"
    try:
        found = importlib.util.find_spec(module)
    except Exception as error:
        return f"{build!r} points to nothing ({reason(error)})"
    if found is None:
        return f"{build!r} points to nothing: there is no module {module!r}"
    return ""
