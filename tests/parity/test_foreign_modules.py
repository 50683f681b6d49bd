"""A module from elsewhere: what it takes, what of its output counts, what it states of itself, and its images."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from support.foreign import SIDE, make
from torch import nn

from poolzoo.cli.foreign import parse_scaling
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data.images import fit
from poolzoo.parity.foreign import images as gathering
from poolzoo.parity.foreign import model as models
from poolzoo.parity.foreign import module
from poolzoo.parity.foreign.model import ForeignModel, ModuleInput
from poolzoo.parity.foreign.pair import takes_any_size
from poolzoo.runtime.foreign.classifier import Classifier, FileInput
from poolzoo.runtime.foreign.scaling import IMAGENET_MEAN, IMAGENET_STD, Scaling

SIZE = (5, 4)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
SCORES = torch.arange(6.0).reshape(2, 3)
IMAGENET = Scaling(mean=IMAGENET_MEAN, std=IMAGENET_STD)


class Means(nn.Module):
    """The means of three channels as scores; it refuses other inputs than its own."""

    def __init__(self, dtype: torch.dtype = torch.float32, axis: int = 1, channels: int = 3) -> None:
        super().__init__()
        self.takes = dtype, axis, channels

    def forward(self, x):
        dtype, axis, channels = self.takes
        if x.dtype != dtype or x.shape[axis] != channels:
            raise TypeError("another input")
        return x.float().mean([one for one in (1, 2, 3) if one != axis]).expand(-1, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scaling", [Scaling(), IMAGENET], ids=["plain", "scaled"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_images_become_what_a_module_takes(layout, scaling, channels):
    model = ForeignModel(nn.Identity(), ModuleInput("float32", layout, channels, scaling))
    found = model.prepare(torch.from_numpy(PIXELS))
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if scaling is IMAGENET else ((0,) * 3, (1,) * 3)
    expected = ((PIXELS / 255 - mean) / std)[..., :channels]
    expected = expected.transpose(0, 3, 1, 2) if layout == "NCHW" else expected
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert model.double().prepare(torch.from_numpy(PIXELS)).dtype == torch.float64
    levels = ForeignModel(nn.Identity(), ModuleInput("uint8", layout, channels, scaling))
    stored = PIXELS[..., :channels]
    taken = levels.prepare(torch.from_numpy(PIXELS))
    assert np.array_equal(taken.numpy(), stored.transpose(0, 3, 1, 2) if layout == "NCHW" else stored)
    assert levels.takes.describe() == f"uint8 {layout} in 0–255"


def test_scores_are_logits_or_probabilities():
    model = ForeignModel(nn.Identity(), ModuleInput("uint8", "NCHW", 3, Scaling()))
    logits, probabilities = model.outputs(SCORES)
    assert logits is SCORES
    assert torch.equal(probabilities, SCORES.softmax(1))
    model.scores = "probabilities"
    logits, probabilities = model.outputs(SCORES)
    assert torch.equal(probabilities, SCORES.softmax(1))
    assert torch.allclose(logits, SCORES.log_softmax(1))
    model.gives_probabilities = True
    given = torch.tensor([[0.0, 0.25, 0.75]])
    logits, probabilities = model.outputs(given)
    assert probabilities is given
    assert torch.isfinite(logits).all()
    assert torch.equal(logits[:, 1:], given[:, 1:].log())


@pytest.mark.parametrize(
    "given",
    [
        SCORES,
        (SCORES, torch.zeros(2, 3)),
        [torch.zeros(2, 3, 1), torch.zeros(2, 3, dtype=torch.int64), SCORES],
        {"aux": torch.zeros(2, 3), "out": SCORES},
        {"aux": SCORES},
        {"logits": torch.zeros(2), "scores": SCORES},
        SimpleNamespace(logits=SCORES, out=torch.zeros(2, 3)),
    ],
    ids=["tensor", "the first", "the first that fits", "by name", "the only one", "of the shape", "attribute"],
)
def test_the_scores_in_what_a_module_gives_are_found(given):
    assert models.scores_of(given) is SCORES


@pytest.mark.parametrize(
    ("given", "shown"), [(torch.zeros(2, 3, 4), "Tensor of shape [2, 3, 4]"), ({"a": 1}, "dict"), (None, "NoneType")]
)
def test_without_scores_a_module_is_no_classifier(given, shown):
    with pytest.raises(CheckFailed) as caught:
        models.scores_of(given)
    assert caught.value.message == f"the module gives {shown}, and no scores [N, classes]"


GIVEN = FileInput("x", "float32", "NCHW", 1, *SIZE, None)


@pytest.mark.parametrize(
    ("module", "given", "takes"),
    [
        (Means(), FileInput("x", "float32", "NCHW", 3, *SIZE, None), ("float32", "NCHW", 3)),
        (Means(axis=3), FileInput("x", "float32", "NHWC", 3, *SIZE, None), ("float32", "NHWC", 3)),
        (Means(), FileInput("x", "uint8", "NHWC", 3, *SIZE, None), ("float32", "NCHW", 3)),
        (Means(torch.uint8, 3), FileInput("x", "uint8", "NHWC", 3, *SIZE, None), ("uint8", "NHWC", 3)),
        (Means(), GIVEN, ("float32", "NCHW", 3)),
        (Means(channels=1), GIVEN, ("float32", "NCHW", 1)),
    ],
)
def test_a_module_takes_what_the_file_takes_or_what_is_usual(module, given, takes):
    found = models.make_model("net:make", module, given, Scaling())
    assert (found.takes.dtype, found.takes.layout, found.takes.channels) == takes
    assert not found.training
    assert not found.gives_probabilities
    assert models.classes_of(found, SIZE) == 3
    soft = models.make_model("net:make", nn.Sequential(module, nn.Softmax(1)), given, Scaling())
    assert soft.gives_probabilities


def test_a_module_that_takes_no_images_is_refused():
    with pytest.raises(CheckFailed) as caught:
        models.make_model("net:make", Means(channels=7), GIVEN, Scaling())
    assert caught.value.message.startswith("net:make cannot be run on images 5×4: ")
    with pytest.raises(CheckFailed, match="net:make gives Tensor of shape"):
        models.make_model("net:make", nn.Identity(), GIVEN, Scaling())


def test_a_module_must_give_the_same_twice():
    class Odd(Means):
        value = float("nan")

        def forward(self, x):
            return super().forward(x) * self.value

    takes = ModuleInput("float32", "NCHW", 3, Scaling())
    odd = ForeignModel(Odd(), takes)
    models.require_deterministic("net:make", odd, SIZE)  # NaN is the same as NaN
    with pytest.raises(CheckFailed, match="two answers"):
        models.require_deterministic("net:make", ForeignModel(nn.Sequential(Means(), nn.Dropout()), takes), SIZE)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("height", "width", "any_size"), [("H", "W", True), (SIDE, "W", False), ("H", SIDE, False), (SIDE, SIDE, False)]
)
def test_a_file_takes_any_size_where_it_states_neither_side(layout, height, width, any_size):
    given = FileInput("x", "float32", layout, 3, SIDE, SIDE, None)
    shape = ["N", 3, height, width] if layout == "NCHW" else ["N", height, width, 3]
    assert takes_any_size(Classifier(Path("x.onnx"), make(shape=shape), 18, given, (), "fp32")) is any_size


def test_classes_must_be_as_many():
    models.check_classes("net.onnx", "net:make", 3, 3)
    with pytest.raises(CheckFailed) as caught:
        models.check_classes("net.onnx", "net:make", 3, 4)
    assert caught.value.message == "net.onnx gives 3 classes, net:make gives 4"


def test_what_timm_states_of_a_module_is_read():
    module = nn.Identity()
    assert models.published_scaling(module) is models.published_size(module) is None
    module.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": [1, 2, 3], "input_size": (3, 32, 48)}
    assert models.published_scaling(module) == Scaling(mean=(0.5, 0.4, 0.3), std=(1.0, 2.0, 3.0))
    assert models.published_size(module) == (32, 48)
    nothing = (
        {"mean": (0.5,), "std": (1.0,), "input_size": (32, 48)},
        {"mean": (0.5,) * 3},
        "none",
        {"mean": None, "std": 1.0, "input_size": (3, None, None)},
        {"mean": "abc", "std": "abc", "input_size": (3, "a", "b")},
        {"mean": (0.5,) * 3, "std": (0.2, 0.0, 0.2), "input_size": (3, 0, -1)},
        {"mean": (float("nan"),) * 3, "std": (1.0,) * 3, "input_size": (3, float("nan"), 1)},
        {"mean": (0.5,) * 3, "std": (1.0, 1e-45, 1.0), "input_size": (3, float("inf"), 10**30)},
    )
    for other in nothing:
        module.pretrained_cfg = other
        assert models.published_scaling(module) is models.published_size(module) is None, other


@pytest.mark.parametrize(
    "scaling", [{"std": "1e-45,1,1"}, {"mean": "1e39,0,0"}, {"value_range": "-1e38,3e38"}], ids=str
)
def test_a_scaling_that_float32_cannot_hold_is_refused(recwarn, scaling):
    with pytest.raises(UsageError, match="float32 cannot hold"):
        parse_scaling(**{"value_range": None, "mean": None, "std": None, **scaling})
    assert not recwarn.list


SOURCE = """
import torch
from torch import nn

