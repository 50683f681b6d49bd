"""Parts of the graph by themselves, on inputs that images never lead to: where a lost eps or a NaN shows.

Each part is cut out of the graph that ships, with the very same nodes: the network behind its preprocessing ("core"),
and every layer that torch, timm and torchvision did not write, the poolings among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from poolzoo.common.errors import CheckFailed
from poolzoo.model import surgery
from poolzoo.model.inference import OPSET, InferenceModel, plain_attention, quiet_exporter
from poolzoo.parity import layers
from poolzoo.parity.layers import Layers
from poolzoo.parity.reference import summed_otherwise
from poolzoo.parity.rounding import RandomRounding

# A probe may lie this many times as far from the module in float64 as the module in float32 does, plus a part of its
# largest output. That is looser than for images, since the floor is taken from a few rows here; a lost eps is NaN.
FLOOR_FACTOR: Final = 8.0
RELATIVE: Final = 5e-6
ROWS: Final = 3  # of a probe: run at once, in twos and one by one
DRAWS: Final = 8  # of rounding errors, for a layer that is too far away: does it choose among what is almost equal?
LIBRARIES: Final = ("torch.", "timm.", "torchvision.")
# ONNX Runtime's lose a NaN where torch's keep it, and its Clip, which ends at the largest float, makes one of infinity.
SWALLOW: Final = ("ReduceMax", "TopK", "MaxPool", "GlobalMaxPool", "Clip")

Open = Callable[[bytes], onnxruntime.InferenceSession]


@dataclass(frozen=True)
class Part:
    """A module, and the same cut out of the graph."""

    name: str
    module: nn.Module
    session: onnxruntime.InferenceSession
    shape: tuple[int, ...]  # of its input, without the batch
    images: np.ndarray | None  # one, where the part reads the size of the batch off the graph's own input
    swallows: bool  # whether a NaN may get lost on the way

    def torch(self, x: np.ndarray, dtype: torch.dtype) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(self.module(torch.from_numpy(x).to(dtype)).double().numpy())

    def rounded(self, x: np.ndarray, seed: int) -> np.ndarray:
        """What torch might have given in float32, had every operation been rounded by chance."""
        with RandomRounding(seed):
            return self.torch(x, torch.float32)

    def graph(self, x: np.ndarray) -> np.ndarray:
        feed = {self.session.get_inputs()[0].name: x}
        if self.images is not None:
            feed["images"] = np.repeat(self.images, len(x), 0)
        return np.asarray(self.session.run(None, feed)[0], np.float64)


def run(
    model: InferenceModel, proto: onnx.ModelProto, names: Layers, size: tuple[int, int], open_: Open
) -> list[dict[str, Any]]:
    """Probes the core and every layer of our own or of a plugin.

    Args:
        model: The network with its preprocessing, in eval mode on the CPU.
        proto: Its graph.
        names: Which of the graph's values are which layers'.
        size: Height and width of the images.
        open_: Opens a graph, as the whole one was opened.

    Returns:
        A row a probe: `{"part", "probe", "max_abs", "allowed", "passed", "note"}`.
    """
    shapes = _input_shapes(model, size)
    rows = []
    for path, module in model.named_modules():
        if path in shapes and (path == "network" or _is_foreign(module)):
            part = _cut(path, module, shapes[path], proto, names, open_, size)
            probes = core_probes(part.shape) if path == "network" else layer_probes(part.shape)
            rows += [judge(part, name, x) for name, x in probes.items()]
    return rows


def _is_foreign(module: nn.Module) -> bool:
    """Whether a layer is neither a library's nor one of ours that only holds others."""
    home = type(module).__module__
    return not f"{home}.".startswith(LIBRARIES) and not home.startswith(
        ("poolzoo.model.network", "poolzoo.model.inference")
    )


def _input_shapes(model: InferenceModel, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of what modules take, without the batch: of those that take one tensor and give one."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(path: str) -> Any:
        def hook(module: nn.Module, given: Any, result: Any) -> None:
            if len(given) == 1 and all(isinstance(one, Tensor) and one.is_floating_point() for one in (*given, result)):
                shapes.setdefault(path, tuple(given[0].shape[1:]))

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules()]
    try:
        surgery.dry_run(model, torch.zeros(2, *size, 3, dtype=torch.uint8))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _cut(
    path: str,
    module: nn.Module,
    shape: tuple[int, ...],
    proto: onnx.ModelProto,
    names: Layers,
    open_: Open,
    size: tuple[int, int],
) -> Part:
    end = "logits" if path == "network" else names.gives.get(path)
    if path in names.takes and end is not None:
        part = layers.cut(proto, names.takes[path], end, shape)
    else:  # fused with its neighbors; by itself it is exported in the same way
        part = _exported(module, shape)
    takes_images = any(value.name == "images" for value in part.graph.input)
    kind = np.uint8 if proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8 else np.float32
    images = np.zeros((1, *size, 3) if kind == np.uint8 else (1, 3, *size), kind) if takes_images else None
    swallows = any(node.op_type in SWALLOW for node in part.graph.node)
    return Part("core" if path == "network" else path, module, open_(part.SerializeToString()), shape, images, swallows)


