"""The graph of every built-in pooling layer, by a plain `torch.onnx.export`, with inputs and torch's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from poolzoo.model.geometry import Geometry
from poolzoo.model.inference import OPSET, quiet_exporter
from poolzoo.plugin import loader
from poolzoo.plugin.spec import Kind, Pooling
from poolzoo.testing.checked_pooling import CheckedPooling

CHANNELS, SIDE = 64, 8
BATCHES: Final = (3, 3, 1, 7, 3)  # one after another, with one session
WINDOW: Final = Geometry(2, 2)  # of local layers


def names() -> list[str]:
    """`global NAME` and `local NAME` of every built-in pooling, in alphabetical order."""
    entries = loader.catalog().select(Pooling)
    poolings = [entry.item for entry in entries if entry.source.tier == "built-in"]
    return sorted(f"{item.kind} {item.name}" for item in poolings if isinstance(item, Pooling))


def write(name: str, folder: Path) -> None:
    """Writes a layer's `model.onnx`, and `cases.npz` with inputs and torch's outputs.

    Args:
        name: One of `names()`.
        folder: An existing directory.
    """
    kind, _, pooling = name.partition(" ")
    found = loader.catalog().pooling(pooling, _kind(kind))
    assert isinstance(found.entry.item, Pooling)
    layer = CheckedPooling(found.entry.item, found.build, found.options).build(WINDOW, CHANNELS)
    seeded = torch.Generator().manual_seed(1)
    inputs = [torch.randn(size, CHANNELS, SIDE, SIDE, generator=seeded) for size in BATCHES]
    with torch.inference_mode():
        outputs = [layer(x) for x in inputs]
    with quiet_exporter():
        torch.onnx.export(
            layer,
            (inputs[0],),
            folder / "model.onnx",
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    arrays = {f"x{at}": x.numpy() for at, x in enumerate(inputs)}
    np.savez(folder / "cases.npz", **arrays, **{f"y{at}": y.numpy() for at, y in enumerate(outputs)})


def _kind(text: str) -> Kind:
    return "global" if text == "global" else "local"
