"""The onnx package's own reference evaluator: numpy, exact to the standard, and slow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poolzoo.runtime.builtin import sessions


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens `model.onnx` of a directory."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(bundle / sessions.MODEL))

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        with np.errstate(all="ignore"):
            return list(evaluator.run(list(sessions.OUTPUTS), {sessions.IMAGES: x}))

    return sessions.session(run, sessions.read_input(bundle / sessions.MODEL))
