"""timm's architectures as backbones: those whose features need reading, and what the sweep must notice."""

from __future__ import annotations

import copy

import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from torchvision.transforms.functional import InterpolationMode, resize

from benchmarks.coverage import timm_sweep
from poolzoo.artifacts import run
from poolzoo.model.assemble import assemble
from poolzoo.model.config import ModelConfig
from poolzoo.train.stages import freeze_stages


def test_an_architecture_passes_with_what_was_measured_of_it():
    record = timm_sweep.run("test_vit")
    assert record["status"] == "passed", record
    assert record["parameters"] == sum(p.numel() for p in timm.create_model("test_vit", num_classes=0).parameters())
    assert (record["pixels"], record["layout"], record["map"]) == (64, "NLC", [64, 4, 4])


def test_a_large_architecture_is_counted_and_not_built(monkeypatch):
    monkeypatch.setattr(timm_sweep, "MOST", 1_000)
    assert timm_sweep.run("test_vit")["status"] == "large"


class Faulty(nn.Module):
    """A network that gives NaN in training mode alone."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4, padding=1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * (torch.nan if self.training else 1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_features(x)


def test_what_an_architecture_fails_at_is_said(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *arguments, **options: Faulty())
    record = timm_sweep.run("test_vit")
    assert record["status"] == "failed"
    assert record["reason"] == "ValueError: avg in training mode gives NaN or infinity"


def test_the_page_gives_the_share_and_every_reason():
    base = {"parameters": 9, "seconds": 36.0, "ended": "2026-01-02T03:04:05+00:00", "versions": "torch 2"}
    fine = {"status": "passed", "pixels": 64, "layout": "NCHW", "map": [8, 4, 4], **base}
    records = [
        {"trial": "one", **fine},
        {"trial": "two", **fine},
        {"trial": "three", **fine},
        {"trial": "four", "status": "failed", "reason": "KeyError: x", **base},
        {"trial": "five", "status": "large", **base},
    ]
    page = timm_sweep.render(records)
    assert "**3 of 4 architectures passed (75.0%); 1 larger ones were skipped.**" in page
    assert "| `four` | KeyError: x |" in page
    assert "3 NCHW" in page
    assert "3 at 64 pixels" in page


# --- Features that are no map by themselves ------------------------------------------------------------------------


def last_tokens_of_pit(model, x):
    """What goes out of the last transformer, beside the class tokens."""
    caught = []
    handle = model.transformers[-1].register_forward_hook(lambda _module, _given, result: caught.append(result[0]))
    model.forward_features(x)
    handle.remove()
    return caught


def last_norm_of_efficientvim(network, x):
    """By a hook on the norm that the final map passes, before it is flattened."""
    found = []
    handle = network.norm[-1].register_forward_hook(lambda module, given, result: found.append(result))
    network.forward_features(x)
    handle.remove()
    return found


# Their maps by another way: timm's own reading of them, or a hook; the finest map of each is the first.
MAPS = {
    "pit_ti_224": last_tokens_of_pit,
    "coat_lite_tiny": lambda m, x: m.forward_intermediates(x, indices=[3], norm=True, intermediates_only=True),
    "coat_tiny": lambda m, x: m.forward_intermediates(x, indices=[1, 2, 3], norm=True, intermediates_only=True),
    "crossvit_tiny_240": lambda m, x: m.forward_intermediates(x, indices=[2, 5], norm=True, intermediates_only=True),
    "efficientvim_m1": last_norm_of_efficientvim,
    "volo_d1_224": lambda m, x: [m.forward_features(x)[:, 1:].transpose(1, 2).unflatten(2, (4, 4))],
}


LARGE = ("coat_lite_tiny", "coat_tiny", "crossvit_tiny_240", "volo_d1_224")  # of seconds each


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in MAPS])
def test_the_map_behind_class_tokens_is_the_networks_own(name):
    assembly = assemble(ModelConfig(f"timm/{name}", "avg", 10, (64, 64)))
    network, x = assembly.network.eval(), torch.randn(2, 3, *assembly.image_size)
    with torch.no_grad():
        found, expected = network.forward_map(x), MAPS[name](network.backbone, x)
    size = list(expected[0].shape[2:])
    enlarged = [resize(one, size, InterpolationMode.BILINEAR, antialias=False) for one in expected]
    torch.testing.assert_close(found, torch.cat(enlarged, 1))


@pytest.mark.parametrize(
    "name",
    [
        "pit_ti_224",
        "efficientvit_b0",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("coat_tiny", "inception_next_atto")),
    ],
)
def test_only_what_reaches_the_map_is_kept_and_learns(name):
    assembly = assemble(ModelConfig(f"timm/{name}", "avg", 10, (32, 32)))
    network = assembly.network
    of_timm = timm.create_model(name, num_classes=0)
    freeze_stages(network.backbone, 3)
    freeze_stages(network.backbone, 0)
    network(torch.randn(2, 3, *assembly.image_size)).square().sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    assert of_timm.state_dict().keys() - network.backbone.state_dict().keys() == network.backbone.dropped
    assert len(list(network.backbone.parameters())) < len(list(of_timm.parameters()))


def test_shared_weights_are_saved_under_each_name():
    """CoaT's convolutional position encodings are one for several blocks."""
    state = assemble(ModelConfig("timm/coat_tiny", "avg", 10, (32, 32))).network.state_dict()
    assert len({value.data_ptr() for value in state.values()}) < len(state)
    loaded = safetensors.torch.load(run.weights_bytes(state))
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_copied_network_answers_with_its_own_weights():
    network = assemble(ModelConfig("timm/coat_tiny", "avg", 10, (32, 32), (32, 32))).network.eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before, copied = network(x), copy.deepcopy(network)
        for parameter in network.parameters():
            parameter.zero_()
        torch.testing.assert_close(copied(x), before)
