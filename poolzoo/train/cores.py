"""Work that has no order, on several cores: a thread for each, in which torch computes with one thread of its own.

torch divides an operation among its threads in a way that changes the last bits of sums. Here one thread computes each
piece of work from beginning to end. Results therefore do not depend on the number of cores.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

import torch
from torch import nn

from poolzoo.common import resources
from poolzoo.train.footprint import EVALUATION_BYTES

Item = TypeVar("Item")
Result = TypeVar("Result")
Module = TypeVar("Module", bound=nn.Module)


class Cores:
    """Threads that work at the same time. With one, the work happens in the calling thread.

    Args:
        count: Number of threads.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "core", torch.set_num_threads, (1,)) if count > 1 else None

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The result for every item, in their order.

        Raises:
            Exception: That of the first item whose work raised; none of the work still runs then.
        """
        if self._pool is None:
            return [work(item) for item in items]
        futures = [self._pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            _end(futures)

    def stream(
        self, work: Callable[[Item], Result], items: Iterable[Item], ahead: int | None = None
    ) -> Generator[Result, None, None]:
        """The results in the order of the items, which are taken when they are needed.

        Args:
            work: Gives the result for an item, in a thread.
            items: Taken in the calling thread.
            ahead: How many items are worked on before their results are asked for; None for one a thread.

        Raises:
            Exception: That of the first item whose work raised.
        """
        if self._pool is None:
            yield from map(work, items)
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(work, item))
                if len(waiting) > (self.count if ahead is None else ahead):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            _end(waiting)

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _end(futures: Iterable[Future[Result]]) -> None:
    """Cancels what has not begun, and waits for the rest."""
    for future in futures:
        if not future.cancel():
            future.exception()


class Replicas(Generic[Module]):
    """A module for each of several threads, since a module may keep something while it computes.

    The replicas share parameters. Buffers are copied, since a layer may write to them in eval mode too. A module that
    cannot be copied serves one thread after the other.

    Args:
        module: In eval mode.
        count: Number of threads.
    """

    def __init__(self, module: Module, count: int) -> None:
        self._free: SimpleQueue[Module] = SimpleQueue()
        self._free.put(module)
        shared = {id(parameter): parameter for parameter in module.parameters()}
        with suppress(Exception):  # a plugin's module may hold anything
            for _ in range(1, count):
                self._free.put(copy.deepcopy(module, dict(shared)))

    @contextmanager
    def taken(self) -> Iterator[Module]:
        """One that no other thread uses meanwhile."""
        module = self._free.get()
        try:
            yield module
        finally:
            self._free.put(module)


@contextmanager
def cores(device: torch.device, count: int | None = None) -> Iterator[Cores]:
    """Threads for a computation on a device, for as long as the block lasts.

    Args:
        device: A CPU is shared among threads. Another device gets its work from the calling thread.
        count: Number of threads; None for as many as torch would use.
    """
    if device.type != "cpu":
        yield Cores(1)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = Cores(count or before)
    try:
        yield found
    finally:
        found.close()
        torch.set_num_threads(before)


def evaluation_threads() -> int:
    """How many batches are evaluated at the same time: as many as torch has threads, within a quarter of the memory."""
    available = resources.available_memory()
    threads = torch.get_num_threads()
    return threads if available is None else max(1, min(threads, available // (4 * EVALUATION_BYTES["cpu"])))
