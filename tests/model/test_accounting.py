"""Weights: every tensor comes from the file, is fresh by design, is left out by name, or is an error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import poolzoo as package
from poolzoo.artifacts import manifest
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.model.accounting import Accounting, fill, fill_exactly
from poolzoo.model.assemble import assemble
from poolzoo.model.config import ModelConfig
from poolzoo.model.state_dict import read_state_dict
from poolzoo.model.weights import load_weights
from poolzoo.plugin import loader

# Tiny networks that are published with a norm behind the pooling, the side of their images, and options.
TINY = "depth=1,embed_dim=24,num_heads=2"
NORMED = {
    "test_vit2": (64, ""),
    "test_vit4": (64, ""),
    "test_convnext": (64, ""),
    "eva02_tiny_patch14_224": (28, TINY),
    "beit_base_patch16_224": (32, TINY),
    "vit_relpos_small_patch16_224": (32, TINY),
}
# With the mean of the map and nothing behind it.
PLAIN = {"test_resnet": (64, ""), "test_nfnet": (64, ""), "test_efficientnet": (64, ""), "test_maxvit": (64, "")}


def published(name: str, side: int, options: str) -> nn.Module:
    """timm's own network, with norms that are nobody's initial ones."""
    torch.manual_seed(1)
    given = {key: int(value) for key, value in (pair.split("=") for pair in options.split(",") if pair)}
    if timm.models.get_pretrained_cfg(name).fixed_input_size:
        given["img_size"] = side
    network = timm.create_model(name, **given).eval()
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.ndim == 1 and value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.3)
    return network


def model_config(name: str, side: int, options: str = "", pool: str = "avg", **rest) -> ModelConfig:
    spec = f"timm/{name}:{options}" if options else f"timm/{name}"
    return ModelConfig(spec, pool, 10, (side, side), (side, side), **rest)


def pooled(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the classifier is given."""
    given = []
    handle = network.classifier.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    with torch.no_grad():
        network.eval()(x)
    handle.remove()
    return given[0]


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that stands for the hub's cache of one repository."""
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, file: _found(tmp_path / file))
    return tmp_path


def _found(file: Path) -> str | None:
    return str(file) if file.is_file() else None


@pytest.mark.parametrize("name", [*NORMED, *PLAIN])
def test_avg_gives_the_pooled_features_of_the_published_network(name, cache):
    side, options = {**NORMED, **PLAIN}[name]
    theirs, x = published(name, side, options), torch.randn(2, 3, side, side)
    save_file(theirs.state_dict(), cache / "model.safetensors")
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(x), pre_logits=True)
    tried = [assemble(model_config(name, side, options))]
    accounts = [load_weights(tried[0].network, cache / "model.safetensors", ())]
    if timm.models.get_pretrained_cfg(name).has_weights:
        tried.append(assemble(model_config(name, side, options, pretrained=True)))
        accounts.append(tried[1].weights)
    for assembly, weights in zip(tried, accounts, strict=True):
        torch.testing.assert_close(pooled(assembly.network, x), expected, rtol=1e-4, atol=1e-5)
        assert set(weights.fresh) == {"classifier.weight", "classifier.bias"}
        assert set(weights.loaded) | set(weights.fresh) == assembly.network.state_dict().keys()
        assert all(key.startswith(("head.", "classifier.", "fc.")) for key in weights.left_out), weights.left_out
        assert assembly.backbone.published.average() == "avg equals the published pooling"
        assert bool(assembly.backbone.published.norm) == (name in NORMED)


