"""What `finetune` says of data that will spoil its figures, from what reading found out."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from poolzoo.data import cautions
from poolzoo.data.identity import DataIdentity, SplitIdentity


def said(capsys, train_labels, leaked=0):
    """What is said of distinct images, of which some are test images too."""
    digests = np.random.default_rng(0).integers(0, 256, (len(train_labels) + 10, 8), np.uint8)
    test = SplitIdentity(digests[len(train_labels) - leaked :][:10], np.zeros(10, np.int64))
    train = SplitIdentity(digests[: len(train_labels)], np.array(train_labels))
    cautions.warn("folder:photos", DataIdentity({"train": train, "test": test}, ()), ("ant", "bee", "cat"))
    return capsys.readouterr().err.splitlines()


def test_good_data_is_not_spoken_of(capsys):
    assert said(capsys, [0] * 9 + [1] * 5) == []


@pytest.mark.parametrize(("leaked", "words"), [(1, "1 of 10 test images is a"), (3, "3 of 10 test images are")])
def test_test_images_that_are_trained_on_are_counted(capsys, leaked, words):
    (line,) = said(capsys, [0, 1] * 5, leaked)
    assert words in line
    assert "poolzoo data check folder:photos" in line


@pytest.mark.parametrize("several", [False, True])
def test_unequal_classes_are_named(capsys, several):
    labels = [0] * 3 + [1] * 30  # and no cat at all, which is another message
    given = np.eye(3, dtype=np.uint8)[labels] if several else labels
    (line,) = said(capsys, given)
    assert "3 training images of ant, 30 of bee" in line
    assert ("--sampler" in line) is not several  # which needs one label an image
    assert said(capsys, np.array(given)[1:][:-11]) == []  # 2 and 19


def test_finetune_warns_of_leaked_images(poolzoo, photos, tmp_path):
    shutil.copy(photos / "train/red/1.png", photos / "test/red/copy.png")
    arguments = ("--data", f"folder:{photos}", "--backbone", "nano/plain", "--epochs", 1, "--image-size", 16)
    outcome = poolzoo("finetune", *arguments, "--dry-run")
    assert outcome.code == 0
    assert "warning: 1 of 9 test images is a training image too" in outcome.err


def test_equal_stamps_of_streamed_files_are_no_leak(capsys):
    digests, labels = np.arange(32, dtype=np.uint8).reshape(4, 8), np.array([0, 1] * 2)
    both = SplitIdentity(digests, labels, of_files=True)  # two archives of one tool: names, sizes and times are equal
    cautions.warn("folder:photos", DataIdentity({"train": both, "test": both}, ()), ("ant", "bee"))
    assert capsys.readouterr().err == ""
