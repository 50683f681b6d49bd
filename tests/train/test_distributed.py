"""Several processes learn what one does. They get torchrun's variables; a slow test lets torchrun start them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import photographs, processes

from poolzoo.common import errors
from poolzoo.train.checkpoint import Checkpoint

NORMLESS = """
from poolzoo import Backbone, hookimpl

def build(*, pretrained: bool = False):
    from torch import nn
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()
    )

@hookimpl
def poolzoo_backbones():
    yield Backbone(name="normless", summary="without batch norm", build=build)
"""


def forked(folder: Path, count: int, *arguments: object) -> list[processes.Ended]:
    return [process.wait() for process in processes.start_group(folder, count, *arguments)]


def torchrun(folder: Path, count: int, *arguments: object) -> list[processes.Ended]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--master-port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*launch, "--standalone", "-m", "poolzoo", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    return [processes.Ended(ended.returncode, ended.stdout, ended.stderr)]


@pytest.mark.parametrize("start", [forked, pytest.param(torchrun, marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does(poolzoo, tmp_path, start):
    (tmp_path / "normless.py").write_text(NORMLESS)
    arguments = (
        *("finetune", "--plugin", tmp_path / "normless.py", "--data", "digits", "--backbone", "normless"),
        *("--pool", "gem", "--epochs", 2, "--limit", 400, "--optimizer", "sgd", "--lr", "0.05", "--threads", 1),
        *("--mixup", "0.2", "--cutmix", "0.5", "--cutout", "2", "--ema", "0.9", "--no-check-export"),
    )
    assert poolzoo(*arguments, "--out", tmp_path / "one", "-q").code == 0
    ended = start(tmp_path, 2, *arguments, "--out", tmp_path / "two")
    assert not any(one.code for one in ended), ended
    out, err = ("".join(streams) for streams in zip(*((one.out, one.err) for one in ended), strict=True))
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5, msg=name)
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for first, second in zip(*lines, strict=True):
        for key in ("loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert second[key] == pytest.approx(first[key], abs=1e-4), key
    reports = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")]
    assert reports[0]["test"]["confusion"] == reports[1]["test"]["confusion"]
    assert out.splitlines()[-1] == str(tmp_path / "two")
    assert out.count("truth") == 1  # the first process alone speaks
    assert err.count("epoch 2/2") == 1


@pytest.mark.slow
def test_two_processes_with_batch_norm_learn_as_well(tmp_path):
    arguments = ("--data", "digits", "--backbone", "nano/plain", "--pool", "gem", "--epochs", 2, "--no-check-export")
    group = processes.start_group(tmp_path, 2, "finetune", *arguments, "--out", tmp_path / "run")
    ended = [process.wait() for process in group]
    assert [one.code for one in ended] == [0, 0], ended
    report = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert report["test"]["accuracy"] > 0.85  # what tests of one process ask of the same run
    assert report["processes"] == 2


def tells_of_checkpoints(events: Connection) -> None:
    processes.announce(events, Checkpoint, "write")


def test_a_lost_process_ends_the_run_in_a_resumable_state(tmp_path):
    arguments = ("--data", "digits", "--backbone", "nano/plain", "--epochs", 400, "--no-check-export")
    words = ("finetune", *arguments, "--out", tmp_path / "run")
    first, second = processes.start_group(tmp_path, 2, *words, before=tells_of_checkpoints)
    first.next_event()
    second.signal(signal.SIGKILL)
    ended = first.wait()
    second.wait()
    assert ended.code == errors.ENVIRONMENT, ended
    assert "a process of the group ended" in ended.err
    assert not (tmp_path / "run" / "manifest.json").exists()
    saved = torch.load(tmp_path / "run/checkpoint/state.pt", weights_only=True)
    progress = saved["progress"]
    assert progress["epoch"] >= 1 or progress["step"] >= 1  # on a slow machine it is saved within the first one


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["reduced", "none"])
def test_streams_of_two_killed_processes_resume_as_one(poolzoo, tmp_path, monkeypatch, kept):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "normless.py").write_text(NORMLESS)
    photos = photographs.data_set(tmp_path / "photos", train=20, test=4)
    words = (
        *("finetune", "--plugin", tmp_path / "normless.py", "--data", f"folder:{photos}", "--image-size", 32),
        *("--backbone", "normless", "--epochs", 3, "--batch-size", 4, "--optimizer", "sgd", "--lr", 0.05),
        *("--augment", "standard", "--data-cache", kept, "--threads", 1, "--no-check-export"),
    )
    assert poolzoo(*words, "--out", tmp_path / "one", "-q").code == 0
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    first, second = processes.start_group(tmp_path, 2, *words, "--out", tmp_path / "two", before=tells_of_checkpoints)
    first.next_event()
    second.signal(signal.SIGKILL)
    assert first.wait().code == errors.ENVIRONMENT
    second.wait()
    assert not (tmp_path / "two" / "manifest.json").exists()
    (resumed,) = torchrun(tmp_path, 2, "finetune", "--resume", tmp_path / "two")
    assert resumed.code == 0, resumed.err
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5, msg=name)
    reports = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")]
    assert reports[0]["test"]["confusion"] == reports[1]["test"]["confusion"]
    assert reports[1]["processes"] == 2


def test_a_batch_that_cannot_be_divided_is_refused_once(tmp_path):
    arguments = ("--data", "digits", "--backbone", "nano/plain", "--epochs", 1, "--batch-size", 31, "--no-check-export")
    group = processes.start_group(tmp_path, 2, "finetune", *arguments, "--out", tmp_path / "run")
    err = "".join(process.wait().err for process in group)
    assert err.count("--batch-size 31 cannot be divided among 2 processes") == 1
    assert "terminate called" not in err  # no process is aborted by the group's threads
    assert not (tmp_path / "run").exists()
