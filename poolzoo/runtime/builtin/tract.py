"""tract, a runtime in Rust. It computes on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poolzoo.runtime.builtin import sessions


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens `model.onnx` of a directory.

    Raises:
        RuntimeError: tract refuses the graph; without the stack of calls that its own message holds.
    """
    import tract

    try:
        runnable = tract.onnx().load(bundle / sessions.MODEL).into_model().into_runnable()
    except tract.TractError as error:
        raise RuntimeError(_without_stack(error)) from None

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        try:
            return [found.to_numpy() for found in runnable.run([x])]
        except tract.TractError as error:
            raise RuntimeError(_without_stack(error)) from None

    return sessions.session(run, sessions.read_input(bundle / sessions.MODEL))


def _without_stack(error: Exception) -> str:
    return " ".join(str(error).partition("Stack backtrace")[0].split())
