"""Work in bytes: blocks, statistics, evaluation batches; each image file opened once; what does not fit is refused."""

from __future__ import annotations

import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from poolzoo.common import memory, resources
from poolzoo.common.errors import EnvironmentProblem, UsageError
from poolzoo.data import blocks, image_facts, source, store
from poolzoo.data.batches import Rank
from poolzoo.data.identity import DataIdentity
from poolzoo.data.statistics import ChannelStatistics, channel_statistics
from poolzoo.datasets import digits
from poolzoo.metrics import shifts
from poolzoo.train import device, footprint, inference
from poolzoo.train.defaults import complete_settings
from poolzoo.train.settings import Settings
from poolzoo.train.splits import DataSplits, Split


def noise(count: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


# --- Statistics and facts -------------------------------------------------------------------------------------------


def in_one_piece(images: np.ndarray) -> ChannelStatistics:
    """The oracle: numpy's mean and deviation of all pixels at once."""
    scaled = images.reshape(-1, 3) / 255
    return ChannelStatistics(mean=tuple(scaled.mean(0).round(6)), std=tuple(scaled.std(0).clip(1e-3).round(6)))


SETS = {
    "noise": noise(50, 17),
    "dark": noise(40, 8) // 64,
    "digits": digits.load("train")[0],
    "constant": np.full((9, 4, 4, 3), 77, np.uint8),
}


@pytest.mark.parametrize("name", SETS)
def test_sums_of_images_give_the_statistics_of_their_pixels(name, monkeypatch):
    images = SETS[name]
    collected = image_facts.Collector(len(images))
    assert len(list(collected.watch(images))) == len(images)
    chosen = np.random.default_rng(1).permutation(len(images))[: len(images) // 2]
    for part in (None, chosen):
        whole = channel_statistics(images, part)
        assert channel_statistics(images, part, collected.sums) == whole
        assert whole == in_one_piece(images if part is None else images[part])
        monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
        assert blocks.rows(1) == 1000
        assert channel_statistics(images, part) == whole
    np.testing.assert_array_equal(collected.digests, image_facts.Facts.of(images).digests)


def test_statistics_hold_a_few_blocks_of_any_set():
    images = noise(300, 160)  # 23 MB
    tracemalloc.start()
    try:
        channel_statistics(images[:10])
        channel_statistics(images)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * blocks.BLOCK_BYTES


def test_rows_of_a_mapped_file_are_copies_of_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "RESIDENT_BYTES", 5000)
    whole = noise(100, 8)
    np.save(tmp_path / "rows.npy", whole)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    order = np.random.default_rng(0).permutation(100)
    for array, expected in ((mapped, whole), (mapped[:, :, ::-1], whole[:, :, ::-1])):
        rows = blocks.Rows(array)
        for start in range(0, 100, 7):
            part = rows[order[start : start + 7]]
            assert type(part).__name__ in ("ndarray", "memmap")
            np.testing.assert_array_equal(part, expected[order[start : start + 7]])
            np.testing.assert_array_equal(rows[start : start + 3], expected[start : start + 3])
    np.testing.assert_array_equal(blocks.gather(mapped, order), whole[order])


# --- Evaluation -----------------------------------------------------------------------------------------------------


class Wide(nn.Module):
    """Every image becomes a map of `channels` × its size, then logits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution, self.seen = nn.Conv2d(3, channels, 1), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        return self.convolution(x).mean((2, 3))


class Scaled(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize(("channels", "side"), [(4, 8), (64, 64), (512, 64)])
def test_a_footprint_is_what_the_largest_step_holds(channels, side):
    found = footprint.measure(Wide(channels), Scaled(), (side, side), device.policy("cpu"))
    pixels = side * side
    largest = 4 * pixels * (3 + channels)  # the normalized image and the map, at the same time
    assert largest <= found.peak <= largest + 8 * 3 * 4 * pixels + 10_000
    assert found.total >= found.peak


def test_evaluation_in_batches_that_fit_gives_the_same(monkeypatch):
    torch.manual_seed(0)
    network, images, policy = Wide(64), noise(40, 32), device.policy("cpu")
    whole = inference.predict_logits(network, Scaled(), images, policy, 40)
    monkeypatch.setitem(footprint.EVALUATION_BYTES, "cpu", 3_000_000)
    network.seen.clear()
    parts = inference.predict_logits(network, Scaled(), images, policy)
    assert 1 < max(network.seen) < 15
    np.testing.assert_array_equal(parts, whole)
    chosen = np.array([7, 3, 31])
    np.testing.assert_allclose(
        inference.predict_logits(network, Scaled(), images, policy, indices=chosen), whole[chosen], atol=1e-6
    )


def test_measuring_leaves_no_trace():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten()).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    footprint.measure(network, Scaled(), (8, 8), device.policy("cpu"))
    assert torch.equal(torch.rand(3), expected)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_shifts_of_a_part_are_those_of_the_whole():
    images = noise(11, 16)
    whole = shifts.pairs(images, "crop", seed=3)
    part = shifts.pairs(images[4:9], "crop", seed=3, offset=4)
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one[4:9], other)


# --- Image files are opened once ------------------------------------------------------------------------------------

_opened: Counter[str] | None = None


def _count(event: str, arguments: tuple) -> None:
    # A mode is there where Python opens a file; `os.open` inside of that is another event of the same file.
    if _opened is not None and event == "open" and arguments[1] and str(arguments[0]).endswith(".jpg"):
        _opened[str(arguments[0])] += 1


sys.addaudithook(_count)  # it cannot be taken away again


@pytest.fixture
def opened() -> Iterator[Counter[str]]:
    """How often each image file was opened."""
    global _opened
    _opened = Counter()
    yield _opened
    _opened = None


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "folder"
    for split, count in (("train", 80), ("test", 8)):
        for label, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(noise(1, 16, index)[0] // 2 + 100 * label).save(root / split / name / f"{index}.jpg")
    return root


@pytest.mark.parametrize("limit", ["20", "0"])
def test_a_comparison_opens_each_file_once(folder, tmp_path, monkeypatch, poolzoo, opened, limit):
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", limit)
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    common = ("--data", f"folder:{folder}", "--backbone", "nano/plain", "--threads", 1, "--epochs", 1, "-q")
    compare = (
        "--pool",
        "avg,max",
        "--seeds",
        1,
        "--robustness-samples",
        0,
        "--export-top",
        0,
        "--out",
        tmp_path / "out",
    )
    assert poolzoo("compare", *common, *compare).code == 0
    assert sorted(opened.values()) == [1] * 176
    if limit != "0":  # the decoded images lie on the disk, for the next command too
        opened.clear()
        assert poolzoo("finetune", *common, "--dry-run").code == 0
        assert not opened


# --- What does not fit ----------------------------------------------------------------------------------------------


def test_images_that_fit_nowhere_are_refused_before_any_is_decoded(folder, tmp_path, monkeypatch, poolzoo):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", "0.00001")
    monkeypatch.setattr(resources, "available_memory", lambda: 300_000_000)
    monkeypatch.setattr(store.decode, "each", lambda *rest: pytest.fail("an image was decoded"))
    arguments = ("--data", f"folder:{folder}", "--data-cache", "decoded", "--backbone", "nano/plain")
    outcome = poolzoo("finetune", *arguments, "--out", tmp_path / "run")
    assert outcome.code == 4
    error, hint = outcome.err.splitlines()
    assert (
        "the 160 decoded train and 16 decoded test images, 0.1 MB, do not fit into memory: 300.0 MB are available"
        in error
    )
    assert all(word in hint for word in ("--image-size", "--limit", "POOLZOO_CACHE_LIMIT", "POOLZOO_CACHE="))
    assert not (tmp_path / "run").exists()


def test_all_splits_are_counted_before_the_first_is_decoded(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", "0")
    train, test = 160 * 16 * 16 * 3, 16 * 16 * 16 * 3
    decoded = []
    each = store.decode.each
    monkeypatch.setattr(store.decode, "each", lambda *rest: decoded.append(rest[1]) or each(*rest))
    monkeypatch.setattr(resources, "available_memory", lambda: memory.WORKING + train + test - 1)
    with pytest.raises(EnvironmentProblem, match="the 160 decoded train and 16 decoded test images"):
        source.load_split(source.open_dataset(f"folder:{folder}"), "train")
    assert decoded == []
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", "1")  # the disk has room
    source.load_split(source.open_dataset(f"folder:{folder}"), "train")
    assert decoded == ["train"]


def test_without_a_cache_only_comparisons_keep_images_in_memory(folder, monkeypatch):
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", "0")

    def load() -> np.ndarray:
        return source.load_split(source.open_dataset(f"folder:{folder}", splits=("test",)), "test")[0]

    assert load() is not load()
    with store.shared():
        assert load() is load()


# --- Numbers of processes -------------------------------------------------------------------------------------------


def completed(images: int, held: int, tested: int, typed: int | None, processes: int) -> int:
    data = DataSplits(
        name="x",
        train=Split(noise(images + held, 4), np.zeros(images + held, np.int64)),
        train_indices=np.arange(images),
        val_indices=np.arange(images, images + held),
        test=Split(noise(tested, 4), np.zeros(tested, np.int64)),
        classes=("a", "b"),
        flip=True,
        identity=DataIdentity({}, ("a", "b")),
    )
    settings = Settings(batch_size=typed, epochs=1)
    return complete_settings(settings, data, device.policy("cpu"), lr=0.1, rank=Rank(0, processes)).batch_size


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((40, 9, 3, None, 4), "3 images to test on are too few for 4 processes"),
        ((40, 3, 9, None, 4), "3 images to validate on are too few for 4 processes"),
        ((3, 9, 9, 4, 4), "--batch-size 4: 3 images to train on are too few for 4 processes"),
        ((40, 9, 9, 6, 4), "--batch-size 6 cannot be divided among 4 processes"),
    ],
)
def test_a_count_that_is_too_small_is_named(numbers, says):
    with pytest.raises(UsageError, match=says):
        completed(*numbers)


@pytest.mark.parametrize(("typed", "processes", "expected"), [(64, 4, 12), (64, 1, 13), (None, 4, 4), (8, 4, 8)])
def test_an_oversized_batch_becomes_all_images_that_divide_evenly(typed, processes, expected):
    assert completed(13, 9, 9, typed, processes) == expected


def test_a_problem_with_memory_is_the_machines(monkeypatch):
    monkeypatch.setattr(resources, "available_memory", lambda: 0)
    from poolzoo.common import memory

    with pytest.raises(EnvironmentProblem):
        memory.require("the images", 1)
