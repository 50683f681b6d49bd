"""ONNX Runtime sessions of a bundle's graph. Needs onnxruntime, numpy and Pillow, not torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from poolzoo.common import errors, json_reader, output, resources
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.common.text import one_line
from poolzoo.data.resize import Fit, recorded
from poolzoo.metrics import decisions
from poolzoo.metrics.decisions import Decision
from poolzoo.metrics.output_rules import ABSTENTION, PREDICTION_SETS, OutputRules
from poolzoo.runtime import graph_input, graph_references
from poolzoo.runtime import metadata as schema

PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
RULES: Final = (ABSTENTION, PREDICTION_SETS)
ORT: Final = "onnxruntime"  # its name among the runtimes
LOG_FATAL: Final = 4  # ONNX Runtime's log level: its errors arrive as exceptions anyway


@dataclass(frozen=True)
class OnnxModel:
    """An opened graph: images to `logits` and `probabilities`, both `float32[N, classes]`.

    Attributes:
        session: The session.
        provider: ONNX Runtime's name of the execution provider, such as "CPUExecutionProvider".
        metadata: The file's `metadata_props`, whose values are JSON; `open_model` has checked them.
    """

    session: onnxruntime.InferenceSession
    provider: str
    metadata: dict[str, str]

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(json.loads(self.metadata["labels"]))

    @property
    def decision(self) -> Decision:
        """How its logits become labels."""
        found = {key: json.loads(self.metadata.get(key, "null")) for key in ("task", "thresholds", "calibration")}
        return decisions.recorded(**found, count=len(self.labels))

    @property
    def rules(self) -> OutputRules:
        """What makes its outputs beside logits and probabilities."""
        return OutputRules.from_json({key: json.loads(self.metadata.get(key, "null")) for key in RULES})

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its input images."""
        given = graph_input.from_metadata(self.metadata)
        return given.height, given.width

    @property
    def fit(self) -> Fit:
        """How image files are brought to that size."""
        return recorded(json.loads(self.metadata.get("preprocessing", "{}")))

    @property
    def takes_photos(self) -> bool:
        """Whether it takes one image of any size at a time, and resizes it itself."""
        return bool(json.loads(self.metadata["input"])["kind"] == graph_input.PHOTO)

    @property
    def batch(self) -> int | None:
        """The only batch size that it takes; None for any."""
        return graph_input.from_metadata(self.metadata).batch

    def to_input(self, images: np.ndarray) -> np.ndarray:
        """Images `uint8[N, H, W, 3]` as the graph's input: the same, or `float32[N, 3, H, W]` in 0–1.

        N is 1 for a graph that takes photographs.
        """
        return graph_input.as_input(images, json.loads(self.metadata["input"])["kind"])

    def run(self, images: np.ndarray, *, last: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Runs a batch, or where the graph takes photographs, its images one after another.

        A graph with a fixed batch gets pieces of that size, the last of them filled up.

        Args:
            images: `uint8[N, H, W, 3]`.
            last: Whether this is the last batch: a session on the CPU then frees the memory that it keeps for the next.

        Returns:
            Logits and probabilities, `float32[N, classes]` each.

        Raises:
            CheckFailed: The graph does not take these images, or does not compute.
        """
        if self.takes_photos and len(images) > 1:
            parts = [self.run(images[at : at + 1], last=last and at + 1 == len(images)) for at in range(len(images))]
            return _joined(parts)
        if (fixed := self.batch) is not None and len(images) != fixed:
            pieces = []
            for at in range(0, len(images), fixed):
                rows = at + np.arange(fixed) % min(fixed, len(images) - at)
                logits, probabilities = self.run(images[rows], last=last and at + fixed >= len(images))
                pieces.append((logits[: len(images) - at], probabilities[: len(images) - at]))
            return _joined(pieces)
        options = None
        if last and self.provider == PROVIDERS["cpu"]:
            options = onnxruntime.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        logits, probabilities = self._compute(["logits", "probabilities"], images, options)
        return logits, probabilities

    def run_outputs(self, names: Sequence[str], images: np.ndarray) -> list[np.ndarray]:
        """Outputs by their names, of a batch of images `uint8[N, H, W, 3]`; of photographs one after another."""
        size = 1 if self.takes_photos else len(images)
        parts = [self._compute(list(names), images[at : at + size]) for at in range(0, len(images), size)]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _compute(
        self, names: list[str], images: np.ndarray, options: onnxruntime.RunOptions | None = None
    ) -> list[np.ndarray]:
        """Raises CheckFailed where the graph does not take these images, or does not compute."""
        given = self.to_input(images)
        try:
            found: list[np.ndarray] = self.session.run(names, {"images": given}, options)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            if is_out_of_memory(error):
                raise
            what = f"the graph cannot be run on {given.dtype}{list(given.shape)}: {one_line(str(error), 300)}"
            raise CheckFailed(what, "export the run again") from error
        return found

    def run_list(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The same of images `uint8[H, W, 3]`, whose sizes differ where the graph takes photographs."""
        return _joined([self.run(image[None]) for image in images]) if self.takes_photos else self.run(np.stack(images))


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of several batches as those of one."""
    return np.concatenate([logits for logits, _ in parts]), np.concatenate([chances for _, chances in parts])


def has_device(provider: str) -> bool:
    """Whether there is a device for a provider. ONNX Runtime lists providers without a device too."""
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
    """ONNX Runtime's name of the provider for `auto`, `cpu`, `cuda` or `tensorrt`.

    Raises:
        UsageError: The name is none of these.
        EnvironmentProblem: There is no device for it.
    """
    if name == "auto":
        return PROVIDERS["cuda"] if has_device(PROVIDERS["cuda"]) else PROVIDERS["cpu"]
    if name not in PROVIDERS:
        raise UsageError(
            f"--provider {name!r} is none of auto, {', '.join(PROVIDERS)}", "leave it out to choose automatically"
        )
    if not has_device(PROVIDERS[name]):
        raise EnvironmentProblem(f"no device for --provider {name}", "use --provider cpu; see poolzoo doctor")
    return PROVIDERS[name]


def open_model(path: Path, provider: str = "cpu", threads: int | None = None, *, optimized: bool = True) -> OnnxModel:
    """Opens a graph with all graph optimizations, or with none.

    A named provider is used or refused. `auto` tries the GPU and warns where it falls back to the CPU.

    Args:
        path: The file.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: Threads to compute with; None for ONNX Runtime's own choice.
        optimized: Whether to optimize the graph.

    Raises:
        EnvironmentProblem: ONNX Runtime fell back from the named provider, or is older than the file requires.
        CheckFailed: The file was not exported by poolzoo, or makes ONNX Runtime read other files.
    """
    wanted = choose_provider(provider)
    graph_references.require_none(path)
    session = open_session(path, wanted, threads, optimized=optimized)
    if session.get_providers()[0] != wanted:
        found = session.get_providers()[0]
        if provider != "auto":
            raise EnvironmentProblem(f"ONNX Runtime fell back from {wanted} to {found}", "use --provider cpu")
        output.warn(f"{wanted} cannot be used; falling back to {found}", "see poolzoo doctor")
        wanted = found
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    schema.require(metadata, path)
    needed = json.loads(metadata.get("onnxruntime", '"0"'))
    if _release(onnxruntime.__version__) < _release(needed):  # it opens the file, and computes wrong numbers
        raise _too_old(path, f"{needed} or newer")
    return OnnxModel(session, wanted, metadata)


def open_session(
    source: Path | bytes,
    provider: str,
    threads: int | None = None,
    *,
    optimized: bool = True,
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Opens any graph with the options of `open_model`.

    Args:
        source: A file, or a graph's bytes.
        provider: ONNX Runtime's name of it, one of the values of `PROVIDERS`.
        threads: None for ONNX Runtime's own choice, within a quota of CPU time.
        optimized: Whether to optimize the graph.
        profile: How the name of a file begins that gets the times of all kernels; None for none.

    Raises:
        CheckFailed: ONNX Runtime refuses it.
        EnvironmentProblem: ONNX Runtime is older than the file, or finds no memory or thread.
    """
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.log_severity_level = LOG_FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning threads starve other processes
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    options.intra_op_num_threads = threads or resources.thread_limit() or 0  # 0: ONNX Runtime's own choice
    # TF32 keeps ten bits of a float's mantissa: a thousand times the rounding noise of float32.
    settings = {"use_tf32": "0"} if provider == PROVIDERS["cuda"] else {}
    with redirect_stdout(sys.stderr):  # ONNX Runtime prints to stdout when it loads CUDA's libraries or falls back
        if provider != PROVIDERS["cpu"] and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        try:
            content = source if isinstance(source, bytes) else str(source)
            may_fall_back = provider != PROVIDERS["cpu"]  # else it says more and opens the same again
            return onnxruntime.InferenceSession(
                content, options, providers=[(provider, settings)], enable_fallback=may_fall_back
            )
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            if (lacking := errors.scarcity(error)) is not None:
                raise lacking from error
            name = "the graph" if isinstance(source, bytes) else source
            if _is_too_new(str(error)):
                raise _too_old(
                    name, _required_release(source) if isinstance(source, Path) else "of a newer release"
                ) from error
            why = one_line(str(error), 300).rstrip(".")
            raise CheckFailed(f"{name} cannot be opened: {why}", "export the run again") from error


def _is_too_new(error: str) -> bool:
    """Whether ONNX Runtime refuses a file because its IR version or opset is too new."""
    return "Unsupported model IR version" in error or "is under development" in error


def _too_old(file: Path | str, needed: str) -> EnvironmentProblem:
    text = f"{file} needs ONNX Runtime {needed}, and {onnxruntime.__version__} is installed"
    return EnvironmentProblem(text, "pip install --upgrade onnxruntime")


def _release(version: str) -> list[int]:
    """Its first two numbers: `1.20.1` is a `1.20`."""
    return [int(part) for part in version.split(".")[:2] if part.isdecimal()]


def _required_release(path: Path) -> str:
    """The release that `config.json` beside a graph names, in words."""
    try:
        config = json_reader.mapping(json_reader.parse(path.with_name("config.json").read_bytes()))
    except (OSError, ValueError):
        return "a newer release"
    release = json_reader.text(json_reader.mapping(config.get("export")).get("onnxruntime"))
    return f"{release} or newer" if release else "of a newer release"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of ONNX Runtime or of its converters means that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "bad_alloc" in text or "failed to allocate" in text or "bad alloc" in text


def run_in_batches(model: OnnxModel, images: np.ndarray, batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Logits and probabilities of many images: `uint8[N, H, W, 3]` to two `float32[N, classes]`.

    The batch size is halved where memory does not suffice.

    Raises:
        MemoryError: Memory does not suffice for a single image.
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
    return _joined(parts)


@dataclass(frozen=True)
class ClassScore:
    """A class's name and its probability."""

    label: str
    score: float

    def to_json(self) -> dict[str, object]:
        """`{"label", "score"}`."""
        return {"label": self.label, "score": self.score}


def top_classes(labels: Sequence[str], probabilities: np.ndarray, count: int) -> tuple[ClassScore, ...]:
    """The `count` most probable classes of one image, `float[classes]`, in descending order."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return tuple(ClassScore(labels[index], float(probabilities[index])) for index in order)


def labels_above(labels: Sequence[str], probabilities: np.ndarray, decision: Decision) -> tuple[ClassScore, ...]:
    """The labels of one image, `float[K]`, that reach their thresholds, in descending order of probability."""
    return classes_in(labels, probabilities, decision.above(probabilities))


def classes_in(labels: Sequence[str], probabilities: np.ndarray, members: np.ndarray) -> tuple[ClassScore, ...]:
    """The classes of one image that are in a set, `bool[classes]`, in descending order of probability."""
    order = np.argsort(-probabilities, kind="stable")
    return tuple(ClassScore(labels[index], float(probabilities[index])) for index in order if members[index])
