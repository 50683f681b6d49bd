"""A finished run on the images of a data set: its own test part, or others with the same classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from poolzoo.artifacts.run import load_run
from poolzoo.common.errors import UsageError
from poolzoo.data import source
from poolzoo.data.class_mismatch import alike, difference
from poolzoo.data.classes import require_names
from poolzoo.data.identity import FILE, DataIdentity, SplitIdentity, require_same
from poolzoo.data.image_facts import Facts
from poolzoo.data.resize import Fit
from poolzoo.data.sizes import Size
from poolzoo.data.unreadable import Skip, to_json
from poolzoo.metrics import classification
from poolzoo.train import device as devices
from poolzoo.train import inference
from poolzoo.train.settings import read_toml


def evaluate_run(
    path: str, data: str | None = None, device: str = "auto", threads: int | None = None, skip: Skip = None
) -> dict[str, Any]:
    """The metrics of a run on a test set.

    Args:
        path: The run directory.
        data: A data set's name or `folder:PATH`; None for the run's own.
        device: `auto`, `cpu` or `cuda`.
        threads: Of torch on the CPU.
        skip: How many images that cannot be read may be left out.

    Raises:
        UsageError: The data has classes that the run does not know, or the run knows one class only.
    """
    policy = devices.policy(device)
    devices.set_threads(threads)
    run = load_run(path)
    images, labels, skipped = test_images(
        data or run.config["poolzoo"]["data"],
        run.data_size,
        run.fit,
        skip,
        run.classes,
        tested_by=run.path if data is None else None,
    )
    policy.place(run.network)
    logits = inference.predict_logits(run.network, run.preprocess.to(policy.device), images, policy)
    return {**classification.compute(logits, labels, run.classes), **skipped}


def test_images(
    data: str, size: Size, how: Fit, skip: Skip, classes: list[str], *, tested_by: Path | None
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Test images as a network takes them, their labels by its classes, and what to report of files left out.

    Those that the run `tested_by` was tested on must be the same.
    """
    dataset = source.open_dataset(data, size, ("test",), exact=True, skip=skip, how=how)
    images, labels = source.load_split(dataset, "test", size)
    labels = _as_counted(classes, source.class_names(dataset, labels), labels)
    if tested_by is not None:
        _require_same(tested_by, source.facts_about(dataset, "test", images), labels)
    reader = source.reader(dataset)
    left_out = to_json(reader.skipped) if reader else []
    return images, labels, {"skipped": left_out} if left_out else {}


def _require_same(run: Path, facts: Facts, labels: np.ndarray) -> None:
    """Makes sure that the test images are those that a run was tested on.

    Raises:
        CheckFailed: They are not; says what changed.
    """
    kept = DataIdentity.load(run / FILE)
    if kept is None:
        return
    names, tested = facts.names, kept.splits["test"]
    if read_toml(run / "run.toml").get("limit") is not None:  # it was tested on a part of what is there
        if names is None or tested.names is None:
            return
        known = set(tested.names)
        part = np.array([name in known for name in names])
        names = tuple(name for name in names if name in known)
        facts, labels = Facts(facts.digests[part], None, names), labels[part]
    now = DataIdentity({"test": SplitIdentity(facts.digests, labels, names)}, kept.classes)
    require_same(kept, now, "--data measures the network on the images as they are now")


def _as_counted(classes: list[str], names: tuple[str, ...], labels: np.ndarray) -> np.ndarray:
    """The labels renumbered by the network's own names of the classes."""
    require_names("the network", classes)
    unknown = sorted(set(names) - set(classes))
    if unknown:
        near = [(name, known) for name in unknown for known in classes if alike(name, known)]
        told = difference("the data", [name for name, _ in near], "the run", [known for _, known in near])
        raise UsageError(
            f"the run does not know the class {', '.join(unknown[:5])}" + (f": {told}" if told else ""),
            f"its classes are: {', '.join(classes[:20])}",
        )
    return np.array([classes.index(name) for name in names])[labels]
