"""`verify --against`: a file from elsewhere is compared with a torch module, and a known mistake is named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from support.foreign import IMAGENET_MEAN, IMAGENET_STD, SIDE, from_uint8, make, node, of_any_size, write_module

from poolzoo.common.errors import UsageError
from poolzoo.parity.foreign.pair import make_pair
from poolzoo.parity.foreign.verify import AgainstOptions, verify_against
from poolzoo.runtime.foreign.scaling import Scaling

REVERSED = node("Gather", "x order", "prepared", axis=1)
ORDER = np.array([2, 1, 0])
FULL = np.array(255, np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The module, and a few images of noise, whose mirror images differ."""
    place = tmp_path_factory.mktemp("foreign")
    write_module(place)
    (place / "photos").mkdir()
    random = np.random.default_rng(3)
    for index in range(4):
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(place / "photos" / f"{index}.png")
    return place


@dataclass(frozen=True)
class Verified:
    folder: Path

    def __call__(self, proto: onnx.ModelProto, function: str = "build", **options):
        path = self.folder / "file.onnx"
        onnx.save(proto, path)
        given = AgainstOptions(**{"images": self.folder / "photos", **options})
        return verify_against(path, f"{self.folder / 'net.py'}:{function}", given)


@pytest.fixture
def verified(folder) -> Verified:
    return Verified(folder)


AGREEING = {
    "float NCHW": make(),
    "our own names": make(names=("images", "logits")),
    "uint8 NHWC": from_uint8(),
    "float NHWC": make([node("Transpose", "x", "prepared", perm=[0, 3, 1, 2])], shape=["N", SIDE, SIDE, 3]),
    "a batch of 3": make(shape=[3, 3, SIDE, SIDE]),
    "any size": make(shape=["N", 3, "H", "W"]),
    "float16 at both ends": make(
        [node("Cast", "x", "prepared", to=1)], [node("Cast", "scores", "y", to=10)], dtype="float16"
    ),
    "probabilities": make(after=[node("Softmax", "scores", "y", axis=1)]),
    "two outputs": make(after=[node("Softmax", "scores", "y", axis=1)], outputs=["scores"]),
}
AGREEING["float16 at both ends"].graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("name", AGREEING)
def test_the_same_network_agrees_in_any_form(verified, name):
    size = (SIDE, SIDE) if name == "any size" else None
    if name == "float16 at both ends":  # rounds its input and output, which float32 does not
        report = verified(AGREEING[name])
        assert not report.passed
        assert report.parity.outputs.top1_agreement == 1
        return
    report = verified(AGREEING[name], size=size)
    assert report.passed, report.describe_failure()
    assert {1, 2, 7} <= set(report.parity.outputs.batches)
    assert json.loads(json.dumps(report.to_json()))["passed"]
    assert (report.natural, report.parity.outputs.n) == (4, 20)
    assert report.parity.outputs.images == "natural and synthetic"
    found = [one.partition(":")[0] for one in report.remarks]
    assert found == REMARKS.get(name, [])
    assert (report.parity.probes is None) == (name in ("uint8 NHWC", "probabilities"))


NOT_TRIED = "extreme inputs such as NaN are not tried, since file and module take no such floats alike"
REMARKS = {
    "a batch of 3": ["the file takes batches of 3 alone"],
    "uint8 NHWC": [NOT_TRIED],
    "probabilities": ["the file gives probabilities and the module logits", NOT_TRIED],
}


def test_probabilities_are_compared_on_either_side(verified):
    report = verified(make(), "with_softmax")
    assert report.passed, report.describe_failure()
    assert any("both are compared as probabilities" in remark for remark in report.remarks)


