"""Calls with graphs and networks that export, comparison with a graph, or a change of a graph must refuse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

Call = Callable[[], object]


class Averaging(nn.Module):
    """Averages with a divisor that torch's exporter ignores."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x, 8, divisor_override=2).flatten(1)


class Branching(nn.Module):
    """Decides by a value, which a graph cannot."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) if x.sum() > 0 else x.flatten(1) + 1


class Rooted(nn.Module):
    """The slope of a root is infinite at zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).sqrt()


class NotFinite(nn.Module):
    """Divides by zero."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        zeros = images.flatten(1)[:, :3] * 0.0
        return zeros / zeros, zeros


class Random(nn.Module):
    """Gives other logits each time."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = torch.randn(len(images), 3)
        return logits, logits.softmax(1)


def _exports() -> Iterator[Call]:
    from poolzoo.export import graph, rule_outputs
    from poolzoo.export.precision import candidates
    from poolzoo.metrics.output_rules import OutputRules
    from poolzoo.model.network import Preprocess

    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    preprocess = Preprocess(mean=mean, std=std, data_size=(8, 8), image_size=(8, 8))
    for network in (Averaging(), Branching()):
        yield lambda network=network: graph.check_exportable(network, preprocess, (8, 8))

    def fails(name: str) -> Any:
        raise RuntimeError("no such operator.\nand more")

    conversion: Any = Namespace(source=Namespace(image_labels=np.zeros(1)), converter=fails)
    for choice in ("fp16", "int8"):
        yield lambda choice=choice: candidates.convert_candidates(choice, conversion)
    session = Namespace(get_outputs=lambda: [Namespace(name="accepted")])
    model: Any = Namespace(rules=OutputRules(), session=session)
    yield lambda: rule_outputs.require_right(Path("model.onnx"), model, np.zeros((1, 8, 8, 3), np.uint8))


def _parity(folder: Path) -> Iterator[Call]:
    from poolzoo.parity import probes
    from poolzoo.parity.check import measure
    from poolzoo.parity.foreign import model, verify
    from poolzoo.parity.reduction.reduce import reduce_failure
    from poolzoo.parity.reference import Reference
    from poolzoo.runtime.foreign.classifier import FileInput
    from poolzoo.runtime.foreign.scaling import Scaling

    images = np.zeros((2, 8, 8, 3), np.uint8)
    for network in (NotFinite(), Random()):
        yield lambda network=network: Reference.compute(network, images, None)

    class Linear(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = images.flatten(1)[:, :3] / 255.0
            return logits, logits.softmax(1)

    less: Any = Namespace(run=lambda images, last: [np.zeros((len(images), 2))] * 2)
    yield lambda: measure(Reference.compute(Linear(), images, None), less)
    part: Any = Namespace(
        name="pooling",
        module=nn.Identity(),
        run_torch=lambda x, dtype: np.zeros((len(x), 3), np.float32),
        run_graph=lambda x: np.zeros((len(x), 2), np.float32),
    )
    yield lambda: probes.check_inputs(part, {"zeros": np.zeros((probes.ROWS, 3), np.float32)})

    given = FileInput("x", "float32", "NCHW", 3, 8, 8, None)
    for module in (nn.Identity(), nn.Linear(9, 2)):
        yield lambda module=module: model.make_model("net.py:build", module, given, Scaling())
    (folder / "flat.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()\n"
    )
    weights = [onnx.numpy_helper.from_array(np.zeros((12, 2), np.float16), "w")]
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["flat", "wide"], ["y"]),
    ]
    half = _save(folder / "half.onnx", nodes, {"x": ["N", 3, 2, 2]}, {"y": ["N", 2]}, weights)
    options = verify.AgainstOptions(arithmetics=("fp16",))
    yield lambda: verify.verify_against(half, f"{folder}/flat.py:build", options)

    identity = onnx.load(
        _save(folder / "same.onnx", [helper.make_node("Identity", ["x"], ["y"])], {"x": [1]}, {"y": [1]})
    )
    x = {"x": np.ones(1, np.float32)}

    def fails(*_: object) -> Any:
        raise ValueError("no such kernel")

    yield lambda: reduce_failure(identity, x, lambda x: x, actual=fails)
    yield lambda: reduce_failure(identity, x, None)


