"""Quantizes a graph to int8: with activation ranges from calibration images, or computed for every batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_dynamic
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from poolzoo.export import ranges
from poolzoo.export.ranges import Range


def static(proto: onnx.ModelProto, float32: list[str], inputs: np.ndarray, target: Path) -> dict[str, Range]:
    """Writes a graph with unsigned activations and signed weights per channel, in the QDQ format.

    The graph is that of ONNX Runtime's `quantize_static`, which keeps every activation of a calibration batch in
    memory. Here the same ranges come from `ranges.measure`, in a tenth of the memory.

    Args:
        proto: The graph in float32, without shapes.
        float32: Nodes that stay in float32.
        inputs: Calibration images as the graph's input.
        target: The file to write.

    Returns:
        The range of every value.

    Raises:
        MemoryError: Memory does not suffice for a single image.
    """
    found = ranges.measure(proto, inputs)
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
        op_types_to_quantize=sorted(set(QLinearOpsRegistry) | set(QDQRegistry)),
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(target)
    return found


def dynamic(proto: onnx.ModelProto, float32: list[str], target: Path) -> None:
    """Writes a graph with signed weights, whose activation ranges are computed for every batch.

    Args:
        proto: The graph in float32, without shapes.
        float32: Nodes that stay in float32.
        target: The file to write.
    """
    excluded = float32 + [f"{name}_MatMul" for name in float32]  # the name of the MatMul that a Gemm becomes
    quantize_dynamic(proto, target, weight_type=QuantType.QInt8, nodes_to_exclude=excluded)