MISTAKES = {
    "the channels are reversed": make([REVERSED], order=ORDER),
    "the file gets values in 0–255": make([node("Div", "x full", "prepared")], full=FULL),
    "the file's values are divided by 255 once more": make([node("Mul", "x full", "prepared")], full=FULL),
    "the file's own normalization with ImageNet's mean and standard deviation is undone": make(
        [node("Sub", "x mean", "m"), node("Div", "m std", "prepared")], mean=IMAGENET_MEAN, std=IMAGENET_STD
    ),
    "the file's values are normalized with ImageNet's mean and standard deviation": make(
        [node("Mul", "x std", "m"), node("Add", "m mean", "prepared")], mean=IMAGENET_MEAN, std=IMAGENET_STD
    ),
    "its input, [N, C, H, W], holds the values in the order [N, H, W, C]": make(
        [node("Reshape", "x nhwc", "m"), node("Transpose", "m", "prepared", perm=[0, 3, 1, 2])],
        nhwc=np.array([-1, SIDE, SIDE, 3]),
    ),
    "height and width change places": make([node("Transpose", "x", "prepared", perm=[0, 1, 3, 2])]),
    "the classes are put into another order": make(
        after=[node("Gather", "scores order", "y", axis=1)], order=np.array([1, 2, 3, 4, 0])
    ),
    "the file gets values in 0–255 and the channels are reversed": make(
        [node("Gather", "x order", "m", axis=1), node("Div", "m full", "prepared")], order=ORDER, full=FULL
    ),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_known_mistake_in_the_input_is_named(verified, text):
    report = verified(MISTAKES[text])
    assert not report.passed
    assert report.cause is not None
    assert report.cause.change == text
    assert report.cause.agreement == 1
    assert report.cause.max_abs < 1e-4 * report.cause.scale


def test_a_file_that_gives_nothing_but_nan_differs_without_a_cause(verified):
    report = verified(make(after=[node("Mul", "scores nan", "y")], nan=np.array(np.nan, np.float32)))
    assert not report.passed
    assert report.cause is None
    assert "not finite" in report.describe_failure()


def test_a_crop_inside_the_file_is_named(verified):
    """The oracle is onnx's own Resize, of the center that a Slice cuts out."""
    from onnx import numpy_helper

    start, end = 1, SIDE - 1
    crop = make(
        [
            node("Slice", "x start end axes", "m"),
            node("Resize", "m none scales", "prepared", mode="linear"),
        ],
        start=np.array([start, start]),
        end=np.array([end, end]),
        axes=np.array([2, 3]),
        none=np.array([], np.float32),
        scales=np.array([1, 1, SIDE / (SIDE - 2), SIDE / (SIDE - 2)], np.float32),
    )
    assert numpy_helper.to_array(crop.graph.initializer[-1])[2] == np.float32(1.2)
    report = verified(crop)
    assert report.cause is not None
    assert report.cause.change.startswith("the module gets the center, 87.5 %")


def test_a_network_of_another_function_has_no_cause_but_a_place(verified):
    report = verified(make(slope=0.01))
    assert not report.passed
    assert report.cause is None
    assert report.last_agreement is not None
    assert (report.last_agreement.layer, report.last_agreement.next) == ("conv", "act")
    assert "act" in report.last_agreement.node


def half_precision(proto: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(proto)


def test_a_file_in_float16_is_judged_by_limits(verified):
    report = verified(half_precision(make()))
    assert report.passed, report.describe_failure()
    assert (report.precision, report.parity.gate) == ("fp16", "limits")
    assert report.parity.half is not None
    wrong = verified(half_precision(MISTAKES["the channels are reversed"]))
    assert not wrong.passed
    assert wrong.cause is not None
    assert wrong.cause.change == "the channels are reversed"


def test_a_file_of_any_size_is_checked_at_another_one(verified):
    axes = np.array([2, 3])
    mean = node("ReduceMean", "c axes", "y", keepdims=0)
    right = verified(of_any_size(mean, axes=axes), "of_any_size", size=(SIDE, SIDE))
    assert right.passed
    assert right.other_size is not None
    window = node("AveragePool", "c", "d", kernel_shape=[SIDE, SIDE], strides=[SIDE, SIDE])
    wrong = verified(
        of_any_size(window, node("ReduceMax", "d axes", "y", keepdims=0), axes=axes), "of_any_size", size=(SIDE, SIDE)
    )
    assert wrong.parity.passed
    assert [check.id for check in wrong.checks if not check.passed] == ["other-size"]
    assert not wrong.passed


def test_a_file_that_takes_no_other_size_is_told_from_one_that_does(verified):
    """It says that it takes any, and flattens as many pixels as there are in one size."""
    flat = [node("Reshape", "c sides", "d"), node("ReduceMean", "d axes", "y", keepdims=0)]
    sides = np.array([-1, 4, SIDE * SIDE])
    report = verified(of_any_size(*flat, sides=sides, axes=np.array([2])), "of_any_size", size=(SIDE, SIDE))
    assert report.parity.passed
    assert not report.other_size.passed
    assert report.other_size.detail.startswith(f"the module takes images {SIDE + 32}×{SIDE + 64}, and the file does no")


ANY_SIZE = of_any_size(node("ReduceMean", "c axes", "y", keepdims=0), axes=np.array([2, 3]))


@pytest.mark.parametrize(
    ("size", "used"), [(None, (20, 24)), ((SIDE, 15), (SIDE, 15))], ids=["what it states", "what the user says"]
)
def test_a_file_of_any_size_is_compared_at_the_size_that_its_module_states(folder, size, used):
    path = folder / "file.onnx"
    onnx.save(ANY_SIZE, path)
    pair = make_pair(path, f"{folder / 'net.py'}:published", output=None, size=size, scaling=None)
    assert pair.file.given.size == used
    assert pair.scaling == Scaling(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    other = Scaling(low=-1)
    assert make_pair(path, f"{folder / 'net.py'}:published", output="y", size=size, scaling=other).scaling == other
    onnx.save(make(), path)
    fixed = make_pair(path, f"{folder / 'net.py'}:build", output=None, size=None, scaling=None)
    assert (fixed.file.given.size, fixed.scaling, fixed.model.scores) == ((SIDE, SIDE), Scaling(), "logits")
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    found = fixed.in_float(pixels)
    np.testing.assert_allclose(found, pixels.transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)


def test_a_nan_that_onnx_runtime_loses_in_a_maximum_is_excused(verified):
    largest = of_any_size(node("ReduceMax", "c axes", "y", keepdims=0), axes=np.array([2, 3]))
    report = verified(largest, "largest", size=(SIDE, SIDE))
    assert report.passed, report.describe_failure()
    notes = {one.probe: one.note for one in report.parity.probes}
    assert "(ONNX Runtime loses it in a max or clip operator)" in notes["one NaN"]


def test_a_mistake_in_images_with_channels_last_is_named(verified):
    before = [node("Transpose", "x", "planes", perm=[0, 3, 1, 2]), node("Gather", "planes order", "prepared", axis=1)]
    report = verified(make(before, shape=["N", SIDE, SIDE, 3], order=ORDER), "of_channels_last")
    assert report.takes[1].startswith("float32 NHWC")
    assert (report.cause.change, report.cause.agrees) == ("the channels are reversed", True)
    assert report.cause.images == 20  # of four photographs and sixteen of noise


@pytest.mark.parametrize("function", ["build", "with_softmax"])
def test_a_mistake_in_a_file_of_probabilities_is_named(verified, function):
    file = make([REVERSED], [node("Softmax", "scores", "y", axis=1)], order=ORDER)
    report = verified(file, function)
    assert (report.cause.change, report.cause.agrees) == ("the channels are reversed", True)
    other = verified(make([REVERSED], order=ORDER), "with_softmax")
    assert other.cause.max_abs == pytest.approx(report.cause.max_abs, abs=1e-4)


def test_a_file_in_float16_is_not_reduced(verified, tmp_path, capsys):
    wrong = make(slope=0.3)
    report = verified(half_precision(wrong), debug=tmp_path / "debug")
    assert not report.passed
    assert report.reduction is None
    assert not (tmp_path / "debug").exists()
    assert "every value of a file in fp16 differs" in capsys.readouterr().err


def test_a_file_in_int8_is_judged_by_limits_alone(verified):
    """Scores in steps of a fortieth; half arithmetic does not concern them."""
    nodes = [node("QuantizeLinear", "scores step zero", "q"), node("DequantizeLinear", "q step zero", "y")]
    report = verified(make(after=nodes, step=np.array(1 / 40, np.float32), zero=np.array(0, np.int8)))
    assert (report.precision, report.parity.gate, report.parity.half) == ("int8", "limits", None)
    assert report.parity.outputs.max_abs > 1e-3


def test_an_operator_that_half_arithmetic_lacks_is_said(verified, capsys):
    file = make(after=[node("FusedMatMul", "scores eye", "y", domain="com.microsoft")], eye=np.eye(5, dtype=np.float32))
    file.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    report = verified(half_precision(file))
    assert report.passed, report.describe_failure()
    assert (report.precision, report.parity.half) == ("fp16", None)
    assert "it is not checked in half arithmetic" in capsys.readouterr().err


def test_what_cannot_be_compared_is_said_before_the_work(verified, tmp_path):
    with pytest.raises(UsageError, match="no-such-runtime"):
        verified(make(), "absent", runtimes=["no-such-runtime"])
    with pytest.raises(UsageError, match="exists"):
        verified(make(), "absent", debug=tmp_path)
    with pytest.raises(UsageError, match="is in fp16, and --arithmetic is for float32"):
        verified(half_precision(make()), arithmetics=("bf16",))
    with pytest.raises(UsageError, match="has no output 'z'"):
        verified(make(), output="z")


def test_a_file_in_float16_needs_logits_that_are_near(verified):
    """Of five classes the same one is the best everywhere, and yet the scores are others."""
    wrong = make(after=[node("Mul", "scores more", "y")], more=np.array(1.25, np.float32))
    report = verified(half_precision(wrong))
    assert report.parity.outputs.top1_agreement >= 0.99
    assert not report.passed
    assert not report.parity.passed
    assert "more than an eighth of the largest one" in report.describe_failure()


def test_what_needs_float32_is_named(verified):
    """A factor of 1e5 and its inverse overflow in float16 alone; the file in float32 is right."""
    large = make(
        after=[node("Mul", "scores large", "grown"), node("Div", "grown large", "y")], large=np.array(1e5, np.float32)
    )
    large.graph.node[-2].name = "growing"
    report = verified(large, arithmetics=("fp16", "bf16"))
    assert report.parity.passed
    assert not report.passed
    assert [(one.arithmetic, one.passed) for one in report.rounded] == [("fp16", False), ("bf16", True)]
    assert "Mul growing first" in report.describe_failure()


@pytest.mark.parametrize("form", ["float", "uint8"])
def test_a_fault_is_reduced_to_a_folder(verified, tmp_path, form):
    proto = make(slope=0.01) if form == "float" else from_uint8()
    next(node for node in proto.graph.node if node.name == "act").attribute[0].f = 0.01
    report = verified(proto, debug=tmp_path / "debug")
    assert report.reduction == str(tmp_path / "debug")
    found = json.loads((tmp_path / "debug" / "report.json").read_text())
    assert [one["operator"] for one in found["nodes"]] == ["LeakyRelu"]
    assert found["source"]["layer"].endswith("act")


def test_a_mistake_in_the_input_is_not_reduced(verified, tmp_path):
    report = verified(MISTAKES["the channels are reversed"], debug=tmp_path / "debug")
    assert report.reduction is None
    assert not (tmp_path / "debug").exists()


def test_a_lost_normalization_of_uint8_is_named(verified):
    report = verified(from_uint8(), scaling=Scaling(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    assert report.cause is not None
    assert report.cause.change == "the module gets values in 0–1"


def test_floats_are_scaled_alike_for_both(verified):
    assert verified(make(), scaling=Scaling(low=-1, high=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))).passed


def test_a_nan_that_the_file_hides_is_found(verified):
    """On images the file agrees: only a probe holds a NaN."""
    hiding = make(
        [node("IsNaN", "x", "m"), node("Where", "m zero x", "prepared")],
        zero=np.array(0, np.float32),
    )
    report = verified(hiding)
    assert [check.id for check in report.checks if not check.passed] == ["extremes"]
    assert "NaN" in report.describe_failure()


def test_a_batch_that_mixes_its_images_is_found(verified):
    mean = node("ReduceMean", "scores axis", "m", keepdims=1)
    mixed = make(
        after=[mean, node("Sub", "scores m", "n"), node("Add", "n m", "k"), node("Max", "k m", "y")], axis=np.array([0])
    )
    assert not verified(mixed).passed


def test_other_runtimes_are_judged_on_the_file(verified):
    report = verified(make(shape=[3, 3, SIDE, SIDE]), runtimes=["reference"], measure_speed=False)
    assert report.passed
    assert report.runtimes is not None
    assert [one.status for one in report.runtimes.results] == ["agrees"]
    assert report.to_json()["runtimes"] == report.runtimes.to_json()
