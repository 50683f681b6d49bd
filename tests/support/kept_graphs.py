"""Graphs of networks and of poolzoo's own layers, for tests that are about something else than torch's exporter.

An export takes longer than all that comes before and after it. Each is made once in a process, and then copied.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from torch import nn

from poolzoo.export import graph
from poolzoo.export.graph import ExportedGraph
from poolzoo.export.source import ExportSource
from poolzoo.parity import probes

NETWORKS: dict[tuple[object, ...], tuple[ExportedGraph, bytes]] = {}
LAYERS: dict[tuple[object, ...], bytes] = {}


def keep(patch: pytest.MonkeyPatch) -> None:
    export, export_layer = graph.export_graph, probes.exported_alone

    def export_graph(source: ExportSource, path: Path, **options: Any) -> ExportedGraph:
        key = (source.weights_sha256, json.dumps(source.config), *sorted(options.items()))
        if key not in NETWORKS:
            NETWORKS[key] = export(source, path, **options), path.read_bytes()
        written, content = NETWORKS[key]
        path.write_bytes(content)
        return written

    def exported_alone(module: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
        if not all(type(part).__module__.startswith(("poolzoo.", "torch.")) for part in module.modules()):
            return export_layer(module, shape)  # two classes of plugins may have one name
        values = hashlib.sha256(b"".join(value.numpy().tobytes() for value in module.state_dict().values()))
        key = (repr(module), shape, values.digest())
        if key not in LAYERS:
            LAYERS[key] = export_layer(module, shape).SerializeToString()
        return onnx.ModelProto.FromString(LAYERS[key])

    patch.setattr(graph, "export_graph", export_graph)
    patch.setattr(probes, "exported_alone", exported_alone)
