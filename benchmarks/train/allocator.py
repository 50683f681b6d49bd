"""Training speed with freed memory kept between steps, and with it returned to the system; processes take turns.

python -m benchmarks.train.allocator
"""

from __future__ import annotations

import argparse
import os

from benchmarks.train import processes

ROUNDS = 3


def main() -> None:
    """Prints both sides and their ratio."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    found: dict[str, list[float]] = {"returned": [], "kept": []}
    for _ in range(ROUNDS):
        for name, times in found.items():
            times.append(processes.elsewhere(os.environ, kept=name == "kept"))
    processes.compare("returned", "kept", found)


if __name__ == "__main__":
    main()
