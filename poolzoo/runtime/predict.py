"""Predicts the classes of image files with a bundle. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.common import resources
from poolzoo.common.text import one_line
from poolzoo.data import images, pillow_warnings
from poolzoo.data.sizes import Size
from poolzoo.runtime import ort_session
from poolzoo.runtime.ort_session import ClassScore
from poolzoo.runtime.remarks import Remarks

BATCH: Final = 64
PHOTOS: Final = 4  # that wait at their full size, where the graph takes them so
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


def predict(
    directory: Path,
    files: Sequence[str],
    *,
    top: int = 5,
    provider: str = "cpu",
    threads: int | None = None,
    pictures: MakeDrawer | None = None,
) -> Generator[Prediction, None, None]:
    """Opens a bundle and predicts the classes of image files, a batch at a time.

    Args:
        directory: The bundle.
        files: The images' paths.
        top: How many classes to name for an image.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: Threads to compute with; None for ONNX Runtime's own choice.
        pictures: Given the opened graph, returns a function that draws the picture of an image; None for no pictures.

    Returns:
        A prediction for each file, in order, as soon as its batch is done.

    Raises:
        UsageError: There is no bundle.
        CheckFailed: The bundle is damaged.
    """
    predictor = Predictor(directory, top=top, provider=provider, threads=threads, pictures=pictures)
    return _reported(predictor, files)


def _reported(predictor: Predictor, files: Sequence[str]) -> Generator[Prediction, None, None]:
    remarks = Remarks()
    yield from predictor.rows(files, remarks)
    remarks.report(len(files))


class Predictor:
    """An opened bundle that predicts the classes of image files."""

    def __init__(
        self,
        directory: Path,
        *,
        top: int = 5,
        provider: str = "cpu",
        threads: int | None = None,
        pictures: MakeDrawer | None = None,
        readers: int | None = None,
    ) -> None:
        """Opens a bundle; arguments and errors are those of `predict`. `readers` is the number of reading threads."""
        manifest.check(directory, "bundle")
        model = ort_session.open_model(directory / "model.onnx", provider, threads)
        self._model = model
        self._labels = model.labels
        self._top = top
        self._readers = readers or min(THREADS, 2 * resources.cpus())
        self._draw = pictures(model) if pictures else None

    def rows(self, files: Sequence[str], remarks: Remarks) -> Generator[Prediction, None, None]:
        """A prediction for each file, in order, as soon as its batch is done.

        While a batch is in the network, the next one is read.

        Args:
            files: The images' paths.
            remarks: Collects what is noted of the files.
        """
        fit, pool = self._model.fit, ThreadPoolExecutor(self._readers)
        size, batch = (None, PHOTOS) if self._model.takes_photos else (self._model.size, BATCH)

        def start(at: int) -> list[Future[Read]]:
            return [pool.submit(_read, Path(file), size, fit) for file in files[at : at + batch]]

        with pillow_warnings.pillow():
            try:
                coming = start(0)
                for at in range(0, len(files), batch):
                    now, coming = coming, start(at + batch)  # the next batch is read while the graph runs
                    found = [future.result() for future in now]
                    pixels = [one for one, *_ in found if isinstance(one, np.ndarray)]
                    outputs = iter(self._model.run_list(pixels)[1] if pixels else ())
                    for file, (one, notes, native) in zip(files[at : at + batch], found, strict=True):
                        remarks.misfits.add(Path(file), notes)
                        if isinstance(one, str):
                            yield Prediction(file=file, error=one)
                            continue
                        remarks.add_size(native, self._model.size)
                        yield self._prediction(file, one, next(outputs))
            finally:
                pool.shutdown(cancel_futures=True)

    def _prediction(self, file: str, pixels: np.ndarray, probabilities: np.ndarray) -> Prediction:
        if not np.isfinite(probabilities).all():  # there is no largest among them
            return Prediction(file=file, error=NOT_FINITE)
        best = ort_session.top_classes(self._labels, probabilities, self._top)
        picture = self._draw(Path(file), pixels, int(probabilities.argmax()), best[0]) if self._draw else None
        return Prediction(file=file, top=best, picture=picture)


# The pixels of an image, `uint8[H, W, 3]`, or why there are none; what the reader notes of their scale; its size.
Read = tuple[np.ndarray | str, list[tuple[str, str]], Size | None]


def _read(file: Path, size: Size | None, fit: images.Fit) -> Read:
    notes: list[tuple[str, str]] = []
    try:
        with file.open("rb") as opened:
            whole: BinaryIO = opened if opened.seekable() else BytesIO(opened.read())  # a pipe is read once
            pixels, native = images.read_with_size(whole, size, fit, lambda kind, values: notes.append((kind, values)))
            return pixels, notes, native
    except Exception as error:  # a damaged file makes Pillow raise anything: KeyError, struct.error, MemoryError …
        return one_line(images.reason(error)), [], None
