"""Known mistakes in the input of a file from elsewhere, in numpy: how each is undone, and which one is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image
from support.planted_graph import Graph, Network, images
from torch import nn

from poolzoo.parity import check
from poolzoo.parity.foreign.causes import Cause, Side, find_cause
from poolzoo.parity.foreign.changes import Change, known_changes
from poolzoo.parity.foreign.last_agreement import LastAgreement, find_last_agreement
from poolzoo.parity.foreign.report import AgainstReport
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import Limits, ProbeResult
from poolzoo.runtime.foreign.scaling import IMAGENET_MEAN, IMAGENET_STD, Scaling
from poolzoo.runtime.half_arithmetic import HalfCheck
from poolzoo.runtime.verify import Check

PIXELS = np.random.default_rng(0).random((5, 3, 6, 6)).astype(np.float32)
MEAN, STD = (np.array(one, np.float32)[:, None, None] for one in (IMAGENET_MEAN, IMAGENET_STD))
USUAL = Scaling(low=-2.0, high=3.0)


def usual(x: np.ndarray) -> np.ndarray:
    return x * 5 - 2


IMAGENET = "ImageNet's mean and standard deviation"
EXPECTED = {
    "the file gets values in 0–255": lambda x: x * 255,
    "the file gets values in 0–1": lambda x: x,
    "the file gets values in -1–1": lambda x: 2 * x - 1,
    f"the file's values are normalized with {IMAGENET}": lambda x: (x - MEAN) / STD,
    "the file gets values in 0–255 minus ImageNet's mean": lambda x: 255 * (x - MEAN),
    "the file's values in 0–255 are normalized as if they were in 0–1": lambda x: (255 * x - MEAN) / STD,
    "the file's values are divided by 255 once more": lambda x: usual(x) / 255,
    "the file's values are multiplied by 255 once more": lambda x: usual(x) * 255,
    f"the file's own normalization with {IMAGENET} is undone": lambda x: usual(x) * STD + MEAN,
    "the file's own normalization from 0–1 to -1–1 is undone": lambda x: (usual(x) + 1) / 2,
    "the channels are reversed": lambda x: usual(x[:, ::-1]),
    "the channels are reversed after they are scaled": lambda x: usual(x)[:, ::-1],
    "its input, [N, C, H, W], holds the values in the order [N, H, W, C]": lambda x: np.reshape(
        np.moveaxis(usual(x), 1, 3), x.shape
    ),
    "its input, read as [N, H, W, C], is [N, C, H, W]": lambda x: np.moveaxis(usual(x).reshape(5, 6, 6, 3), 3, 1),
    "height and width change places": lambda x: usual(np.swapaxes(x, 2, 3)),
    "the rows are upside down": lambda x: usual(np.flip(x, 2)),
    "left and right change places": lambda x: usual(np.flip(x, 3)),
}


@pytest.mark.parametrize("text", EXPECTED)
def test_each_known_change_is_the_formula_that_it_names(text):
    change = next(one for one in known_changes(USUAL, file_floats=True, module_floats=True) if one.text == text)
    found = change.apply(PIXELS, USUAL.apply)
    np.testing.assert_allclose(found, EXPECTED[text](PIXELS), rtol=1e-4, atol=1e-4)
    assert (found.dtype, found.flags.c_contiguous, change.of_module) == (np.float32, True, False)


def test_a_crop_is_the_center_resized_by_pillow():
    pixels = np.random.default_rng(0).random((1, 3, 20, 40)).astype(np.float32)
    changes = {one.text: one for one in known_changes(USUAL, file_floats=True, module_floats=True)}
    for text, (tall, wide), of_module in (
        ("the file gets the center, 87.5 % of each side, resized", (18, 35), False),
        ("the module gets the center, 90 % of each side, resized", (18, 36), True),
        ("the file gets the center, 95 % of each side, resized", (19, 38), False),
    ):
        change = changes[text]
        assert change.of_module is of_module
        top, left = (20 - tall) // 2, (40 - wide) // 2
        cut = pixels[0, :, top : top + tall, left : left + wide]
        wanted = [Image.fromarray(plane).resize((40, 20), Image.Resampling.BILINEAR) for plane in cut]
        np.testing.assert_array_equal(change.apply(pixels, lambda x: x)[0], np.stack(wanted))


def test_which_changes_there_are_depends_on_what_takes_floats():
    def texts(file: bool, module: bool) -> list[str]:
        return [one.text for one in known_changes(USUAL, file_floats=file, module_floats=module)]

    both, neither, of_module = texts(True, True), texts(False, False), texts(False, True)
    assert len(set(both)) == len(both)
    assert not [text for text in neither if "values in 0" in text or "normal" in text]
    assert "the rows are upside down and the channels are reversed" in neither
    assert "the file gets values in 0–255 and the channels are reversed" in both
    assert "the rows are upside down and the file gets values in 0–1" in both
    assert "the module gets values in 0–255" in of_module
    assert "the module gets values in 0–255 and its channels are reversed" in of_module
    assert not [text for text in both if "the module's values" in text]
    moved = [one for one in known_changes(USUAL, file_floats=False, module_floats=True) if "the module" in one.text]
    assert all(one.of_module for one in moved)


def test_only_square_images_change_height_and_width():
    wide = PIXELS[..., :4]
    (change,) = (
        one
        for one in known_changes(USUAL, file_floats=False, module_floats=False)
        if one.text == "height and width change places"
    )
    assert np.array_equal(change.apply(wide, lambda x: x), wide)


def test_two_changes_take_a_step_each():
    first = Change("a", pixels=lambda x: x + 1, numbers=lambda x: x * 10)
    second = Change("b", values=lambda x: x * 2)
    both = first.then(second)
    assert both.text == "a and b"
    assert both.apply(np.array([1.0]), lambda x: x).tolist() == [40.0]
    assert second.then(first).apply(np.array([1.0]), lambda x: x).tolist() == [40.0]


WEIGHT = np.random.default_rng(1).standard_normal((3 * 36, 4)).astype(np.float32)


def scores(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1) @ WEIGHT


def side(run=scores, scale=lambda x: x, floats: bool = True) -> Side:
    return Side(run, scale, floats)


MANY = np.random.default_rng(2).random((20, 3, 6, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("file", "module", "text"),
    [
        (side(lambda x: scores(x[:, ::-1])), side(), "the channels are reversed"),
        (side(lambda x: scores(x / 255)), side(), "the file gets values in 0–255"),
        (
            side(lambda x: scores(x[:, ::-1] / 255)),
            side(),
            "the file gets values in 0–255 and the channels are reversed",
        ),
        (side(floats=False), side(lambda x: scores(x / 255)), "the module gets values in 0–255"),
        (side(lambda x: scores(x)[:, [1, 0, 2, 3]]), side(), "the classes are put into another order"),
        (
            side(lambda x: scores(x.swapaxes(2, 3)[:, ::-1])),
            side(),
            "height and width change places and the channels are reversed",
        ),
    ],
    ids=["channels", "range", "both", "of the module", "classes", "layout and channels"],
)  # fmt: skip
def test_the_change_that_explains_a_difference_is_named(file, module, text):
    found = find_cause(MANY, file, module, Scaling())
    assert (found.change, found.agrees, found.images, found.agreement) == (text, True, 20, 1.0)
    assert found.max_abs < 1e-3 * found.scale
    assert found.scale == pytest.approx(np.abs(module.run(MANY * (255 if "module" in text else 1))).max(), rel=1e-3)
    assert found.to_json()["change"] == text


def test_what_comes_close_is_said_as_such_and_nothing_else_is():
    near = find_cause(MANY, side(lambda x: scores(x[:, ::-1]) + 0.02 * np.abs(scores(x)).max()), side(), Scaling())
    assert not near.agrees
    assert near.change == "the channels are reversed"
    assert near.describe() == (
        f"it comes close when the channels are reversed (difference {near.max_abs:.1e} of scores up to "
        f"{near.scale:.2g}, same class on {near.agreement:.1%} of 20 images)"
    )
    assert find_cause(MANY, side(lambda x: np.tanh(scores(x**3))), side(), Scaling()) is None
    assert find_cause(MANY, side(lambda x: scores(x) * np.nan), side(), Scaling()) is None
    assert find_cause(MANY, side(lambda x: scores(x)[:, :3]), side(), Scaling()) is None
    text = Cause(change="c", agrees=True, max_abs=0.1, scale=2.0, agreement=1.0, images=3).describe()
    assert text == "it agrees when c (difference 1.0e-01 of scores up to 2, same class on 100.0% of 3 images)"


class Layers(nn.Module):
    """Three layers; the graph has their weights, but for a change."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Conv2d(3, 4, 1, bias=False)
        self.act = nn.ReLU()
        self.last = nn.Linear(4, 2, bias=False)
        for one in self.parameters():
            one.data = torch.randn(one.shape, generator=generator)

    def forward(self, x):
        return self.last(self.act(self.first(x)).mean((2, 3)))


