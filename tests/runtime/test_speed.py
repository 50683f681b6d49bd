"""The speed protocol on a clock that only the arms move, and `poolzoo bench` on a real bundle."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from poolzoo.artifacts import manifest
from poolzoo.common import timing
from poolzoo.data.images import PLAIN
from poolzoo.runtime import environment, ort_session, speed
from poolzoo.runtime.builtin import openvino as builtin_openvino
from poolzoo.runtime.measurements import Measurement

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 10, 3), dtype=np.uint8)
MS = {"torch": 6.0, "torch channels-last": 3.0, "onnxruntime": 2.0}  # an image on one thread, in the fakes


class Tape:
    """Simulated time, and what each arm was called with; copies of a network share it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls: list[tuple[str, int, np.ndarray]] = []
        self.training = False

    def __deepcopy__(self, memo: dict) -> Tape:
        return self

    def clock(self) -> float:
        return self.seconds

    def note(self, arm: str, threads: int, images: np.ndarray) -> None:
        self.calls.append((arm, threads, images.copy()))
        self.seconds += MS[arm] / 1e3 * len(images) / threads


class Network(nn.Module):
    """A network that takes simulated time, less in channels-last; its copies are in training mode, as fx makes them."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape, self.weight = tape, nn.Parameter(torch.zeros(4, 3, 3, 3))

    def __deepcopy__(self, memo: dict) -> Network:
        return Network(self.tape)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        last = self.weight.is_contiguous(memory_format=torch.channels_last)
        self.tape.note("torch channels-last" if last else "torch", torch.get_num_threads(), images.numpy())
        self.tape.training |= self.training
        return torch.zeros(len(images), 4), torch.zeros(len(images), 4)


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tape]:
    """Simulated time for `timing` and for a fake ONNX Runtime, on a machine where torch uses two threads."""
    tape = Tape()

    def opened(file: Path, provider: str, threads: int) -> SimpleNamespace:
        return SimpleNamespace(
            takes_photos=False,
            provider="CPUExecutionProvider",
            fit=PLAIN,
            run=lambda images: tape.note("onnxruntime", threads, images),
        )

    monkeypatch.setattr(timing, "interleaved", partial(timing.interleaved, clock=tape.clock))
    monkeypatch.setattr(ort_session, "open_model", opened)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield tape
    torch.set_num_threads(before)


def against_torch(network: nn.Module, **options: object) -> dict:
    return speed.compare_with_torch(network.eval(), Path("model.onnx"), IMAGES, provider="cpu", **options).to_json()


# --- Statistics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 7, 200])
def test_statistics_are_those_of_numpy(count):
    first, second = np.random.default_rng(count).gamma(2, 5, (2, count)) + 1
    found = timing.summary(list(first))
    expected = np.percentile(first, (50, 0, 90, 99))
    np.testing.assert_allclose([found[k] for k in ("median_ms", "min_ms", "p90_ms", "p99_ms")], expected, atol=1e-4)
    assert found["rounds"] == count
    spread = timing.ratio_spread(list(first), list(second))
    expected = np.percentile(first / second, (50, 10, 90))  # of the ratios, not the ratio of the percentiles
    np.testing.assert_allclose([spread[k] for k in ("median", "p10", "p90")], expected, atol=1e-3)
    assert timing.ratio(first, second) == pytest.approx(expected[0])


def test_a_cell_compares_the_rounds_that_ran_side_by_side(tape):
    """Both arms share a disturbance that changes from round to round; their ratio does not know of it."""
    generator, taken = np.random.default_rng(1), {"reference": [], "other": []}

    def arm(name: str, factor: float) -> None:
        disturbance = generator.gamma(2, 5) if len(taken["reference"]) == len(taken["other"]) else arm.last
        arm.last = disturbance
        taken[name].append(disturbance * factor)
        tape.seconds += disturbance * factor / 1e3

    calls = {"reference": lambda: arm("reference", 3.0), "other": lambda: arm("other", 1.0)}
    rows = {row.runtime: row.to_json() for row in speed.time_runtimes(calls, "reference", 4, rounds=50)}
    assert rows["other"]["speedup"]["median"] == pytest.approx(3, abs=0.01)
    assert rows["other"]["rounds"] == 50
    assert rows["other"]["threads"] == 4
    assert "speedup" not in rows["reference"]
    expected = np.percentile(taken["reference"][timing.WARM_UP :], (50, 90, 99))
    found = [rows["reference"][key] for key in ("median_ms", "p90_ms", "p99_ms")]
    np.testing.assert_allclose(found, expected, atol=1e-3)


# --- Export: torch against the graph -------------------------------------------------------------------------------


def test_planted_times_come_out_as_they_were_planted(tape):
    report = against_torch(Network(tape))
    assert set(report) == {"speed", "preprocessing", "environment"}
    for size in (1, 32):
        found = report["speed"][str(size)]
        assert found["threads"] == 2
        assert found["torch_ms"] == pytest.approx(3.0 * size)
        assert found["ort_ms"] == pytest.approx(1.0 * size)
        assert found["speedup"] == pytest.approx(3)
        rows = {(row["runtime"], row["threads"]): row for row in found["measurements"]}
        assert set(rows) == {(arm, threads) for arm in MS for threads in (1, 2)}
        for (arm, threads), row in rows.items():
            for key in ("median_ms", "min_ms", "p90_ms", "p99_ms"):
                assert row[key] == pytest.approx(MS[arm] * size / threads), (arm, threads, key)
            expected = {key: pytest.approx(MS["torch"] / MS[arm]) for key in ("median", "p10", "p90")}
            assert row.get("speedup") == (None if arm == "torch" else expected)
            assert row["rounds"] >= timing.FEW_ROUNDS
    assert not tape.training
    json.dumps(report, allow_nan=False)


def test_all_arms_get_the_same_batch_on_the_reported_threads(tape):
    against_torch(Network(tape))
    for arm in MS:
        seen = {(threads, len(images)) for name, threads, images in tape.calls if name == arm}
        assert seen == {(1, 1), (1, 32), (2, 1), (2, 32)}, arm
    for arm, _, images in tape.calls:
        wanted = IMAGES[[index % len(IMAGES) for index in range(len(images))]]
        np.testing.assert_array_equal(images, wanted, err_msg=arm)


def test_only_requested_threads_are_measured_and_torchs_are_restored(tape):
    report = against_torch(Network(tape), threads=3)
    assert {threads for _, threads, _ in tape.calls} == {3}
    assert {row["threads"] for found in report["speed"].values() for row in found["measurements"]} == {3}
    assert report["environment"]["threads"] == 3
    assert torch.get_num_threads() == 2


def test_torch_gets_its_threads_back_where_a_network_fails(tape):
    class Failing(Network):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        against_torch(Failing(tape))
    assert torch.get_num_threads() == 2


def test_one_thread_is_measured_once_where_there_are_no_more(tape):
    torch.set_num_threads(1)
    report = against_torch(Network(tape))
    assert [row["threads"] for row in report["speed"]["1"]["measurements"]] == [1, 1, 1]


def test_an_arm_that_does_not_work_is_skipped(tape, monkeypatch, capsys):
    def broken(*arguments: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda model, **options: broken)
    monkeypatch.setattr(Network, "__deepcopy__", lambda self, memo: broken())
    report = against_torch(Network(tape), torch_compile=True)
    for found in report["speed"].values():
        assert [row["runtime"] for row in found["measurements"]] == ["torch", "onnxruntime"] * 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" is not")[0] for line in lines] == ["warning: channels-last", "warning: torch compiled"]
    assert all("no C++ compiler" in line for line in lines)


def test_a_compiled_network_is_measured_where_asked(tape, monkeypatch):
    def compile(model: Network, **options: object) -> nn.Module:
        return copy.deepcopy(model).eval().to(memory_format=torch.channels_last)  # three milliseconds, as planted

    monkeypatch.setattr(torch, "compile", compile)
    rows = against_torch(Network(tape), torch_compile=True)["speed"]["32"]["measurements"]
    row = next(row for row in rows if row["runtime"] == "torch compiled")
    assert row["median_ms"] == pytest.approx(3 * 32)
    assert row["speedup"]["median"] == pytest.approx(2)


def test_preprocessing_reads_a_jpeg_of_twice_the_size(monkeypatch):
    image = np.stack(np.broadcast_arrays(np.arange(40)[:, None] * 6, np.arange(24) * 10, 90), -1).astype(np.uint8)
    seen = []

    def once(calls: dict, *arguments: object, **options: object) -> dict:
        seen.append(calls["preprocessing"]())
        return {"preprocessing": [1.0, 2.0, 3.0]}

    monkeypatch.setattr(timing, "interleaved", once)
    found = speed.time_preprocessing(image, PLAIN)
    assert found.what == "JPEG bytes of 80×48 to pixels"
    assert (found.median_ms, found.rounds) == (2.0, 3)
    assert np.abs(seen[0].astype(int) - image).mean() < 3


def test_the_environment_needs_no_torch_and_says_where_it_was(monkeypatch):
    assert environment.current_environment(2, "CPUExecutionProvider").torch == torch.__version__
    monkeypatch.delitem(sys.modules, "torch")
    found = json.loads(json.dumps(environment.current_environment(2, "CPUExecutionProvider").to_json()))
    assert found["torch"] is None
    assert found["onnxruntime"] == onnxruntime.__version__
    assert (found["threads"], found["provider"], found["spinning"]) == (2, "CPUExecutionProvider", False)
    if Path("/proc/cpuinfo").exists():
        words = set(Path("/proc/cpuinfo").read_text().split())
        assert set(found["cpu_flags"]) == (environment.X86 | environment.ARM) & words


def test_cores_are_those_that_lscpu_counts():
    if not shutil.which("lscpu"):
        pytest.skip("there is no lscpu")
    text = subprocess.run(["lscpu", "-p=CPU,CORE,SOCKET"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    assert environment.physical_cores() == len(
        {tuple(row[1:]) for row in rows if int(row[0]) in os.sched_getaffinity(0)}
    )


# --- Bundles -------------------------------------------------------------------------------------------------------


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rounds; how long they take is nobody's business here."""
    monkeypatch.setattr(speed, "SECONDS", 0)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The thread counts of the sessions that are opened."""
    counts, real = [], ort_session.open_model

    def opened(*arguments: object, **options: object) -> ort_session.OnnxModel:
        model = real(*arguments, **options)
        counts.append(model.session.get_session_options().intra_op_num_threads)
        return model

    monkeypatch.setattr(ort_session, "open_model", opened)
    return counts


def test_a_single_graph_is_measured_on_one_and_all_threads(exported, brief, sessions, monkeypatch):
    monkeypatch.setattr(speed, "physical_cores", lambda: 2)
    graph = ort_session.open_model(exported / "model.onnx", "cpu", 3)
    images = np.zeros((4, 8, 8, 3), np.uint8)
    for options, counts in (({}, []), ({"file": exported / "model.onnx"}, [1, 2])):
        sessions.clear()
        found = speed.measure_graph(graph, images, **options)
        assert sessions == counts
        for row in found.values():
            assert [one.threads for one in row.measurements] == (counts or [3])
            assert row.ort_ms == row.measurements[-1].median_ms > 0
            assert row.rounds == timing.FEW_ROUNDS
        reused = speed.measure_graph(graph, images, file=exported / "model.onnx", threads=3)
        assert [one.threads for row in reused.values() for one in row.measurements] == [3, 3]
        assert sessions == counts  # the opened graph has three threads already


def test_bench_measures_every_batch_on_every_thread_count(poolzoo, exported, brief, sessions):
    result = poolzoo("bench", exported, "--batch", "1,3", "--threads", "2,1", "--provider", "cpu", "--json").json
    assert set(result) == {"bundle", "results", "agreement", "preprocessing", "environment"}
    cells = [(row["runtime"], row["threads"], row["batch"]) for row in result["results"]]
    assert cells == [("onnxruntime", threads, size) for threads in (1, 2) for size in (1, 3)]
    assert sessions == [1, 2]
    for row in result["results"]:
        assert row["images_per_s"] == pytest.approx(row["batch"] / row["median_ms"] * 1e3, rel=1e-3)
        assert row["min_ms"] <= row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
    golden = np.load(exported / "golden.npz")
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(["logits", "probabilities"], {"images": golden["images"]})
    rows = [np.abs(a - golden[k]).max(1) for a, k in zip(outputs, ("logits", "probabilities"), strict=True)]
    apart = np.maximum(*rows)
    worst = apart[np.argmax(apart / golden["allowed"])]  # of the image closest to its limit
    for one in result["agreement"]:
        assert one["passed"]
        assert one["max_abs"] == pytest.approx(worst, rel=1e-3)


def test_bench_shows_a_table_and_what_it_was_measured_on(poolzoo, exported, brief):
    lines = poolzoo("bench", exported, "--batch", "2", "--threads", "1", "-q").out.splitlines()
    assert lines[0].split("\t")[:3] == ["runtime", "batch", "threads"]
    assert lines[1].split("\t")[:3] == ["onnxruntime", "2", "1"]
    assert lines[2].startswith("preprocessing of one image")
    assert onnxruntime.__version__ in lines[3]


def test_bench_refuses_what_it_cannot_measure(poolzoo, exported, tmp_path, monkeypatch):
    misspelt = poolzoo("bench", exported, "--runtime", "onnxruntime,openvno")
    assert (misspelt.code, "did you mean openvino" in misspelt.err) == (2, True)
    for arguments in (("--batch", "0"), ("--batch", "one"), ("--batch", ""), ("--threads", "1,,2"), ("--threads", "")):
        assert poolzoo("bench", exported, *arguments).code == 2, arguments
    assert poolzoo("bench", tmp_path).code == 2
    monkeypatch.setitem(sys.modules, "openvino", None)
    missing = poolzoo("bench", exported, "--runtime", "openvino")
    assert (missing.code, missing.err.count("\n")) == (4, 2)
    assert "pip install 'poolzoo[openvino]'" in missing.err


def test_bench_refuses_a_bundle_that_was_altered(poolzoo, bundle_copy):
    raw = bytearray((bundle_copy / "model.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (bundle_copy / "model.onnx").write_bytes(raw)
    outcome = poolzoo("bench", bundle_copy, "--json")
    assert (outcome.code, outcome.out) == (1, "")
    assert "model.onnx was altered" in outcome.err


def shifted(golden: dict[str, np.ndarray]) -> None:
    golden["logits"][3, 2] += 0.01


def certain(golden: dict[str, np.ndarray]) -> None:
    golden["probabilities"][0] = np.eye(10)[0]


def undefined(golden: dict[str, np.ndarray]) -> None:
    golden["logits"][1] = np.nan


def other_classes(golden: dict[str, np.ndarray]) -> None:
    golden["logits"] = golden["logits"][:, :1]


def no_limits(golden: dict[str, np.ndarray]) -> None:
    golden["allowed"] = golden["allowed"][:2]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (shifted, "it differs by 1.00e-02 from"),
        (certain, "it differs by"),
        (undefined, "the outputs to compare with hold NaN or infinity"),
        (other_classes, "its outputs are [("),
        (no_limits, ""),
    ],
)
def test_a_graph_without_the_stored_outputs_is_not_measured(poolzoo, bundle_copy, brief, change, why):
    with np.load(bundle_copy / "golden.npz") as stored:
        golden = dict(stored)
    change(golden)
    np.savez(bundle_copy / "golden.npz", **golden)
    manifest.write_manifest(bundle_copy, "bundle")
    outcome = poolzoo("bench", bundle_copy, "--threads", "1", "--json", "-q")
    assert outcome.code == 1
    assert outcome.json["results"] == []
    assert not outcome.json["agreement"][0]["passed"]
    assert outcome.err.startswith(f"error: onnxruntime is not measured: {why}")


def test_bench_refuses_a_bundle_without_images(poolzoo, bundle_copy):
    with np.load(bundle_copy / "golden.npz") as stored:
        golden = dict(stored)
    for images in (golden["images"][:0], golden["images"] / 255):
        np.savez(bundle_copy / "golden.npz", **{**golden, "images": images})
        manifest.write_manifest(bundle_copy, "bundle")
        outcome = poolzoo("bench", bundle_copy)
        assert (outcome.code, outcome.out) == (1, "")
        assert "golden.npz holds" in outcome.err


@pytest.fixture
def wrong_openvino(tmp_path, monkeypatch):
    """A stand-in for OpenVINO that adds 0.01 to every output."""

    (tmp_path / "openvino.py").write_text(
        "import onnxruntime\n"
        "class Core:\n"
        "    def compile_model(self, file, device, settings):\n"
        "        session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])\n"
        "        names = ('logits', 'probabilities')\n"
        "        return lambda feed: {name: session.run([name], feed)[0] + 0.01 for name in names}\n"
    )
    (tmp_path / "openvino-0.dist-info").mkdir()
    (tmp_path / "openvino-0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 0\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.slow
def test_a_runtime_that_computes_something_else_is_not_measured(poolzoo, exported, brief, wrong_openvino):
    outcome = poolzoo("bench", exported, "--runtime", "openvino,onnxruntime", "--threads", "1", "--json", "-q")
    assert outcome.code == 1
    assert {row["runtime"] for row in outcome.json["results"]} == {"onnxruntime"}
    assert [(one["runtime"], one["passed"]) for one in outcome.json["agreement"]] == [
        ("openvino", False),
        ("onnxruntime", True),
    ]
    assert "openvino is not measured: golden-batch-1" in outcome.err


def test_openvino_runs_as_exactly_and_on_the_same_threads(poolzoo, exported, brief, monkeypatch):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'poolzoo[openvino]'")
    settings, real = [], openvino.Core.compile_model

    def recorded(self: object, *arguments: object) -> object:
        compiled = real(self, *arguments)
        names = ("INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT")
        settings.append(tuple(compiled.get_property(name) for name in names))
        return compiled

    monkeypatch.setattr(openvino.Core, "compile_model", recorded)
    for count in (1, 2):
        builtin_openvino.open_session(exported, threads=count, device="cpu", precision="fp32")
    arguments = ("--runtime", "onnxruntime,openvino", "--threads", "1,2", "--batch", "1,3,2", "--json")
    result = poolzoo("bench", exported, *arguments).json
    most = min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)  # OpenVINO takes no more
    assert settings == [(1, openvino.Type.f32), (most, openvino.Type.f32)]
    cells = [(row["threads"], row["batch"], row["runtime"]) for row in result["results"]]
    assert cells == [(t, n, name) for t in (1, 2) for n in (1, 3, 2) for name in ("onnxruntime", "openvino")]
    assert all(("speedup" in row) == (row["runtime"] == "openvino") for row in result["results"])
    assert all(one["passed"] for one in result["agreement"])
    assert result["environment"]["openvino"]
    alone = poolzoo("bench", exported, "--runtime", "openvino", "--threads", "1", "--batch", "2", "-q")
    assert alone.code == 0
    assert alone.out.splitlines()[1].startswith("openvino\t2\t1\t")


@pytest.mark.slow
def test_bench_needs_neither_torch_nor_openvino(exported):
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'sklearn', 'onnx', 'safetensors', 'openvino'):\n"
        "    sys.modules[name] = None\n"
        "from poolzoo.cli import run\n"
        "from poolzoo.runtime import speed\n"
        "speed.SECONDS = 0\n"
        f"assert run(['bench', {str(exported)!r}]) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_headline_uses_the_best_threads_of_each_side():
    def row(name, threads, median, speedup=None):
        times = dict.fromkeys(("median_ms", "min_ms", "p90_ms", "p99_ms"), median)
        spread = {"median": speedup, "p10": speedup, "p90": speedup} if speedup else None
        return Measurement(runtime=name, threads=threads, **times, rounds=9, speedup=spread)

    rows = [
        row("torch", 1, 3.0),
        row("onnxruntime", 1, 1.0, 3.1),
        row("torch", 2, 9.0),
        row("onnxruntime", 2, 0.5, 18.0),
    ]
    found = speed.summarize(rows)
    assert (found.torch_ms, found.torch_threads, found.ort_ms, found.threads) == (3.0, 1, 0.5, 2)
    assert found.speedup == 6.0
    assert speed.summarize(rows[:2]).speedup == 3.1  # of the same rounds, where the threads are the same
