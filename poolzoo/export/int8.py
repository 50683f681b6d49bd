"""Quantizes a graph to int8: with activation ranges from calibration images, or computed for every batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_dynamic
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from poolzoo.export.ranges import Range

QUANTIZED: Final = frozenset(QLinearOpsRegistry) | frozenset(QDQRegistry)
# Operators that are quantized only where what they read is: they round nothing that others do not round.
FOLLOWERS: Final = frozenset(
    [
        *("AveragePool", "MaxPool", "Clip", "Relu", "Pad", "Resize", "Gather", "GatherElements", "TopK"),
        *("Flatten", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    ]
)


def static(proto: onnx.ModelProto, float32: list[str], found: Mapping[str, Range], target: Path) -> None:
    """Writes a graph with unsigned activations and signed weights per channel, in the QDQ format.

    The graph is that of ONNX Runtime's `quantize_static`, which keeps every activation of a calibration batch in
    memory. `ranges.measure` finds the same ranges in a tenth of the memory.

    Args:
        proto: The graph in float32, without shapes.
        float32: Nodes that stay in float32.
        found: The range of every value.
        target: The file to write.
    """
    data = {name: TensorData(lowest=np.array([of.low]), highest=np.array([of.high])) for name, of in found.items()}
    quantizer = QDQQuantizer(
        model=save_and_reload_model_with_shape_infer(proto),
        per_channel=True,
        reduce_range=False,  # all eight bits
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],  # all
        nodes_to_exclude=float32,
        op_types_to_quantize=sorted(QUANTIZED),
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(target)


def dynamic(proto: onnx.ModelProto, float32: list[str], target: Path) -> None:
    """Writes a graph with signed weights, whose activation ranges are computed for every batch.

    Args:
        proto: The graph in float32, without shapes.
        float32: Nodes that stay in float32.
        target: The file to write.
    """
    excluded = float32 + [f"{name}_MatMul" for name in float32]  # the name of the MatMul that a Gemm becomes
    quantize_dynamic(proto, target, weight_type=QuantType.QInt8, nodes_to_exclude=excluded)
