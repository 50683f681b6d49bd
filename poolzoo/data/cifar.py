"""CIFAR-10 as its authors publish it: downloaded once, checked, and read without running what a pickle may hold."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import socket
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CIFAR10

from poolzoo import output
from poolzoo.errors import CheckFailed, EnvironmentProblem
from poolzoo.spec import Split

NETWORK_TIMEOUT = 20.0  # seconds without a byte after which the download is given up

# The only globals that the archive's pickles need: numpy arrays and their Python 2 strings.
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise CheckFailed(f"the CIFAR-10 archive asks for {module}.{name}", "delete it and let it be fetched again")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load(split: Split, cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """One split: `(uint8[N, 32, 32, 3], int64[N])`, 50,000 or 10,000 images.

    Raises:
        EnvironmentProblem: The archive is not in the cache and cannot be fetched.
        CheckFailed: The archive is not the one that was published.
    """
    archive = _archive(cache_dir)
    parts = CIFAR10.train_list if split == "train" else CIFAR10.test_list
    images, labels = [], []
    with tarfile.open(archive) as tar:
        for file, _ in parts:
            member = tar.extractfile(f"{CIFAR10.base_folder}/{file}")
            assert member is not None  # the checksum was right
            part = _ArraysOnly(io.BytesIO(member.read()), encoding="latin1").load()
            images.append(part["data"])
            labels += part["labels"]
    planes = np.concatenate(images).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(labels, np.int64)


def _archive(cache_dir: Path) -> Path:
    path = cache_dir / CIFAR10.filename
    if path.is_file():
        _check(path)
    else:
        _download(path)
    return path


def _check(path: Path) -> None:
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 != CIFAR10.tgz_md5:
        raise CheckFailed(f"{path} is not the published CIFAR-10 archive (md5 {md5})", "delete it and try again")


def _download(path: Path) -> None:
    """Fetches the archive to a temporary file beside its place; it appears whole or not at all."""
    from urllib.error import URLError
    from urllib.request import urlopen

    path.parent.mkdir(parents=True, exist_ok=True)
    output.say(f"downloading CIFAR-10 to {path}")
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".download-")
    try:
        with os.fdopen(descriptor, "wb") as file, urlopen(CIFAR10.url, timeout=NETWORK_TIMEOUT) as answer:
            total = int(answer.headers.get("Content-Length") or 170_498_071)  # bytes of the published archive
            with output.progress("CIFAR-10", total / 1e6) as bar:
                done = 0
                while chunk := answer.read(1 << 20):
                    file.write(chunk)
                    done += len(chunk)
                    bar.update(done / 1e6, "MB")
        if done < total:
            raise URLError(f"{done} of {total} bytes came")
        _check(Path(temporary))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except (URLError, TimeoutError, ConnectionError, socket.gaierror) as error:
        reason = getattr(error, "reason", error)
        raise EnvironmentProblem(
            f"cifar10 cannot be downloaded ({reason})",
            f"put {CIFAR10.filename} into {path.parent}, or use --data folder:PATH or --data digits",
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
