"""Every pooling keeps every promise of the conformance kit, and the kit finds each kind of mistake."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import poolzoo
from poolzoo import testing
from poolzoo.plugin import loader, spec
from poolzoo.runtime.portability import portability
from poolzoo.testing.checked_pooling import CheckedPooling
from poolzoo.testing.pooling_export import assert_exports

CATALOG = loader.load_plugins(installed=False)
ITEMS = [entry.item for entry in CATALOG.select(spec.Pooling)]
EXPORT = "exports_as_it_is"  # a check of its own below, which looks at the graph as well
AGREEING = {"opencv", "openvino", "tract", "mnn", "iree"}  # runtimes that compute every built-in pooling


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item.name}-{item.kind}")
def test_every_pooling_keeps_its_promises(item):
    broken = {}
    for check in testing.CHECKS:
        try:
            if check != EXPORT:
                testing.run_check(check, item)
        except AssertionError as error:
            broken[check] = str(error)
    assert broken == {}


@pytest.mark.parametrize("sides", [(7,), pytest.param((7, 8), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item.name}-{item.kind}")
def test_every_graph_is_right_and_portable(item, sides):
    graph = assert_exports(CheckedPooling(item, CATALOG.pooling(item.name, item.kind).build, {}), sides)
    assert [str(issue) for issue in portability(graph) if issue.runtime in AGREEING] == []


# --- Mistakes that plugin authors make -------------------------------------------------------------------------------


def module(forward, *, parameters=None, buffers=None, attributes=None):
    """A build that gives a module with this forward function and these tensors."""

    def build(channels, *geometry):
        made = nn.Module()
        for name, make in (parameters or {}).items():
            setattr(made, name, nn.Parameter(make(channels)))
        for name, make in (buffers or {}).items():
            made.register_buffer(name, make(channels), persistent=False)
        for name, make in (attributes or {}).items():
            setattr(made, name, make(channels))
        made.geometry = geometry
        made.forward = forward.__get__(made)
        return made

    return build


class Halved(torch.autograd.Function):
    """The identity with half of its gradient."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient / 2


def only_powers_of_two(channels):
    if channels & (channels - 1):
        raise RuntimeError(f"{channels} channels cannot be split")
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def naive_soft(self, x):
    weight = x.exp()
    return (x * weight).sum((2, 3)) / weight.sum((2, 3))


def with_lost_epsilon(self, x):
    active = x.relu()
    return active.square().sum((2, 3)) / (active.sum((2, 3)) + 1e-12)


def overflowing_square(self, x):
    return x.square().mean((2, 3)).sqrt() if x.dtype == torch.float16 else x.square().mean((2, 3)).clamp(1e-9).sqrt()


SHARED: dict[tuple[int, ...], torch.Tensor] = {}


def with_a_buffer_for_all(self, x):
    buffer = SHARED.setdefault(tuple(x.shape), torch.empty_like(x))
    buffer.copy_(x.detach())
    return x.mean((2, 3)) + buffer.amax((2, 3))


def with_all_threads(self, x):
    torch.set_num_threads(torch.get_num_threads() + 1)
    return x.mean((2, 3))


def seeded(self, x):
    torch.manual_seed(0)
    return x.mean((2, 3)) + torch.rand(1)


