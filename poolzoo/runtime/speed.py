"""How fast a graph is, alone and against its network in torch: interleaved, on the same threads."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from PIL import Image

from poolzoo.artifacts import schema
from poolzoo.common import output, timing
from poolzoo.data import images as pixels
from poolzoo.data.sizes import show
from poolzoo.runtime import ort_session
from poolzoo.runtime.environment import current_environment, physical_cores
from poolzoo.runtime.measurements import BatchSpeed, Measurement, PreprocessingTime, SpeedReport

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BATCHES: Final = (1, 32)
SECONDS: Final = 2.0  # for all runtimes at one batch size and thread count together
QUICK_SECONDS: Final = 0.5  # where speed is shown beside other things, as by `export` and `verify`; `bench` measures it
TORCH: Final = "torch"
ORT: Final = ort_session.ORT

Call = Callable[[], object]
TorchModel = Callable[["Tensor"], "tuple[Tensor, Tensor]"]  # images to logits and probabilities


def time_runtimes(
    calls: Mapping[str, Call],
    reference: str,
    threads: int,
    rounds: int | None = None,
    *,
    seconds: float = SECONDS,
    reported: bool = False,
    within: float = 0.0,
    least: int = timing.LEAST_ROUNDS,
) -> list[Measurement]:
    """Times several runtimes at one batch size and thread count, interleaved.

    Args:
        calls: Runs a batch, by the runtime's name.
        reference: The runtime that the others are compared with; where it is missing there is no `speedup`.
        threads: How many threads each of them uses.
        rounds: The largest number of rounds; by default `timing.MOST_ROUNDS`.
        seconds: For how long.
        reported: Whether each call returns its own milliseconds.
        within: Stops early once medians are known to this fraction of themselves.
        least: How many rounds at least.
    """
    times = timing.interleaved(dict(calls), seconds, rounds=rounds, reported=reported, within=within, least=least)
    found = []
    for name, taken in times.items():
        compared = name != reference and reference in times
        speedup = timing.ratio_spread(times[reference], taken) if compared else None
        found.append(
            Measurement(
                runtime=name,
                threads=threads,
                **_statistics(taken),
                speedup=cast(schema.Spread, speedup) if speedup else None,
            )
        )
    return found


def _statistics(times: Sequence[float]) -> schema.Timing:
    return cast(schema.Timing, timing.summary(times))


def compare_with_torch(
    model: nn.Module,
    file: Path,
    images: np.ndarray,
    *,
    provider: str = "auto",
    threads: int | None = None,
    torch_compile: bool = False,
) -> SpeedReport:
    """Measures a network in torch and its graph, from images in memory to probabilities.

    Args:
        model: The network with its preprocessing, in eval mode, on the CPU: images to logits and probabilities.
        file: Its graph.
        images: Images to take batches from, `uint8[N, h, w, 3]`.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`; for the latter two torch runs on the GPU as well.
        threads: Threads of torch and of ONNX Runtime; None for one, and then all that torch uses.
        torch_compile: Whether to measure `torch.compile` too, which compiles up to half a minute for a batch size.

    Returns:
        The speed at batch 1 and 32, or fewer of large images. The headline compares torch and ONNX Runtime each on
        the number of threads that is best for it: a small batch is often faster on one.

    Raises:
        EnvironmentProblem: There is no device for the provider.
    """
    import torch

    from poolzoo.model.inference import batch_of

    before = torch.get_num_threads()
    counts = thread_counts(threads, before, provider)
    graphs = {count: ort_session.open_model(file, provider, count) for count in counts}
    first = graphs[counts[0]]
    environment = current_environment(counts[-1], first.provider)  # before this function itself is the load
    device = "cpu" if first.provider == ort_session.PROVIDERS["cpu"] else "cuda"
    measured: dict[int, list[Measurement]] = {}
    try:
        variants = _torch_variants(model, device, torch_compile)
        for count, graph in graphs.items():
            torch.set_num_threads(count)
            largest = 1 if graph.takes_photos else min(BATCHES[-1], batch_of(model, images.shape[1:3]))
            for size in sorted({1, largest}):
                batch = make_batch(images, size)
                calls = _working_calls(variants, torch.from_numpy(batch), device)
                calls[ORT] = partial(graph.run, batch)
                rows = _time_quickly(calls, TORCH, count)
                measured.setdefault(size, []).extend(rows)
    finally:
        torch.set_num_threads(before)
        model.to("cpu")
    return SpeedReport(
        environment=environment,
        batches={size: summarize(rows) for size, rows in measured.items()},
        preprocessing=time_preprocessing(images[0], first.fit),
    )


def measure_graph(
    graph: ort_session.OnnxModel, images: np.ndarray, file: Path | None = None, *, threads: int | None = None
) -> dict[int, BatchSpeed]:
    """Measures a graph alone and quickly, from images in memory to probabilities. Needs no torch.

    Args:
        graph: The opened graph.
        images: Images to take batches from, `uint8[N, h, w, 3]`.
        file: Its file, to measure it on one thread and on all; None to measure it as it was opened.
        threads: The only thread count to measure; None for both.

    Returns:
        The speed by batch size; the headline is that of the largest thread count.
    """
    graphs = {graph.session.get_session_options().intra_op_num_threads or physical_cores(): graph}
    if file is not None:
        provider = next(name for name, full in ort_session.PROVIDERS.items() if full == graph.provider)
        counts = thread_counts(threads, physical_cores(), provider)
        graphs = {count: graphs.get(count) or ort_session.open_model(file, provider, count) for count in counts}
    found = {}
    for size in BATCHES[:1] if graph.takes_photos else BATCHES:
        batch = make_batch(images, size)
        rows: list[Measurement] = []
        for count, one in graphs.items():
            rows += _time_quickly({ORT: partial(one.run, batch)}, ORT, count)
        last = rows[-1]
        found[size] = BatchSpeed(
            ort_ms=last.median_ms, threads=last.threads, rounds=last.rounds, measurements=tuple(rows)
        )
    return found


def _time_quickly(calls: Mapping[str, Call], reference: str, threads: int) -> list[Measurement]:
    quick = min(QUICK_SECONDS, SECONDS)
    return time_runtimes(calls, reference, threads, seconds=quick, within=timing.NARROW, least=timing.FEW_ROUNDS)


def make_batch(images: np.ndarray, size: int) -> np.ndarray:
    """A batch of `size` images; they repeat where there are fewer."""
    return np.ascontiguousarray(images[np.arange(size) % len(images)])


def thread_counts(requested: int | None, most: int, provider: str = "cpu") -> list[int]:
    """The thread counts to measure, ascending: the requested one, else one and `most`; on a GPU `most` alone."""
    if requested is not None:
        return [requested]
    on_cpu = ort_session.choose_provider(provider) == ort_session.PROVIDERS["cpu"]
    return sorted({1, most}) if on_cpu else [most]


def time_preprocessing(image: np.ndarray, fit: pixels.Fit) -> PreprocessingTime:
    """Times the way from the bytes of a JPEG file of twice the size to pixels.

    Args:
        image: What is in the file, `uint8[h, w, 3]`.
        fit: How the graph's images are resized.
    """
    height, width = image.shape[:2]
    buffer = io.BytesIO()
    Image.fromarray(image).resize((2 * width, 2 * height)).save(buffer, "JPEG", quality=90)
    file = buffer.getvalue()

    def call() -> np.ndarray:
        return pixels.read(io.BytesIO(file), (height, width), fit)

    times = timing.interleaved({"preprocessing": call}, SECONDS / 4, within=timing.NARROW)["preprocessing"]
    return PreprocessingTime(**_statistics(times), what=f"JPEG bytes of {show((2 * height, 2 * width))} to pixels")


def summarize(rows: Iterable[Measurement]) -> BatchSpeed:
    """The headline of one batch size: torch eager and ONNX Runtime, each at its best thread count."""
    measurements = tuple(rows)
    torch_best, ort_best = (
        min((row for row in measurements if row.runtime == name), key=lambda row: row.median_ms)
        for name in (TORCH, ORT)
    )
    if torch_best.threads == ort_best.threads and ort_best.speedup is not None:
        speedup = ort_best.speedup["median"]  # over the rounds that both ran in
    else:
        speedup = round(torch_best.median_ms / ort_best.median_ms, 3)
    return BatchSpeed(
        ort_ms=ort_best.median_ms,
        threads=ort_best.threads,
        rounds=ort_best.rounds,
        measurements=measurements,
        torch_ms=torch_best.median_ms,
        torch_threads=torch_best.threads,
        speedup=speedup,
    )


def _torch_variants(model: nn.Module, device: str, torch_compile: bool) -> dict[str, TorchModel]:
    """The network as it is, with channels last, and compiled, by name."""
    import torch

    variants: dict[str, TorchModel] = {TORCH: model.to(device)}
    try:
        # A copy, since both layouts are needed at once; torchvision's traced networks forget eval mode when copied.
        variants["torch channels-last"] = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    except Exception as error:  # a plugin's module may be anything
        output.warn(f"channels-last is not measured: the network cannot be copied ({error})")
    if torch_compile:
        from poolzoo.model.compiled import compiled

        variants["torch compiled"] = compiled(model, dynamic=False)
    return variants


def _working_calls(variants: dict[str, TorchModel], batch: torch.Tensor, device: str) -> dict[str, Call]:
    """A call for each variant; one that fails is removed from `variants`, unless it is the network as it is."""
    calls: dict[str, Call] = {}
    for name in list(variants):
        call = _torch_call(variants[name], batch, device)
        try:
            call()
        except Exception as error:
            if name == TORCH:
                raise
            output.warn(f"{name} is not measured: {str(error)[:300]}")
            del variants[name]
        else:
            calls[name] = call
    return calls


def _torch_call(model: TorchModel, batch: torch.Tensor, device: str) -> Callable[[], None]:
    import torch

    def call() -> None:
        with torch.inference_mode():
            model(batch.to(device))[1].cpu()  # which waits for the GPU

    return call
