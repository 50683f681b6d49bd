"""A folder of your own images as a data set: `PATH/train/<class>/*`, `PATH/test/<class>/*`, perhaps `PATH/val`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common import output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data import class_mismatch, decode, disk, headers, sizes, store, unreadable, walk
from poolzoo.data.image_facts import Facts
from poolzoo.data.resize import PLAIN, Fit
from poolzoo.data.sizes import Size
from poolzoo.data.unreadable import BrokenImages
from poolzoo.plugin.spec import Dataset, Split

DEFAULT_SIZE: Size = (128, 128)  # of images of mixed sizes: a 4×4 map in a backbone that downsamples 32 times


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


@dataclass(frozen=True)
class Reading:
    """How a folder is to be read.

    Attributes:
        size: (height, width) that the network sees; None for what the files have.
        exact: Whether images are to come at that very size; else the center of smaller ones comes as it is, because
            the network enlarges it on the device.
        limit: How many images of each split to read at most, chosen by `seed`.
        seed: Of the choice.
        validation: Whether `val/` beside `test/` belongs to the data, as images to choose the best epoch by.
        skip: How many images that cannot be read may be left out, as `--skip-broken` has it.
        how: In which way images are brought to a size.
    """

    size: Size | None = None
    exact: bool = False
    limit: int | None = None
    seed: int = 0
    validation: bool = False
    skip: unreadable.Skip = None
    how: Fit = PLAIN


AS_IT_IS: Final = Reading()


@dataclass(frozen=True, kw_only=True)
class FolderDataset(Dataset):
    """The data set in a folder, with what reads it."""

    reader: Reader


def dataset(path: Path, reading: Reading = AS_IT_IS, splits: Sequence[Split] = ("train", "test")) -> FolderDataset:
    """The data set in a folder; says what in the folder is no part of it.

    Args:
        path: The folder that holds `train` and `test` (or `val`).
        reading: How to read it.
        splits: Those that are needed; their classes must be the same.

    Raises:
        UsageError: A folder is missing or empty, or the classes differ.
    """
    if not path.is_dir():
        raise UsageError(f"data folder {str(path)!r} does not exist", "give a folder that holds train/ and test/")
    tally = walk.Tally()
    folders: dict[str, Path] = {split: _split_folder(path, split) for split in splits}
    if {"train", "test"} <= set(splits):
        beside = path / "val" if reading.validation and folders["test"] == path / "test" else None
        if beside is not None and beside.is_dir():
            folders["val"] = beside
        _count_others(path, set(folders.values()), tally)
    found = {split: _class_folders(folder, tally) for split, folder in folders.items()}
    class_mismatch.require_equal(str(path), {folders[split].name: names for split, names in found.items()})
    names = tuple(found[splits[0]])
    files = {split: _files(folder, names, tally) for split, folder in folders.items()}
    if (line := tally.line()) is not None:
        output.say(line)
    for sentence in class_mismatch.look_alikes(names):
        output.warn(sentence, "give each class one folder")
    reader = Reader(path, names, reading, folders, files)
    return FolderDataset(name="folder", summary=str(path), load=reader.load, classes=names, reader=reader)


def _split_folder(path: Path, split: Split) -> Path:
    candidates = [path / "train"] if split == "train" else [path / "test", path / "val"]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    names = " nor ".join(f"{candidate.name}/" for candidate in candidates)
    raise UsageError(f"{path} holds no {names}", f"put the {split} images into {candidates[0]}/<class>/")


def _count_others(path: Path, used: set[Path], tally: walk.Tally) -> None:
    """Tallies what lies beside the splits."""
    for name in walk.class_folders(path, tally):
        if path / name not in used:
            walk.count_files(path / name, tally, f"in {name}/")


def _class_folders(folder: Path, tally: walk.Tally) -> list[str]:
    found = walk.class_folders(folder, tally)
    if not found:
        raise UsageError(f"{folder} holds no class folder", f"put images into {folder}/<class>/")
    return found


def _files(folder: Path, names: Sequence[str], tally: walk.Tally) -> list[list[str]]:
    """The names of the images of every class."""
    found = [walk.class_images(folder / name, tally) for name in names]
    empty = [name for name, files in zip(names, found, strict=True) if not files]
    if empty:
        more = f" (and {len(empty) - 1} more: {', '.join(empty[1:6])})" if len(empty) > 1 else ""
        ignored = (line := tally.line()) and f"; {line}"
        raise UsageError(
            f"class folder {folder / empty[0]}{more} holds no image{ignored or ''}", "add some, or remove the folder"
        )
    return found


def _sizes_of(files: Sequence[Path]) -> set[Size]:
    """The sizes, (height, width), that the headers of a sample of images tell."""
    return {size for file in headers.sample(files) if (size := decode.header_size(file)) is not None}


@dataclass
class Reader:
    """Reads the splits of one folder at one size, which the first split that is read decides for the others.

    Attributes:
        path: The folder.
        classes: The names of the labels.
        reading: How to read it.
        folders: Where each split lies.
        names: The names of the images of every class in each split.
        native: (height, width) in the files; None where it is mixed, or not known yet.
        decided: (height, width) of what was read; None before.
        validation: How many of the images that "train" gives, the last ones, are those of `val/`.
        skipped: The images that could not be read and were left out, with the reasons.
        facts: About the images of each split that was read.
    """

    path: Path
    classes: tuple[str, ...]
    reading: Reading
    folders: dict[str, Path]
    names: dict[str, list[list[str]]]
    native: Size | None = None
    decided: Size | None = None
    validation: int = 0
    skipped: list[unreadable.Broken] = field(default_factory=list)
    facts: dict[Split, Facts] = field(default_factory=dict)
    shelf: disk.Shelf | None = None  # one for both splits: the second does not evict the first
    _judged: bool = False
    _tried: int = 0  # files of splits in which some could not be read

    def load(self, split: Split, cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
        """`(uint8[N, H, W, 3], int64[N])`; of a large split the pixels are a read-only memory map of the cache.

        Raises:
            BrokenImages: More images cannot be read than may be left out; all of them are listed.
        """
        if split == "train" and "val" in self.folders:
            self.validation = len(self.files("val")[0])
            output.say(f"the {self.validation:,} images of val/ choose the best epoch; training uses train/ alone")
        self.shelf = self.shelf or store.shelf(cache_dir)
        wanted = self._images(split)
        native = _sizes_of(wanted.files)
        if not self._judged:
            self._judge(native)
            store.require_room(self.shelf, [self._images(one) for one in self.folders if one != "val"])
        elif odd := native - {self.native}:
            self._say_others(odd, split)
        while True:
            wanted = replace(wanted, size=self.decided)
            try:
                found = store.load(self.shelf, wanted)
                break
            except decode.MixedSizesError as mixed:
                self._mixed(str(mixed), 0)
        keep = self._kept(wanted, found.report.broken, cache_dir) if found.report.broken else slice(None)
        if not output.is_quiet():  # else as by every trial of a comparison
            found.report.misfits.warn(len(wanted.files), f"{split} images")
        self.facts[split] = found.facts
        self.decided = (found.pixels.shape[1], found.pixels.shape[2])
        return found.pixels, wanted.labels[keep]

    def _images(self, split: str) -> store.Images:
        """The images of a split at the size that is decided; those of `val/` come behind those of `train/`."""
        folder, (files, labels) = self.folders[split], self.files(split)
        if split == "train" and "val" in self.folders:
            more, theirs = self.files("val")
            folder, files, labels = self.path, files + more, np.concatenate([labels, theirs])
        return store.Images(folder, files, labels, split, self.decided, self.reading.how, self.native)

    def files(self, split: str) -> tuple[list[Path], np.ndarray]:
        """The files of a split and their labels, `int64[N]`, at most `limit` of them."""
        folder, names = self.folders[split], self.names[split]
        files = [folder / kind / name for kind, of_class in zip(self.classes, names, strict=True) for name in of_class]
        labels = np.repeat(np.arange(len(self.classes), dtype=np.int64), [len(of_class) for of_class in names])
        chosen = choose(labels, self.reading.limit, self.reading.seed)
        return [files[index] for index in chosen], labels[chosen]

    def _judge(self, found: set[Size]) -> None:
        """Decides the size to bring images to, by those that were found, and says what becomes of them."""
        self._judged = True
        wanted = self.reading.size
        if len(found) > 1:
            cut = max((sizes.cut(size, wanted or DEFAULT_SIZE)[1] for size in found), default=0)
            self._mixed(", ".join(map(sizes.show, sorted(found)[:3])), cut)
        elif found:
            (self.native,) = found
            if wanted is None:
                return
            # Naming the size of what stays as it is finds what another command has stored of them by that size.
            self.decided = wanted if self.reading.exact else sizes.stored(self.native, wanted)
            if sentence := sizes.change(self.native, wanted, overruled=not self.reading.exact):
                output.say(sentence)

    def _say_others(self, found: set[Size], split: str) -> None:
        """Says what becomes of images of other sizes in a split that is read after the size was decided."""
        if self.native is None or self.decided is None or found == {self.decided}:
            return  # they were mixed before, which was said; or they are as they should be
        names = ", ".join(map(sizes.show, sorted(found)[:3]))
        kept = f"{split} images of {names} are resized and center-cropped to {sizes.show(self.decided)}"
        output.say(f"{kept}, as the others are" if self.native == self.decided else kept)

    def _mixed(self, examples: str, cut: float) -> None:
        self.native = None
        self.decided = self.reading.size or DEFAULT_SIZE
        text = f"images of mixed sizes ({examples}, …) are resized and center-cropped to {sizes.show(self.decided)}"
        text = f"{text}: up to {100 * cut:.0f} % of a side is cut off" if cut >= sizes.MIN_CUT else text
        output.say(text if self.reading.size else f"{text}; --image-size HxW overrules")

    def _kept(self, wanted: store.Images, unread: Sequence[unreadable.Broken], cache_dir: Path) -> np.ndarray:
        """Which images are left where broken ones may be, `bool[N]`; where not, the rest of the data is looked at."""
        split, total = wanted.split, len(wanted.files)
        self.skipped += unread
        self._tried += total
        fresh = list(unread)
        if refused := len(self.skipped) > unreadable.most(self.reading.skip):
            behind = list(self.folders)[list(self.folders).index(split) + 1 :]
            fresh += [one for other in behind if other != "val" for one in self._look_through(other)]
        listed = unreadable.tell(fresh, self.skipped, self.path, cache_dir)
        if refused:
            raise BrokenImages(self.skipped, self._tried, listed)
        first, why = min(unread)
        text = f"{len(fresh)} of {total} {split} images cannot be read and are left out, first {first}: {why}"
        output.say(f"{text}; all are listed in {listed}" if listed else text)
        keep = wanted.without(unread)
        lost = [self.classes[label] for label in np.setdiff1d(wanted.labels, wanted.labels[keep])]
        if lost:
            raise CheckFailed(f"no {split} image of {', '.join(lost[:5])} can be read", "fix or replace some")
        if split == "train" and self.validation:
            self.validation = int(keep[-self.validation :].sum())
            if not self.validation:
                raise CheckFailed("no image of val/ can be read", "fix or replace some, or remove val/")
        return keep

    def _look_through(self, split: str) -> list[unreadable.Broken]:
        """The broken images of a split that was not read."""
        files, _ = self.files(split)
        self._tried += len(files)
        report = decode.Report()
        for _ in decode.each(files, split, self.reading.size or DEFAULT_SIZE, self.reading.how, report):
            pass
        self.skipped += report.broken
        return report.broken
