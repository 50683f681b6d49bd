"""Labels for image files from a bundle. Needs no torch."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolzoo import bundle, output, resources
from poolzoo.data import images
from poolzoo.deploy import runtime
from poolzoo.errors import UsageError

BATCH: Final = 64
THREADS: Final = 4  # that read images while the graph runs; with photographs of 24 megapixels they take 1.2 GB


def image_files(folder: Path) -> list[Path]:
    """The image files in a folder and in its folders, sorted; hidden ones and files of other kinds are ignored.

    A folder within that may not be read and a link that leads nowhere are among them, and become rows with an error.

    Raises:
        UsageError: There are none.
    """
    found: list[Path] = []

    def refused(error: OSError) -> None:
        found.append(Path(error.filename))

    for place, folders, names in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if name[0] != "."]
        paths = [Path(place, name) for name in names if name[0] != "."]
        found += [path for path in paths if path.suffix.lower() in images.extensions() and not _waits(path)]
    if not found:
        raise UsageError(f"folder {folder} holds no image", "name files, or a folder that holds some")
    return sorted(found)


def _waits(path: Path) -> bool:
    """Whether it is a pipe, a socket or a device, which to read may take for ever."""
    return os.path.exists(path) and not os.path.isfile(path)  # unlike Path's, they are False where it is forbidden


def predict(
    directory: Path,
    files: Sequence[Path],
    *,
    top: int = 5,
    provider: str = "cpu",
    threads: int | None = None,
    explain_to: Path | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Opens a bundle and labels image files, a batch at a time.

    Args:
        directory: The bundle.
        files: The images.
        top: Classes to name an image.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: To compute with; None for ONNX Runtime's own choice.
        explain_to: A directory for pictures of where the network looked; None for no pictures.

    Returns:
        A row an image, in order, as they become known: `{"file", "label", "score", "top"}`, with a picture also
        `"explain"`, its path, and `"method"`; or `{"file", "error"}` where it cannot be read.

    Raises:
        UsageError: There is no bundle, or no place for a picture, or no map to draw.
        CheckFailed: The bundle is damaged.
    """
    bundle.check(directory, "bundle")
    model = runtime.open_model(directory / "model.onnx", provider, threads)
    if explain_to is None:
        return _rows(model, files, top)
    from poolzoo.deploy.explain import Explainer, pictures

    return _rows(model, files, top, Explainer(directory, model, threads, pictures(files, explain_to)).draw)


Draw = Callable[..., dict[str, Any]]  # `Explainer.draw`


def _rows(
    model: runtime.Model, files: Sequence[Path], top: int, draw: Draw | None = None
) -> Generator[dict[str, Any], None, None]:
    labels, size, fit = model.labels, model.size, model.fit
    pool = ThreadPoolExecutor(min(THREADS, 2 * resources.cpus()))

    def start(at: int) -> list[Future[np.ndarray | str]]:
        return [pool.submit(_read, file, size, fit) for file in files[at : at + BATCH]]

    with _quiet_pillow():
        try:
            coming = start(0)
            for at in range(0, len(files), BATCH):
                now, coming = coming, start(at + BATCH)  # the next ones are read while the graph runs
                found = [future.result() for future in now]
                pixels = [one for one in found if isinstance(one, np.ndarray)]
                chances = iter(model.run(np.stack(pixels))[1] if pixels else ())
                for file, one in zip(files[at : at + BATCH], found, strict=True):
                    if isinstance(one, str):
                        yield {"file": str(file), "error": one}
                    else:
                        chance = next(chances)
                        best = runtime.top(labels, chance, top)
                        drawn = draw(file, one, int(chance.argmax()), **best[0]) if draw else {}
                        yield {"file": str(file), **best[0], "top": best, **drawn}
        finally:
            pool.shutdown(cancel_futures=True)


def _read(file: Path, size: tuple[int, int], fit: images.Fit) -> np.ndarray | str:
    """The pixels of an image, `uint8[H, W, 3]`, or why there are none."""
    try:
        return images.read(file, size, fit)
    except Exception as error:  # a damaged file makes Pillow raise anything: KeyError, struct.error, MemoryError …
        return output.one_line(images.reason(error))


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keeps to itself what Pillow says of odd images: one is either read or a row with an error."""
    logger, nowhere = logging.getLogger("PIL"), logging.NullHandler()
    logger.addHandler(nowhere)
    try:
        with warnings.catch_warnings(action="ignore"), _stderr_for_python():
            yield
    finally:
        logger.removeHandler(nowhere)


@contextmanager
def _stderr_for_python() -> Iterator[None]:
    """Moves Python's stderr to a descriptor of its own, while 2, which libtiff writes to, leads nowhere."""
    try:
        shared = sys.stderr.fileno() == 2
    except (OSError, ValueError):  # it is closed, or no file
        shared = False
    if not shared:
        yield
        return
    sys.stderr.flush()
    encoding = sys.stderr.encoding
    with (
        open(os.dup(2), "w", buffering=1, encoding=encoding, errors="backslashreplace") as ours,
        open(os.devnull, "w") as nowhere,
    ):
        os.dup2(nowhere.fileno(), 2)
        try:
            with redirect_stderr(ours):
                yield
        finally:
            ours.flush()
            os.dup2(ours.fileno(), 2)