NUMBER = 3

def build():
    return nn.Linear(2, 2).double().eval()

def training():
    return nn.Sequential(nn.ReLU(), nn.Dropout())

def another():
    return [nn.ReLU()]

def broken():
    raise SystemExit("no weights")
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "net.py").write_text(SOURCE)
    return tmp_path / "net.py"


def test_a_module_of_a_file_comes_ready_to_be_compared(source):
    found = module.load(f"{source}:build")
    assert isinstance(found, nn.Linear)
    assert not found.training
    assert found.weight.dtype == torch.float32
    assert not any(one.requires_grad for one in found.parameters())
    assert isinstance(module.load("torch.nn:ReLU"), nn.ReLU)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("absent", UsageError, "has no function 'absent'"),
        ("NUMBER", UsageError, ":NUMBER is int, which is no function"),
        ("another", CheckFailed, ":another gives list, which is no torch.nn.Module"),
        ("broken", CheckFailed, ":broken raises "),
        ("training", CheckFailed, ":training gives a module in training mode: 1 (Dropout) computes something else"),
        ("", UsageError, "is not MODULE:FUNCTION"),
    ],
)
def test_a_function_that_gives_no_module_is_refused(source, name, error, says):
    with pytest.raises(error) as caught:
        module.load(f"{source}:{name}")
    assert says in caught.value.message


