"""Exports in several processes: all of them end, whatever happens to a process."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from poolzoo.artifacts import manifest
from poolzoo.artifacts.run import weights_bytes
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare import exporting, measures, measuring
from poolzoo.compare.exporting import Job
from poolzoo.parity.probes import ROWS

EARLIER = Path(__file__).parents[1] / "data/earlier/run"


def jobs(folder: Path, runs: list[Path]) -> list[Job]:
    return [Job(run, folder / f"{number}.onnx") for number, run in enumerate(runs)]


def test_a_process_that_dies_twice_costs_its_own_network_only(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    started, died = [], threading.Event()
    real = subprocess.Popen

    def count(*arguments, **options):
        started.append(arguments)
        if len(started) == 4:
            died.set()
        return real(*arguments, **options)

    def refuse(*_):
        assert died.wait(60)  # so that the other process gets two networks
        raise CheckFailed("no graph")

    monkeypatch.setattr(subprocess, "Popen", count)
    monkeypatch.setattr(measures.Exporter, "export", refuse)
    wanted = jobs(tmp_path, [tmp_path / name for name in "abcd"])
    found = list(exporting.export_all(wanted, threads=4, shared=True))
    assert {one.job for one in found} == set(wanted)
    assert {tuple(command[-2:]) for command, *_ in started} == {("2", "1")}
    reasons = [one.error for one in found]
    assert reasons.count("the process that exports it died twice") >= 2
    assert reasons.count("no graph") >= 1


@pytest.mark.parametrize(("names", "threads"), [("ab", 1), ("a", 3)], ids=["one core", "one network"])
def test_a_single_process_is_this_one_and_has_all_cores(tmp_path, monkeypatch, names, threads):
    monkeypatch.setattr(measures.Exporter, "export", lambda exporter, run, file: exporter.threads == threads)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    wanted = jobs(tmp_path, [tmp_path / name for name in names])
    found = list(exporting.export_all(wanted, threads=threads, shared=False))
    assert [one.parity for one in found] == [True] * len(names)


@pytest.mark.slow
def test_two_processes_export_as_one_does(poolzoo, tmp_path):
    runs = [tmp_path / pool for pool in ("avg", "max", "gem")]
    for run in runs:
        arguments = ("--data", "digits", "--backbone", "nano/plain", "--epochs", 1, "--limit", 300, "--pool", run.name)
        assert poolzoo("finetune", *arguments, "--no-check-export", "--out", run, "-q").code == 0
    wanted = jobs(tmp_path, [*runs, tmp_path / "missing"])
    found = {one.job: one for one in exporting.export_all(wanted, threads=4, shared=False)}
    assert [found[job].parity for job in wanted] == [True, True, True, False]
    assert "missing" in str(found[wanted[3]].error)
    for job in wanted[:3]:
        assert measures.latencies(job.run, job.file, exporting.PROVIDER, 1)[1] > 0


def test_runs_that_share_a_backbone_share_its_maps(tmp_path):
    exporter = measures.Exporter(exporting.PROVIDER, 1, shared=True)
    (first, maps), (second, again) = exporter._loaded(EARLIER), exporter._loaded(EARLIER)
    assert second.network.backbone is first.network.backbone
    assert again is maps
    other = tmp_path / "other"
    shutil.copytree(EARLIER, other)
    state = {name: 2 * value for name, value in first.network.state_dict().items()}
    (other / "model.safetensors").write_bytes(weights_bytes(state))
    manifest.write_manifest(other, "run")
    third, own = exporter._loaded(other)
    assert third.network.backbone is not first.network.backbone
    assert own.backbone is third.network.backbone


@pytest.mark.slow
def test_a_second_run_on_a_backbone_computes_no_map_again(tmp_path):
    exporter, batches = measures.Exporter(exporting.PROVIDER, 1, shared=True), []
    assert exporter.export(EARLIER, tmp_path / "first.onnx")
    run, _ = exporter._loaded(EARLIER)

    def record(module, inputs, output):
        if not torch.compiler.is_exporting():
            batches.append(len(inputs[0]))

    run.network.backbone.register_forward_hook(record)
    assert exporter.export(EARLIER, tmp_path / "second.onnx")
    assert (tmp_path / "second.onnx").read_bytes() == (tmp_path / "first.onnx").read_bytes()
    assert max(batches) <= ROWS  # probes of the network, and no reference


@pytest.mark.slow
def test_an_export_has_its_threads_and_returns_them(tmp_path, monkeypatch):
    before, counts = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    with pytest.raises(UsageError):
        measures.Exporter(exporting.PROVIDER, before + 1, shared=True).export(
            tmp_path / "none", tmp_path / "model.onnx"
        )
    assert counts == [before + 1, before]


def test_runs_with_backbones_of_their_own_keep_no_maps():
    exporter = measures.Exporter(exporting.PROVIDER, 1, shared=False)
    (first, maps), (second, _) = exporter._loaded(EARLIER), exporter._loaded(EARLIER)
    assert maps is None
    assert second.network.backbone is not first.network.backbone


@pytest.mark.parametrize(("freeze", "shared"), [("backbone", True), ("none", False)])
def test_heads_on_a_frozen_backbone_are_those_that_share_it(monkeypatch, freeze, shared):
    asked = []
    monkeypatch.setattr(exporting, "export_all", lambda jobs, threads, **options: asked.append(options) or [])
    settings = SimpleNamespace(threads=1, freeze=freeze)
    measuring._export([], {}, SimpleNamespace(settings=settings))
    assert asked == [{"shared": shared}]
