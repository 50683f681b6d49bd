"""Archives of arrays from strangers: what they promise is compared with what they hold."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from poolzoo.common import archive, files, npy
from poolzoo.common.errors import CheckFailed


def member(shape: str, kind: str = "<f4", content: bytes = b"") -> bytes:
    """A `.npy` file whose header says what it likes."""
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + content


def packed(path: Path, content: bytes, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as found:
        found.writestr("a.npy", content)
    return path


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (member("(1000000000000,)"), "has 0 bytes, and states float32"),
        (member("(0, 1000000000000)", "|V0"), "no plain numbers"),
        (member("(-1,)"), "is no shape"),
        (member("(1.5,)"), "shape"),
        (member("(1,)", "|O", b"pickled"), "no plain numbers"),
        (member("(2,)", "<f4", bytes(12)), "has 12 bytes"),
        (member("(" * 300), ""),
        (b"\x93NUMPY\x09\0\0\0", "version"),
        (b"", ""),
    ],
)
def test_an_array_that_promises_more_is_refused(tmp_path, content, text):
    with pytest.raises(CheckFailed, match=r"a\.npz cannot be read: ") as caught:
        files.read_archive(packed(tmp_path / "a.npz", content))
    assert text in caught.value.message


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 16)
    array = io.BytesIO()
    np.save(array, np.zeros(1 << 18, np.uint8))
    with pytest.raises(CheckFailed, match="it unpacks to 262,272 bytes, and 65,536 are the most"):
        files.read_archive(packed(tmp_path / "a.npz", array.getvalue()))


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_is_told_in_one_line_whatever_packs_it(tmp_path, how):
    file = packed(tmp_path / "a.npz", member("(64,)", "|u1", bytes(range(64))), how)
    assert files.read_archive(file)["a"].tolist() == list(range(64))
    content, refused = file.read_bytes(), 0
    for at in range(0, len(content), 5):
        file.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        with suppress(CheckFailed):
            files.read_archive(file)
            refused -= 1
        refused += 1
    assert refused > len(content) // 20


def test_a_name_that_is_missing_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", labels=np.arange(3))
    with pytest.raises(CheckFailed, match=r"a\.npz cannot be read: it has no logits"):
        files.read_arrays(tmp_path / "a.npz", ["logits", "labels"])


@pytest.mark.parametrize("second", ["a", "a.npy"])
def test_two_arrays_of_one_name_are_refused(tmp_path, second):
    """numpy takes one of them, and other readers the other."""
    file = packed(tmp_path / "a.npz", member("(4,)", "|u1", b"abcd"))
    with zipfile.ZipFile(file, "a") as found, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile says that the name is there
        found.writestr(second, member("(4,)", "|u1", b"efgh"))
    with pytest.raises(CheckFailed, match="two arrays of one name"):
        files.read_arrays(file, ["a"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("read", [files.read_archive, npy.mapped])
def test_a_pipe_in_the_place_of_arrays_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "a")
    with pytest.raises((CheckFailed, OSError), match="a pipe or a device"):
        read(tmp_path / "a")


def test_a_type_without_bytes_is_refused_before_it_is_mapped():
    for dtype in (np.dtype("V0"), np.dtype("S0"), np.dtype("U0"), np.dtype(object)):
        with pytest.raises(ValueError, match="no plain numbers"):
            npy.require("a.npy", (0,), dtype, 0)


def test_a_mapped_array_is_the_saved_one(tmp_path):
    for array in (np.arange(6, dtype=np.uint8).reshape(2, 3), np.asfortranarray(np.eye(3, 2))):
        np.save(tmp_path / "a.npy", array)
        found = npy.mapped(tmp_path / "a.npy")
        np.testing.assert_array_equal(found, array)
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"a\.npy has 49 bytes, and states float64"):
        npy.mapped(tmp_path / "a.npy")
