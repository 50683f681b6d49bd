"""A bundle or run from a stranger: nothing in it names a file outside of it, and no program in it is run unasked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from poolzoo.artifacts import manifest
from poolzoo.common import files
from poolzoo.common.errors import CheckFailed
from poolzoo.plugin import loader
from poolzoo.runtime import graph_references, ort_session, prepare, runtimes

DIGITS = Path(__file__).parents[1] / "data" / "digits_bundle"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle beside a file that is not part of it."""
    (tmp_path / "secret.txt").write_text("private")
    (tmp_path / "secret.bin").write_bytes(np.zeros(4, np.float32).tobytes())
    return Path(shutil.copytree(DIGITS, tmp_path / "bundle"))


def rewrite(bundle: Path, model: onnx.ModelProto) -> None:
    """Replaces the graph; the manifest agrees with it, as a stranger's would."""
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    manifest.write_manifest(bundle, "bundle")


def list_file(bundle: Path, name: str, of: Path) -> None:
    """Lists a file in the manifest under any name, with the right checksums of its content and of the manifest."""
    content = files.read_json(bundle / "manifest.json")
    content["files"][name] = {"sha256": manifest.file_sha256(of), "bytes": of.stat().st_size}
    content = {"schema": 2, "kind": "bundle", "files": content["files"]}
    files.write_json(bundle / "manifest.json", {**content, "seal": manifest.self_checksum(content)})


# --- Names in the manifest -----------------------------------------------------------------------------------------

NAMES = ("../secret.txt", "a/../../secret.txt", "./../secret.txt", "sub/../../bundle/../secret.txt", "{outside}")


@pytest.mark.parametrize("name", NAMES)
def test_a_listed_name_that_leads_out_is_refused(bundle, name):
    (bundle / "sub").mkdir()
    secret = bundle.parent / "secret.txt"
    list_file(bundle, name.format(outside=secret), secret)
    assert manifest.differences(bundle) == [f"{name.format(outside=secret)} points outside"]


@pytest.mark.parametrize("name", ["a\0b", "..\\secret.txt", "C:\\secret.txt", "CON", "model.onnx/x", "x" * 5000, ""])
def test_an_odd_name_is_a_damaged_bundle(bundle, name):
    list_file(bundle, name, bundle.parent / "secret.txt")
    (problem,) = manifest.differences(bundle)
    assert any(text in problem for text in ("missing", "cannot be read", "is no file"))


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder", "folder above a file", "dangling", "circle"])
def test_a_link_that_leads_out_is_refused(bundle, kind, listed):
    secret = bundle.parent / "secret.txt"
    place = bundle / "link"
    target = {
        "file": secret,
        "folder": bundle.parent,
        "folder above a file": Path(".."),
        "dangling": bundle.parent / "nowhere",
        "circle": place,
    }[kind]
    place.symlink_to(target)
    name = "link/secret.txt" if kind.startswith("folder") else "link"
    if listed:
        list_file(bundle, name, secret)
    assert any(word in str(manifest.differences(bundle)) for word in ("points outside", "cannot be read"))
    with pytest.raises(CheckFailed, match="damaged"):
        manifest.check(bundle, "bundle")


def test_a_link_inside_is_no_damage(bundle):
    (bundle / "again.onnx").symlink_to("model.onnx")
    assert manifest.differences(bundle) == []


def test_a_bundle_that_is_itself_a_link_is_read(bundle, tmp_path):
    (tmp_path / "latest").symlink_to(bundle)
    manifest.check(tmp_path / "latest", "bundle")


@pytest.mark.parametrize(
    "command", [("verify",), ("verify", "--no-bench"), ("bench",), ("evaluate",), ("predict", "x.png")]
)
def test_no_command_reads_through_a_link(poolzoo, bundle, command):
    (bundle / "golden.npz").unlink()
    (bundle / "golden.npz").symlink_to(bundle.parent / "secret.txt")
    name, *more = command
    outcome = poolzoo(name, bundle, *more)
    assert outcome.code == 1
    assert "golden.npz points outside" in outcome.err
    assert "private" not in outcome.out + outcome.err


# --- What the graph refers to --------------------------------------------------------------------------------------


def outside(location: str) -> TensorProto:
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def subgraph(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Identity", ["outside"], ["y"])], "part", [], [], [tensor])


def weight(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.initializer.append(tensor)


def sparse(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor, indices=tensor, dims=[4]))


def constant(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["extra"], value=tensor))


def branch(model: onnx.ModelProto, tensor: TensorProto) -> None:
    inner = helper.make_node("If", ["c"], ["y"], then_branch=subgraph(tensor), else_branch=subgraph(tensor))
    nested = helper.make_graph([inner], "outer", [], [])
    model.graph.node.append(helper.make_node("Loop", ["n"], ["extra"], body=nested))


def function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    model.functions.append(helper.make_function("own", "F", [], ["y"], [node], [helper.make_opsetid("", 18)]))