def test_the_norm_stays_at_positions_where_pooled_vectors_are_wider():
    theirs, x = published("test_vit2", 64, ""), torch.randn(2, 3, 64, 64)
    assembly = assemble(model_config("test_vit2", 64, pool="catavgmax"))
    state = theirs.state_dict()
    path_like = {key: value for key, value in state.items() if not key.startswith("head.")}
    kept, _ = assembly.network.backbone.origin.convert_state_dict(_own(assembly.network), path_like, "test")
    assert assembly.norm_place == "positions"
    assembly.network.norm.layer.load_state_dict({k: kept[f"norm.{k}"] for k in ("weight", "bias")})
    assembly.network.backbone.load_state_dict({k: v for k, v in kept.items() if not k.startswith("norm.")})
    with torch.no_grad():
        tokens = theirs.fc_norm(theirs.forward_features(x)[:, theirs.num_prefix_tokens :])
    expected = torch.cat([tokens.mean(1), tokens.amax(1)], 1)
    torch.testing.assert_close(pooled(assembly.network, x), expected, rtol=1e-4, atol=1e-5)


def _own(network: nn.Module) -> dict[str, torch.Tensor]:
    norm = {f"{network.norm.place}.{key}": value for key, value in network.norm.layer.state_dict().items()}
    return {**network.backbone.state_dict(), **norm}


def test_attention_pooling_in_a_weight_file_is_skipped_by_name(cache):
    theirs = published("test_vit3", 64, "")
    save_file(theirs.state_dict(), cache / "w.safetensors")
    assembly = assemble(model_config("test_vit3", 64))
    weights = load_weights(assembly.network, cache / "w.safetensors", ())
    ends = {key for key in theirs.state_dict() if key.startswith(("attn_pool.", "head."))}
    assert set(weights.left_out) == ends
    assert "attn_pool" in assembly.backbone.published.line(None, 96)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_any_other_difference_is_an_error_that_names_the_tensor(cache, change):
    state = published("test_vit2", 64, "").state_dict()
    if change == "missing":
        del state["fc_norm.weight"]
    elif change == "unknown":
        state["fc_norm.extra"] = torch.ones(2)
    else:
        state["fc_norm.weight"] = torch.ones(3)
    save_file(state, cache / "model.safetensors")
    name = "fc_norm.extra" if change == "unknown" else "norm"
    with pytest.raises(UsageError, match=name):
        assemble(model_config("test_vit2", 64, pretrained=True))
    with pytest.raises(UsageError, match=name):
        load_weights(assemble(model_config("test_vit2", 64)).network, cache / "model.safetensors", ())


def test_torchvisions_layers_behind_the_pooling_are_named(monkeypatch, tmp_path):
    import torchvision

    theirs = torchvision.models.mobilenet_v3_small()
    file = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    (tmp_path / "checkpoints").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "checkpoints" / file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torchvision_plan = ModelConfig("torchvision/mobilenet_v3_small", "avg", 10, (64, 64), (64, 64), pretrained=True)
    assembly = assemble(torchvision_plan)
    heads = [key for key in theirs.state_dict() if key.startswith("classifier.")]
    assert set(assembly.weights.left_out) == set(heads)
    assert assembly.weights.fresh == ("classifier.weight", "classifier.bias")
    assert "left out: classifier.0" in assembly.backbone.published.line(None, 576)


def tiny_convnext(monkeypatch, folder):
    """torchvision's ConvNeXt with a block a stage, in place of its smallest, which takes seconds."""
    import torchvision
    from torchvision.models import convnext

    def make(*_, num_classes: int = 10, **__):
        sizes = [
            convnext.CNBlockConfig(8, 16, 1),
            convnext.CNBlockConfig(16, 24, 1),
            convnext.CNBlockConfig(24, None, 1),
        ]
        torch.manual_seed(0)
        return torchvision.models.ConvNeXt(sizes, num_classes=num_classes)

    monkeypatch.setattr(torchvision.models, "get_model", make)
    network = make()
    with torch.no_grad():
        for parameter in network.classifier[0].parameters():
            parameter += torch.rand_like(parameter)
    monkeypatch.setenv("TORCH_HOME", str(folder))
    file = folder / "hub" / "checkpoints" / Path(torchvision.models.ConvNeXt_Tiny_Weights.DEFAULT.url).name
    file.parent.mkdir(parents=True)
    torch.save(network.state_dict(), file)
    return network.eval()


