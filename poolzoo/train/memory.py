"""Peak memory of training: of this process, and of the tensors on its device."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from poolzoo.artifacts.run_report import PeakMemory

STATUS = Path("/proc/self/status")


def peak_memory(device: torch.device | str) -> PeakMemory:
    """The largest memory since this process started.

    The host's value is the peak resident set. The device's value is the peak of torch's allocator since the process
    started or since `torch.cuda.reset_peak_memory_stats`, without what CUDA itself needs.

    Args:
        device: Where the network is.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    return PeakMemory(
        host_bytes=_host_peak(),
        device_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
    )


def _host_peak() -> int | None:
    """Linux inherits `ru_maxrss` from the parent process; `VmHWM` (proc_pid_status(5)) is this process's own."""
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
