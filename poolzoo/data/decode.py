"""Many image files to pixels of one size, in threads (Pillow releases the interpreter), a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import numpy as np
from PIL import Image

from poolzoo import output, resources
from poolzoo.data import headers, images
from poolzoo.errors import CheckFailed

Size = tuple[int, int]
_T = TypeVar("_T")

_WAITING: Final = 4  # threads beside one a processor, which wait for the disk
_AHEAD: Final = 128  # images that wait decoded, or to be: enough for the threads, and 77 MB at 448 × 448


class MixedSizesError(Exception):
    """Images that were to be taken as they are differ in size; says which sizes."""


@headers.remembered
def header_size(file: BinaryIO) -> Size | None:
    """(height, width) in an image's header, before EXIF turns it; None where it cannot be read."""
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except images.Unreadable:
        return None


def each(files: Sequence[Path], label: str, size: Size | None) -> Generator[np.ndarray, None, None]:
    """The images of many files in their order, each `uint8[H, W, 3]`, at (height, width) where `size` is given.

    Raises:
        MixedSizesError: No size is given and one differs from the first.
        CheckFailed: Some cannot be read. It is raised at the end, when all that can have been given.
    """
    broken: list[tuple[Path, str]] = []

    def one(path: Path) -> np.ndarray | None:
        try:
            with headers.opened(path) as file:
                return images.read(file, size)
        except images.Unreadable as error:
            broken.append((path, output.one_line(str(error)) or type(error).__name__))
            return None

    for path in headers.sample(files):  # for who asks later, when they are not opened any more
        header_size(path)
    shape: tuple[int, ...] | None = None
    with output.progress(f"reading {label} images", len(files)) as bar, closing(_in_order(one, files)) as found:
        for index, image in enumerate(found):
            if image is not None:
                shape = shape or image.shape
                if image.shape != shape:
                    raise MixedSizesError(f"{shape[1]}×{shape[0]}, {image.shape[1]}×{image.shape[0]}")
                yield image
            if index % 500 == 0:
                bar.update(index)
    if broken:
        path, reason = min(broken)
        raise CheckFailed(
            f"{len(broken)} of {len(files)} images cannot be read, first {path}: {reason}", "mend or remove them"
        )


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
