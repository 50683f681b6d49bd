"""The built-in runtimes on a stored bundle: those that are installed give its golden outputs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from poolzoo.plugin import loader
from poolzoo.plugin.spec import Runtime
from poolzoo.runtime import availability, runtimes
from poolzoo.runtime.builtin import coreml, litert, reference, sessions
from poolzoo.runtime.process import RuntimeFailed

DIGITS = Path(__file__).parents[1] / "data" / "digits_bundle"
BATCHES = (1, 3, 2, 7)
# What they say of the stored bundle, whose graph an earlier version wrote: it resizes to sizes read off the batch.
REFUSED = {"tract": "Resize", "tvm": "Resize"}
SLOW = ("tinygrad", "executorch")  # they compile for many seconds
NAMES = (
    "openvino",
    "opencv",
    "tract",
    "mnn",
    "ncnn",
    "iree",
    "tvm",
    "tinygrad",
    "reference",
    "onnx2torch",
    "litert",
    "executorch",
)


def _missing(name: str) -> str:
    return ", ".join(availability.find(runtimes.runtime_of(loader.catalog().runtime(name))).missing)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in NAMES],
)
def test_gives_the_golden_outputs_in_one_session(name: str) -> None:
    if missing := _missing(name):
        pytest.skip(f"not installed: {missing}")
    with np.load(DIGITS / "golden.npz") as golden:
        images, allowed = golden["images"], golden["allowed"]
        expected = golden["logits"], golden["probabilities"]
    with _refusal(name), runtimes.open_runtime(DIGITS, loader.catalog().runtime(name), threads=1) as opened:
        process, _, _ = opened
        for size in BATCHES:
            answer = process.run(images[:size])
            for found, stored in zip((answer.logits, answer.probabilities), expected, strict=True):
                assert found.dtype == np.float32
                assert (np.abs(found - stored[:size]).max(1) <= allowed[:size]).all()


def _refusal(name: str) -> AbstractContextManager[object]:
    """Expects the known refusal; of other runtimes, none."""
    return pytest.raises(RuntimeFailed, match=REFUSED[name]) if name in REFUSED else nullcontext()


def test_every_builtin_runtime_says_how_to_get_it() -> None:
    for entry in loader.catalog().select(Runtime):
        runtime = runtimes.runtime_of(entry)
        assert runtime.install
        assert runtime.modules or runtime.programs or runtime.npm


def test_the_evaluator_takes_quantized_weights_of_opset_18(tmp_path: Path) -> None:
    model = onnx.load(DIGITS / "model.onnx")
    assert {entry.version for entry in model.opset_import} == {18}
    weight = next(one for one in model.graph.initializer if len(one.dims) == 4)
    values = numpy_helper.to_array(weight)
    scale = np.float32(np.abs(values).max() / 127)
    stored = np.round(values / scale).astype(np.int8)
    name = weight.name
    model.graph.initializer.remove(weight)
    model.graph.initializer.extend([numpy_helper.from_array(stored, "w8"), numpy_helper.from_array(scale, "scale")])
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["w8", "scale"], [name]))
    onnx.save(model, tmp_path / "model.onnx")
    images = np.load(DIGITS / "golden.npz")["images"][:3]
    found = reference.open_session(tmp_path, threads=1, device="cpu", precision="fp32")(images)[0]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found, session.run(["logits"], {"images": images})[0], atol=1e-4)


def test_litert_keeps_floors_that_its_converter_would_drop():
    floors = np.array(1e-12, np.float32), np.array(0.5, np.float32)
    nodes = [helper.make_node("Clip", ["x", f"floor_{at}"], [f"y_{at}"]) for at in range(len(floors))]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [5])
    outputs = [helper.make_tensor_value_info(f"y_{at}", TensorProto.FLOAT, [5]) for at in range(len(floors))]
    constants = [numpy_helper.from_array(floor, f"floor_{at}") for at, floor in enumerate(floors)]
    model = litert.keep_floors(helper.make_model(helper.make_graph(nodes, "g", [x], outputs, constants)))
    assert [node.op_type for node in model.graph.node] == ["Sub", "Relu", "Add", "Clip"]
    given = np.array([-1, 0, 1e-13, 3e-12, 2], np.float32)
    found = ReferenceEvaluator(model).run(None, {"x": given})
    for one, floor in zip(found, floors, strict=True):
        np.testing.assert_allclose(one, np.maximum(given, floor), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_core_ml_divides_by_what_the_graph_divides_by(tmp_path: Path) -> None:
    coremltools = pytest.importorskip("coremltools")
    if missing := _missing("onnx2torch"):
        pytest.skip(f"not installed: {missing}")
    nodes = [
        helper.make_node("ReduceSum", ["images", "axes"], ["sums"], keepdims=0),
        helper.make_node("Reciprocal", ["sums"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 4, 4])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in sessions.OUTPUTS]
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    graph = helper.make_graph(nodes, "g", [image], outputs, [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.metadata_props.extend(onnx.load(DIGITS / "model.onnx").metadata_props)
    onnx.save(model, tmp_path / sessions.MODEL)
    (tmp_path / "out").mkdir()
    coreml.convert(tmp_path, tmp_path / "out")
    converted = coremltools.models.MLModel(str(tmp_path / "out" / coreml.CONVERTED), skip_model_load=True)
    (block,) = converted.get_spec().mlProgram.functions["main"].block_specializations.values()
    assert [one.type for one in block.operations if one.type != "const"] == ["reduce_sum", "real_div", "softmax"]