def _save(path: Path, nodes: list[Any], given: Any, outputs: Any, weights: Any = (), **metadata: object) -> Path:
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]
        for values in (given, outputs)
    ]
    graph = helper.make_graph(nodes, "g", *infos, initializer=list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    helper.set_model_props(model, {name: json.dumps(value) for name, value in metadata.items()})
    path.write_bytes(model.SerializeToString())
    return path


def _changed_graphs(folder: Path) -> Iterator[Call]:
    """Graphs of uint8 that cannot be changed to what a runtime asks for."""
    from poolzoo.plugin.spec import GraphForm
    from poolzoo.runtime import forms, opsets

    def content(*nodes: Any, kind: str = "uint8") -> bytes:
        path = _save(folder / "form.onnx", list(nodes), {"images": ["N", 8, 8, 3]}, {"y": ["N"]}, input={"kind": kind})
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
        return model.SerializeToString()

    def cast(value: str, to: str) -> Any:
        return helper.make_node("Cast", [value], [to], to=TensorProto.FLOAT)

    def turned(value: str, to: str, *order: int) -> Any:
        return helper.make_node("Transpose", [value], [to], perm=list(order))

    floats = GraphForm(input="float")
    for nodes in (
        [cast("images", "a"), turned("a", "y", 0, 2, 1, 3)],
        [cast("images", "a"), cast("a", "y")],
    ):
        yield lambda nodes=nodes: forms.adapt(content(*nodes), floats)
    photo = content(cast("images", "y"), kind="photo")
    yield lambda: forms.adapt(photo, floats)
    nonesuch = content(cast("images", "a"), turned("a", "b", 0, 3, 1, 2), helper.make_node("Nonesuch", ["b"], ["y"]))
    yield lambda: forms.adapt(nonesuch, floats)
    mean = helper.make_node("ReduceMean", ["x"], ["y"], noop_with_empty_axes=1)
    reduced = onnx.load(_save(folder / "reduced.onnx", [mean], {"x": ["N", 3]}, {"y": ["N", 3]}))
    yield lambda: opsets.lowered(reduced, 17)


def _heads() -> Iterator[Call]:
    from poolzoo.explain import head

    values = np.zeros((1, 3, 1, 1), np.float32)
    for logits in (np.ones((1, 3)), np.zeros((1, 3))):
        yield lambda logits=logits: head.gradient_times_activation(Rooted(), values, 0, logits)


def _arithmetic(folder: Path) -> Iterator[Call]:
    from poolzoo.runtime import half_arithmetic

    node = helper.make_node("Nonesuch", ["images"], ["logits"])
    unknown = onnx.load(_save(folder / "unknown-operator.onnx", [node], {"images": ["N", 3]}, {"logits": ["N", 3]}))
    every, images = np.ones(1, bool), np.zeros((1, 3), np.float32)
    yield lambda: half_arithmetic.check_rounded(unknown, images, "fp16", np.zeros((1, 3)), every, 1.0)


def _own_head() -> Iterator[Call]:
    from poolzoo.explain import head

    graph: Any = None
    yield lambda: head.rebuild_head(Path("bundle"), {"poolzoo": {"map": [1, 2, 3], "pool": None}}, graph)


def calls(folder: Path) -> Iterator[Call]:
    """Calls whose errors have a hint."""
    yield from _exports()
    yield from _parity(folder)
    yield from _arithmetic(folder)
    yield from _own_head()


def reasons(folder: Path) -> Iterator[Call]:
    """Calls whose errors are reasons that somebody else shows."""
    yield from _changed_graphs(folder)
    yield from _heads()
