"""A backbone's own network, exported by the backbone's name: from a plugin's network to labels for a photograph."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from poolzoo import Backbone, cli
from poolzoo.artifacts import manifest
from poolzoo.common.errors import UsageError
from poolzoo.data import images
from poolzoo.export import export as exporting
from poolzoo.export import published_network
from poolzoo.runtime import ort_session

PLUGIN = """
from poolzoo import Backbone, hookimpl

NAMES = ("red, crimson", "green", "blue", "gray", "white", "black", "brown")


def features(*, pretrained: bool = False):
    return network(pretrained=pretrained)[:2]


def network(*, pretrained: bool = False, width: int = 8):
    import torch
    from torch import nn

    torch.manual_seed(int(pretrained))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 7)]
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), *head)


def tokens(*, pretrained: bool = False):
    return features(pretrained=pretrained)


def broken(*, pretrained: bool = False):
    raise RuntimeError("no such weights")


def offer(name, **facts):
    given = dict(summary="", build=features, network=network, labels=lambda: NAMES, input_size=24, license="MIT")
    return Backbone(name=name, **{**given, **facts})


@hookimpl
def poolzoo_backbones():
    yield offer("tiny", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop_pct=0.75, interpolation="bicubic")
    yield offer("nameless", labels=None)
    yield offer("headless", network=None, labels=None)
    yield offer("mislabeled", labels=lambda: NAMES[:3])
    yield offer("no-logits", network=tokens)
    yield offer("broken", network=broken)
    yield offer("nowhere", network="no_such_package.module:network")
"""


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "colors.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture(scope="module")
def tiny(plugin: Path) -> Path:
    """The bundle of the plugin's `tiny`. Read it, do not change it."""
    path = plugin.parent / "bundle"
    assert cli.run(["export", "tiny", "--pretrained", "--plugin", str(plugin), "--out", str(path)]) == 0
    return path


def the_network(plugin: Path):
    """The plugin's own network, built without poolzoo."""
    space: dict = {}
    exec(plugin.read_text(), space)
    return space["network"](pretrained=True).eval()


# --- What the bundle is --------------------------------------------------------------------------------------------


def test_the_graph_is_the_plugins_network_with_its_normalization(tiny, plugin):
    session = onnxruntime.InferenceSession(tiny / "model.onnx", providers=["CPUExecutionProvider"])
    network = the_network(plugin)
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.3, 0.4], np.float32)
    for count in (1, 2, 7):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 24, 24, 3), dtype=np.uint8)
        logits, probabilities = session.run(["logits", "probabilities"], {"images": pixels})
        x = torch.from_numpy(((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).copy())
        with torch.inference_mode():
            expected = network(x)
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
        np.testing.assert_allclose(probabilities, expected.softmax(1).numpy(), atol=1e-6)


def test_the_bundle_says_what_it_is_and_what_is_unmeasured(tiny):
    assert manifest.differences(tiny) == []
    config, parity = read(tiny / "config.json"), read(tiny / "parity.json")
    assert config["num_classes"] == len(config["label_names"]) == 7
    assert config["pretrained_cfg"]["license"] == "MIT"
    assert config["export"]["pretrained"] == "tiny"
    assert config["export"]["compared_on"] == {"images": "synthetic", "n": published_network.IMAGES}
    assert config["poolzoo"]["plugins"]["backbone"]["dist"] == "colors"
    assert parity["passed"]
    assert parity["images"] == "synthetic"
    assert parity["n"] == published_network.IMAGES
    assert "accuracy" not in parity
    card = (tiny / "README.md").read_text()
    assert f"on {published_network.IMAGES} synthetic images" in card
    assert "Accuracy was not measured" in card
    assert 'license: "mit"' in card


def test_the_file_alone_says_labels_preprocessing_and_license(tiny):
    session = onnxruntime.InferenceSession(tiny / "model.onnx", providers=["CPUExecutionProvider"])
    said = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert said["labels"][0] == "red, crimson"
    assert said["license"] == "MIT"
    assert (said["input"]["height"], said["input"]["width"]) == (24, 24)
    preprocessing = said["preprocessing"]
    assert (preprocessing["interpolation"], preprocessing["crop_pct"]) == ("bicubic", 0.75)
    assert (preprocessing["mean"], preprocessing["std"]) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    assert len(said["weights_sha256"]) == 64


# --- What can be done with it --------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A wide picture of smooth noise, larger than the network's input."""
    path = tmp_path / "photo.png"
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(small).resize((90, 60), Image.Resampling.BICUBIC).save(path)
    return path


def test_it_verifies_and_names_the_first_five_of_its_classes(poolzoo, tiny, photo, plugin):
    assert poolzoo("verify", tiny, "--no-bench", "--json").json["passed"]
    (row,) = poolzoo("predict", tiny, photo, "--json").json
    pixels = images.read(photo, (24, 24), images.Fit("bicubic", 0.75))
    x = (torch.from_numpy(pixels.copy()) / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.3, 0.4])
    with torch.inference_mode():
        chances, order = the_network(plugin)(x.permute(2, 0, 1)[None]).softmax(1)[0].sort(descending=True)
    names = read(tiny / "config.json")["label_names"]
    assert [one["label"] for one in row["top"]] == [names[index] for index in order[:5]]
    np.testing.assert_allclose([one["score"] for one in row["top"]], chances[:5].numpy(), atol=1e-6)
    shown = poolzoo("predict", tiny, photo).out.splitlines()[1]
    assert all(one["label"] in shown for one in row["top"])


