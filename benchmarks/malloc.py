"""What keeping freed memory gains: training steps of nano/resnet with and without it, in processes that take turns.

    python -m benchmarks.malloc

Prints microseconds an image (median over rounds) and the ratio of the two.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS, STEPS, BATCH = 3, 12, 256


def measure(kept: bool) -> float:
    """Microseconds an image of one process."""
    import torch
    from torch.nn import functional as F

    import poolzoo
    from poolzoo.train import memory

    if kept:
        memory.keep()
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


def main() -> None:
    found: dict[str, list[float]] = {"given back": [], "kept": []}
    for _ in range(ROUNDS):
        for name in found:
            command = [sys.executable, "-m", "benchmarks.malloc", name]
            found[name].append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    for name, times in found.items():
        print(
            f"memory {name:10} {statistics.median(times):7.0f} µs an image, from {min(times):.0f} to {max(times):.0f}"
        )
    ratios = [a / b for a, b in zip(found["given back"], found["kept"], strict=True)]
    print(f"kept is {statistics.median(ratios):.2f} times as fast, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(sys.argv[1] == "kept"))
    else:
        main()
