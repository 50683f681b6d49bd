"""Graphs changed to the form that a runtime asks for: the same outputs, from another input, batch or opset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from support.linear_bundle import linear_bundle

from poolzoo.common.errors import CheckFailed
from poolzoo.plugin.spec import GraphForm
from poolzoo.runtime import forms, graph_input

BUNDLE = Path(__file__).parents[1] / "data" / "digits_bundle"


def logits(content: bytes, images: np.ndarray, size: int) -> np.ndarray:
    """What ONNX Runtime gives for a changed graph, whose input is read off its own declaration."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    if session.get_inputs()[0].type == "tensor(float)":
        images = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    parts = [session.run(["logits"], {"images": images[at : at + size]})[0] for at in range(0, len(images), size)]
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("form", "size"),
    [
        (GraphForm(input="float"), 8),
        (GraphForm(batch=2), 2),
        (GraphForm(opset=17), 8),
        (GraphForm(input="float", batch=1, opset=15), 1),
    ],
)
def test_a_changed_graph_gives_the_stored_outputs(form, size):
    content, changes = forms.adapt((BUNDLE / "model.onnx").read_bytes(), form)
    assert len(changes) == sum(one is not None for one in (form.input, form.batch, form.opset))
    model = onnx.load_from_string(content)
    shape = [side.dim_value or side.dim_param for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape[1:] == ([3, 8, 8] if form.input else [8, 8, 3])
    assert shape[0] == (form.batch or "batch")
    assert model.opset_import[0].version == (form.opset or 18)
    assert ("Shape" in {node.op_type for node in model.graph.node}) == (form.batch is None)
    golden = np.load(BUNDLE / "golden.npz")
    images = golden["images"][:8]
    assert (np.abs(logits(content, images, size) - golden["logits"][:8]).max(1) <= golden["allowed"][:8]).all()


def test_padding_stays_where_the_opset_is_lowered():
    model = onnx.load(BUNDLE / "model.onnx")
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 1, 1, 0, 0, -1, -1, 0]), "shift"))
    for node in model.graph.node:
        node.input[:] = ["moved" if name == "images" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Pad", ["images", "shift"], ["moved"]))
    content, _ = forms.adapt(model.SerializeToString(), GraphForm(opset=17))
    changed = onnx.load_from_string(content)
    assert [(one.domain, one.version) for one in changed.opset_import] == [("", 17)]
    images = np.load(BUNDLE / "golden.npz")["images"][:4]
    moved = np.zeros_like(images)
    moved[:, 1:, 1:] = images[:, :-1, :-1]
    expected = logits((BUNDLE / "model.onnx").read_bytes(), moved, 4)
    assert logits(content, images, 4) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_the_metadata_say_what_a_changed_graph_takes(tmp_path, kind):
    bundle = linear_bundle(tmp_path / "bundle", kind)
    other = {"uint8": "float", "float": "uint8"}[kind]
    golden = np.load(bundle / "golden.npz")
    file = tmp_path / "changed.onnx"
    if kind == "uint8":  # this graph has no Transpose that could be left out
        with pytest.raises(CheckFailed, match="its input cannot be changed to float: Flatten reads numbers"):
            forms.adapt((bundle / "model.onnx").read_bytes(), GraphForm(input=other))
        return
    content, changes = forms.adapt((bundle / "model.onnx").read_bytes(), GraphForm(input=other))
    file.write_bytes(content)
    assert changes == ("uint8 input",)
    assert graph_input.read_input(file).kind == other
    assert logits(content, golden["images"], 9) == pytest.approx(golden["logits"], abs=1e-4)


def test_a_form_that_is_there_changes_nothing():
    content = (BUNDLE / "model.onnx").read_bytes()
    changed, changes = forms.adapt(content, GraphForm(input="uint8", opset=21))
    assert changes == ()
    assert onnx.load_from_string(changed) == onnx.load_from_string(content)
    assert not forms.needs_change(GraphForm(input="uint8"), "uint8")
