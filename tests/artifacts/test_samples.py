"""Arrays that a run keeps: which images, with which labels, in which types, and what a damaged file says."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from poolzoo.artifacts import samples
from poolzoo.artifacts.samples import ValidationLogits
from poolzoo.common.errors import CheckFailed

RANDOM = np.random.default_rng(0)


def split(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose first pixel is their number modulo 251, and whose label is that number."""
    images = np.zeros((count, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(count) % 251
    return images, np.arange(count)


def kept(tmp_path: Path, train: int, indices: np.ndarray, test: int) -> dict[str, np.ndarray]:
    path = tmp_path / "samples.npz"
    path.write_bytes(samples.samples_bytes(split(train), indices, split(test)))
    with np.load(path, allow_pickle=False) as opened:
        arrays = {name: opened[name] for name in opened.files}
    loaded = samples.load_samples(path)
    assert loaded.keys() == arrays.keys() == {"train_images", "train_labels", "test_images", "test_labels"}
    assert all(np.array_equal(arrays[name], loaded[name]) for name in arrays)
    return arrays


def test_few_images_are_all_kept_with_their_labels(tmp_path):
    indices = np.array([1, 4, 5])
    arrays = kept(tmp_path, train=8, indices=indices, test=5)
    assert arrays["train_labels"].tolist() == [1, 4, 5]
    assert arrays["test_labels"].tolist() == [0, 1, 2, 3, 4]
    for name in ("train", "test"):
        assert np.array_equal(arrays[f"{name}_images"][:, 0, 0, 0], arrays[f"{name}_labels"])


def test_of_many_images_some_are_kept_in_order(tmp_path):
    arrays = kept(tmp_path, train=2000, indices=np.arange(500, 2000), test=3000)
    assert (len(arrays["train_labels"]), len(arrays["test_labels"])) == (512, 1024)
    for name, first in (("train", 500), ("test", 0)):
        labels = arrays[f"{name}_labels"]
        assert (np.diff(labels) > 0).all()
        assert labels[0] >= first
        assert np.array_equal(arrays[f"{name}_images"][:, 0, 0, 0], labels % 251)
    assert (
        kept(tmp_path, train=2000, indices=np.arange(500, 2000), test=3000)["test_labels"].tolist() == labels.tolist()
    )


def test_predictions_keep_classes_or_a_flag_for_each_label(tmp_path):
    path = tmp_path / "predictions.npz"
    samples.save_predictions(path, np.array([2, 70_000]), np.array([1, 0]))
    with np.load(path) as found:
        assert (found["predicted"].tolist(), found["labels"].tolist()) == ([2, 70_000], [1, 0])
        assert found["predicted"].dtype == found["labels"].dtype == np.int32
    samples.save_predictions(path, np.array([[True, False]]), np.array([[0, 1]], np.uint8))
    with np.load(path) as found:
        assert (found["predicted"].tolist(), found["labels"].tolist()) == ([[1, 0]], [[0, 1]])
        assert found["predicted"].dtype == found["labels"].dtype == np.uint8
    with zipfile.ZipFile(path) as archive:
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_DEFLATED}


LABELS = {"one": np.arange(6) % 3, "many": RANDOM.integers(0, 2, (6, 3)).astype(np.uint8)}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_logits_come_back_as_they_were(tmp_path, labels):
    logits = RANDOM.standard_normal((6, 3))
    for name, load in (("validation.npz", samples.load_validation), ("test.npz", samples.load_test)):
        assert load(tmp_path) is None
        (tmp_path / name).write_bytes(samples.validation_bytes(ValidationLogits(logits, labels)))
        found = load(tmp_path)
        assert np.array_equal(found.logits, logits.astype(np.float32))
        assert np.array_equal(found.labels, labels)
        assert (found.logits.dtype, found.labels.dtype) == (np.float32, np.uint8 if labels.ndim == 2 else np.int64)


def test_more_logits_than_their_limit_are_a_sample_in_order(monkeypatch):
    monkeypatch.setattr(samples, "MAX_BYTES", 16 * 4 * 3)  # 16 rows of 3 logits
    logits = np.broadcast_to(np.arange(20.0)[:, None], (20, 3))
    content, again = (samples.validation_bytes(ValidationLogits(logits, np.arange(20))) for _ in range(2))
    assert content == again
    with np.load(io.BytesIO(content)) as found:
        labels = found["labels"]
        assert np.array_equal(found["logits"][:, 0], labels)
    assert len(labels) == 16
    assert (np.diff(labels) > 0).all()


@pytest.mark.parametrize(
    ("logits", "labels"), [((3,), (3,)), ((3, 2), (2,)), ((3, 2), (3, 4)), ((3, 2), (2, 2))], ids=str
)
def test_logits_whose_shapes_do_not_fit_are_refused(tmp_path, logits, labels):
    np.savez(tmp_path / "test.npz", logits=np.zeros(logits, np.float32), labels=np.zeros(labels, np.int32))
    with pytest.raises(CheckFailed) as caught:
        samples.load_test(tmp_path)
    shapes = f"logits float32{[*logits]}, labels int32{[*labels]}"
    assert caught.value.message == f"{tmp_path / 'test.npz'} is damaged: {shapes}"
    assert caught.value.hint == "train the run again"


ODD = {
    "a single number": {"test_labels": np.array(3)},
    "labels that are no integers": {"test_labels": np.zeros(3)},
    "labels of three axes": {"test_labels": np.zeros((3, 1, 1), int)},
    "too few labels": {"test_labels": np.zeros(2, int)},
    "gray images": {"test_images": np.zeros((3, 2, 2, 1), np.uint8)},
    "images of floats": {"test_images": np.zeros((3, 2, 2, 3), np.float32)},
    "images of no pixels": {"test_images": np.zeros((3, 0, 2, 3), np.uint8)},
    "one image": {"test_images": np.zeros((2, 2, 3), np.uint8)},
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_samples_of_another_form_are_refused(tmp_path, change):
    arrays = {**kept(tmp_path, train=3, indices=np.arange(3), test=3), **change}
    np.savez(tmp_path / "samples.npz", **arrays)
    with pytest.raises(CheckFailed) as caught:
        samples.load_samples(tmp_path / "samples.npz")
    pixels, labels = arrays["test_images"], arrays["test_labels"]
    shown = f"{pixels.dtype}{[*pixels.shape]} with labels {labels.dtype}{[*labels.shape]}"
    assert caught.value.message == f"{tmp_path / 'samples.npz'} is damaged: test_images are {shown}"
    assert caught.value.hint == "train the run again"


def test_samples_may_have_several_labels(tmp_path):
    arrays = kept(tmp_path, train=3, indices=np.arange(3), test=3)
    several = {**arrays, "test_labels": np.eye(3, 4, dtype=np.uint8)}
    np.savez(tmp_path / "samples.npz", **several)
    assert np.array_equal(samples.load_samples(tmp_path / "samples.npz")["test_labels"], several["test_labels"])