def test_a_missing_function_is_answered_with_those_there_are(source):
    with pytest.raises(UsageError) as caught:
        module.load(f"{source}:absent")
    assert caught.value.hint == "it has another, broken, build, training"
    source.write_text("NUMBER = 3")
    with pytest.raises(UsageError) as caught:
        module.load(f"{source}:build")
    assert caught.value.hint == "it has no functions"


@pytest.mark.parametrize(
    ("reference", "text", "error", "says"),
    [
        ("absent.py:build", None, UsageError, "absent.py"),
        ("no_such_module:build", None, UsageError, "there is no module 'no_such_module'"),
        ("json.absent:build", None, UsageError, "there is no module 'json.absent'"),
        ("{folder}/wrong.py:build", "def (", CheckFailed, "wrong.py cannot be imported"),
        ("{folder}/needs.py:build", "import no_such_module", CheckFailed, "needs.py cannot be imported"),
    ],
)
def test_what_cannot_be_imported_is_said(tmp_path, reference, text, error, says):
    reference = reference.format(folder=tmp_path)
    if text is not None:
        (tmp_path / reference.partition(":")[0].rpartition("/")[2]).write_text(text)
    with pytest.raises(error) as caught:
        module.load(reference)
    assert says in caught.value.message
    if text == "import no_such_module":
        assert "PYTHONPATH" in caught.value.hint


def test_a_few_of_many_are_spread_from_the_first_to_the_last():
    assert gathering.evenly_spaced(9, 3).tolist() == [0, 4, 8]
    assert gathering.evenly_spaced(20, 4).tolist() == [0, 6, 13, 19]
    assert gathering.evenly_spaced(3, 64).tolist() == [0, 1, 2]
    assert gathering.evenly_spaced(1, 4).tolist() == [0]


def test_a_folder_of_images_is_read_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "MAX_NATURAL", 3)
    for index in range(9):
        Image.fromarray(np.full((*SIZE, 3), index, np.uint8)).save(tmp_path / f"{index}.png")
    names, pixels = gathering.gather(tmp_path, SIZE)
    assert names[:4] == ["0.png", "4.png", "8.png", "synthetic image 0"]
    assert pixels[:3, 0, 0, 0].tolist() == [0, 4, 8]
    assert pixels.shape == (3 + 16, *SIZE, 3)
    names, pixels = gathering.gather(tmp_path / "5.png", SIZE)
    assert names[:2] == ["5.png", "synthetic image 0"]
    (tmp_path / "6.png").write_text("no image")
    with pytest.raises(CheckFailed, match=r"6\.png cannot be read"):
        gathering.gather(tmp_path / "6.png", SIZE)
    with pytest.raises(UsageError, match="does not exist"):
        gathering.gather(tmp_path / "absent", SIZE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        gathering.gather(tmp_path / "empty", SIZE)


def test_without_images_parts_of_photographs_are_taken():
    names, pixels = gathering.gather(None, SIZE)
    shipped = [f"{part} of {name}" for name in ("china.jpg", "flower.jpg") for part in ("center", "left", "right")]
    assert names[:7] == [*shipped, "synthetic image 0"]
    assert pixels.shape == (6 + 16, *SIZE, 3)
    wide = load_sample_image("china.jpg")
    side, width = wide.shape[:2]
    parts = [wide[:, left : left + side] for left in ((width - side) // 2, 0, width - side)]
    for part, found in zip(parts, pixels, strict=False):
        assert part.shape == (side, side, 3)
        assert np.array_equal(found, np.asarray(fit(Image.fromarray(part), SIZE)))
    for photograph in (pixels[:3], pixels[3:6]):
        assert all((one != other).any() for one, other in itertools.pairwise(photograph))
