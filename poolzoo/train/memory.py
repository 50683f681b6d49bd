"""How much memory a training took: the peak of this process, and of the tensors on its device."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def peak_memory(device: torch.device | str) -> dict[str, int | None]:
    """The largest memory so far, in bytes; None where it cannot be told.

    Args:
        device: Where the network lives.

    Returns:
        `host_bytes`, the peak resident set of this process, from its start; `device_bytes`, the peak of what torch's
        allocator handed out on a CUDA device (without what CUDA itself needs there), from the process's start or the
        last `torch.cuda.reset_peak_memory_stats`.
    """
    device = torch.device(device)
    return {
        "host_bytes": _host_peak(),
        "device_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


def _host_peak() -> int | None:
    """Linux inherits `ru_maxrss` from the process that started this one; `VmHWM` (proc_pid_status(5)) is our own."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    try:
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(fields["VmHWM"].removesuffix("kB")) * 1024
    except (OSError, KeyError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): macOS counts bytes, others KiB
