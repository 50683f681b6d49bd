"""The onnx package's own reference evaluator: numpy, exact to the standard, and slow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from poolzoo.runtime.builtin import sessions

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTIZING: Final = ("QuantizeLinear", "DequantizeLinear")
EVALUATED: Final = 19  # the opset from which the evaluator has them


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens `model.onnx` of a directory."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(_with_known_operators(onnx.load(bundle / sessions.MODEL)))

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        with np.errstate(all="ignore"):
            return list(evaluator.run(list(sessions.OUTPUTS), {sessions.IMAGES: x}))

    return sessions.session(run, sessions.read_input(bundle / sessions.MODEL))


def _with_known_operators(model: ModelProto) -> ModelProto:
    """The graph in an opset whose quantizing operators the evaluator has: they compute the same in it."""
    from onnx import version_converter

    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= EVALUATED or not any(node.op_type in QUANTIZING for node in model.graph.node):
        return model
    return version_converter.convert_version(model, EVALUATED)
