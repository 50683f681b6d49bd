"""Checks parts of a graph by themselves on extreme inputs that no image leads to: they show a lost eps or a NaN.

Each part is a subgraph of the exported graph, with the same nodes: the network after its preprocessing ("core"), and
every layer that torch, timm and torchvision do not provide, such as poolings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from poolzoo.common.errors import CheckFailed
from poolzoo.model import surgery
from poolzoo.model.inference import OPSET, plain_operators, quiet_exporter
from poolzoo.parity.float64 import in_float64
from poolzoo.parity.layers import Layers, subgraph
from poolzoo.parity.reference import reordered_sums
from poolzoo.parity.report import ProbeResult
from poolzoo.parity.rounding import RandomRounding

# The tolerance is this many times the module's noise floor, plus a fraction of its largest output. That is looser than
# for images, since the floor comes from a few rows; a lost eps gives NaN.
FLOOR_FACTOR: Final = 8.0
RELATIVE: Final = 5e-6
ROWS: Final = 3  # of a probe: run at once, in twos and one by one
ROUNDING_SAMPLES: Final = 8  # for a layer beyond its tolerance: does it choose among almost equal values?
LIBRARIES: Final = ("torch.", "timm.", "torchvision.")
# ONNX Runtime's lose a NaN where torch's keep it, and its Clip turns infinity into the largest float.
LOSES_NAN: Final = ("ReduceMax", "TopK", "MaxPool", "GlobalMaxPool", "Clip")

OpenPart = Callable[[bytes], onnxruntime.InferenceSession]


@dataclass(frozen=True)
class Part:
    """A module, and the same as a part of the graph.

    Attributes:
        name: The module's path, or "core".
        module: The module, in eval mode on the CPU.
        session: The part of the graph.
        shape: The shape of its input without the batch.
        image: One image as the graph's input, where the part reads the batch size from it.
        loses_nan: Whether an operator in it loses NaN in ONNX Runtime.
    """

    name: str
    module: nn.Module
    session: onnxruntime.InferenceSession
    shape: tuple[int, ...]
    image: np.ndarray | None
    loses_nan: bool

    def probes(self) -> dict[str, np.ndarray]:
        """The inputs that it is checked on, by name, `float32[ROWS, *shape]` each."""
        return core_probes(self.shape) if self.name == "core" else layer_probes(self.shape)

    def run_torch(self, x: np.ndarray, dtype: torch.dtype) -> np.ndarray:
        """The module's output in a precision, as `float64[N, …]`."""
        with torch.inference_mode():
            return np.asarray(self.module(torch.from_numpy(x).to(dtype)).double().numpy())

    def run_rounded(self, x: np.ndarray, seed: int) -> np.ndarray:
        """The module's output in float32 with random rounding errors, as `float64[N, …]`."""
        with RandomRounding(seed):
            return self.run_torch(x, torch.float32)

    def run_graph(self, x: np.ndarray) -> np.ndarray:
        """The output of the part of the graph, as `float64[N, …]`."""
        inputs = {self.session.get_inputs()[0].name: x}
        if self.image is not None:
            inputs["images"] = np.repeat(self.image, len(x), 0)
        return np.asarray(self.session.run(None, inputs)[0], np.float64)


def run_probes(
    model: nn.Module, proto: onnx.ModelProto, layers: Layers, size: tuple[int, int], open_part: OpenPart
) -> list[ProbeResult]:
    """Checks the core and every layer of poolzoo's or of a plugin on extreme inputs.

    Args:
        model: The network with its preprocessing, in eval mode on the CPU.
        proto: Its graph.
        layers: Which of the graph's values are which layers'.
        size: Height and width of the images.
        open_part: Opens a graph from bytes.

    Raises:
        CheckFailed: A part gives outputs of another shape than its module.
    """
    shapes = _input_shapes(model, size)
    results = []
    for path, module in model.named_modules():
        if path in shapes and (path == "network" or _is_foreign(module)):
            part = _part(path, module, shapes[path], proto, layers, open_part, size)
            results += check_inputs(part, part.probes())
    return results


def find_part(
    model: nn.Module, proto: onnx.ModelProto, layers: Layers, size: tuple[int, int], open_part: OpenPart, name: str
) -> tuple[Part, onnx.ModelProto]:
    """The part of this name and its graph, with the arguments of `run_probes`."""
    path = "network" if name == "core" else name
    shape, module = _input_shapes(model, size)[path], model.get_submodule(path)
    part = _part(path, module, shape, proto, layers, open_part, size)
    return part, _part_graph(path, module, shape, proto, layers)


def _is_foreign(module: nn.Module) -> bool:
    """Whether a layer is neither a library's nor one of poolzoo's containers."""
    home = type(module).__module__
    return not f"{home}.".startswith(LIBRARIES) and not home.startswith(
        ("poolzoo.model.network", "poolzoo.model.inference")
    )


