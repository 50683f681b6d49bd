"""Export, parity, verification and prediction, with faults planted to see that they are found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

import poolzoo as package
from poolzoo.artifacts import manifest as bundle
from poolzoo.common import files
from poolzoo.common.timing import interleaved
from poolzoo.export import export as exporting
from poolzoo.export import graph
from poolzoo.export.source import from_run
from poolzoo.model import inference
from poolzoo.parity import check
from poolzoo.parity.reference import Reference
from poolzoo.runtime import ort_session


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_bundle_is_complete_and_one_file(exported):
    names = {path.name for path in exported.iterdir()}
    evidence = {
        "config.json",
        "parity.json",
        "speed.json",
        "golden.npz",
        "manifest.json",
        "confusion.png",
        "reliability.png",
        "risk_coverage.svg",
    }
    expected = evidence | {"model.onnx", "README.md", "report.html", "predict.py"}
    assert names == expected
    assert bundle.differences(exported) == []
    report = read(exported / "parity.json")
    assert report["passed"]
    assert report["max_abs"] <= report["tolerance"] < 1e-3
    assert report["top1_agreement"] == 1.0
    assert set(report["batches"]) >= {1, 2, 7}
    speed = read(exported / "speed.json")["speed"]
    for row in speed.values():
        assert row["torch_ms"] > 0
        assert row["ort_ms"] > 0


def test_the_graph_takes_stored_images_and_describes_its_input(exported, trained):
    """Plain ONNX Runtime against the network of the run, on any batch, without any of our deployment code."""
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == [str(digit) for digit in range(10)]
    given = json.loads(metadata["input"])
    assert (given["kind"], given["layout"], given["height"], given["width"]) == ("uint8", "NHWC", 8, 8)
    assert json.loads(metadata["poolzoo"])["pool"] == "gem"
    network = package.load(trained)
    for count in (1, 2, 7, 33):
        images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        logits, probabilities = session.run(["logits", "probabilities"], {"images": images})
        with torch.inference_mode():
            expected = network(network.preprocess(torch.from_numpy(images)))
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
        temperature = read(trained / "config.json")["calibration"]["temperature"]
        np.testing.assert_allclose(probabilities, (expected / temperature).softmax(1).numpy(), atol=1e-5)
    assert onnx.load(exported / "model.onnx").opset_import[0].version == 18


@pytest.mark.usefixtures("kept_graphs")
def test_export_json_follows_its_contract(poolzoo, trained, tmp_path):
    report = poolzoo("export", trained, "--json", "--out", tmp_path / "b", "--threads", 1).json
    assert report["bundle"] == str(tmp_path / "b")
    assert {"passed", "max_abs", "top1_agreement", "batches"} <= report["parity"].keys()
    assert {"torch_ms", "ort_ms", "speedup"} <= report["speed"]["1"].keys()
    assert report["provider"] == "CPUExecutionProvider"
    again = poolzoo("export", trained, "--out", tmp_path / "b")
    assert again.code == 2
    assert "exists" in again.err


@pytest.mark.usefixtures("kept_graphs")
def test_export_goes_to_exports_by_default(poolzoo, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = poolzoo("export", trained, "--no-bench", "-q")
    assert outcome.out.splitlines()[-1] == f"exports/{trained.name}"
    assert (tmp_path / "exports" / trained.name / "model.onnx").is_file()


# --- Networks that there is nothing to compare with -----------------------------------------------------------------


def test_a_network_that_gives_nan_itself_is_refused(trained, exported):
    from poolzoo.artifacts.run import load_run
    from poolzoo.common.errors import CheckFailed

    run = load_run(trained)
    run.network.classifier.bias.data[0] = torch.nan
    model = inference.InferenceModel(run.preprocess, run.network).eval()
    samples = run.samples()
    with pytest.raises(CheckFailed, match="NaN"):
        Reference.compute(model, samples["test_images"], samples["test_labels"])


def test_a_network_whose_float32_and_float64_disagree_is_refused(trained, exported):
    """A noise floor as large as the logits would make the gate pass anything."""
    from poolzoo.artifacts.run import load_run
    from poolzoo.common.errors import CheckFailed

    class Unsteady(torch.nn.Module):
        def forward(self, x):
            return x * (1.5 if x.dtype == torch.float64 else 1.0)

    run = load_run(trained)
    run.network.classifier = torch.nn.Sequential(run.network.classifier, Unsteady())
    model = inference.InferenceModel(run.preprocess, run.network).eval()
    samples = run.samples()
    with pytest.raises(CheckFailed, match="float64"):
        Reference.compute(model, samples["test_images"], samples["test_labels"])


def test_a_network_that_insists_on_float32_can_still_be_judged(trained, exported):
    from poolzoo.artifacts.run import load_run

    class Casting(torch.nn.Module):
        def forward(self, x):
            return x.float().clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)

    run = load_run(trained)
    run.network.pool = Casting()
    model = inference.InferenceModel(run.preprocess, run.network).eval()
    samples = run.samples()
    images, labels = samples["test_images"], samples["test_labels"]
    reference = Reference.compute(model, images, labels)
    report = check.check_outputs(reference, ort_session.open_model(exported / "model.onnx"))
    assert report.outputs.reference == "float32"
    assert not report.passed  # the exponent was learnt, so this is another network


def test_an_emptied_manifest_vouches_for_nothing(poolzoo, bundle_copy, run_copy):
    for directory, kind in ((bundle_copy, "bundle"), (run_copy, "run")):
        (directory / "manifest.json").write_text(json.dumps({"schema": 1, "kind": kind, "files": {}}))
    assert poolzoo("verify", bundle_copy).code == 1
    assert poolzoo("evaluate", run_copy).code == 1
    (bundle_copy / "manifest.json").write_text("[]")
    outcome = poolzoo("verify", bundle_copy, "--json")
    assert outcome.code == 1
    assert not outcome.json["passed"]


def test_a_network_that_draws_random_numbers_is_refused(tmp_path, trained):
    from poolzoo.artifacts.run import load_run
    from poolzoo.common.errors import CheckFailed

    class Noisy(torch.nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    run = load_run(trained)
    run.network.pool = torch.nn.Sequential(run.network.pool, Noisy())
    with pytest.raises(CheckFailed, match="random"):
        graph.export_graph(from_run(run), tmp_path / "m.onnx")


def test_a_network_that_cannot_be_exported_is_one_line(tmp_path, trained):
    from poolzoo.artifacts.run import load_run
    from poolzoo.common.errors import CheckFailed

    class Branching(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    run = load_run(trained)
    run.network.pool = torch.nn.Sequential(run.network.pool, Branching())
    with pytest.raises(CheckFailed, match="cannot be exported"):
        graph.export_graph(from_run(run), tmp_path / "m.onnx")


@pytest.mark.usefixtures("kept_graphs")
def test_an_interrupted_export_leaves_nothing(poolzoo, trained, tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting.check, "check_parity", stopped)
    assert poolzoo("export", trained, "--out", tmp_path / "b", "-q").code == 130
    assert list(tmp_path.iterdir()) == []


def test_interleaving_runs_every_call_equally_often():
    seen: list[str] = []
    times = interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=20)
    assert len(times["a"]) == len(times["b"]) == seen.count("a") - 3 == seen.count("b") - 3
    assert "aa" in "".join(seen[6:])  # the order is shuffled, not alternating


# --- Damaged runs and bundles --------------------------------------------------------------------------------------


def test_a_run_with_an_altered_or_missing_file_is_refused(poolzoo, run_copy):
    weights = run_copy / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    for command in ("evaluate", "export"):
        outcome = poolzoo(command, run_copy)
        assert outcome.code == 1
        assert "model.safetensors was altered" in outcome.err
    weights.unlink()
    assert "model.safetensors is missing" in poolzoo("evaluate", run_copy).err


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "parity.json", "golden.npz", "README.md", "speed.json"])
def test_one_altered_byte_anywhere_fails_verification(poolzoo, bundle_copy, name):
    raw = bytearray((bundle_copy / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (bundle_copy / name).write_bytes(raw)
    outcome = poolzoo("verify", bundle_copy, "--json")
    assert outcome.code == 1
    assert not outcome.json["passed"]
    assert name in outcome.json["checks"][0]["detail"]


def test_a_graph_swapped_with_its_hash_fails_by_its_outputs(poolzoo, bundle_copy):
    model = onnx.load(bundle_copy / "model.onnx")
    weight = next(one for one in model.graph.initializer if len(one.dims) == 4 and one.dims[1] == 32)
    value = numpy_helper.to_array(weight).copy()
    value[3, 2, 1, 1] += 0.05
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    onnx.save(model, bundle_copy / "model.onnx")
    bundle.write_manifest(bundle_copy, "bundle")
    outcome = poolzoo("verify", bundle_copy, "--json", "--no-bench")
    assert outcome.code == 1
    failed = {check["id"] for check in outcome.json["checks"] if not check["passed"]}
    assert {"golden-batch-7", "golden-batch-23"} <= failed


def test_golden_outputs_that_cannot_be_read_fail_verification(poolzoo, bundle_copy):
    whole = (bundle_copy / "golden.npz").read_bytes()
    for content in (whole[: len(whole) // 2], b"PK\x03\x04 no archive", b""):
        (bundle_copy / "golden.npz").write_bytes(content)
        bundle.write_manifest(bundle_copy, "bundle")
        outcome = poolzoo("verify", bundle_copy, "--json", "--no-bench")
        assert outcome.code == 1
        assert outcome.json["checks"][-1]["id"] == "golden"


def test_a_manifest_that_points_outside_is_refused(poolzoo, bundle_copy, tmp_path):
    (tmp_path / "secret").write_text("x")
    manifest = read(bundle_copy / "manifest.json")
    manifest["files"]["../secret"] = {"sha256": bundle.file_sha256(tmp_path / "secret"), "bytes": 1}
    del manifest["seal"]
    files.write_json(bundle_copy / "manifest.json", {**manifest, "seal": bundle.self_checksum(manifest)})
    outcome = poolzoo("verify", bundle_copy, "--json")
    assert outcome.code == 1
    assert "outside" in outcome.json["checks"][0]["detail"]


def test_a_link_that_points_outside_is_refused(poolzoo, bundle_copy, tmp_path):
    (bundle_copy / "model.onnx").rename(tmp_path / "model.onnx")
    (bundle_copy / "model.onnx").symlink_to(tmp_path / "model.onnx")
    outcome = poolzoo("verify", bundle_copy, "--json")
    assert outcome.code == 1
    assert "model.onnx points outside" in outcome.json["checks"][0]["detail"]


def test_every_byte_of_the_manifest_counts(poolzoo, bundle_copy):
    """The manifest vouches for itself: whichever byte is another, it is noticed."""
    path = bundle_copy / "manifest.json"
    whole = path.read_bytes()
    assert bundle.differences(bundle_copy) == []
    for index in range(0, len(whole), 3):
        for flip in (1, 0x10):
            path.write_bytes(whole[:index] + bytes([whole[index] ^ flip]) + whole[index + 1 :])
            assert bundle.differences(bundle_copy) != [], (index, chr(whole[index]), chr(whole[index] ^ flip))


def test_a_manifest_without_its_own_checksum_is_still_read(bundle_copy):
    manifest = read(bundle_copy / "manifest.json")
    del manifest["seal"]
    (bundle_copy / "manifest.json").write_text(json.dumps({**manifest, "schema": 1}))
    assert bundle.differences(bundle_copy) == []
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))  # without its seal, but of the new kind
    assert bundle.differences(bundle_copy) == ["manifest.json is damaged"]


def test_a_graph_that_takes_its_weights_from_elsewhere_is_refused(poolzoo, bundle_copy, tmp_path):
    """Sealed again, so that only the graph itself can give it away."""
    model = onnx.load(bundle_copy / "model.onnx")
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    moved = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    for tensor in moved.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../weights.bin"
    (bundle_copy / "model.onnx").write_bytes(moved.SerializeToString())
    bundle.write_manifest(bundle_copy, "bundle")
    outcome = poolzoo("verify", bundle_copy, "--json", "--no-bench")
    assert outcome.code == 1
    assert outcome.json["checks"][-1]["id"] == "session"


def test_a_whole_bundle_verifies_and_is_measured(poolzoo, exported):
    outcome = poolzoo("verify", exported, "--json")
    assert outcome.code == 0
    assert outcome.json["passed"]
    assert outcome.json["speed"]["1"]["ort_ms"] > 0


def test_a_run_and_a_bundle_are_not_mistaken_for_another(poolzoo, trained, exported):
    for arguments in (("verify", trained), ("predict", trained, "x.png"), ("export", exported), ("evaluate", exported)):
        outcome = poolzoo(*arguments)
        assert outcome.code == 2
        assert outcome.err.startswith("error: ")


def test_a_provider_without_a_device_is_never_replaced_silently(poolzoo, exported, trained, tmp_path):
    if ort_session.has_device(ort_session.PROVIDERS["cuda"]):
        pytest.skip("there is a GPU")
    assert poolzoo("verify", exported, "--provider", "cuda").code == 4
    assert poolzoo("export", trained, "--provider", "cuda", "--out", tmp_path / "b").code == 4
    assert poolzoo("verify", exported, "--provider", "abacus").code == 2


# --- Prediction and evaluation -------------------------------------------------------------------------------------


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    """Twenty test scans as files, named by their digit."""
    from poolzoo.datasets import digits

    pixels, labels = digits.load("test")
    paths = []
    for index in range(20):
        paths.append(tmp_path / f"{index}-{labels[index]}.png")
        Image.fromarray(pixels[index]).save(paths[-1])
    return paths


def test_predict_names_what_is_in_the_files(poolzoo, exported, scans):
    rows = poolzoo("predict", exported, *scans, "--json").json
    assert [row["file"] for row in rows] == [str(path) for path in scans]
    right = sum(Path(row["file"]).stem.endswith(row["label"]) for row in rows)
    assert right >= 16
    for row in rows:
        assert row["top"][0] == {"label": row["label"], "score": row["score"]}
        assert sum(one["score"] for one in row["top"]) <= 1.0001
        assert len(row["top"]) == 5


def test_predict_does_the_rest_where_one_image_is_broken(poolzoo, exported, scans, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    arguments = [scans[0], tmp_path / "broken.png", tmp_path / "missing.png", scans[1]]
    outcome = poolzoo("predict", exported, *arguments, "--json")
    assert outcome.code == 1
    assert ["error" in row for row in outcome.json] == [False, True, True, False]
    assert len(outcome.err.splitlines()) == 2


def test_prediction_and_verification_need_no_torch(exported, scans):
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'sklearn', 'onnx', 'safetensors'): sys.modules[name] = None\n"
        "from poolzoo.cli import run\n"
        f"assert run(['predict', {str(exported)!r}, {str(scans[0])!r}]) == 0\n"
        f"assert run(['verify', {str(exported)!r}]) == 0\n"
        "assert run(['list']) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_evaluate_repeats_the_reported_figures(poolzoo, trained):
    reported = read(trained / "metrics.json")["test"]
    found = poolzoo("evaluate", trained, "--json", "--threads", 1).json
    assert found["accuracy"] == reported["accuracy"]
    assert found["confusion"] == reported["confusion"]


def test_evaluate_takes_a_test_folder_with_fewer_classes(poolzoo, trained, tmp_path):
    from poolzoo.datasets import digits

    pixels, labels = digits.load("test")
    chosen = np.flatnonzero(np.isin(labels, (3, 7)))
    for index in chosen:
        folder = tmp_path / "data" / "test" / str(labels[index])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[index]).save(folder / f"{index}.png")
    found = poolzoo("evaluate", trained, "--data", f"folder:{tmp_path / 'data'}", "--json").json
    assert found["n"] == len(chosen)
    per_class = {row["class"]: row["recall"] for row in read(trained / "metrics.json")["test"]["per_class"]}
    expected = np.mean([per_class[str(label)] for label in labels[chosen]])
    assert found["accuracy"] == pytest.approx(expected)
    (tmp_path / "data" / "test" / "3").rename(tmp_path / "data" / "test" / "three")
    outcome = poolzoo("evaluate", trained, "--data", f"folder:{tmp_path / 'data'}")
    assert outcome.code == 2
    assert "three" in outcome.err


def test_a_plugins_pooling_goes_all_the_way(poolzoo, tmp_path):
    example = Path(__file__).parents[2] / "plugins" / "single_file" / "power_mean.py"
    arguments = ("--plugin", example, "-q")
    model = ("--backbone", "nano/plain", "--pool", "power-mean:p=2")
    short = ("--epochs", 1, "--limit", 200)
    outcome = poolzoo("finetune", "--data", "digits", *model, *short, "--out", tmp_path / "run", *arguments)
    assert outcome.code == 0
    assert poolzoo("export", tmp_path / "run", "--out", tmp_path / "b", "--no-bench", *arguments).code == 0
    recorded = read(tmp_path / "run" / "config.json")["poolzoo"]["plugins"]["pool"]
    assert (recorded["dist"], recorded["tier"]) == ("power_mean", "file")
    assert len(recorded["sha256"]) == 64
    missing = poolzoo("export", tmp_path / "run", "--out", tmp_path / "c")
    assert missing.code == 2
    assert "power-mean" in missing.err
    assert poolzoo("verify", tmp_path / "b", "--no-bench").code == 0
