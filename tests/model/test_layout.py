"""Which map a sequence of tokens is: refused where it has to be guessed, and what of an image is never seen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import poolzoo as package
from poolzoo.common.errors import PluginFailed, UsageError
from poolzoo.model.assemble import assemble
from poolzoo.model.config import ModelConfig
from poolzoo.model.layout import read_layout
from poolzoo.plugin import loader

PLUGIN = """
from poolzoo import Backbone, hookimpl

def build(*, pretrained=False):
    import torch
    from torch import nn
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 16, 16)
            self.extra = nn.Parameter(torch.zeros(1, {extra}, 8))
        def forward(self, x):
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            return torch.cat([self.extra.expand(len(x), -1, -1), tokens], 1)
    return Tokens()

@hookimpl
def poolzoo_backbones():
    yield Backbone(name="silent", summary="says nothing of its class tokens", build=build)
    yield Backbone(name="said", summary="says it", build=build, prefix_tokens={extra})
"""


def model_config(backbone: str, height: int, width: int) -> ModelConfig:
    return ModelConfig(backbone, "avg", 10, (height, width), (height, width))


@pytest.fixture
def tokens(tmp_path):
    (tmp_path / "tokens.py").write_text(PLUGIN.format(extra=2))
    loader.load_plugins(tmp_path / "tokens.py", installed=False)


def test_tokens_that_form_no_square_are_refused(tokens):
    with pytest.raises(PluginFailed, match="198 tokens of 224×224 images are no square, 2 more than 14×14") as caught:
        assemble(model_config("silent", 224, 224))
    assert "prefix_tokens" in caught.value.message
    assert "prefix_tokens" in caught.value.hint
    assert assemble(model_config("said", 224, 224)).layout.map_size == (14, 14)


def test_tokens_of_an_oblong_image_need_one_grid_alone(tokens):
    assert assemble(model_config("said", 64, 128)).layout.map_size == (4, 8)
    with pytest.raises(PluginFailed, match="34 tokens of 64×128 images"):
        assemble(model_config("silent", 64, 128))


def layout_of(tokens: int, height: int, width: int, grid: tuple[int, int] | None = None, prefix: int = 0):
    backbone = loader.catalog().backbone("timm/test_vit")
    module = nn.Identity()
    module.num_prefix_tokens = prefix
    if grid is not None:
        module.patch_embed = nn.Identity()
        module.patch_embed.grid_size = grid
    return read_layout(backbone, module, torch.zeros(1, tokens, 4), (height, width)).map_size


def test_the_patches_that_a_network_names_are_the_grid():
    assert layout_of(32, 64, 128, grid=(8, 4)) == (8, 4)
    assert layout_of(34, 64, 128, prefix=2) == (4, 8)


def test_a_grid_must_be_one_that_patches_can_leave():
    assert layout_of(12, 30, 40) == (3, 4)
    assert layout_of(48, 130, 98) == (8, 6)
    for strange in (11, 13):
        with pytest.raises(PluginFailed, match="prefix_tokens"):
            layout_of(strange, 30, 40)


@pytest.mark.parametrize(("name", "prefix"), [("deit_tiny_distilled_patch16_224", 2), ("test_vit3", 1)])
def test_timms_class_and_register_tokens_are_known(name, prefix):
    with torch.device("meta"):
        module = loader.catalog().backbone(f"timm/{name}").item.build(image_size=(64, 64), depth=1)
        features = module(torch.zeros(1, 3, 64, 64))
    assert module.num_prefix_tokens == prefix
    assert read_layout(loader.catalog().backbone(f"timm/{name}"), module, features, (64, 64)).map_size == (4, 4)


# --- What is never seen --------------------------------------------------------------------------------------------


STRIDED = """
from poolzoo import Backbone, hookimpl

def build(*, pretrained=False, patch=4):
    from torch import nn
    return nn.Sequential(nn.Conv2d(3, 4, patch, patch), nn.Conv2d(4, 4, 2, 2))

@hookimpl
def poolzoo_backbones():
    yield Backbone(name="strided", summary="two convolutions without padding", build=build)
"""


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ((34, 32), "2 rows of 34×32 images; all is seen of 32×32 and 40×32"),
        ((32, 37), "5 columns of 32×37 images; all is seen of 32×32 and 32×40"),
        ((33, 47), "1 row and 7 columns of 33×47 images; all is seen of 32×40 and 40×48"),
        ((32, 40), None),
    ],
)
def test_unseen_pixels_are_reported_with_the_sizes_that_fit(tmp_path, capsys, size, says):
    (tmp_path / "strided.py").write_text(STRIDED)
    loader.load_plugins(tmp_path / "strided.py", installed=False)
    package.create_model("strided", image_size=size)
    said = capsys.readouterr().err
    assert (f"strided never sees {says}" in said) if says else "never sees" not in said


def test_a_transformers_remainder_names_the_sides_below_and_above(capsys):
    package.create_model("timm/vit_tiny_patch16_224:depth=1,embed_dim=24,num_heads=2", image_size=130)
    assert "2 rows and 2 columns of 130×130 images; all is seen of 128×128 and 144×144" in capsys.readouterr().err


def test_a_backbone_without_gradients_can_be_used_frozen(poolzoo, tmp_path):
    """Nothing can be told of what it sees, and nothing is said."""
    frozen = "    made.forward = torch.no_grad()(made.forward)\n    return made\n\n@hookimpl"
    text = STRIDED.replace(
        "    from torch import nn\n    return", "    import torch\n    from torch import nn\n    made ="
    )
    (tmp_path / "strided.py").write_text(text.replace("\n@hookimpl", frozen))
    arguments = ("--data", "digits", "--backbone", "strided", "--freeze", "backbone", "--epochs", 1, "--limit", 100)
    outcome = poolzoo("finetune", "--plugin", tmp_path / "strided.py", *arguments, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "never sees" not in outcome.err


def test_branches_that_start_at_zero_see_nonetheless(capsys):
    """timm's residual networks begin with the last scale of every branch at zero."""
    package.create_model("timm/resnet18", image_size=64)
    assert "never sees" not in capsys.readouterr().err


def test_a_refused_size_names_the_nearest_that_are_not():
    with pytest.raises(UsageError) as caught:
        package.create_model("timm/test_vit", image_size=130)
    assert caught.value.hint == "use --image-size 128 or 144"