def test_torchvisions_norm_behind_the_pooling_follows_ours(monkeypatch, tmp_path):
    theirs = tiny_convnext(monkeypatch, tmp_path)
    found = ModelConfig("torchvision/convnext_tiny", "avg", 10, (64, 64), (64, 64), pretrained=True)
    assembly = assemble(found)
    assert assembly.norm_place == "pooled"
    assert set(assembly.weights.left_out) == {"classifier.2.weight", "classifier.2.bias"}
    network, x = assembly.network.eval(), torch.randn(2, 3, 64, 64)
    network.classifier.load_state_dict(theirs.classifier[2].state_dict())
    torch.testing.assert_close(network(x), theirs(x))
    said = assembly.backbone.published.line("pooled", 24)
    assert said == "classifier.0 follows the pooling, as published; avg equals the published pooling"
    wider = assemble(replace(found, pool="catavgmax"))
    assert wider.norm_place == "positions"
    assert wider.network(x).shape == (2, 10)


def test_runs_of_earlier_versions_have_no_such_norm(monkeypatch, tmp_path):
    tiny_convnext(monkeypatch, tmp_path)
    old = ModelConfig(
        "torchvision/convnext_tiny", "avg", 10, (64, 64), (64, 64), pretrained=True, final_norm="backbone"
    )
    assembly = assemble(old)
    assert assembly.norm_place is None
    assert not [key for key in assembly.network.state_dict() if "norm." in key and "body" not in key]
    assert set(assembly.weights.loaded) <= assembly.network.state_dict().keys()
    assert "left out: classifier.0" in assembly.backbone.published.line(None, 24)


PLUGIN = """
import torch
from poolzoo import Backbone, hookimpl

def build(*, pretrained=False):
    from torch import nn
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, 2, 1))
    if pretrained:
        state = {"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.ones(4)}
        module.load_state_dict(state, strict=False)
    return module

@hookimpl
def poolzoo_backbones():
    yield Backbone(name="forgetful", summary="loads half of its weights", build=build)
"""


def test_what_a_plugin_leaves_untrained_is_named(tmp_path):
    (tmp_path / "forgetful.py").write_text(PLUGIN)
    loader.load_plugins(tmp_path / "forgetful.py", installed=False)
    weights = assemble(ModelConfig("forgetful", "avg", 3, (32, 32), (32, 32), pretrained=True)).weights
    assert set(weights.unchanged) == {
        f"backbone.{name}"
        for name in ("1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked")
    } | {"backbone.2.weight", "backbone.2.bias"}
    assert "7 of them as from scratch" in weights.line()


# --- Layers without a part in the map ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side", "says"),
    [
        ("efficientvit_b0", 64, "left out: head.in_conv, head.classifier.0, head.classifier.1 ("),
        ("mobilenetv3_small_050", 64, "conv_head moved before the pooling"),
        ("convnext_atto", 64, "head.norm follows the pooling"),
        ("resnet50_clip", 64, "head (the published pooling's own layers) kept"),
        ("levit_128s", 64, "left out: head.bn, head_dist.bn"),
    ],
)
def test_one_line_says_what_becomes_of_the_published_head(name, side, says):
    with torch.device("meta"):
        module = loader.catalog().backbone(f"timm/{name}").item.build(image_size=(side, side))
    head = module.origin.head(module)
    assert says in head.line("pooled" if head.norm else None, 0)
    assert "avg" in head.line(None, 0)


def test_unused_tensors_are_not_saved_and_old_files_still_load():
    network = assemble(model_config("efficientvit_b0", 64)).network
    kept = network.state_dict().keys()
    assert not any(key.startswith("backbone.head.") for key in kept)
    old = {**network.state_dict(), **{name: torch.ones(1) for name in network.dropped}}
    assert "backbone.head.classifier.0.weight" in network.dropped
    fill_exactly(network, old, "an old run", "", dropped=network.dropped)
    with pytest.raises(CheckFailed, match=r"1 unknown \(backbone.head.else\)"):
        fill_exactly(network, {**old, "backbone.head.else": torch.ones(1)}, "x", "", dropped=network.dropped)


