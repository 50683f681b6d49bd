"""Runs a bundle under ONNX Runtime. Needs no torch: onnxruntime, numpy and Pillow are enough."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from poolzoo.common import output, resources
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.data.resize import Fit, recorded

PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
FATAL: Final = 4  # ONNX Runtime's log level for what we would rather say ourselves


@dataclass(frozen=True)
class Model:
    """An opened graph: images to `logits` and `probabilities`, both `float32[N, classes]`."""

    session: onnxruntime.InferenceSession
    provider: str
    metadata: dict[str, str]

    @property
    def labels(self) -> list[str]:
        return list(json.loads(self.metadata["labels"]))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images that it takes."""
        given = json.loads(self.metadata["input"])
        return int(given["height"]), int(given["width"])

    @property
    def fit(self) -> Fit:
        """How photographs are brought to that size."""
        return recorded(json.loads(self.metadata.get("preprocessing", "{}")))

    def to_input(self, images: np.ndarray) -> np.ndarray:
        """`uint8[N, H, W, 3]` as the graph's input `images` wants it: the same, or `float32[N, 3, H, W]` in 0–1."""
        if json.loads(self.metadata["input"])["kind"] == "uint8":
            return images
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)

    def run(self, images: np.ndarray, *, last: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Logits and probabilities of a batch, `uint8[N, H, W, 3]`.

        On a CPU the session keeps the memory of a batch for the next one, and gives it back after the `last`.
        """
        options = None
        if last and self.provider == PROVIDERS["cpu"]:
            options = onnxruntime.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        logits, probabilities = self.session.run(
            ["logits", "probabilities"], {"images": self.to_input(images)}, options
        )
        return logits, probabilities


def has_device(provider: str) -> bool:
    """Whether there is a device for a provider; that ONNX Runtime lists the provider says nothing about that."""
    if provider == PROVIDERS["cpu"]:
        return True
    return provider in onnxruntime.get_available_providers() and _cuda_devices() > 0


def _cuda_devices() -> int:
    import ctypes
    import sys

    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def choose_provider(name: str) -> str:
    """The provider for `auto`, `cpu`, `cuda` or `tensorrt`.

    Raises:
        UsageError: The name is none of these.
        EnvironmentProblem: There is no device for it.
    """
    if name == "auto":
        return PROVIDERS["cuda"] if has_device(PROVIDERS["cuda"]) else PROVIDERS["cpu"]
    if name not in PROVIDERS:
        raise UsageError(
            f"--provider {name!r} is none of auto, {', '.join(PROVIDERS)}", "leave it out to choose by itself"
        )
    if not has_device(PROVIDERS[name]):
        raise EnvironmentProblem(f"no device for --provider {name}", "use --provider cpu; poolzoo doctor tells more")
    return PROVIDERS[name]


def open_model(path: Path, provider: str = "cpu", threads: int | None = None) -> Model:
    """Opens a graph at the optimization level that is used in earnest (ALL).

    A provider that was named is used or refused; `auto` tries the GPU and says so where it has to take the CPU.

    Raises:
        EnvironmentProblem: ONNX Runtime fell back to another provider than the one that was named, or it is older than
            the file states to need.
        CheckFailed: The file is no graph of ours.
    """
    wanted = choose_provider(provider)
    session = open_session(path, wanted, threads)
    if session.get_providers()[0] != wanted:
        found = session.get_providers()[0]
        if provider != "auto":
            raise EnvironmentProblem(f"ONNX Runtime fell back from {wanted} to {found}", "use --provider cpu")
        output.warn(f"{wanted} does not work here; {found} is used", "poolzoo doctor tells more")
        wanted = found
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    if not {"labels", "input"} <= metadata.keys():
        raise CheckFailed(f"{path} carries no labels and no input", "export the run again with poolzoo export")
    needed = json.loads(metadata.get("onnxruntime", '"0"'))
    if _release(onnxruntime.__version__) < _release(needed):  # it opens the file, and computes wrong numbers
        raise _too_old(path, f"{needed} or newer")
    return Model(session, wanted, metadata)


def open_session(source: Path | bytes, provider: str, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Opens any graph as `open_model` opens one of ours.

    Args:
        source: A file, or a graph's bytes.
        provider: ONNX Runtime's name of it, one of the values of `PROVIDERS`.
        threads: None for ONNX Runtime's own choice, within a quota of CPU time.

    Raises:
        CheckFailed: ONNX Runtime refuses it.
        EnvironmentProblem: ONNX Runtime is older than the file.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning threads starve everybody else
    options.intra_op_num_threads = threads or resources.thread_limit() or 0  # 0: ONNX Runtime's own choice
    # TF32 keeps ten bits of a float's mantissa: a thousand times the rounding noise that parity is judged by.
    settings = {"use_tf32": "0"} if provider == PROVIDERS["cuda"] else {}
    with redirect_stdout(sys.stderr):  # ONNX Runtime prints to stdout when it loads CUDA's libraries or falls back
        if provider != PROVIDERS["cpu"] and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        try:
            given = source if isinstance(source, bytes) else str(source)
            return onnxruntime.InferenceSession(given, options, providers=[(provider, settings)])
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            name = "the graph" if isinstance(source, bytes) else source
            if _is_too_new(str(error)):
                raise _too_old(name, _named_by(source) if isinstance(source, Path) else "a newer release") from error
            raise CheckFailed(f"{name} cannot be opened: {str(error)[:300]}", "export the run again") from error


def _is_too_new(error: str) -> bool:
    """Whether ONNX Runtime says of a file that its IR version or opset is younger than itself."""
    return "Unsupported model IR version" in error or "is under development" in error


def _too_old(file: Path | str, needed: str) -> EnvironmentProblem:
    text = f"{file} needs ONNX Runtime {needed}, and {onnxruntime.__version__} is installed"
    return EnvironmentProblem(text, "pip install --upgrade onnxruntime")


def _release(version: str) -> list[int]:
    """Its first two numbers: `1.20.1` is a `1.20`."""
    return [int(part) for part in version.split(".")[:2] if part.isdecimal()]


def _named_by(path: Path) -> str:
    """The release that the bundle around a graph names, in words."""
    try:
        release = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))["export"]["onnxruntime"]
    except (OSError, ValueError, KeyError, TypeError):
        return "a newer release"
    return f"{release} or newer"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ONNX Runtime, or a converter of its, says so in whatever words."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "bad_alloc" in text or "failed to allocate" in text or "bad alloc" in text


def run_in_batches(model: Model, images: np.ndarray, batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Logits and probabilities of many images: `uint8[N, H, W, 3]` to two `float32[N, classes]`.

    BatchLoader become smaller where memory does not suffice.

    Raises:
        MemoryError: It does not suffice for a single image.
    """
    parts, start = [], 0
    while start < len(images):
        try:
            last = start + batch_size >= len(images)
            parts.append(model.run(images[start : start + batch_size], last=last))
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            if not is_out_of_memory(error):
                raise
            if batch_size == 1:
                raise MemoryError("memory does not suffice to run the graph on a single image") from error
            batch_size //= 2
            continue
        start += batch_size
    return np.concatenate([logits for logits, _ in parts]), np.concatenate([chances for _, chances in parts])


def top(labels: Sequence[str], probabilities: np.ndarray, count: int) -> list[dict[str, Any]]:
    """The most probable classes of one image, the best first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [{"label": labels[index], "score": float(probabilities[index])} for index in order]
