"""Assembly: any backbone with any pooling, widths and layouts measured, maps large enough to pool."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import poolzoo
from poolzoo.common.errors import PluginFailed, UsageError
from poolzoo.model import surgery
from poolzoo.model.assemble import assemble
from poolzoo.model.config import ModelConfig
from poolzoo.model.network import Preprocess
from poolzoo.plugin import loader


def model_config(backbone: str, pool: str = "avg", **rest) -> ModelConfig:
    return ModelConfig(**{"backbone": backbone, "pool": pool, "num_classes": 10, "data_size": (32, 32), **rest})


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves weights as memory holds them: shapes ask for none, and to draw a hundred million takes seconds."""
    for name in ("normal_", "uniform_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        if hasattr(torch.Tensor, name):
            monkeypatch.setattr(torch.Tensor, name, lambda tensor, *_, **__: tensor)
    monkeypatch.setattr(torch.Tensor, "erfinv_", lambda tensor: tensor)


@pytest.mark.parametrize(
    ("backbone", "layout", "channels", "map_size", "image_size"),
    [
        ("nano/plain", "NCHW", 64, (8, 8), 32),
        ("nano/resnet", "NCHW", 128, (4, 4), 32),
        ("timm/resnet18", "NCHW", 512, (4, 4), 128),
        ("timm/mobilenetv3_small_050", "NCHW", 1024, (4, 4), 128),  # timm's own num_features says 288
        ("timm/test_vit", "NLC", 64, (4, 4), 64),
        ("timm/swin_tiny_patch4_window7_224", "NHWC", 768, (4, 4), 128),
        pytest.param("timm/vgg11_bn", "NCHW", 512, (4, 4), 128, marks=pytest.mark.slow),
        ("torchvision/mobilenet_v3_small", "NCHW", 576, (4, 4), 128),
        ("torchvision/squeezenet1_1", "NCHW", 512, (7, 7), 128),
        ("torchvision/vit_b_32", "NLC", 768, (4, 4), 128),
        pytest.param("torchvision/swin_t", "NCHW", 768, (4, 4), 128, marks=pytest.mark.slow),
        pytest.param("torchvision/shufflenet_v2_x0_5", "NCHW", 1024, (4, 4), 128, marks=pytest.mark.slow),
    ],
)
def test_layout_width_and_map_are_measured(undrawn, backbone, layout, channels, map_size, image_size):
    assembly = assemble(model_config(backbone))
    found = assembly.layout
    assert (found.kind, found.channels, found.map_size) == (layout, channels, map_size)
    assert assembly.image_size == (image_size, image_size)
    assert assembly.out_features == channels
    assert assembly.network.eval()(torch.randn(2, 3, image_size, image_size)).shape == (2, 10)


@pytest.mark.parametrize("pool", ["catavgmax", "adaptive:size=3"])
def test_the_pools_width_is_measured(pool):
    factor = {"catavgmax": 2, "adaptive:size=3": 9}[pool]
    for backbone, channels in (("nano/plain", 64), ("timm/test_vit", 64), ("timm/test_convnext", 64)):
        assert assemble(model_config(backbone, pool)).out_features == factor * channels


def test_timms_own_features_and_pool_give_the_same_numbers():
    import timm

    torch.manual_seed(0)
    network = poolzoo.create_model("timm/resnet18", image_size=64).eval()
    theirs = timm.create_model("resnet18", num_classes=0).eval()
    theirs.load_state_dict(network.backbone.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network.pool(network.forward_map(x)), theirs(x))


def test_torchvisions_own_features_and_pool_give_the_same_numbers():
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.densenet121().eval()
    network = poolzoo.create_model("torchvision/densenet121", image_size=64).eval()
    own = {f"body.{key}": value for key, value in theirs.state_dict().items() if not key.startswith("classifier")}
    network.backbone.load_state_dict(own)
    theirs.classifier = nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network.pool(network.forward_map(x)), theirs(x))


def test_a_model_rewired_for_weights_is_the_same_without_them(monkeypatch, tmp_path):
    """googlenet's published weights switch a hidden `transform_input` on; a run must come back as it was trained."""
    import torchvision

    theirs = torchvision.models.googlenet(init_weights=False, aux_logits=True)
    weights = torchvision.models.GoogLeNet_Weights.DEFAULT
    (tmp_path / "checkpoints").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "checkpoints" / weights.url.rsplit("/", 1)[-1])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    filled = assemble(model_config("torchvision/googlenet", image_size=(64, 64), pretrained=True))
    again = assemble(model_config("torchvision/googlenet", image_size=(64, 64)))
    again.network.load_state_dict(filled.network.state_dict())
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(again.network.eval()(x), filled.network.eval()(x))
    theirs.transform_input, theirs.fc = True, nn.Identity()
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pooled = filled.network.pool(filled.network.forward_map((x - 0.5) / 0.5))
    torch.testing.assert_close(pooled, theirs.eval()((x - mean) / std), rtol=1e-4, atol=1e-5)


