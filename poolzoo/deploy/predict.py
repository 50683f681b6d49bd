"""Labels for image files from a bundle. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poolzoo import bundle, output
from poolzoo.data import images
from poolzoo.deploy import runtime

BATCH = 64


def predict(
    directory: Path, files: Sequence[Path], *, top: int = 5, provider: str = "cpu", threads: int | None = None
) -> Iterator[dict[str, Any]]:
    """A row an image, in order: `{"file", "label", "score", "top"}`, or `{"file", "error"}` where it cannot be read.

    Raises:
        UsageError: There is no bundle.
        CheckFailed: The bundle is damaged.
    """
    bundle.check(directory, "bundle")
    model = runtime.open_model(directory / "model.onnx", provider, threads)
    for start in range(0, len(files), BATCH):
        yield from _batch(model, files[start : start + BATCH], top)


def _batch(model: runtime.Model, files: Sequence[Path], top: int) -> Iterator[dict[str, Any]]:
    pixels: dict[int, np.ndarray] = {}
    reasons: dict[int, str] = {}
    for index, file in enumerate(files):
        try:
            pixels[index] = images.read(file, model.size, model.fit)
        except images.Unreadable as error:
            strerror = getattr(error, "strerror", None)
            reasons[index] = output.one_line(strerror or str(error)) or type(error).__name__
    found = model.run(np.stack(list(pixels.values())))[1] if pixels else np.empty((0, 0))
    rows = dict(zip(pixels, found, strict=True))
    for index, file in enumerate(files):
        if index in rows:
            best = runtime.top(model.labels, rows[index], top)
            yield {"file": str(file), **best[0], "top": best}
        else:
            yield {"file": str(file), "error": reasons[index]}
