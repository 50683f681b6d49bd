"""Labels for image files from a bundle. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.common import output, resources
from poolzoo.common.errors import UsageError
from poolzoo.data import images, pillow_warnings, sizes, walk
from poolzoo.data.decode import Misfits, size_in
from poolzoo.data.paths import Paths
from poolzoo.data.sizes import Size
from poolzoo.runtime import ort_session

BATCH: Final = 64
NOT_FINITE: Final = "the network gives NaN or infinity for it"  # the error of an image that can be read
THREADS: Final = 4  # that read images while the graph runs; with photographs of 24 megapixels they take 1.2 GB


def image_files(folder: Path | str, tally: walk.Tally) -> Paths:
    """The image files in a folder and in its folders, sorted; of a data set those that training reads.

    A folder within that may not be read is among them, and becomes a row with an error.

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


Draw = Callable[..., dict[str, Any]]  # of a file, its pixels, its class and its best label: keys for its row
Annotate = Callable[[ort_session.OnnxModel], Draw]


def predict(
    directory: Path,
    files: Sequence[str],
    *,
    top: int = 5,
    provider: str = "cpu",
    threads: int | None = None,
    annotate: Annotate | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Opens a bundle and labels image files, a batch at a time.

    Args:
        directory: The bundle.
        files: The images' paths.
        top: Classes to name an image.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: To compute with; None for ONNX Runtime's own choice.
        annotate: Given the opened graph, returns a function that adds keys to the row of each image with a label,
            such as the path of a picture of where the network looked.

    Returns:
        A row an image, in order, as they become known: `{"file", "label", "score", "top"}` and what `annotate` adds;
        or `{"file", "error"}` where it cannot be read, or has no label (`NOT_FINITE`).

    Raises:
        UsageError: There is no bundle.
        CheckFailed: The bundle is damaged.
    """
    manifest.check(directory, "bundle")
    model = ort_session.open_model(directory / "model.onnx", provider, threads)
    return _rows(model, files, top, annotate(model) if annotate else None)


def _rows(
    model: ort_session.OnnxModel, files: Sequence[str], top: int, draw: Draw | None = None
) -> Generator[dict[str, Any], None, None]:
    labels, size, fit = model.labels, model.size, model.fit
    pool, misfits, cuts = ThreadPoolExecutor(min(THREADS, 2 * resources.cpus())), Misfits(), _Cuts(size)

    def start(at: int) -> list[Future[Read]]:
        return [pool.submit(_read, Path(file), size, fit) for file in files[at : at + BATCH]]

    with pillow_warnings.pillow():
        try:
            coming = start(0)
            for at in range(0, len(files), BATCH):
                now, coming = coming, start(at + BATCH)  # the next ones are read while the graph runs
                found = [future.result() for future in now]
                pixels = [one for one, *_ in found if isinstance(one, np.ndarray)]
                chances = iter(model.run(np.stack(pixels))[1] if pixels else ())
                for file, (one, notes, native) in zip(files[at : at + BATCH], found, strict=True):
                    misfits.add(Path(file), notes)
                    if isinstance(one, str):
                        yield {"file": file, "error": one}
                    else:
                        cuts.add(native)
                        chance = next(chances)
                        if not np.isfinite(chance).all():  # there is no largest among them
                            yield {"file": file, "error": NOT_FINITE}
                            continue
                        best = ort_session.top(labels, chance, top)
                        drawn = draw(Path(file), one, int(chance.argmax()), **best[0]) if draw else {}
                        yield {"file": file, **best[0], "top": best, **drawn}
        finally:
            pool.shutdown(cancel_futures=True)
    misfits.warn(len(files), "images")
    cuts.say(len(files))


class _Cuts:
    """Images of another aspect than the network's: how many, and how much of them it does not see at most."""

    def __init__(self, size: Size) -> None:
        self.size, self.count, self.share = size, 0, 0.0

    def add(self, native: Size | None) -> None:
        share = sizes.cut(native, self.size)[1] if native is not None else 0.0
        if share >= sizes.LEAST_CUT:
            self.count, self.share = self.count + 1, max(self.share, share)

    def say(self, total: int) -> None:
        if self.count:
            text = f"{self.count:,} of {total:,} images are not of the aspect {sizes.show(self.size)}"
            output.say(f"{text}: up to {100 * self.share:.0f} % of a side is cut off")


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
        return output.one_line(images.reason(error)), [], None