PICKY = """
from poolzoo import Backbone, hookimpl

def build(*, pretrained=False, least=64):
    from torch import nn
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, stride=8, padding=1)
        def forward(self, x):
            if x.shape[-1] < least:
                raise RuntimeError("too small for me")
            return self.conv(x)
    return Picky()

@hookimpl
def poolzoo_backbones():
    yield Backbone(name="picky", summary="takes 64 pixels or more", build=build)
"""


def test_a_plugins_backbone_that_refuses_small_images_gets_larger_ones(tmp_path):
    (tmp_path / "acme.py").write_text(PICKY)
    loader.load_plugins(tmp_path / "acme.py", installed=False)
    assert assemble(model_config("picky")).image_size == (64, 64)
    for refused in (model_config("picky", image_size=(32, 32)), model_config("picky:least=9999")):
        with pytest.raises(PluginFailed, match="too small for me") as caught:
            assemble(refused)
        assert "acme" in caught.value.message


def test_a_copied_torchvision_backbone_keeps_its_mode():
    import copy

    network = assemble(model_config("torchvision/mobilenet_v3_small", image_size=(64, 64))).network.eval()
    x = torch.randn(2, 3, 64, 64)
    copied = copy.deepcopy(network)
    assert not any(module.training for module in copied.modules())
    torch.testing.assert_close(copied(x), network(x))


def test_an_image_too_small_for_a_backbone_names_the_option():
    for backbone, side in (("torchvision/squeezenet1_1", 16), ("nano/plain", 1)):
        with pytest.raises(UsageError) as caught:
            assemble(model_config(backbone, image_size=(side, side)))
        assert "--image-size" in caught.value.hint


def test_a_backbone_built_for_one_size_gets_that_size():
    """Its partitions of 7 × 7 positions do not fit the map of 64 pixels, which it says when it is built."""
    with pytest.raises(ValueError, match="partition size 7"):
        loader.catalog().backbone("torchvision/maxvit_t").build(image_size=(64, 64))


@pytest.mark.slow
def test_a_backbone_of_one_size_alone_gets_its_native_size():
    assert assemble(model_config("torchvision/maxvit_t")).image_size == (224, 224)  # 7 s of tracing


def test_tokens_become_the_map_that_they_came_from():
    """A pooled corner of a ViT's map is the mean of the tokens of that corner, class token left out."""
    network = poolzoo.create_model("timm/test_vit", pool="adaptive:size=2", image_size=64).eval()
    x = torch.randn(1, 3, 64, 64)
    tokens = network.backbone(x)[0, 1:]  # 16 tokens, row by row
    corner = tokens[[0, 1, 4, 5]].mean(0)
    pooled = network.pool(network.forward_map(x)).view(64, 2, 2)
    torch.testing.assert_close(pooled[:, 0, 0], corner)


def test_a_one_by_one_map_is_refused_with_hints():
    with pytest.raises(UsageError) as caught:
        assemble(model_config("timm/resnet18", image_size=(32, 32)))
    assert "1×1" in caught.value.message
    assert "--image-size" in caught.value.hint
    assert "--stem small" in caught.value.hint


@pytest.mark.parametrize(
    ("backbone", "image_size", "map_size", "keeps_pool"),
    [
        ("timm/resnet18", (32, 32), (4, 4), False),
        ("timm/mobilenetv3_small_050", (64, 64), (4, 4), True),
        pytest.param("torchvision/densenet121", (32, 32), (4, 4), False, marks=pytest.mark.slow),
    ],
)
def test_a_small_stem_keeps_small_images_large(backbone, image_size, map_size, keeps_pool):
    assembly = assemble(model_config(backbone, stem="small"))
    assert (assembly.image_size, assembly.layout.map_size) == (image_size, map_size)
    assert any("stride 2 → 1" in change for change in assembly.backbone.stem_changes)
    assert any("left out" in change for change in assembly.backbone.stem_changes) != keeps_pool


