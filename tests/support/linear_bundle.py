"""A bundle that is made by hand, so that what its network gives is known without running it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from support.odd_images import HEIGHT, WIDTH

from poolzoo.artifacts import manifest
from poolzoo.common import files
from poolzoo.data.resize import READER

LABELS = ["tench, Tinca tinca", 'a "quoted" name', "plain", "näher"]
WEIGHTS = np.random.default_rng(1).normal(0, 0.3, (HEIGHT, WIDTH, 3, len(LABELS))).astype(np.float32)


def linear_bundle(path: Path, kind: str, **fit: object) -> Path:
    """A bundle whose network is `pixels / 255 · WEIGHTS`, so that a score is worked out in a line of numpy."""
    path.mkdir(parents=True)
    uint8 = kind == "uint8"
    weights = WEIGHTS / np.float32(255) if uint8 else WEIGHTS.transpose(2, 0, 1, 3)
    flat = numpy_helper.from_array(np.ascontiguousarray(weights.reshape(-1, len(LABELS))), "weights")
    shape = ["N", HEIGHT, WIDTH, 3] if uint8 else ["N", 3, HEIGHT, WIDTH]
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["numbers"], to=floats),
            helper.make_node("Flatten", ["numbers"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "linear",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8 if uint8 else floats, shape)],
        [helper.make_tensor_value_info(name, floats, ["N", len(LABELS)]) for name in ("logits", "probabilities")],
        [flat],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    given: dict[str, object] = {"name": "images", "kind": kind, "layout": "NHWC" if uint8 else "NCHW"}
    given |= {"channels": "RGB", "height": HEIGHT, "width": WIDTH}
    facts = {"labels": LABELS, "input": given, "preprocessing": {"reader": READER, **fit}}
    helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()} | {"note": "no JSON"})
    onnx.save(model, path / "model.onnx")
    pixels = np.random.default_rng(2).integers(0, 256, (9, HEIGHT, WIDTH, 3), dtype=np.uint8)
    logits = np.tensordot(pixels / 255, WEIGHTS, 3)
    golden = {"logits": logits, "probabilities": chances(pixels), "allowed": np.full(9, 1e-4)}
    np.savez(path / "golden.npz", images=pixels, **golden)
    for name in ("config.json", "parity.json"):
        files.write_json(path / name, {})
    manifest.write_manifest(path, "bundle")
    return path


def chances(pixels: np.ndarray) -> np.ndarray:
    """What the network of `linear_bundle` gives, by numpy in float64."""
    powers = np.exp(np.tensordot(pixels / 255, WEIGHTS.astype(np.float64), 3))
    return powers / powers.sum(-1, keepdims=True)