def training(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.training_info.add().initialization.CopyFrom(subgraph(tensor))


PLACES = [weight, sparse, constant, branch, function, training]


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_wherever_a_tensor_may_be(bundle, place):
    model = onnx.load(bundle / "model.onnx")
    place(model, outside("../secret.bin"))
    rewrite(bundle, model)
    assert set(graph_references.referenced_files(bundle / "model.onnx")) == {"../secret.bin"}


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin", "model.onnx", "a\0b", "..\\secret.bin", ""]
)
def test_a_graph_with_external_data_is_never_opened(bundle, location):
    """Also where the file lies in the bundle: no graph of poolzoo has any, so the rule needs no exception."""
    model = onnx.load(bundle / "model.onnx")
    weight(model, outside(location))
    rewrite(bundle, model)
    with pytest.raises(CheckFailed, match="reads another file"):
        ort_session.open_model(bundle / "model.onnx")


def test_a_graph_that_names_a_compiled_file_is_never_opened(bundle):
    model = onnx.load(bundle / "model.onnx")
    model.graph.node.append(
        helper.make_node("EPContext", [], ["z"], domain="com.microsoft", embed_mode=0, ep_cache_context="../secret.bin")
    )
    rewrite(bundle, model)
    with pytest.raises(CheckFailed, match="reads another file"):
        ort_session.open_model(bundle / "model.onnx")


def test_names_that_only_sound_like_references_are_none(bundle):
    model = onnx.load(bundle / "model.onnx")
    model.graph.name = "location EPContext"
    model.graph.doc_string = "external_data location"
    model.metadata_props.add(key="location", value="../secret.bin")
    rewrite(bundle, model)
    assert graph_references.referenced_files(bundle / "model.onnx") == []
    ort_session.open_model(bundle / "model.onnx")


@pytest.mark.parametrize("command", [("verify", "--no-bench"), ("bench",), ("predict", "x.png")])
def test_commands_refuse_a_graph_that_reads_files(poolzoo, bundle, command):
    model = onnx.load(bundle / "model.onnx")
    weight(model, outside("../secret.bin"))
    rewrite(bundle, model)
    name, *more = command
    outcome = poolzoo(name, bundle, *more)
    assert outcome.code == 1
    assert "reads another file, '../secret.bin'" in outcome.out + outcome.err


# --- Programs in a bundle ------------------------------------------------------------------------------------------

COMPILED = """
from poolzoo import Runtime, hookimpl

def convert(bundle, out):
    (out / "program").write_text("made here")

def open_session(bundle, *, threads, device, precision):
    raise RuntimeError("ran " + (bundle / "program").read_text())

@hookimpl
def poolzoo_runtimes():
    yield Runtime(name="compiled", summary="", open=open_session, convert=convert, converts_to_code={code})
"""


@pytest.mark.parametrize(
    ("code", "named", "ran"), [(True, False, "made here"), (True, True, "a stranger's"), (False, False, "a stranger's")]
)
def test_a_program_in_a_bundle_runs_only_where_it_is_named(bundle, tmp_path, code, named, ran):
    (tmp_path / "compiled.py").write_text(COMPILED.format(code=code))
    target = bundle / "targets" / "compiled"
    target.mkdir(parents=True)
    (target / "program").write_text("a stranger's")
    config = files.read_json(bundle / "config.json")
    config["export"]["targets"] = {"compiled": {"version": "", "changes": [], "bytes": 1, "checked": True}}
    files.write_json(bundle / "config.json", config)
    entry = loader.load_plugins(tmp_path / "compiled.py", installed=False).runtime("compiled")
    made = prepare.prepare(bundle, entry, tmp_path / "work", run_stored=named)
    assert (made.directory / "program").read_text() == ran
    assert ("converted" in made.changes) == (ran == "made here")


def test_machine_code_and_pages_count_as_programs():
    catalog = loader.load_plugins(installed=False)
    programs = {
        one.item.name
        for one in map(catalog.runtime, ("iree", "web", "mnn", "openvino", "ncnn", "litert"))
        if runtimes.runtime_of(one).converts_to_code
    }
    assert programs == {"iree", "web"}


# --- Plugins that a run names --------------------------------------------------------------------------------------


def test_a_run_of_a_stranger_loads_no_plugin_of_its_own(poolzoo, run_copy, tmp_path):
    """It names one in run.toml; only `--resume` and `--config`, which run what a file says, load it, and say so."""
    mark = tmp_path / "executed"
    plugin = tmp_path / "named.py"
    plugin.write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()")
    toml = run_copy / "run.toml"
    text = "\n".join(line for line in toml.read_text().splitlines() if not line.startswith(("plugins", "data =")))
    toml.write_text(f"plugins = {json.dumps([str(plugin)])}\ndata = 'folder:/nowhere'\n{text}\n")
    manifest.write_manifest(run_copy, "run")
    page = tmp_path / "page.html"
    for command in (("evaluate", run_copy), ("report", run_copy, "--out", page), ("report", "--check", run_copy)):
        poolzoo(*command)
        assert not mark.exists(), command
    (run_copy / "manifest.json").unlink()
    outcome = poolzoo("finetune", "--resume", run_copy)
    assert mark.exists()
    assert f"loading the plugin {plugin}, which {run_copy} names" in outcome.err
