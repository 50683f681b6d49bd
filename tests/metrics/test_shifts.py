"""Shifted pairs against brute force, and consistency on networks whose answer is known beforehand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import poolzoo
from poolzoo.common.errors import UsageError
from poolzoo.metrics.shifts import ShiftConsistency, agreement, consistency, pairs

each_kind = pytest.mark.parametrize("kind", ["crop", "circular"])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)


def moved(image: np.ndarray, down: int, right: int, kind: str) -> np.ndarray:
    """Pixel by pixel: each value comes from (row + down, column + right); a mirror does not repeat the end."""
    result = np.empty_like(image)
    for at in np.ndindex(image.shape[:2]):
        source = []
        for position, n in zip((at[0] + down, at[1] + right), image.shape[:2], strict=True):
            if kind == "circular":
                position %= n
            elif position < 0:
                position = -position
            elif position >= n:
                position = 2 * (n - 1) - position
            source.append(position)
        result[at] = image[tuple(source)]
    return result


def found(image: np.ndarray, shifted: np.ndarray, reach: int, kind: str) -> tuple[int, int]:
    """The one shift within reach that makes an image of noise the shifted one."""
    steps = range(-reach, reach + 1)
    [shift] = [s for s in itertools.product(steps, steps) if (moved(image, *s, kind) == shifted).all()]
    return shift


@each_kind
@pytest.mark.parametrize("size", [(8, 8), (9, 12)])
def test_each_copy_is_the_image_shifted_within_reach(kind, size):
    images = np.random.default_rng(1).integers(0, 256, (40, *size, 3), dtype=np.uint8)
    copies = pairs(images, kind, reach=2)
    shifts = np.array([[found(i, c, 2, kind) for i, c in zip(images, copy, strict=True)] for copy in copies])
    assert all(copy.dtype == np.uint8 and copy.shape == images.shape for copy in copies)
    assert set(shifts.ravel()) == {-2, -1, 0, 1, 2}
    four = shifts.transpose(0, 2, 1).reshape(4, -1)  # first and second copy, down and right
    assert np.abs(np.corrcoef(four) - np.eye(4)).max() < 0.5
    assert len(set(map(tuple, four.T))) > 30  # drawn for each image, not for the batch


@each_kind
def test_shifts_are_uniform_within_reach(kind):
    """The position of one white pixel, for 4,000 images."""
    images = np.zeros((4000, 32, 32, 3), np.uint8)
    images[:, 16, 16] = 255
    for copy in pairs(images, kind):
        for axis in (1, 2):
            counts = np.bincount(copy[..., 0].max(3 - axis).argmax(1) - 16 + 4, minlength=9)
            assert len(counts) == 9  # the default reach is 4 of 32 pixels
            assert (np.abs(counts - 4000 / 9) < 5 * (4000 / 9) ** 0.5).all()


@each_kind
def test_the_seed_decides_and_an_image_keeps_its_draw(kind, images):
    one, again, other = (pairs(images, kind, seed=seed) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert all((a != b).any() for a, b in zip(one, other, strict=True))
    assert all((a[:50] == b).all() for a, b in zip(one, pairs(images[:50], kind, seed=3), strict=True))


def test_agreement_counts_equal_largest_logits():
    first = np.array([[1, 2, 0], [5, 4, 3], [0, 0, 1], [0, np.nan, 1], [np.inf, 0, 1], [3, 2, 1]], float)
    second = np.array([[0, 9, 1], [4, 5, 3], [2, 2, 3], [0, np.nan, 1], [np.inf, 0, 1], [3, 2, 1]], float)
    assert agreement(first, second) == pytest.approx(3 / 6)


# --- Networks --------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """Circular convolutions, a downsampling layer between them, and a global mean: `float64[N, 3, H, W] → [N, 10]`."""

    def __init__(self, downsample: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")
        self.downsample = downsample
        self.second = nn.Conv2d(8, 10, 3, padding=1, padding_mode="circular")
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.downsample(self.first(x).relu())).relu().mean((2, 3))

    def predict(self, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = self.eval()(torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255)
        return (logits - logits.mean(0)).numpy()  # so that noise images do not all fall into one class


class EverySecond(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2, ::2]


def aps() -> nn.Module:
    return poolzoo.create_pooling("aps", channels=8, kind="local", kernel_size=2, stride=2)


@pytest.mark.parametrize("downsample", [nn.Identity, aps], ids=["none", "aps"])
def test_networks_that_are_invariant_by_construction_are_fully_consistent(downsample, images):
    network = Network(downsample())
    logits = network.predict(images)
    assert len(set(logits.argmax(1))) > 3
    # The mean over the images is the same for both copies, since no image's logits change.
    result = consistency(network.predict, images, logits.argmax(1), kind="circular", reach=5)
    assert result == ShiftConsistency(kind="circular", reach=5, n=200, consistency=1.0, stability=1.0)


def test_subsampling_makes_predictions_depend_on_the_shift(images):
    result = consistency(Network(EverySecond()).predict, images, None, kind="circular")
    assert 0.1 < result.consistency < 0.99
    assert result.stability is None
    assert result.reach == 2


def test_a_checkerboard_shows_what_subsampling_drops():
    """Every second pixel of a checkerboard is white or black by the parity of the shift: half of the pairs agree."""
    board = (np.add.outer(np.arange(8), np.arange(8)) % 2 * 255).astype(np.uint8)
    images = np.repeat(board[None, :, :, None], 4000, 0).repeat(3, 3)

    def predict(x: np.ndarray) -> np.ndarray:
        brightness = x[:, ::2, ::2].mean((1, 2, 3)) - 127.5
        return np.stack([brightness, -brightness], 1)

    # A shift by s of {-2 … 2} is even with chance 3/5, and the sum of two with p = 9/25 + 4/25.
    p = 13 / 25
    result = consistency(predict, images, np.zeros(4000, int), kind="circular", reach=2)
    assert result.consistency == pytest.approx(p**2 + (1 - p) ** 2, abs=0.04)
    assert result.stability == pytest.approx((1 - p) ** 2, abs=0.04)  # class 0 is white: odd shifts
    assert consistency(lambda x: predict(x)[:, ::-1], images, np.ones(4000, int), kind="circular", reach=2) == result


@each_kind
def test_consistency_is_counted_image_by_image(kind, images):
    labels = np.random.default_rng(2).integers(0, 10, len(images))
    network = Network(nn.MaxPool2d(2))
    result = consistency(network.predict, images, labels, kind=kind, reach=3, seed=5)
    agree = stable = 0
    first, second = (network.predict(copy).argmax(1) for copy in pairs(images, kind, 3, 5))
    for *classes, label in zip(first, second, labels, strict=True):
        agree += classes[0] == classes[1]
        stable += classes == [label, label]
    assert 0 < stable < agree < len(images)
    assert result.to_json() == {
        "kind": kind,
        "reach": 3,
        "n": 200,
        "consistency": pytest.approx(agree / 200),
        "stability": pytest.approx(stable / 200),
    }


def test_unknown_kinds_and_reaches_that_do_not_fit_are_told(images):
    with pytest.raises(UsageError, match="'circlar'") as told:
        pairs(images, "circlar")
    assert "circular" in told.value.hint
    for reach in (0, 16):
        with pytest.raises(UsageError, match=f"reach of {reach} "):
            pairs(images, "crop", reach)
