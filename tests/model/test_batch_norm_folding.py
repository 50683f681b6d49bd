"""Folded batch norms: the same but for rounding, and only where that is proven."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from timm.layers import BatchNormAct2d, create_conv2d
from torch import Tensor, nn

import poolzoo as package
from poolzoo.model import folding
from poolzoo.model.folding import fold_batch_norms


def with_statistics(module: nn.Module) -> nn.Module:
    """Gives batch norms the statistics and weights of a trained network."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in ((norm.weight, 0.5, 2), (norm.bias, -1, 1)):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)
            if norm.running_mean is not None:
                norm.running_mean.uniform_(-1, 1, generator=generator)
                norm.running_var.uniform_(0.2, 3, generator=generator)
    return module


def example() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def folded(module: nn.Module) -> nn.Module:
    return fold_batch_norms(module, lambda one: one(example()))


def norms(module: nn.Module) -> int:
    return sum(isinstance(one, nn.BatchNorm2d) for one in module.modules())


class Branches(nn.Module):
    """One convolution, whose output two modules take; and one that is folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second, self.other = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.other(self.second(self.norm(x)))


def timm_layers() -> nn.Module:
    layers = nn.Sequential(
        create_conv2d(3, 8, 3, stride=2, padding="same"), BatchNormAct2d(8, act_layer=nn.ReLU6), nn.Conv2d(8, 4, 1)
    )
    assert type(layers[0]).__name__ == "Conv2dSame"
    return layers


def relative_difference(found: nn.Module, module: nn.Module) -> float:
    """How far a module in float32 is from another one in float64, as a share of the largest value."""
    with torch.no_grad():
        exact = copy.deepcopy(module).double().eval()(example().double())
        return float((found(example()) - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize(
    ("build", "left"),
    [
        (lambda: package.create_model("nano/plain", image_size=16, num_classes=2).backbone, 0),
        (lambda: package.create_model("nano/resnet", image_size=16, num_classes=2).backbone, 0),
        (timm_layers, 0),
        (Branches, 1),
    ],
    ids=["nano/plain", "nano/resnet", "timm", "branches"],
)
def test_a_folded_backbone_gives_the_same_but_for_rounding(build, left):
    torch.manual_seed(3)
    module = with_statistics(build())
    before = copy.deepcopy(module.state_dict())
    found = folded(module)
    assert norms(found) == left < norms(module)
    assert relative_difference(found, module) < 5e-6
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Hardswish])
def test_an_activation_behind_the_norm_is_computed(activation):
    layers = [nn.Conv2d(3, 8, 3, padding=1), BatchNormAct2d(8, act_layer=activation), nn.Conv2d(8, 4, 1)]
    module = with_statistics(nn.Sequential(*layers))
    module[1].bias.data *= 20  # beyond 6 and below 0
    found = folded(module)
    left = sum(isinstance(one, activation) for one in found.modules())
    assert left == (activation is nn.Hardswish or not torch.backends.mkldnn.is_available())  # else with a convolution
    assert relative_difference(found, module) < 5e-6


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 2, 6), (5, 2, 6), (4, 3, 6), (3, 2, 1), (4, 2, 1)])
@pytest.mark.parametrize("size", [(16, 18), (15, 17), (16, 15)], ids=str)
def test_padding_as_tensorflow_is_computed(kernel, stride, groups, size, monkeypatch):
    """For sides that the stride divides by the convolution itself, unless a copy of the map costs less."""
    layers = [
        nn.Conv2d(3, 6, 1),
        create_conv2d(6, 12, kernel, stride=stride, padding="same", groups=groups),
        BatchNormAct2d(12, act_layer=nn.ReLU6),
    ]
    module = with_statistics(nn.Sequential(*layers))
    found = folded(module)
    has_onednn = torch.backends.mkldnn.is_available()
    assert sum(isinstance(one, nn.Conv2d) for one in found.modules()) == (1 if has_onednn else 2)
    copies = []
    padding = sys.modules[folding.TIMM_PADDING]
    real = padding.pad_same
    monkeypatch.setattr(padding, "pad_same", lambda *arguments: copies.append(1) or real(*arguments))
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(found(x), module.eval()(x), rtol=1e-5, atol=1e-5)
    is_divided = all(side % stride == 0 for side in size)
    pads_itself = is_divided and (groups > 1 or (kernel - stride) % 2 == 0)
    assert bool(copies) == (has_onednn and not pads_itself)


def test_without_onednn_norms_are_folded_all_the_same(monkeypatch):
    def missing(tensor):
        raise RuntimeError("not compiled with MKLDNN support")

    monkeypatch.setattr(Tensor, "to_mkldnn", missing)
    module = with_statistics(timm_layers())
    found = folded(module)
    assert norms(found) == 0
    assert relative_difference(found, module) < 5e-6


def test_copies_of_a_folded_backbone_give_the_same_bits():
    found = folded(with_statistics(timm_layers()))
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(found)(example()), found(example()))


def _twice() -> nn.Module:
    convolution = nn.Conv2d(3, 3, 1)
    return nn.Sequential(convolution, nn.BatchNorm2d(3), convolution, nn.ReLU())


def _hooked(where: int) -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    layers[where].register_forward_hook(lambda module, given, result: 2 * result)
    return layers


def _patched() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    original = layers[0].forward
    layers[0].forward = lambda x: 2 * original(x)
    return layers


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


class AlwaysTraining(nn.Sequential):
    """Its norm follows the batch in eval mode too."""

    def train(self, mode: bool = True) -> AlwaysTraining:
        super().train(mode)
        self[1].training = True
        return self


class OwnCode(nn.Module):
    """Layers, and something else that reads or decides.

    Args:
        what: Which.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.convolution, self.norm = what, nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "decides by values" and x.mean() > 5:
            return x
        y = self.norm(self.convolution(x))
        if self.what == "reads an attribute of the norm":
            return y * self.norm.num_features
        if self.what == "reads weights":
            return y + self.convolution.weight.sum()
        if self.what == "reads weights unseen":
            return y + float(self.convolution.weight.detach().sum())
        return y


