"""How fast a graph is, alone and against its network in torch: interleaved, side by side, on the same threads."""

from __future__ import annotations

import copy
import io
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from poolzoo.common import output, resources, timing
from poolzoo.data import images as pixels
from poolzoo.data.sizes import show
from poolzoo.runtime import ort_session

if TYPE_CHECKING:
    import torch
    from torch import nn

BATCHES: Final = (1, 32)
SECONDS: Final = 2.0  # for the arms of one batch size and thread count together
TORCH, ORT = "torch", "onnxruntime"
# Instruction sets that decide how fast convolutions and their int8 and bf16 forms are.
X86: Final = {
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
}
ARM: Final = {"asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"}


def cell(
    calls: Mapping[str, Callable[[], Any]], reference: str, threads: int, rounds: int | None = None
) -> list[dict[str, Any]]:
    """Times the arms of one batch size and one thread count against one another.

    Args:
        calls: A batch through each runtime, by the runtime's name.
        reference: The one that the others are compared with; where it is missing there is no `speedup`.
        threads: How many each of them uses.
        rounds: How many at most; by default `timing.MOST_ROUNDS`.

    Returns:
        `[{"runtime", "threads", "median_ms", "min_ms", "p90_ms", "p99_ms", "rounds", "speedup"}]`; `speedup` is how
        many times as fast as the reference, `{"median", "p10", "p90"}` over the rounds, absent for the reference.
    """
    times = timing.interleaved(dict(calls), SECONDS, rounds=rounds)
    rows = []
    for name, taken in times.items():
        row: dict[str, Any] = {"runtime": name, "threads": threads, **timing.summary(taken)}
        if name != reference and reference in times:
            row["speedup"] = timing.ratio_spread(times[reference], taken)
        rows.append(row)
    return rows


def against_torch(
    model: nn.Module,
    file: Path,
    images: np.ndarray,
    *,
    provider: str = "auto",
    threads: int | None = None,
    compiled: bool = False,
) -> dict[str, Any]:
    """A network in torch and its graph, from `uint8[N, h, w, 3]` in memory to probabilities.

    Args:
        model: The network with its preprocessing, in eval mode, on the CPU: such images to logits and probabilities.
        file: The same as a graph.
        images: Images to take batches from, of 1 and of 32, or fewer of large ones.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`; for the latter two torch runs on the GPU as well.
        threads: Of torch and of ONNX Runtime alike; None for one, and then all that torch uses.
        compiled: Whether to measure `torch.compile` too, which takes up to half a minute a batch size to compile.

    Returns:
        `{"speed": {batch: {"torch_ms", "ort_ms", "speedup", "rounds", "threads", "torch_threads", "measurements":
        [...]}}, "preprocessing": {...}, "environment": {...}}`. The figures beside `measurements` (see `cell`) are
        those of torch eager and ONNX Runtime, each on as many threads as suit it best: a small batch is often done
        sooner by one, and a side that is held to two would make the other shine.

    Raises:
        EnvironmentProblem: There is no device for the provider.
    """
    import torch

    from poolzoo.model.inference import batch_of

    before = torch.get_num_threads()
    counts = thread_counts(threads, before, provider)
    graphs = {count: ort_session.open_model(file, provider, count) for count in counts}
    first = graphs[counts[0]]
    conditions = environment(counts[-1], first.provider)  # the load before there is ours
    device = "cpu" if first.provider == ort_session.PROVIDERS["cpu"] else "cuda"
    measured: dict[str, list[dict[str, Any]]] = {}
    try:
        arms = _torch_arms(model, device, compiled)
        for count, graph in graphs.items():
            torch.set_num_threads(count)
            for size in sorted({1, min(BATCHES[-1], batch_of(model, images.shape[1:3]))}):
                batch = take(images, size)
                calls = _working(arms, torch.from_numpy(batch), device)
                rows = cell({**calls, ORT: call_with(graph.run, batch)}, TORCH, count)
                measured.setdefault(str(size), []).extend(rows)
    finally:
        torch.set_num_threads(before)
        model.to("cpu")
    speed = {size: {**_headline(rows), "measurements": rows} for size, rows in measured.items()}
    return {"speed": speed, "preprocessing": preprocessing(images[0], first.fit), "environment": conditions}


def of_graph(
    graph: ort_session.OnnxModel, images: np.ndarray, file: Path | None = None, *, threads: int | None = None
) -> dict[str, dict[str, Any]]:
    """A graph alone, from images in memory to probabilities. Needs no torch.

    Args:
        graph: The opened graph.
        images: Images to take batches from, `uint8[N, h, w, 3]`.
        file: Its file, to measure it on one thread and on all; None to measure it as it was opened.
        threads: The one thread count to measure; None for both.

    Returns:
        `{batch: {"ort_ms", "rounds", "threads", "measurements": [...]}}`, with the rows of `cell`.
    """
    if file is None:
        graphs = {graph.session.get_session_options().intra_op_num_threads or cores(): graph}
    else:
        provider = next(name for name, full in ort_session.PROVIDERS.items() if full == graph.provider)
        counts = thread_counts(threads, cores(), provider)
        graphs = {count: ort_session.open_model(file, provider, count) for count in counts}
    found = {}
    for size in BATCHES:
        batch = take(images, size)
        rows = [row for count, one in graphs.items() for row in cell({ORT: call_with(one.run, batch)}, ORT, count)]
        last = rows[-1]
        headline = {"ort_ms": last["median_ms"], "rounds": last["rounds"], "threads": last["threads"]}
        found[str(size)] = {**headline, "measurements": rows}
    return found


