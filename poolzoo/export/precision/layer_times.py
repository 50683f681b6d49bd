"""What layers in float32 cost in time: ONNX Runtime's profile of the graphs with and without them, kernel by kernel.

A kernel counts to the layer whose node or value it is named after. ONNX Runtime merges nodes, so that the kernel of a
convolution may include its activation. Kernels between layers, such as a change of the memory layout, count to none.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from poolzoo.artifacts import schema
from poolzoo.export.precision.layer_harm import LayerHarm
from poolzoo.runtime import ort_session
from poolzoo.runtime.graph_view import GraphView

RUNS: Final = 7  # of each graph, in turns, the first of which is a warm-up
KERNEL: Final = "_kernel_time"  # ends the name of an event
CAST: Final = "InsertedPrecisionFreeCast_"  # begins the name of a cast that ONNX Runtime adds around float16
MERGED: Final = 4  # nodes in front of a value that one kernel may compute together

Profile = Mapping[tuple[str, str], float]  # milliseconds by name and operator of a kernel


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """Milliseconds of kernels without and with layers in float32, at one batch size.

    Attributes:
        batch: The batch size.
        before: All kernels of the graph without them.
        after: All kernels of the graph with them.
        layers: The kernels of each layer in both graphs, by its path; a layer without kernels of its own is left out.
    """

    batch: int
    before: float
    after: float
    layers: Mapping[str, tuple[float, float]]

    def added(self, path: str) -> float | None:
        """The milliseconds that a layer costs more in float32; None where that is unknown."""
        if path not in self.layers:
            return None
        before, after = self.layers[path]
        return after - before

    def to_json(self) -> schema.KernelTimes:
        """`kernels` in `search` of a candidate."""
        return {"batch": self.batch, "before": round(self.before, 4), "after": round(self.after, 4)}

    def layer_to_json(self, path: str) -> schema.LayerKernels | None:
        """`kernels` of a layer."""
        if path not in self.layers:
            return None
        before, after = self.layers[path]
        return {"before": round(before, 4), "after": round(after, 4)}


def measure(
    before: Path,
    after: Path,
    float32: Path,
    model: ort_session.OnnxModel,
    layers: Sequence[LayerHarm],
    images: np.ndarray,
) -> LayerTimes | None:
    """Profiles two graphs on one batch; None where kernels do not run on the CPU, whose profile has launches alone.

    Args:
        before: The file without layers in float32.
        after: The file with them.
        float32: The file that both were converted from.
        model: That file, opened as the others are to be.
        layers: The layers.
        images: The batch, `uint8[N, H, W, 3]`.
    """
    if model.provider != ort_session.PROVIDERS["cpu"] or not layers:
        return None
    inputs = {"images": model.to_input(images)}
    threads = model.session.get_session_options().intra_op_num_threads
    with tempfile.TemporaryDirectory(dir=after.parent) as folder:
        opened = [
            ort_session.open_session(file, model.provider, threads, profile=Path(folder) / file.stem)
            for file in (before, after)
        ]
        for _ in range(RUNS):
            for session in opened:
                session.run(["logits"], inputs)
        profiles = [_profile(Path(session.end_profiling())) for session in opened]
    proto = onnx.load(float32)
    found = [by_layer(profile, proto, layers) for profile in profiles]
    return LayerTimes(
        batch=len(images),
        before=sum(profiles[0].values()),
        after=sum(profiles[1].values()),
        layers={path: (found[0][path], found[1][path]) for path in found[0] if path in found[1]},
    )


def _profile(file: Path) -> Profile:
    """The median milliseconds of each kernel after the first run."""
    events: list[dict[str, Any]] = json.loads(file.read_bytes())
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            name = event["name"].removesuffix(KERNEL)
            times[name, event["args"]["op_name"]].append(event["dur"] / 1e3)
    return {kernel: statistics.median(taken[1:] or taken) for kernel, taken in times.items()}


def by_layer(profile: Profile, float32: onnx.ModelProto, layers: Sequence[LayerHarm]) -> dict[str, float]:
    """Milliseconds of the kernels of each layer that has some, by its path.

    Args:
        profile: Kernels of a graph that was converted from `float32`.
        float32: The graph, whose names the kernels extend: of a node, or of the value that a node computes.
        layers: The layers.
    """
    view = GraphView(float32.graph)
    nodes = {node.name: node for node in float32.graph.node}
    paths = {name: layer.layer for layer in layers for name in layer.nodes}
    known = nodes.keys() | view.producers.keys()
    found: dict[str, float] = defaultdict(float)
    for (name, operator), milliseconds in profile.items():
        stem = _longest(name.removeprefix(CAST), known)
        if stem in nodes:
            owners = [nodes[stem]]
        elif stem is None:
            continue
        elif operator == "DequantizeLinear":  # it is there for what reads the value
            owners = view.users.get(stem, [])
        else:
            owners = [_computed_by(stem, operator, view)]
        path = next((paths[one.name] for one in owners if one.name in paths), None)
        if path is not None:
            found[path] += milliseconds
    return dict(found)


def _longest(name: str, known: Iterable[str]) -> str | None:
    """The longest known name that a kernel's name is, or begins with before an underscore."""
    parts = name.split("_")
    stems = ("_".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((stem for stem in stems if stem in known), None)


def _computed_by(value: str, operator: str, view: GraphView) -> onnx.NodeProto:
    """The node of a kernel that is named after a value: the last one of its kind among those that it may merge."""
    maker = node = view.producers[value]
    for _ in range(MERGED):
        if node.op_type == operator:
            return node
        if not node.input or node.input[0] not in view.producers:
            break
        node = view.producers[node.input[0]]
    return maker
