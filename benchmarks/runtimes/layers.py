"""The graph of every built-in pooling layer, by a plain `torch.onnx.export`, with inputs and torch's outputs.

A graph is a bundle's graph without a backbone: its image is the feature map, `float[N, 64, 8, 8]`, its logits are the
layer's outputs, flattened. So a runtime's session runs it like any other. A local layer has a graph for each geometry.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from poolzoo.common.json_writer import dumps
from poolzoo.model.geometry import Geometry
from poolzoo.model.inference import OPSET, quiet_exporter
from poolzoo.plugin import loader
from poolzoo.plugin.grammar import accepts
from poolzoo.plugin.spec import Pooling

BATCHES: Final = (3, 3, 1, 7, 3)  # one after another, with one session
CHANNELS, SIDE = 64, 8
GEOMETRIES: Final = {  # of local layers, by what follows the layer's name in that of the graph
    "": Geometry(2, 2),
    ", 3 × 3 padded": Geometry(3, 2, padding=1),
    ", 3 × 3 ceil_mode": Geometry(3, 2, ceil_mode=True),
}
SCALE: Final = np.float32(255)  # a session divides by it what it makes a float input of


class _Layer(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.layer(images).flatten(1)
        return logits, logits.softmax(1)


def names() -> list[str]:
    """`global NAME` and `local NAME` of every built-in pooling, in alphabetical order."""
    entries = loader.catalog().select(Pooling)
    poolings = [entry.item for entry in entries if entry.source.tier == "built-in"]
    return sorted(f"{item.kind} {item.name}" for item in poolings if isinstance(item, Pooling))


def graphs_of(layer: str) -> list[str]:
    """The names of a layer's graphs; some layers refuse some of the geometries."""
    return [layer + suffix for suffix in GEOMETRIES] if layer.startswith("local ") else [layer]


def graphs() -> list[str]:
    """The names of all graphs."""
    return [graph for layer in names() for graph in graphs_of(layer)]


def write(name: str, folder: Path) -> None:
    """Writes a layer's `model.onnx` and `config.json`, and a file of cases: inputs and torch's outputs.

    Args:
        name: One of `graphs()`.
        folder: Its directory, which is made. The file of its cases lies beside it.
    """
    layer = _Layer(_build(name)).eval()
    folder.mkdir()
    seeded = torch.Generator().manual_seed(1)
    maps = torch.randn(sum(BATCHES), CHANNELS, SIDE, SIDE, generator=seeded)
    with torch.inference_mode():
        logits, _ = layer(maps)
    file = folder / "model.onnx"
    with quiet_exporter():
        torch.onnx.export(
            layer,
            (maps[:3],),
            file,
            input_names=["images"],
            output_names=["logits", "probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    _add_metadata(
        file,
        {
            "input": {"kind": "float", "height": SIDE, "width": SIDE},
            "labels": [str(one) for one in range(logits.shape[1])],
        },
    )
    (folder / "config.json").write_text("{}\n", encoding="utf-8")
    images = maps.permute(0, 2, 3, 1).numpy() * SCALE
    np.savez(folder.with_suffix(".npz"), images=images, logits=logits.numpy())


def _build(name: str) -> nn.Module:
    """A layer with noise on its parameters, so that zeros and ones disable no branch."""
    kind, _, text = name.partition(" ")
    pooling, comma, suffix = text.partition(",")
    torch.manual_seed(0)
    if kind == "global":
        found = loader.catalog().pooling(pooling, "global")
        extra = {"map_size": (SIDE, SIDE)} if accepts(found.build, "map_size") else {}
        layer: nn.Module = found.build(CHANNELS, **extra, **found.options)
    else:
        found = loader.catalog().pooling(pooling, "local")
        layer = GEOMETRIES[comma + suffix].build(found.build, CHANNELS, found.options)
    seeded = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded))
    return layer


def _add_metadata(file: Path, metadata: Mapping[str, object]) -> None:
    model = onnx.load(file)
    for node in model.graph.node:
        if node.op_type == "Reshape" and "logits" in node.output:  # the flattening, which is no part of the layer
            del node.attribute[:]  # `allowzero`, which makes no difference here, and which some runtimes lack
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=dumps(value))
    onnx.save(model, file)
