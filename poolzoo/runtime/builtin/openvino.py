"""Sessions of OpenVINO as a runtime of the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from poolzoo.runtime.graph_input import read_input


def open_session(
    bundle: Path, *, threads: int, device: str, precision: str
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Compiles `model.onnx` of a directory for the CPU.

    Args:
        bundle: The directory.
        threads: Threads to compute with.
        device: "cpu".
        precision: "fp32" for float32 as in ONNX Runtime; "auto" for OpenVINO's own choice, bfloat16 on some CPUs.
    """
    import openvino

    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision == "fp32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = openvino.Core().compile_model(bundle / "model.onnx", "CPU", settings)
    given = read_input(bundle / "model.onnx")

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled({"images": given.convert(images)})
        return found["logits"], found["probabilities"]

    return run