def test_verification_and_prediction_need_neither_torch_nor_the_plugin(tiny, photo):
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'sklearn', 'onnx', 'safetensors'): sys.modules[name] = None\n"
        "from poolzoo.cli import run\n"
        f"assert run(['predict', {str(tiny)!r}, {str(photo)!r}]) == 0\n"
        f"assert run(['verify', {str(tiny)!r}, '--no-bench']) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_photograph_is_fitted_as_timm_evaluates():
    """timm resizes first and cuts a whole number of pixels afterwards, so the two may differ by a fraction of one."""
    from timm.data import create_transform

    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    wide = small.resize((640, 480), Image.Resampling.BICUBIC)
    for interpolation in ("bilinear", "bicubic"):
        theirs = create_transform(224, interpolation=interpolation, crop_pct=0.875, mean=(0, 0, 0), std=(1, 1, 1))
        expected = theirs(wide).permute(1, 2, 0).numpy() * 255
        got = np.asarray(images.fit(wide, (224, 224), images.Fit(interpolation, 0.875)))
        assert np.abs(got - expected).mean() < 1.5, interpolation


def test_synthetic_images_are_the_same_everywhere_and_of_many_kinds():
    made = published_network.synthetic_images((20, 30), 8)
    assert made.shape == (8, 20, 30, 3)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, published_network.synthetic_images((20, 30), 8))
    rough = [np.abs(np.diff(image.astype(float), axis=0)).mean() / image.std() for image in made]
    assert rough[0] > 3 * rough[-1]  # from white noise to smooth


