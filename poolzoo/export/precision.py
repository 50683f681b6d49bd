"""Converts a graph to lower precision: fp16, or int8 in two forms. `candidates.py` measures what it costs.

Preprocessing and pooling stay in float32. The pooling is a thousandth of the work, and powers, logarithms and
covariances lose accuracy first. In int8 the classifier stays in float32 too.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from poolzoo.artifacts.schema import ValueRange
from poolzoo.export import fp16, int8, ranges
from poolzoo.parity import layers
from poolzoo.parity.layers import Layers

Nodes = list[onnx.NodeProto]

FP16_CALIBRATION_IMAGES: Final = 128  # that suffice for fp16, beside the synthetic edge cases


def convert(precision: str, source: Path, target: Path, names: Layers, calibration: np.ndarray) -> ValueRange | None:
    """Writes a graph in lower precision.

    Args:
        precision: "fp16"; "int8-static", with activation ranges from calibration images (QDQ, unsigned activations,
            signed weights per channel); or "int8-dynamic", with activation ranges computed for every batch.
        source: The graph in fp32.
        target: The file to write.
        names: Which of the graph's values are which layers'.
        calibration: Images as the graph's input, on which ranges are measured.

    Returns:
        The largest magnitude inside the graph, and the nodes of a graph in fp16 that stay in float32 beside those
        above; None for "int8-dynamic".

    Raises:
        Exception: Whatever ONNX Runtime's converters raise.
    """
    proto = onnx.load(source)
    del proto.graph.value_info[:]  # the shapes in it are of weights that a converter transposes
    before, pooling, after = (_names_of(nodes) for nodes in _parts(proto, names))
    with _quiet():
        if precision == "fp16":
            made, analysis = fp16.convert(proto, [*before, *pooling], calibration)
            onnx.save(made, target)
            return {
                "largest": analysis.largest,
                "value": analysis.value,
                "images": analysis.images,
                "float32": dict(analysis.reasons),
            }
        if precision == "int8-static":
            found = int8.static(proto, [*before, *pooling, *after], calibration, target)
            value, largest = ranges.largest(found)
            return {"largest": largest, "value": value, "images": len(calibration)}
        int8.dynamic(proto, [*before, *pooling, *after], target)
        return None


def _parts(proto: onnx.ModelProto, names: Layers) -> tuple[Nodes, Nodes, Nodes]:
    """The nodes of preprocessing, of the pooling, and after it."""
    entry = names.inputs.get("network")
    before = layers.nodes_between(proto, None, entry) if entry else []
    pooled = names.outputs.get("network.pool")
    if pooled is None:  # a published network has its own, somewhere inside
        return before, [], [node for node in proto.graph.node if {"logits", "probabilities"} & set(node.output)]
    inside = names.inside["network.pool"]
    pooling = [node for node in proto.graph.node if inside & set(node.output)]
    return before, pooling, layers.nodes_between(proto, pooled, "probabilities")


def _names_of(nodes: Nodes) -> list[str]:
    return [node.name for node in nodes]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the converters' warnings, which concern graphs in general."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