def _input_shapes(model: nn.Module, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The input shapes without the batch of all modules that take one float tensor and give one."""
    shapes: dict[str, tuple[int, ...]] = {}

    def recorder(path: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(module: nn.Module, args: tuple[object, ...], result: object) -> None:
            if len(args) != 1 or not isinstance(args[0], Tensor) or not isinstance(result, Tensor):
                return
            if args[0].is_floating_point() and result.is_floating_point():
                shapes.setdefault(path, tuple(args[0].shape[1:]))

        return hook

    handles = [module.register_forward_hook(recorder(path)) for path, module in model.named_modules()]
    try:
        surgery.dry_run(model, torch.zeros(2, *size, 3, dtype=torch.uint8))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _part(
    path: str,
    module: nn.Module,
    shape: tuple[int, ...],
    proto: onnx.ModelProto,
    layers: Layers,
    open_part: OpenPart,
    size: tuple[int, int],
) -> Part:
    part = _part_graph(path, module, shape, proto, layers)
    image = None
    if any(value.name == "images" for value in part.graph.input):
        uint8 = proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        image = np.zeros((1, *size, 3), np.uint8) if uint8 else np.zeros((1, 3, *size), np.float32)
    return Part(
        name="core" if path == "network" else path,
        module=module,
        session=open_part(part.SerializeToString()),
        shape=shape,
        image=image,
        loses_nan=any(node.op_type in LOSES_NAN for node in part.graph.node),
    )


def _part_graph(
    path: str, module: nn.Module, shape: tuple[int, ...], proto: onnx.ModelProto, layers: Layers
) -> onnx.ModelProto:
    end = "logits" if path == "network" else layers.outputs.get(path)
    if path in layers.inputs and end is not None:
        return subgraph(proto, layers.inputs[path], end, shape)
    return exported_alone(module, shape)  # it is fused with its neighbors


def exported_alone(module: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    with quiet_exporter(), plain_operators(module):
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
    """Extreme inputs of a layer, by name, `float32[ROWS, *shape]` each."""
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
    """Inputs of a network that no normalized image has, by name, `float32[ROWS, *shape]` each."""
    noise = np.random.default_rng(0).standard_normal((ROWS, *shape)).astype(np.float32)

    def with_one(value: float) -> np.ndarray:
        x = noise.copy()
        center: tuple[slice | int, ...] = (slice(None), *(side // 2 for side in shape))
        x[center] = value
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


def check_inputs(part: Part, inputs: Mapping[str, np.ndarray]) -> list[ProbeResult]:
    """`check_part` of several inputs, by name. The module is in float64 once, and not once for each.

    Raises:
        CheckFailed: The part gives outputs of another shape.
    """
    doubles = _in_float64(part, inputs)
    return [_compare(part, name, x, doubles.get(name)) for name, x in inputs.items()]


def check_part(part: Part, name: str, x: np.ndarray) -> ProbeResult:
    """Compares a part with its module on one input, in batches of several sizes.

    Args:
        part: The part.
        name: The input's name.
        x: The input, `float32[ROWS, *shape]`.

    Raises:
        CheckFailed: The part gives outputs of another shape.
    """
    return check_inputs(part, {name: x})[0]


def _compare(part: Part, name: str, x: np.ndarray, double: np.ndarray | None) -> ProbeResult:
    """Compares a part with its module, whose output in float64 is None where it requires float32."""
    single = part.run_torch(x, torch.float32)
    if double is None:
        double = single
    outputs = [
        np.concatenate([part.run_graph(x[start : start + size]) for start in range(0, ROWS, size)])
        for size in (ROWS, 1, 2)
    ]
    shapes = {one.shape for one in outputs} - {single.shape}
    if shapes:
        text = f"{part.name} gives {shapes.pop()} in the graph, {single.shape} in torch"
        raise CheckFailed(text, "this is a bug in torch's exporter or in poolzoo; please report it")
    finite = np.isfinite(single) & np.isfinite(double)
    samples = [single, *reordered_sums(lambda rows: part.run_torch(rows, torch.float32), x)]
    allowed = _tolerance(samples, double, finite)
    with np.errstate(invalid="ignore"):  # infinities are not compared
        error = max(float(np.abs(np.where(finite, found - double, 0)).max()) for found in outputs)
    if allowed < error < np.inf:
        rounded = (part.run_rounded(x, seed) for seed in range(ROUNDING_SAMPLES))
        allowed = max(allowed, _tolerance(rounded, double, finite))
    # The graph must have NaN and infinity where torch has them, and nowhere else.
    hostile = not np.isfinite(x).all()
    lost = int(max((~np.isfinite(single) & np.isfinite(found)).sum() for found in outputs))
    new = int(max((finite & ~np.isfinite(found)).sum() for found in outputs))
    note = f"{error:.2e} where {allowed:.2e} is allowed"
    if hostile:  # finite values beside a NaN are not checked
        note = f"differs by {error:.2e} where both are finite"
    if lost or new:
        note = f"NaN or infinity in {new} places where torch has none, none in {lost} where it has"
    masks_differ = bool(new or (lost and np.isfinite(double)[~np.isfinite(single)].sum() == 0))
    excused = hostile and part.loses_nan
    if masks_differ and excused:
        note += " (ONNX Runtime loses it in a max or clip operator)"
    return ProbeResult(
        part=part.name,
        probe=name,
        max_abs=error if np.isfinite(error) else None,
        allowed=None if hostile else allowed,
        passed=(error <= allowed or hostile) and not (masks_differ and not excused),
        note=note,
    )


def _in_float64(part: Part, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The module's outputs in float64, by name; without those for which it requires float32."""
    found = {}
    with suppress(RuntimeError), in_float64(part.module):
        for name, x in inputs.items():
            with suppress(RuntimeError):
                found[name] = part.run_torch(x, torch.float64)
    return found


def _tolerance(samples: Iterable[np.ndarray], double: np.ndarray, finite: np.ndarray) -> float:
    """The tolerance from samples of the module's float32 output, where values are finite."""
    with np.errstate(invalid="ignore"):
        floor = max(np.abs(np.where(finite, np.nan_to_num(one - double), 0)).max() for one in samples)
    return float(FLOOR_FACTOR * floor + RELATIVE * np.abs(np.where(finite, double, 0)).max())