# --- What cannot be done -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says", "hints"),
    [
        (["headless", "--pretrained"], 2, "no classifier of its own", "poolzoo finetune --backbone headless"),
        (["nano/plain", "--pretrained"], 2, "no classifier of its own", "poolzoo finetune"),
        (["tiny"], 2, "run 'tiny' does not exist", "--pretrained"),
        (["tyni", "--pretrained"], 2, "no backbone is called 'tyni'", "tiny"),
        (["timm/resnet81", "--pretrained"], 2, "timm/resnet81", "timm/resnet18"),
        (["timm/vit_small_patch14_dinov2", "--pretrained"], 2, "no classifier of its own", "finetune"),
        (["tiny:wdith=4", "--pretrained"], 2, "wdith", "leave it out"),
        (["mislabeled", "--pretrained"], 1, "7 logits and has 3 labels", "plugin"),
        (["no-logits", "--pretrained"], 1, "[2, 8, 12, 12]", "plugin"),
        (["broken", "--pretrained"], 1, "no such weights", "plugin"),
        (["nowhere", "--pretrained"], 2, "nowhere", "no_such_package"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    poolzoo, plugin, tmp_path, monkeypatch, arguments, code, says, hints
):
    monkeypatch.chdir(tmp_path)
    outcome = poolzoo("export", *arguments, "--plugin", plugin)
    lines = [line for line in outcome.err.splitlines() if not line.startswith("warning:")]
    assert (outcome.code, outcome.out, len(lines)) == (code, "", 2), outcome.err
    assert says in lines[0]
    assert hints in lines[1]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_a_run_wins_over_a_name(poolzoo, plugin, run_copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_copy.rename(tmp_path / "tiny")
    refused = poolzoo("export", "tiny", "--pretrained", "--plugin", plugin)
    assert refused.code == 2
    assert "leave --pretrained out" in refused.err
    outcome = poolzoo("export", "tiny", "--plugin", plugin, "--no-bench", "--json")
    assert outcome.json["parity"]["images"] == "test"
    assert outcome.json["bundle"] == "exports/tiny"


def test_the_bundle_goes_to_exports_under_the_backbones_name(poolzoo, plugin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nameless").mkdir()  # any other directory of that name is in nobody's way
    outcome = poolzoo("export", "nameless", "--pretrained", "--plugin", plugin, "--no-bench", "-q")
    assert outcome.out.splitlines()[-1] == "exports/nameless"
    assert "accuracy not measured" in outcome.out
    assert read(tmp_path / "exports" / "nameless" / "config.json")["label_names"] == [*"0123456"]


def test_an_export_that_is_interrupted_or_fails_leaves_nothing(poolzoo, plugin, tmp_path, monkeypatch):
    arguments = ("export", "tiny", "--pretrained", "--plugin", plugin, "--out", tmp_path / "a" / "b", "-q")

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting.check, "check_parity", interrupted)
    assert poolzoo(*arguments).code == 130
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()

    real = ort_session.OnnxModel.run
    monkeypatch.setattr(
        ort_session.OnnxModel, "run", lambda self, *given, **how: tuple(1.01 * out for out in real(self, *given, **how))
    )
    outcome = poolzoo(*arguments, "--json")
    assert outcome.code == 1
    assert outcome.json["bundle"] is None
    assert re.search(r"(synthetic image \d+|black|white|gray|checkerboard|red|bright|noise)", outcome.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "facts",
    [
        {"input_size": None},
        {"network": 3},
        {"labels": ["a", "b"]},
        {"crop_pct": 0.0},
        {"crop_pct": 1.5},
        {"interpolation": "nearest"},
    ],
)
def test_the_contract_refuses_what_cannot_be(facts):
    given = {"name": "x", "summary": "", "build": "a.b:c", "network": "a.b:d", "input_size": 32, **facts}
    with pytest.raises((TypeError, ValueError), match=r"'x'|network"):
        Backbone(**given)


# --- timm and torchvision ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timm/resnet18", "resnet18", "torchvision/resnet18"])
def test_published_weights_without_a_network_are_the_environments_fault(poolzoo, tmp_path, monkeypatch, name):
    from poolzoo.backbones import connectivity

    monkeypatch.setattr(connectivity, "reachable", lambda url: False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    outcome = poolzoo("export", name, "--pretrained", "--out", tmp_path / "b")
    assert outcome.code == 4
    assert len(outcome.err.splitlines()) == 2
    assert "no network" in outcome.err or "network:" in outcome.err
    assert not (tmp_path / "b").exists()


def test_timms_network_is_timms_with_the_names_of_imagenets_classes(tmp_path, monkeypatch):
    import huggingface_hub
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_vit").eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repo, file: str(tmp_path / "model.safetensors")
    )
    source = published_network.from_backbone("timm/test_vit")
    pixels = torch.randint(0, 256, (2, *source.size, 3), dtype=torch.uint8)
    config = model.pretrained_cfg
    x = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(config["mean"]).view(3, 1, 1)) / torch.tensor(
        config["std"]
    ).view(3, 1, 1)
    with torch.no_grad():
        np.testing.assert_allclose(source.model(pixels)[0].numpy(), model(x).numpy(), atol=1e-5)
    assert source.size == (config["input_size"][1], config["input_size"][2])
    assert (source.fit.interpolation, source.fit.crop_pct) == (config["interpolation"], config["crop_pct"])
    assert source.classes[282] == "tiger cat"


@pytest.mark.parametrize("name", [pytest.param("densenet121", marks=pytest.mark.slow), "mobilenet_v3_small"])
def test_torchvisions_network_is_torchvisions_with_the_names_of_its_classes(tmp_path, monkeypatch, name):
    """From a file in torchvision's cache, a DenseNet's with the keys that the published ones have."""
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.get_model(name).eval()
    weights = torchvision.models.get_model_weights(name).DEFAULT
    old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))(\d)")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    file.parent.mkdir(parents=True)
    torch.save({old.sub(r"\1.\2", key): value for key, value in model.state_dict().items()}, file)
    source = published_network.from_backbone(f"torchvision/{name}")
    pixels = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    transform = weights.transforms()
    x = torchvision.transforms.functional.normalize(pixels.permute(0, 3, 1, 2) / 255, transform.mean, transform.std)
    with torch.no_grad():
        np.testing.assert_allclose(source.model(pixels)[0].numpy(), model(x).numpy(), atol=1e-4)
    assert source.classes == weights.meta["categories"]
    assert source.fit == images.Fit("bilinear", 0.875)


def test_a_model_without_published_weights_is_one_line():
    with pytest.raises(UsageError, match="no pretrained weights"):
        published_network.from_backbone("timm/coatnet_0_224")
