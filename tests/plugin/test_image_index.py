"""The index of a split: names in one buffer, parts of it, files that open by name, and its bytes an image."""

import pickle

import numpy as np
import pytest

from poolzoo import FileStorage, ImageIndex, Names

STEMS = ["ant/1.jpg", "", "bee/ü.png", "cat/\udcff.png", "a" * 300]


def test_names_come_back_in_any_order():
    names = Names.of(STEMS)
    assert list(names) == STEMS
    assert [names[place] for place in range(-5, 5)] == STEMS * 2
    assert list(names.take(np.array([4, 0, 2, 2]))) == [STEMS[4], STEMS[0], STEMS[2], STEMS[2]]
    assert list(names[1:4]) == STEMS[1:4]
    assert names == Names.of(STEMS) != Names.of(STEMS[::-1])
    with pytest.raises(IndexError):
        names[5]


def test_a_part_of_an_index_opens_its_own_files(tmp_path):
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).write_text(name * 3)
    whole = ImageIndex(FileStorage(str(tmp_path)), Names.of(["a", "b", "c", "d"]), np.arange(4, dtype=np.int32))
    part = pickle.loads(pickle.dumps(whole.take(np.array([3, 1, 0])).take(np.array([1, 0]))))
    assert part.labels.tolist() == [1, 3]
    with part.open(0) as first, part.open(1) as second:
        assert (first.read(), second.read()) == (b"bbb", b"ddd")
    assert part.where(1) == tmp_path / "d"
    assert part.stamp(1) == (3, (tmp_path / "d").stat().st_mtime_ns)


def test_an_index_takes_under_200_bytes_an_image():
    names = Names.of(f"class{place % 1000:04}/ILSVRC2012_train_{place:08}.JPEG" for place in range(10_000))
    index = ImageIndex(FileStorage("data"), names, np.zeros(10_000, np.int32), np.arange(10_000))
    assert index.nbytes < 100 * len(index)


def test_names_without_labels_are_refused():
    with pytest.raises(ValueError, match="as many labels"):
        ImageIndex(FileStorage("data"), Names.of(["a", "b"]), np.zeros(1, np.int32))


class Broken:
    """A storage that raises or gives what it is told."""

    place = "data"

    def __init__(self, gives: object) -> None:
        self.gives = gives

    def open(self, row: int, name: str) -> object:
        if isinstance(self.gives, BaseException):
            raise self.gives
        return self.gives

    stamp = open


def index_of(storage: object, rows: np.ndarray | None = None) -> ImageIndex:
    return ImageIndex(storage, Names.of(["a"]), np.zeros(1, np.int32), rows)


def test_the_size_of_an_index_is_that_of_its_parts():
    rows = np.zeros(1, np.int64)
    assert index_of(FileStorage("data")).nbytes == len(b"a") + 8 + 4
    assert index_of(FileStorage("data"), rows).nbytes == len(b"a") + 8 + 4 + 8
    with pytest.raises(ValueError, match="1 names need as many labels and rows"):
        index_of(FileStorage("data"), np.zeros(2, np.int64))


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        (KeyError("gone"), "open failed: KeyError: 'gone'"),
        (SystemExit(3), "open failed: SystemExit: 3"),
        (b"bytes", "open gave bytes, and no binary file"),
        (type("Readable", (), {"read": None})(), "open gave Readable, and no binary file"),
        (FileNotFoundError("not there"), "not there"),
    ],
    ids=["key", "exit", "bytes", "not seekable", "missing"],
)
def test_a_storage_that_cannot_open_is_an_input_error(gives, says):
    with pytest.raises(OSError, match=says):
        index_of(Broken(gives)).open(0)


@pytest.mark.parametrize("gives", [3, (1,), ("a", 2), ZeroDivisionError()], ids=str)
def test_a_storage_without_a_stamp_is_an_input_error(gives):
    with pytest.raises(OSError, match="stamp failed"):
        index_of(Broken(gives)).stamp(0)
    assert index_of(Broken((1.0, 2))).stamp(0) == (1, 2)


def test_a_storage_reads_the_row_of_an_image():
    class Rows:
        place = "data"

        def stamp(self, row: int, name: str) -> tuple[int, int]:
            return row, len(name)

    index = ImageIndex(Rows(), Names.of(["a", "bb"]), np.zeros(2, np.int32), np.array([7, 9]))
    assert [index.stamp(place) for place in (0, 1)] == [(7, 1), (9, 2)]
    assert index.take(np.array([1])).stamp(0) == (9, 2)
    plain = ImageIndex(Rows(), Names.of(["a", "bb"]), np.zeros(2, np.int32))
    assert plain.take(np.array([1, 0])).stamp(0) == (1, 2)
