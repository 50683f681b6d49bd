"""A graph that takes photographs, with planted faults in its resize or in its outputs, beside the one it is made of."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from poolzoo.data import images as pixels
from poolzoo.parity import photographs
from poolzoo.parity.photographs import PhotoCheck
from poolzoo.runtime import ort_session, photo_graph

SIZE = (6, 4)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
IMAGES[0, 1, :, 0], IMAGES[0, 2, :, 1] = 0, 255  # one level off these there is no number


def rows_graph(shift: float = 0.0, **fit: object) -> onnx.ModelProto:
    """A graph of one size whose logits are the means of its rows; `shift` is added to the first."""
    nodes = [
        helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["levels"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Add", ["flat", "shift"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *SIZE, 3])
    outputs = [helper.make_tensor_value_info(name, 1, ["batch", SIZE[0]]) for name in ("logits", "probabilities")]
    added = numpy_helper.from_array(np.float32([shift, *[0] * (SIZE[0] - 1)]), "shift")
    graph = helper.make_graph(nodes, "rows", [images], outputs, [added])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    given = {"name": "images", "kind": "uint8", "layout": "NHWC", "range": [0, 255], "channels": "RGB"}
    facts = {
        "input": {**given, "height": SIZE[0], "width": SIZE[1]},
        "labels": [f"row {index}" for index in range(SIZE[0])],
        "preprocessing": {"reader": 2, **fit},
    }
    helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    return model


@pytest.fixture
def checked(tmp_path):
    def check(shift: float = 0.0, **fit: object) -> tuple[PhotoCheck, dict[str, np.ndarray]]:
        onnx.save(rows_graph(), tmp_path / "stored.onnx")
        onnx.save(photo_graph.with_photo_input(rows_graph(shift, **fit)), tmp_path / "photo.onnx")
        stored, graph = (ort_session.open_model(tmp_path / f"{name}.onnx", threads=1) for name in ("stored", "photo"))
        return photographs.check(graph, tmp_path / "photo.onnx", stored, IMAGES)

    return check


def rows_of(photograph: np.ndarray) -> np.ndarray:
    """The logits of a photograph as training sees it."""
    fitted = np.asarray(pixels.fit(Image.fromarray(photograph), SIZE))
    return fitted.mean((1, 2))


def test_photographs_agree_with_the_graph_of_one_size(checked):
    found, arrays = checked()
    assert found.passed
    assert (found.photographs, found.flips) == (5, 0)
    assert found.max_levels <= 2
    assert 0 <= found.mean_levels <= 0.1
    assert 0 < found.differing <= 0.1
    assert found.max_levels * found.differing == pytest.approx(found.mean_levels, rel=1e-5)  # all by one level
    assert found.max_abs <= found.allowed
    # A row has 12 values, of which a tenth moves by one level; the tolerance is four times what that does to a mean.
    assert 4 / 12 <= found.allowed <= 4 * 5 / 12
    taken = photographs.make_photographs(IMAGES)
    for index, photograph in enumerate(taken):
        assert np.array_equal(arrays[f"photo/{index}"], photograph)
        np.testing.assert_allclose(arrays["photo/logits"][index], rows_of(photograph), rtol=1e-5)
    assert arrays["photo/allowed"].shape == (5,)
    assert found.allowed in arrays["photo/allowed"]
    assert found.to_json().keys() == PhotoCheck.__dataclass_fields__.keys()


def test_another_resize_is_seen_in_levels(checked):
    found, _ = checked(interpolation="bicubic")
    assert not found.passed
    assert found.max_levels > 3
    assert found.mean_levels > 0.1
    assert found.differing > 0.3
    assert found.describe().startswith(f"on 5 photographs at most {found.max_levels} of 255 levels from Pillow's")


@pytest.mark.parametrize(("shift", "flips"), [(1000.0, True), (3.0, False)])
def test_other_outputs_of_the_same_levels_fail(checked, shift, flips):
    found, arrays = checked(shift)
    assert not found.passed
    assert found.max_levels <= 2
    assert found.max_abs == pytest.approx(shift, abs=0.5)
    best = arrays["photo/logits"].argmax(1)
    assert found.flips == (int((best != 0).sum()) if flips else found.flips)
    assert f"difference {found.max_abs:.2e} of {found.allowed:.2e} allowed" in found.describe()


def test_outputs_that_are_not_finite_have_no_difference(checked):
    found, _ = checked(float("nan"))
    assert not found.passed
    assert found.max_abs is None
    assert found.describe().endswith("difference not finite")
