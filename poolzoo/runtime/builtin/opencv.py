"""OpenCV's DNN module, with the engine that OpenCV 5 brought.

OpenCV takes an engine only for a model in a file, and ignores it for one in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poolzoo.runtime.builtin import sessions


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens `model.onnx` of a directory.

    Raises:
        RuntimeError: OpenCV is older than 5.
    """
    import cv2

    if not hasattr(cv2.dnn, "ENGINE_NEW"):
        raise RuntimeError(f"OpenCV {cv2.__version__} lacks the DNN engine of OpenCV 5")
    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromONNX(str(bundle / sessions.MODEL), engine=cv2.dnn.ENGINE_NEW)

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        net.setInput(x)
        return [np.array(found) for found in net.forward(sessions.OUTPUTS)]  # a copy: the next run overwrites them

    return sessions.session(run, sessions.read_input(bundle / sessions.MODEL))
