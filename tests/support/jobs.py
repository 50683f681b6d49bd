"""Jobs for worker processes: one that ends well, one that fails, one with which the process dies, one that hangs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def do(key: str) -> dict[str, Any]:
    """Does what the last word of the key says, and notes it in the file that the first one names."""
    file, _, what = key.partition(" ")
    with Path(file).open("a") as done:
        done.write(f"{what}\n")
    if what == "dies":
        os._exit(3)
    if what == "hangs":
        os.read(os.pipe()[0], 1)  # nobody writes
    return {"status": "failed", "reason": "on purpose"} if what == "fails" else {"status": "passed"}
