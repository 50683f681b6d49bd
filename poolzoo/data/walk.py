"""Which files of a folder are images: one walk for training, evaluation and prediction, and a tally of what it ignores.

A data set is `train|test|val/<class>/*`. A class folder that holds no image but folders with images is a group of
classes: `dogs/poodle`. Files that lie there otherwise are no part of it, and are counted by reason. Any other folder
means the images at any depth in it.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from poolzoo.data import images

SPLITS: Final = ("train", "test", "val")
SUBFOLDERS, LOOSE = "in subfolders of a class", "loose beside the class folders"
DANGLING, SPECIAL, HIDDEN, LINKED = "dangling links", "pipes or devices", "hidden", "linked folders"
ENDINGS_SHOWN: Final = 6
NEEDS: Final = dict.fromkeys((".heic", ".heif", ".hif"), "pip install pillow-heif")  # what would read an ending


@dataclass
class Tally:
    """What a walk leaves out, by reason; files of no image's ending count under that."""

    reasons: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Takes over what another one counted."""
        self.reasons.update(other.reasons)
        self.endings.update(other.endings)

    def line(self) -> str | None:
        """`ignored: 12 in subfolders of a class, 40 .txt, 3 dangling links`; None where nothing was."""
        order = (SUBFOLDERS, LOOSE)
        last = (LINKED, SPECIAL, DANGLING, HIDDEN)
        others = [reason for reason in self.reasons if reason not in (*order, *last)]
        parts = [_count(self.reasons[reason], reason) for reason in (*order, *others) if self.reasons[reason]]
        common = self.endings.most_common()
        parts += [_count(number, ending) for ending, number in common[:ENDINGS_SHOWN]]
        if rest := sum(number for _, number in common[ENDINGS_SHOWN:]):
            parts.append(f"{rest:,} with other endings")
        parts += [_count(self.reasons[reason], reason) for reason in last if self.reasons[reason]]
        return f"ignored: {', '.join(parts)}" if parts else None


def _count(number: int, what: str) -> str:
    if number == 1 and what in (DANGLING, LINKED):
        what = what.removesuffix("s")
    return f"{number:,} {what} ({NEEDS[what]})" if what in NEEDS else f"{number:,} {what}"


@dataclass(frozen=True)
class Listing:
    """The names of the images and of the folders directly in a folder, sorted; `links` are the folders that link."""

    images: list[str]
    folders: list[str]
    links: frozenset[str]


def listed(folder: str | os.PathLike[str], tally: Tally) -> Listing:
    """What a folder holds; what is neither image nor folder goes to the tally.

    Raises:
        OSError: It cannot be read.
    """
    found: list[str] = []
    folders: list[str] = []
    links: set[str] = set()
    known = images.extensions()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                tally.reasons[HIDDEN] += 1
            elif _is_file(entry):
                if (ending := _ending(name)) in known:
                    found.append(name)
                else:
                    tally.endings[ending or "without an ending"] += 1
            elif _is_folder(entry):
                folders.append(name)
                if entry.is_symlink():
                    links.add(name)
            else:
                tally.reasons[DANGLING if entry.is_symlink() and not os.path.exists(entry) else SPECIAL] += 1
    found.sort()
    folders.sort()
    return Listing(found, folders, frozenset(links))


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _ending(name: str) -> str:
    """`.jpg` of `a.JPG`; the names of hidden files do not come here."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def class_images(folder: str | os.PathLike[str], tally: Tally) -> list[str]:
    """The names of the images of a class: those directly in its folder.

    Raises:
        OSError: The folder cannot be read.
    """
    return _directly_in(folder, listed(folder, tally), tally)


def _directly_in(folder: str | os.PathLike[str], listing: Listing, tally: Tally) -> list[str]:
    for name in listing.folders:
        if name in listing.links:
            tally.reasons[LINKED] += 1
        else:
            count_files(Path(folder, name), tally, SUBFOLDERS)
    return listing.images


def classes_in(folder: str | os.PathLike[str], tally: Tally) -> Iterator[tuple[str, list[str]]]:
    """The classes of a split in the order of their names, each with the names of the images in its folder.

    Raises:
        OSError: A folder cannot be read.
    """
    for name in class_folders(folder, tally):
        yield from class_or_group(folder, name, tally)


def class_or_group(folder: str | os.PathLike[str], name: str, tally: Tally) -> list[tuple[str, list[str]]]:
    """A class folder of a split: the class, or the classes that its folders are if these hold the images.

    Args:
        folder: Of the split.
        name: Of the class folder, below it.
        tally: Counts what is left out.

    Raises:
        OSError: A folder cannot be read.
    """
    place = os.path.join(folder, name)
    listing = listed(place, tally)
    inner = [] if listing.images else [one for one in listing.folders if one not in listing.links]
    below = Tally()
    parts = [part for one in inner for part in class_or_group(folder, f"{name}/{one}", below)]
    if any(names for _, names in parts):
        tally.add(below)
        tally.reasons[LINKED] += len(listing.links)
        return parts
    return [(name, _directly_in(place, listing, tally))]


def class_folders(folder: str | os.PathLike[str], tally: Tally) -> list[str]:
    """The names of the class folders of a split.

    Raises:
        OSError: The folder cannot be read.
    """
    outside = Tally()
    listing = listed(folder, outside)
    tally.reasons[HIDDEN] += outside.reasons.pop(HIDDEN, 0)
    tally.reasons[LOOSE] += len(listing.images) + outside.endings.total() + outside.reasons.total()
    return listing.folders


def count_files(folder: Path, tally: Tally, reason: str) -> None:
    """Adds the files in a folder at any depth to the tally."""
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        tally.reasons[reason] += sum(name[0] != "." for name in names)


def images_under(folder: str | os.PathLike[str], tally: Tally) -> Iterator[str]:
    """The images in a folder at any depth, in the order of their names; of a data set those that training reads.

    A folder in it that cannot be read is given as if it were an image, so that it is reported.
    """
    place = Path(os.path.abspath(folder))
    if place.parent.name in SPLITS and _is_class(place):
        yield from _joined(folder, class_images(folder, tally))
    elif place.name in SPLITS and any(_is_class(place / name) for name in listed(place, Tally()).folders):
        for name in class_folders(folder, tally):
            yield from _within_class(folder, name, tally)
    else:
        listing = listed(folder, tally)
        folders = frozenset(listing.folders)
        for name in heapq.merge(listing.images, listing.folders):
            path = os.path.join(folder, name)
            if name in listing.links:
                tally.reasons[LINKED] += 1
            elif name in folders:
                yield from _within(path, tally)
            else:
                yield path


def _within(path: str, tally: Tally) -> Iterator[str]:
    try:
        yield from images_under(path, tally)
    except OSError:
        yield path


def _within_class(folder: str | os.PathLike[str], name: str, tally: Tally) -> Iterator[str]:
    try:
        classes = class_or_group(folder, name, tally)
    except OSError:
        yield os.path.join(folder, name)
        return
    for one, names in classes:
        yield from _joined(os.path.join(folder, one), names)


def _joined(folder: str | os.PathLike[str], names: list[str]) -> Iterator[str]:
    return (os.path.join(folder, name) for name in names)


def _is_class(folder: Path) -> bool:
    """Whether a folder in one that is called like a split holds images itself, and so is a class."""
    try:
        return bool(listed(folder, Tally()).images)
    except OSError:
        return False
