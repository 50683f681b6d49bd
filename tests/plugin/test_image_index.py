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
