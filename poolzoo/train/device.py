"""What a device is good at: where the network lives, in which layout and precision it computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from poolzoo.errors import EnvironmentProblem, UsageError


@dataclass(frozen=True)
class DevicePolicy:
    """A device and the choices that follow from it."""

    device: torch.device
    autocast: torch.dtype | None
    memory_format: torch.memory_format

    def context(self) -> AbstractContextManager[object]:
        """Automatic mixed precision, where the device gains from it."""
        return torch.autocast(self.device.type, self.autocast) if self.autocast is not None else nullcontext()

    def place(self, module: nn.Module) -> nn.Module:
        """The module on the device, in the layout that suits it."""
        return module.to(self.device, memory_format=self.memory_format)


def policy(name: str) -> DevicePolicy:
    """The policy for `auto`, `cpu`, `cuda` or `cuda:N`.

    bfloat16 only on a GPU that has it: on CPUs without AMX it was measured at 0.77 to 0.94 times the speed of float32.

    Raises:
        EnvironmentProblem: There is no such device here.
        UsageError: The name is none of these.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"--device {name!r} is not auto, cpu, cuda or cuda:N", "leave it out to choose by itself"
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r} is not auto, cpu, cuda or cuda:N", "leave it out to choose by itself")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentProblem(
            f"no GPU for --device {name}: torch sees {torch.cuda.device_count()}",
            "use --device cpu; poolzoo doctor tells more",
        )
    half = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else None
    return DevicePolicy(device, half, torch.channels_last)
