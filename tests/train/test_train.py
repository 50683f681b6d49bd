"""Fine-tuning: schedules and groups in closed form, learning, equal seeds, resuming, freezing, weights."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import tomllib
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import processes
from support.interruptions import stopped_in

import poolzoo as package
from poolzoo.artifacts import manifest
from poolzoo.data.source import limited
from poolzoo.metrics import classification
from poolzoo.train import optimizer, recipes
from poolzoo.train.defaults import default_batch_size, default_epochs
from poolzoo.train.settings import Settings
from poolzoo.train.step_plan import StepPlan
from poolzoo.train.training_module import TrainingModule
from poolzoo.train.validation import split_validation

QUICK = ("finetune", "--data", "digits", "--backbone", "nano/plain", "--pool", "gem", "--threads", "1", "-q")


def test_the_rate_rises_linearly_and_falls_to_zero():
    linear = [optimizer.lr_multiplier(step, 100, 10, "linear") for step in range(101)]
    assert linear[0] == 0.1
    assert linear[9] == linear[10] == 1.0
    assert linear[55] == pytest.approx(0.5)
    assert linear[100] == 0.0
    cosine = [optimizer.lr_multiplier(step, 100, 10, "cosine") for step in range(101)]
    assert cosine[55] == pytest.approx(0.5)
    assert cosine[10 + 30] == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
    assert cosine[100] == pytest.approx(0.0, abs=1e-12)


def test_norms_biases_and_scalars_do_not_decay():
    network = package.create_model("nano/resnet", pool="gem", image_size=32)
    groups = optimizer.parameter_groups(network, optimizer.LearningRates(1.0, 0.1))
    names = {id(p): name for name, p in network.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay.keys() == set(names.values())
    spared = {name for name, value in decay.items() if value == 0}
    assert {"pool.p", "classifier.bias", "backbone.conv1.norm.weight"} <= spared
    for name, parameter in network.named_parameters():
        assert decay[name] == (0.1 if parameter.ndim > 1 else 0.0)


def test_heads_and_stages_learn_at_their_own_rates():
    network = package.create_model("nano/resnet", pool="gem", image_size=32)
    rates = optimizer.LearningRates(1.0, 0.1, head_mult=10.0, layer_decay=0.5)
    built = optimizer.create_optimizer("adamw", network, rates)
    optimizer.LrSchedule(2.0, StepPlan.of(100), 0.1, "linear").apply(built, 55)
    names = {id(p): name for name, p in network.named_parameters()}
    found = {names[id(p)]: group["lr"] for group in built.param_groups for p in group["params"]}
    # The stages are conv1, conv2, conv3 and block; the rate of step 55 is half of the peak, 2.
    expected = {"backbone.conv1": 1 / 8, "backbone.conv2": 1 / 4, "backbone.conv3": 1 / 2, "backbone.block": 1.0}
    for name, rate in found.items():
        stage = ".".join(name.split(".")[:2])
        assert rate == pytest.approx(expected.get(stage, 10.0)), name


def test_defaults_follow_from_the_number_of_images():
    assert default_batch_size(45_000) == 256
    assert default_batch_size(1_294) == 32
    assert default_batch_size(10) == 2
    for images in (100, 1_000, 10_000, 45_000):
        assert images // default_batch_size(images) >= 40
    assert default_epochs(45_000) == 9
    assert default_epochs(1_294) == 60
    assert default_epochs(10**6) == 9


def test_the_validation_part_is_stratified_seeded_and_apart():
    labels = np.repeat(np.arange(5), [100, 100, 50, 20, 10])
    train, held = split_validation(labels, 0)
    assert sorted([*train, *held]) == list(range(len(labels)))
    np.testing.assert_array_equal(np.bincount(labels[held]), [10, 10, 5, 2, 1])
    assert (split_validation(labels, 0)[1] == held).all()
    assert not (split_validation(labels, 1)[1] == held).all()


def test_a_limit_keeps_the_classes_in_proportion():
    labels = np.repeat(np.arange(3), [300, 200, 100])
    found = np.bincount(limited(np.arange(600), labels, 60, 0)[1])
    np.testing.assert_array_equal(found, [30, 20, 10])
    assert len(limited(np.arange(600), labels, 7, 0)[0]) == 7


def test_metrics_by_hand():
    logits = np.eye(3)[[0, 0, 1, 1, 2, 0]]
    labels = np.array([0, 0, 1, 0, 2, 2])
    found = classification.compute(logits, labels, ("a", "b", "c"))
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.confusion == ((2, 1, 0), (0, 1, 0), (1, 0, 1))
    assert found.precision == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found.recall == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert found.f1 == pytest.approx((2 / 3 + 2 / 3 + 2 / 3) / 3)


def test_a_run_is_complete_learns_and_says_what_it_did(trained):
    names = {path.name for path in trained.iterdir()}
    expected = {
        "config.json",
        "model.safetensors",
        "run.toml",
        "data.npz",
        "env.json",
        "metrics.jsonl",
        "README.md",
        "manifest.json",
        "curves.png",
    }
    arrays = {"samples.npz", "predictions.npz", "validation.npz", "test.npz"}
    assert expected | arrays | {"metrics.json", "checkpoint"} == names
    assert manifest.differences(trained) == []
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] < lines[0]["loss"]
    final = json.loads((trained / "metrics.json").read_text())
    assert final["test"]["accuracy"] > 0.85
    best = max(lines, key=lambda line: line["val_accuracy"])
    assert final["val"]["accuracy"] == pytest.approx(best["val_accuracy"])
    config = json.loads((trained / "config.json").read_text())
    assert config["poolzoo"]["pool"] == "gem"
    assert config["pretrained_cfg"]["input_size"] == [3, 16, 16]
    assert config["poolzoo"]["map"] == [64, 4, 4]
    assert "Accuracy" in (trained / "README.md").read_text()


def test_the_json_ends_with_the_agreed_object(poolzoo, tmp_path):
    outcome = poolzoo(*QUICK, "--epochs", 1, "--limit", 200, "--json", "--out", tmp_path / "run")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [line.get("epoch") for line in lines] == [1, None]
    final = lines[-1]
    assert final.keys() == {"run", "test", "val", "seconds", "images_per_s", "ending"}
    assert final["run"] == str(tmp_path / "run")
    assert final["test"].keys() == {"accuracy", "precision", "recall", "f1", "n"}
    assert final["test"]["n"] == 200


def test_the_last_line_is_the_run_in_a_new_directory(poolzoo, tmp_path):
    outcome = poolzoo(*QUICK, "--epochs", 1, "--limit", 100, "--out", tmp_path / "run")
    assert outcome.out.splitlines()[-1] == str(tmp_path / "run")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    again = poolzoo(*QUICK, "--epochs", 1, "--out", tmp_path / "run")
    assert again.code == 2
    assert "exists" in again.err
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_an_unwritable_place_is_the_environments_fault(poolzoo):
    outcome = poolzoo(*QUICK, "--epochs", 1, "--out", "/proc/nowhere/run")
    assert outcome.code == 4
    assert len(outcome.err.splitlines()) == 2


def test_equal_seeds_give_equal_files_and_others_do_not(poolzoo, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        poolzoo(*QUICK, "--epochs", 1, "--limit", 300, "--seed", seed, "--out", tmp_path / name)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_run_toml_does_it_again(poolzoo, tmp_path):
    poolzoo(*QUICK, "--epochs", 1, "--limit", 300, "--out", tmp_path / "a")
    settings = tomllib.loads((tmp_path / "a" / "run.toml").read_text())
    assert settings["pool"] == "gem"
    poolzoo("finetune", "--config", tmp_path / "a" / "run.toml", "--out", tmp_path / "b", "-q")
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    poolzoo("finetune", "--config", tmp_path / "a" / "run.toml", "--pool", "max", "--out", tmp_path / "c", "-q")
    assert json.loads((tmp_path / "c/config.json").read_text())["poolzoo"]["pool"] == "max"


@pytest.mark.parametrize(
    ("text", "code", "says"), [("pol = 'gem'", 2, "pool"), ("epochs = 'two'", 2, "epochs"), ("epochs = ", 1, "TOML")]
)
def test_a_bad_config_is_one_line(poolzoo, tmp_path, text, code, says):
    (tmp_path / "c.toml").write_text(text)
    outcome = poolzoo("finetune", "--config", tmp_path / "c.toml", "--out", tmp_path / "run")
    assert outcome.code == code
    assert len(outcome.err.splitlines()) == 2
    assert says in outcome.err


def test_an_interrupted_run_goes_on_to_the_same_weights(poolzoo, tmp_path):
    """Stopped after the second of four epochs, then resumed: bit for bit the weights of a run that nobody stopped."""
    arguments = (*QUICK, "--epochs", 4, "--limit", 400)
    poolzoo(*arguments, "--out", tmp_path / "whole")
    with stopped_in(3):
        outcome = poolzoo(*arguments, "--out", tmp_path / "cut")
    assert outcome.code == 130
    assert f"--resume {tmp_path / 'cut'}" in outcome.err
    assert not (tmp_path / "cut" / "manifest.json").exists()
    refused = poolzoo("export", tmp_path / "cut")
    assert refused.code == 1
    assert "--resume" in refused.err
    assert poolzoo("finetune", "--resume", tmp_path / "cut", "-q").code == 0
    for name in ("model.safetensors", "config.json", "run.toml"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    finished = poolzoo("finetune", "--resume", tmp_path / "cut")
    assert finished.code == 2
    assert "finished" in finished.err
    for more in (("--lr", "1"), ("--dry-run",)):
        assert poolzoo("finetune", "--resume", tmp_path / "cut", *more).code == 2


NOISY = """
from poolzoo import Pooling, hookimpl

