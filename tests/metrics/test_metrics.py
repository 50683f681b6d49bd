"""The figures of a test against scikit-learn, scipy, loops and hand; mirror images averaged; peak memory."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, top_k_accuracy_score
from torch import nn

from poolzoo.artifacts.run_report import PeakMemory
from poolzoo.common import output
from poolzoo.metrics import classification
from poolzoo.metrics.intervals import calibration_error, wilson_interval
from poolzoo.metrics.results import Metrics
from poolzoo.train import device, inference, memory


def classes(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]


def some(images: int, count: int, scale: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that lean towards the labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, count, images)
    labels[:count] = np.arange(count)
    logits = generator.normal(0, scale, (images, count)) + scale * np.eye(count)[labels]
    return logits.astype(np.float32), labels


def ece_by_loops(logits: np.ndarray, labels: np.ndarray) -> float:
    """The definition of Guo et al., one image and one bin at a time."""
    seen = []
    for row, label in zip(logits.tolist(), labels, strict=True):
        powers = [math.exp(value) for value in row]
        seen.append((max(powers) / math.fsum(powers), row.index(max(row)) == label))
    total = 0.0
    for m in range(15):
        members = [(confidence, right) for confidence, right in seen if m / 15 < confidence <= (m + 1) / 15]
        if members:
            confidence, right = (math.fsum(column) / len(members) for column in zip(*members, strict=True))
            total += len(members) / len(seen) * abs(right - confidence)
    return total


@pytest.mark.parametrize("count", [6, 10, 100])
def test_top_5_is_scikit_learns(count):
    logits, labels = some(500, count)
    found = classification.compute(logits, labels, classes(count)).top5
    assert found == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=np.arange(count)), abs=1e-12)
    assert 0 < found < 1


def test_top_5_says_nothing_about_five_classes():
    assert classification.compute(*some(50, 5), classes(5)).top5 is None


def test_of_equal_logits_the_first_classes_are_the_largest():
    labels = np.arange(8)
    assert classification.top_accuracy(np.zeros((8, 8)), labels, 5) == 5 / 8
    assert (
        classification.top_accuracy(np.zeros((8, 8)), labels, 1)
        == classification.accuracy(np.zeros((8, 8)), labels)
        == 1 / 8
    )


@pytest.mark.parametrize("n", [1, 7, 360, 10_000])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.97, 1.0])
def test_the_interval_is_wilsons(share, n):
    right = round(share * n)
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    found = wilson_interval(right, n)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found[0] <= right / n <= found[1] <= 1


def test_the_interval_is_that_of_the_accuracy():
    logits, labels = some(200, 4)
    found = classification.compute(logits, labels, classes(4))
    share = accuracy_score(labels, logits.argmax(1))
    expected = binomtest(round(share * 200), 200).proportion_ci(0.95, method="wilson")
    assert found.accuracy == share
    assert found.interval == pytest.approx([expected.low, expected.high], abs=1e-12)


@pytest.mark.parametrize(("count", "scale"), [(2, 1.0), (10, 0.2), (10, 3.0), (40, 8.0)])
def test_the_calibration_error_is_its_definition(count, scale):
    logits, labels = some(2000, count, scale)
    found = classification.compute(logits, labels, classes(count)).ece
    assert found == pytest.approx(ece_by_loops(logits, labels), abs=1e-12)
    assert found > 0.005


def test_the_calibration_error_by_hand():
    # Three images of confidence 0.75, two of them right; one of 0.9 that is wrong: 3/4 · |2/3 − 0.75| + 1/4 · 0.9.
    logits = np.log([[0.75, 0.25], [0.25, 0.75], [0.75, 0.25], [0.1, 0.9]])
    found = classification.compute(logits, np.array([0, 1, 1, 0]), ("a", "b"))
    assert found.ece == pytest.approx(0.0625 + 0.225)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # 1/5 = 3/15 is the end of the third bin and 1/4 lies in the fourth: (|1 − 1/5| + |0 − 1/4|) / 2.
    logits = np.array([[0.0] * 5, [0.0] * 4 + [-np.inf]])
    assert calibration_error(logits, np.array([True, False])) == pytest.approx((0.8 + 0.25) / 2)


def test_large_logits_overflow_nothing():
    logits = np.array([[3e38, -3e38, 0], [-3e38, 3e38, 0], [1e4, 0, -1e4]], np.float32)
    found = classification.compute(logits, np.array([0, 1, 1]), classes(3))
    assert found.ece == pytest.approx(1 / 3)


def test_images_without_finite_logits_count_as_wrong_and_are_told(capsys):
    logits = 9 * np.eye(6, dtype=np.float32)
    logits[0, 3] = np.nan
    logits[1, 1] = np.inf
    logits[2] = -np.inf
    logits[3, 0] = -np.inf  # says that it is not class 0, and is right
    found = classification.compute(logits, np.arange(6), classes(6))
    assert found.accuracy == classification.accuracy(logits, np.arange(6)) == found.top5 == found.recall == 0.5
    assert found.ece is None
    assert np.array(found.confusion).sum(1).tolist() == [0, 0, 0, 1, 1, 1]
    assert [row.n for row in found.per_class] == [1] * 6
    assert "NaN or infinity for 3 of 6 images" in capsys.readouterr().err
    json.dumps(found.to_json(), allow_nan=False)
    classification.show(found)
    assert "calibration" not in capsys.readouterr().out


def test_a_network_that_gives_only_nan_has_accuracy_zero():
    found = classification.compute(np.full((9, 6), np.nan, np.float32), np.arange(9) % 6, classes(6))
    assert (found.accuracy, found.top5, found.f1, found.interval[0]) == (0, 0, 0, 0)


def test_the_last_lines_are_the_figures_of_all_classes(capsys):
    full = classification.compute(*some(300, 8), classes(8))
    full = replace(full, accuracy=0.875, interval=(0.83001, 0.90998), top5=0.98765, ece=0.01234)
    classification.show(full)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "accuracy 0.8750 on 300 images (95 % interval 0.8300 to 0.9100)",
        "top-5 accuracy 0.9877",
        "expected calibration error 0.0123",
    ]
    classification.show(replace(full, top5=None))
    assert "top-5" not in capsys.readouterr().out


def test_the_summary_has_five_keys():
    found = classification.compute(*some(50, 6), classes(6)).summary()
    assert list(found) == ["accuracy", "precision", "recall", "f1", "n"]


def test_metrics_survive_json():
    found = classification.compute(*some(50, 6), classes(7))
    assert found.per_class[6].f1 is None
    assert Metrics.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_metrics_of_earlier_versions_get_the_keys_they_lack():
    found = classification.compute(*some(50, 6), classes(6))
    kept = found.to_json()
    for key in ("interval", "top5", "ece"):
        del kept[key]
    assert Metrics.from_json(kept) == replace(found, top5=None, ece=None)


class OneSided(nn.Module):
    """A network to which left and right are not the same."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(gain * torch.randn(3 * 4 * 5, 7, generator=torch.Generator().manual_seed(1)))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x.flatten(1)) @ self.weight


