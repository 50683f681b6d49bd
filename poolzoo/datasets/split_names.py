"""Which split a word, or the name of a file, means: train, test or val, as people write them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

SPLITS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}


def split_of(word: str) -> str | None:
    """The split that a word means; None for any other word."""
    return SPLITS.get(word) or SPLITS.get(word.strip().lower())


def split_of_file(path: Path) -> str:
    """The split of a file by a word in its name, or the name of its folder: `data/train-0001.tar`, `test/0001.tar`.

    A file without such a word holds training images.
    """
    for name in (path.stem, path.parent.name):
        for word in re.split(r"[^a-zA-Z]+", name):
            if (split := split_of(word)) is not None:
                return split
    return "train"