# --- Runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "dtype"])
def test_weights_that_do_not_fit_a_run_name_the_tensor(poolzoo, run_copy, change):
    state = load_file(run_copy / "model.safetensors")
    name = "classifier.bias"
    if change == "missing":
        del state[name]
    elif change == "unknown":
        name = "classifier.other"
        state[name] = torch.ones(1)
    else:
        state[name] = state[name].double() if change == "dtype" else torch.ones(1)
    save_file(state, run_copy / "model.safetensors")
    manifest.write_manifest(run_copy, "run")
    outcome = poolzoo("evaluate", run_copy)
    assert outcome.code == 1
    assert f"({name})" in outcome.err.splitlines()[0]


def test_the_run_and_the_dry_run_say_what_was_loaded(poolzoo, photos, cache):
    save_file(published("test_vit2", 64, "").state_dict(), cache / "model.safetensors")
    arguments = ("finetune", "--data", f"folder:{photos}", "--backbone", "timm/test_vit2", "--image-size", 32)
    arguments = (*arguments, "--epochs", 1, "--batch-size", 8, "--threads", 1, "--pretrained")
    planned = poolzoo(*arguments, "--dry-run", "--json").json["weights"]
    assert (planned["loaded"], planned["tensors"], planned["fresh"]) == (118, 120, 2)
    assert planned["left_out"] == ["head.bias", "head.weight"]
    shown = poolzoo(*arguments, "--dry-run").out
    assert "weights     118 of 120 tensors from" in shown
    assert "fc_norm follows the pooling, as published; avg equals the published pooling" in shown
    run = Path(poolzoo(*arguments, "--out", cache / "run").out.splitlines()[-1])
    assert "118 of 120 tensors" in (run / "README.md").read_text()
    config = json.loads((run / "config.json").read_text())
    assert config["poolzoo"]["weights"] == planned
    assert config["pretrained_cfg"]["license"] == "apache-2.0"  # what timm states of these weights
    assert not (run / "weights.json").exists()
    network = package.load(run)
    assert network.norm is not None


def test_a_network_from_scratch_has_no_license_of_published_weights(trained):
    assert json.loads((trained / "config.json").read_text())["pretrained_cfg"]["license"] is None
    assert 'license: "unknown"' in (trained / "README.md").read_text()


def test_an_older_run_keeps_its_norm_where_it_was_trained():
    now, then = (assemble(model_config("test_vit2", 64, final_norm=place)) for place in ("head", "backbone"))
    assert then.norm_place == "backbone"
    assert "backbone.norm.weight" in then.network.state_dict()
    theirs = timm.create_model("test_vit2", num_classes=0, global_pool="", img_size=64).eval()
    x = torch.randn(2, 3, 64, 64)
    theirs.load_state_dict(then.network.backbone.state_dict())
    with torch.no_grad():
        expected = theirs(x)[:, theirs.num_prefix_tokens :].mean(1)
    torch.testing.assert_close(pooled(then.network, x), expected, rtol=1e-4, atol=1e-5)
    assert then.network.state_dict().keys() != now.network.state_dict().keys()


def test_an_accounting_survives_json_for_a_resumed_run():
    names = ["backbone.a", "pool.p", "classifier.weight"]
    account = Accounting("w.safetensors", ("backbone.a",), left_out=("fc.weight",)).within(names)
    assert account.line() == (
        "1 of 3 tensors from w.safetensors; fresh: pool, classifier (2); left out of the file: fc.weight"
    )
    assert Accounting.from_json(json.loads(json.dumps(account.to_json())), names) == account
    scratch = Accounting().within(names)
    assert Accounting.from_json(scratch.to_json(), names) == scratch
    for odd in (None, {}, {**account.to_json(), "fresh_names": 3}):
        with pytest.raises(CheckFailed, match=r"initial\.json is damaged"):
            Accounting.from_json(odd, names, "initial.json")


