"""Predicts the classes of image files with a bundle. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.artifacts.schema import Config
from poolzoo.common import output, resources
from poolzoo.common.errors import EnvironmentProblem, UsageError
from poolzoo.common.files import read_json
from poolzoo.common.text import one_line
from poolzoo.data import images, pillow_warnings, sizes, walk
from poolzoo.data.decode import Misfits, size_in
from poolzoo.data.paths import Paths
from poolzoo.data.sizes import Size
from poolzoo.runtime import ort_session
from poolzoo.runtime.ort_session import ClassScore

if TYPE_CHECKING:
    from poolzoo.plugin.catalog import Entry

BATCH: Final = 64
ORT: Final = "onnxruntime"  # which runs in this process
NOT_FINITE: Final = "the network gives NaN or infinity for it"  # the error of an image that can be read
THREADS: Final = 4  # that read images while the graph runs; with photographs of 24 megapixels they take 1.2 GB


@dataclass(frozen=True)
class Picture:
    """The saliency picture of an image: its path, and the method that made it, "gradient" or "occlusion"."""

    path: str
    method: str


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction for one image file, or why there is none.

    Attributes:
        file: The file's path as it was given.
        top: The most probable classes in descending order; empty where there is an error.
        error: Why there is no prediction: the file cannot be read, or the outputs are not finite (`NOT_FINITE`).
        picture: The saliency picture, where one was drawn.
    """

    file: str
    top: tuple[ClassScore, ...] = ()
    error: str | None = None
    picture: Picture | None = None

    def to_json(self) -> dict[str, object]:
        """`{"file", "label", "score", "top"}` with `saliency` and `method` of a picture, or `{"file", "error"}`."""
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        best = self.top[0]
        row = {"file": self.file, **best.to_json(), "top": [one.to_json() for one in self.top]}
        if self.picture is not None:
            row |= {"saliency": self.picture.path, "method": self.picture.method}
        return row


DrawPicture = Callable[[Path, np.ndarray, int, ClassScore], Picture]  # of a file, its pixels, its class and its score
MakeDrawer = Callable[[ort_session.OnnxModel], DrawPicture]


def image_files(folder: Path | str, tally: walk.Tally) -> Paths:
    """The image files in a folder and its subfolders, sorted; of a data set those that training reads.

    A subfolder that may not be read is among them, and becomes a prediction with an error.

    Args:
        folder: The folder.
        tally: Counts what is ignored.

    Raises:
        UsageError: There are none.
    """
    found = Paths(walk.images_under(folder, tally))
    if not found:
        ignored = f" ({line})" if (line := tally.line()) else ""
        raise UsageError(f"folder {folder} holds no image{ignored}", "name files, or a folder that holds some")
    return found


def predict(
    directory: Path,
    files: Sequence[str],
    *,
    top: int = 5,
    provider: str = "cpu",
    threads: int | None = None,
    pictures: MakeDrawer | None = None,
    runtime: str | None = None,
    timeout: float | None = None,
) -> Generator[Prediction, None, None]:
    """Opens a bundle and predicts the classes of image files, a batch at a time.

    Args:
        directory: The bundle.
        files: The images' paths.
        top: How many classes to name for an image.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: Threads to compute with; None for ONNX Runtime's own choice.
        pictures: Given the opened graph, returns a function that draws the picture of an image; None for no pictures.
        runtime: The runtime to use; None for the one that the bundle names, or ONNX Runtime where that is not installed
            or `provider` asks for a GPU.
        timeout: Seconds that another runtime than ONNX Runtime may take to open the graph, and for each batch.

    Returns:
        A prediction for each file, in order, as soon as its batch is done.

    Raises:
        UsageError: There is no bundle.
        CheckFailed: The bundle is damaged.
        EnvironmentProblem: The runtime that was named is not installed.
    """
    manifest.check(directory, "bundle")
    entry = _runtime(directory, runtime, provider)
    model = ort_session.open_model(directory / "model.onnx", provider, threads)
    draw = pictures(model) if pictures else None
    if entry is None:
        return _predictions(model, model.run, files, top, draw)
    return _in_runtime(directory, entry, model, files, top, draw, threads, timeout)


