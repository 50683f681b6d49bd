"""ONNX files from elsewhere: read within their folder, understood as classifiers, refused in one line, measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.foreign import CLASSES, SIDE, from_uint8, make, node, weights, write_module
from support.linear_bundle import linear_bundle
from support.torch_free import alone

from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.runtime.foreign.canonical import canonical
from poolzoo.runtime.foreign.classifier import inspect
from poolzoo.runtime.foreign.onnx_source import read
from poolzoo.runtime.foreign.scaling import Scaling


@pytest.fixture
def file(tmp_path):
    def save(proto: onnx.ModelProto):
        onnx.save(proto, tmp_path / "net.onnx")
        return tmp_path / "net.onnx"

    return save


@pytest.mark.parametrize(
    ("proto", "described"),
    [
        (make(), "input x float32[N, 3, 12, 12]"),
        (make(shape=[4, 3, SIDE, SIDE]), "input x float32[4, 3, 12, 12]"),
        (make(shape=["N", 3, None, None]), "input x float32[N, 3, 12, 12]"),
        (make(shape=["N", None, None, None]), "input x float32[N, 3, 12, 12]"),
        (
            make([node("Transpose", "x", "prepared", perm=[0, 3, 1, 2])], shape=["N", None, None, 3]),
            "x float32[N, 12, 12, 3]",
        ),
        (from_uint8(), "input x uint8[N, 12, 12, 3]"),
    ],
)
def test_the_input_is_understood(file, proto, described):
    size = (SIDE, SIDE)
    assert described in inspect(file(proto), size).given.describe()


def test_the_batch_keeps_its_name_in_the_graph_of_a_bundle(file):
    """Shapes of values inside repeat the name, and tract compares them."""
    found = inspect(file(make(shape=["images", 3, SIDE, SIDE])))
    graph = canonical(found, found.output(), "logits", Scaling()).graph
    first = [value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)]
    assert first == ["images"] * 3


def test_the_output_of_scores_is_chosen(file):
    auxiliary = node("Slice", "scores zero two one", "aux")
    both = make(
        after=[auxiliary, node("Softmax", "scores", "y", axis=1)],
        outputs=["scores", "aux"],
        zero=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
    )
    found = inspect(file(both))
    assert {one.name: (one.classes, one.is_probabilities) for one in found.outputs} == {
        "y": (CLASSES, True),
        "scores": (CLASSES, False),
        "aux": (2, False),
    }
    assert found.output(classes=CLASSES).name == "scores"
    assert found.output(classes=2).name == "aux"
    assert found.output("y").is_probabilities
    with pytest.raises(UsageError, match="several outputs"):
        found.output()
    with pytest.raises(UsageError, match="no output 'z'"):
        found.output("z")


def two_inputs() -> onnx.ModelProto:
    proto = make([node("Add", "x other", "prepared")])
    proto.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    return proto


def of_opset(version: int) -> onnx.ModelProto:
    proto = make()
    proto.opset_import[0].version = version
    return proto


REFUSED = {
    "several inputs": (two_inputs(), UsageError, "takes 2 inputs"),
    "text": (
        make([node("Cast", "x", "prepared", to=1)], dtype="float32", shape=["N", 3]),
        UsageError,
        "takes no images",
    ),
    "four channels": (make(shape=["N", 4, SIDE, SIDE]), UsageError, "one channel or three"),
    "a map of scores": (
        make(after=[node("Unsqueeze", "scores axis", "y")], axis=np.array([2])),
        UsageError,
        "is no classifier",
    ),
    "an unknown opset": (of_opset(999), EnvironmentProblem, "has opset 999"),
    "an unknown operator": (make(after=[node("Nowhere", "scores", "y")]), CheckFailed, "cannot be opened"),
    "a batch that is fixed inside": (
        make(after=[node("Reshape", "scores fixed", "y")], fixed=np.array([1, CLASSES])),
        CheckFailed,
        "fails at a batch of 2",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_classifier_of_images_is_refused(file, name):
    proto, error, text = REFUSED[name]
    with pytest.raises(error, match=text) as raised:
        inspect(file(proto))
    assert "\n" not in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x08\x08"])
def test_other_bytes_are_no_onnx_file(tmp_path, content):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(CheckFailed, match="no ONNX file"):
        read(tmp_path / "net.onnx")


def with_external(folder, location: str | None = None) -> onnx.ModelProto:
    """The network with its weights in `net.data`, under the name that the file states."""
    proto = make()
    onnx.save(proto, folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    stored = onnx.load(folder / "net.onnx", load_external_data=False)
    if location is not None:
        for tensor in stored.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "net.onnx").write_bytes(stored.SerializeToString())
    return stored


def test_external_data_is_read_from_the_folder(tmp_path):
    with_external(tmp_path)
    proto = read(tmp_path / "net.onnx")
    found = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    for name, value in weights().items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("location", ["../net.data", "inner/../../net.data", "ABSOLUTE", "link.data", ""])
def test_external_data_never_leaves_the_folder(tmp_path, location):
    inside = tmp_path / "inside"
    inside.mkdir()
    with_external(inside, str(tmp_path / "net.data") if location == "ABSOLUTE" else location)
    shutil.move(inside / "net.data", tmp_path / "net.data")
    os.symlink(tmp_path / "net.data", inside / "link.data")
    with pytest.raises(CheckFailed, match="as external data, which"):
        read(inside / "net.onnx")


def test_lacking_or_short_external_data_is_said(tmp_path):
    with_external(tmp_path)
    content = (tmp_path / "net.data").read_bytes()
    (tmp_path / "net.data").write_bytes(content[:-9])
    with pytest.raises(CheckFailed, match="too short"):
        read(tmp_path / "net.onnx")
    (tmp_path / "net.data").unlink()
    with pytest.raises(CheckFailed, match="no file 'net"):
        read(tmp_path / "net.onnx")


def test_a_file_is_measured_without_torch(file):
    path = file(make(shape=[2, 3, SIDE, SIDE]))
    code = "import sys; from poolzoo.cli import run; code = run(sys.argv[1:]); sys.exit(code or 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "bench", str(path), "--threads", "1", "--json"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout.count("\n")) == (0, 1), outcome.stderr
    report = json.loads(outcome.stdout)
    assert report["bundle"] == str(path)
    assert [(row["runtime"], row["batch"], row["threads"]) for row in report["results"]] == [("onnxruntime", 2, 1)]
    assert "preprocessing" not in report


def test_a_file_without_onnx_is_a_line_and_a_hint(file):
    outcome = alone("bench", str(file(make())))
    assert outcome.returncode == 4
    assert outcome.stderr.splitlines()[1].strip() == "hint: pip install onnx"


@pytest.mark.slow
def test_a_runtime_is_measured_only_where_it_agrees(poolzoo, file):
    outcome = poolzoo("bench", file(make()), "--runtime", "onnxruntime,reference", "--batch", "2", "--threads", "1")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()[1:3]] == ["onnxruntime", "reference"]


ERRORS = {
    "no such file": (["verify", "none.onnx", "--against", "net.py:build"], 2, "none.onnx does not exist"),
    "no module": (["verify", "net.onnx"], 2, "there is nothing to compare it with"),
    "no function in it": (["verify", "net.onnx", "--against", "net.py:buidl"], 2, "has no function 'buidl'"),
    "not callable": (["verify", "net.onnx", "--against", "net.py:not_a_function"], 2, "is int, which is no function"),
    "no colon": (["verify", "net.onnx", "--against", "net.py"], 2, "is not MODULE:FUNCTION"),
    "no such module": (["verify", "net.onnx", "--against", "nowhere:build"], 2, "there is no module 'nowhere'"),
    "it raises": (["verify", "net.onnx", "--against", "net.py:broken"], 1, "raises KeyError"),
    "no network": (["verify", "net.onnx", "--against", "net.py:nothing"], 1, "gives list, which is no torch.nn.Module"),
    "training mode": (["verify", "net.onnx", "--against", "net.py:training"], 1, "in training mode: 1 (Dropout)"),
    "random": (["verify", "net.onnx", "--against", "net.py:random"], 1, "something in it is random"),
    "other classes": (["verify", "net.onnx", "--against", "net.py:of_six_classes"], 1, "gives 5 classes"),
    "no images": (["verify", "net.onnx", "--against", "net.py:build", "--images", "none"], 2, "none does not exist"),
    "a size": (["verify", "net.onnx", "--against", "net.py:build", "--image-size", "16"], 2, "takes images 12×12"),
    "no numbers": (["verify", "net.onnx", "--against", "net.py:build", "--mean", "a,b,c"], 2, "is not 3 numbers"),
    "an option of a file": (["bench", "bundle", "--output", "y"], 2, "--output concerns an ONNX file"),
    "a bundle": (["verify", "bundle", "--against", "net.py:build"], 2, "--against concerns an ONNX file"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_a_line_and_a_hint(poolzoo, file, tmp_path, monkeypatch, name):
    file(make())
    write_module(tmp_path)
    (tmp_path / "bundle").mkdir()
    monkeypatch.chdir(tmp_path)
    arguments, code, text = ERRORS[name]
    outcome = poolzoo(*arguments, "-q")
    error, hint = outcome.err.splitlines()
    assert (outcome.code, error.startswith("error: "), hint.startswith("hint: ")) == (code, True, True)
    assert text in error
    assert outcome.out == ""


def test_a_bundle_is_computed_in_sixteen_bits(poolzoo, tmp_path):
    bundle = linear_bundle(tmp_path / "bundle", "float")
    outcome = poolzoo("verify", bundle, "--arithmetic", "fp16", "--arithmetic", "bf16", "--no-bench", "--json")
    checks = {check["id"]: check["passed"] for check in outcome.json["checks"]}
    assert (outcome.code, checks["arithmetic-fp16"], checks["arithmetic-bf16"]) == (0, True, True)


def test_a_module_in_the_working_directory_has_to_be_named(poolzoo, file, tmp_path, monkeypatch):
    """`net` alone is a module that Python finds; the file here is none, and nothing of it runs."""
    path = file(make())
    write_module(tmp_path)
    (tmp_path / "net.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    outcome = poolzoo("verify", path, "--against", "net:build", "-q")
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, "error: there is no module 'net'")
    assert "net.py:build" in outcome.err


def test_a_failure_is_named_on_the_command_line(poolzoo, file, tmp_path):
    path = file(make([node("Gather", "x order", "prepared", axis=1)], order=np.array([2, 1, 0])))
    outcome = poolzoo("verify", path, "--against", write_module(tmp_path), "--json", "-q")
    assert outcome.code == 1
    assert "it agrees when the channels are reversed" in outcome.err
    assert outcome.json["cause"]["change"] == "the channels are reversed"
    assert not outcome.json["parity"]["passed"]
