"""What a module from elsewhere makes of its file's numbers, and on which inputs a difference of both is reduced."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.planted_graph import Graph, Network, images
from torch import nn

from poolzoo.parity import check
from poolzoo.parity.foreign import debugging
from poolzoo.parity.foreign.debugging import FromNumbers
from poolzoo.parity.foreign.model import ForeignModel, ModuleInput
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import ParityReport, ProbeResult
from poolzoo.runtime.foreign.classifier import FileInput, FileOutput
from poolzoo.runtime.foreign.scaling import IMAGENET_MEAN, IMAGENET_STD, Scaling

SCALING = Scaling(mean=IMAGENET_MEAN, std=IMAGENET_STD)
LEVELS = np.random.default_rng(0).integers(0, 256, (9, 3, 2, 4)).astype(np.float32)
SCALED = (LEVELS / 255 - np.array(IMAGENET_MEAN)[:, None, None]) / np.array(IMAGENET_STD)[:, None, None]


class Means(nn.Module):
    """The means of three channels as scores; it keeps what it gets."""

    def __init__(self, axes: tuple[int, int] = (2, 3)) -> None:
        super().__init__()
        self.axes = axes
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        self.seen.append(x)
        return (x if x.is_floating_point() else x.double()).mean(self.axes)


def file_input(dtype: str = "float32", batch: int | None = None) -> FileInput:
    return FileInput("x", dtype, "NCHW", 3, 2, 4, batch)


LOGITS, PROBABILITIES = (FileOutput("y", "float32", 3, one) for one in (False, True))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("of_file", "of_module", "given", "expected"),
    [
        ("uint8", "float32", LEVELS, SCALED),
        ("uint8", "uint8", LEVELS, LEVELS),
        ("float32", "float32", SCALED, SCALED),
    ],
)
def test_the_numbers_of_a_file_become_those_of_its_module(layout, of_file, of_module, given, expected):
    network = Means((2, 3) if layout == "NCHW" else (1, 2))
    model = ForeignModel(network, ModuleInput(of_module, layout, 3, SCALING))
    found = FromNumbers(model, file_input(of_file), LOGITS).double()(torch.from_numpy(given).double())
    (seen,) = network.seen
    np.testing.assert_allclose(
        seen.numpy(), expected if layout == "NCHW" else expected.transpose(0, 2, 3, 1), atol=1e-6
    )
    assert seen.dtype == (torch.uint8 if of_module == "uint8" else torch.float64)
    np.testing.assert_allclose(found.numpy(), expected.mean((2, 3)), atol=1e-6)


def test_a_module_of_one_channel_has_its_scaling_alone():
    network = Means()
    model = ForeignModel(network, ModuleInput("float32", "NCHW", 1, SCALING))
    FromNumbers(model, file_input("uint8"), LOGITS)(torch.from_numpy(LEVELS[:, :1]))
    np.testing.assert_allclose(network.seen[0].numpy(), SCALED[:, :1], atol=1e-6)


@pytest.mark.parametrize("gives_probabilities", [False, True])
@pytest.mark.parametrize("scores", [LOGITS, PROBABILITIES])
def test_logits_become_probabilities_where_the_file_gives_some(scores, gives_probabilities):
    model = ForeignModel(Means(), ModuleInput("float32", "NCHW", 3, Scaling()))
    model.gives_probabilities = gives_probabilities
    found = FromNumbers(model, file_input(), scores)(torch.from_numpy(LEVELS))
    means = torch.from_numpy(LEVELS.mean((2, 3)))
    wanted = means.softmax(1) if scores is PROBABILITIES and not gives_probabilities else means
    torch.testing.assert_close(found, wanted)


@pytest.fixture(scope="module")
def parity() -> ParityReport:
    """A report with one probe that passed and two that failed."""
    names = {"zeros": True, "+1000": False, "-1000": False}
    results = [
        ProbeResult(part="core", probe=name, max_abs=0.0, allowed=1.0, passed=passed, note="")
        for name, passed in names.items()
    ]
    report = check.check_outputs(Reference.compute(Network().eval(), *images()), Graph({}))
    return replace(report, probes=tuple(results))


def graph_of(*more: onnx.NodeProto) -> onnx.ModelProto:
    """The means of the channels; `more` computes `scores` from `means`."""
    mean = helper.make_node("ReduceMean", ["images", "axes"], ["means" if more else "scores"], keepdims=0)
    arrays = {"axes": np.array([2, 3]), "first": np.array([0]), "most": np.float32(500), "tenth": np.float32(0.1)}
    tensors = [numpy_helper.from_array(np.asarray(one), name) for name, one in arrays.items()]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 2, 4])
    whole = helper.make_graph([mean, *more], "g", [given], [helper.make_empty_tensor_value_info("scores")], tensors)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


MIXED = (
    helper.make_node("ReduceMean", ["means", "first"], ["of_all"]),
    helper.make_node("Sub", ["means", "of_all"], ["apart"]),
    helper.make_node("Mul", ["apart", "tenth"], ["little"]),
    helper.make_node("Add", ["means", "little"], ["scores"]),
)
CLIPPED = (helper.make_node("Min", ["means", "most"], ["scores"]),)
ALL = ["one image", "7 images", "+1000", "-1000"]


@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize(("more", "tried"), [((), ALL), (MIXED, ALL[:2]), (CLIPPED, ALL[:3])])
def test_images_are_tried_before_the_probes_that_failed(parity, tmp_path, capsys, batch, more, tried):
    network, place = Means(), tmp_path / "debug"
    model = ForeignModel(network, ModuleInput("float32", "NCHW", 3, Scaling()))
    found = debugging.reduce(
        graph=graph_of(*more),
        model=model,
        given=file_input(batch=batch),
        scores=LOGITS,
        parity=parity,
        numbers=SCALED.astype(np.float32),
        place=place,
        budget=9,
    )
    assert found is place.exists() is bool(more)
    lines = capsys.readouterr().err.splitlines()
    lines, last = lines[: len(tried)], lines[len(tried)]
    assert lines == [
        f"reducing the difference on {title}, for at most 9 s; Ctrl-C keeps the smallest" for title in tried
    ]
    assert last.startswith(f"{place}: " if more else "warning: nothing that failed shows the difference by itself")
    given = [one.numpy() for one in network.seen[::2]]  # in both precisions
    wanted = [SCALED[:1], SCALED[:7], np.full((3, 3, 2, 4), 1e3), np.full((3, 3, 2, 4), -1e3)][: len(tried)]
    if batch is not None:
        wanted = [np.resize(one, (batch, 3, 2, 4)) for one in wanted]
    for one, other in zip(given, wanted, strict=False):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    if more:
        report = json.loads((place / "report.json").read_text())
        assert report["source"]["operation"].startswith("aten.mean")


def test_logits_are_not_reduced_to_probabilities(parity, tmp_path, capsys):
    model = ForeignModel(Means(), ModuleInput("float32", "NCHW", 3, Scaling()))
    model.gives_probabilities = True
    place = Path(tmp_path / "debug")
    found = debugging.reduce(
        graph=graph_of(),
        model=model,
        given=file_input(),
        scores=LOGITS,
        parity=parity,
        numbers=LEVELS,
        place=place,
    )
    assert found is place.exists() is False
    assert "the module gives probabilities and the file logits" in capsys.readouterr().err
