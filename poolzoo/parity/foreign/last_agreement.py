"""Up to which layer a file still computes what its module computes, found by values: names tell nothing across tools.

A module's output is in the graph where a value of the same shape equals it. The exporter fuses some layers with the
next one, so that their outputs are not in the graph. The last output that is there says where to look: behind it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from poolzoo.common.errors import PoolzooError
from poolzoo.parity.layers import with_outputs
from poolzoo.runtime import ort_session
from poolzoo.runtime.foreign.classifier import run_in_pieces

RELATIVE: Final = 1e-4  # of a layer's largest output, as in `first_difference`


@dataclass(frozen=True, kw_only=True)
class LastAgreement:
    """The last layer of a module whose output is in the graph, and the next one.

    Attributes:
        layer: Its path in the module; "" where already the first layer is not there.
        value: The name of the graph's value.
        next: The path of the layer after it.
        node: The node that reads the value first, as "Conv conv_7"; "" likewise.
    """

    layer: str
    value: str
    next: str
    node: str

    def describe(self) -> str:
        """`it agrees up to layer1.0.relu (value relu_1) and differs from layer1.1.conv1 on`."""
        if not self.layer:
            return f"it differs from the first layer on, {self.next}"
        read = f", which {self.node} reads" if self.node else ""
        return f"it agrees up to {self.layer} (value {self.value}{read}) and differs from {self.next} on"

    def to_json(self) -> dict[str, object]:
        """`last_agreement` in `verify --json`."""
        return asdict(self)


def find_last_agreement(
    network: nn.Module, x: Tensor, proto: onnx.ModelProto, inputs: np.ndarray, batch: int | None
) -> LastAgreement | None:
    """The last layer whose output is in the graph, in the order in which layers finish.

    Args:
        network: The module, on the CPU.
        x: Its input, one image.
        proto: The graph, from `images` to its scores; it is not changed.
        inputs: The same image as the graph's input.
        batch: The only batch size that the graph takes; None for any.

    Returns:
        None where every layer is there, or the graph cannot give its values.
    """
    found = _module_outputs(network, x)
    values = _graph_values(proto, inputs, batch)
    if not found or not values:
        return None
    names = {path: _equal(output, values) for path, output in found.items()}
    there = [index for index, name in enumerate(names.values()) if name]
    paths = list(names)
    last = there[-1] if there else -1
    if last + 1 == len(paths):
        return None
    value = names[paths[last]] if there else ""
    reader = next((node for node in proto.graph.node if value and value in node.input), None)
    return LastAgreement(
        layer=paths[last] if there else "",
        value=value,
        next=paths[last + 1],
        node=f"{reader.op_type} {reader.name}".strip() if reader is not None else "",
    )


def _module_outputs(network: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    """The first output of each layer without layers of its own, by path."""
    found: dict[str, np.ndarray] = {}

    def recorder(path: str) -> Any:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            if isinstance(result, Tensor) and result.is_floating_point() and result.numel() > 1:
                found.setdefault(path, result.detach().clone().numpy())

        return hook

    leaves = [(path, one) for path, one in network.named_modules() if path and not list(one.children())]
    handles = [one.register_forward_hook(recorder(path)) for path, one in leaves]
    try:
        with torch.inference_mode():
            network(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _graph_values(proto: onnx.ModelProto, inputs: np.ndarray, batch: int | None) -> dict[str, np.ndarray]:
    """The float values of a graph for one image, by name."""
    names = [name for node in proto.graph.node for name in node.output if name]
    try:
        content = with_outputs(proto, names).SerializeToString()
        session = ort_session.open_session(content, ort_session.PROVIDERS["cpu"], optimized=False)
        values = run_in_pieces(session, np.repeat(inputs, batch or 1, 0), None)
    except (PoolzooError, RuntimeError, ValueError):
        return {}
    outputs = [one.name for one in session.get_outputs()]
    floats = {name: value for name, value in zip(outputs, values, strict=True) if value.dtype == np.float32}
    return {name: value[:1] for name, value in floats.items() if value.ndim}


def _equal(output: np.ndarray, values: dict[str, np.ndarray]) -> str:
    """The first value of a graph that equals a layer's output, with its channels first or last; "" for none."""
    allowed = RELATIVE * float(np.abs(output).max(initial=0)) + 1e-7
    forms = [output] if output.ndim != 4 else [output, output.transpose(0, 2, 3, 1)]
    for name, value in values.items():
        for form in forms:
            if value.shape == form.shape and np.abs(value - form).max(initial=0) <= allowed:
                return name
    return ""