@pytest.mark.parametrize(
    "build",
    [
        _twice,
        lambda: _hooked(0),
        lambda: _hooked(1),
        _patched,
        lambda: nn.Sequential(Standardized(3, 3, 1), nn.BatchNorm2d(3)),
        lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)),
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)),
        lambda: AlwaysTraining(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)),
        lambda: OwnCode("decides by values"),
        lambda: OwnCode("reads an attribute of the norm"),
        lambda: OwnCode("reads weights"),
        lambda: OwnCode("reads weights unseen"),
    ],
    ids=[
        *(
            "used twice",
            "hook of a convolution",
            "hook of a norm",
            "own forward",
            "another convolution",
            "statistics of the batch",
        ),
        *("an activation between", "weight norm", "always training", "control flow", "attribute", "weights", "unseen"),
    ],
)
@pytest.mark.parametrize("compares", [True, False])
def test_what_is_not_proven_stays_as_it_is(build, compares, monkeypatch):
    """Whether or not an example would show the difference."""
    if not compares:
        monkeypatch.setattr(folding, "_is_same", lambda *_: True)
    module = with_statistics(build())
    assert folded(module) is module


class KnowsItself(nn.Sequential):
    """Layers that a trace proves, in a module that computes something else where it is copied."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        self.known = id(self[0])

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = super().forward(x)
        return result if id(self[0]) == self.known else result + 1


def test_a_copy_that_gives_something_else_is_not_taken(monkeypatch):
    module = with_statistics(KnowsItself())
    assert folded(module) is module
    monkeypatch.setattr(folding, "_is_same", lambda *_: True)
    assert folded(module) is not module


def test_what_overflows_stays_as_it_is():
    module = with_statistics(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    module[1].weight.data.fill_(torch.inf)
    assert folded(module) is module
    module[1].weight.data.fill_(1)
    assert folded(module) is not module


def test_a_copy_shares_what_is_not_folded():
    module = with_statistics(Branches())
    assert folded(module).norm.weight is module.norm.weight
