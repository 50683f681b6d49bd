"""The onnx package's own reference evaluator: numpy, exact to the standard, and slow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from poolzoo.runtime.builtin import graph_runs


def load(directory: Path, *, threads: int, device: str, precision: str) -> graph_runs.Run:
    """A run of the graph in a directory."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(directory / graph_runs.MODEL))
    (name,) = evaluator.input_names

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        with np.errstate(all="ignore"):
            found: list[np.ndarray] = evaluator.run(None, {name: x})
        return found

    return run


open = partial(graph_runs.open_with, load)

