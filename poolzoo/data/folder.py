"""A folder of your own images as a data set: `PATH/train/<class>/*` and `PATH/test/<class>/*` (or `val`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poolzoo import output
from poolzoo.data import decode, disk, headers, images, store
from poolzoo.data.facts import Facts, KnownDataset
from poolzoo.errors import UsageError
from poolzoo.spec import Dataset, Split

Size = tuple[int, int]

DEFAULT_SIZE: Size = (128, 128)  # of images of mixed sizes: a 4×4 map in a backbone that downsamples 32 times
SAMPLE = 64  # images whose headers tell whether sizes are mixed, before all are read


def choose(labels: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """Indices of at most `limit` images, in order: the same for the same seed, classes in their own proportions."""
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels))  # an image's place within its class, as a share of the class
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(place, kind="stable")[:limit])


def dataset(
    path: Path,
    size: Size | None = None,
    splits: Sequence[Split] = ("train", "test"),
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """The data set in a folder.

    Args:
        path: The folder that holds `train` and `test` (or `val`).
        size: (height, width) to bring images to that are of mixed sizes, or larger; images of one size that are
            smaller stay as they are, because the network enlarges them on the device.
        splits: Those that are needed; their classes must be the same.
        limit: How many images to read of each split at most, chosen by `seed`.
        seed: Of the choice.

    Raises:
        UsageError: A folder is missing or empty, or the classes differ.
    """
    if not path.is_dir():
        raise UsageError(f"data folder {str(path)!r} does not exist", "give a folder that holds train/ and test/")
    classes = {split: _classes(_split_folder(path, split)) for split in splits}
    first = classes[splits[0]]
    for split, names in classes.items():
        if names != first:
            only = sorted(set(names) ^ set(first))
            raise UsageError(
                f"the classes in {path} differ between {splits[0]} and {split}: {', '.join(only[:5])}",
                "give both the same class folders",
            )
    reader = _Reader(path, tuple(first), size, limit, seed)
    return KnownDataset(
        name="folder", summary=str(path), load=reader.load, classes=tuple(first), facts=reader.facts.get
    )


def _split_folder(path: Path, split: Split) -> Path:
    candidates = [path / "train"] if split == "train" else [path / "test", path / "val"]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    names = " nor ".join(f"{candidate.name}/" for candidate in candidates)
    raise UsageError(f"{path} holds no {names}", f"put the {split} images into {candidates[0]}/<class>/")


def _classes(folder: Path) -> list[str]:
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    if not found:
        raise UsageError(f"{folder} holds no class folder", f"put images into {folder}/<class>/")
    return found


def _files(folder: Path) -> list[Path]:
    """The image files directly in a class folder; hidden files and files of other kinds are ignored."""
    names = sorted(e.name for e in os.scandir(folder) if e.is_file() and e.name[0] != ".")
    found = [folder / name for name in names if os.path.splitext(name)[1].lower() in images.extensions()]
    if not found:
        raise UsageError(f"class folder {folder} holds no image", "add some, or remove the folder")
    return found


class _Reader:
    """Reads the splits of one folder at one size, which the first split that is read decides for the others."""

    def __init__(self, path: Path, classes: tuple[str, ...], size: Size | None, limit: int | None, seed: int) -> None:
        self.limit, self.seed = limit, seed
        self.path, self.classes, self.size = path, classes, size
        self.decided: Size | None = None
        self.facts: dict[Split, Facts] = {}  # of the splits that were loaded
        self.shelf: disk.Shelf | None = None  # one for both splits: the second does not evict the first

    def load(self, split: Split, cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
        """`(uint8[N, H, W, 3], int64[N])`; of a large split the pixels are a read-only memory map of the cache."""
        folder = _split_folder(self.path, split)
        per_class = [_files(folder / name) for name in self.classes]
        files = [file for files in per_class for file in files]
        labels = np.repeat(np.arange(len(self.classes), dtype=np.int64), [len(files) for files in per_class])
        chosen = choose(labels, self.limit, self.seed)
        files, labels = [files[index] for index in chosen], labels[chosen]
        self.shelf = self.shelf or store.shelf(cache_dir)
        if self.decided is None:
            self.decided = self._decide(files)
        try:
            pixels, facts = store.load(self.shelf, store.Images(folder, files, labels, split, self.decided))
        except decode.MixedSizesError as mixed:
            self.decided = self._mixed(str(mixed))
            pixels, facts = store.load(self.shelf, store.Images(folder, files, labels, split, self.decided))
        self.facts[split] = facts
        self.decided = (pixels.shape[1], pixels.shape[2])
        return pixels, labels

    def _decide(self, files: Sequence[Path]) -> Size | None:
        """The size to bring images to, judged by a sample of them; None to take them as they are."""
        sample = headers.sample(files, SAMPLE)
        sizes = {size for file in sample if (size := decode.header_size(file)) is not None}
        if len(sizes) > 1:
            return self._mixed(", ".join(f"{width}×{height}" for height, width in sorted(sizes)[:3]))
        # Where they have the wanted size already, naming it finds what another command has stored of them by that size.
        if self.size is not None and sizes and (max(next(iter(sizes))) > max(self.size) or self.size in sizes):
            return self.size
        return None

    def _mixed(self, examples: str) -> Size:
        size = self.size or DEFAULT_SIZE
        hint = "" if self.size else "; --image-size overrules"
        output.say(f"images of mixed sizes ({examples}, …) are brought to {size[1]}×{size[0]}{hint}")
        return size
