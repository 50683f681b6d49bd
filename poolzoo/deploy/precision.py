"""A graph in lower precision: fp16, and int8 in two ways. Whether that is any good is for `candidates.py` to find out.

What prepares the images stays as it is, and so does the pooling: it is a thousandth of the work, and powers, logarithms
and covariances are what suffers first. In int8 the classifier stays in float too.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from poolzoo.deploy import layers
from poolzoo.deploy.layers import Layers

BATCH: Final = 32  # calibration images at once


def lower(precision: str, source: Path, target: Path, names: Layers, calibration: np.ndarray) -> None:
    """Writes a graph in lower precision.

    Args:
        precision: "fp16"; "int8-static", with the ranges of activations from calibration images (QDQ, unsigned
            activations, signed weights a channel); or "int8-dynamic", with their ranges anew for every batch.
        source: The graph in fp32.
        target: Where the other goes.
        names: Which of the graph's values are which layers'.
        calibration: Images as the graph takes them; of use to "int8-static" alone.

    Raises:
        Exception: Whatever ONNX Runtime's converters raise.
    """
    proto = onnx.load(source)
    del proto.graph.value_info[:]  # the shapes in it are of weights that a converter transposes
    ahead, pooling, behind = (_names_of(nodes) for nodes in _parts(proto, names))
    with _quiet():
        if precision == "fp16":
            blocked = {"op_block_list": list(DEFAULT_OP_BLOCK_LIST), "node_block_list": [*ahead, *pooling]}
            onnx.save(_tidied(convert_float_to_float16(proto, keep_io_types=True, **blocked)), target)
        elif precision == "int8-static":
            quantize_static(
                proto,
                target,
                _Reader(calibration),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                nodes_to_exclude=[*ahead, *pooling, *behind],
            )
        else:
            excluded = [*ahead, *pooling, *behind]
            excluded += [f"{name}_MatMul" for name in excluded]  # what it makes of a Gemm
            quantize_dynamic(proto, target, weight_type=QuantType.QInt8, nodes_to_exclude=excluded)


def _parts(proto: onnx.ModelProto, names: Layers) -> tuple[list[Any], list[Any], list[Any]]:
    """The nodes that prepare the images, those of the pooling, and those behind it."""
    entry = names.takes.get("network")
    ahead = layers.between(proto, None, entry) if entry else []
    pooled = names.gives.get("network.pool")
    if pooled is None:  # it brings its own, somewhere inside
        return ahead, [], [node for node in proto.graph.node if {"logits", "probabilities"} & set(node.output)]
    inside = names.inside["network.pool"]
    pooling = [node for node in proto.graph.node if inside & set(node.output)]
    return ahead, pooling, layers.between(proto, pooled, "probabilities")


def _tidied(proto: onnx.ModelProto) -> onnx.ModelProto:
    """What the converter to fp16 leaves to be done where nodes that stay in float32 follow one another.

    It casts the value between two of them to fp16 and back, once for each reader, and puts all casts at the end.
    """
    makers = {node.output[0]: node for node in reversed(proto.graph.node)}  # of nodes that are there twice, the first
    instead = {}
    for name, node in makers.items():
        before = makers.get(node.input[0]) if node.op_type == "Cast" else None
        if before is not None and before.op_type == "Cast" and before.input[0].endswith("_cast_to_fp16"):
            instead[name] = before.input[0]  # the float32 that went there and back
    for node in makers.values():
        for index, name in enumerate(node.input):
            node.input[index] = instead.get(name, name)
    alive = {node.output[0] for one in proto.graph.output for node in layers.between(proto, None, one.name)}
    kept = [node for name, node in makers.items() if name in alive]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    tidied = OnnxModel(proto)
    tidied.topological_sort()
    return tidied.model


def _names_of(nodes: list[Any]) -> list[str]:
    return [node.name for node in nodes]


class _Reader(CalibrationDataReader):
    """Hands out images in batches."""

    def __init__(self, images: np.ndarray) -> None:
        self.batches: Iterator[np.ndarray] = iter(images[i : i + BATCH] for i in range(0, len(images), BATCH))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the converters' advice and warnings to themselves: they are about graphs in general."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
