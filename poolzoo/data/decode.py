"""Many image files to pixels of one size, in threads (Pillow releases the interpreter), a few at a time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import numpy as np
from PIL import Image

from poolzoo import output, resources
from poolzoo.data import headers, images, quiet
from poolzoo.data.broken import Broken, BrokenImages
from poolzoo.data.sizes import Size, show

_T = TypeVar("_T")

_WAITING: Final = 4  # threads beside one a processor, which wait for the disk
_AHEAD: Final = 128  # images that wait decoded, or to be: enough for the threads, and 77 MB at 448 × 448


class MixedSizesError(Exception):
    """Images that were to be taken as they are differ in size; says which sizes."""


class Misfits:
    """Deep images whose values do not fit the scale of their type: how many, and the first of each kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, path: Path, notes: Sequence[tuple[str, str]]) -> None:
        """Counts an image, of which the reader has noted what is wrong and the values."""
        for kind, values in notes:
            self.counts[kind] += 1
            self.examples.setdefault(kind, f"{path}: {values}")

    def warn(self, total: int, label: str) -> None:
        """Says it, in one line for each kind."""
        for kind, count in self.counts.items():
            output.warn(
                f"{count:,} of {total:,} {label} {kind}, first {self.examples[kind]}",
                "rescale the files; docs/training.md has the scale of each type",
            )


@headers.remembered
def header_size(file: BinaryIO) -> Size | None:
    """(height, width) of an image by its header, turned as its EXIF says; None where it cannot be read."""
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(0x0112) in images.TURNED
            return (image.width, image.height) if turned else (image.height, image.width)
    except images.Unreadable:
        return None


def each(
    files: Sequence[Path], label: str, size: Size | None, how: images.Fit = images.PLAIN
) -> Generator[np.ndarray, None, None]:
    """The images of many files in their order, each `uint8[H, W, 3]`, at (height, width) where `size` is given.

    Raises:
        MixedSizesError: No size is given and one differs from the first.
        BrokenImages: Some cannot be read. It is raised at the end, when all that can have been given.
    """
    broken: list[Broken] = []
    misfits = Misfits()

    def one(path: Path) -> tuple[np.ndarray | None, list[tuple[str, str]]]:
        notes: list[tuple[str, str]] = []
        try:
            with headers.opened(path) as file:
                return images.read(file, size, how, lambda kind, values: notes.append((kind, values))), notes
        except images.Unreadable as error:
            broken.append((path, output.one_line(images.reason(error))))
            return None, []

    for path in headers.sample(files):  # for who asks later, when they are not opened any more
        header_size(path)
    shape: tuple[int, ...] | None = None
    with (
        quiet.pillow(),
        output.progress(f"reading {label} images", len(files)) as bar,
        closing(_in_order(one, files)) as found,
    ):
        for index, (image, notes) in enumerate(found):
            misfits.add(files[index], notes)
            if image is not None:
                shape = shape or image.shape
                if image.shape != shape:
                    raise MixedSizesError(f"{show(shape[:2])}, {show(image.shape[:2])}")
                yield image
            if index % 500 == 0:
                bar.update(index)
    if broken:
        raise BrokenImages(broken, len(files))
    misfits.warn(len(files), f"{label} images")


def gather(count: int, rows: Iterable[np.ndarray]) -> np.ndarray:
    """`count` ≥ 1 arrays of one shape as one array in memory, `[count, …]`."""
    whole: np.ndarray | None = None
    for index, row in enumerate(rows):
        if whole is None:
            whole = np.empty((count, *row.shape), row.dtype)
        whole[index] = row
    assert whole is not None
    return whole


def _in_order(function: Callable[[Path], _T], files: Sequence[Path]) -> Generator[_T, None, None]:
    """`ThreadPoolExecutor.map` that is only a little ahead, and gives up what nobody wants any more."""
    pool, waiting = ThreadPoolExecutor(resources.cpus() + _WAITING), deque[Future[_T]]()
    try:
        for file in files:
            waiting.append(pool.submit(function, file))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
