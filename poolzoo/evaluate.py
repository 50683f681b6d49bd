"""A finished run on the images of a data set: its own test part, or others with the same classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from poolzoo import metrics
from poolzoo.data import source
from poolzoo.errors import UsageError
from poolzoo.runs import Run, load_run
from poolzoo.train import device as devices


def evaluate_run(
    path: str, data: str | None = None, device: str = "auto", threads: int | None = None
) -> dict[str, Any]:
    """The metrics of a run on a test set.

    Args:
        path: The run directory.
        data: A data set's name or `folder:PATH`; None for the run's own.
        device: `auto`, `cpu` or `cuda`.
        threads: Of torch on the CPU.

    Raises:
        UsageError: The data has classes that the run does not know.
    """
    policy = devices.policy(device)
    if threads is not None:
        torch.set_num_threads(threads)
    run = load_run(path)
    dataset = source.open_dataset(data or run.config["poolzoo"]["data"], run.data_size, ("test",))
    images, labels = source.load_split(dataset, "test", run.data_size)
    labels = _as_the_run_counts(run, source.class_names(dataset, labels), labels)
    policy.place(run.network)
    logits = metrics.predict_logits(run.network, run.preprocess.to(policy.device), images, policy)
    return metrics.compute(logits, labels, run.classes)


def _as_the_run_counts(run: Run, names: tuple[str, ...], labels: np.ndarray) -> np.ndarray:
    """The labels renumbered by the run's own names of the classes."""
    unknown = sorted(set(names) - set(run.classes))
    if unknown:
        raise UsageError(
            f"the run does not know the class {', '.join(unknown[:5])}",
            f"its classes are: {', '.join(run.classes[:20])}",
        )
    return np.array([run.classes.index(name) for name in names])[labels]
