"""The device of a run, with the memory layout and the precision in which it computes."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from poolzoo.common import resources, variables
from poolzoo.common.errors import EnvironmentProblem, UsageError


@dataclass(frozen=True)
class DevicePolicy:
    """A device and the choices that follow from it.

    Attributes:
        device: Where the network is.
        autocast: The lower precision of automatic mixed precision; None for float32 throughout.
        memory_format: Layout of images and filters.
        compiled: Whether training goes through `torch.compile`.
    """

    device: torch.device
    autocast: torch.dtype | None
    memory_format: torch.memory_format
    compiled: bool = False

    def context(self) -> AbstractContextManager[object]:
        """The context in which a network runs: automatic mixed precision, or none."""
        return torch.autocast(self.device.type, self.autocast) if self.autocast is not None else nullcontext()

    def place(self, module: nn.Module) -> nn.Module:
        """Moves a module to the device, in the device's memory layout; returns the module."""
        # torch's stubs lack this combination of arguments, which its documentation has.
        return cast(nn.Module, module.to(self.device, memory_format=self.memory_format))  # type: ignore[call-overload]

    def seed(self, number: int) -> None:
        """Seeds the generators of the CPU and of the device.

        `torch.manual_seed` does the same, but takes 180 µs if CUDA was never used: 4 % of a head's step.
        """
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":  # gpu: its own generator
            torch.cuda.manual_seed(number)


def set_threads(threads: int | None) -> None:
    """Sets torch's number of CPU threads; None keeps torch's own, capped by a cgroup's quota of CPU time."""
    if threads is not None:
        torch.set_num_threads(threads)
    elif (limit := resources.thread_limit()) is not None and limit < torch.get_num_threads():
        torch.set_num_threads(limit)


def policy(name: str, precision: str = "auto", compiled: str = "auto", *, deterministic: bool = False) -> DevicePolicy:
    """The policy for `auto`, `cpu`, `cuda` or `cuda:N`.

    bfloat16 and `torch.compile` are the defaults on GPUs only. On a CPU without AMX they reach 0.77 to 0.94 times the
    speed of plain float32.

    Args:
        name: The device. Under `torchrun`, `auto` and `cuda` mean the GPU of this process's local rank.
        precision: "auto", "float32" or "bfloat16".
        compiled: "auto", "on" or "off".
        deterministic: Whether results on a GPU must be bitwise reproducible, which costs speed; on CPUs they are.

    Raises:
        EnvironmentProblem: This machine has no such device.
        UsageError: The name is none of these.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{variables.whole_number('LOCAL_RANK', 0)}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r} is not auto, cpu, cuda or cuda:N", "leave it out for auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentProblem(
            f"no GPU for --device {name}: torch sees {torch.cuda.device_count()}",
            "use --device cpu; poolzoo doctor shows what torch finds",
        )
    on_gpu = device.type == "cuda"
    if on_gpu:  # gpu: settings of CUDA
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = not deterministic  # cuDNN tries its kernels and keeps the fastest
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is not deterministic without it
            torch.use_deterministic_algorithms(True)
    if precision == "auto":
        half = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        half = precision == "bfloat16"
    return DevicePolicy(
        device=device,
        autocast=torch.bfloat16 if half else None,
        memory_format=torch.channels_last,
        compiled=compiled == "on" or (compiled == "auto" and on_gpu),
    )
