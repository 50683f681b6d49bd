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

from poolzoo.export import fp16, int8, ranges
from poolzoo.parity import layers
from poolzoo.parity.layers import Layers

RANGED: Final = 128  # calibration images that suffice for fp16, beside edge images


def lower(precision: str, source: Path, target: Path, names: Layers, calibration: np.ndarray) -> dict[str, Any]:
    """Writes a graph in lower precision.

    Args:
        precision: "fp16"; "int8-static", with the ranges of activations from calibration images (QDQ, unsigned
            activations, signed weights a channel); or "int8-dynamic", with their ranges anew for every batch.
        source: The graph in fp32.
        target: Where the other goes.
        names: Which of the graph's values are which layers'.
        calibration: Images as the graph takes them; for fp16, to look at every value on.

    Returns:
        What was found on the way: `largest`, the largest magnitude inside the graph, its `value`, and how many `images`
            it was looked for on; `float32`, which nodes of a graph in fp16 stay in float32 beside those above, and why.

    Raises:
        Exception: Whatever ONNX Runtime's converters raise.
    """
    proto = onnx.load(source)
    del proto.graph.value_info[:]  # the shapes in it are of weights that a converter transposes
    ahead, pooling, behind = (_names_of(nodes) for nodes in _parts(proto, names))
    with _quiet():
        if precision == "fp16":
            made, fit = fp16.convert(proto, [*ahead, *pooling], calibration)
            onnx.save(made, target)
            return {"largest": fit.largest, "value": fit.where, "images": fit.images, "float32": fit.reasons}
        if precision == "int8-static":
            found = int8.static(proto, [*ahead, *pooling, *behind], calibration, target)
            value, largest = ranges.largest(found)
            return {"largest": largest, "value": value, "images": len(calibration)}
        int8.dynamic(proto, [*ahead, *pooling, *behind], target)
        return {}


def _parts(proto: onnx.ModelProto, names: Layers) -> tuple[list[Any], list[Any], list[Any]]:
    """The nodes that prepare the images, those of the pooling, and those behind it."""
    entry = names.inputs.get("network")
    ahead = layers.between(proto, None, entry) if entry else []
    pooled = names.outputs.get("network.pool")
    if pooled is None:  # it brings its own, somewhere inside
        return ahead, [], [node for node in proto.graph.node if {"logits", "probabilities"} & set(node.output)]
    inside = names.inside["network.pool"]
    pooling = [node for node in proto.graph.node if inside & set(node.output)]
    return ahead, pooling, layers.between(proto, pooled, "probabilities")


def _names_of(nodes: list[Any]) -> list[str]:
    return [node.name for node in nodes]


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
