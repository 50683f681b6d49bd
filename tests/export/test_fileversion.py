"""The versions that a file states, and what is said where the runtime is older."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from poolzoo.artifacts import manifest
from poolzoo.export import file_version
from poolzoo.runtime import ort_session


def model(opset: int = 18, kind: int = TensorProto.FLOAT, **more) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    weight = helper.make_tensor("w", kind, [2], [0, 0])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:], [weight])
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(*entry) for entry in more.get("domains", ()))]
    return helper.make_model(graph, opset_imports=imports, ir_version=more.get("ir_version", 10))


@pytest.mark.parametrize("opset", [18, 19, 20, 21, 22, 23])
def test_the_ir_version_follows_the_opset_in_onnxs_table(opset):
    proto = model(opset)
    file_version.minimize_versions(proto)
    assert proto.ir_version == max(onnx.helper.OP_SET_ID_VERSION_MAP[("ai.onnx", opset)], 4)
    onnx.checker.check_model(proto, full_check=True)


@pytest.mark.parametrize(
    ("kind", "version"), [("FLOAT16", 8), ("INT8", 8), ("FLOAT8E4M3FN", 9), ("INT4", 10), ("FLOAT4E2M1", 11)]
)
def test_a_type_of_elements_raises_it(kind, version):
    proto = model(kind=getattr(TensorProto, kind))
    file_version.minimize_versions(proto)
    assert proto.ir_version == version


def test_unused_opset_imports_are_removed_and_used_ones_stay():
    proto = model(domains=[("com.microsoft", 1), ("ai.onnx.ml", 5)])
    file_version.minimize_versions(proto)
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", 18)]
    proto = model(domains=[("com.microsoft", 1), ("ai.onnx.ml", 5)])
    proto.graph.node.append(helper.make_node("Gelu", ["y"], ["z"], domain="com.microsoft"))
    file_version.minimize_versions(proto)
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", 18), ("com.microsoft", 1)]


def test_notes_on_nodes_need_the_version_that_brought_them():
    proto = model()
    proto.graph.node[0].metadata_props.add(key="a", value="b")
    file_version.minimize_versions(proto)
    assert proto.ir_version == 10


def test_the_oldest_runtime_is_that_of_opset_and_ir_version():
    proto = model(18)
    file_version.minimize_versions(proto)
    assert file_version.min_onnxruntime(proto) == "1.14"
    proto.ir_version = 10
    assert file_version.min_onnxruntime(proto) == "1.18"
    assert file_version.min_onnxruntime(model(22)) == "1.21"
    assert file_version.min_onnxruntime(model(kind=TensorProto.FLOAT16)) == "1.20"


def test_a_bundle_states_no_more_than_it_needs(exported):
    proto = onnx.load(exported / "model.onnx")
    assert proto.ir_version == 8
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", 18)]
    assert {one.key: one.value for one in proto.metadata_props}["onnxruntime"] == '"1.14"'
    assert "ONNX Runtime 1.14 or newer" in (exported / "README.md").read_text()


def from_the_future(directory):
    proto = onnx.load(directory / "model.onnx")
    proto.ir_version = 99
    onnx.save(proto, directory / "model.onnx")


def test_a_bundles_script_reports_a_runtime_that_is_too_old(bundle_copy):
    from_the_future(bundle_copy)
    command = [sys.executable, bundle_copy / "predict.py", "x.png"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    error, hint = outcome.stderr.splitlines()
    assert (outcome.returncode, outcome.stdout) == (4, "")
    assert error == f"error: model.onnx needs onnxruntime 1.14 or newer, this is {onnxruntime.__version__}"
    assert hint == "hint: pip install --upgrade onnxruntime"


def test_a_command_says_that_its_runtime_is_too_old(poolzoo, bundle_copy, tmp_path):
    from PIL import Image

    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "x.png")
    from_the_future(bundle_copy)
    manifest.write_manifest(bundle_copy, "bundle")
    outcome = poolzoo("predict", bundle_copy, tmp_path / "x.png")
    assert outcome.code == 4, outcome.err
    assert "needs ONNX Runtime 1.14 or newer, and" in outcome.err
    assert "Traceback" not in outcome.err


def needing(directory, release):
    """A graph that any runtime opens, and that states to be computed rightly from a release on."""
    proto = onnx.load(directory / "model.onnx")
    (stated,) = [entry for entry in proto.metadata_props if entry.key == "onnxruntime"]
    stated.value = json.dumps(release)
    onnx.save(proto, directory / "model.onnx")


def test_the_script_refuses_a_runtime_older_than_the_file_states(bundle_copy):
    needing(bundle_copy, "9.20")
    command = [sys.executable, bundle_copy / "predict.py", "x.png"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    error, _ = outcome.stderr.splitlines()
    assert (outcome.returncode, outcome.stdout) == (4, "")
    assert error == f"error: model.onnx needs onnxruntime 9.20 or newer, this is {onnxruntime.__version__}"


def test_a_command_refuses_a_runtime_older_than_the_file_states(poolzoo, bundle_copy):
    needing(bundle_copy, "9.20")
    manifest.write_manifest(bundle_copy, "bundle")
    outcome = poolzoo("verify", bundle_copy, "--no-bench")
    assert outcome.code == 4, outcome.err
    assert "needs ONNX Runtime 9.20 or newer, and" in outcome.err


@pytest.mark.parametrize(("here", "stated"), [("1.22.0", "1.9"), ("1.20.1", "1.20"), ("1.24.0.dev20251031003", "1.24")])
def test_releases_are_compared_as_numbers(monkeypatch, bundle_copy, here, stated):
    needing(bundle_copy, stated)
    monkeypatch.setattr(onnxruntime, "__version__", here)
    assert ort_session.open_model(bundle_copy / "model.onnx").metadata["onnxruntime"] == f'"{stated}"'


def test_weights_in_attributes_count():
    proto = model()
    value = helper.make_tensor("v", TensorProto.INT4, [2], [0, 1])
    proto.graph.node.append(helper.make_node("Constant", [], ["c"], value=value))
    file_version.minimize_versions(proto)
    assert proto.ir_version == 10
    assert numpy_helper.to_array(proto.graph.initializer[0]).shape == (2,)
