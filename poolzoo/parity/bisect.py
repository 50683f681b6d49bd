"""Where a graph that fails first differs from its network: the values inside both, layer by layer."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from poolzoo.parity import layers
from poolzoo.parity.layers import Layers
from poolzoo.parity.probes import Open

# Of a layer's largest output. Healthy layers differ by a millionth; rounding grows on its way through a network, so
# that this must be generous, and a fault that is smaller than this where it arises is found where it has grown.
RELATIVE: Final = 1e-4


def first_difference(
    model: nn.Module, proto: onnx.ModelProto, names: Layers, open_: Open, image: np.ndarray, inputs: np.ndarray
) -> dict[str, Any] | None:
    """The first layer, in the order in which layers finish, that gives something else in the graph.

    Args:
        model: The network with its preprocessing, on the CPU.
        proto: Its graph.
        names: Which of the graph's values are which layers'.
        open_: Opens a graph.
        image: The image that shows the fault, `uint8[H, W, 3]`.
        inputs: The same as the graph takes it, with a batch of one.

    Returns:
        `{"layer", "max_abs", "allowed", "largest"}`, or None where no layer that both have differs by itself.
    """
    found = _inside(model, image)
    kept = {path: name for path, name in names.gives.items() if path in found}
    session = open_(layers.with_outputs(proto, kept.values()).SerializeToString())
    there = {one.name for one in session.get_outputs()}
    wanted = sorted({name for name in kept.values() if name in there})
    values = dict(zip(wanted, session.run(wanted, {"images": inputs}), strict=True))
    for path in found:
        expected, got = found[path], values.get(kept.get(path, ""))
        if got is None or got.shape != expected.shape:
            continue
        largest = float(np.abs(expected).max(initial=0))
        error = float(np.nan_to_num(np.abs(got - expected), nan=np.inf).max(initial=0))
        allowed = RELATIVE * largest + 1e-7
        if not error <= allowed:
            off = error if np.isfinite(error) else None
            return {"layer": path, "max_abs": off, "allowed": allowed, "largest": largest}
    return None


def _inside(model: nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """What each module gives for an image, by its path, the first that finishes first."""
    found: dict[str, np.ndarray] = {}

    def note(path: str) -> Any:
        def hook(module: nn.Module, given: Any, result: Any) -> None:
            if isinstance(result, Tensor) and result.is_floating_point():
                found.setdefault(path, result.detach().clone().numpy())

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules() if path]
    try:
        with torch.inference_mode():
            model(torch.from_numpy(image[None]))
    finally:
        for handle in handles:
            handle.remove()
    return found
