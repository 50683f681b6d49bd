"""For authors of plugins: conformance checks, and a pytest fixture that runs poolzoo in a temporary project.

import poolzoo.testing

failures = poolzoo.testing.check_pooling(pooling)       # a list; empty when all is well

class TestMine(poolzoo.testing.PoolingTests):           # the same for pytest, a test for each check
    pooling = pooling
    expected_failures = {"shapes": "why it fails"}

pytest_plugins = ["poolzoo.testing.plugin"]             # in conftest.py: the fixture poolzoo_project

Importing this package imports nothing else: each name below is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poolzoo.testing.backbones import CHECKS as BACKBONE_CHECKS
    from poolzoo.testing.backbones import BackboneTests, check_backbone
    from poolzoo.testing.base import Check, Failure
    from poolzoo.testing.command_result import CommandResult
    from poolzoo.testing.datasets import CHECKS as DATASET_CHECKS
    from poolzoo.testing.datasets import DatasetTests, check_dataset
    from poolzoo.testing.indexed_datasets import CHECKS as INDEX_CHECKS
    from poolzoo.testing.indexed_datasets import IndexedDatasetTests
    from poolzoo.testing.poolings import CHECKS, PoolingTests, check_pooling, run_check
    from poolzoo.testing.project import Project
    from poolzoo.testing.runtimes import CHECKS as RUNTIME_CHECKS
    from poolzoo.testing.runtimes import RuntimeTests, check_runtime

_PLACES = {  # name → (module, what it is called there)
    "BACKBONE_CHECKS": ("backbones", "CHECKS"),
    "BackboneTests": ("backbones", ""),
    "CHECKS": ("poolings", ""),
    "Check": ("base", ""),
    "CommandResult": ("command_result", ""),
    "DATASET_CHECKS": ("datasets", "CHECKS"),
    "DatasetTests": ("datasets", ""),
    "Failure": ("base", ""),
    "INDEX_CHECKS": ("indexed_datasets", "CHECKS"),
    "IndexedDatasetTests": ("indexed_datasets", ""),
    "PoolingTests": ("poolings", ""),
    "Project": ("project", ""),
    "RUNTIME_CHECKS": ("runtimes", "CHECKS"),
    "RuntimeTests": ("runtimes", ""),
    "check_backbone": ("backbones", ""),
    "check_dataset": ("datasets", ""),
    "check_pooling": ("poolings", ""),
    "check_runtime": ("runtimes", ""),
    "run_check": ("poolings", ""),
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module 'poolzoo.testing' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value = getattr(import_module(f"poolzoo.testing.{module}"), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "BACKBONE_CHECKS",
    "CHECKS",
    "DATASET_CHECKS",
    "INDEX_CHECKS",
    "RUNTIME_CHECKS",
    "BackboneTests",
    "Check",
    "CommandResult",
    "DatasetTests",
    "Failure",
    "IndexedDatasetTests",
    "PoolingTests",
    "Project",
    "RuntimeTests",
    "check_backbone",
    "check_dataset",
    "check_pooling",
    "check_runtime",
    "run_check",
]
