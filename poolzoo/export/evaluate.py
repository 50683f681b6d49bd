"""The accuracy of a graph under ONNX Runtime: of a bundle, or of a run that is exported for it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.artifacts.run import load_run
from poolzoo.common import files, output
from poolzoo.common.errors import UsageError
from poolzoo.data import blocks
from poolzoo.data.unreadable import Skip
from poolzoo.metrics import classification
from poolzoo.train.evaluate import test_images

BATCH: Final = 64  # of images under ONNX Runtime, at most …
BATCH_BYTES: Final = 16 << 20  # … or as many as take so much in the precision of the graph


def evaluate_graph(
    path: str, data: str | None = None, provider: str = "auto", threads: int | None = None, skip: Skip = None
) -> dict[str, Any]:
    """The metrics of a graph under ONNX Runtime: of a bundle's, or of one made of a run and thrown away.

    Args:
        path: The directory of a bundle or of a run.
        data: A data set's name or `folder:PATH`; None for the run's own.
        provider: ONNX Runtime's: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: Of ONNX Runtime.
        skip: How many images that cannot be read may be left out.

    Raises:
        UsageError: There is no such directory, the data is unknown, or has classes that the network does not know.
        CheckFailed: It is incomplete or was altered, or cannot be exported.
    """
    from poolzoo.export import graph
    from poolzoo.export.source import from_run
    from poolzoo.runtime import ort_session

    directory, kept = Path(path), None
    with tempfile.TemporaryDirectory() as work:
        if manifest.kind(directory) == "bundle":
            manifest.check(directory, "bundle")
            file, config = directory / "model.onnx", files.read_json(directory / "config.json")
        else:
            run = load_run(path)
            kept = run.path
            file, config = Path(work) / "model.onnx", run.config
            output.say("exporting")
            graph.export_graph(from_run(run), file)
        model = ort_session.open_model(file, provider, threads)
    name = data or config["poolzoo"].get("data")
    if name is None:
        raise UsageError(f"{directory} does not say which data it is for", "name it with --data")
    images, labels, skipped = test_images(
        name, model.size, model.fit, skip, model.labels, tested_by=kept if data is None else None
    )
    parts, rows = [], blocks.Rows(images)
    at_once = min(BATCH, blocks.rows(4 * images[0].nbytes, BATCH_BYTES))
    with output.progress("evaluating", len(images)) as bar:
        for start in range(0, len(images), at_once):
            parts.append(model.run(rows[start : start + at_once])[0])
            bar.update(start + at_once)
    return {
        **classification.compute(np.concatenate(parts), labels, model.labels),
        "provider": model.provider,
        **skipped,
    }
