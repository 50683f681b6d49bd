"""Networks, and faults that are planted in their graphs: what exporters, converters and runtimes get wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.export import cases
from poolzoo.export.source import ExportSource
from poolzoo.model.inference import InferenceModel

RESNET: Final = "nano/resnet@32"
VIT: Final = "timm/test_vit@160:160"
POOLINGS: Final = "poolings@32"
TWO_FACED: Final = "two-faced@32"
LOST_EPS: Final = "lost eps@32"


class Poolings(nn.Module):
    """Poolings side by side, as plugins have them: padded, cropped, rounded, powers, roots, ratios."""

    def __init__(self, *, two_faced: bool = False, eps: float = 1e-3) -> None:
        """With `two_faced`, the exported graph has another factor than the network; an eps of 1e-12 is lost in it."""
        super().__init__()
        self.eps = eps
        self.two_faced = two_faced
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(72, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.stem(x).relu()).relu()
        spread = (x - x.mean((2, 3), keepdim=True)).pow(2).mean((2, 3))
        found = [
            F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False).amax((2, 3)),
            F.max_pool2d(F.pad(x - 1, (1, 1, 1, 1)), 3, 2).mean((2, 3)),
            x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
            (spread + 1e-5).sqrt(),
            F.interpolate(x, size=(24, 24), mode="nearest").std((2, 3)),
            torch.div((x * 40).to(torch.int32), 3, rounding_mode="floor").float().mean((2, 3)) / 40,
            x[:, :, 2:-3, 2:-3].amax((2, 3)),
            (x * x).sum((2, 3)) / (x.sum((2, 3)) + self.eps),
            F.gelu(x).mean((2, 3)),
        ]
        features = torch.cat(found, 1)
        if self.two_faced and torch.compiler.is_exporting():
            features = features * 1.01
        logits: Tensor = self.head(features)
        return logits


def source(text: str) -> ExportSource:
    """What `poolzoo export` would be given of a network by its name here."""
    if text not in (POOLINGS, TWO_FACED, LOST_EPS):
        return cases.make(text, None).source()
    case = cases.make(RESNET, None)
    torch.manual_seed(0)
    network = Poolings(two_faced=text == TWO_FACED, eps=1e-12 if text == LOST_EPS else 1e-3).eval()
    given = case.source()
    return replace(given, model=InferenceModel(case.preprocess, network).eval(), weights_sha256=text)


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        kind: What it is, in words.
        network: The name of the network.
        plant: Changes the graph in place.
        named: A part of the culprit's description that says what it is; empty where torch's weights are folded, so
            that nothing can be named but the node.
        batch: The images that show it together.
    """

    kind: str
    network: str
    plant: Callable[[onnx.ModelProto], None]
    named: str = ""
    batch: int = 1


def _nodes(proto: onnx.ModelProto, operator: str) -> list[NodeProto]:
    return [node for node in proto.graph.node if node.op_type == operator]


def _behind(proto: onnx.ModelProto, operator: str, before: str) -> NodeProto:
    """The first node of a type that reads what one of another type computes."""
    made = {name for node in _nodes(proto, before) for name in node.output}
    return next(node for node in _nodes(proto, operator) if made.intersection(node.input))


def _set(node: NodeProto, **values: object) -> None:
    kept = [one for one in node.attribute if one.name not in values]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in values.items())])


