"""Nothing that is not finite is kept: a plugin that turns bad late stops the run, and what was good before stays."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import linear_bundle
from torch import nn

from poolzoo.artifacts import manifest
from poolzoo.common import json_writer
from poolzoo.common.errors import CheckFailed
from poolzoo.metrics import classification
from poolzoo.train import finite
from poolzoo.train.device import DevicePolicy
from poolzoo.train.teacher import load_teacher

EARLIER = Path(__file__).parents[1] / "data/earlier"
CPU = DevicePolicy(torch.device("cpu"), None, torch.contiguous_format)

# A pooling that goes bad at its AT-th training step, in the way that HOW says, and two classes that are told apart.
LATE = """
import os, signal
from support import linear_bundle
import numpy as np
from poolzoo import Dataset, Pooling, hookimpl

def build(channels):
    import torch
    from torch import nn

    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0
            self.register_buffer("seen", torch.zeros(()))
            self.register_buffer("mask", torch.tensor(-torch.inf))

        def forward(self, x):
            m, how, at = x.mean((2, 3)), os.environ["HOW"], int(os.environ["AT"])
            self.calls += self.training
            if self.training and self.calls == at:
                if how == "gradient":
                    return m + (m.relu() * 0).sqrt()
                if how == "infinite loss":
                    return m * torch.inf
                if how == "buffer":
                    self.seen = self.seen * torch.nan
                if how == "optimizer":  # a gradient of 1e25 is finite, its square is not
                    return m + 1e25 * (m - m.detach())
                if how == "interrupted":
                    signal.raise_signal(signal.SIGINT)
                    return m + (m.relu() * 0).sqrt()
            if not self.training and self.calls >= at:
                if how == "eval":
                    return m * torch.nan
                if how == "buffer in eval":
                    self.seen.fill_(torch.nan)
                if how == "a part in eval":
                    return torch.cat((m[:1] * torch.nan, m[1:]))
            return m

    return Late()

def load(split, cache_dir):
    labels = np.arange(44 if split == "train" else 10) % 2
    noise = np.random.default_rng(0).integers(0, 40, (len(labels), 16, 16, 3))
    return (noise + 150 * labels[:, None, None, None]).astype(np.uint8), labels

@hookimpl
def poolzoo_poolings():
    yield Pooling(name="late", summary="goes bad late", kind="global", build=build)

@hookimpl
def poolzoo_datasets():
    yield Dataset(name="two", summary="dark and light", load=load, classes=("dark", "light"))
