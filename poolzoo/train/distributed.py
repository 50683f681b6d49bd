"""The processes that train together, as `torchrun` starts them: torch.distributed, gloo on CPUs and NCCL on GPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import distributed as dist
from torch import nn

from poolzoo.common import output
from poolzoo.common.errors import EnvironmentProblem, PoolzooError, explain
from poolzoo.data.batches import ALL, Rank
from poolzoo.train.device import DevicePolicy

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # one process reads the data or builds a cache while the others wait


def join(policy: DevicePolicy) -> Rank:
    """Joins the processes that were started together; the only one is the whole group.

    From here on an error of another process than the first is this process's own, and is shown.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALL
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if policy.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        output.set_rank(dist.get_rank())
    return Rank(dist.get_rank(), dist.get_world_size())


def is_first() -> bool:
    """Whether this process is the first of those that were started together, before or after they joined."""
    return os.environ.get("RANK", "0") == "0"


def leave() -> None:
    """Leaves the group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def rank_zero_first(share: Rank) -> Iterator[None]:
    """The block runs in the first process, and when it has ended, in the others: for caches that are built once.

    Where it fails in the first, the others fail alike, without a word and without running it.
    """
    if share.size > 1 and share.rank > 0:
        failed = gathered(None, share)[0]
        if failed is not None:
            _fail_silently(failed)
    try:
        yield
    except Exception as error:
        if share.size > 1 and share.rank == 0:
            gathered(_plain(error), share)
        raise
    if share.size > 1 and share.rank == 0:
        gathered(None, share)


@contextmanager
def agreed(share: Rank) -> Iterator[None]:
    """The block succeeds in all processes or fails in all; of those that fail the first one says why.

    Inside, processes may wait for each other in `rank_zero_first` only.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    if share.size > 1:
        failures = gathered(_plain(failure) if failure is not None else None, share)
        speaker = next((rank for rank, one in enumerate(failures) if one is not None), None)
        if speaker is not None:
            leave()  # or the threads of the group abort this process when it exits
        if speaker is not None and speaker != share.rank:
            _fail_silently(failures[speaker])
    if failure is not None:
        raise failure


def from_first(function: Callable[[], T], share: Rank) -> T:
    """What a function gives in the first process, in all of them; it runs there only."""
    found: list[T | None] = [None]
    with agreed(share):
        if share.rank == 0:
            found[0] = function()
    value: T = gathered(found[0], share)[0]
    return value


def require_alike(what: str, value: str, share: Rank) -> None:
    """Makes sure that all processes have the same of something, such as a digest of their data.

    Raises:
        EnvironmentProblem: They have not; the first process says which differ.
    """
    values = gathered(value, share)
    if others := [str(rank) for rank, one in enumerate(values) if one != values[0]]:
        speak_once(share)
        leave()
        hint = "every machine needs the same files"
        raise EnvironmentProblem(f"{what} of process {', '.join(others)} differs from that of process 0", hint)


def _plain(error: Exception) -> tuple[int, str, str]:
    """An error as something that every process can be told."""
    shown = explain(error)
    return shown.exit_code, shown.message, shown.hint


def _fail_silently(failure: tuple[int, str, str]) -> NoReturn:
    """Ends this process as another one ends, which says why."""
    output.set_rank(-1)
    code, message, hint = failure
    raised = PoolzooError(message, hint)
    raised.exit_code = code
    raise raised


def added_up(values: torch.Tensor, share: Rank) -> torch.Tensor:
    """The sum over all processes of a tensor on the host."""
    if share.size > 1:
        dist.all_reduce(values)
    return values


def gathered(value: Any, share: Rank) -> list[Any]:
    """The values of all processes, in their order."""
    values = [value] * share.size
    if share.size > 1:
        dist.all_gather_object(values, value)
    return values


def speak_once(share: Rank) -> None:
    """To be called before an error that all processes raise: the first alone shows it."""
    if share.rank > 0:
        output.set_rank(-1)


def interleaved(part: np.ndarray, count: int, share: Rank) -> np.ndarray:
    """The rows of all processes, each of which has every `size`-th one from its rank on; `count` in all."""
    if share.size == 1:
        return part
    parts: list[Any] = [None] * share.size
    dist.all_gather_object(parts, part)
    whole = np.empty((count, *part.shape[1:]), part.dtype)
    for rank, rows in enumerate(parts):
        whole[rank :: share.size] = rows
    return whole


def align_buffers(module: nn.Module, share: Rank) -> None:
    """Gives every process the first one's buffers: statistics of batch norms are each process's own while it trains."""
    if share.size > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def synchronized(network: nn.Module, share: Rank, policy: DevicePolicy) -> nn.Module:
    """On several GPUs, batch norms that share their statistics at every step; torch has none for CPUs."""
    if share.size > 1 and policy.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network
