"""What every backbone promises, as checks. They build it without pretrained weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from poolzoo.common.temporary import temporary_folder
from poolzoo.model.backbone import build_backbone
from poolzoo.model.layout import as_feature_map, read_layout
from poolzoo.plugin import loader
from poolzoo.plugin.catalog import Entry, Resolved
from poolzoo.plugin.grammar import parse_spec
from poolzoo.plugin.imports import import_build
from poolzoo.plugin.problems import Source
from poolzoo.plugin.spec import Backbone
from poolzoo.testing.base import Checks, Failure
from poolzoo.testing.graph import exported
from poolzoo.testing.suite import Suite

SIDE: Final = 64  # pixels, where the backbone has no size of its own


class CheckedBackbone:
    """A backbone under test.

    Attributes:
        resolved: The backbone, with the options of its build.
        size: Height and width of its input.
    """

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        side = resolved.item.input_size or SIDE
        self.size = (side, side)

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return build_backbone(self.resolved, self.size).eval()

    def images(self, count: int, seed: int = 0) -> Tensor:
        return torch.randn(count, 3, *self.size, generator=torch.Generator().manual_seed(seed))

    def features(self, module: nn.Module, x: Tensor) -> Tensor:
        """The feature map `float[N, C, H, W]`, as a pooling would get it."""
        y = module(x)
        return as_feature_map(y, read_layout(self.resolved, module, y, self.size))


checks = Checks[CheckedBackbone]()


@checks.promise("return NCHW, NHWC or NLC features, one tensor, before any pooling; set layout= where it is unclear")
def features_are_a_map(checked: CheckedBackbone) -> None:
    """The output is one tensor that can be read as a feature map `[N, C, H, W]`, with one C for 1 and 3 images."""
    module = checked.build()
    shapes = []
    for count in (1, 3):
        with torch.no_grad():
            features = checked.features(module, checked.images(count))
        assert len(features) == count, f"{count} images become {list(features.shape)}"
        assert features.isfinite().all(), f"{count} images: some features are not finite"
        shapes.append(features.shape[1:])
    assert shapes[0] == shapes[1], f"1 image becomes {list(shapes[0])}, 3 become {list(shapes[1])}"


@checks.promise("normalize over channels or spatial locations in eval, never over the batch")
def images_are_independent(checked: CheckedBackbone) -> None:
    """In eval mode, the output for an image does not depend on the other images of the batch."""
    module, x = checked.build(), checked.images(3)
    with torch.no_grad():
        together = checked.features(module, x)
        for index in range(3):
            alone = checked.features(module, x[index : index + 1])[0]
            error = (alone - together[index]).abs().max().item()
            assert error <= 1e-4 * max(1.0, together.abs().max().item()), f"image {index} alone differs by {error:.3g}"


@checks.promise("draw random numbers only where self.training is true")
def eval_is_deterministic(checked: CheckedBackbone) -> None:
    """In eval mode, two calls give the same output."""
    module, x = checked.build(), checked.images(2)
    with torch.no_grad():
        assert torch.equal(module(x), module(x)), "two calls in eval mode differ"


@checks.promise("use every parameter, and do not detach; drop the classifier's")
def gradients_reach_everything(checked: CheckedBackbone) -> None:
    """In training, every trainable parameter gets a finite gradient."""
    module = checked.build().train()
    loss: Any = checked.features(module, checked.images(2)).square().mean()
    loss.backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"parameter {name} gets no gradient"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"


@checks.promise("register what is random as a parameter or a buffer")
def weights_survive_a_file(checked: CheckedBackbone) -> None:
    """Weights saved to safetensors and loaded into a new module give the same output."""
    from safetensors.torch import load_file, save_file

    first, second = checked.build(seed=0), checked.build(seed=1)
    with temporary_folder() as folder:
        path = folder / "weights.safetensors"
        save_file({key: value.contiguous().clone() for key, value in first.state_dict().items()}, path)
        second.load_state_dict(load_file(path))
    x = checked.images(2)
    with torch.no_grad():
        assert torch.equal(first(x), second(x)), "a module with the same weights gives other numbers"


@checks.promise("make tensors with device=x.device, or register them as buffers")
def nothing_stays_on_the_cpu(checked: CheckedBackbone) -> None:
    """In a forward pass with fake CUDA tensors, every tensor is on the device of the images."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = checked.build()
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with FakeTensorMode():
        fake = {name: torch.empty(t.shape, dtype=t.dtype, device="cuda") for name, t in named.items()}
        y = torch.func.functional_call(module, fake, torch.empty(2, 3, *checked.size, device="cuda"))
    assert y.device.type == "cuda", f"the output is on the {y.device}"


@checks.promise("avoid `if` on values, and len(x) for the batch (x.shape[0] stays dynamic)")
def exports_as_it_is(checked: CheckedBackbone) -> None:
    """`torch.onnx.export` succeeds, and ONNX Runtime agrees for 1, 2 and 3 images."""
    module = checked.build()
    graph = exported(module, [checked.images(2)], f"{checked.size[0]} × {checked.size[1]}")
    for count in (1, 2, 3):
        x = checked.images(count, seed=count)
        with torch.no_grad():
            expected = module(x)
        (found,) = graph.answers([x])
        error, scale = (found - expected).abs().max().item(), max(1.0, expected.abs().max().item())
        assert error <= 1e-4 * scale, f"{count} images under ONNX Runtime differ by {error:.3g} of {scale:.3g}"


def run_check(check: str, backbone: Backbone | str, **options: Any) -> None:
    """Runs one of `BACKBONE_CHECKS` on a backbone: a `Backbone`, or the name of one that is loaded.

    Raises:
        AssertionError: The promise is not kept.
        Exception: Whatever the backbone itself raises.
    """
    checks.run(check, _checked(backbone, options))


def check_backbone(
    backbone: Backbone | str, *, expected_failures: Mapping[str, str] | None = None, **options: Any
) -> list[Failure]:
    """Runs all of `BACKBONE_CHECKS` on a backbone.

    Args:
        backbone: A `Backbone`, or the name of one that is loaded.
        expected_failures: Checks that it is expected to fail, each with the reason; one that passes is a failure.
        options: Values for the options of its build.

    Returns:
        The failures, an empty list if there are none.
    """
    return checks.failures(_checked(backbone, options), expected_failures)


def _checked(backbone: Backbone | str, options: Mapping[str, object]) -> CheckedBackbone:
    if isinstance(backbone, str):
        return CheckedBackbone(loader.catalog().backbone(backbone))
    source = Source("under test", None, "file")
    make = import_build(backbone.build, backbone.name, source)
    return CheckedBackbone(Resolved(parse_spec(backbone.name), Entry(backbone, source), make, dict(options)))


CHECKS: Final = checks.ids


class BackboneTests(Suite, checks=checks, attribute="backbone", run=run_check):
    """Every promise of a backbone, as tests for pytest.

    Attributes:
        backbone: The item under test, or the name of one that is loaded.
    """

    backbone: ClassVar[Backbone | str | None] = None