"""
STEPS = 10  # an epoch: 40 images that are learnt from in batches of 4


@pytest.fixture
def late(poolzoo, tmp_path, monkeypatch):
    """Runs `finetune` with a fault at a step, counted over all epochs; more arguments than the usual may follow."""
    (tmp_path / "late.py").write_text(LATE)
    usual = (
        *("--plugin", tmp_path / "late.py", "--pool", "late", "--data", "two", "--backbone", "nano/plain"),
        *("--epochs", 2, "--batch-size", 4, "--threads", 1, "--no-check-export", "--out", tmp_path / "run"),
    )

    def run(how, at, *arguments):
        monkeypatch.setenv("HOW", how)
        monkeypatch.setenv("AT", str(at))
        return poolzoo("finetune", *(arguments or usual))

    return run


def strictly(text: str) -> object:
    """JSON as the standard has it."""
    return json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("gradient", "the gradient is NaN or infinite in epoch 2, step 10"),
        ("infinite loss", "the loss is NaN or infinite in epoch 2, step 10"),
        ("buffer", "pool.seen holds NaN or infinity after epoch 2, step 10"),
        (
            "optimizer",
            "the optimizer's exp_avg_sq of backbone.conv1.conv.weight holds NaN or infinity after epoch 2, step 10",
        ),
        ("eval", "all logits of the validation images are NaN or infinite after epoch 2"),
        ("buffer in eval", "pool.seen holds NaN or infinity after epoch 2, step 10"),
        ("interrupted", "the gradient is NaN or infinite in epoch 2, step 10"),
    ],
)
def test_a_fault_at_the_last_step_leaves_the_epoch_before(late, tmp_path, how, told):
    outcome, run = late(how, 2 * STEPS), tmp_path / "run"
    assert outcome.code == 1
    assert [line for line in outcome.err.splitlines() if line.startswith("error:")] == [f"error: {told}"]
    assert "hint: try a smaller --lr than" in outcome.err
    assert not (run / "manifest.json").exists()
    assert [strictly(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1]
    kept = torch.load(run / "checkpoint" / "state.pt", weights_only=True)
    assert kept["progress"]["epoch"] == 1
    tensors = [*kept["learners"]["late"]["module"].items(), *kept["learners"]["late"]["best"]["weights"].items()]
    assert all(tensor.isfinite().all() for name, tensor in tensors if name != "pool.mask")


def test_a_stopped_run_goes_on_from_its_last_finite_state(late, tmp_path):
    run = tmp_path / "run"
    assert late("gradient", 2 * STEPS).code == 1
    again = late("gradient", STEPS, "--resume", run)  # the tenth step of the process that goes on
    assert (again.code, "epoch 2, step 10" in again.err) == (1, True)
    assert late("never", 0, "--resume", run).code == 0
    resumed = load_file(run / "model.safetensors")
    run.rename(tmp_path / "first")
    assert late("never", 0).code == 0
    whole = load_file(run / "model.safetensors")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_the_step_of_a_bad_gradient_is_named(late):
    assert "the gradient is NaN or infinite in epoch 1, step 4" in late("gradient", 4).err


def test_a_fault_in_the_first_epoch_leaves_nothing(late, tmp_path):
    assert (
        late(
            "gradient",
            STEPS,
        ).code
        == 1
    )
    assert not (tmp_path / "run").exists()


def test_images_without_a_prediction_are_wrong_and_json_stays_json(late, tmp_path):
    outcome, run = late("a part in eval", STEPS + 1), tmp_path / "run"
    assert outcome.code == 0
    first, second = map(strictly, (run / "metrics.jsonl").read_text().splitlines())
    assert math.isfinite(first["val_loss"])
    assert second["val_loss"] is None
    assert second["val_accuracy"] <= 0.75  # of four images, the first has no prediction
    found = strictly((run / "metrics.json").read_text())
    assert found["test"]["accuracy"] <= 0.9
    assert sum(map(sum, found["test"]["confusion"])) == 9


def test_a_checkpoint_that_is_not_finite_is_refused(late, tmp_path):
    """As versions before this one may have left behind."""
    run = tmp_path / "run"
    late("gradient", 2 * STEPS)
    file = run / "checkpoint" / "state.pt"
    kept = torch.load(file, weights_only=True)
    kept["learners"]["late"]["module"]["classifier.weight"].fill_(math.nan)
    torch.save(kept, file)
    outcome = late("never", 0, "--resume", run)
    assert outcome.code == 1
    assert "classifier.weight holds NaN or infinity" in outcome.err
    assert "delete" in outcome.err


def test_infinities_that_a_layer_starts_with_are_meant():
    layer = nn.BatchNorm1d(2)
    layer.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    meant = finite.infinite_buffers(layer)
    assert meant == {"mask"}
    assert finite.first_non_finite(layer.state_dict().items(), meant) is None
    layer.running_var[0] = math.inf
    assert finite.first_non_finite(layer.state_dict().items(), meant) == "running_var"
    layer.running_var[0], layer.mask[0] = 1.0, math.nan
    assert finite.first_non_finite(layer.state_dict().items(), meant) == "mask"


def test_large_numbers_are_finite():
    assert finite.first_non_finite([("large", torch.full((100,), 3e38)), ("none", torch.zeros(0))]) is None


def test_json_has_null_where_python_has_nan():
    value = {"a": [1.5, math.nan, (math.inf, "NaN")], "é": None}
    assert strictly(json_writer.dumps(value)) == {"a": [1.5, None, [None, "NaN"]], "é": None}
    assert json_writer.dumps({"é": 1.0}) == json.dumps({"é": 1.0}, ensure_ascii=False)
    with pytest.raises(TypeError):
        json_writer.dumps({"a": object()})


def test_a_class_of_nan_is_no_prediction():
    logits = np.array([[math.nan, 1.0], [math.inf, 0.0], [-math.inf, 0.0], [0.0, math.nan]], np.float32)
    assert classification.predictions(logits).tolist() == [
        classification.NO_CLASS,
        classification.NO_CLASS,
        1,
        classification.NO_CLASS,
    ]
    assert classification.accuracy(logits, np.array([0, 0, 1, 1])) == 0.25


def test_an_image_with_nan_probabilities_gets_no_label(poolzoo, tmp_path, monkeypatch):
    monkeypatch.setattr(linear_bundle, "WEIGHTS", linear_bundle.WEIGHTS * np.float32(math.nan))
    made = linear_bundle.linear_bundle(tmp_path / "bundle", "uint8")
    Image.new("RGB", (linear_bundle.WIDTH, linear_bundle.HEIGHT)).save(tmp_path / "black.png")
    for allowed in ((), ("--skip-broken", "all")):  # the file is not what is broken
        outcome = poolzoo("predict", made, tmp_path / "black.png", "--json", *allowed)
        assert outcome.code == 1
        assert strictly(outcome.out) == [
            {"file": str(tmp_path / "black.png"), "error": "the network gives NaN or infinity for it"}
        ]
        assert "error: 1 of 1 images have no label, first " in outcome.err
        assert "read" not in outcome.err
    assert "\tthe network gives NaN or infinity for it" in poolzoo("predict", made, tmp_path / "black.png").out


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_teacher_with_a_weight_that_is_not_finite_is_refused(tmp_path, value):
    run = shutil.copytree(EARLIER / "run", tmp_path / "run")
    weights = load_file(run / "model.safetensors")
    weights["classifier.weight"][0, 0] = value
    save_file(weights, run / "model.safetensors", metadata={"format": "pt"})
    (run / "manifest.json").unlink()
    manifest.write_manifest(run, "run")
    config = json.loads((run / "config.json").read_text())
    height, width = config["poolzoo"]["data_size"]
    with pytest.raises(CheckFailed, match=r"classifier.weight of the teacher .* holds NaN or infinity"):
        load_teacher(str(run), "classification", config["label_names"], (height, width), CPU)
