"""Every row of docs/reference/images.md: what an odd file becomes, alone, in threads, processes, and each source."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
import tarfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from support import odd_files

from poolzoo.data import images, source

PAGE = Path(__file__).parents[2] / "docs/reference/images.md"
NEEDS = {"AVIF": lambda: features.check("avif"), "HEIC": lambda: importlib.util.find_spec("pillow_heif") is not None}


def readable_here(kind: str) -> bool:
    return kind not in NEEDS or NEEDS[kind]()


def written(folder: Path, kind: str) -> list[tuple[Path, np.ndarray | str]]:
    """Writes the files of a row; each with what it must become."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, make in enumerate(odd_files.ROWS[kind]):
        stem = f"{list(odd_files.ROWS).index(kind):02}-{number}"
        expected = make(folder / stem)
        (path,) = folder.glob(f"{stem}.*")
        found.append((path, expected))
    return found


def assert_same(kind: str, pixels: np.ndarray, expected: np.ndarray) -> None:
    tolerance = 3 if kind in odd_files.LOSSY or "EXIF" in kind else 0
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), expected, atol=tolerance, err_msg=kind)


def test_the_page_has_these_rows():
    rows = re.findall(r"^\| ([^|]+?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [row for row in rows if row not in ("file", "---")] == list(odd_files.ROWS)


@pytest.mark.parametrize("kind", odd_files.ROWS)
def test_an_odd_file_becomes_what_its_row_says(tmp_path, kind):
    if not readable_here(kind):
        pytest.skip(f"{kind} needs a library")
    for path, expected in written(tmp_path / "x", kind):
        if isinstance(expected, str):
            with pytest.raises(images.Unreadable) as caught:
                images.read(path)
            assert expected in images.reason(caught.value)
        else:
            assert_same(kind, images.read(path), expected)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("ending", [".jpg", ".tif", ".webp", ".png"])
def test_all_orientations_are_those_of_the_standard(tmp_path, ending, number):
    """The corner that is the first of the first row in what is seen, by the EXIF standard 2.3, tag 0x0112."""
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[number]
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :24] = 255  # its first row and its first column
    exif = Image.Exif()
    exif[0x0112] = number
    Image.fromarray(stored).save(tmp_path / f"x{ending}", exif=exif)
    found = images.read(tmp_path / f"x{ending}")
    assert found.shape == ((48, 32, 3) if number > 4 else (32, 48, 3))
    bright = found[[4, 4, -4, -4], [4, -4, 4, -4]].mean(1) > 128
    assert bright.tolist() == [place == corner for place in ((0, 0), (0, -1), (-1, 0), (-1, -1))]


def as_folder(root: Path, files: list[Path]) -> str:
    return f"folder:{root}"


def as_table(root: Path, files: list[Path]) -> str:
    with (root / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        writer.writerows((path.relative_to(root), "odd") for path in files)
    return f"csv:{root / 'table.csv'}"


def as_parquet(root: Path, files: list[Path]) -> str:
    pytest.importorskip("datasets.features")  # `tests/datasets` may be importable by its last name
    import datasets

    rows = {"image": [{"bytes": path.read_bytes(), "path": None} for path in files], "label": ["odd"] * len(files)}
    made = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image(decode=False))
    made.to_parquet(root / "train-00000-of-00001.parquet")
    return f"parquet:{root}"


def as_shards(root: Path, files: list[Path]) -> str:
    pytest.importorskip("webdataset")
    with tarfile.open(root / "train-0000.tar", "w") as tar:
        for path in files:
            for name, content in ((path.name, path.read_bytes()), (f"{path.stem}.cls", b"0")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return f"shards:{root}/train-0000.tar"


DOORS: dict[str, Callable[[Path, list[Path]], str]] = {
    "folder": as_folder,
    "csv": as_table,
    "parquet": as_parquet,
    "shards": as_shards,
}


@pytest.mark.filterwarnings("ignore")  # of datasets and its parts
@pytest.mark.parametrize("door", DOORS)
def test_odd_files_come_through_every_source_alike(tmp_path, monkeypatch, door):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    kinds = [kind for kind in odd_files.ROWS if readable_here(kind)]
    known = [(kind, *one) for kind in kinds for one in written(root / "train/odd", kind)]
    data = source.open_dataset(DOORS[door](root, [path for _, path, _ in known]), splits=("train",), skip="all")
    pixels, labels = source.load_split(data, "train")
    whole = [(kind, expected) for kind, _, expected in known if not isinstance(expected, str)]
    assert len(pixels) == len(labels) == len(whole)
    for (kind, expected), found in zip(whole, pixels, strict=True):
        assert_same(kind, found, expected)
    reader = source.reader(data)
    assert reader is not None
    assert len(reader.skipped) == len(known) - len(whole)


def read_row(index, position):
    """In a worker process."""
    with index.open(position) as file:
        try:
            return images.read(file)
        except images.Unreadable as error:
            return images.reason(error)


def test_worker_processes_read_them_alike(tmp_path):
    kinds = [kind for kind in odd_files.ROWS if readable_here(kind)]
    known = [(kind, expected) for kind in kinds for _, expected in written(tmp_path / "train/odd", kind)]
    _, indices = source.open_indices(f"folder:{tmp_path}")
    index = indices["train"]
    assert len(index) == len(known)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for (kind, expected), found in zip(
            known, pool.map(read_row, [index] * len(index), range(len(index))), strict=True
        ):
            if isinstance(expected, str):
                assert expected in found
            else:
                assert_same(kind, found, expected)


def test_heic_without_its_library_is_named(tmp_path, monkeypatch, capsys):
    if readable_here("HEIC"):
        pytest.skip("pillow-heif is installed")
    for split in ("train", "test"):
        odd_files.odd_images.color_with_alpha(folder(tmp_path / split / "ant") / "0.png")
        (tmp_path / split / "ant/1.heic").write_bytes(b"\0\0\0\x18ftypheic")
    source.open_dataset(f"folder:{tmp_path}")
    assert "2 .heic (pip install pillow-heif)" in capsys.readouterr().err


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
