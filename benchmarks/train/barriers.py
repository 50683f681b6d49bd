"""Training speed with threads that sleep at a barrier and with threads that spin, alone and beside a busy process.

python -m benchmarks.train.barriers
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from benchmarks.train import processes

ROUNDS = 3


def main() -> None:
    """Prints both sides and their ratio, for each number of busy processes."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    for beside in (0, 1):
        print(f"beside {beside} other processes:")
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside)]
        try:
            found: dict[str, list[float]] = {"spinning": [], "sleeping": []}
            for _ in range(ROUNDS):
                for name, times in found.items():
                    policy = {"OMP_WAIT_POLICY": "PASSIVE"} if name == "sleeping" else {}
                    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
                    times.append(processes.elsewhere({**environment, **policy}))
            processes.compare("spinning", "sleeping", found)
        finally:
            for other in others:
                other.kill()
                other.wait()


if __name__ == "__main__":
    main()
