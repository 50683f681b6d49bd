"""Finds the first layer in which a graph differs from its network, by the values inside both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from poolzoo.parity.layers import Layers, with_outputs
from poolzoo.parity.probes import OpenPart
from poolzoo.parity.report import LayerDifference
from poolzoo.runtime import tolerance

# Of a layer's largest output. Healthy layers differ by a millionth, and rounding errors grow through a network. A fault
# that is smaller than this in its layer is found in a later one.
RELATIVE: Final = 1e-4


def find_first_difference(
    *,
    model: nn.Module,
    proto: onnx.ModelProto,
    layers: Layers,
    open_part: OpenPart,
    image: np.ndarray,
    inputs: np.ndarray,
) -> LayerDifference | None:
    """The first layer, in the order in which layers finish, whose output differs in the graph.

    Args:
        model: The network with its preprocessing, on the CPU.
        proto: Its graph.
        layers: Which of the graph's values are which layers'.
        open_part: Opens a graph from bytes.
        image: The image that shows the fault, `uint8[H, W, 3]`.
        inputs: The same as the graph's input, with a batch of one.

    Returns:
        None where no layer that both have differs by itself.
    """
    outputs = _module_outputs(model, image)
    names = {path: name for path, name in layers.outputs.items() if path in outputs}
    session = open_part(with_outputs(proto, names.values()).SerializeToString())
    available = {one.name for one in session.get_outputs()}
    wanted = sorted({name for name in names.values() if name in available})
    values = dict(zip(wanted, session.run(wanted, {"images": inputs}), strict=True))
    for path, expected in outputs.items():
        found = values.get(names.get(path, ""))
        if found is None or found.shape != expected.shape:
            continue
        largest = float(np.abs(expected).max(initial=0))
        error = float(tolerance.distances(found, expected).max(initial=0))
        allowed = RELATIVE * largest + 1e-7
        if not error <= allowed:
            max_abs = error if np.isfinite(error) else None
            return LayerDifference(layer=path, max_abs=max_abs, allowed=allowed, largest=largest)
    return None


def _module_outputs(model: nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """The output of each module for an image, by path, in the order in which modules finish."""
    found: dict[str, np.ndarray] = {}

    def recorder(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            if isinstance(result, Tensor) and result.is_floating_point():
                found.setdefault(path, result.detach().clone().numpy())

        return hook

    handles = [module.register_forward_hook(recorder(path)) for path, module in model.named_modules() if path]
    try:
        with torch.inference_mode():
            model(torch.from_numpy(image[None]))
    finally:
        for handle in handles:
            handle.remove()
    return found