def test_a_small_stem_keeps_its_pooling_where_the_map_allows():
    assembly = assemble(model_config("timm/resnet18", stem="small", image_size=(64, 64)))
    assert assembly.layout.map_size == (4, 4)
    assert len(assembly.backbone.stem_changes) == 1


def test_a_stem_of_patches_is_refused():
    with pytest.raises(UsageError, match="patches"):
        assemble(model_config("timm/test_vit", stem="small", image_size=(64, 64)))


def test_local_pooling_replaces_every_downsampling_pool_and_keeps_its_geometry():
    stock = assemble(model_config("nano/resnet"))
    assembly = assemble(model_config("nano/resnet", local_pool="blur"))
    assert assembly.backbone.replaced == ("pool1", "pool2", "pool3")
    assert not surgery.pooling_modules(assembly.network.backbone)
    assert assembly.layout == stock.layout


@pytest.mark.slow
def test_local_pooling_reaches_into_timm_and_torchvision(undrawn):
    assert assemble(model_config("timm/resnet18", local_pool="maxblur")).backbone.replaced == ("maxpool",)
    replaced = assemble(model_config("torchvision/densenet121", local_pool="max")).backbone.replaced
    assert [name.split(".")[-1] for name in replaced] == ["pool0", "pool", "pool", "pool"]
    assert len(assemble(model_config("timm/resnet18d", local_pool="avg", image_size=(64, 64))).backbone.replaced) == 4


def test_a_window_may_be_changed():
    assembly = assemble(model_config("nano/plain", local_pool="max:window=3"))
    pools = surgery.pooling_modules(assembly.network.backbone)
    assert [(p.kernel_size, p.stride, p.padding) for p in pools.values()] == [(3, 2, 1), (3, 2, 1)]
    assert assembly.layout.map_size == (8, 8)


def test_no_pooling_to_replace_is_an_error_despite_token_mixers():
    for backbone in ("timm/test_convnext", "timm/poolformer_s12"):
        with pytest.raises(UsageError, match="no pooling module"):
            assemble(model_config(backbone, local_pool="avg", image_size=(64, 64)))


def test_timms_same_padding_pools_keep_their_output_size():
    from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame

    for original in (MaxPool2dSame(3, 2), AvgPool2dSame(2, 2), MaxPool2dSame(2, 2), AvgPool2dSame(4, 2)):
        for size in (7, 8, 9):
            x = torch.randn(1, 4, size, size)
            module = nn.Sequential(original)
            expected = module(x).shape
            resolved = loader.catalog().pooling("max", "local")
            surgery.replace_local_pooling(module, resolved.build, x)
            assert module(x).shape == expected


@pytest.mark.parametrize("head", ["linear", "mlp:32"])
def test_heads(head):
    network = assemble(model_config("nano/plain", head=head)).network
    x = torch.randn(2, 3, 32, 32)
    assert network(x).shape == (2, 10)
    assert sum(isinstance(m, nn.Linear) for m in network.classifier.modules()) == (1 if head == "linear" else 2)


def test_images_that_are_not_square():
    for backbone in ("nano/plain", "timm/resnet18", "timm/test_vit"):
        assembly = assemble(model_config(backbone, "catavgmax", data_size=(32, 64)))
        height, width = assembly.layout.map_size
        assert width == 2 * height
        assert height >= 4
        assert assembly.network.eval()(torch.randn(2, 3, *assembly.image_size)).shape == (2, 10)


def test_preprocessing_is_normalization_and_bilinear_resizing():
    images = torch.randint(0, 256, (2, 5, 6, 3), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    x = Preprocess(mean, std, (5, 6), (10, 12))(images)
    expected = (images.double().numpy() / 255 - mean) / std
    expected = nn.functional.interpolate(
        torch.from_numpy(expected).permute(0, 3, 1, 2), scale_factor=2, mode="bilinear"
    )
    torch.testing.assert_close(x.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return x.mean((2, 3), keepdim=True)", "[N, D]"),
        ("return x.mean()", "[N, D]"),
        ("raise RuntimeError('boom')", "boom"),
        ("return None", "[N, D]"),
    ],
)
def test_a_pooling_that_breaks_its_contract_is_named(tmp_path, body, says):
    (tmp_path / "bad.py").write_text(
        "from poolzoo import Pooling, hookimpl\n"
        "def build(channels):\n    from torch import nn\n"
        f"    class Bad(nn.Module):\n        def forward(self, x):\n            {body}\n    return Bad()\n"
        "@hookimpl\ndef poolzoo_poolings():\n    yield Pooling(name='bad', summary='', kind='global', build=build)\n"
    )
    loader.load_plugins(tmp_path / "bad.py", installed=False)
    with pytest.raises(PluginFailed) as caught:
        assemble(model_config("nano/plain", "bad"))
    assert "bad" in caught.value.message
    assert says in caught.value.message + caught.value.hint


