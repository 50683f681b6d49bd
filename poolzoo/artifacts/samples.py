"""Arrays that a run keeps: sample images with labels, logits of validation images, predictions of test images."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common import files
from poolzoo.common.errors import CheckFailed
from poolzoo.data import blocks
from poolzoo.data.blocks import ImageArray

TRAIN_SAMPLES: Final = 512  # images kept in samples.npz …
TEST_SAMPLES: Final = 1024
MAX_BYTES: Final = 64 << 20  # … or fewer, so that they stay within 64 MB; so do the logits of the validation images
VALIDATION: Final = "validation.npz"
TEST: Final = "test.npz"  # the same of the test images, on which thresholds are measured


def samples_bytes(
    train: tuple[ImageArray, np.ndarray],
    train_indices: np.ndarray,
    test: tuple[ImageArray, np.ndarray],
) -> bytes:
    """`samples.npz`: some images with their labels, so that the network can be exported where the data is gone.

    Args:
        train: Images `uint8[N, H, W, 3]` and labels `int[N]` of the training split.
        train_indices: Indices of those that the network was trained on.
        test: Images and labels of the test split.
    """
    fraction = min(1.0, MAX_BYTES / ((TRAIN_SAMPLES + TEST_SAMPLES) * blocks.row_bytes(train[0])))
    arrays: dict[str, np.ndarray] = {}
    for name, (images, labels), indices, count in (
        ("train", train, train_indices, TRAIN_SAMPLES),
        ("test", test, np.arange(len(test[0])), TEST_SAMPLES),
    ):
        order = np.random.default_rng(0).permutation(len(indices))
        rows = np.sort(indices[order[: max(1, int(fraction * count))]])
        arrays[f"{name}_images"] = blocks.gather(images, rows)
        arrays[f"{name}_labels"] = labels[rows]
    buffer = io.BytesIO()
    # Photographs hardly shrink: the fastest level takes a quarter of the time of numpy's.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return buffer.getvalue()


def load_samples(path: Path) -> dict[str, np.ndarray]:
    """What `samples_bytes` keeps: `train_images`, `train_labels`, `test_images` and `test_labels`.

    Raises:
        CheckFailed: The file is missing or damaged.
    """
    names = [f"{split}_{what}" for split in ("train", "test") for what in ("images", "labels")]
    found = files.read_arrays(path, names)
    for pixels, labels, name in zip(found[::2], found[1::2], names[::2], strict=True):
        sound = pixels.ndim == 4 and pixels.shape[3] == 3 and pixels.dtype == np.uint8 and pixels.size
        if not sound or labels.ndim not in (1, 2) or len(labels) != len(pixels) or labels.dtype.kind not in "iu":
            shown = f"{pixels.dtype}{list(pixels.shape)} with labels {labels.dtype}{list(labels.shape)}"
            raise CheckFailed(f"{path} is damaged: {name} are {shown}", "train the run again")
    return dict(zip(names, found, strict=True))


def save_predictions(path: Path, predicted: np.ndarray, labels: np.ndarray) -> None:
    """Keeps the predicted class of every test image, in the data's order. Comparisons read them.

    Args:
        path: The file, `predictions.npz`.
        predicted: Classes, `int[N]`, or which labels an image gets, `bool[N, K]`.
        labels: True classes, `int[N]`, or which labels it has, `uint8[N, K]`.
    """
    kind = np.uint8 if labels.ndim == 2 else np.int32
    buffer = io.BytesIO()
    np.savez_compressed(buffer, predicted=predicted.astype(kind), labels=labels.astype(kind))
    files.write_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class ValidationLogits:
    """What a run with its best weights says of its validation images, on which calibration and thresholds are chosen.

    The logits of the test images have the same form.

    Attributes:
        logits: As the network gives them, not calibrated, `float32[N, C]`.
        labels: True classes, `int64[N]`, or which labels an image has, `uint8[N, C]`.
    """

    logits: np.ndarray
    labels: np.ndarray


def validation_bytes(validation: ValidationLogits) -> bytes:
    """The content of `validation.npz` or `test.npz`: all images, or as many as 64 MB hold, chosen with a fixed seed.

    Args:
        validation: Logits and labels, in the data's order.
    """
    logits, labels = validation.logits.astype(np.float32), validation.labels
    most = max(1, MAX_BYTES // (4 * logits.shape[1]))
    if len(logits) > most:
        kept = np.sort(np.random.default_rng(0).permutation(len(logits))[:most])
        logits, labels = logits[kept], labels[kept]
    buffer = io.BytesIO()
    np.savez(buffer, logits=logits, labels=labels.astype(np.uint8 if labels.ndim == 2 else np.int32))
    return buffer.getvalue()


def load_validation(run: Path) -> ValidationLogits | None:
    """What a run directory keeps in `validation.npz`; None in a run of an earlier version, which kept nothing.

    Raises:
        CheckFailed: The file is damaged.
    """
    return _load_logits(run / VALIDATION)


def load_test(run: Path) -> ValidationLogits | None:
    """What a run directory keeps in `test.npz`; None in a run of an earlier version, which kept nothing.

    Raises:
        CheckFailed: The file is damaged.
    """
    return _load_logits(run / TEST)


def _load_logits(path: Path) -> ValidationLogits | None:
    if not files.has_file(path):
        return None
    logits, labels = files.read_arrays(path, ["logits", "labels"])
    if logits.ndim != 2 or not logits.size or logits.dtype.kind != "f" or not _are_labels(labels, logits.shape):
        shown = f"logits {logits.dtype}{list(logits.shape)}, labels {labels.dtype}{list(labels.shape)}"
        raise CheckFailed(f"{path} is damaged: {shown}", "train the run again")
    return ValidationLogits(logits=logits, labels=labels if labels.ndim == 2 else labels.astype(np.int64))


def _are_labels(labels: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether an array has a class of each image, or says which labels it has, for logits of a shape [N, C]."""
    if labels.dtype.kind not in "iu" or labels.shape not in (shape, shape[:1]):
        return False
    return bool(labels.min() >= 0 and labels.max() < (shape[1] if labels.ndim == 1 else 2))