def _exported(module: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    with quiet_exporter(), plain_attention(module):
        program = torch.onnx.export(
            module,
            (torch.zeros(2, *shape),),
            input_names=["x"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def layer_probes(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Inputs at the edges of what a layer can meet, by name: `float32[ROWS, *shape]` each."""
    random = np.random.default_rng(0)
    noise = random.standard_normal((ROWS, *shape)).astype(np.float32)
    zeros = np.zeros_like(noise)
    spike = zeros.copy().reshape(ROWS, -1)
    spike[np.arange(ROWS), random.integers(0, spike.shape[1], ROWS)] = 3.0
    half = np.abs(noise)
    half[:, : (shape[0] + 1) // 2] = 0
    constant = zeros + np.linspace(0.25, 4, ROWS, dtype=np.float32).reshape(-1, *(1 for _ in shape))
    return {
        "zeros": zeros,
        "a constant": constant,
        "negatives": -np.abs(noise),
        "ties": np.rint(noise),
        "half of it zero": half,
        "one spike": spike.reshape(noise.shape),
        "tiny values": noise * np.float32(1e-6),
        "large values": noise * np.float32(1e3),
        "noise": noise,
    }


def core_probes(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Inputs of a network that no image gives once it is normalized, by name: `float32[ROWS, *shape]` each."""
    noise = np.random.default_rng(0).standard_normal((ROWS, *shape)).astype(np.float32)

    def with_one(value: float) -> np.ndarray:
        x = noise.copy()
        x[(slice(None), *(side // 2 for side in shape))] = value
        return x

    return {
        "zeros": np.zeros_like(noise),
        "noise × 1000": noise * np.float32(1e3),
        "+1000": np.full_like(noise, 1e3),
        "-1000": np.full_like(noise, -1e3),
        "denormals": noise * np.float32(1e-40),
        "one NaN": with_one(np.nan),
        "one +inf": with_one(np.inf),
        "one -inf": with_one(-np.inf),
    }


def judge(part: Part, name: str, x: np.ndarray) -> dict[str, Any]:
    """Compares a part with its module on one probe."""
    single = part.torch(x, torch.float32)
    try:
        double = part.module.double() and part.torch(x, torch.float64)
    except RuntimeError:  # it insists on float32
        double = single
    finally:
        part.module.float()
    answers = [np.concatenate([part.graph(x[i : i + size]) for i in range(0, ROWS, size)]) for size in (ROWS, 1, 2)]
    shapes = {one.shape for one in answers} - {single.shape}
    if shapes:
        raise CheckFailed(f"{part.name} gives {shapes.pop()} in the graph, {single.shape} in torch", "a bug")
    firm = np.isfinite(single) & np.isfinite(double)

    def allowing(draws: Iterable[np.ndarray]) -> float:
        with np.errstate(invalid="ignore"):
            floor = max(np.abs(np.where(firm, np.nan_to_num(draw - double), 0)).max() for draw in draws)
        return float(FLOOR_FACTOR * floor + RELATIVE * np.abs(np.where(firm, double, 0)).max())

    allowed = allowing([single, *summed_otherwise(lambda rows: part.torch(rows, torch.float32), x)])
    error = max(float(np.abs(np.where(firm, got - double, 0)).max()) for got in answers)
    if allowed < error < np.inf:
        allowed = max(allowed, allowing(part.rounded(x, seed) for seed in range(DRAWS)))
    # NaN and infinity: the graph must have them where torch has them, and nowhere else.
    hostile = not np.isfinite(x).all()
    lost = int(max((~np.isfinite(single) & np.isfinite(got)).sum() for got in answers))
    new = int(max((firm & ~np.isfinite(got)).sum() for got in answers))
    note = f"{error:.2e} where {allowed:.2e} is allowed"
    if hostile:  # what is finite beside a NaN is not judged
        note = f"differs by {error:.2e} where both are finite"
    if lost or new:
        note = f"NaN or infinity in {new} places where torch has none, none in {lost} where it has"
    masks_differ = bool(new or (lost and np.isfinite(double)[~np.isfinite(single)].sum() == 0))
    excused = hostile and part.swallows
    passed = (error <= allowed or hostile) and not (masks_differ and not excused)
    if masks_differ and excused:
        note += " (ONNX Runtime loses it in a max or a clip on the way)"
    return {
        "part": part.name,
        "probe": name,
        "max_abs": error if np.isfinite(error) else None,
        "allowed": None if hostile else allowed,
        "passed": passed,
        "note": note,
    }
