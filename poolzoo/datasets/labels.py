"""The labels of a data set as they are read, by their names, and their places among the classes."""

from __future__ import annotations

import ast
import json
import re
from array import array
from collections.abc import Sequence

import numpy as np

from poolzoo.common.errors import UsageError
from poolzoo.data.class_mismatch import alike, difference

SEPARATORS = re.compile(r"[|;]")
EXPLAINED = 20  # unknown classes for which a known one that looks alike is sought


class SplitLabels:
    """Collects the labels of images by split, one or several an image, in a few bytes each.

    Args:
        what: The data, for messages.
        multilabel: Whether an image may have several labels, or none.
    """

    def __init__(self, what: str, *, multilabel: bool) -> None:
        self.what = what
        self.multilabel = multilabel
        self._codes: dict[str, int] = {}  # in the order in which they come
        self._found: dict[str, array[int]] = {}
        self._counts: dict[str, array[int]] = {}

    def add(self, split: str, labels: Sequence[str]) -> None:
        """Adds an image of a split with its labels: one of them, or with `multilabel` any number."""
        codes, found = self._codes, self._found.setdefault(split, array("i"))
        for name in labels:
            found.append(codes.setdefault(name, len(codes)))
        if self.multilabel:
            self._counts.setdefault(split, array("i")).append(len(labels))

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that have images, "train" first."""
        return tuple(split for split in ("train", "test", "val") if split in self._found)

    def classes(self, split: str) -> tuple[str, ...]:
        """The names of the classes that have images in a split: whole numbers by their value, others by their text."""
        names = list(self._codes)
        found = [names[code] for code in np.unique(np.asarray(self._found[split], np.int64))]
        return tuple(sorted(found, key=(lambda name: (int(name), name)) if all(map(_is_number, found)) else None))

    def places(self, split: str, classes: Sequence[str]) -> np.ndarray:
        """The labels of a split as places in the classes: `int32[N]`, or `uint8[N, K]` of several.

        Raises:
            UsageError: There is a label that is no class; it says which.
        """
        place = {name: index for index, name in enumerate(classes)}
        table = np.array([place.get(name, -1) for name in self._codes], np.int32)
        found = table[np.asarray(self._found[split], np.int64)]
        if (found < 0).any():
            self._refuse(split, classes)
        if not self.multilabel:
            return found
        counts = np.asarray(self._counts[split], np.int64)
        labels = np.zeros((len(counts), len(classes)), np.uint8)
        labels[np.repeat(np.arange(len(counts)), counts), found] = 1
        return labels

    def _refuse(self, split: str, classes: Sequence[str]) -> None:
        known = set(classes)
        unknown = [name for name in self.classes(split) if name not in known]
        similar = [name for name in classes if any(alike(name, one) for one in unknown[:EXPLAINED])]
        differing = difference("train", similar, split, unknown)
        raise UsageError(
            f"{self.what} has labels in {split} that no training image has: {differing}",
            "class names come from the training images; correct the labels, or add training images",
        )


def split_labels(text: str) -> list[str]:
    """The labels in a cell: a JSON list, a Python list as pandas writes it, or names separated by `|` or `;`."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                return label_names(read(text))
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
    return [name for part in SEPARATORS.split(text) if (name := part.strip())]


def label_names(value: object) -> list[str]:
    """The names in a value of JSON or a table: a text, a whole number, or a list of these. An empty value has none.

    Raises:
        TypeError: It is something else.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, bool) or not isinstance(value, int | list | tuple):
        raise TypeError(f"{value!r:.80} is no label")
    if isinstance(value, int):
        return [str(value)]
    if any(isinstance(one, list | tuple) for one in value):
        raise TypeError(f"{value!r:.80} is no label")
    return list(dict.fromkeys(name for one in value for name in label_names(one)))


def _is_number(name: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,18}", name) is not None
