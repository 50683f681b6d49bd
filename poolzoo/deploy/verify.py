"""Checks a bundle wherever it is: files as they were sealed, graph that opens, outputs that agree. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from poolzoo import bundle
from poolzoo.deploy import runtime, speed
from poolzoo.errors import PoolzooError, UsageError


def verify(directory: Path, *, provider: str = "cpu", threads: int | None = None, timed: bool = True) -> dict[str, Any]:
    """Repeats what can be repeated from the bundle alone.

    Returns:
        `{"passed", "checks": [{"id", "passed", "detail"}], "speed"}`.

    Raises:
        UsageError: There is no bundle.
        EnvironmentProblem: There is no device for the provider.
    """
    if not directory.is_dir() or not (directory / bundle.MANIFEST).is_file():
        bundle.check(directory, "bundle")
    wanted = runtime.choose_provider(provider)
    checks: list[dict[str, Any]] = []

    def note(identity: str, passed: bool, detail: str) -> bool:
        checks.append({"id": identity, "passed": passed, "detail": detail})
        return passed

    result: dict[str, Any] = {"passed": False, "checks": checks, "speed": {}, "provider": wanted}
    try:
        if bundle.read_json(directory / bundle.MANIFEST).get("kind") != "bundle":
            raise UsageError(f"{directory} is no bundle", "give the directory of a bundle")
        differences = bundle.altered(directory)
        if not note("manifest", not differences, ", ".join(differences) or "every file is as it was sealed"):
            return result
        model = runtime.open_model(directory / "model.onnx", provider, threads)
        note("session", True, f"opens with {model.provider}")
        tolerance = float(bundle.read_json(directory / "parity.json")["tolerance"])
        with np.load(directory / "golden.npz", allow_pickle=False) as stored:
            images, logits = stored["images"], stored["logits"]
    except UsageError:
        raise
    except PoolzooError as error:
        note("session", False, error.message)
        return result
    except (OSError, ValueError, KeyError, TypeError) as error:
        note("golden", False, f"the stored inputs and outputs cannot be read: {error}")
        return result
    for size in (1, 2, 7, len(images)):
        error = np.abs(model.run(images[:size])[0] - logits[:size])
        largest = float(np.nan_to_num(error, nan=np.inf).max())
        note(f"golden-batch-{size}", largest <= tolerance, f"largest difference {largest:.2e}, allowed {tolerance:.2e}")
    if timed:
        result["speed"] = speed.of_graph(model, images)
    result["passed"] = all(check["passed"] for check in checks)
    return result