MISTAKES = {
    "no module": (lambda channels: 3, "shapes", "int"),
    "a map comes out": (module(lambda self, x: x), "shapes", "dimensions"),
    "the width depends on the map": (module(lambda self, x: x.mean(3).flatten(1)), "shapes", "width"),
    "a tuple comes out": (module(lambda self, x: (x.mean((2, 3)), 0)), "shapes", "tuple"),
    "fails at one position": (
        module(lambda self, x: F.pad(x, (1, 1), mode="reflect").mean((2, 3))),
        "shapes",
        "Padding",
    ),
    "fails at odd channels": (only_powers_of_two, "channel_counts", "cannot be split"),
    "a float64 constant": (
        module(lambda self, x: x.mean((2, 3)) * self.w, buffers={"w": lambda n: torch.ones(n).double()}),
        "dtype_is_kept",
        "float32 becomes torch.float64",
    ),
    "branches on values": (
        module(lambda self, x: x.mean((2, 3)) if x.sum() > 0 else x.mean((2, 3)) + 0.0),
        "exports_as_it_is",
        "torch.where",
    ),
    "looks at its neighbors": (module(lambda self, x: x.mean((2, 3)) - x.min()), "images_are_independent", "alone"),
    "draws in eval": (module(lambda self, x: F.dropout(x).mean((2, 3))), "eval_is_deterministic", "differ"),
    "draws in training": (
        module(lambda self, x: F.dropout(x, training=self.training).mean((2, 3))),
        "training_is_declared",
        "stochastic",
    ),
    "has a hidden parameter": (
        module(lambda self, x: x.mean((2, 3)) * self.w, parameters={"w": torch.ones}),
        "parameters_are_declared",
        "24 parameters",
    ),
    "writes to its input": (module(lambda self, x: x.relu_().mean((2, 3))), "input_is_left_alone", "in place"),
    "a wrong gradient": (module(lambda self, x: Halved.apply(x.mean((2, 3)))), "gradients_are_right", "Jacobian"),
    "a detached map": (module(lambda self, x: x.detach().mean((2, 3))), "gradients_reach_everything", "no gradient"),
    "a parameter that is never used": (
        module(lambda self, x: x.mean((2, 3)), parameters={"w": torch.ones}),
        "gradients_reach_everything",
        "gradient for w",
    ),
    "nothing to divide by": (
        module(lambda self, x: x.relu().square().sum((2, 3)) / x.relu().sum((2, 3))),
        "extremes_are_finite",
        "not finite",
    ),
    "an infinite gradient": (
        module(lambda self, x: x.var((2, 3), correction=0).sqrt()),
        "extremes_are_finite",
        "gradient",
    ),
    "a norm with a tiny floor": (
        module(lambda self, x: F.normalize(x.amax((2, 3)), eps=1e-12)),
        "gradients_are_bounded",
        "zeros: the gradient for the feature map reaches",
    ),
    "a root that is too steep": (
        module(lambda self, x: x.mean((2, 3)) * x.mean((2, 3)).abs().clamp(min=1e-12).rsqrt()),
        "gradients_are_bounded",
        "zeros: the gradient for the feature map reaches",
    ),
    "an overflowing exponential": (module(naive_soft), "extremes_are_finite", "not finite"),
    "an overflowing square": (module(overflowing_square), "low_precision_is_close", "float16, hundreds"),
    "a view of the memory": (
        module(lambda self, x: x.view(*x.shape[:2], -1).mean(2)),
        "memory_format_does_not_matter",
        "view",
    ),
    "weights that are no state": (
        module(lambda self, x: x.mean((2, 3)) * self.w, attributes={"w": torch.randn}),
        "weights_survive_a_file",
        "other numbers",
    ),
    "a tensor on the CPU": (
        module(lambda self, x: x.mean((2, 3)) * self.w, attributes={"w": torch.ones}),
        "nothing_stays_on_the_cpu",
        "FakeTensor",
    ),
    "a buffer that all layers write to": (
        module(with_a_buffer_for_all),
        "calls_do_not_meet",
        "the output changes where another layer computes",
    ),
    "threads of its own": (module(with_all_threads), "torch_is_left_alone", "the number of threads of torch was"),
    "a seed of its own": (module(seeded), "torch_is_left_alone", "seeds the random generator"),
    "an operator without a graph form": (
        module(lambda self, x: F.adaptive_max_pool2d(x, 3).flatten(1)),
        "exports_as_it_is",
        "torch.onnx.export fails",
    ),
    "an epsilon that the exporter deletes": (module(with_lost_epsilon), "exports_as_it_is", "not finite"),
    "a divisor that the exporter ignores": (
        module(lambda self, x: F.avg_pool2d(x, 2, divisor_override=1).mean((2, 3))),
        "exports_as_it_is",
        "differs by",
    ),
    "a batch that is a number": (
        module(lambda self, x: x.mean((2, 3)) * len(x) / len(x)),
        "exports_as_it_is",
        "x.shape[0]",
    ),
    "random numbers in the graph": (
        module(lambda self, x: x.mean((2, 3)) + 0 * torch.rand_like(x[:, :, 0, 0])),
        "exports_as_it_is",
        "random numbers",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_kit_finds(mistake):
    build, check, word = MISTAKES[mistake]
    pooling = spec.Pooling(name="mistaken", summary="", kind="global", build=build, parameter_free=True)
    with pytest.raises(Exception, match=re.escape(word)):
        testing.run_check(check, pooling)


def test_all_mistakes_are_listed_each_in_one_line():
    build = module(lambda self, x: F.dropout(x * self.w).mean((2, 3)), parameters={"w": lambda n: torch.ones(n, 1, 1)})
    pooling = spec.Pooling(name="mistaken", summary="", kind="global", build=build, parameter_free=True)
    failures = testing.check_pooling(pooling)
    found = {failure.check for failure in failures}
    assert {"eval_is_deterministic", "parameters_are_declared", "training_is_declared", "exports_as_it_is"} <= found
    assert not {"shapes", "channel_counts", "dtype_is_kept", "input_is_left_alone"} & found
    assert [failure.check for failure in failures] == [check for check in testing.CHECKS if check in found]
    assert all("\n" not in str(failure) for failure in failures)


def without_default(channels, *, power):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def not_keyword_only(channels, power=1.0):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(("build", "word"), [(without_default, "no default"), (not_keyword_only, "keyword-only")])
def test_the_kit_finds_options_that_cannot_be_typed(build, word):
    pooling = spec.Pooling(name="mistaken", summary="", kind="global", build=build)
    with pytest.raises(AssertionError, match=f"power.*{word}"):
        testing.run_check("options_have_defaults", pooling)


def keeps_its_size(channels, kernel_size, stride, padding, ceil_mode):
    return nn.Identity()


def ignores_ceil_mode(channels, kernel_size, stride, padding, ceil_mode):
    return nn.MaxPool2d(kernel_size, stride, padding)


def refuses_everything(channels, kernel_size, stride, padding, ceil_mode):
    raise ValueError("not for me")


@pytest.mark.parametrize(
    ("build", "word"),
    [(keeps_its_size, "becomes"), (ignores_ceil_mode, "ceil_mode True"), (refuses_everything, "not for me")],
)
def test_the_kit_finds_local_mistakes(build, word):
    with pytest.raises(AssertionError, match=word):
        testing.run_check("shapes", spec.Pooling(name="mistaken", summary="", kind="local", build=build))


def test_a_good_plugin_passes_by_item_and_by_name(tmp_path):
    good = spec.Pooling(
        name="good", summary="", kind="global", build=lambda channels, *, shift=0.0: nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ), parameter_free=True,
    )  # fmt: skip
    assert poolzoo.testing.check_pooling(good) == []
    testing.run_check("options_have_defaults", good, shift=1.0)
    assert poolzoo.testing.check_pooling("wavelet", "local") == []
    testing.run_check("shapes", "quantile:q=0.3")
    with pytest.raises(poolzoo.common.errors.UsageError, match="no-such"):
        testing.run_check("shapes", "no-such")
    with pytest.raises(AssertionError, match="dimensions"):
        testing.run_check(
            "shapes", spec.Pooling(name="bad", summary="", kind="global", build=module(lambda self, x: x))
        )