UNFIT = {
    "NaN": (lambda value: value * float("nan"), CheckFailed, "1 tensors of file hold NaN or infinity: weight"),
    "infinity": (lambda value: value / 0, CheckFailed, "hold NaN or infinity"),
    "half an infinity": (lambda value: (value + 1e6).half(), CheckFailed, "hold NaN or infinity"),
    "integers": (lambda value: (100 * value).to(torch.int8), UsageError, "1 of integers, complex or sparse"),
    "complex": (lambda value: value.to(torch.complex64), UsageError, "1 of integers, complex or sparse"),
    "sparse": (lambda value: value.to_sparse(), UsageError, "1 of integers, complex or sparse"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_no_weight_is_refused(name):
    layer = nn.Linear(2, 3)
    change, error, says = UNFIT[name]
    before = layer.weight.clone()
    with pytest.raises(error, match=says):
        fill(layer, {**layer.state_dict(), "weight": change(layer.weight.detach())}, "file")
    assert layer.weight.equal(before)


def test_weights_of_half_precision_and_masks_of_infinity_are_taken():
    layer = nn.BatchNorm1d(3)
    layer.register_buffer("mask", torch.full((3,), -torch.inf))
    state = {key: value.half() if value.is_floating_point() else value for key, value in layer.state_dict().items()}
    assert len(fill(layer, state, "file").loaded) == 6


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_wrapper_prefixes_are_removed_in_every_file_format(tmp_path, ending):
    state, file = {"module._orig_mod.weight": torch.ones(2)}, tmp_path / f"weights.{ending}"
    save_file(state, file) if ending == "safetensors" else torch.save({"model_ema": state}, file)
    assert read_state_dict(file).keys() == {"weight"}


def test_what_timms_filter_passes_over_is_left_out_by_name():
    """A file of CLIP: timm takes the image's half, renames it and splits nothing."""
    small = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    item = loader.catalog().backbone("timm/vit_base_patch16_clip_quickgelu_224").item
    module = item.build(image_size=(32, 32), **small)
    names = {"cls_token": "class_embedding", "pos_embed": "positional_embedding", "patch_embed.proj": "conv1"}
    names |= {"norm_pre": "ln_pre", "norm": "ln_post", "blocks.0.norm1": "transformer.resblocks.0.ln_1"}
    names |= {"blocks.0.norm2": "transformer.resblocks.0.ln_2", "blocks.0.mlp.fc1": "transformer.resblocks.0.mlp.c_fc"}
    names |= {"blocks.0.mlp.fc2": "transformer.resblocks.0.mlp.c_proj"}
    names |= {"blocks.0.attn.proj": "transformer.resblocks.0.attn.out_proj"}
    state = {}
    for key, value in module.state_dict().items():
        owner, _, last = key.rpartition(".")
        name = f"{names[owner]}.{last}" if owner in names else names.get(key)
        value = value[0, 0] if key == "cls_token" else value[0] if key == "pos_embed" else value
        state[f"visual.{name or f'transformer.resblocks.0.attn.in_proj_{last}'}"] = value
    text = {"logit_scale": torch.ones(()), "token_embedding.weight": torch.ones(3, 2)}
    kept, left_out = module.origin.convert_state_dict(module.state_dict(), {**state, **text}, "clip")
    assert kept.keys() == module.state_dict().keys()
    assert set(left_out) >= text.keys()


def test_a_state_that_fits_but_for_one_tensor_fills_nothing():
    layer = nn.Linear(2, 2)
    before = layer.weight.clone()
    with pytest.raises(UsageError, match=r"1 missing \(bias\)"):
        fill(layer, {"weight": torch.zeros(2, 2)}, "a file")
    assert torch.equal(layer.weight, before)
