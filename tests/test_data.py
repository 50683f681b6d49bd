"""Images to arrays: data sets, folders, damaged files, and batches that are cropped and flipped on the device."""

from __future__ import annotations

import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from poolzoo.data import batches, cifar, digits, folder, images, source
from poolzoo.errors import CheckFailed, EnvironmentProblem, PluginFailed, UsageError
from poolzoo.spec import Dataset

# --- Image files ---------------------------------------------------------------------------------------------------


def stored(tmp_path: Path, image: Image.Image, name: str = "x.png", **rest) -> np.ndarray:
    image.save(tmp_path / name, **rest)
    return images.read(tmp_path / name)


def test_grey_is_repeated_and_alpha_lies_on_white(tmp_path):
    grey = stored(tmp_path, Image.fromarray(np.array([[0, 100], [200, 255]], np.uint8)))
    np.testing.assert_array_equal(grey, np.repeat(np.array([[0, 100], [200, 255]])[..., None], 3, -1))
    clear = stored(tmp_path, Image.new("RGBA", (2, 2), (255, 0, 0, 0)))
    assert (clear == 255).all()
    half = stored(tmp_path, Image.new("RGBA", (2, 2), (0, 0, 0, 128)))
    assert abs(int(half[0, 0, 0]) - 127) <= 1


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    wide = np.array([[0, 257], [257 * 128, 65535]], np.uint16)
    found = stored(tmp_path, Image.fromarray(wide))
    np.testing.assert_array_equal(found[..., 0], [[0, 1], [128, 255]])


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[:, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270° to see it upright
    found = stored(tmp_path, Image.fromarray(pixels), "x.png", exif=exif)
    assert found.shape == (4, 2, 3)
    assert (found[0] == 255).all()


@pytest.mark.parametrize("mode", ["P", "CMYK", "LA", "1", "L"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = "x.tif" if mode == "CMYK" else "x.png"
    found = stored(tmp_path, Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode), suffix)
    assert found.shape == (2, 3, 3)
    assert found.min() >= 250


def test_fitting_crops_the_centre_and_leaves_the_right_size_alone():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    np.testing.assert_array_equal(np.asarray(images.fit(Image.fromarray(wide), (10, 10))), wide[:, 10:20])
    same = Image.fromarray(wide)
    assert images.fit(same, (10, 30)) is same


# --- Folders -------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_arrays_with_its_classes_in_order(photos):
    dataset = source.open_dataset(f"folder:{photos}")
    pixels, labels = source.load_split(dataset, "train")
    assert dataset.classes == ("blue", "red")
    assert pixels.shape == (24, 16, 16, 3)
    np.testing.assert_array_equal(labels, [0] * 12 + [1] * 12)
    np.testing.assert_array_equal(pixels[0], np.asarray(Image.open(photos / "train/blue/0.png")))
    assert pixels[labels == 0, :, :, 2].mean() > pixels[labels == 1, :, :, 2].mean()


def test_val_stands_for_test_and_hidden_and_loose_files_are_ignored(photos):
    (photos / "test").rename(photos / "val")
    (photos / "train" / "notes.txt").write_text("x")
    (photos / "train" / ".hidden").mkdir()
    (photos / "train" / "red" / ".DS_Store").write_text("x")
    (photos / "train" / "red" / "notes.txt").write_text("x")
    dataset = source.open_dataset(f"folder:{photos}")
    assert len(source.load_split(dataset, "train")[0]) == 24
    assert len(source.load_split(dataset, "test")[0]) == 8


def test_images_of_mixed_sizes_are_brought_to_one(photos):
    Image.new("RGB", (40, 20), (0, 0, 255)).save(photos / "train/blue/wide.png")
    assert source.load_split(source.open_dataset(f"folder:{photos}"), "train")[0].shape == (25, 128, 128, 3)
    dataset = source.open_dataset(f"folder:{photos}", (24, 24))
    assert source.load_split(dataset, "train")[0].shape == (25, 24, 24, 3)
    assert source.load_split(dataset, "test")[0].shape == (8, 24, 24, 3)


def spoil_missing(photos):
    return photos / "nowhere"


def spoil_no_train(photos):
    (photos / "train").rename(photos / "other")


def spoil_empty_train(photos):
    (photos / "train").rename(photos / "other")
    (photos / "train").mkdir()


def spoil_empty_class(photos):
    (photos / "train" / "green").mkdir()
    (photos / "test" / "green").mkdir()


def spoil_other_classes(photos):
    (photos / "test" / "red").rename(photos / "test" / "crimson")


def spoil_truncated(photos):
    whole = (photos / "train/red/3.png").read_bytes()
    (photos / "train/red/3.png").write_bytes(whole[: len(whole) // 2])


def spoil_no_image(photos):
    (photos / "train/red/3.jpg").write_text("this is no image")


def spoil_no_test(photos):
    (photos / "test").rename(photos / "other")


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (spoil_missing, 2, "nowhere"),
        (spoil_no_train, 2, "train/"),
        (spoil_no_test, 2, "test/"),
        (spoil_empty_train, 2, "no class folder"),
        (spoil_empty_class, 2, "green"),
        (spoil_other_classes, 2, "crimson"),
        (spoil_truncated, 1, "3.png"),
        (spoil_no_image, 1, "3.jpg"),
    ],
)
def test_a_bad_folder_is_one_line_and_leaves_nothing_behind(photos, poolzoo, tmp_path, spoil, code, says):
    place = spoil(photos) or photos
    out = tmp_path / "run"
    outcome = poolzoo("finetune", "--data", f"folder:{place}", "--backbone", "nano/plain", "--out", out, "-q")
    assert outcome.code == code
    lines = outcome.err.splitlines()
    assert len(lines) == 2
    assert says in lines[0]
    assert not out.exists()


# --- Data sets -----------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_in_a_stratified_split():
    from sklearn.datasets import load_digits

    train, test = digits.load("train"), digits.load("test")
    assert (len(train[0]), len(test[0])) == (1437, 360)
    everything = np.concatenate([train[0], test[0]])
    scans = {bytes((scan * 255 / 16).round().astype(np.uint8)) for scan in load_digits().images}
    assert {bytes(np.ascontiguousarray(image[..., 0])) for image in everything} == scans
    for labels in (train[1], test[1]):
        share = np.bincount(labels) / len(labels)
        np.testing.assert_allclose(share, np.bincount(load_digits().target) / 1797, atol=0.003)


def archive(evil: bool = False) -> bytes:
    """CIFAR-10's archive in small: five batches of 4 images and a test batch of 3, red falling from left to right."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, count in [*((f"data_batch_{i}", 4) for i in range(1, 6)), ("test_batch", 3)]:
            planes = np.zeros((count, 3, 32, 32), np.uint8)
            planes[:, 0] = np.arange(32)
            part = {"data": planes.reshape(count, -1), "labels": [i % 10 for i in range(count)]}
            raw = pickle.dumps(eval if evil else part, protocol=2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return buffer.getvalue()


@pytest.fixture
def stand_in(monkeypatch):
    """A web server on this machine that has the small archive, in the place of the real one."""
    served = {"content": archive()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = served["content"]
            self.send_response(200)
            self.send_header("Content-Length", str(served.get("length", len(content))))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(cifar.CIFAR10, "url", f"http://127.0.0.1:{server.server_address[1]}/cifar-10-python.tar.gz")
    monkeypatch.setattr(cifar.CIFAR10, "tgz_md5", hashlib.md5(served["content"]).hexdigest())
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def test_cifar10_is_downloaded_once_checked_and_read(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    dataset = source.open_dataset("cifar10")
    pixels, labels = source.load_split(dataset, "train")
    assert pixels.shape == (20, 32, 32, 3)
    assert (pixels[0, 5, :, 0] == np.arange(32)).all()
    assert (pixels[..., 1:] == 0).all()
    assert labels.tolist() == [0, 1, 2, 3] * 5
    monkeypatch.setattr(cifar.CIFAR10, "url", "http://127.0.0.1:9/gone")
    assert len(source.load_split(dataset, "test")[0]) == 3
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["cifar-10-python.tar.gz"]


def test_cifar10_without_a_network_is_one_line_with_a_way_out(poolzoo, tmp_path, monkeypatch):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    outcome = poolzoo("finetune", "--data", "cifar10", "-q", "--out", tmp_path / "run")
    assert outcome.code == 4
    assert len(outcome.err.splitlines()) == 2
    assert "folder:PATH" in outcome.err
    assert not (tmp_path / "run").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing(stand_in, tmp_path):
    stand_in["length"] = len(stand_in["content"]) + 100
    with pytest.raises(EnvironmentProblem):
        cifar.load("train", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_is_not_the_published_one_is_refused(stand_in, tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"something else")
    with pytest.raises(CheckFailed, match="published"):
        cifar.load("train", tmp_path)


def test_a_pickle_that_asks_for_code_is_refused(stand_in, tmp_path, monkeypatch):
    evil = archive(evil=True)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(evil)
    monkeypatch.setattr(cifar.CIFAR10, "tgz_md5", hashlib.md5(evil).hexdigest())
    with pytest.raises(CheckFailed, match="eval"):
        cifar.load("train", tmp_path)


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), np.zeros(4, np.int64)),
        (np.zeros((4, 3, 8, 8), np.uint8), np.zeros(4, np.int64)),
        (np.zeros((4, 8, 8, 3), np.uint8), np.zeros(3, np.int64)),
        (np.zeros((4, 8, 8, 3), np.uint8), np.full(4, 7)),
        (np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64)),
    ],
)
def test_a_data_set_that_breaks_its_contract_is_named(pixels, labels):
    dataset = Dataset(name="odd", summary="", load=lambda split, cache_dir: (pixels, labels), classes=("a", "b"))
    with pytest.raises(PluginFailed, match="odd"):
        source.load_split(dataset, "train")


def test_folder_needs_the_splits_that_are_asked_for_only(photos):
    (photos / "train").rename(photos / "other")
    assert folder.dataset(photos, splits=("test",)).classes == ("blue", "red")
    with pytest.raises(UsageError):
        folder.dataset(photos)


# --- Batches -------------------------------------------------------------------------------------------------------


def served(count=50, size=8, batch=10, shift=2, flip=True, seed=0):
    pixels = np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    augmentation = batches.Augmentation(shift, flip)
    return pixels, batches.Batches(pixels, np.arange(count), batch, augmentation, seed, torch.device("cpu"))


def test_without_augmentation_every_image_comes_once():
    pixels, given = served(shift=0, flip=False)
    seen = []
    for images_, labels in given.epoch(1):
        np.testing.assert_array_equal(images_.numpy(), pixels[labels.numpy()])
        seen += labels.tolist()
    assert sorted(seen) == list(range(50))
    assert seen != list(range(50))


def test_every_augmented_image_is_a_mirrored_shift_of_its_original():
    """Brute force: each image must be one of the 2 × 25 that numpy's reflect padding, a crop and a flip can make."""
    pixels, given = served()
    kinds = set()
    for images_, labels in given.epoch(3):
        for image, index in zip(images_.numpy(), labels.tolist(), strict=True):
            padded = np.pad(pixels[index], ((2, 2), (2, 2), (0, 0)), mode="reflect")
            made = {
                (y, x, f): (padded[y : y + 8, x : x + 8][:, ::-1] if f else padded[y : y + 8, x : x + 8])
                for y in range(5)
                for x in range(5)
                for f in (False, True)
            }
            found = [kind for kind, candidate in made.items() if np.array_equal(candidate, image)]
            assert len(found) == 1
            kinds |= set(found)
    assert len(kinds) > 25
    assert {kind[2] for kind in kinds} == {False, True}


def test_an_epoch_is_the_same_for_the_same_number_and_another_for_another():
    _, given = served()
    first, again, second = (torch.cat([x.flatten() for x, _ in given.epoch(n)]) for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_what_is_drawn_for_an_image_does_not_depend_on_the_batch_size():
    pixels, _ = served()
    rows = []
    for size in (5, 25):
        given = batches.Batches(pixels, np.arange(50), size, batches.Augmentation(2, True), 0, torch.device("cpu"))
        pairs = [
            (int(label), image.numpy().tobytes()) for x, y in given.epoch(1) for image, label in zip(x, y, strict=True)
        ]
        rows.append(pairs)
    assert rows[0] == rows[1]


def test_statistics_are_numpys():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)
    mean, std = batches.statistics(pixels)
    np.testing.assert_allclose(mean, (pixels / 255).mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(std, (pixels / 255).std((0, 1, 2)), atol=1e-6)
