"""Graphs of local poolings: no operator or attribute that some runtime refuses, and the layer's values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

import poolzoo
from poolzoo.poolings.borders import mirrored, wrapped


@pytest.mark.parametrize("margin", [1, 2, 5])
def test_wrapped_borders_are_those_of_torch(margin):
    x = torch.randn(2, 3, 5, 7)
    assert torch.equal(wrapped(x, margin), F.pad(x, (margin,) * 4, mode="circular"))


@pytest.mark.parametrize(
    ("pool", "window", "padding", "side"),
    [("lps", 2, 0, 8), ("blur", 2, 1, 8), ("depth:group=3", 3, 1, 7), ("aps", 3, 1, 7)],
)
def test_graphs_have_no_operator_that_a_runtime_refuses(pool, window, padding, side, tmp_path):
    layer = poolzoo.create_pooling(pool, 8, "local", kernel_size=window, stride=2, padding=padding).eval()
    file = tmp_path / "layer.onnx"
    x = torch.randn(3, 8, side, side)
    export(layer, x[:2], file)
    nodes = onnx.load(file).graph.node
    modes = {attribute.s.decode() for node in nodes if node.op_type == "Pad" for attribute in node.attribute}
    assert not modes & {"wrap", "reflect"}
    pools = [node for node in nodes if "Pool" in node.op_type]
    kernels = [list(one.ints) for node in pools for one in node.attribute if one.name == "kernel_shape"]
    assert all(len(kernel) == 2 for kernel in kernels)
    (found,) = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, layer(x).numpy(), rtol=1e-5, atol=1e-5)


def export(layer: torch.nn.Module, x: torch.Tensor, file: Path) -> None:
    batch = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        layer, (x,), file, input_names=["x"], dynamic_shapes=batch, opset_version=18, dynamo=True, verbose=False
    )


def test_mirrored_borders_are_those_of_torch_in_a_graph(tmp_path):
    margins = 0, 2, 3, 0

    class Mirror(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return mirrored(x, margins)

    x = torch.randn(2, 3, 5, 7)
    export(Mirror().eval(), x, tmp_path / "mirror.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "mirror.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_array_equal(found, F.pad(x, margins, mode="reflect").numpy())


@pytest.mark.parametrize("size", [(2, 7), (7, 2), (1, 1)], ids=str)
def test_a_map_too_small_to_mirror_repeats_its_border(size):
    x = torch.randn(2, 3, *size)
    np.testing.assert_array_equal(mirrored(x, (0, 2, 2, 0)), F.pad(x, (0, 2, 2, 0), mode="replicate"))