def build(channels: int):
    from torch import nn
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5))

@hookimpl
def poolzoo_poolings():
    yield Pooling(name="noisy", summary="mean with dropout", kind="global", build=build)
"""


def test_what_is_random_in_the_network_is_resumed_too(poolzoo, tmp_path):
    (tmp_path / "noisy.py").write_text(NOISY)
    base = ("finetune", "--data", "digits", "--backbone", "nano/plain", "--threads", "1", "-q")
    arguments = (*base, "--plugin", tmp_path / "noisy.py", "--pool", "noisy", "--epochs", 3, "--limit", 200)
    poolzoo(*arguments, "--out", tmp_path / "whole")
    with stopped_in(2):
        poolzoo(*arguments, "--out", tmp_path / "cut")
    torch.rand(7)  # the generator is somewhere else by now
    assert poolzoo("finetune", "--resume", tmp_path / "cut", "-q").code == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_a_run_killed_before_its_first_checkpoint_resumes(poolzoo, tmp_path):
    with stopped_in(1):
        assert poolzoo(*QUICK, "--epochs", 1, "--limit", 100, "--out", tmp_path / "run").code == 130
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["data.npz", "run.toml"]
    assert poolzoo("finetune", "--resume", tmp_path / "run", "-q").code == 0


def tells_of_epochs(events: Connection) -> None:
    processes.announce(events, TrainingModule, "update_best")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_real_process_with_its_code(tmp_path, number, code):
    words = (*QUICK[:-1], "--epochs", 500, "--no-check-export", "--out", tmp_path / "run")
    process = processes.start(tmp_path, *words, before=tells_of_epochs)
    process.next_event()
    process.signal(number)
    ended = process.wait()
    assert ended.code == code
    assert ended.err.splitlines()[-1].startswith("hint: poolzoo finetune --resume")
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_frozen_backbone_does_not_change(poolzoo, tmp_path):
    start = tmp_path / "start.safetensors"
    network = package.create_model("nano/plain", pool="gem", num_classes=10, image_size=16)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, start)
    arguments = (*QUICK, "--weights", start, "--epochs", 2, "--limit", 300)
    poolzoo(*arguments, "--freeze", "backbone", "--out", tmp_path / "frozen")
    poolzoo(*arguments, "--out", tmp_path / "free")
    before, frozen, free = (
        load_file(path) for path in (start, tmp_path / "frozen/model.safetensors", tmp_path / "free/model.safetensors")
    )
    for key, value in before.items():
        part = key.split(".")[0]
        assert torch.equal(value, frozen[key]) == (part == "backbone"), key
    assert any(not torch.equal(before[key], free[key]) for key in before if key.startswith("backbone"))


def test_a_resumed_run_needs_the_same_plugin_and_no_options(poolzoo, tmp_path):
    plugin = shutil.copy(Path(__file__).parents[2] / "plugins" / "single_file" / "power_mean.py", tmp_path)
    weights = tmp_path / "w.safetensors"
    network = package.create_model("nano/plain", num_classes=10, image_size=16)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, weights)
    with stopped_in(2):
        arguments = ("--plugin", plugin, "--pool", "power-mean", "--weights", weights, "--epochs", 3, "--limit", 200)
        poolzoo("finetune", "--data", "digits", "--backbone", "nano/plain", *arguments, "--out", tmp_path / "run", "-q")
    weights.unlink()
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    outcome = poolzoo("finetune", "--resume", tmp_path / "run", "-q")
    assert outcome.code == 0, outcome.err
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    Path(plugin).write_text(Path(plugin).read_text() + "\n# otherwise\n")
    outcome = poolzoo("finetune", "--resume", tmp_path / "other", "-q")
    assert outcome.code == 1
    assert "changed since the run began" in outcome.err
    Path(plugin).write_text(Path(plugin).read_text().replace("power-mean", "power-average"))
    for change, text in (
        (lambda: None, "no global pooling is called 'power-mean'"),
        (lambda: Path(plugin).unlink(), "power_mean.py' does not exist"),
    ):
        change()
        outcome = poolzoo("finetune", "--resume", tmp_path / "other", "-q")
        assert outcome.code == 2
        error, hint = outcome.err.splitlines()[-2:]
        assert text in error
        assert "run.toml names it: restore the plugin" in hint


def test_a_nan_loss_stops_the_run_with_a_hint(poolzoo, tmp_path):
    outcome = poolzoo(*QUICK, "--optimizer", "sgd", "--lr", "9000", "--epochs", 3, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert "loss" in outcome.err
    assert "--lr" in outcome.err
    assert not (tmp_path / "run").exists()  # it had nothing that could be resumed


def test_dry_run_shows_the_network_and_writes_nothing(poolzoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = (
        "finetune",
        "--data",
        "digits",
        "--backbone",
        "timm/resnet18",
        "--pool",
        "catavgmax",
        "--local-pool",
        "blur",
    )
    facts = poolzoo(*arguments, "--dry-run", "--json").json
    assert facts["input"] == [128, 128]
    assert facts["map"] == [512, 4, 4]
    assert facts["pooled"] == 1024
    assert facts["local_pool"]["replaced"] == ["maxpool"]
    import timm

    reference = sum(p.numel() for p in timm.create_model("resnet18", num_classes=0).parameters())
    assert facts["parameters"] == reference + 1024 * 10 + 10
    assert facts["macs"] == pytest.approx(1.82e9 * (128 / 224) ** 2, rel=0.05)  # 1.82 GMAC: timm's table, at 224 pixels
    assert "catavgmax" in poolzoo(*arguments, "--dry-run").out
    assert list(tmp_path.iterdir()) == []


# --- Weights -------------------------------------------------------------------------------------------------------


def test_timms_weights_load_without_their_classifier(poolzoo, tmp_path):
    import timm

    theirs = timm.create_model("test_convnext", num_classes=1000).state_dict()
    save_file(theirs, tmp_path / "w.safetensors")
    data = ("--data", "digits", "--limit", 40, "--image-size", 64)
    model = ("--backbone", "test_convnext", "--weights", tmp_path / "w.safetensors", "--freeze", "backbone")
    outcome = poolzoo("finetune", *data, *model, "--epochs", 1, "--out", tmp_path / "run")
    assert outcome.code == 0
    assert "classifier" in outcome.err
    ours = load_file(tmp_path / "run" / "model.safetensors")
    for key, value in theirs.items():
        if not key.startswith("head.fc"):
            place = f"backbone.{key}".replace("backbone.head.norm.", "norm.layer.")  # it follows the pooling
            assert torch.equal(ours[place], value), key
    mean = json.loads((tmp_path / "run/config.json").read_text())["pretrained_cfg"]["mean"]
    assert mean == pytest.approx([0.5, 0.5, 0.5])  # the weights' own normalization, not the data's


def test_torchvisions_own_weights_are_taken(tmp_path):
    import torchvision

    from poolzoo.model.assemble import assemble
    from poolzoo.model.config import ModelConfig
    from poolzoo.model.weights import load_weights

    theirs = torchvision.models.squeezenet1_1().state_dict()
    torch.save(theirs, tmp_path / "w.pth")
    assembly = assemble(ModelConfig("torchvision/squeezenet1_1", "avg", 10, (64, 64), (64, 64)))
    load_weights(assembly.network, tmp_path / "w.pth", assembly.backbone.resolved.item.classifier)
    own = assembly.network.backbone.state_dict()
    assert torch.equal(own["body.features.0.weight"], theirs["features.0.weight"])


def test_a_vits_positions_are_resampled_to_the_image_size(tmp_path):
    import timm

    from poolzoo.model.assemble import assemble
    from poolzoo.model.config import ModelConfig
    from poolzoo.model.weights import load_weights

    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    assembly = assemble(ModelConfig("timm/test_vit", "avg", 10, (64, 64), (64, 64)))
    load_weights(assembly.network, tmp_path / "w.safetensors", assembly.backbone.resolved.item.classifier)


def test_our_own_weights_start_another_number_of_classes(poolzoo, trained, photos, tmp_path):
    model = ("--backbone", "nano/plain", "--pool", "gem", "--weights", trained / "model.safetensors")
    outcome = poolzoo("finetune", "--data", f"folder:{photos}", *model, "--epochs", 1, "--out", tmp_path / "run")
    assert outcome.code == 0
    assert "classifier in the file" in outcome.err


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("other", 2, "another network"),
        ("damaged", 1, "damaged"),
        ("code", 1, "more than tensors"),
        ("list", 1, "state dict"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(poolzoo, tmp_path, content, code, says):
    path = tmp_path / ("w.safetensors" if content in ("other", "damaged") else "w.pth")
    if content == "other":
        import timm

        save_file(timm.create_model("test_resnet").state_dict(), path)
    elif content == "damaged":
        path.write_bytes(b"not weights at all")
    else:
        torch.save({"code": os.system} if content == "code" else [torch.zeros(1)], path)
    outcome = poolzoo(*QUICK, "--weights", path, "--epochs", 1, "--out", tmp_path / "run")
    assert outcome.code == code
    assert len(outcome.err.splitlines()) == 2
    assert says in outcome.err
    assert not (tmp_path / "run").exists()


def test_pretrained_without_a_network_is_quick_and_one_line(poolzoo, tmp_path, monkeypatch):
    from poolzoo.backbones import connectivity

    monkeypatch.setattr(connectivity, "reachable", lambda url: False)
    for backbone in ("timm/resnet18", "torchvision/resnet18"):
        outcome = poolzoo(
            "finetune", "--data", "digits", "--backbone", backbone, "--pretrained", "--out", tmp_path / "run"
        )
        assert outcome.code == 4
        assert len(outcome.err.splitlines()) == 2
        assert "--weights" in outcome.err


def test_settings_refuse_what_cannot_be():
    from poolzoo.common.errors import UsageError

    for wrong in (
        {"seed": -1},
        {"weight_decay": -1.0},
        {"threads": 10**6},
        {"lr": -1.0},
        {"label_smoothing": 1.0},
        {"warmup": 2.0},
        {"limit": 0},
        {"pretrained": True, "weights": "x"},
    ):
        with pytest.raises(UsageError):
            Settings(**wrong)


# --- Recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", recipes.RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_is_the_same_in_show_and_in_runs(poolzoo, recipe):
    (shown,) = poolzoo("show", recipe.name, "--json").json["items"]
    assert shown["settings"] == recipe.settings
    Settings(**recipe.settings)
    base = ("finetune", "--data", "digits", "--backbone", "nano/plain", "--limit", 200, "--recipe", recipe.name)
    facts = poolzoo(*base, "--dry-run", "--json").json
    assert facts["epochs"] == recipe.settings.get("epochs", 60)
    assert facts["optimizer"]["name"] == recipe.settings.get("optimizer", "adamw")
    assert facts["augmentation"]["flip"] == "off"  # digits are never mirrored
    overruled = poolzoo(*base, "--epochs", 3, "--optimizer", "sgd", "--dry-run", "--json").json
    assert (overruled["epochs"], overruled["optimizer"]["name"]) == (3, "sgd")


# --- The weights that come with the package ------------------------------------------------------------------------


def test_the_packages_weights_are_small_and_have_a_card():
    from poolzoo.backbones import nano

    files = sorted(nano.WEIGHTS.glob("*.safetensors"))
    assert [path.stem for path in files] == ["nano-plain", "nano-resnet"]
    assert sum(path.stat().st_size for path in files) < 1_500_000
    assert all(value.dtype in (torch.float16, torch.int64) for path in files for value in load_file(path).values())
    card = (nano.WEIGHTS / "README.md").read_text()
    for words in ("`nano/plain`", "`nano/resnet`", "poolzoo finetune", "JPEG copy", "accuracy"):
        assert words in card


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nano/plain", "nano/resnet"])
def test_the_packages_weights_have_learnt_something(poolzoo, tmp_path, name):
    """Frozen, they tell digits better apart than random filters, which they never saw."""
    found = []
    for start in ((), ("--pretrained",)):
        arguments = ("--data", "digits", "--backbone", name, "--freeze", "backbone", "--epochs", 20, "--threads", 1)
        outcome = poolzoo("finetune", *arguments, *start, "--json", "--out", tmp_path / f"run{len(start)}", "-q")
        found.append(outcome.json["test"]["accuracy"])
    assert found[1] > found[0] + 0.05, found


def test_weights_that_have_seen_the_validation_images_say_so(poolzoo, photos, tmp_path):
    from PIL import Image

    from poolzoo.datasets.class_names import CIFAR10

    for split in ("train", "test"):
        for index, name in enumerate(CIFAR10):
            folder = tmp_path / "cifar" / split / name
            folder.mkdir(parents=True)
            for copy in range(3):
                Image.new("RGB", (32, 32), (20 * index, 80 * copy, 99)).save(folder / f"{copy}.png")
    arguments = ("finetune", "--backbone", "nano/plain", "--pretrained", "--dry-run")
    assert "has seen the validation images" in poolzoo(*arguments, "--data", f"folder:{tmp_path / 'cifar'}").err
    assert "seen" not in poolzoo(*arguments, "--data", f"folder:{photos}").err


def test_the_packages_weights_keep_another_local_pooling(poolzoo):
    network = package.create_model("nano/resnet", local_pool="gem", pretrained=True, image_size=32)
    assert torch.isfinite(network(torch.randn(2, 3, 32, 32))).all()
    outcome = poolzoo("finetune", "--data", "digits", "--pretrained", "--local-pool", "depth", "--dry-run")
    assert outcome.code == 2
    assert "widths" in outcome.err


def test_a_run_keeps_what_it_predicted_for_every_test_image(trained):
    with np.load(trained / "predictions.npz") as kept:
        predicted, labels = kept["predicted"], kept["labels"]
    reported = json.loads((trained / "metrics.json").read_text())["test"]
    assert (predicted == labels).mean() == pytest.approx(reported["accuracy"])
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, predicted), 1)
    assert confusion.tolist() == reported["confusion"]
