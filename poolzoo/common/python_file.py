"""Imports a Python file of a user as it is now: no bytecode is read or written beside it.

Bytecode is taken for a file's own if time and size agree. The time is in whole seconds, so a file that is written twice
within one may be run as it was before.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType


class _Loader(SourceFileLoader):
    """Compiles the file at each import."""

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError  # documented: there is no bytecode then


def load(name: str, path: str) -> ModuleType:
    """Imports a file under a name; where that fails, the name is free again.

    Args:
        name: Of the module in `sys.modules`.
        path: The file.

    Raises:
        ImportError: Its ending is not one of a Python file.
        BaseException: What the file raises.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is not None and isinstance(spec.loader, SourceFileLoader):
        spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, path))
    if spec is None or spec.loader is None:
        raise ImportError(f"{os.path.basename(path)} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