def take(images: np.ndarray, size: int) -> np.ndarray:
    """A batch of `size` images, the same ones over again where there are fewer."""
    return np.ascontiguousarray(images[np.arange(size) % len(images)])


def call_with(run: Callable[[np.ndarray], Any], batch: np.ndarray) -> Callable[[], Any]:
    """The call that runs one batch."""
    return lambda: run(batch)


def thread_counts(asked: int | None, most: int, provider: str = "cpu") -> list[int]:
    """The thread counts to measure, ascending: the one asked for, else one and `most`; on a GPU they hardly matter."""
    if asked is not None:
        return [asked]
    on_cpu = ort_session.choose_provider(provider) == ort_session.PROVIDERS["cpu"]
    return sorted({1, most}) if on_cpu else [most]


def cores() -> int:
    """How many physical cores this process may use, and keep busy within a quota of CPU time."""
    return min(_cores(), resources.cpus())


def _cores() -> int:
    try:
        usable = os.sched_getaffinity(0)
        topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
        return len({Path(topology.format(cpu)).read_text() for cpu in usable})
    except (AttributeError, OSError):  # not Linux
        return os.cpu_count() or 1


def preprocessing(image: np.ndarray, how: pixels.Fit) -> dict[str, Any]:
    """What comes before the graph: from the bytes of one JPEG file of twice the size to the pixels of `image`'s size.

    Args:
        image: What is in the file, `uint8[h, w, 3]`.
        how: The transform of the graph.

    Returns:
        `{"median_ms", "min_ms", "p90_ms", "p99_ms", "rounds", "what"}`.
    """
    height, width = image.shape[:2]
    buffer = io.BytesIO()
    Image.fromarray(image).resize((2 * width, 2 * height)).save(buffer, "JPEG", quality=90)
    file = buffer.getvalue()

    def call() -> np.ndarray:
        return pixels.read(io.BytesIO(file), (height, width), how)

    times = timing.interleaved({"preprocessing": call}, SECONDS / 4)["preprocessing"]
    return {**timing.summary(times), "what": f"JPEG bytes of {show((2 * height, 2 * width))} to pixels"}


def environment(threads: int | None, provider: str | None = None) -> dict[str, Any]:
    """What speed is measured on: the machine, its load at this moment, versions and settings."""
    import onnxruntime

    processor = _processor()
    return {
        "machine": platform.machine(),
        "processor": processor.get("model name") or platform.processor(),
        "cpu_flags": sorted((X86 | ARM) & set((processor.get("flags") or processor.get("Features", "")).split())),
        "governor": _governor(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": threads,
        "provider": provider,
        "optimization": "all",
        "spinning": False,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),  # torch's threads spin where it is not PASSIVE
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        # Only where it is loaded, which the commands that do without torch must not do.
        "torch": str(sys.modules["torch"].__version__) if sys.modules.get("torch") else None,
    }


def _torch_arms(model: nn.Module, device: str, compiled: bool) -> dict[str, Callable[..., Any]]:
    import torch

    arms: dict[str, Callable[..., Any]] = {TORCH: model.to(device)}
    try:
        # A copy, since both layouts are needed at once; torchvision's traced networks forget eval mode when copied.
        arms["torch channels-last"] = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    except Exception as error:  # a plugin's module may be anything
        output.warn(f"channels-last is not measured: the network cannot be copied ({error})")
    if compiled:
        arms["torch compiled"] = torch.compile(model, dynamic=False)
    return arms


def _working(arms: dict[str, Callable[..., Any]], batch: torch.Tensor, device: str) -> dict[str, Callable[[], Any]]:
    """A call for each arm; one that fails is left out from here on, unless it is the network as it is."""
    calls = {}
    for name in list(arms):
        call = _torch_call(arms[name], batch, device)
        try:
            call()
        except Exception as error:
            if name == TORCH:
                raise
            output.warn(f"{name} is not measured: {str(error)[:300]}")
            del arms[name]
        else:
            calls[name] = call
    return calls


def _torch_call(model: Callable[..., Any], batch: torch.Tensor, device: str) -> Callable[[], None]:
    import torch

    def call() -> None:
        with torch.inference_mode():
            model(batch.to(device))[1].cpu()  # which waits for the GPU

    return call


def _headline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of torch eager and ONNX Runtime, each at its best, what a table shows."""
    eager, ours = (
        min((row for row in rows if row["runtime"] == name), key=lambda row: float(row["median_ms"]))
        for name in (TORCH, ORT)
    )
    same = eager["threads"] == ours["threads"]
    return {
        "torch_ms": eager["median_ms"],
        "ort_ms": ours["median_ms"],
        "speedup": ours["speedup"]["median"] if same else round(eager["median_ms"] / ours["median_ms"], 3),
        "rounds": ours["rounds"],
        "threads": ours["threads"],
        "torch_threads": eager["threads"],
    }


def _processor() -> dict[str, str]:
    """What `/proc/cpuinfo` says of the first processor; nothing where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _governor() -> str | None:
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None