class Scaled(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).float() / 255


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, 4, 5, 3)).astype(np.uint8)


def flip_tta(network: nn.Module, images: np.ndarray, policy: device.DevicePolicy) -> np.ndarray:
    """Both views through the network, a few at a time, and their mean."""
    views = (inference.predict_logits(network, Scaled(), view, policy, 4) for view in (images, images[:, :, ::-1]))
    return classification.flip_averaged_logits(*views)


def test_an_image_and_its_mirror_image_are_averaged_by_hand():
    network, images, policy = OneSided().train(), pixels(11), device.policy("cpu")
    found = flip_tta(network, images, policy)
    assert network.training
    weight = network.weight.detach().numpy().astype(np.float64).reshape(3, 4, 5, 7)
    expected = np.empty((11, 7))
    for row, image in enumerate(images / 255):
        mirrored = np.empty_like(image)
        for column in range(5):
            mirrored[:, column] = image[:, 4 - column]
        plain, turned = (np.einsum("hwc,chwk->k", view, weight) for view in (image, mirrored))
        expected[row] = (softmax(plain) + softmax(turned)) / 2
    assert (found.dtype, found.shape) == (np.float32, (11, 7))
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(softmax(found, axis=1), expected, rtol=1e-5, atol=1e-7)
    plain = inference.predict_logits(network, Scaled(), images, policy)
    assert np.abs(softmax(plain, axis=1) - expected).max() > 0.05


def test_averaged_mirror_images_keep_tiny_probabilities():
    found = flip_tta(OneSided(1e4), pixels(5), device.policy("cpu"))
    assert np.isfinite(found).all()
    assert found.min() < -1000


def test_averaged_mirror_images_stay_nan_without_a_word(capsys):
    found = flip_tta(OneSided(math.nan), pixels(3), device.policy("cpu"))
    assert np.isnan(found).all()
    assert capsys.readouterr().err == ""


def test_a_quiet_run_is_not_warned(capsys):
    output.set_verbosity(output.QUIET)
    classification.compute(np.full((2, 2), np.nan), np.array([0, 1]), ("a", "b"))
    assert capsys.readouterr() == ("", "")


PEAK = (
    "import gc\n"
    "from poolzoo.train.memory import peak_memory\n"
    "before = peak_memory('cpu')\n"
    "block = bytearray(300 << 20)\n"
    "del block\n"
    "gc.collect()\n"
    "after = peak_memory('cpu')\n"
    "print(before.host_bytes, after.host_bytes, after.device_bytes)\n"
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no getrusage")
def test_the_peak_counts_freed_memory_of_this_process_alone():
    larger = bytearray(1 << 30)  # of this process, whose child inherits its ru_maxrss on Linux
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    before, after, on_device = run.stdout.split()
    assert 296 << 20 < int(after) - int(before) < 304 << 20, run.stdout
    assert int(before) < len(larger), run.stdout
    assert on_device == "None"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no getrusage")
def test_without_proc_the_peak_uses_the_systems_unit(monkeypatch, tmp_path):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "missing")
    raw = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(sys, "platform", "linux")
    assert memory.peak_memory("cpu").host_bytes >= raw * 1024
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.peak_memory("cpu").host_bytes < 2 * raw
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert memory.peak_memory("cpu") == PeakMemory(host_bytes=None, device_bytes=None)


@pytest.mark.gpu
def test_the_peak_of_a_gpu_is_told():
    before = memory.peak_memory("cuda").device_bytes
    torch.empty(before + (64 << 20), dtype=torch.uint8, device="cuda")
    assert memory.peak_memory(torch.device("cuda", 0)).device_bytes >= before + (64 << 20)
