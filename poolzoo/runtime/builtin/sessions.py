"""A session of the contract from a run of the graph: what the runtimes of graphs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common import files, json_reader
from poolzoo.common.errors import CheckFailed
from poolzoo.runtime.graph_input import GraphInput, from_json, read_input

__all__ = ["IMAGES", "MODEL", "OUTPUTS", "Run", "Session", "keep_input", "kept_input", "read_input", "session"]

MODEL: Final = "model.onnx"
IMAGES: Final = "images"  # the name of a graph's input
OUTPUTS: Final = ("logits", "probabilities")
INPUT: Final = "input.json"  # beside a converted file: the input of the graph that it was made of

Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # the graph's input to its outputs: logits, probabilities
Session = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def session(run: Run, graph: GraphInput) -> Session:
    """A session from images `uint8[N, h, w, 3]` to logits and probabilities, `float32[N, classes]` each."""

    def images_to_outputs(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, probabilities = run(graph.convert(images))
        return logits, probabilities

    return images_to_outputs


def keep_input(bundle: Path, out: Path) -> None:
    """Writes down what the graph in a directory takes, beside what it was converted to."""
    files.write_json(out / INPUT, asdict(read_input(bundle / MODEL)))


def kept_input(directory: Path) -> GraphInput:
    """What `keep_input` wrote down.

    Raises:
        CheckFailed: It is missing or damaged.
    """
    try:
        return from_json(json_reader.mapping(files.read_json(directory / INPUT)))
    except (KeyError, TypeError, ValueError) as error:
        text = f"{directory / INPUT} is damaged: it states no input of a graph"
        raise CheckFailed(text, "export the run again") from error
