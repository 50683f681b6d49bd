"""Converts a graph to lower precision: fp16, or int8 in two forms. `candidates.py` measures what it costs.

Preprocessing and pooling stay in float32. The pooling is a thousandth of the work, and powers, logarithms and
covariances lose accuracy first. In int8 the classifier stays in float32 too.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from poolzoo.artifacts.schema import ValueRange
from poolzoo.export.precision import bias_correction, fp16, int8, layer_harm, ranges, switches
from poolzoo.export.precision.half_range import RangeAnalysis
from poolzoo.export.precision.layer_harm import LayerHarm
from poolzoo.export.precision.ranges import Images, Range
from poolzoo.parity import layers
from poolzoo.parity.layers import Layers

Nodes = list[onnx.NodeProto]

FP16_CALIBRATION_IMAGES: Final = 128  # that suffice for fp16, beside the synthetic edge cases
CORRECTION_IMAGES: Final = 128  # whose means correct biases


def convert(precision: str, source: Path, target: Path, names: Layers, calibration: Images) -> ValueRange | None:
    """Writes a graph in lower precision, once: what `Converter.convert` does."""
    return Converter(precision, source, names, calibration).convert(target)


class Converter:
    """Converts a graph to one lower precision, with more layers in float32 each time; values are measured once."""

    def __init__(self, precision: str, source: Path, names: Layers, calibration: Images) -> None:
        """Reads a graph.

        Args:
            precision: "fp16"; "int8-static", with activation ranges from calibration images (QDQ, unsigned activations,
                signed weights per channel); or "int8-dynamic", with activation ranges computed for every batch.
            source: The graph in fp32.
            names: Which of the graph's values are which layers'.
            calibration: Images as the graph's input, on which ranges are measured.
        """
        self.precision = precision
        self._calibration = calibration
        self._names = names
        self._proto = onnx.load(source)
        del self._proto.graph.value_info[:]  # the shapes in it are of weights that a converter transposes
        before, pooling, after = (_names_of(nodes) for nodes in _parts(self._proto, names))
        self._float32 = [*before, *pooling] if precision == "fp16" else [*before, *pooling, *after]
        self._ranges: dict[str, Range] | None = None
        self._analysis: RangeAnalysis | None = None
        self._corrections: dict[str, np.ndarray] = {}

    def convert(self, target: Path, float32: Collection[str] = ()) -> ValueRange | None:
        """Writes the graph in lower precision.

        Args:
            target: The file to write.
            float32: Nodes that stay in float32, by name, beside images, pooling and, in int8, the classifier.

        Returns:
            The largest magnitude inside the graph, and the nodes of a graph in fp16 that stay in float32 beside those
            above; None for "int8-dynamic".

        Raises:
            MemoryError: Memory does not suffice to measure the values of a single image.
            Exception: Whatever ONNX Runtime's converters raise.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(self._proto)  # a quantizer changes it
        kept = [*self._float32, *float32]
        with _quiet():
            if self.precision == "fp16":
                made, analysis = fp16.convert(proto, kept, self._calibration, self._analysis)
                self._analysis = self._analysis or analysis
                onnx.save(made, target)
                return {
                    "largest": analysis.largest,
                    "value": analysis.value,
                    "images": analysis.images,
                    "float32": dict(analysis.reasons),
                }
            if self.precision == "int8-static":
                self._ranges = self._ranges or ranges.measure(proto, self._calibration)
                bias_correction.apply(proto, self._corrections, kept)
                int8.static(proto, kept, self._ranges, target)
                value, largest = ranges.largest(self._ranges)
                return {"largest": largest, "value": value, "images": len(self._calibration)}
            int8.dynamic(proto, kept, target)
            return None

    def correct_biases(self, converted: Path) -> bool:
        """Lets `convert` correct the biases of quantized layers from now on, where the precision is "int8-static".

        Args:
            converted: The graph in this precision, as `convert` wrote it without more nodes in float32.

        Returns:
            Whether there is a bias to correct.
        """
        if self.precision == "int8-static":
            roundings = switches.of_static(self._proto, onnx.load(converted))
            batches = ranges.batches(self._proto, self._calibration, CORRECTION_IMAGES)
            self._corrections = bias_correction.measure(self._proto, roundings, batches)
        return bool(self._corrections)

    def keep_biases(self) -> None:
        """Lets `convert` leave biases as they are again."""
        self._corrections = {}

    def rank_layers(self, converted: Path) -> list[LayerHarm]:
        """The layers by the harm that they do when they alone are in lower precision, in descending order.

        Args:
            converted: The graph in this precision, as `convert` wrote it without more nodes in float32.
        """
        proto, float32 = self._proto, set(self._float32)
        if self.precision == "fp16":
            float32 |= set(self._analysis.reasons) if self._analysis else set()
            roundings = switches.of_half(proto, float32)
        elif self.precision == "int8-static":
            roundings = switches.of_static(proto, onnx.load(converted))
        else:
            roundings = switches.of_dynamic(proto, float32)
        operators = int8.QUANTIZED - int8.FOLLOWERS if self.precision == "int8-static" else None
        low = layer_harm.low_layers(proto, self._names, float32, roundings, operators)
        batches = ranges.batches(proto, self._calibration, layer_harm.IMAGES)
        return layer_harm.rank(proto, roundings, low, batches)


def _parts(proto: onnx.ModelProto, names: Layers) -> tuple[Nodes, Nodes, Nodes]:
    """The nodes of preprocessing, of the pooling, and after it."""
    entry = names.inputs.get("network")
    before = layers.nodes_between(proto, None, entry) if entry else []
    pooled = names.outputs.get("network.pool")
    if pooled is None:  # a published network has its own, somewhere inside
        last = [node for node in proto.graph.node if "logits" in node.output]
        return before, [], [*last, *layers.nodes_between(proto, "logits", "probabilities")]
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
