"""tract, a runtime in Rust. It computes on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from poolzoo.runtime.builtin import graph_runs


def load(directory: Path, *, threads: int, device: str, precision: str) -> graph_runs.Run:
    """A run of the graph in a directory.

    Raises:
        RuntimeError: tract refuses the graph; without the stack of calls that its own message holds.
    """
    import tract

    try:
        runnable = tract.onnx().load(directory / graph_runs.MODEL).into_model().into_runnable()
    except tract.TractError as error:
        raise RuntimeError(_without_stack(error)) from None

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        try:
            return [found.to_numpy() for found in runnable.run([x])]
        except tract.TractError as error:
            raise RuntimeError(_without_stack(error)) from None

    return run


open = partial(graph_runs.open_with, load)



def _without_stack(error: Exception) -> str:
    return " ".join(str(error).partition("Stack backtrace")[0].split())