def as_graph(network: Layers, first: float = 1.0, last: float = 1.0) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], name="conv_1"),
        helper.make_node("Relu", ["c"], ["r"], name="relu_1"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool_1"),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["logits"], transB=1),
    ]
    weights = {"w": first * network.first.weight.detach().numpy(), "v": last * network.last.weight.detach().numpy()}
    tensors = [numpy_helper.from_array(one.astype(np.float32), name) for name, one in weights.items()]
    given = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, 2, 2])
    result = helper.make_empty_tensor_value_info("logits")
    whole = helper.make_graph(nodes, "g", [given], [result], tensors)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("first", "last", "expected", "text"),
    [
        (1.0, 1.0, None, ""),
        (
            1.0,
            1.5,
            LastAgreement(layer="act", value="r", next="last", node="GlobalAveragePool pool_1"),
            "it agrees up to act (value r, which GlobalAveragePool pool_1 reads) and differs from last on",
        ),
        (
            1.5,
            1.0,
            LastAgreement(layer="", value="", next="first", node=""),
            "it differs from the first layer on, first",
        ),
    ],
)
@pytest.mark.parametrize("batch", [None, 3])
def test_the_last_layer_on_which_both_agree_is_found(first, last, expected, text, batch):
    network = Layers().eval()
    x = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    found = find_last_agreement(network, x, as_graph(network, first, last), x.numpy(), batch)
    assert found == expected
    if found is not None:
        assert found.describe() == text
        assert found.to_json() == {key: getattr(expected, key) for key in ("layer", "value", "next", "node")}