def test_a_build_that_names_map_size_is_told(tmp_path):
    (tmp_path / "sized.py").write_text(
        "from poolzoo import Pooling, hookimpl\n"
        "def build(channels, *, map_size=None):\n    from torch import nn\n"
        "    class Sized(nn.Module):\n        told = map_size\n"
        "        def forward(self, x):\n            return x.mean((2, 3))\n"
        "    return Sized()\n"
        "@hookimpl\ndef poolzoo_poolings():\n    yield Pooling(name='sized', summary='', kind='global', build=build)\n"
    )
    loader.load_plugins(tmp_path / "sized.py", installed=False)
    assert assemble(model_config("nano/plain", "sized")).network.pool.told == (8, 8)


def test_the_whole_network_runs_on_fake_cuda_tensors():
    """A forward pass with fake CUDA tensors, which needs no GPU: a tensor left on the CPU would raise."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    for backbone, pool in (("nano/resnet", "gem"), ("timm/resnet18", "lse"), ("timm/test_vit", "adaptive")):
        assembly = assemble(model_config(backbone, pool, local_pool="blur" if backbone != "timm/test_vit" else None))
        preprocess = Preprocess((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), (32, 32), assembly.image_size)
        model = nn.Sequential(preprocess, assembly.network).eval()
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        with FakeTensorMode():
            fake = {k: torch.empty(v.shape, dtype=v.dtype, device="cuda") for k, v in named.items()}
            images = torch.empty(2, 32, 32, 3, dtype=torch.uint8, device="cuda")
            out = torch.func.functional_call(model, fake, images)
        assert out.device.type == "cuda"
        assert out.shape == (2, 10)


def test_python_names_as_the_command_line_does():
    network = poolzoo.create_model("timm/resnet18", pool="gem:p=4", local_pool="blur", num_classes=7, image_size=64)
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    assert "timm/resnet18" in poolzoo.list_backbones("timm/resnet1*")
    assert poolzoo.list_backbones("nano/*") == ["nano/plain", "nano/resnet"]
    assert {"nano/resnet", "timm/resnet18", "torchvision/resnet18"} <= set(poolzoo.list_backbones())


@pytest.mark.parametrize(("local_pool", "widths"), [("depth", (16, 32)), ("s2d", (128, 256)), ("max", (32, 64))])
def test_nano_measures_the_width_behind_its_pools(local_pool, widths):
    for name in ("nano/plain", "nano/resnet"):
        network = assemble(ModelConfig(name, "avg", 10, (32, 32), local_pool=local_pool)).network
        assert (network.backbone.conv2.conv.in_channels, network.backbone.conv3.conv.in_channels) == widths
        assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_changed_channels_are_refused_where_the_next_layer_is_fixed():
    with pytest.raises(UsageError, match="64 channels into 32 at maxpool") as refused:
        assemble(ModelConfig("timm/resnet18", "avg", 10, (64, 64), local_pool="depth"))
    assert "nano/plain" in refused.value.hint


def test_a_geometry_refused_by_a_plugin_is_a_usage_error(tmp_path):
    plugin = tmp_path / "picky.py"
    plugin.write_text(
        "from poolzoo import Pooling, hookimpl\n"
        "def build(channels, kernel_size, stride, padding, ceil_mode):\n"
        "    raise ValueError(f'kernel_size={kernel_size} must be 2')\n"
        "@hookimpl\n"
        "def poolzoo_poolings():\n"
        "    yield Pooling(name='picky', summary='', kind='local', build=build)\n"
    )
    loader.load_plugins(plugin, installed=False)
    with pytest.raises(UsageError, match="kernel_size=3 must be 2"):
        assemble(ModelConfig("timm/resnet18", "avg", 10, (64, 64), local_pool="picky"))


def test_a_geometry_that_does_not_fit_is_refused_at_assembly():
    with pytest.raises(UsageError, match=r"kernel_size=3.*window=2,stride=2,padding=0"):
        assemble(ModelConfig("timm/resnet18", "avg", 10, (64, 64), local_pool="wavelet"))
