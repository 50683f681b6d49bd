"""Processes that train together, as `torchrun` starts them: torch.distributed with gloo on CPUs and NCCL on GPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NoReturn, TypeVar

import numpy as np
import torch
from torch import distributed as dist
from torch import nn

from poolzoo.common import output, variables
from poolzoo.common.errors import EnvironmentProblem, PoolzooError, explain
from poolzoo.data.batches import SINGLE_PROCESS, Rank
from poolzoo.train.device import DevicePolicy

T = TypeVar("T")
TIMEOUT: Final = timedelta(hours=2)  # rank 0 reads the data or builds a cache while the others wait


@dataclass(frozen=True)
class Failure:
    """An error as plain values, which every process can receive."""

    exit_code: int
    message: str
    hint: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """The exit code, message and hint with which an error ends a command."""
        shown = explain(error)
        return cls(exit_code=shown.exit_code, message=shown.message, hint=shown.hint)


def init_process_group(policy: DevicePolicy) -> Rank:
    """Joins the process group that `torchrun` describes; without `torchrun` this process is the whole group.

    From here on only rank 0 prints, and errors of the other ranks are shown with their rank.
    """
    if variables.whole_number("WORLD_SIZE", 1) == 1:
        return SINGLE_PROCESS
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if policy.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
        output.set_rank(dist.get_rank())
    return Rank(rank=dist.get_rank(), world_size=dist.get_world_size())


def is_rank_zero() -> bool:
    """Whether this process has rank 0, also before it has joined the group."""
    return os.environ.get("RANK", "0") == "0"


def destroy_process_group() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def rank_zero_first(rank: Rank) -> Iterator[None]:
    """Runs the block in rank 0, then in the other ranks, such as for a cache that rank 0 builds.

    If it fails in rank 0, the other ranks fail silently without running it.
    """
    success: Failure | None = None
    if rank.is_distributed and not rank.is_zero:
        failure = all_gather_objects(success, rank)[0]
        if failure is not None:
            _fail_silently(failure)
    try:
        yield
    except Exception as error:
        if rank.is_distributed and rank.is_zero:
            all_gather_objects(Failure.of(error), rank)
        raise
    if rank.is_distributed and rank.is_zero:
        all_gather_objects(success, rank)


@contextmanager
def fail_together(rank: Rank) -> Iterator[None]:
    """The block succeeds in all processes or fails in all; the lowest rank that failed shows its error.

    Inside the block, processes may wait for each other in `rank_zero_first` only.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    if rank.is_distributed:
        failures = all_gather_objects(None if failure is None else Failure.of(failure), rank)
        first, shown = next(((index, each) for index, each in enumerate(failures) if each is not None), (None, None))
        if shown is not None:
            destroy_process_group()  # otherwise threads of the group abort this process when it exits
            if first != rank.rank:
                _fail_silently(shown)
    if failure is not None:
        raise failure


def broadcast_result(function: Callable[[], T], rank: Rank) -> T:
    """Runs a function in rank 0 only, and gives its result in all processes."""
    results: list[T] = []
    with fail_together(rank):
        if rank.is_zero:
            results.append(function())
    if not rank.is_distributed:
        return results[0]
    holder: list[list[T]] = all_gather_objects(results, rank)
    return holder[0][0]


def require_equal(what: str, value: str, rank: Rank) -> None:
    """Makes sure that a value, such as a digest of the data, is the same in all processes.

    Raises:
        EnvironmentProblem: It differs; rank 0 shows which ranks have another value.
    """
    values = all_gather_objects(value, rank)
    if others := [str(index) for index, each in enumerate(values) if each != values[0]]:
        show_in_rank_zero_only(rank)
        destroy_process_group()
        hint = "every machine needs the same files"
        raise EnvironmentProblem(f"{what} of process {', '.join(others)} differs from that of process 0", hint)


def _fail_silently(failure: Failure) -> NoReturn:
    """Ends this process with the error of another one, which shows it."""
    output.set_rank(-1)
    error = PoolzooError(failure.message, failure.hint)
    error.exit_code = failure.exit_code
    raise error


def show_in_rank_zero_only(rank: Rank) -> None:
    """To be called before an error that all processes raise."""
    if not rank.is_zero:
        output.set_rank(-1)


def all_reduce_sum(values: torch.Tensor, rank: Rank) -> torch.Tensor:
    """The sum of a tensor over all processes; the tensor is on the host and changes."""
    if rank.is_distributed:
        dist.all_reduce(values)
    return values


def all_gather_objects(value: T, rank: Rank) -> list[T]:
    """The values of all processes, by rank."""
    values = [value] * rank.world_size
    if rank.is_distributed:
        dist.all_gather_object(values, value)
    return values


def all_gather(shard: np.ndarray, count: int, rank: Rank) -> np.ndarray:
    """Puts the shards of all processes, as `Rank.shard` divides rows, in their original order.

    Args:
        shard: The rows of this process, `[n, …]`.
        count: Rows in all.
        rank: This process.

    Returns:
        `[count, …]`.
    """
    if not rank.is_distributed:
        return shard
    whole = np.empty((count, *shard.shape[1:]), shard.dtype)
    for index, rows in enumerate(all_gather_objects(shard, rank)):
        whole[index :: rank.world_size] = rows
    return whole


def broadcast_buffers(module: nn.Module, rank: Rank) -> None:
    """Copies the buffers of rank 0 to all processes; batch norms differ, since each saw its own images."""
    if rank.is_distributed:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def convert_sync_batchnorm(network: nn.Module, rank: Rank, policy: DevicePolicy) -> None:
    """On several GPUs, replaces batch norms by ones that synchronize their statistics; torch has none for CPUs."""
    if rank.is_distributed and policy.device.type == "cuda":  # gpu: torch has no such layer for CPUs
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