def _runtime(directory: Path, named: str | None, provider: str) -> Entry | None:
    """The runtime to use; None for ONNX Runtime in this process."""
    if named is None and provider in ("cuda", "tensorrt"):
        return None
    config: Config = read_json(directory / "config.json")
    name = named or config.get("export", {}).get("runtime", ORT)
    if name == ORT:
        return None
    from poolzoo.runtime.runtimes import select

    try:
        (entry,) = select([name])
    except (UsageError, EnvironmentProblem) as error:
        if named is not None:
            raise
        output.say(f"ONNX Runtime is used: the bundle names {name}, and {error.message}")
        return None
    return entry


def _in_runtime(
    directory: Path,
    entry: Entry,
    model: ort_session.OnnxModel,
    files: Sequence[str],
    top: int,
    draw: DrawPicture | None,
    threads: int | None,
    timeout: float | None,
) -> Generator[Prediction, None, None]:
    """The predictions of a runtime in a process of its own, which ends with them."""
    from poolzoo.runtime.environment import physical_cores
    from poolzoo.runtime.process import Limits
    from poolzoo.runtime.runtimes import open_runtime

    count, limits = threads or physical_cores(), Limits.default(timeout)
    with open_runtime(directory, entry, threads=count, limits=limits) as (process, _, _):

        def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            answer = process.run(pixels)
            return answer.logits, answer.probabilities

        yield from _predictions(model, run, files, top, draw)


def _predictions(
    model: ort_session.OnnxModel,
    run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    files: Sequence[str],
    top: int,
    draw: DrawPicture | None,
) -> Generator[Prediction, None, None]:
    labels, size, fit = model.labels, model.size, model.fit
    pool, misfits, crops = ThreadPoolExecutor(min(THREADS, 2 * resources.cpus())), Misfits(), _Crops(size)

    def start(at: int) -> list[Future[Read]]:
        return [pool.submit(_read, Path(file), size, fit) for file in files[at : at + BATCH]]

    with pillow_warnings.pillow():
        try:
            coming = start(0)
            for at in range(0, len(files), BATCH):
                now, coming = coming, start(at + BATCH)  # the next batch is read while the graph runs
                found = [future.result() for future in now]
                pixels = [one for one, *_ in found if isinstance(one, np.ndarray)]
                outputs = iter(run(np.stack(pixels))[1] if pixels else ())
                for file, (one, notes, native) in zip(files[at : at + BATCH], found, strict=True):
                    misfits.add(Path(file), notes)
                    if isinstance(one, str):
                        yield Prediction(file=file, error=one)
                        continue
                    crops.add(native)
                    probabilities = next(outputs)
                    if not np.isfinite(probabilities).all():  # there is no largest among them
                        yield Prediction(file=file, error=NOT_FINITE)
                        continue
                    best = ort_session.top_classes(labels, probabilities, top)
                    picture = draw(Path(file), one, int(probabilities.argmax()), best[0]) if draw else None
                    yield Prediction(file=file, top=best, picture=picture)
        finally:
            pool.shutdown(cancel_futures=True)
    misfits.warn(len(files), "images")
    crops.report(len(files))


class _Crops:
    """Counts images of another aspect ratio than the network's, and the largest fraction of a side that is cropped."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.count = 0
        self.largest = 0.0

    def add(self, native: Size | None) -> None:
        fraction = sizes.cut(native, self.size)[1] if native is not None else 0.0
        if fraction >= sizes.MIN_CUT:
            self.count += 1
            self.largest = max(self.largest, fraction)

    def report(self, total: int) -> None:
        if self.count:
            text = f"{self.count:,} of {total:,} images are not of the aspect {sizes.show(self.size)}"
            output.say(f"{text}: up to {100 * self.largest:.0f} % of a side is cut off")


# The pixels of an image, `uint8[H, W, 3]`, or why there are none; what the reader notes of their scale; its size.
Read = tuple[np.ndarray | str, list[tuple[str, str]], Size | None]


def _read(file: Path, size: Size, fit: images.Fit) -> Read:
    notes: list[tuple[str, str]] = []
    try:
        with file.open("rb") as opened:
            whole: BinaryIO = opened if opened.seekable() else BytesIO(opened.read())  # a pipe is read once
            native = size_in(whole)
            whole.seek(0)
            return images.read(whole, size, fit, lambda kind, values: notes.append((kind, values))), notes, native
    except Exception as error:  # a damaged file makes Pillow raise anything: KeyError, struct.error, MemoryError …
        return one_line(images.reason(error)), [], None
