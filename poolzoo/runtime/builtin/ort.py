"""Sessions of ONNX Runtime as a runtime of the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from poolzoo.runtime import ort_session


def open_session(
    bundle: Path, *, threads: int, device: str, precision: str
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Opens `model.onnx` of a directory; `precision` makes no difference, since ONNX Runtime computes as the file says.

    Raises:
        EnvironmentProblem: There is no such device.
        CheckFailed: The graph cannot be opened.
    """
    return ort_session.open_model(bundle / "model.onnx", device, threads).run
