"""A bundle of a few kilobytes, on which runtimes are checked: convolution, mean, classifier, calibration, softmax."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from poolzoo.artifacts import manifest
from poolzoo.common import files
from poolzoo.common.json_writer import dumps
from poolzoo.metrics.calibration import Calibration

SIDE: Final = 8  # pixels
CLASSES: Final = 5
IMAGES: Final = 9
ALLOWED: Final = 1e-4
CALIBRATION: Final = Calibration(temperature=2.0)  # so that a softmax of the logits is not the second output


def write_tiny_bundle(directory: Path) -> Path:
    """Writes the bundle. Its stored outputs are those of the reference evaluator of the onnx package.

    Args:
        directory: Where to write it; it must not exist.
    """
    directory.mkdir(parents=True)
    model = _model()
    onnx.save(model, directory / "model.onnx")
    generator = np.random.default_rng(3)
    images = generator.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    images[0] = 0
    logits, probabilities = ReferenceEvaluator(model).run(["logits", "probabilities"], {"images": images})
    with (directory / "golden.npz").open("wb") as file:
        np.savez_compressed(
            file, images=images, logits=logits, probabilities=probabilities, allowed=np.full(IMAGES, ALLOWED)
        )
    export = {"opset": 18, "input": "uint8", "precision": "fp32"}
    config = {"label_names": _labels(), "calibration": CALIBRATION.to_json(), "export": export}
    files.write_json(directory / "config.json", config)
    files.write_json(directory / "parity.json", {"max_abs_by_edge": {"black": 0.0}})
    manifest.write_manifest(directory, "bundle")
    return directory


def _labels() -> list[str]:
    return [f"class {index}" for index in range(CLASSES)]


def _model() -> onnx.ModelProto:
    generator = np.random.default_rng(4)
    weights = {
        "kernel": generator.normal(0, 0.6, (6, 3, 3, 3)),
        "matrix": generator.normal(0, 2.0, (CLASSES, 6)),
        "bias": generator.normal(0, 0.5, CLASSES),
        "levels": np.array(255.0),
        "factors": CALIBRATION.factors,
    }
    nodes = [
        helper.make_node("Transpose", ["images"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["numbers", "levels"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "kernel"], ["features"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["means"]),
        helper.make_node("Flatten", ["means"], ["vector"], axis=1),
        helper.make_node("Gemm", ["vector", "matrix", "bias"], ["logits"], transB=1),
        helper.make_node("Mul", ["logits", "factors"], ["calibrated"]),
        helper.make_node("Softmax", ["calibrated"], ["probabilities"], axis=1),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", CLASSES])
        for name in ("logits", "probabilities")
    ]
    stored = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", [images], outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    given = {"name": "images", "kind": "uint8", "layout": "NHWC", "channels": "RGB", "height": SIDE, "width": SIDE}
    facts = {
        "labels": _labels(),
        "input": given,
        "preprocessing": {},
        "precision": "fp32",
        "calibration": CALIBRATION.to_json(),
    }
    helper.set_model_props(model, {name: dumps(value) for name, value in facts.items()})
    return model