def test_a_graph_that_cannot_give_its_values_has_no_last_layer():
    network, x = Layers().eval(), torch.rand(1, 3, 2, 2)
    broken = as_graph(network)
    broken.graph.node[1].op_type = "NoSuchOperator"
    assert find_last_agreement(network, x, broken, x.numpy(), None) is None


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.compute(Network().eval(), *images())


def report(reference: Reference, change: dict[int, float], **more: object) -> AgainstReport:
    return AgainstReport(
        file="f.onnx",
        module="net.py:build",
        takes=("float32", "a batch"),
        opset=18,
        precision="fp32",
        parity=check.check_outputs(reference, Graph(change)),
        natural=3,
        **more,
    )


def details(found: AgainstReport) -> dict[str, tuple[bool, str]]:
    return {one.id: (one.passed, one.detail) for one in found.checks}


HALF = HalfCheck(passed=True, finite=True, images=3, max_abs=0.5, allowed=0.75, flips=0, arithmetic="bf16")
PROBE = ProbeResult(part="core", probe="zeros", max_abs=0.5, allowed=0.25, passed=False, note="5e-1 where 2e-1")


def test_a_file_that_agrees_has_a_check_for_each_thing(reference):
    found = report(reference, {}, rounded=(HALF,), other_size=Check("other-size", True, "images 9×9"), remarks=("so",))
    worst = found.parity.noise.worst
    assert found.passed
    assert details(found) == {
        "file": (True, "opset 18, float32"),
        "module": (True, "takes a batch"),
        "outputs": (
            True,
            f"difference {worst.max_abs:.2e} of {worst.allowed:.2e} allowed on {worst.input}, closest to its limit; "
            "batches 1, 2, 7, 64",
        ),
        "classes": (True, "same class on 100.00% of 3 natural and 37 synthetic images"),
        "other-size": (True, "images 9×9"),
        "arithmetic-bf16": (True, HALF.describe()),
    }
    written = found.to_json()
    assert written.keys() == {
        "passed", "file", "against", "file_takes", "module_takes", "opset", "precision", "checks", "natural_images",
        "parity", "cause", "last_agreement", "arithmetics", "remarks", "reduction",
    }  # fmt: skip
    assert (written["passed"], written["file"], written["against"]) == (True, "f.onnx", "net.py:build")
    assert (written["file_takes"], written["module_takes"], written["opset"]) == ("float32", "a batch", 18)
    assert (written["natural_images"], written["remarks"], written["precision"]) == (3, ["so"], "fp32")
    assert [written[key] for key in ("cause", "last_agreement", "reduction")] == [None] * 3
    assert written["arithmetics"] == {"bf16": HALF.to_json()}
    assert written["parity"] == found.parity.to_json()
    assert len(written["checks"]) == 6
    assert found.hint.startswith("a device that computes so")


