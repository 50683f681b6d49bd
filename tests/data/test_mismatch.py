"""Classes that differ between splits: which split has which, and why they differ."""

from __future__ import annotations

import pytest

from poolzoo.common.errors import UsageError
from poolzoo.data import class_mismatch, source

PAIRS = {
    "normalization": ("caf\u00e9", "cafe\u0301", ["(U+00E9)", "(e + U+0301)", "one composed|composed and decomposed"]),
    "a space": ("cat", "cat ", ["'cat'", "'cat '", "spaces"]),
    "a hard space": ("a b", "a\u00a0b", ["U+00A0", "spaces"]),
    "nothing that is seen": ("cat", "ca\u200bt", ["U+200B", "\\u200b", "invisible"]),
    "case": ("Cat", "cat", ["upper and lower case"]),
    "width": ("cat1", "cat\uff11", ["U+FF11", "form of their characters"]),
}


@pytest.mark.parametrize(("ours", "theirs", "said"), PAIRS.values(), ids=PAIRS)
def test_names_that_look_alike_are_told_apart(ours, theirs, said):
    text = class_mismatch.difference("train", ["dog", ours], "test", ["dog", theirs])
    assert text.startswith(f"train has '{ours[0]}")
    assert "test has" in text
    assert "only" not in text
    for words in said:
        assert any(word in text for word in words.split("|")), text


def test_a_class_missing_in_one_split_is_named(photos):
    (photos / "train/red").rename(photos / "train/crimson")
    with pytest.raises(UsageError, match="only train has 'crimson'; only test has 'red'"):
        source.open_dataset(f"folder:{photos}")


def test_many_names_are_cut_short():
    text = class_mismatch.difference("train", [f"t{i}" for i in range(9)], "test", [f"E{i}x" for i in range(9)])
    assert "and 4 more" in text


def test_classes_of_similar_names_cause_a_warning(photos, capsys):
    for split in ("train", "test"):
        (photos / split / "red").rename(photos / split / "Blue")
    source.open_dataset(f"folder:{photos}")
    assert "the classes 'Blue' and 'blue' are two: they differ in upper and lower case" in capsys.readouterr().err


def test_evaluate_says_the_same_of_data_with_other_names(poolzoo, photos, tmp_path):
    (photos / "train/red").rename(photos / "train/r\u00e9d")
    (photos / "test/red").rename(photos / "test/r\u00e9d")
    options = ("--backbone", "nano/plain", "--epochs", 1, "--out", tmp_path / "run")
    assert poolzoo("finetune", "--data", f"folder:{photos}", *options).code == 0
    (photos / "test/r\u00e9d").rename(photos / "test/re\u0301d")
    outcome = poolzoo("evaluate", tmp_path / "run")
    assert outcome.code == 2
    assert "(e + U+0301), the run has" in outcome.err
