"""What a device is good at: where the network lives, in which layout and precision it computes."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from poolzoo.common import resources
from poolzoo.common.errors import EnvironmentProblem, UsageError


@dataclass(frozen=True)
class DevicePolicy:
    """A device and the choices that follow from it.

    Attributes:
        device: Where the network lives.
        autocast: The lower precision of automatic mixed precision, or None for float32 throughout.
        memory_format: Of images and filters.
        compiled: Whether the training step goes through `torch.compile`.
    """

    device: torch.device
    autocast: torch.dtype | None
    memory_format: torch.memory_format
    compiled: bool = False

    def context(self) -> AbstractContextManager[object]:
        """Automatic mixed precision, where the device gains from it."""
        return torch.autocast(self.device.type, self.autocast) if self.autocast is not None else nullcontext()

    def place(self, module: nn.Module) -> nn.Module:
        """The module on the device, in the layout that suits it."""
        return module.to(self.device, memory_format=self.memory_format)

    def seed(self, number: int) -> None:
        """Sets the random numbers of the CPU and of the device, as `torch.manual_seed` does.

        That one takes 180 µs where CUDA was never used, for the stack that it keeps each time: 4 % of a head's step.
        """
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)


def set_threads(asked: int | None) -> None:
    """Gives torch the number of threads that was asked for, or no more than a quota of CPU time is worth."""
    if asked is not None:
        torch.set_num_threads(asked)
    elif (limit := resources.thread_limit()) is not None and limit < torch.get_num_threads():
        torch.set_num_threads(limit)


def policy(name: str, precision: str = "auto", compiled: str = "auto", *, deterministic: bool = False) -> DevicePolicy:
    """The policy for `auto`, `cpu`, `cuda` or `cuda:N`.

    bfloat16 and `torch.compile` by default on GPUs only: on a CPU without AMX they were measured at 0.77 to 0.94 times
    the speed of float32 without.

    Args:
        name: The device. Under `torchrun`, `auto` and `cuda` are the GPU of this process's local rank.
        precision: "auto", "float32" or "bfloat16".
        compiled: "auto", "on" or "off".
        deterministic: Whether a GPU must compute the same bits every time, which costs speed; CPUs do anyway.

    Raises:
        EnvironmentProblem: There is no such device here.
        UsageError: The name is none of these.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r} is not auto, cpu, cuda or cuda:N", "leave it out to choose by itself")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentProblem(
            f"no GPU for --device {name}: torch sees {torch.cuda.device_count()}",
            "use --device cpu; poolzoo doctor tells more",
        )
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = not deterministic  # the fastest kernels, found by trying them
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for equal bits
            torch.use_deterministic_algorithms(True)
    if precision == "auto":
        half = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        half = precision == "bfloat16"
    return DevicePolicy(
        device,
        torch.bfloat16 if half else None,
        torch.channels_last,
        compiled == "on" or (compiled == "auto" and on_gpu),
    )
