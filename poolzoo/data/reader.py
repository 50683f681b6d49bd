"""Reads the parts of a data set of encoded images: from an index to decoded arrays of one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from poolzoo.common import output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data import decode, disk, headers, sizes, store, test_fraction, unreadable
from poolzoo.data.choice import choose
from poolzoo.data.held_out import HeldOut
from poolzoo.data.image_facts import Facts
from poolzoo.data.joined import join
from poolzoo.data.labels import plain
from poolzoo.data.resize import PLAIN, Fit
from poolzoo.data.sizes import Size
from poolzoo.data.unreadable import BrokenImages
from poolzoo.plugin.image_index import ImageIndex
from poolzoo.plugin.spec import Dataset, Split

DEFAULT_SIZE: Size = (128, 128)  # of images of mixed sizes: a 4×4 map in a backbone that downsamples 32 times


@dataclass(frozen=True)
class Reading:
    """How a data set is to be read.

    Attributes:
        size: (height, width) that the network sees; None for what the files have.
        exact: Whether images are to come at that very size; else the center of smaller ones comes as it is, because
            the network enlarges it on the device.
        limit: How many images of each part to read at most, chosen by `seed`.
        seed: Of the choice.
        validation: Whether a validation part beside the test part belongs to the data, to choose the best epoch by.
        skip: How many images that cannot be read may be left out, as `--skip-broken` has it.
        how: In which way images are brought to a size.
        test_part: Which of the training images are test images; None where the data has test images.
    """

    size: Size | None = None
    exact: bool = False
    limit: int | None = None
    seed: int = 0
    validation: bool = False
    skip: unreadable.Skip = None
    how: Fit = PLAIN
    test_part: HeldOut | None = None


@dataclass(frozen=True, kw_only=True)
class ReadDataset(Dataset):
    """A data set of encoded images that is decoded when it is loaded, with what reads it."""

    reader: Reader


def assign(splits: Sequence[str], wanted: Sequence[Split], reading: Reading, what: str) -> dict[str, str]:
    """Which split of a data set serves as which part: "train", "test", and "val" where it chooses the best epoch.

    Without a split "test", "val" is the test part. With a test fraction, "test" is held out of "train".

    Args:
        splits: Those that the data set has.
        wanted: The parts that are needed.
        reading: How they are read.
        what: The data set, for messages.

    Raises:
        UsageError: A part is missing, or held out where there is one.
    """
    parts: dict[str, str] = {}
    if ("train" in wanted or reading.test_part is not None) and "train" not in splits:
        raise UsageError(
            f"{what} has no training images (no train/)", "docs/how-to/data.md says how each source names its splits"
        )
    if "train" in wanted:
        parts["train"] = "train"
    if reading.test_part is not None and "test" in splits:
        raise UsageError(f"{what} has a test part, so that none is held out", "leave --test-fraction out")
    if "test" in wanted:
        found = "train" if reading.test_part is not None else next((s for s in ("test", "val") if s in splits), None)
        if found is None:
            raise UsageError(
                f"{what} has no test images (neither test/ nor val/)",
                "add some, or hold some of the training images out: --test-fraction 0.2",
            )
        parts["test"] = found
    if {"train", "test"} <= set(wanted) and reading.validation and "val" in splits and parts["test"] != "val":
        parts["val"] = "val"
    return parts


@dataclass
class Reader:
    """Reads the parts of one data set at one size, which the first part that is read decides for the others.

    Attributes:
        place: What `--data` named, for messages.
        classes: The names of the labels.
        reading: How to read it.
        parts: The split of the data set that serves as each part.
        open: Gives the index of a split.
        native: (height, width) in the files; None where it is mixed, or not known yet.
        decided: (height, width) of what was read; None before.
        validation: How many of the images that "train" gives, the last ones, are validation images.
        skipped: The images that could not be read and were left out, with the reasons.
        facts: About the images of each part that was read.
    """

    place: Path
    classes: tuple[str, ...]
    reading: Reading
    parts: Mapping[str, str]
    open: Callable[[str], ImageIndex]
    native: Size | None = None
    decided: Size | None = None
    validation: int = 0
    skipped: list[unreadable.Broken] = field(default_factory=list)
    facts: dict[Split, Facts] = field(default_factory=dict)
    shelf: disk.Shelf | None = None  # one for both parts: the second does not evict the first
    _indices: dict[str, ImageIndex] = field(default_factory=dict)
    _judged: set[str] = field(default_factory=set)
    _tried: int = 0  # files of parts in which some could not be read
    _joined: ImageIndex | None = None  # of the training and the validation images

    def part(self, part: str) -> ImageIndex:
        """The index of "train", "test" or "val" alone, without what is held out, at most `limit` of the images."""
        if part not in self._indices:
            index, held_out = self.open(self.parts[part]), self.reading.test_part
            found = {part: index}
            if held_out is not None and self.parts[part] == "train":
                test = test_fraction.test_images(index, held_out)
                found = {
                    one: index.take(np.flatnonzero(test == (one == "test")))
                    for one in ("train", "test")
                    if one in self.parts
                }
            for one, whole in found.items():
                if self.reading.limit is not None and self.reading.limit < len(whole):
                    whole = whole.take(choose(whole.labels, self.reading.limit, self.reading.seed))
                self._indices[one] = whole
        return self._indices[part]

    def index(self, split: Split) -> ImageIndex:
        """The index of what `load` decodes: behind the training images come the validation images, if there are any."""
        if split != "train" or "val" not in self.parts:
            return self.part(split)
        if self._joined is None:
            self._joined = join(self.part("train"), self.part("val"))
        return self._joined

    def load(self, split: Split, cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
        """`(uint8[N, H, W, 3], int64[N])`; of a large part the pixels are a read-only memory map of the cache.

        Raises:
            BrokenImages: More images cannot be read than may be left out; all of them are listed.
        """
        self.count_validation(split)
        self.decide(split)
        wanted = self._images(split)
        shelf = self.opened_shelf(cache_dir)
        if not self.facts:
            store.require_room(shelf, [self._images(one) for one in ("train", "test") if one in self.parts])
        while True:
            wanted = replace(wanted, size=self.decided)
            try:
                found = store.load(shelf, wanted)
                break
            except decode.MixedSizesError as mixed:
                self._mixed(str(mixed), 0)
        keep = self.keep(split, found.report.broken, cache_dir) if found.report.broken else slice(None)
        if not output.is_quiet():  # else as by every trial of a comparison
            found.report.misfits.warn(len(wanted.index), f"{split} images")
        self.facts[split] = found.facts
        self.decided = (found.pixels.shape[1], found.pixels.shape[2])
        labels = wanted.index.labels[keep]
        return found.pixels, plain(labels)

    def opened_shelf(self, cache_dir: Path) -> disk.Shelf:
        """Where the images of all parts are kept."""
        self.shelf = self.shelf or store.shelf(cache_dir)
        return self.shelf

    def decide(self, split: Split) -> Size:
        """Decides the size to bring images to, by some headers, and says what becomes of them; decodes none."""
        if split not in self._judged:
            found = _sizes_of(self.index(split))
            if not self._judged:
                self._judge(found)
            elif odd := found - {self.native}:
                self._say_others(odd, split)
            self._judged.add(split)
        return self.decided or self.native or self.reading.size or DEFAULT_SIZE

    def count_validation(self, split: Split) -> None:
        """Counts the validation images behind the training images, and says so."""
        if split == "train" and "val" in self.parts:
            self.validation = len(self.part("val"))
            output.say(f"the {self.validation:,} images of val/ choose the best epoch; training uses train/ alone")

    def _images(self, split: Split) -> store.Images:
        """The images of a part at the size that is decided."""
        return store.Images(self.index(split), split, self.decided, self.reading.how, self.native)

    def _judge(self, found: set[Size]) -> None:
        """Decides the size to bring images to, by those that were found, and says what becomes of them."""
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

    def keep(self, split: Split, unread: Sequence[tuple[int, str]], cache_dir: Path) -> np.ndarray:
        """Which images are left where broken ones may be left out, `bool[N]`.

        Args:
            split: The part, whose `index` the positions are of.
            unread: The positions of the broken images, each with the reason.
            cache_dir: Where the list of them goes.

        Raises:
            BrokenImages: More are broken than may be left out; the rest of the data was looked at as well.
            CheckFailed: A class is left without images.
        """
        index = self.index(split)
        total = len(index)
        broken = [(index.where(position), reason) for position, reason in unread]
        self.skipped += broken
        self._tried += total
        fresh = list(broken)
        if refused := len(self.skipped) > unreadable.most(self.reading.skip):
            fresh += self._look_through("test") if split == "train" and "test" in self.parts else []
        listed = unreadable.tell(fresh, self.skipped, self.place, cache_dir)
        if refused:
            raise BrokenImages(self.skipped, self._tried, listed)
        first, why = min(broken)
        text = f"{len(fresh)} of {total} {split} images cannot be read and are left out, first {first}: {why}"
        output.say(f"{text}; all are listed in {listed}" if listed else text)
        keep = np.ones(total, bool)
        keep[[position for position, _ in unread]] = False
        lost = self._lost(index.labels, keep)
        if lost:
            raise CheckFailed(f"no {split} image of {', '.join(lost[:5])} can be read", "fix or replace some")
        if split == "train" and self.validation:
            self.validation = int(keep[-self.validation :].sum())
            if not self.validation:
                raise CheckFailed("no image of val/ can be read", "fix or replace some, or remove val/")
        return keep

    def _lost(self, labels: np.ndarray, keep: np.ndarray) -> list[str]:
        """The classes that had images and have none any more."""
        if labels.ndim == 1:
            lost = np.setdiff1d(labels, labels[keep])
        else:
            lost = np.flatnonzero(labels.any(0) & ~labels[keep].any(0))
        return [self.classes[label] for label in lost]

    def _look_through(self, split: Split) -> list[unreadable.Broken]:
        """The broken images of a part that was not read."""
        index, report = self.index(split), decode.Report()
        self._tried += len(index)
        for _ in decode.each(index, split, self.reading.size or DEFAULT_SIZE, self.reading.how, report):
            pass
        broken = [(index.where(position), reason) for position, reason in report.broken]
        self.skipped += broken
        return broken


def _sizes_of(index: ImageIndex) -> set[Size]:
    """The sizes, (height, width), that the headers of a sample of images tell."""
    found = (decode.header_size(index, position) for position in headers.sample(len(index)))
    return {size for size in found if size is not None}
