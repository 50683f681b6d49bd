"""The built-in data sets: what their publishers give, downloaded once and checked."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import pickle
import re
import struct
import tarfile
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, FashionMNIST

from poolzoo.common.errors import CheckFailed, EnvironmentProblem
from poolzoo.data import source
from poolzoo.datasets import cifar, digits, mnist


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


@dataclass
class Web:
    """A web server on this machine, in the place of those that publish data sets."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    announced_too_much: int = 0


@pytest.fixture
def web():
    state = Web()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked.append(self.path.strip("/"))
            content = state.files.get(state.asked[-1])
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + state.announced_too_much))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def md5(raw: bytes) -> str:
    return hashlib.md5(raw).hexdigest()


def archive(folder: str, parts: dict[str, object]) -> bytes:
    """A gzipped tar of pickles, as the authors of CIFAR publish it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, part in parts.items():
            raw = pickle.dumps(part, protocol=2)
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return buffer.getvalue()


def cifar10_parts() -> dict[str, object]:
    """Five batches of 4 images and a test batch of 3, red falling from left to right."""
    parts = {}
    for name, count in [*((f"data_batch_{i}", 4) for i in range(1, 6)), ("test_batch", 3)]:
        planes = np.zeros((count, 3, 32, 32), np.uint8)
        planes[:, 0] = np.arange(32)
        parts[name] = {"data": planes.reshape(count, -1), "labels": [i % 10 for i in range(count)]}
    return parts


def publish(monkeypatch, web: Web, published: type[CIFAR10], raw: bytes) -> None:
    """Puts an archive in the place of the real one."""
    web.files[published.filename] = raw
    monkeypatch.setattr(published, "url", web.address + published.filename)
    monkeypatch.setattr(published, "tgz_md5", md5(raw))


@pytest.fixture
def small_cifar10(monkeypatch, web) -> Web:
    publish(monkeypatch, web, CIFAR10, archive("cifar-10-batches-py", cifar10_parts()))
    return web


def test_cifar10_is_downloaded_once_checked_and_read(small_cifar10, tmp_path, monkeypatch):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    dataset = source.open_dataset("cifar10")
    pixels, labels = source.load_split(dataset, "train")
    assert pixels.shape == (20, 32, 32, 3)
    assert (pixels[0, 5, :, 0] == np.arange(32)).all()
    assert (pixels[..., 1:] == 0).all()
    assert labels.tolist() == [0, 1, 2, 3] * 5
    assert len(source.load_split(dataset, "test")[0]) == 3
    assert small_cifar10.asked == ["cifar-10-python.tar.gz"]
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["cifar-10-python.tar.gz"]


def test_cifar100_is_what_torchvision_reads(monkeypatch, web, tmp_path):
    """With the fine labels: the coarse ones are 99 minus them here."""
    generator = np.random.default_rng(0)
    parts: dict[str, object] = {"meta": {"fine_label_names": [f"fine{i}" for i in range(100)]}}
    for name, count in (("train", 20), ("test", 6)):
        fine = generator.integers(0, 100, count).tolist()
        data = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        parts[name] = {"data": data, "fine_labels": fine, "coarse_labels": [99 - label for label in fine]}
    publish(monkeypatch, web, CIFAR100, archive("cifar-100-python", parts))
    dumps = {name: md5(pickle.dumps(part, protocol=2)) for name, part in parts.items()}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", dumps["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", dumps["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": dumps["meta"]})
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    dataset = source.open_dataset("cifar100")
    for split in ("train", "test"):
        pixels, labels = source.load_split(dataset, split)
        theirs = CIFAR100(tmp_path / "theirs", train=split == "train", download=True)
        np.testing.assert_array_equal(pixels, theirs.data)
        assert labels.tolist() == theirs.targets


def test_cifar100_has_its_hundred_names_in_alphabetical_order():
    names_ = source.open_dataset("cifar100").classes
    assert len(set(names_)) == 100
    assert list(names_) == sorted(names_)
    assert [names_.index(name) for name in ("apple", "cattle", "dinosaur", "worm")] == [0, 19, 29, 99]


def idx(entries: np.ndarray) -> bytes:
    sizes = struct.pack(f">{entries.ndim}I", *entries.shape)
    return gzip.compress(struct.pack("4B", 0, 0, 8, entries.ndim) + sizes + entries.tobytes(), mtime=0)


def publish_idx(monkeypatch, web: Web, published: type[MNIST], files: dict[str, bytes]) -> None:
    web.files |= files
    monkeypatch.setattr(published, "mirrors", [web.address])
    monkeypatch.setattr(published, "resources", [(name, md5(raw)) for name, raw in files.items()])


def small_mnist(train: int = 10, test: int = 4) -> dict[str, bytes]:
    generator = np.random.default_rng(0)
    return {
        f"{name}-{kind}-ubyte.gz": idx(generator.integers(0, most, (count, *size), dtype=np.uint8))
        for name, count in (("train", train), ("t10k", test))
        for kind, most, size in (("images-idx3", 256, (28, 28)), ("labels-idx1", 10, ()))
    }


@pytest.mark.parametrize(("name", "published"), [("mnist", MNIST), ("fashion-mnist", FashionMNIST)])
def test_mnist_and_fashion_mnist_are_what_torchvision_reads(monkeypatch, web, tmp_path, name, published):
    publish_idx(monkeypatch, web, published, small_mnist())
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    dataset = source.open_dataset(name)
    for split in ("train", "test"):
        pixels, labels = source.load_split(dataset, split)
        theirs = published(tmp_path / "theirs", train=split == "train", download=True)
        np.testing.assert_array_equal(pixels, theirs.data.numpy()[..., None].repeat(3, -1))
        assert labels.tolist() == theirs.targets.tolist()
    assert len(list((tmp_path / "cache" / name).iterdir())) == 4


def test_clothes_may_be_mirrored_and_digits_may_not():
    assert [source.open_dataset(name).flip for name in ("mnist", "digits", "fashion-mnist", "cifar100")] == [
        *(False, False, True, True)
    ]
    assert list(source.open_dataset("fashion-mnist").classes) == FashionMNIST.classes


def raw_idx(*head: int, sizes: tuple[int, ...] = (4,), entries: int = 4) -> bytes:
    return gzip.compress(bytes(head) + struct.pack(f">{len(sizes)}I", *sizes) + bytes(entries), mtime=0)


DAMAGED = {
    "no gzip": (b"no gzip at all", "gzip"),
    "cut off": (raw_idx(0, 0, 8, 1)[:-6], "end-of-stream"),
    "another type": (raw_idx(0, 0, 9, 1), "00 00 09 01"),
    "another magic": (raw_idx(1, 0, 8, 1), "01 00 08 01"),
    "more dimensions": (raw_idx(0, 0, 8, 3, sizes=(4, 1, 1)), "00 00 08 03"),
    "no sizes": (raw_idx(0, 0, 8, 1, sizes=(), entries=2), "begins with"),
    "too few": (raw_idx(0, 0, 8, 1, entries=3), "3 bytes for 4"),
    "too many": (raw_idx(0, 0, 8, 1, entries=5), "5 bytes for 4"),
    "a huge size": (raw_idx(0, 0, 8, 1, sizes=(2**32 - 1,)), "4 bytes for 4294967295"),
}


@pytest.mark.parametrize(("raw", "says"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_idx_file_is_named_with_a_way_out(tmp_path, raw, says):
    (tmp_path / "labels.gz").write_bytes(raw)
    with pytest.raises(CheckFailed, match=re.escape(str(tmp_path / "labels.gz"))) as caught:
        mnist.read_idx(tmp_path / "labels.gz", 1)
    assert says in caught.value.message
    assert "delete it" in caught.value.hint


def test_images_without_labels_are_refused(monkeypatch, web, tmp_path):
    files = small_mnist(train=10) | {"train-labels-idx1-ubyte.gz": idx(np.zeros(9, np.uint8))}
    publish_idx(monkeypatch, web, MNIST, files)
    with pytest.raises(CheckFailed, match="10 images"):
        mnist.load("train", tmp_path)


def test_the_next_mirror_is_tried_after_missing_or_wrong_files(monkeypatch, web, tmp_path):
    publish_idx(monkeypatch, web, MNIST, small_mnist())
    web.files["odd/train-images-idx3-ubyte.gz"] = b"please log in to this network"
    mirrors = ["http://127.0.0.1:9/", f"{web.address}gone/", f"{web.address}odd/", web.address]
    monkeypatch.setattr(MNIST, "mirrors", mirrors)
    assert len(mnist.load("train", tmp_path)[0]) == 10
    file = "train-images-idx3-ubyte.gz"
    assert web.asked[:3] == [f"gone/{file}", f"odd/{file}", file]
    assert sorted(p.name for p in (tmp_path / "mnist").iterdir()) == [file, "train-labels-idx1-ubyte.gz"]


def test_a_download_that_is_not_the_published_file_leaves_nothing(small_cifar10, tmp_path):
    small_cifar10.files["cifar-10-python.tar.gz"] = b"please log in to this network"
    with pytest.raises(EnvironmentProblem, match="not the published file"):
        cifar.load("train", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist"])
def test_without_a_network_there_is_one_line_and_a_hint(poolzoo, tmp_path, monkeypatch, name):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    for published in (CIFAR10, CIFAR100):
        monkeypatch.setattr(published, "url", "http://127.0.0.1:9/gone")
    for published in (MNIST, FashionMNIST):
        monkeypatch.setattr(published, "mirrors", ["http://127.0.0.1:9/gone/"])
    outcome = poolzoo("finetune", "--data", name, "-q", "--out", tmp_path / "run")
    assert outcome.code == 4
    lines = outcome.err.splitlines()
    assert len(lines) == 2
    assert f"{name} cannot be downloaded" in lines[0]
    assert "folder:PATH" in lines[1]
    assert not (tmp_path / "run").exists()
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def test_a_download_that_breaks_off_leaves_nothing(small_cifar10, tmp_path):
    small_cifar10.announced_too_much = 100
    with pytest.raises(EnvironmentProblem):
        cifar.load("train", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_is_not_the_published_one_is_refused(small_cifar10, tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"something else")
    with pytest.raises(CheckFailed, match="published"):
        cifar.load("train", tmp_path)


def test_a_pickle_that_asks_for_code_is_refused(tmp_path, monkeypatch):
    evil = archive("cifar-10-batches-py", dict.fromkeys(cifar10_parts(), eval))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(evil)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(evil))
    with pytest.raises(CheckFailed, match="eval"):
        cifar.load("train", tmp_path)
