"""How fast the graph is against the network in torch: interleaved in shuffled order, medians, the same threads."""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from poolzoo.deploy import runtime

BATCHES: Final = (1, 32)
WARM_UP: Final = 3  # calls of each before any is timed
SECONDS: Final = 2.0  # for one batch size, after the warm-up
LEAST_ROUNDS, MOST_ROUNDS = 7, 200


def interleaved(calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Milliseconds of each call, a list a name: every round runs all of them, in an order drawn anew."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    end = time.perf_counter() + SECONDS
    for rounds in range(MOST_ROUNDS):
        if rounds >= LEAST_ROUNDS and time.perf_counter() > end:
            break
        shuffle(order)
        for name in order:
            started = time.perf_counter()
            calls[name]()
            times[name].append((time.perf_counter() - started) * 1e3)
    return times


def of_graph(graph: runtime.Model, images: np.ndarray) -> dict[str, dict[str, float]]:
    """Median milliseconds of the graph alone, by batch size."""
    found = {}
    for size in BATCHES:
        batch = images[np.arange(size) % len(images)]
        times = interleaved({"ort": lambda batch=batch: graph.run(batch)})["ort"]
        found[str(size)] = {"ort_ms": round(statistics.median(times), 4), "rounds": len(times)}
    return found


def against_torch(model: Any, graph: runtime.Model, images: np.ndarray, device: str) -> dict[str, dict[str, float]]:
    """Median milliseconds of torch eager and of the graph, from uint8 images to probabilities, and their ratio.

    Args:
        model: The network with its preprocessing.
        graph: The same, exported.
        images: Images to take batches from.
        device: Where torch runs: the counterpart of the graph's provider.
    """
    import torch

    model.to(device)
    found = {}
    for size in BATCHES:
        batch = images[np.arange(size) % len(images)]
        tensor = torch.from_numpy(batch)

        def eager(tensor: torch.Tensor = tensor) -> None:
            with torch.inference_mode():
                model(tensor.to(device))[1].cpu()

        times = interleaved({"torch": eager, "ort": lambda batch=batch: graph.run(batch)})
        ratios = [a / b for a, b in zip(times["torch"], times["ort"], strict=True)]
        found[str(size)] = {
            "torch_ms": round(statistics.median(times["torch"]), 4),
            "ort_ms": round(statistics.median(times["ort"]), 4),
            "speedup": round(statistics.median(ratios), 3),
            "rounds": len(ratios),
        }
    model.to("cpu")
    return found


def environment(threads: int | None) -> dict[str, Any]:
    """What the speed was measured on."""
    import onnxruntime

    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "threads": threads,
        "onnxruntime": onnxruntime.__version__,
        "optimisation": "all",
        "spinning": False,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