def test_a_file_that_differs_says_how_why_and_what_to_do(reference):
    cause = Cause(change="c", agrees=True, max_abs=0.1, scale=2.0, agreement=1.0, images=3)
    last = LastAgreement(layer="a", value="v", next="b", node="")
    found = report(reference, {1: 0.5}, cause=cause, last_agreement=last)
    worst = found.parity.noise.worst
    assert not found.passed
    said = f"difference {worst.max_abs:.2e} of {worst.allowed:.2e} allowed on test image 0"
    assert details(found)["outputs"] == (False, said)
    assert found.describe_failure() == (
        f"f.onnx does not compute what net.py:build computes: {said}; {cause.describe()}; "
        "it agrees up to a (value v) and differs from b on"
    )
    assert found.hint.startswith("give both the same images")
    assert replace(found, cause=None).hint.startswith("was it exported with these weights")
    assert replace(found, reduction="out").hint == "see out/report.md"
    size = Check("other-size", False, "no")
    assert replace(found, other_size=size).hint.startswith("export it with the size of its images fixed")
    assert (found.to_json()["cause"], found.to_json()["last_agreement"]) == (cause.to_json(), last.to_json())
    assert details(report(reference, {1: np.nan}))["outputs"][1].startswith("not finite of ")
    probed = replace(found, parity=replace(found.parity, probes=(replace(PROBE, passed=True), PROBE)))
    assert details(probed)["extremes"] == (False, "zeros: 5e-1 where 2e-1")
    fine = replace(found, parity=replace(found.parity, probes=(replace(PROBE, passed=True),)))
    assert details(fine)["extremes"] == (True, "1 extreme inputs, such as NaN and ±1000")
    half = replace(HALF, passed=False, arithmetic="fp16")
    assert details(replace(found, parity=found.parity.with_half_arithmetic(half)))["half"] == (False, half.describe())
    assert not replace(report(reference, {}), rounded=(half,)).passed


def test_lower_precision_is_judged_by_its_limits(reference):
    found = replace(report(reference, {}), precision="int8", parity=check.check_limits(reference, Graph({}), Limits()))
    assert details(found)["outputs"] == (True, "int8 within its limits; batches 1, 2, 7, 64")
    broken = check.check_limits(reference, Graph({1: np.inf}), Limits(0.0, 1.0))
    assert details(replace(found, parity=broken))["outputs"] == (False, "it gives NaN or infinity")
