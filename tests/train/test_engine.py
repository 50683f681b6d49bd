"""The engine: exact after any interruption, and every part of its step against a closed form."""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import processes
from support.interruptions import stopped_in
from torch import nn

import poolzoo as package
from poolzoo.common import files
from poolzoo.train import checkpoint, stages
from poolzoo.train.build import build_engine
from poolzoo.train.ema import ModelEma
from poolzoo.train.prepare import prepare
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import RENAMED
from poolzoo.train.training_module import TrainingModule

BASE = ("finetune", "--data", "digits", "--backbone", "nano/plain", "--threads", "1", "-q")
ALL_AT_ONCE = (
    *("--pool", "stochastic", "--ema", "0.9", "--clip-grad", "1", "--cutout", "2", "--mixup", "0.2", "--cutmix", "0.5"),
    *(
        "--freeze",
        "stages:2",
        "--unfreeze-every",
        "1",
        "--layer-decay",
        "0.8",
        "--head-lr-mult",
        "2",
        "--grad-accum",
        "2",
    ),
)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


# --- Exact and resumable -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        ALL_AT_ONCE,
        pytest.param((), marks=pytest.mark.slow),
        pytest.param(("--optimizer", "muon"), marks=pytest.mark.slow),
        pytest.param(("--optimizer", "lion", "--lr", "1e-3", "--ema", "0.99"), marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_again_and_again_ends_with_equal_bits(poolzoo, tmp_path, monkeypatch, extra):
    arguments = (*BASE, "--epochs", 3, "--limit", 160, *extra)
    assert poolzoo(*arguments, "--out", tmp_path / "whole").code == 0
    real, count = TrainingModule.step, [0]

    def counted(self, step, number):
        count[0] += 1
        real(self, step, number)
        if count[0] % 23 == 0:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(TrainingModule, "step", counted)
    try:
        outcome, stops = poolzoo(*arguments, "--out", tmp_path / "cut"), 0
        while outcome.code == 130:
            stops += 1
            outcome = poolzoo("finetune", "--resume", tmp_path / "cut", "-q")
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcome.code == 0, outcome.err
    assert stops >= 4
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    lines = [
        [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "images_per_s")} for line in text]
        for text in ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut"))
    ]
    assert lines[0] == lines[1]


def dies_in_a_step(events: Connection) -> None:
    save_after_every_step()
    processes.signal_at(signal.SIGKILL, TrainingModule, "step", 40)


def dies_in_a_write(events: Connection) -> None:
    """Between the new checkpoint's bytes and the moment at which it takes the old one's place."""
    save_after_every_step()
    processes.signal_at(signal.SIGKILL, os, "replace", 6)


def dies_in_a_validation(events: Connection) -> None:
    save_after_every_step()
    processes.signal_at(signal.SIGKILL, TrainingModule, "logits")


def save_after_every_step() -> None:
    checkpoint.INTERVAL = checkpoint.COST_FACTOR = 0


def test_a_process_that_is_killed_ends_with_the_same_bits(poolzoo, tmp_path):
    """In a step, in a validation and in the write of a checkpoint."""
    arguments = (*BASE, "--pool", "gem", "--epochs", 4, "--limit", 400)
    assert poolzoo(*arguments, "--out", tmp_path / "whole").code == 0
    cut = tmp_path / "cut"
    command = [*arguments, "--no-check-export", "--out", cut]
    for before in (dies_in_a_step, dies_in_a_write, dies_in_a_validation):
        assert processes.start(tmp_path, *command, before=before).wait().code == -signal.SIGKILL
        assert (cut / checkpoint.FILE).is_file()
        command = ["finetune", "--resume", cut, "-q"]
    assert poolzoo("finetune", "--resume", cut, "-q").code == 0
    assert weights(cut) == weights(tmp_path / "whole")


