"""Many encoded images to pixels of one size, in threads (Pillow releases the interpreter), a few at a time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
from PIL import Image

from poolzoo.common import output, resources
from poolzoo.common.text import one_line
from poolzoo.data import headers, images, pillow_warnings
from poolzoo.data.sizes import Size, show
from poolzoo.plugin.image_index import ImageIndex

_T = TypeVar("_T")

_WAITING: Final = 4  # threads beside one a processor, which wait for the disk
AHEAD: Final = 128  # images that wait decoded, or to be: enough for the threads, and 77 MB at 448 × 448


class MixedSizesError(Exception):
    """Images that were to be taken as they are differ in size; says which sizes."""


class Misfits:
    """Deep images whose values do not fit the scale of their type: how many, and the first of each kind."""

    def __init__(self, known: Mapping[str, Sequence[Any]] = MappingProxyType({})) -> None:
        """Nothing yet, or what `to_json` gave."""
        self.counts = Counter({kind: int(count) for kind, (count, _) in known.items()})
        self.examples = {kind: str(example) for kind, (_, example) in known.items()}

    def to_json(self) -> dict[str, tuple[int, str]]:
        """The count and the first example by kind."""
        return {kind: (count, self.examples[kind]) for kind, count in self.counts.items()}

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
                "rescale the files; docs/reference/training.md has the scale of each type",
            )


@dataclass
class Report:
    """What decoding found out.

    Attributes:
        broken: The positions of the images that cannot be read, each with the reason.
        misfits: Those whose values do not fit their type.
    """

    broken: list[tuple[int, str]] = field(default_factory=list)
    misfits: Misfits = field(default_factory=Misfits)


def size_in(file: BinaryIO) -> Size | None:
    """(height, width) of an image by its header, turned as its EXIF says; None where it cannot be read."""
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(0x0112) in images.TURNED
            return (image.width, image.height) if turned else (image.height, image.width)
    except images.Unreadable:
        return None


header_size = headers.remembered(size_in)


def each(
    index: ImageIndex, label: str, size: Size | None, how: images.Fit = images.PLAIN, report: Report | None = None
) -> Generator[np.ndarray, None, None]:
    """The images of an index in their order, each `uint8[H, W, 3]`, at (height, width) where `size` is given.

    Args:
        index: The images; one that cannot be read is left out.
        label: Of what they are, for the bar.
        size: Height and width to bring them to; None to take them as they are.
        how: In which way.
        report: Filled in with what is left out, and with values that do not fit.

    Raises:
        MixedSizesError: No size is given and one differs from the first.
    """
    report = Report() if report is None else report

    def one(position: int) -> tuple[np.ndarray | str, list[tuple[str, str]]]:
        notes: list[tuple[str, str]] = []
        try:
            with headers.opened(index, position) as file:
                return images.read(file, size, how, lambda kind, values: notes.append((kind, values))), notes
        except images.Unreadable as error:
            return one_line(images.reason(error)), []

    for position in headers.sample(len(index)):  # for who asks later, when they are not opened any more
        header_size(index, position)
    shape: tuple[int, ...] | None = None
    with (
        pillow_warnings.pillow(),
        output.progress(f"reading {label} images", len(index)) as bar,
        closing(_in_order(one, len(index))) as found,
    ):
        for position, (image, notes) in enumerate(found):
            if notes:
                report.misfits.add(index.where(position), notes)
            if isinstance(image, str):
                report.broken.append((position, image))
            else:
                shape = shape or image.shape
                if image.shape != shape:
                    raise MixedSizesError(f"{show(shape[:2])}, {show(image.shape[:2])}")
                yield image
            if position % 500 == 0:
                bar.update(position)


def gather(most: int, rows: Iterable[np.ndarray]) -> np.ndarray:
    """At most so many arrays of one shape as one array in memory, `[count, …]`; `uint8[0, 1, 1, 3]` of none."""
    whole, count = np.empty((0, 1, 1, 3), np.uint8), 0
    for row in rows:
        if not count:
            whole = np.empty((most, *row.shape), row.dtype)
        whole[count] = row
        count += 1
    return whole[:count]


def _in_order(function: Callable[[int], _T], count: int) -> Generator[_T, None, None]:
    """`ThreadPoolExecutor.map` over 0, 1, … that is only a little ahead, and gives up what nobody wants any more."""
    pool, waiting = ThreadPoolExecutor(resources.cpus() + _WAITING), deque[Future[_T]]()
    try:
        for position in range(count):
            waiting.append(pool.submit(function, position))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
