"""Training steps of nano/resnet in a process of its own, for benchmarks whose sides differ in their environment."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

STEPS, BATCH = 12, 256


def step_time(*, kept: bool) -> float:
    """Microseconds an image of a training step in this process, the median; `kept`: with `allocator.keep()`."""
    import torch
    from torch.nn import functional as F

    import poolzoo
    from poolzoo.common import allocator

    if kept:
        allocator.keep()
    torch.manual_seed(0)
    network = poolzoo.create_model("nano/resnet", pool="gem").to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    times = []
    for _ in range(STEPS):
        started = time.perf_counter()
        loss = F.cross_entropy(network(images.contiguous(memory_format=torch.channels_last)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append((time.perf_counter() - started) / BATCH * 1e6)
    return statistics.median(times[2:])


def elsewhere(environment: Mapping[str, str], *, kept: bool = True) -> float:
    """`step_time` of a new process with that environment."""
    code = f"from benchmarks.train.processes import step_time; print(step_time(kept={kept}))"
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=dict(environment)).stdout)


def compare(first: str, second: str, found: Mapping[str, list[float]]) -> None:
    """Prints both sides and how many times as fast the second is, round by round."""
    for name in (first, second):
        times = found[name]
        print(f"{name:12} {statistics.median(times):7.0f} µs an image, from {min(times):.0f} to {max(times):.0f}")
    ratios = [a / b for a, b in zip(found[first], found[second], strict=True)]
    print(f"{second} is {statistics.median(ratios):.2f} times as fast, from {min(ratios):.2f} to {max(ratios):.2f}")