def test_a_checkpoint_is_due_by_time_and_by_cost(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    kept = checkpoint.Checkpoint(tmp_path, checkpoint.RunIdentity({}, ""))
    now[0] += checkpoint.INTERVAL - 0.1
    assert not kept.is_due
    now[0] += 0.2
    assert kept.is_due
    real = files.write_atomically
    monkeypatch.setattr(files, "write_atomically", lambda *a: (real(*a), now.__setitem__(0, now[0] + 4)))
    kept.write({})
    now[0] += 199
    assert not kept.is_due
    now[0] += 2
    assert kept.is_due


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    identity = checkpoint.RunIdentity({"seed": 1}, "x")
    kept = checkpoint.Checkpoint(tmp_path, identity)
    kept.write({"progress": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept.write({"progress": 2})
    assert kept.read(torch.device("cpu"))["progress"] == 1
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["state.pt"]


def interrupted(poolzoo, path: Path, *extra: object) -> None:
    with stopped_in(2):
        assert poolzoo(*BASE, "--epochs", 3, "--limit", 200, *extra, "--out", path).code == 130


def test_changed_arguments_are_refused(poolzoo, tmp_path):
    interrupted(poolzoo, tmp_path / "run")
    toml = tmp_path / "run" / "run.toml"
    toml.write_text(toml.read_text().replace("lr = 0.005", "lr = 0.004"))
    outcome = poolzoo("finetune", "--resume", tmp_path / "run")
    assert outcome.code == 2
    assert "lr 0.005 → 0.004" in outcome.err
    assert len(outcome.err.splitlines()) == 2 + sum("images of" in line for line in outcome.err.splitlines())


def test_a_run_with_the_former_names_of_settings_resumes(poolzoo, tmp_path):
    """`run.toml` and the checkpoint of an earlier version hold them."""
    interrupted(poolzoo, tmp_path / "run", "--clip-grad", "1", "--grad-accum", "2")
    toml, state = tmp_path / "run" / "run.toml", tmp_path / "run" / checkpoint.FILE
    saved = torch.load(state, weights_only=True)
    for former, name in RENAMED.items():
        toml.write_text(toml.read_text().replace(f"\n{name} = ", f"\n{former} = "))
        saved["settings"][former] = saved["settings"].pop(name)
    torch.save(saved, state)
    outcome = poolzoo("finetune", "--resume", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "resuming after epoch 1" in outcome.err


def test_changed_data_is_refused(poolzoo, tmp_path, photos):
    interrupted(poolzoo, tmp_path / "run", "--data", f"folder:{photos}")
    from PIL import Image

    Image.new("RGB", (16, 16), "green").save(photos / "train" / "blue" / "0.png")
    outcome = poolzoo("finetune", "--resume", tmp_path / "run", "-q")
    assert outcome.code == 1
    assert "the data changed: train, 1 file changed (blue/0.png)" in outcome.err


def test_a_damaged_checkpoint_is_one_line(poolzoo, tmp_path):
    interrupted(poolzoo, tmp_path / "run")
    state = tmp_path / "run" / "checkpoint" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    outcome = poolzoo("finetune", "--resume", tmp_path / "run", "-q")
    assert outcome.code == 1
    assert "damaged" in outcome.err
    state.unlink()
    assert poolzoo("finetune", "--resume", tmp_path / "run", "-q").code == 0


def test_a_nan_loss_names_its_step_and_keeps_good_state(poolzoo, tmp_path, monkeypatch):
    real = TrainingModule.step

    def poisoned(self, step, number):
        if number == 30:
            with torch.no_grad():
                self.module.classifier.weight.fill_(float("nan"))
        real(self, step, number)

    monkeypatch.setattr(TrainingModule, "step", poisoned)
    arguments = (*BASE, "--epochs", 3, "--limit", 300, "--batch-size", 10)  # 27 steps an epoch
    outcome = poolzoo(*arguments, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert "epoch 2, step 4" in outcome.err
    assert "state.pt" in outcome.err
    assert "--lr" in outcome.err
    saved = torch.load(tmp_path / "run/checkpoint/state.pt", weights_only=True)
    assert saved["progress"]["epoch"] == 1
    assert all(torch.isfinite(t).all() for t in saved["learners"]["avg"]["module"].values() if t.is_floating_point())


# --- The step ------------------------------------------------------------------------------------------------------


def settings(**rest) -> Settings:
    given = {"data": "digits", "backbone": "nano/plain", "epochs": 2, "limit": 300, "threads": 1, **rest}
    return Settings(**given)


def stepped(number: int = 3, **rest) -> TrainingModule:
    """A module after some steps on the same batches."""
    prepared = prepare(settings(**rest))
    engine = build_engine([prepared], checkpoint.Checkpoint(Path("nowhere"), checkpoint.RunIdentity({}, "")))
    (module,) = engine.modules.values()
    module.start_epoch(1)
    for index, batch in enumerate(engine.loader.epoch(1)):
        if index == number:
            break
        module.step(batch, index)
    return module


def test_parts_of_a_batch_add_up_to_the_whole(monkeypatch):
    """Without batch norm, whose statistics are each part's own."""
    monkeypatch.setattr("poolzoo.backbones.nano.nn.BatchNorm2d", lambda channels: nn.GroupNorm(4, channels))
    whole, parts = (stepped(grad_accum=count, optimizer="sgd", lr=0.1).module for count in (1, 3))
    for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=name)


def test_every_step_draws_anew():
    seeds = []
    for count in (1, 2, 3):
        stepped(count)
        seeds.append(torch.initial_seed())
    assert len(set(seeds)) == 3


def test_the_average_is_the_closed_form():
    module = nn.BatchNorm1d(3)
    average = ModelEma(module, 0.6)
    expected = {name: value.clone() for name, value in module.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 15):
        module(torch.randn(8, 3, generator=generator))
        with torch.no_grad():
            module.weight += torch.randn(3, generator=generator)
        average.update()
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value.clone()
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert not average.module.training


def test_the_average_is_what_counts(poolzoo, tmp_path):
    for name, extra in (("plain", ()), ("average", ("--ema", "0.99"))):
        poolzoo(*BASE, "--epochs", 1, "--limit", 300, *extra, "--out", tmp_path / name)
    assert weights(tmp_path / "plain") != weights(tmp_path / "average")
    saved = torch.load(tmp_path / "average/checkpoint/state.pt", weights_only=True)["learners"]["avg"]
    exported = load_file(tmp_path / "average/model.safetensors")
    for name, value in saved["average"]["module"].items():
        assert torch.equal(exported[name], value)


def test_a_gradient_is_clipped(monkeypatch):
    norms = []
    real = nn.utils.clip_grad_norm_

    def noted(parameters, *rest, **more):
        kept = list(parameters)
        real(kept, *rest, **more)
        norms.append(float(torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in kept]))))

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", noted)
    stepped(clip_grad=1e-3)
    assert norms == pytest.approx([1e-3] * 3, rel=1e-2)


def test_no_step_waits_for_the_device():
    """Every way in which a tensor's value reaches Python is forbidden for the length of a step."""
    module = stepped(2, ema=0.9, clip_grad=1.0, mixup=0.2, cutmix=0.2, grad_accum=2)
    prepared = prepare(settings(mixup=0.2, cutmix=0.2))
    engine = build_engine([prepared], checkpoint.Checkpoint(Path("nowhere"), checkpoint.RunIdentity({}, "")))
    batch = next(engine.loader.epoch(1))

    class Guard(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            waits = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")
            assert not any(word in str(function) for word in waits), function
            return function(*args, **(kwargs or {}))

    with Guard():
        module.step(batch, 2)
        with pytest.raises(AssertionError):
            module.training_means()


def test_stages_freeze_from_the_input_and_thaw_from_the_output(monkeypatch):
    real, seen = TrainingModule.start_epoch, {}

    def noted(self, epoch):
        real(self, epoch)
        free = {n.split(".")[0] for n, p in self.module.backbone.named_parameters() if p.requires_grad}
        training = {n for n, m in self.module.backbone.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training}
        seen[epoch] = (free, {n.split(".")[0] for n in training})

    monkeypatch.setattr(TrainingModule, "start_epoch", noted)
    module = stepped(freeze="stages:2", unfreeze_every=1)
    for epoch in (2, 3, 4):
        module.start_epoch(epoch)
    freed = [{"conv3"}, {"conv2", "conv3"}, {"conv1", "conv2", "conv3"}, {"conv1", "conv2", "conv3"}]
    assert [seen[epoch] for epoch in (1, 2, 3, 4)] == [(names, names) for names in freed]


def test_a_frozen_stage_does_not_change(poolzoo, tmp_path):
    network = package.create_model("nano/plain", num_classes=10, image_size=16)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "w.safetensors")
    arguments = (*BASE, "--weights", tmp_path / "w.safetensors", "--epochs", 1, "--limit", 200)
    assert poolzoo(*arguments, "--freeze", "stages:2", "--out", tmp_path / "run").code == 0
    before, after = load_file(tmp_path / "w.safetensors"), load_file(tmp_path / "run/model.safetensors")
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert "conv3" in changed
    assert not changed & {"conv1", "conv2"}


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("timm/resnet18", "conv1", "layer4"),
        ("timm/test_vit", "cls_token", "blocks"),
        ("timm/mobilenetv3_small_050", "conv_stem", "conv_head"),
        ("torchvision/densenet121", "body.features.conv0", "body.features.norm5"),
        ("nano/resnet", "conv1", "block"),
    ],
)
def test_every_parameter_is_in_one_stage_in_forward_order(name, first, last):
    backbone = package.create_model(name, image_size=64).backbone
    found = stages.backbone_stages(backbone)
    assert (found[0].name, found[-1].name) == (first, last)
    assert sorted(id(p) for stage in found for p in stage.parameters) == sorted(id(p) for p in backbone.parameters())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--freeze", "stages:9"), "stages"),
        (("--freeze", "layers"), "stages:N"),
        (("--optimizer", "adamv", "--lr", "1"), "adam"),
        (("--optimizer", "lion"), "--lr"),
        (("--flip", "sometimes"), "alternating"),
        (("--views", "2"), "--freeze backbone"),
        (("--freeze", "backbone", "--mixup", "1"), "--no-feature-cache"),
        (("--unfreeze-every", "2"), "stages"),
        (("--recipe", "fat"), "fast"),
        (("--shift", "8"), "8"),
        (("--cutout", "100"), "100"),
        (("--ema", "1"), "--ema"),
        (("--layer-decay", "0"), "--layer-decay"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(poolzoo, tmp_path, arguments, says):
    outcome = poolzoo(*BASE, "--epochs", 1, "--limit", 100, *arguments, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert says in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run").exists()
