"""What the runtimes of ONNX files share: a bundle's session from a run of its graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from poolzoo.common import files
from poolzoo.runtime import onnx_file

MODEL: Final = "model.onnx"
SIGNATURE: Final = "signature.json"  # beside a converted file: input and outputs of the graph that it was made of

Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # the graph's one input to its outputs, in their order
Session = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Load(Protocol):
    """Opens the graph in a directory: a bundle's, any other `model.onnx`, or what a conversion wrote."""

    def __call__(self, directory: Path, *, threads: int, device: str, precision: str) -> Run: ...


def signature(directory: Path) -> onnx_file.Signature:
    """The input and outputs of the graph in a directory, or of the one that its files were converted from."""
    if (directory / SIGNATURE).is_file():
        return onnx_file.Signature.from_json(files.read_json(directory / SIGNATURE))
    return onnx_file.read(directory / MODEL).signature


def write_signature(bundle: Path, out: Path) -> None:
    """Keeps the signature of a bundle's graph beside what was converted from it."""
    files.write_json(out / SIGNATURE, signature(bundle).to_json())


def open_with(load: Load, bundle: Path, *, threads: int, device: str, precision: str) -> Session:
    """A session from images `uint8[N, h, w, 3]` to logits and probabilities, `float32[N, classes]`."""
    graph = signature(bundle)
    run = load(bundle, threads=threads, device=device, precision=precision)
    logits, probabilities = (graph.outputs.index(name) for name in ("logits", "probabilities"))

    def session(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = np.ascontiguousarray(images)
        if graph.dtype != np.uint8:
            x = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        found = run(x)
        return np.asarray(found[logits]), np.asarray(found[probabilities])

    return session
