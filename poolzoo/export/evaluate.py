"""Tests a graph under ONNX Runtime: that of a bundle, or one exported from a run for this purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.artifacts import manifest, reading
from poolzoo.artifacts.run import load_run
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.common.temporary import temporary_folder
from poolzoo.data import blocks
from poolzoo.data.streaming.images import batches
from poolzoo.data.unreadable import Skip
from poolzoo.metrics import evaluation, reliability
from poolzoo.train.evaluate import Evaluation, load_test_images, test_part

BATCH: Final = 64  # images under ONNX Runtime, at most …
BATCH_BYTES: Final = 16 << 20  # … or as many as take so much as float32


def evaluate_graph(
    path: str,
    data: str | None = None,
    provider: str = "auto",
    threads: int | None = None,
    skip: Skip = None,
    test_fraction: float | None = None,
) -> Evaluation:
    """Tests a graph under ONNX Runtime.

    Args:
        path: The directory of a bundle, or of a run, which is exported to a temporary file.
        data: A data set's name or `folder:PATH`; None for that of the run.
        provider: ONNX Runtime's execution provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: Number of ONNX Runtime's threads; None for its default.
        skip: How many unreadable images to leave out at most: a number or "all"; None for as many as the run allowed of
            its own images, and none of others or for a bundle.
        test_fraction: The share of the images of `data` to test on, where it has no test part.

    Raises:
        UsageError: There is no such directory, or the data is unknown or has classes that the network does not know.
        CheckFailed: The directory is incomplete or was changed, or the run cannot be exported.
    """
    from poolzoo.export import graph
    from poolzoo.export.source import from_run
    from poolzoo.runtime import ort_session

    directory, run_path = Path(path), None
    with temporary_folder() as temporary:
        if manifest.kind(directory) == "bundle":
            manifest.check(directory, "bundle")
            file, config = directory / "model.onnx", reading.read_bundle_config(directory)
        else:
            run = load_run(path)
            run_path, config = run.path, run.config
            file = temporary / "model.onnx"
            output.say("exporting")
            graph.export_graph(from_run(run), file)
        model = ort_session.open_model(file, provider, threads)
    name = data or config["poolzoo"].get("data")
    if name is None:
        raise UsageError(f"{directory} does not name the data it was trained on", "name it with --data")
    test = load_test_images(
        name,
        size=model.size,
        fit=model.fit,
        skip=skip,
        classes=model.labels,
        decision=model.decision,
        tested_run=run_path if data is None else None,
        test_part=test_part(config["poolzoo"], data, test_fraction),
    )
    count = len(test.images)
    batch_size = min(BATCH, blocks.rows(4 * blocks.row_bytes(test.images), BATCH_BYTES))
    parts = []
    with output.progress("evaluating", count) as bar:
        for batch in batches(test.images, np.arange(count), batch_size):
            parts.append(model.run(batch)[0])
            bar.update(batch_size * len(parts))
    logits = np.concatenate(parts)
    return Evaluation(
        metrics=evaluation.compute(logits, test.labels, model.labels, model.decision),
        reliability=reliability.measure(logits, test.labels, model.decision),
        skipped=test.skipped,
        provider=model.provider,
    )
