"""What a bundle's graph takes, read from its file without any runtime. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common import conform, json_reader
from poolzoo.common.errors import CheckFailed
from poolzoo.data.sizes import MAX_SIDE

KINDS: Final = ("uint8", "float", "photo")
PHOTO: Final = "photo"  # the kind of input that takes photographs of any size, one at a time


@dataclass(frozen=True)
class GraphInput:
    """The input of a graph.

    Attributes:
        kind: "uint8" for `uint8[N, height, width, 3]`, "float" for `float32[N, 3, height, width]` in 0–1, "photo" for
            `uint8[1, H, W, 3]` of any size.
        height, width: The size of its images in pixels; of photographs that to which the graph brings them.
        batch: The only batch size that it takes; None for any.
    """

    kind: str
    height: int
    width: int
    batch: int | None = None

    def convert(self, images: np.ndarray) -> np.ndarray:
        """Images `uint8[N, h, w, 3]` as the graph takes them."""
        return as_input(images, self.kind)


def as_input(images: np.ndarray, kind: str) -> np.ndarray:
    """Images `uint8[N, h, w, 3]` as a graph with this kind of input takes them."""
    if kind != "float":
        return images
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def from_metadata(metadata: Mapping[str, str]) -> GraphInput:
    """The input that the metadata of a bundle's graph states.

    Raises:
        KeyError, TypeError, ValueError: They state none.
    """
    return from_json(json_reader.mapping(json_reader.parse(metadata["input"])))


def from_json(given: Mapping[str, object]) -> GraphInput:
    """The input that parsed JSON states.

    Raises:
        KeyError, TypeError, ValueError: It states none.
    """
    kind, batch = given["kind"], given.get("batch")
    height, width = (json_reader.integer(given[name]) or 0 for name in ("height", "width"))
    if kind not in KINDS or not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"{conform.shown(kind)} of {height}×{width} pixels")
    if batch is not None and not 1 <= (json_reader.integer(batch) or 0) <= MAX_SIDE:
        raise ValueError(f"a batch of {conform.shown(batch)}")
    return GraphInput(str(kind), height, width, json_reader.integer(batch))


def read_input(file: Path) -> GraphInput:
    """The input of a bundle's `model.onnx`.

    Raises:
        CheckFailed: The file was not exported by poolzoo.
    """
    from poolzoo.runtime import onnx_file  # here, since predict alone does not need it

    try:
        return from_metadata(onnx_file.read(file).metadata)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise CheckFailed(f"{file} has no `input` in its metadata", "export the run again") from error
