"""What keeping freed memory between training steps gains, in processes that take turns.

python -m benchmarks.train.allocator
"""

from __future__ import annotations

import os

from benchmarks.train import processes

ROUNDS = 3


def main() -> None:
    found: dict[str, list[float]] = {"given back": [], "kept": []}
    for _ in range(ROUNDS):
        for name, times in found.items():
            times.append(processes.elsewhere(os.environ, kept=name == "kept"))
    processes.compare("given back", "kept", found)


if __name__ == "__main__":
    main()
