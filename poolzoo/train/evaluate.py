"""Tests a finished run on images: on its own test split, or on other data with the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from poolzoo.artifacts.run import load_run
from poolzoo.artifacts.schema import NetworkConfig
from poolzoo.common.errors import UsageError
from poolzoo.data import source
from poolzoo.data.blocks import ImageArray
from poolzoo.data.class_mismatch import alike, difference
from poolzoo.data.classes import require_names
from poolzoo.data.held_out import HeldOut
from poolzoo.data.identity import FILE, DataIdentity, SplitIdentity, file_digests, require_same
from poolzoo.data.image_facts import Facts
from poolzoo.data.labels import require_task
from poolzoo.data.resize import Fit
from poolzoo.data.sizes import Size
from poolzoo.data.streaming.splits import Loaded, load_split
from poolzoo.data.unreadable import Skip, to_json
from poolzoo.metrics import evaluation, reliability
from poolzoo.metrics.decisions import ONE_LABEL, Decision
from poolzoo.metrics.reliability import ReliabilityChange
from poolzoo.metrics.results import AnyMetrics
from poolzoo.train import device as devices
from poolzoo.train import inference
from poolzoo.train.settings_file import read_toml

LISTED_UNKNOWN = 5  # unknown classes that a message names
LISTED_KNOWN = 20  # classes of the network that a hint names


@dataclass(frozen=True)
class Evaluation:
    """What a trained network achieves on test images.

    Attributes:
        metrics: The metrics, of calibrated probabilities where the network has a calibration.
        reliability: How far the probabilities can be believed, before calibration and after; None where no logits are
            finite.
        skipped: Images that could not be read, each with `file` and `error`.
        provider: ONNX Runtime's execution provider; None if torch ran the network.
    """

    metrics: AnyMetrics
    reliability: ReliabilityChange | None = None
    skipped: tuple[Mapping[str, str], ...] = ()
    provider: str | None = None

    def to_json(self) -> dict[str, object]:
        """The object that `poolzoo evaluate --json` prints."""
        provider = {} if self.provider is None else {"provider": self.provider}
        skipped = {"skipped": [dict(row) for row in self.skipped]} if self.skipped else {}
        reliable = {} if self.reliability is None else {"reliability": self.reliability.to_json()}
        return {**self.metrics.to_json(), **reliable, **provider, **skipped}


@dataclass(frozen=True)
class LabeledImages:
    """Test images as a network takes them.

    Attributes:
        images: `uint8[N, h, w, 3]`; perhaps decoded when asked.
        labels: By the classes of the network, `int64[N]`, or `uint8[N, K]` for several labels.
        skipped: Images that could not be read, each with `file` and `error`.
    """

    images: ImageArray
    labels: np.ndarray
    skipped: tuple[Mapping[str, str], ...]


def evaluate_run(
    path: str,
    data: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    skip: Skip = None,
    test_fraction: float | None = None,
) -> Evaluation:
    """Tests the network of a run with torch.

    Args:
        path: The run directory.
        data: A data set's name or `folder:PATH`; None for the run's own.
        device: `auto`, `cpu` or `cuda`.
        threads: Number of torch threads on the CPU; None for torch's default.
        skip: How many unreadable images to leave out at most: a number or "all"; None for as many as the run allowed of
            its own images, and none of others.
        test_fraction: The share of the images of `data` to test on, where it has no test part.

    Raises:
        UsageError: The data has classes that the run does not know, or the run has only one class.
        CheckFailed: The run is incomplete, or its own test images changed.
    """
    policy = devices.policy(device)
    devices.set_threads(threads)
    run = load_run(path)
    test = load_test_images(
        data or run.config["poolzoo"]["data"],
        size=run.data_size,
        fit=run.fit,
        skip=skip,
        classes=run.classes,
        decision=run.decision,
        tested_run=run.path if data is None else None,
        test_part=test_part(run.config["poolzoo"], data, test_fraction),
    )
    policy.place(run.network)
    logits = inference.predict_logits(run.network, run.preprocess.to(policy.device), test.images, policy)
    metrics = evaluation.compute(logits, test.labels, run.classes, run.decision)
    found = reliability.measure(logits, test.labels, run.decision)
    return Evaluation(metrics=metrics, reliability=found, skipped=test.skipped)


def test_part(recorded: NetworkConfig, data: str | None, fraction: float | None) -> HeldOut | None:
    """Which images of data are test images: those of `--test-fraction`, or of the run's own data the recorded ones.

    Args:
        recorded: What the run or bundle recorded of its data.
        data: What `--data` named; None for the run's own.
        fraction: The value of `--test-fraction`, if it was given.

    Raises:
        UsageError: The own data is to be divided in another way, so that training images would be test images.
    """
    own = recorded.get("test_part")
    if data is not None:
        return None if fraction is None else HeldOut(fraction)
    if fraction is not None and (own is None or own["fraction"] != fraction):
        kept = "has a test part" if own is None else f"held out {own['fraction']:g} of its images"
        raise UsageError(f"--test-fraction {fraction:g}: the run {kept}", "leave --test-fraction out, or give --data")
    return None if own is None else HeldOut(own["fraction"], own["seed"])


def load_test_images(
    data: str,
    size: Size,
    fit: Fit,
    skip: Skip,
    classes: Sequence[str],
    *,
    decision: Decision = ONE_LABEL,
    tested_run: Path | None,
    test_part: HeldOut | None = None,
) -> LabeledImages:
    """Reads the test images of a data set for a trained network.

    Args:
        data: A data set's name or `folder:PATH`.
        size: Height and width that the network takes.
        fit: How images are brought to that size.
        skip: How many unreadable images to leave out at most: a number or "all"; None for as many as the tested run
            allowed, and none without one.
        classes: Classes of the network.
        decision: How its logits become labels.
        tested_run: A run that was tested on these images, which must not have changed; None for other data.
        test_part: Which of the training images are test images; None where the data has test images.

    Raises:
        UsageError: The data has classes that the network does not know.
        CheckFailed: The images of the tested run changed.
    """
    multilabel = decision.task.is_multilabel
    if skip is None and tested_run is not None:
        skip = read_toml(tested_run / "run.toml").get("skip_broken")
    dataset = source.open_dataset(
        data, size, ("test",), multilabel=multilabel, exact=True, skip=skip, how=fit, test_part=test_part
    )
    found = load_split(dataset, "test", size)
    require_task(data, "test", found.labels, multilabel=multilabel)
    labels = _renumber_labels(found.labels, source.class_names(dataset, found.labels), classes)
    if tested_run is not None:
        _require_unchanged(tested_run, found, labels)
    reader = source.reader(dataset)
    skipped = tuple(to_json(reader.skipped)) if reader else ()
    return LabeledImages(images=found.images, labels=labels, skipped=skipped)


def _require_unchanged(run: Path, found: Loaded, labels: np.ndarray) -> None:
    """Makes sure that test images are those that a run was tested on.

    Args:
        run: The run directory.
        found: The images.
        labels: Of the images, `int64[N]`.

    Raises:
        CheckFailed: They changed.
    """
    known = DataIdentity.load(run / FILE)
    if known is None:
        return
    facts, tested = found.facts, known.test
    if tested.of_files and not facts.of_files and found.index is not None:  # as a run that streamed its images
        facts = Facts(file_digests(found.index), None, found.index.names, of_files=True)
    names = facts.names
    if read_toml(run / "run.toml").get("limit") is not None:  # the run was tested on a part of the images
        if names is None or tested.names is None:
            return
        tested_names = set(tested.names)
        part = np.array([name in tested_names for name in names])
        names = tuple(name for name in names if name in tested_names)
        facts, labels = replace(facts, digests=facts.digests[part]), labels[part]
    now = DataIdentity({"test": SplitIdentity(facts.digests, labels, names, facts.of_files)}, known.classes)
    require_same(known, now, "give --data to test on the images as they are now")


def _renumber_labels(labels: np.ndarray, names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Labels by the classes of the network, `int64[N]`, or `uint8[N, K]` for several labels.

    A label that the data does not have is on none of its images.

    Args:
        labels: Of the images, by the classes of the data, `int64[N]`, or `uint8[N, K]` for several labels.
        names: Classes of the data.
        classes: Classes of the network.

    Raises:
        UsageError: The data has classes that the network does not know.
    """
    if labels.ndim == 1:
        require_names("the network", classes)
    unknown = sorted(set(names) - set(classes))
    if unknown:
        similar = [(name, known) for name in unknown for known in classes if alike(name, known)]
        explained = difference("the data", [name for name, _ in similar], "the run", [known for _, known in similar])
        raise UsageError(
            f"the run does not know the class {', '.join(unknown[:LISTED_UNKNOWN])}"
            + (f": {explained}" if explained else ""),
            f"its classes are: {', '.join(classes[:LISTED_KNOWN])}",
        )
    known = {name: place for place, name in enumerate(classes)}
    places = np.array([known[name] for name in names])
    if labels.ndim == 1:
        renumbered: np.ndarray = places[labels]
        return renumbered
    columns = np.zeros((len(labels), len(classes)), np.uint8)
    columns[:, places] = labels
    return columns
