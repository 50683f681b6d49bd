"""All images of a data set to rows, in threads, a few at a time; those that were looked at before are found."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Final, TypeVar

import numpy as np

from poolzoo.common import output, resources
from poolzoo.common.errors import EnvironmentProblem
from poolzoo.common.text import one_line
from poolzoo.data import images, pillow_warnings
from poolzoo.data.check.look import ROW
from poolzoo.data.check.rows import Rows
from poolzoo.data.check.splits import Images

_From = TypeVar("_From")
_To = TypeVar("_To")
_KEPT: Final = 4096  # rows that are written at once: what an interrupted check loses at most
_AHEAD: Final = 4  # images a thread that are read ahead


@dataclass(frozen=True)
class Scan:
    """What was found of each image.

    Attributes:
        numbers: Where its row is among `rows`, `int64[N]` by split; -1 of one that cannot be read.
        broken: Position and reason of those, by split.
        looked: How many images were opened; the others were known.
    """

    numbers: Mapping[str, np.ndarray]
    broken: Mapping[str, list[tuple[int, str]]]
    looked: int


def scan(splits: Mapping[str, Images], rows: Rows) -> Scan:
    """Looks at all images of all splits, and keeps what it finds.

    Raises:
        EnvironmentProblem: The rows cannot be written.
    """
    broken: dict[str, list[tuple[int, str]]] = {name: [] for name in splits}
    numbers = {name: np.full(len(found), -1, np.int64) for name, found in splits.items()}
    todo: list[tuple[str, np.ndarray, np.ndarray]] = []
    for name, found in splits.items():
        keys = _keys(name, found, broken[name])
        numbers[name] = rows.find(keys)
        missing = numbers[name] < 0
        missing[[position for position, _ in broken[name]]] = False
        todo.append((name, np.flatnonzero(missing), keys[missing]))
    total = sum(len(positions) for _, positions, _ in todo)
    work = chain.from_iterable(zip([name] * len(at), at.tolist(), keys, strict=True) for name, at, keys in todo)

    def one(what: tuple[str, int, np.ndarray]) -> tuple[str, int, np.ndarray | str]:
        name, position, key = what
        try:
            row = splits[name].look(position)
        except images.Unreadable as error:
            return name, position, one_line(images.reason(error))
        row["key"] = key
        return name, position, row

    waiting: list[tuple[str, int, np.ndarray]] = []

    def keep() -> None:
        if waiting:
            try:
                written = rows.append(np.array([row for *_, row in waiting], ROW))
            except OSError as error:
                text = f"what was found cannot be kept: {error.strerror or error}"
                raise EnvironmentProblem(text, "make room, or set POOLZOO_CACHE=DIR") from error
            for (name, position, _), number in zip(waiting, written, strict=True):
                numbers[name][position] = number
            waiting.clear()

    with (
        pillow_warnings.pillow(),
        output.progress("checking images", total) as bar,
        closing(_in_threads(one, work)) as results,
    ):
        try:
            for count, (name, position, row) in enumerate(results):
                if isinstance(row, str):
                    broken[name].append((position, row))
                else:
                    waiting.append((name, position, row))
                if len(waiting) >= _KEPT:
                    keep()
                if count % 100 == 0:
                    bar.update(count)
        finally:
            keep()
    return Scan(numbers, {name: sorted(found) for name, found in broken.items()}, total)


def _keys(name: str, found: Images, broken: list[tuple[int, str]]) -> np.ndarray:
    """The keys of all images, `uint64[N, 2]`; those that are gone are noted as broken."""
    keys = np.zeros((len(found), 2), np.uint64)
    with output.progress(f"{name}: what is new", len(found)) as bar:
        for position in range(len(found)):
            try:
                keys[position] = found.key(position)
            except OSError as error:
                broken.append((position, one_line(images.reason(error))))
            if position % 1000 == 0:
                bar.update(position)
    return keys


def _in_threads(function: Callable[[_From], _To], work: Iterable[_From]) -> Generator[_To, None, None]:
    """What a function gives for each, in order; threads are only a little ahead of who takes it."""
    threads = resources.cpus() + 1
    pool, waiting = ThreadPoolExecutor(threads), deque[Future[_To]]()
    try:
        for item in work:
            waiting.append(pool.submit(function, item))
            if len(waiting) > _AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
