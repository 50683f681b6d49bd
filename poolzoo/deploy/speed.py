"""How fast the graph is against the network in torch: interleaved in shuffled order, medians, the same threads."""

from __future__ import annotations

import platform
import statistics
from typing import Any, Final

import numpy as np

from poolzoo import timing
from poolzoo.deploy import runtime

BATCHES: Final = (1, 32)


def of_graph(graph: runtime.Model, images: np.ndarray) -> dict[str, dict[str, float]]:
    """Median milliseconds of the graph alone, by batch size."""
    found = {}
    for size in BATCHES:
        batch = images[np.arange(size) % len(images)]
        times = timing.interleaved({"ort": lambda batch=batch: graph.run(batch)})["ort"]
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

        times = timing.interleaved({"torch": eager, "ort": lambda batch=batch: graph.run(batch)})
        found[str(size)] = {
            "torch_ms": round(statistics.median(times["torch"]), 4),
            "ort_ms": round(statistics.median(times["ort"]), 4),
            "speedup": round(timing.ratio(times["torch"], times["ort"]), 3),
            "rounds": len(times["ort"]),
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
