"""Batches of images that threads fill ahead of who uses them, in an order that the number of threads does not change.

Threads and not processes: decoding, resizing and reading release the interpreter's lock, so that a process for each
worker is no faster and takes a copy of everything. `benchmarks/data/loading.py` measures both.

Who waits for a batch fills what no thread has begun of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final

import numpy as np

from poolzoo.common import resources
from poolzoo.data import pillow_warnings, recycled

PIECE: Final = 4  # images that a thread fills at a time
AHEAD_BYTES: Final = 24 << 20  # of images that wait …
MAX_AHEAD: Final = 4  # … in at most so many batches, and in at least one
Fill = Callable[[int, np.ndarray], int]
Piece = Callable[[], list[int]]


def workers(given: int | None = None) -> int:
    """How many threads read images: the given number, or one for each processor that this process may use."""
    return given or resources.cpus()


def filled(
    fill: Fill, batches: Iterable[np.ndarray], shape: tuple[int, ...], threads: int
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Images in batches, a few batches ahead.

    Args:
        fill: `fill(position, out)` writes one image into `out`, `uint8` of the shape, and returns the position of the
            image that it wrote: its own, or that of another one in its place.
        batches: Positions, `int64[n]` each.
        shape: Of one image.
        threads: How many.

    Yields:
        The images `uint8[n, *shape]` of each batch, and their positions `int64[n]`.

    Raises:
        Exception: Whatever `fill` raises, at the batch that it belongs to. Nothing is left running.
    """
    pillow_warnings.hush()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="poolzoo-images")
    waiting: deque[tuple[np.ndarray, list[Piece], list[Future[list[int]]]]] = deque()
    image_bytes = int(np.prod(shape))

    def piece(positions: list[int], out: np.ndarray) -> list[int]:
        return [fill(position, image) for position, image in zip(positions, out, strict=True)]

    def taken() -> tuple[np.ndarray, np.ndarray]:
        images, pieces, begun = waiting.popleft()
        for place in reversed(range(len(pieces))):  # threads take the first ones first
            if begun[place].cancel():
                begun[place] = _finished(pieces[place])
        return images, np.array([position for one in begun for position in one.result()], np.int64)

    try:
        for positions in batches:
            images = recycled.empty((len(positions), *shape))
            pieces: list[Piece] = [
                partial(piece, positions[start : start + PIECE].tolist(), images[start : start + PIECE])
                for start in range(0, len(positions), PIECE)
            ]
            waiting.append((images, pieces, [pool.submit(one) for one in pieces]))
            if len(waiting) > max(1, min(MAX_AHEAD, AHEAD_BYTES // max(1, len(positions) * image_bytes))):
                yield taken()
        while waiting:
            yield taken()
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(piece: Piece) -> Future[list[int]]:
    """What a thread would have made of a piece, made here."""
    made: Future[list[int]] = Future()
    try:
        made.set_result(piece())
    except Exception as error:
        made.set_exception(error)
    return made