def _tensor(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(one for one in proto.graph.initializer if one.name == name)


def _change(proto: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes a constant for the node that reads it; others that share it are changed too."""
    tensor = _tensor(proto, name)
    value = numpy_helper.to_array(tensor)
    changed = np.ascontiguousarray(change(value.copy())).astype(value.dtype)
    tensor.CopyFrom(numpy_helper.from_array(changed, name))


def _constant(proto: onnx.ModelProto, node: NodeProto, index: int, value: np.ndarray) -> None:
    """Gives a node a constant of its own."""
    name = f"planted_{node.output[0]}"
    proto.graph.initializer.append(numpy_helper.from_array(value, name))
    node.input[index] = name


def _exponent(proto: onnx.ModelProto) -> None:
    node = next(one for one in _nodes(proto, "Pow") if _is(proto, one.input[1], 3))
    _constant(proto, node, 1, np.array(3.5, np.float32))


def _is(proto: onnx.ModelProto, name: str, value: float) -> bool:
    found = [numpy_helper.to_array(one) for one in proto.graph.initializer if one.name == name]
    return bool(found) and found[0].size == 1 and float(found[0].reshape(-1)[0]) == np.float32(value)


def _eps(proto: onnx.ModelProto) -> None:
    node = next(one for one in _nodes(proto, "Add") if any(_is(proto, name, 1e-5) for name in one.input))
    index = next(index for index, name in enumerate(node.input) if _is(proto, name, 1e-5))
    _constant(proto, node, index, np.array(1e-1, np.float32))


def _without_relu(proto: onnx.ModelProto) -> None:
    _without(proto, _nodes(proto, "Relu")[1])


def _without_shared_relu(proto: onnx.ModelProto) -> None:
    """Takes a relu away that several nodes read."""
    reads = [name for node in proto.graph.node for name in node.input]
    shared = {node.output[0]: node for node in _nodes(proto, "Relu") if reads.count(node.output[0]) > 1}
    _without(proto, next(iter(shared.values())))


def _without(proto: onnx.ModelProto, node: NodeProto) -> None:
    """Lets all that read a node read its input."""
    for other in proto.graph.node:
        other.input[:] = [node.input[0] if name == node.output[0] else name for name in other.input]
    proto.graph.node.remove(node)


def _wrong_axes(proto: onnx.ModelProto) -> None:
    node = _nodes(proto, "ReduceMean")[0]
    _constant(proto, node, 1, np.array([3], np.int64))


def _fused(proto: onnx.ModelProto) -> None:
    node = _behind(proto, "Relu", "Conv")
    conv = next(one for one in _nodes(proto, "Conv") if one.output[0] == node.input[0])
    conv.op_type, conv.domain, conv.output[0] = "FusedConv", "com.microsoft", node.output[0]
    kept = [one for one in conv.attribute if one.name != "auto_pad"]
    del conv.attribute[:]
    conv.attribute.extend([*kept, helper.make_attribute("activation", "Tanh")])
    proto.graph.node.remove(node)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _spread(proto: onnx.ModelProto) -> None:
    """Adds what the features of an image differ by from the mean of its batch."""
    nodes = list(proto.graph.node)
    last = next(node for node in nodes if "logits" in node.output)
    features, index = last.input[0], nodes.index(last)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "batch_axis"))
    added = [
        helper.make_node("ReduceMean", [features, "batch_axis"], ["batch_mean"]),
        helper.make_node("Sub", [features, "batch_mean"], ["spread"]),
        helper.make_node("Add", [features, "spread"], ["wrong"]),
    ]
    last.input[0] = "wrong"
    saved = [*nodes[:index], *added, last, *nodes[index + 1 :]]
    del proto.graph.node[:]
    proto.graph.node.extend(saved)


def _merged_pad(proto: onnx.ModelProto) -> None:
    """Takes from a padding what keeps ONNX Runtime from merging it into the pooling."""
    node = next(one for one in _nodes(proto, "Pad") if len(one.input) == 4)
    del node.input[2:]


def _transposed(proto: onnx.ModelProto) -> None:
    weights = {one.name: tuple(one.dims) for one in proto.graph.initializer}
    squares = [one for one in _nodes(proto, "MatMul") if len(set(weights.get(one.input[1], (0, 1)))) == 1]
    _change(proto, squares[1].input[1], np.transpose)


def _stale(value: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(value.shape)
    return np.asarray(value * (1 + 0.01 * noise), np.float32)


def _not_finite(value: np.ndarray) -> np.ndarray:
    value[0] = np.nan
    return value


def _ceil_mode(proto: onnx.ModelProto) -> None:
    _set(_nodes(proto, "MaxPool")[-1], pads=[0, 0, 1, 1])


def _only_bright(proto: onnx.ModelProto) -> None:
    """Cuts off what is brighter than nearly all images are."""
    node = next(one for one in _nodes(proto, "Conv"))
    name = node.input[0]
    proto.graph.initializer.append(numpy_helper.from_array(np.array(1.6, np.float32), "brightest"))
    clip = helper.make_node("Clip", [name, "", "brightest"], ["cut_off"])
    node.input[0] = "cut_off"
    nodes = list(proto.graph.node)
    saved = [*nodes[: nodes.index(node)], clip, *nodes[nodes.index(node) :]]
    del proto.graph.node[:]
    proto.graph.node.extend(saved)


def _conv(proto: onnx.ModelProto, index: int) -> NodeProto:
    return _nodes(proto, "Conv")[index]


def _trunc(proto: onnx.ModelProto) -> None:
    """Integers are divided toward zero, as C does, and not down."""
    node = _nodes(proto, "Floor")[0]
    node.op_type = "Ceil"


def _crop(proto: onnx.ModelProto) -> None:
    known = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    _moved(proto, next(one for one in _nodes(proto, "Slice") if 2 in known[one.input[1]]), -1)


def _moved(proto: onnx.ModelProto, node: NodeProto, by: int) -> None:
    """Moves the bounds of a slice."""
    known = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    for index in (1, 2):
        proto.graph.initializer.append(numpy_helper.from_array(known[node.input[index]] + by, f"planted_bound_{index}"))
        node.input[index] = f"planted_bound_{index}"


def _surplus(proto: onnx.ModelProto) -> None:
    """A tanh behind a convolution that should not be there."""
    node = _conv(proto, 2)
    maker = helper.make_node("Tanh", ["before_tanh"], [node.output[0]])
    node.output[0] = "before_tanh"
    proto.graph.node.insert(list(proto.graph.node).index(node) + 1, maker)


def _negated(proto: onnx.ModelProto, operator: str, readers: int) -> None:
    """Turns the sign of the first value of an operator that so many nodes read."""
    users: dict[str, int] = {}
    for name in (name for one in proto.graph.node for name in one.input):
        users[name] = users.get(name, 0) + 1
    node = next(one for one in _nodes(proto, operator) if users.get(one.output[0]) == readers)
    negative = helper.make_node("Neg", ["before_sign"], [node.output[0]])
    node.output[0] = "before_sign"
    proto.graph.node.insert(list(proto.graph.node).index(node) + 1, negative)


def _negated_branch(proto: onnx.ModelProto) -> None:
    """Turns the sign of what a block adds to its shortcut."""
    add, relus = _nodes(proto, "Add")[0], {node.output[0] for node in _nodes(proto, "Relu")}
    branch = next(index for index, name in enumerate(add.input) if name in relus)
    negative = helper.make_node("Neg", [add.input[branch]], ["turned"])
    add.input[branch] = "turned"
    proto.graph.node.insert(list(proto.graph.node).index(add), negative)


def _leaky(proto: onnx.ModelProto) -> None:
    """An activation with a slope in the place of the first ReLU."""
    node = _nodes(proto, "Relu")[0]
    node.op_type = "LeakyRelu"
    _set(node, alpha=0.1)


def _negative_root(proto: onnx.ModelProto) -> None:
    """Moves the origin of the features, so that a square root meets a negative number."""
    node = _nodes(proto, "Sqrt")[0]
    negative = helper.make_node("Neg", [node.input[0]], ["negated"])
    nodes = list(proto.graph.node)
    at = nodes.index(node)
    node.input[0] = "negated"
    saved = [*nodes[:at], negative, *nodes[at:]]
    del proto.graph.node[:]
    proto.graph.node.extend(saved)


FAULTS: Final = (
    Fault("softmax over another axis", VIT, lambda p: _set(_nodes(p, "Softmax")[1], axis=1), "axis"),
    Fault("eps of a layer norm", VIT, lambda p: _set(_nodes(p, "LayerNormalization")[2], epsilon=1e-3), "epsilon"),
    Fault("weight transposed", VIT, _transposed, "weights"),
    Fault("class token off by one", VIT, lambda p: _moved(p, _nodes(p, "Slice")[-1], 1), "constant"),
    Fault("sum in place of a difference", VIT, lambda p: setattr(_nodes(p, "Add")[1], "op_type", "Sub"), "Add"),
    Fault("softmax missing", VIT, lambda p: _without(p, _nodes(p, "Softmax")[0]), "Softmax"),
    Fault("bias dropped", RESNET, lambda p: _conv(p, 2).input.pop(), "Add"),
    Fault("dilation", RESNET, lambda p: _set(_conv(p, 1), dilations=[2, 2], pads=[2, 2, 2, 2]), "dilations"),
    Fault("pads swapped", RESNET, lambda p: _set(_conv(p, 1), pads=[0, 1, 2, 1]), "pads"),
    Fault("kernel mirrored", RESNET, lambda p: _change(p, _conv(p, 2).input[1], np.fliplr), "weights"),
    Fault("weights of another step", RESNET, lambda p: _change(p, _conv(p, 2).input[1], _stale), "weights"),
    Fault("weight that is NaN", RESNET, lambda p: _change(p, _conv(p, 1).input[1], _not_finite)),
    Fault("relu missing", RESNET, _without_relu, "Relu"),
    Fault("relu missing that several read", POOLINGS, _without_shared_relu, "Relu"),
    Fault("surplus node", RESNET, _surplus, "surplus"),
    Fault("sign turned that a block and its shortcut read", RESNET, lambda p: _negated(p, "MaxPool", 2), "surplus"),
    Fault("sign turned of a sum", RESNET, lambda p: _negated(p, "Add", 1), "surplus"),
    Fault("sign turned of a branch before its sum", RESNET, _negated_branch, "surplus"),
    Fault("leaky activation", RESNET, _leaky, "Relu"),
    Fault("fused with another activation", RESNET, _fused, "activation"),
    Fault("softmax over the batch", RESNET, lambda p: _set(_nodes(p, "Softmax")[0], axis=0), "axis", 2),
    Fault("images of a batch mixed", RESNET, _spread, "surplus", 3),
    Fault("clip that one image reaches", RESNET, _only_bright, "surplus"),
    Fault(
        "count_include_pad", POOLINGS, lambda p: _set(_nodes(p, "AveragePool")[0], count_include_pad=1), "count_incl"
    ),
    Fault("partial windows (ceil_mode)", POOLINGS, _ceil_mode, "pads"),
    Fault("exponent", POOLINGS, _exponent, "3.5"),
    Fault("eps in a root", POOLINGS, _eps, "0.1"),
    Fault("reduced axes", POOLINGS, _wrong_axes, "constant"),
    Fault("crop off by one", POOLINGS, _crop, "constant"),
    Fault("integers rounded up", POOLINGS, _trunc, "Floor"),
    Fault("nearest neighbor", POOLINGS, lambda p: _set(_nodes(p, "Resize")[0], nearest_mode="ceil"), "nearest_mode"),
    Fault("root of a negative number", POOLINGS, _negative_root, "surplus"),
    Fault("padding that ONNX Runtime merges", POOLINGS, _merged_pad, "Pad_Fusion"),
    Fault("plugin that exports another factor", TWO_FACED, lambda p: None, "surplus"),
    Fault("eps that the exporter loses", LOST_EPS, lambda p: None, "1e-12"),
)
