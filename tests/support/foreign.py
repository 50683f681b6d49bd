"""A tiny classifier twice: as a Python file that builds a torch module, and as ONNX files made node by node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CLASSES = 12, 5
DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)

MODULE = """
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        arrays = np.load(Path(__file__).with_name("weights.npz"))
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(36, 5)
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        self.load_state_dict(state)

    def forward(self, x):
        x = self.second(self.act(self.conv(x)))
        return self.head(nn.functional.avg_pool2d(x, 4).flatten(1))


def build():
    return Net().eval()


def with_softmax():
    return nn.Sequential(Net(), nn.Softmax(1)).eval()


class AnySize(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net.second(self.net.act(self.net.conv(x))).mean((2, 3))


def of_any_size():
    return AnySize().eval()


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        if x.shape[3] != 3:
            raise ValueError("channels last")
        return self.net(x.permute(0, 3, 1, 2))


def of_channels_last():
    return ChannelsLast().eval()


class Published(AnySize):
    pretrained_cfg = {"input_size": (3, 20, 24), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def published():
    return Published().eval()


class Largest(AnySize):
    def forward(self, x):
        return self.net.second(self.net.act(self.net.conv(x))).amax((2, 3))


def largest():
    return Largest().eval()


def training():
    return nn.Sequential(Net(), nn.Dropout())


def random():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    return nn.Sequential(Net(), Noisy()).eval()


def broken():
    raise KeyError("weights")


def nothing():
    return [Net()]


def of_six_classes():
    return nn.Sequential(Net(), nn.Linear(5, 6)).eval()


not_a_function = 3
"""


def weights() -> dict[str, np.ndarray]:
    """The weights of the module, by their names in torch."""
    random = np.random.default_rng(0)
    shapes = {
        "conv.weight": (4, 3, 3, 3),
        "conv.bias": (4,),
        "second.weight": (4, 4, 1, 1),
        "second.bias": (4,),
        "head.weight": (CLASSES, 36),
        "head.bias": (CLASSES,),
    }
    return {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write_module(folder: Path, name: str = "net.py") -> str:
    """Writes a Python file and its weights; gives the reference to `build` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(MODULE)
    np.savez(folder / "weights.npz", **weights())  # type: ignore[arg-type]
    return f"{folder / name}:build"


def make(
    before: Sequence[onnx.NodeProto] = (),
    after: Sequence[onnx.NodeProto] = (),
    *,
    dtype: str = "float32",
    shape: Sequence[int | str | None] = ("N", 3, SIDE, SIDE),
    names: tuple[str, str] = ("x", "y"),
    outputs: Sequence[str] = (),
    slope: float = 0.0,
    **constants: np.ndarray,
) -> onnx.ModelProto:
    """The network as a graph.

    Args:
        before: Nodes from the input to `prepared`; none where the input is what the network takes.
        after: Nodes from `scores` to the output; none where the scores are it.
        dtype, shape: Of the input.
        names: Of the input and the output.
        outputs: More outputs.
        slope: Of a leaky activation in the place of the ReLU, which the module does not have.
        constants: More weights.
    """
    given, made = names
    start = "prepared" if before else given
    end = "scores" if after else made
    nodes = [
        *before,
        helper.make_node("Conv", [start, "conv.weight", "conv.bias"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("LeakyRelu", ["a"], ["b"], name="act", alpha=slope),
        helper.make_node("Conv", ["b", "second.weight", "second.bias"], ["c"], name="second"),
        helper.make_node("AveragePool", ["c"], ["d"], name="pool", kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["d"], ["e"], name="flat"),
        helper.make_node("Gemm", ["e", "head.weight", "head.bias"], [end], name="head", transB=1),
        *after,
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in {**weights(), **constants}.items()]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(given, DTYPES[dtype], shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (made, *outputs)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def of_any_size(*pooling: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
    """The convolutions with another pooling, from `c` to `y`, for images of any size."""
    proto = make(shape=["N", 3, "H", "W"], **constants)
    del proto.graph.node[3:]
    proto.graph.node.extend(pooling)
    return proto


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """A node from names that are separated by spaces."""
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def from_uint8() -> onnx.ModelProto:
    """The network behind what a camera gives: `uint8[N, H, W, 3]`, scaled to 0–1 in the graph."""
    before = [
        node("Transpose", "x", "planes", perm=[0, 3, 1, 2]),
        node("Cast", "planes", "levels", to=TensorProto.FLOAT),
        node("Div", "levels full", "prepared"),
    ]
    return make(before, dtype="uint8", shape=["N", SIDE, SIDE, 3], full=np.array(255, np.float32))
