"""The parts of a measurement that need torch or onnxruntime; each call has a process of its own."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

SECONDS = 1.5  # that each side is called for
PACKAGES = ("torch", "torchvision", "timm", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow", "simplejpeg")


def machine(device: str) -> dict[str, Any]:
    """What this is measured on."""
    from poolzoo.common import resources

    found: dict[str, Any] = {
        "cuda": torch.cuda.is_available(),
        "cpus": resources.cpus(),
        "python": platform.python_version(),
    }
    if device == "cuda" and found["cuda"]:
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1)}
        found |= {"capability": f"{properties.major}.{properties.minor}", "cuda_version": torch.version.cuda}
    found["versions"] = {}
    for name in PACKAGES:
        try:
            found["versions"][name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def has_provider(device: str) -> bool:
    """Whether ONNX Runtime computes on a device."""
    if device == "cpu":
        return True
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def beside_torch(run: str, bundle: str, device: str, batches: list[int]) -> list[dict[str, Any]]:
    """Milliseconds a batch of a bundle in ONNX Runtime and of its network in torch, from `uint8` images to numpy.

    Args:
        run: The run directory.
        bundle: Its bundle.
        device: "cuda" or "cpu".
        batches: The batch sizes.
    """
    from poolzoo.artifacts.run import load_run
    from poolzoo.model.inference import InferenceModel
    from poolzoo.runtime import ort_session

    loaded = load_run(run)
    network = InferenceModel(loaded.preprocess, loaded.network).eval().to(device)
    model = ort_session.open_model(Path(bundle) / "model.onnx", device)
    generator = np.random.default_rng(0)
    rows = []
    for batch in batches:
        images = generator.integers(0, 256, (batch, *loaded.data_size, 3), np.uint8)

        def ours(images: np.ndarray = images) -> np.ndarray:
            return model.run(images)[0]

        def eager(images: np.ndarray = images) -> np.ndarray:
            with torch.inference_mode():
                logits: np.ndarray = network(torch.from_numpy(images).to(device))[0].float().cpu().numpy()
            return logits

        difference = float(np.abs(ours() - eager()).max())
        times = interleaved({"onnxruntime": ours, "torch": eager})
        rows.append(
            {
                "batch": batch,
                "onnxruntime_ms": round(times["onnxruntime"], 3),
                "torch_ms": round(times["torch"], 3),
                "torch_over_onnxruntime": round(times["torch"] / times["onnxruntime"], 3),
                "largest_difference": difference,
            }
        )
    return rows


def interleaved(sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median of the milliseconds of a call of each side; the sides take turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        for _ in range(3):
            call()
    end = time.perf_counter() + SECONDS * len(sides)
    while time.perf_counter() < end or len(times[next(iter(sides))]) < 5:
        for name, call in sides.items():
            started = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}
