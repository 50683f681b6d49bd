"""Weights, archives, downloads and caches: read as data, private, and of a size that has an end."""

from __future__ import annotations

import ast
import os
import pathlib
import sys
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from poolzoo.common.errors import CheckFailed, EnvironmentProblem
from poolzoo.data import disk
from poolzoo.data.check import rows as check_rows
from poolzoo.datasets import download
from poolzoo.model import compiled
from poolzoo.model.state_dict import read_state_dict

ROOT = Path(__file__).parents[2]


class Touches:
    """Makes a file where it is unpickled as a program."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pathlib.Path.touch, (pathlib.Path(self.place),)


@pytest.mark.parametrize("form", ["plain", "in a state dict", "old format"])
def test_weights_that_are_more_than_tensors_are_refused(tmp_path, form):
    mark, path = tmp_path / "executed", tmp_path / "weights.pth"
    content = Touches(mark) if form == "plain" else {"state_dict": {"weight": torch.ones(1), "more": Touches(mark)}}
    torch.save(content, path, _use_new_zipfile_serialization=form != "old format")
    with pytest.raises(CheckFailed):
        read_state_dict(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the check of the check
    assert mark.exists()


def test_a_download_without_end_is_ended(tmp_path, monkeypatch):
    class Endless(BytesIO):
        headers: ClassVar[dict[str, str]] = {}

        def read(self, size: int = -1) -> bytes:
            return bytes(size)

    monkeypatch.setattr(download, "MAX_BYTES", 5 << 20)
    monkeypatch.setattr(download, "urlopen", lambda *_, **__: Endless())
    with pytest.raises(EnvironmentProblem, match="bytes came"):
        download.fetch(tmp_path / "file", ["https://example.org/file"], "0" * 32, "numbers")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="asks for permissions of POSIX")
def test_what_a_cache_keeps_is_private(tmp_path):
    shelf = disk.Shelf(tmp_path / "shelf", 1 << 30)
    before = os.umask(0)
    try:
        with shelf.building("key") as place:
            (place / "rows").write_bytes(b"pixels")
        disk.Shelf(tmp_path / "empty", 1 << 30).room(1)
        (tmp_path / "earlier").mkdir()
        (tmp_path / "earlier" / "a.rows").touch()
        for folder in ("checks", "earlier"):
            with check_rows.kept(tmp_path / folder / "a.rows", 1):
                pass
    finally:
        os.umask(before)
    for name in ("shelf", "shelf/key", "empty", "checks", "checks/a.rows", "earlier/a.rows"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0, name
    for room in ("data", "datasets"):  # nothing there makes a folder that others can read, but for published data
        for path in (ROOT / "poolzoo" / room).rglob("*.py"):
            assert path.name == "download.py" or ".mkdir(" not in path.read_text(encoding="utf-8"), path


def test_no_file_is_made_in_a_shared_folder_by_a_known_name():
    """No source names /tmp, and one asks for it: there and in `tempfile`, names are random, and files are made anew."""
    for path in {*(ROOT / "poolzoo").rglob("*.py")} - {ROOT / "poolzoo/common/temporary.py"}:
        text = path.read_text(encoding="utf-8")
        if "/tmp" not in text and "gettempdir" not in text and "TEMP" not in text:
            continue
        tree = ast.parse(text)
        named = {"TMPDIR", "TEMP", "TMP"}  # variables for child processes
        documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
                assert node.value in named or not node.value.startswith(("/tmp", "/var/tmp", "TMP", "TEMP")), path
            assert not (isinstance(node, ast.Attribute) and node.attr.startswith("gettempdir")), path


def test_compiled_code_is_kept_in_our_own_cache(tmp_path, monkeypatch):
    """torch loads it again, from a folder of /tmp that another user may have made before."""
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(compiled.VARIABLE, "")
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    compiled.compiled(torch.nn.Identity())
    place = Path(os.environ[compiled.VARIABLE])
    assert place == tmp_path / "cache" / "inductor"
    assert place.stat().st_mode & 0o077 == 0 or os.name == "nt"
    monkeypatch.setenv(compiled.VARIABLE, str(tmp_path / "own"))
    compiled.compiled(torch.nn.Identity())
    assert os.environ[compiled.VARIABLE] == str(tmp_path / "own")
    for path in (ROOT / "poolzoo").rglob("*.py"):
        assert path.name == "compiled.py" or "torch.compile(" not in path.read_text(encoding="utf-8"), path


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path):
    from poolzoo.common import files

    (tmp_path / "victim").write_text("kept")
    (tmp_path / "report.json").symlink_to(tmp_path / "victim")
    files.write_atomically(tmp_path / "report.json", "new")
    assert (tmp_path / "victim").read_text() == "kept"
    assert not (tmp_path / "report.json").is_symlink()
