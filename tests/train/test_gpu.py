"""What needs a CUDA device: `make gpu`. Everything else about devices is tested with fake tensors."""

from __future__ import annotations

import json

import pytest
import torch

pytestmark = pytest.mark.gpu


def test_a_network_learns_on_the_gpu_and_its_bundle_agrees(poolzoo, tmp_path):
    arguments = ("--data", "digits", "--backbone", "nano/resnet", "--pool", "gem", "--epochs", 10, "--device", "cuda")
    report = poolzoo("finetune", *arguments, "--json", "--out", tmp_path / "run").json
    assert report["test"]["accuracy"] > 0.95
    assert json.loads((tmp_path / "run" / "env.json").read_text())["device"].startswith("cuda")
    for provider in ("cpu", "cuda"):
        outcome = poolzoo("export", tmp_path / "run", "--json", "--provider", provider, "--out", tmp_path / provider)
        assert outcome.code == 0
        assert outcome.json["parity"]["passed"]
    assert poolzoo("verify", tmp_path / "cpu", "--provider", "cuda").code == 0


def test_evaluation_on_the_gpu_is_that_of_the_cpu(poolzoo, trained):
    found = [poolzoo("evaluate", trained, "--device", device, "--json").json for device in ("cpu", "cuda")]
    assert found[0]["accuracy"] == pytest.approx(found[1]["accuracy"], abs=0.01)


@pytest.mark.parametrize(
    "extra", [(), ("--mixup", "0.2", "--cutmix", "0.2", "--cutout", "2", "--ema", "0.9", "--clip-grad", "1")]
)
def test_no_step_waits_for_the_gpu(poolzoo, tmp_path, monkeypatch, extra):
    from poolzoo.train.training_module import TrainingModule

    real = TrainingModule.step

    def guarded(self, step, number):
        torch.cuda.set_sync_debug_mode("error" if number > 3 else "default")  # the first steps choose their kernels
        try:
            real(self, step, number)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(TrainingModule, "step", guarded)
    arguments = ("--data", "digits", "--backbone", "nano/resnet", "--epochs", 1, "--device", "cuda", "--compile", "off")
    assert poolzoo("finetune", *arguments, *extra, "--out", tmp_path / "run").code == 0


def test_a_deterministic_run_gives_the_same_bits_twice(poolzoo, tmp_path):
    arguments = ("--data", "digits", "--backbone", "nano/resnet", "--epochs", 1, "--device", "cuda", "--compile", "off")
    for name in "ab":
        assert poolzoo("finetune", *arguments, "--deterministic", "--out", tmp_path / name).code == 0
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b
