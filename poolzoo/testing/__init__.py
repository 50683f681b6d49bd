"""The conformance kit: what every plugin promises, as checks that authors run on their own.

import poolzoo.testing

failures = poolzoo.testing.check_pooling(pooling)       # a list; empty when all is well

class TestMine(poolzoo.testing.PoolingTests):           # the same for pytest, a test for each check
    __test__ = True
    pooling = pooling
"""

from __future__ import annotations

from poolzoo.testing.backbones import CHECKS as BACKBONE_CHECKS
from poolzoo.testing.backbones import BackboneTests, check_backbone
from poolzoo.testing.base import Check, Failure
from poolzoo.testing.datasets import CHECKS as DATASET_CHECKS
from poolzoo.testing.datasets import DatasetTests, check_dataset
from poolzoo.testing.indexed_datasets import CHECKS as INDEX_CHECKS
from poolzoo.testing.indexed_datasets import IndexedDatasetTests
from poolzoo.testing.poolings import CHECKS, PoolingTests, check_pooling, run_check
from poolzoo.testing.runtimes import CHECKS as RUNTIME_CHECKS
from poolzoo.testing.runtimes import RuntimeTests, check_runtime

__all__ = [
    "BACKBONE_CHECKS",
    "CHECKS",
    "DATASET_CHECKS",
    "INDEX_CHECKS",
    "RUNTIME_CHECKS",
    "BackboneTests",
    "Check",
    "DatasetTests",
    "Failure",
    "IndexedDatasetTests",
    "PoolingTests",
    "RuntimeTests",
    "check_backbone",
    "check_dataset",
    "check_pooling",
    "check_runtime",
    "run_check",
]
